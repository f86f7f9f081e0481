"""The examples of pages that hold doctests give what they say; code that needs a GPU or hours calls what there is."""

from __future__ import annotations

import doctest
import inspect
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest

import crossrank
from pages import DOCS, blocks

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="docs/ is not in this distribution")


@pytest.mark.parametrize(("page", "least"), [("budgets.md", 16), ("bulk.md", 8)])
def test_the_doctests_of_a_page_hold(page: str, least: int) -> None:
    found = doctest.testfile(str(DOCS / page), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted >= least
    assert found.failed == 0


def test_the_loading_of_docs_gpu_md_has_options_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    load = create_autospec(crossrank.load)
    (code,) = blocks(DOCS / "gpu.md")
    monkeypatch.setattr(crossrank, "load", load)
    exec(compile(code, "gpu.md", "exec"), {})
    assert load.call_count == 3


def test_the_list_of_docs_models_md_keeps_what_is_relevant(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = create_autospec(crossrank.open_pipeline)
    monkeypatch.setattr(crossrank, "open_pipeline", opened)
    (code,) = (block for block in blocks(DOCS / "models.md") if "threshold=0.3" in block)
    names: dict[str, Any] = {}
    exec(compile(code, "models.md", "exec"), names)
    assert [document["id"] for document in names["relevant"]] == [7]
    assert names["ranked"].positions == (0,)
    assert capsys.readouterr().out == "left out: 1 passage under the threshold of 0.3\n"
    inspect.signature(crossrank.Pipeline.search).bind(
        None, *(call := opened.return_value.search.call_args).args, **call.kwargs
    )


def test_the_tuning_of_docs_tuning_md_has_options_that_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tuning = pytest.importorskip("crossrank.training.tuning", reason="needs the extra train")
    from crossrank.training import reading
    from crossrank.training.gate import Verdict
    from crossrank.training.outcome import Outcome

    made = create_autospec(tuning.tune, return_value=Outcome(Verdict("base", ("too few queries",)), ()))
    monkeypatch.setattr(tuning, "tune", made)
    monkeypatch.setattr(reading, "read", create_autospec(reading.read))
    code, _ = blocks(DOCS / "tuning.md")
    exec(compile(code, "tuning.md", "exec"), {})
    assert capsys.readouterr().out == "base ('too few queries',) None\n"


def test_three_samples_are_refused_as_docs_tuning_md_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("crossrank.training.tuning", reason="needs the extra train")
    monkeypatch.chdir(tmp_path)
    _, code = blocks(DOCS / "tuning.md")
    exec(compile(code, "tuning.md", "exec"), {})
    out = capsys.readouterr().out
    print(out)
    assert out.startswith("base (")
    assert not (tmp_path / "my-model").exists()
