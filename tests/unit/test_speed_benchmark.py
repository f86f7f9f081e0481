"""benchmarks/speed.py from end to end on a tiny model: who is measured, who is left out and why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="benchmarks/ is not in this distribution")


def test_contenders_are_timed_and_the_rest_is_named(cross_encoder_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "speed.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "speed.py"), "--model", str(cross_encoder_folder)]
    command += ["--contenders", "crossrank/reference", "crossrank", "crossrank/fake", "nobody", "--share", "0.1"]
    command += ["--repeats", "2", "--queries", "3", "--threads", "1", "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text(encoding="utf-8"))
    assert list(found["contenders"]) == ["crossrank/reference", "crossrank"]
    reference = found["contenders"]["crossrank/reference"]
    assert reference["kendall_tau"] == 1
    assert len(reference["short"]["seconds"]) == 2
    assert reference["short"]["pairs_a_second"] > 0
    assert 0 < reference["query_ms"]["median"] <= reference["query_ms"]["p99"]
    assert found["workloads"]["short"]["pairs"] == 100
    assert found["machine"]["threads"] == 1
    # Fast with other scores is no contender, and an unknown name stops nobody else.
    assert "as the reference backend does" in found["missing"]["crossrank/fake"]
    assert "nobody" in found["missing"]["nobody"]
    rows = [line for line in done.stdout.splitlines() if line.startswith("| crossrank")]
    assert len(rows) == 2
    assert "| 1.00 |" in rows[0]
    assert "Left out:" in done.stdout
