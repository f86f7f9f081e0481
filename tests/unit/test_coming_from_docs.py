"""Every Python block of docs/coming-from.md runs, a section at a time."""

from __future__ import annotations

from typing import Any

import pytest

from apiserver import completion, serving
from pages import DOCS, blocks, sections

PAGE = DOCS / "coming-from.md"
ADDRESS = "http://localhost:8000/v1"
# What a section needs besides the base install, and what a line of its output holds.
NEEDS = {
    "sentence-transformers": ([], "Paris is the capital of France."),
    "FlashRank": ([], "'id': 2"),
    "ColBERT, RAGatouille, PyLate": ([], "Paris is the capital of France."),
    "RankGPT, RankLLM": (["httpx"], "Tea is a hot drink."),
    "pytrec_eval, ranx": (["ir_measures"], "d1 0.0325\nd3 0.0323\nd2 0.0161\n{'ndcg_cut_10': {'q1': 1.0}}"),
}

pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="docs/ is not in this distribution")


def test_every_section_with_code_is_run() -> None:
    assert set(sections(PAGE)) == set(NEEDS)


def test_a_block_that_is_copied_alone_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """The dictionary of a run was in the block before."""
    pytest.importorskip("ir_measures", reason="ir_measures is not installed")
    measured = next(code for code in blocks(PAGE) if "per_query" in code)
    exec(compile(measured, str(PAGE), "exec"), {"__name__": "page"})
    assert capsys.readouterr().out == "{'ndcg_cut_10': {'q1': 1.0}}\n"


def answer(path: str, body: dict[str, Any]) -> Any:
    """A chat model that finds the second document best."""
    return completion('{"order": [1, 0]}')


@pytest.mark.parametrize("section", NEEDS)
def test_the_code_of_a_section_runs(section: str, capsys: pytest.CaptureFixture[str]) -> None:
    modules, said = NEEDS[section]
    for module in modules:
        pytest.importorskip(module, reason=f"{module} is not installed")
    with serving(answer) as api:
        code = sections(PAGE)[section].replace(ADDRESS, api.url)
        exec(compile(code, f"{PAGE}: {section}", "exec"), {"__name__": "page"})
    assert said in capsys.readouterr().out
