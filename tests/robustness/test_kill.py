"""SIGKILL at random moments, the quick version. `benchmarks/kill_index.py --kills 200` is the long one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("lance", reason="needs the search extra")

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_killed_updates_lose_nothing() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "kill_index.py"), "--kills", "6", "--passages", "1000"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([*command, "--commit", "128"], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["kills"] == 6
    assert (figures["failed_opens"], figures["lost_passages"], figures["wrong_answers"]) == (0, 0, 0)
