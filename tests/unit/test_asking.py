"""What is said to whoever calls a scorer in the way of another library."""

from __future__ import annotations

import copy
import doctest
import inspect
import pydoc
import re
from pathlib import Path
from typing import Any

import pytest

import crossrank
import tiny
from crossrank.errors import InputError


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> crossrank.CrossEncoder:
    return crossrank.load(tiny.cross_encoder(tmp_path_factory.mktemp("asking") / "model"), backend="fake")


@pytest.mark.parametrize(
    ("name", "cure"), [("predict", "score"), ("compute_score", "score"), ("rerank", "rank"), ("anything", None)]
)
def test_calls_of_other_libraries_are_answered_with_ours(
    scorer: Any, name: str, cure: str | None, tmp_path: Path
) -> None:
    for one in (scorer, copy.copy(scorer), crossrank.CachedScorer(scorer, tmp_path / "scores")):
        assert not hasattr(one, name)
        with pytest.raises(AttributeError, match=name) as refused:
            getattr(one, name)
        assert (f"call {cure}(" in str(refused.value)) is (cure is not None)


@pytest.mark.parametrize(
    ("name", "cure"),
    [("fit", "crossrank.training.tuning.tune("), ("save", "checkpoint.export("), ("save_pretrained", "export(")],
)
def test_what_trains_and_saves_a_cross_encoder_is_named(scorer: Any, name: str, cure: str) -> None:
    with pytest.raises(AttributeError, match=f"CrossEncoder has no {name}: ") as refused:
        getattr(scorer, name)
    assert cure in str(refused.value)


def test_a_scorer_elsewhere_is_not_told_to_be_saved() -> None:
    pytest.importorskip("httpx", reason="needs the llm extra")
    from crossrank.remotereranker import RemoteReranker

    remote: Any = RemoteReranker("http://localhost:1/v1", "any", key="")
    with pytest.raises(AttributeError, match=r"call rank\("):
        remote.rerank("tea?", ["Tea."])
    with pytest.raises(AttributeError) as refused:
        remote.save("folder")
    assert "export" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "cure"),
    [("encode", "embed(texts)"), ("encode_query", "queries.embed(texts)"), ("similarity", "@"), ("save", "export(")],
)
def test_an_embedder_answers_calls_of_other_libraries(bi_encoder_folder: Path, name: str, cure: str) -> None:
    embedder: Any = crossrank.load_embedder(bi_encoder_folder)
    for one in (embedder, copy.copy(embedder)):
        assert not hasattr(one, name)
        with pytest.raises(AttributeError, match=f"TextEmbedder has no {name}: ") as refused:
            getattr(one, name)
        assert cure in str(refused.value)
    with pytest.raises(AttributeError, match="anything"):
        embedder.anything  # noqa: B018


@pytest.mark.parametrize(
    ("call", "argument", "cure"),
    [
        ("rank", "top_k", "say k"),
        ("rank", "top_n", "say k"),
        ("rank", "batch_size", "leave it out"),
        ("rank", "return_documents", "positions are places in documents"),
        ("score", "batch_size", "batches are filled by tokens"),
        ("score", "show_progress_bar", "say progress="),
        ("score", "anything", "unexpected keyword"),
    ],
)
def test_arguments_of_other_libraries_are_answered_with_ours(
    scorer: Any, tmp_path: Path, call: str, argument: str, cure: str
) -> None:
    late: Any = crossrank.load_late(tiny.late(tmp_path / "late"), backend="reference")
    given = ("paris?", ["Paris."]) if call == "rank" else ([("paris?", "Paris.")],)
    for one in (scorer, crossrank.CachedScorer(scorer, tmp_path / "scores"), late):
        with pytest.raises(TypeError, match=rf"{call}\(\) (has no|got an) .*{argument}.*") as refused:
            getattr(one, call)(*given, **{argument: 1})
        assert re.search(cure, str(refused.value))
        assert len(getattr(one, call)(*given)) == 1


def test_who_loads_as_elsewhere_is_told_what_to_leave_out() -> None:
    load: Any = crossrank.load
    with pytest.raises(TypeError, match=r"load\(\) has no argument trust_remote_code: leave it out; no code"):
        load("small", trust_remote_code=True)
    with pytest.raises(TypeError, match=r"activation_fn: leave it out; scores are logits"):
        load("small", activation_fn=None)
    with pytest.raises(TypeError, match="unexpected keyword argument 'anything'"):
        load("small", anything=1)


def test_pipelines_and_scorers_elsewhere_are_asked_for_k() -> None:
    pytest.importorskip("httpx", reason="needs the llm extra")
    from crossrank.llm import LanguageModel
    from crossrank.remotereranker import RemoteReranker

    for name in ("top_k", "top_n"):
        for call in (crossrank.Pipeline.search, LanguageModel.rank, RemoteReranker.rank):
            with pytest.raises(TypeError, match=rf"{call.__name__}\(\) has no argument {name}: say k"):
                call(None, "paris?", **{name: 3})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "shown"),
    [
        (crossrank.CrossEncoder.rank, "rank(self, query: 'str', documents:"),
        (crossrank.CrossEncoder.score, "score(self, pairs:"),
        (crossrank.Pipeline.search, "search(self, query: 'str', k: 'int' = 10"),
        (crossrank.load, "load(name: 'str | Path | None' = None"),
    ],
)
def test_help_shows_a_call_as_it_is_written(call: Any, shown: str) -> None:
    assert "top_k" not in inspect.signature(call).parameters
    assert inspect.getdoc(call)
    assert shown in " ".join(pydoc.plain(pydoc.render_doc(call)).split())


def test_examples_of_these_calls_are_still_found() -> None:
    from crossrank import crossencoder, scorers

    for module, name in (
        (crossencoder, "CrossEncoder.rank"),
        (crossencoder, "CrossEncoder.score"),
        (scorers, "load"),
    ):
        found = {test.name: test for test in doctest.DocTestFinder().find(module)}
        assert found[f"{module.__name__}.{name}"].examples


def test_a_property_that_fails_says_why(scorer: Any) -> None:
    class Failing(crossrank.CrossEncoder):
        @property
        def fingerprint(self) -> str:
            return {}.nothing  # type: ignore[attr-defined, no-any-return]

    with pytest.raises(AttributeError, match="nothing"):
        Failing(scorer.checkpoint, scorer.backend).fingerprint  # noqa: B018


def test_one_pair_belongs_into_a_list(scorer: crossrank.CrossEncoder) -> None:
    for pair in (("paris?", "paris"), ["paris?", "paris"]):
        with pytest.raises(InputError, match=r"put the pair in a list, score\(\[\(query, passage\)\]\)"):
            scorer.score(pair)
