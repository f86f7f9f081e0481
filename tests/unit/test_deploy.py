"""Do the files in deploy/ agree with the server, and with what runs them?"""

from __future__ import annotations

import configparser
import json
import re
from pathlib import Path

from crossrank.server.descriptors import RESERVE
from crossrank.server.limits import Limits

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


def test_a_container_ends_before_it_is_killed() -> None:
    # `docker stop` and `podman stop` kill after 10 s, and the drain was 30 s.
    (entry,) = re.findall(r"^ENTRYPOINT (.*)$", (DEPLOY / "Containerfile").read_text(encoding="utf-8"), re.MULTILINE)
    arguments = json.loads(entry)
    assert float(arguments[arguments.index("--drain") + 1]) <= 8


def test_the_unit_of_systemd_has_time_and_descriptors() -> None:
    unit = configparser.ConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DEPLOY / "crossrank.service", encoding="utf-8")
    assert int(unit["Service"]["TimeoutStopSec"]) > Limits().drain_seconds
    assert int(unit["Service"]["LimitNOFILE"]) >= Limits().connections + RESERVE
