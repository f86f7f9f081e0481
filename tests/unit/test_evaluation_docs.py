"""The Python of docs/evaluation.md and docs/trust.md runs as it stands there."""

from __future__ import annotations

from pathlib import Path

import pytest

import crossrank
from pages import DOCS, blocks

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="docs/ is not in this distribution")


def run(page: str) -> None:
    code = blocks(DOCS / page)
    assert code
    for block in code:
        # Each by itself: a reader copies one.
        exec(compile(block, page, "exec"), {})


def test_runs_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ir_measures", reason="needs the extra eval")
    monkeypatch.chdir(tmp_path)
    Path("judged.tsv").write_text("q1\td1\t1\nq2\td1\t1\n", encoding="utf-8")
    # By their rank column d1 would be first; trec_eval has equal scores by document id, from the end.
    Path("old.trec").write_text("q1 Q0 d1 1 1 t\nq1 Q0 d2 2 1 t\nq2 Q0 d1 1 1 t\n", encoding="utf-8")
    Path("new.trec").write_text("q1 Q0 d1 1 2 t\nq2 Q0 d1 1 1 t\n", encoding="utf-8")
    run("evaluation.md")
    # Half of what rank 2 costs: 1 - 1 / log2(3).
    assert capsys.readouterr().out.startswith("0.185 [")


def test_evidence_and_remembered_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    index = pytest.importorskip("crossrank.index", reason="needs the extra search")
    monkeypatch.chdir(tmp_path)
    embedder = crossrank.load_embedder()
    made = index.Index.create("my.index", embedder, embedder.tokenizer, model="embed")
    made.add([index.Document("faq", "Failed uploads are retried.")], embedder, embedder.tokenizer)
    run("trust.md")
    assert "A failed upload is tried again with `retry`." in capsys.readouterr().out.splitlines()[0]
