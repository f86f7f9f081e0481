"""The blocks of README.md that need no index of the reader's run as they stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossrank.models import catalog
from pages import DOCS, blocks

PAGE = DOCS.parent / "README.md"

WEIGHTS = Path(catalog.__file__).parent / "weights"

pytestmark = [
    pytest.mark.skipif(not PAGE.is_file(), reason="README.md is not in this distribution"),
    pytest.mark.skipif(not (WEIGHTS / "small").is_dir(), reason="no model in this tree"),
]


def block(holds: str) -> str:
    """The one Python block that holds these words."""
    (found,) = [code for code in blocks(PAGE) if holds in code]
    return found


@pytest.mark.parametrize(
    ("holds", "best", "lines"),
    [
        ("scorer.rank(", "Transformer attention mechanism", 2),
        ("Index.create(", "faq A failed upload", 1),
        ("rrf([bm25, dense])", "doc_1", 5),
    ],
)
def test_a_block_runs_alone(
    holds: str,
    best: str,
    lines: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if holds == "Index.create(":
        pytest.importorskip("lance", reason="needs the search extra")
    monkeypatch.chdir(tmp_path)
    exec(compile(block(holds), f"{PAGE}: {holds}", "exec"), {"__name__": "page"})
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == lines
    assert best in printed[0]
