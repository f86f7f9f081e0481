"""benchmarks/memory.py from end to end on few pairs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="benchmarks/ is not in this distribution"),
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="this system does not forget a peak"),
]


def test_memory_over_the_weights_is_told_by_pairs(tmp_path: Path) -> None:
    out = tmp_path / "memory.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "memory.py"), "--pairs", "1", "40", "--tokens", "64"]
    command += ["--models", "fast", "--threads", "1", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
    assert done.returncode == 0, done.stderr
    few, many = json.loads(out.read_text(encoding="utf-8"))["rows"]
    assert (few["pairs"], many["pairs"]) == (1, 40)
    for row in (few, many):
        assert row["finite"]
        assert row["before_mb"] > 20
        assert 0 <= row["over_mb"] < 400
