"""benchmarks/gpu.py from end to end on a tiny model and the CPU: who is measured, who is left out and why."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from argparse import Namespace
from contextlib import ExitStack
from pathlib import Path
from typing import Any

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
    assert set(row["query100"]) == {"text", "ids", "tokens", "cold_text"}
    assert found["workloads"]["short"]["pairs"] == 200
    assert found["workloads"]["long"]["pairs"] == 40
    assert set(found["missing"]) == {"crossrank/float32/nothing", "nobody"}
    assert "no part 'nothing'" in found["missing"]["crossrank/float32/nothing"]
    if extras.available("transformers"):
        assert found["contenders"][theirs]["kendall_tau"] == 1
        assert found["contenders"][theirs]["kinds"] == ["tokens"]
    assert "Left out:" in done.stdout
    assert " cold)" in done.stdout


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("gpu")


def test_every_query_is_timed_when_its_graphs_are_there(gpu: Any) -> None:
    planned = gpu.rounds(Namespace(repeats=2, queries=3))
    assert planned[:4] == [("short", ""), ("short", "short"), ("short", "short"), ("long", "")]
    for count in gpu.PASSAGES:
        for turn in range(3):
            kept = [under for asked, under in planned if asked == f"query{count}-{turn}"]
            assert kept == [f"query{count} cold", "", f"query{count}"], "the second time, a graph is captured"


def test_memory_of_torch_and_of_the_card_are_of_the_same_work(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    class Worker:
        def __init__(self, *given: Any) -> None:
            self.ready = {"kinds": ["text"]}

        def ask(self, request: dict[str, str]) -> dict[str, Any]:
            events.append(" ".join(request.values()) or "torch")
            return {"scores": [1.0, 2.0], "seconds": 1.0, "mib": 70.0}

        def close(self) -> None:
            pass

    def used() -> float:
        events.append("card")
        return 100.0 * len(events)

    monkeypatch.setattr(gpu, "Worker", Worker)
    monkeypatch.setattr(gpu, "used_mib", used)
    with ExitStack() as stack:
        run = gpu.one("x", Path("model"), {"expected": [1.0, 2.0]}, Namespace(device="cpu"), stack)
    assert events == ["card", "check", "short/text", "long/text", "torch", "card"]
    assert (run.torch_mib, run.card_mib) == (70, 500)
