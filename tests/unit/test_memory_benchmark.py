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


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "memory.py"), *map(str, arguments), "--threads", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_memory_over_the_weights_is_told_by_pairs(tmp_path: Path) -> None:
    out = tmp_path / "new" / "memory.json"
    done = run("--pairs", 1, 40, "--tokens", 64, "--models", "fast", "--out", out)
    assert done.returncode == 0, done.stderr
    few, many = json.loads(out.read_text(encoding="utf-8"))["rows"]
    assert (few["pairs"], many["pairs"]) == (1, 40)
    for row in (few, many):
        assert row["finite"]
        assert row["before_mb"] > 20
        assert 0 <= row["over_mb"] < 400


def test_what_a_process_of_its_own_says_is_seen(tmp_path: Path) -> None:
    done = run("--pairs", 1, "--models", tmp_path / "nothing")
    assert done.returncode == 1
    assert "CheckpointError" in done.stderr
    assert done.stderr.rstrip().endswith(f"{tmp_path / 'nothing'} over 1 pairs ended with 1; what it said is above")


def test_a_result_without_a_place_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert f"{tmp_path} is a folder; name a file" in run("--out", tmp_path).stderr
    assert "cannot be made: " in run("--out", tmp_path / "file" / "memory.json").stderr
