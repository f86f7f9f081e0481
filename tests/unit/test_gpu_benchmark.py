"""benchmarks/gpu.py from end to end on a tiny model and the CPU: who is measured, who is left out and why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from crossrank import extras

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="benchmarks/ is not in this distribution"),
    pytest.mark.skipif(not extras.available("torch"), reason="the extra torch is not installed"),
]


def test_contenders_are_timed_and_the_rest_is_named(cross_encoder_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    ours, theirs = "crossrank/float32", "transformers/eager/float32/32"
    contenders = [ours, "crossrank/bfloat16/padded", "crossrank/float32/nothing", "nobody"]
    if extras.available("transformers"):
        contenders.append(theirs)
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--model", str(cross_encoder_folder)]
    command += ["--contenders", *contenders, "--pairs", "200"]
    command += ["--repeats", "1", "--queries", "2", "--device", "cpu", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text(encoding="utf-8"))
    row = found["contenders"][ours]
    assert row["kendall_tau"] == 1
    assert row["kinds"] == ["text", "ids", "tokens"]
    for kind in row["kinds"]:
        assert row["short"][kind]["pairs_a_second"] > 0
        assert 0 < row["query100"][kind]["median_ms"] <= row["query100"][kind]["p99_ms"]
    assert found["workloads"]["short"]["pairs"] == 200
    assert found["workloads"]["long"]["pairs"] == 40
    assert set(found["missing"]) == {"crossrank/float32/nothing", "nobody"}
    assert "no part 'nothing'" in found["missing"]["crossrank/float32/nothing"]
    if extras.available("transformers"):
        assert found["contenders"][theirs]["kendall_tau"] == 1
        assert found["contenders"][theirs]["kinds"] == ["tokens"]
    assert "Left out:" in done.stdout
