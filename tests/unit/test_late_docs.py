"""Every Python block of docs/late-interaction.md runs, in its order."""

from __future__ import annotations

import pytest

import crossrank
from pages import DOCS, blocks

PAGE = DOCS / "late-interaction.md"


@pytest.mark.skipif(not PAGE.is_file(), reason="docs/ is not in this distribution")
def test_the_page_runs(tmp_path, monkeypatch, capsys):
    index = pytest.importorskip("crossrank.index", reason="needs the search extra")
    monkeypatch.chdir(tmp_path)
    embedder = crossrank.load_embedder()
    made = index.Index.create("my.index", embedder, embedder.tokenizer, model="embed")
    made.add([index.Document("faq", "Failed uploads are retried three times.")], embedder, embedder.tokenizer)
    code = blocks(PAGE)
    assert len(code) == 3
    for block in code:
        # Each by itself: a reader copies one.
        exec(compile(block, str(PAGE), "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[2] == "['bm25', 'dense', 'fused', 'late', 'fine']"
    assert lines[3].startswith("{'faq")
