"""Fusion follows its formulas, ignores score scale, and breaks ties by first appearance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossrank.errors import InputError
from crossrank.fusion import minmax, rrf, weighted, zscore
from crossrank.types import Ranking

ids = st.lists(st.sampled_from("abcdefghij"), unique=True, max_size=8)


def ranked(names):
    return Ranking.sorted(names, list(range(len(names), 0, -1)))


def test_rrf_by_hand():
    fused = rrf([ranked(["a", "b"]), ranked(["b", "c"])])
    assert fused.ids == ("b", "a", "c")
    np.testing.assert_allclose(fused.scores, [1 / 62 + 1 / 61, 1 / 61, 1 / 62], rtol=1e-6)


@given(st.lists(ids, min_size=1, max_size=4), st.floats(0.1, 100))
def test_rrf_ignores_score_scale(lists, scale):
    plain = [ranked(names) for names in lists]
    scaled = [Ranking.sorted(r.ids, r.scores * np.float32(scale)) for r in plain]
    assert rrf(plain).ids == rrf(scaled).ids


@given(st.lists(ids, min_size=1, max_size=4))
def test_rrf_keeps_every_document_once(lists):
    fused = rrf([ranked(names) for names in lists])
    assert sorted(fused.ids) == sorted({name for names in lists for name in names})


def test_ties_keep_first_appearance():
    assert rrf([ranked(["a", "b"]), ranked(["b", "a"])]).ids == ("a", "b")


def test_normalizations_of_equal_and_blank_scores():
    assert zscore(np.float32([2, 2])).tolist() == [0, 0]
    assert minmax(np.float32([2, 2])).tolist() == [0, 0]
    assert zscore(np.float32([1, 3, -np.inf])).tolist() == [-1, 1, -np.inf]
    assert minmax(np.float32([-np.inf])).tolist() == [-np.inf]
    assert zscore(np.zeros(0, dtype=np.float32)).shape == (0,)


def test_weights_must_match():
    with pytest.raises(InputError, match="weights are for"):
        weighted({"bm25": ranked(["a"])}, {"dense": 1.0})


def test_negative_constant():
    with pytest.raises(InputError, match="at least 0"):
        rrf([ranked(["a"])], k=-1)
