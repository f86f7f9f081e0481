"""benchmarks/tune_gate.py takes up its own finished runs and no others; test_training.py has what the gate says."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

for library in ("torch", "transformers", "bm25s", "ir_measures", "lance"):
    pytest.importorskip(library, reason="needs the extra train")

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="benchmarks/ is not in this distribution"),
]


def judged_set(folder: Path, word: str) -> None:
    (folder / "qrels").mkdir(parents=True)
    rows = [{"_id": f"d{i}", "title": "", "text": f"{word} {i}"} for i in range(4)]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (folder / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "what is it"}), encoding="utf-8")
    rows = ["query-id\tcorpus-id\tscore", *(f"q\td{i}\t{int(i == 0)}" for i in range(4))]
    (folder / "qrels" / "train.tsv").write_text("\n".join(rows), encoding="utf-8")


def test_a_finished_run_of_other_data_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import tune_gate

    tunings = []

    def tuned(*_: Any, **__: Any) -> None:
        tunings.append(1)

    monkeypatch.setattr(tune_gate, "tune", tuned)
    monkeypatch.setattr(tune_gate, "facts", lambda _: {"kept": "base", "reasons": []})
    judged_set(tmp_path / "one" / "own", "bread")
    judged_set(tmp_path / "two" / "own", "planet")

    def run(data: str) -> None:
        given = [str(tmp_path / data), "--set", "own", "--seeds", "0", "--kinds", "shuffled"]
        monkeypatch.setattr(sys, "argv", ["tune_gate.py", *given, "--work", str(tmp_path / "work")])
        tune_gate.main()

    run("one")
    run("one")
    assert len(tunings) == 1
    with pytest.raises(SystemExit, match=r"own-shuffled-500-0\.json is of other data, settings or model: delete it"):
        run("two")
    assert len(tunings) == 1
