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
