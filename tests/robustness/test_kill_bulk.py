"""kill -9 of a bulk reranking and its workers, the quick version of `benchmarks/bulk.py --pairs 200000`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from crossrank import extras

ROOT = Path(__file__).parents[2]
PAIRS = 3_000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked for in /proc"),
]
RAY = pytest.mark.skipif(not extras.available("ray"), reason="needs the ray extra")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("way", ["processes", pytest.param("ray", marks=RAY)])
def test_nothing_is_lost_or_scored_twice(way: str, cross_encoder_folder: Path) -> None:
    asked = ["--pairs", str(PAIRS), "--part-tokens", "2000", "--model", str(cross_encoder_folder), "--workers", "2"]
    command = [sys.executable, str(ROOT / "benchmarks" / "bulk.py"), *asked, "--ways", way]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    runs = {run["killed"]: run for run in figures["runs"]}
    assert [(killed, run["same"]) for killed, run in runs.items()] == [
        ("nobody", True),
        ("leader", True),
        ("worker", True),
    ]
    leader = runs["leader"]
    assert leader["kept"] > 0
    assert leader["scored"] > 0
    assert leader["kept"] + leader["scored"] == PAIRS
    # The run itself replaced its dead worker: the command that followed found everything done.
    assert (runs["worker"]["kept"], runs["worker"]["scored"]) == (PAIRS, 0)
