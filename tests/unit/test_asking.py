"""What is said to whoever calls a scorer in the way of another library."""

from __future__ import annotations

import copy
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
