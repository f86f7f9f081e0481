"""benchmarks/quality.py from end to end on a set of 12 documents, with the backend that needs no model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from crossrank.evaluation import read_run

pytest.importorskip("ir_measures", reason="needs the extra eval")
pytest.importorskip("lance", reason="needs the extra search")

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="benchmarks/ is not in this distribution")


def run(*arguments: object) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, str(ROOT / "benchmarks" / "quality.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def make_data(folder: Path) -> Path:
    for name, query in (("cacm", "paris"), ("noveleval", "bread")):
        words = ["paris", "france", "bread", "yeast", "cat", "planet"]
        rows = [{"_id": f"d{i}", "title": "", "text": f"the {word} is {word}"} for i, word in enumerate(words * 2)]
        rows[6:] = [{**row, "text": row["text"] + " of the capital" * 40} for row in rows[6:]]
        target = folder / name
        (target / "qrels").mkdir(parents=True)
        (target / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        queries = [{"_id": f"q{i}", "text": f"what is {query}"} for i in range(3)]
        (target / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)), encoding="utf-8")
        judgments = [f"q{i}\td{place}\t{int(place == 2)}" for i in range(3) for place in range(4)]
        (target / "qrels" / "test.tsv").write_text("\n".join(judgments), encoding="utf-8")
    return folder


@pytest.mark.slow
def test_quality(tmp_path: Path, cross_encoder_folder: Path, bi_encoder_folder: Path) -> None:
    data, out = make_data(tmp_path / "data"), tmp_path / "made" / "quality.json"
    common = [data, "--cache", tmp_path / "cache", "--model", cross_encoder_folder, "--embedder", bi_encoder_folder]
    common += ["--backend", "fake", "--queries", 2, "--depth", 5, "--threads", 1]
    table = run(*common, "--sweep", "--runs", tmp_path / "runs", "--out", out)
    found = json.loads(out.read_text(encoding="utf-8"))
    assert [(one["set"], one["over"], one["queries"], one["judged_queries"]) for one in found["sets"]] == [
        ("cacm", "fused", 2, 3),
        ("noveleval", "fused", 2, 3),
        ("noveleval", "its 20 judged candidates", 2, 3),
    ]
    assert found["sets"][1]["systems"]["bm25"]["mean"] == 1.0
    assert found["sets"][0]["sweep"]["0.0"] == found["sets"][0]["systems"]["fused"]["mean"]
    assert found["sets"][0]["sweep"]["1.0"] == found["sets"][0]["systems"]["cross-encoder"]["mean"]
    assert found["machine"]["threads"] == 1
    assert str(tmp_path) not in out.read_text(encoding="utf-8") + table
    assert "| cacm | 2 |" in table
    assert "Queries were sampled (seed 0): cacm 2 of 3" in table
    assert len(read_run(tmp_path / "runs" / "noveleval.given.cross-encoder.trec")) == 2
    # A second run answers from the cache, and with split documents their best passage counts.
    again = json.loads(run(*common, "--sets", "cacm", "--passage-tokens", 20).splitlines()[-1])
    assert again["sets"][0]["documents"] == 12
    assert again["sets"][0]["systems"]["rrf"]["queries"] == 2
    given = json.loads(run(*common, "--only", "given", "--sweep").splitlines()[-1])
    assert [one["over"] for one in given["sets"]] == ["its 20 judged candidates"]
