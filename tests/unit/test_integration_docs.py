"""Every Python block of docs/integrations.md runs, a section at a time."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import pytest

import crossrank
from apiserver import completion, serving
from pages import DOCS, sections

PAGE = DOCS / "integrations.md"
ADDRESS = "http://localhost:8000/v1"
# What a section needs besides the base install, and what its first line of output says.
NEEDS = {
    "LlamaIndex": (["llama_index.core", "lance"], "Transformer attention mechanism"),
    "LangChain": (["langchain_core", "lance"], "Transformer attention mechanism"),
    "Haystack": (["haystack", "lance"], "Failed uploads are retried."),
    "PyTerrier": (["pyterrier", "lance"], "           name"),
    "An index that is updated": (["lance"], "Failed uploads are retried"),
    "A context for a language model": (["lance"], "[1]"),
    "A language model as the reranker": (["lance", "httpx"], "questions, "),
    "A rerank API as the reranker": (["lance", "httpx"], "(1, 0) [0.19 0.18] 1 request, 2 documents, "),
    "Embeddings from an address": (["lance", "httpx"], ""),
}


def test_every_section_with_code_is_run() -> None:
    assert set(sections(PAGE)) == set(NEEDS)


def answer(path: str, body: dict[str, Any]) -> Any:
    """A chat model that finds everything middling, a reranker that likes length, an embedder that counts letters."""
    if path.endswith("/rerank"):
        rows = [{"index": n, "relevance_score": len(text) / 100} for n, text in enumerate(body["documents"])]
        return {"results": rows}
    if path.endswith("/chat/completions"):
        return completion('{"score": 5}')
    rows = [[1.0 + text.count(letter) for letter in "abcdefgh"] for text in body["input"]]
    return {"data": [{"index": place, "embedding": row} for place, row in enumerate(rows)]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page's `my.index` lies."""
    index = pytest.importorskip("crossrank.index", reason="needs the search extra")
    base = tmp_path_factory.mktemp("page")
    (base / "faq.md").write_text("# Uploads\n\nFailed uploads are retried three times.\n", encoding="utf-8")
    (base / "bread.md").write_text("# Bread\n\nBread needs yeast.\n", encoding="utf-8")
    embedder = crossrank.load_embedder()
    made = index.Index.create(base / "my.index", embedder, embedder.tokenizer, model="embed")
    made.update([base / "faq.md", base / "bread.md"], embedder, embedder.tokenizer)
    return base


# The hosts warn of what they deprecate in themselves, at run time too.
@pytest.mark.filterwarnings("default::DeprecationWarning")
@pytest.mark.parametrize("section", NEEDS)
def test_the_code_of_a_section_runs(
    section: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
    modules, said = NEEDS[section]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in modules:
            pytest.importorskip(module, reason=f"{module} is not installed")
    monkeypatch.chdir(request.getfixturevalue("folder") if "lance" in modules else Path.cwd())
    with serving(answer) as api:
        code = sections(PAGE)[section].replace(ADDRESS, api.url)
        exec(compile(code, f"{PAGE}: {section}", "exec"), {"__name__": "page"})
    assert said in (capsys.readouterr().out.splitlines() or [""])[0]
