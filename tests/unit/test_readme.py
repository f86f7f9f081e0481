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


def parted(line: str) -> tuple[list[float], str]:
    """The decimal numbers of a line, and the line without them."""
    decimal = r"-?\d+\.\d+"
    return [float(number) for number in re.findall(decimal, line)], re.sub(decimal, "#", line)


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
    assert [parted(line)[1] for line in stated] in ([], [parted(line)[1] for line in printed])
    for line, found in zip(stated, printed, strict=False):
        # A score is a hundredth larger or smaller in another tier's bfloat16, which a rounded one tells as a tenth.
        assert parted(line)[0] == pytest.approx(parted(found)[0], abs=0.11)
