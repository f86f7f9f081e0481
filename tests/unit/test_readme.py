"""The blocks of README.md and docs/stages.md that need no index of the reader's run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from crossrank.models import catalog
from pages import DOCS, blocks

README, STAGES = DOCS.parent / "README.md", DOCS / "stages.md"

WEIGHTS = Path(catalog.__file__).parent / "weights"

pytestmark = [
    pytest.mark.skipif(not STAGES.is_file(), reason="the pages are not in this distribution"),
    pytest.mark.skipif(not (WEIGHTS / "small").is_dir(), reason="no model in this tree"),
]


def block(page: Path, holds: str) -> str:
    """The one Python block that holds these words."""
    (found,) = [code for code in blocks(page) if holds in code]
    return found


@pytest.mark.parametrize(
    ("page", "holds", "best", "lines"),
    [
        (README, "scorer.rank(", "Transformer attention mechanism", 2),
        (README, "Index.create(", "faq A failed upload", 1),
        (STAGES, "rrf([bm25, dense])", "doc_1", 5),
        (STAGES, "Scores(prior=newer)", "('2026', '2019')", 1),
    ],
)
def test_a_block_runs_alone(
    page: Path,
    holds: str,
    best: str,
    lines: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "Index.create(" in block(page, holds):
        pytest.importorskip("lance", reason="needs the search extra")
    monkeypatch.chdir(tmp_path)
    exec(compile(block(page, holds), f"{page}: {holds}", "exec"), {"__name__": "page"})
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == lines
    assert best in printed[0]
    stated = [line[2:] for line in block(page, holds).splitlines() if re.match(r"# +-?\d", line)]
    assert stated in ([], printed)
