"""Fusion follows its formulas, ignores score scale, and breaks ties by first appearance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossrank.errors import InputError
from crossrank.fusion import RRF, LengthPrior, Scores, minmax, rrf, shifted, standardized, weighted, zscore
from crossrank.types import Ranking

ids = st.lists(st.sampled_from("abcdefghij"), unique=True, max_size=8)


def ranked(names, scores=None):
    return Ranking.sorted(names, list(range(len(names), 0, -1)) if scores is None else scores)


def test_rankings_that_are_no_list():
    first = Ranking.sorted(["a"], [1])
    with pytest.raises(InputError, match=r"rrf\(\[a, b\]\)"):
        rrf(first, first)


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


def test_what_is_no_ranking_is_refused_with_the_cure():
    for wrong in ([["a", "b"], ["b", "c"]], {"bm25": ranked(["a"])}, [[("a", 1.0)]]):
        with pytest.raises(InputError, match=r"Ranking.sorted\(ids, scores\)"):
            rrf(wrong)
    for wrong in (ranked(["a"]), None):
        with pytest.raises(InputError, match="a list of rankings"):
            rrf(wrong)
    assert rrf([Ranking.sorted(["b", "a"], range(2, 0, -1))]).ids == ("b", "a")


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
    with pytest.raises(InputError, match="weights are by the names of rankings"):
        Scores([0.5, 0.5])


def test_negative_constant():
    with pytest.raises(InputError, match="at least 0"):
        rrf([ranked(["a"])], k=-1)
    for bad in (float("nan"), "60"):
        with pytest.raises(InputError, match="must be a number"):
            rrf([ranked(["a"])], k=bad)


def test_weighted_by_hand():
    first, second = ranked(["a", "b"], [9.0, 8.0]), ranked(["b", "c", "d"], [0.2, 0.15, 0.1])
    fused = weighted({"bm25": first, "dense": second}, {"bm25": 0.3, "dense": 0.7})
    # bm25: a 1, b 0; dense: b 1, c 0.5, d 0. What a ranking lacks gets 0 from it.
    assert fused.ids == ("b", "c", "a", "d")
    assert fused.scores == pytest.approx([0.7, 0.35, 0.3, 0.0], abs=1e-6)


@pytest.mark.parametrize("fuse", [weighted, standardized])
def test_a_ranking_of_weight_0_says_nothing_whatever_its_scores(fuse):
    """0 times the -inf of a blank document is NaN, and a model was said to be damaged."""
    rankings = {"bm25": ranked(["a", "b"]), "model": ranked(["b", "c", "a"], [1.0, 0.5, -np.inf])}
    fused = fuse(rankings, {"bm25": 1.0, "model": 0.0})
    assert fused.ids[:2] == ("a", "b")
    assert np.isfinite(fused.scores).all()
    assert set(fused.ids) == {"a", "b", "c"}


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf"), "1", None])
def test_weights_are_numbers_of_at_least_0(bad):
    rankings = {"a": ranked(["x"]), "b": ranked(["y"])}
    for call in (weighted, standardized, lambda _, weights: Scores(weights)):
        with pytest.raises(InputError, match="weight"):
            call(rankings, {"a": 1.0, "b": bad})


def test_standardized_by_hand():
    fused = standardized(
        {"a": ranked(["x", "y"], [3.0, 1.0]), "b": ranked(["y", "z"], [0.5, 0.1])}, {"a": 1.0, "b": 2.0}
    )
    # a: x 3, y 1, z 1 (the last one's); b: x 0.1, y 0.5, z 0.1.
    third = np.sqrt(2.0)
    assert fused.ids == ("y", "x", "z")
    assert fused.scores == pytest.approx([-third / 2 + 2 * third, third - third, -third / 2 - third], abs=1e-6)


@given(st.lists(ids, min_size=1, max_size=4), st.floats(0.01, 100.0), st.floats(-50.0, 50.0))
def test_standardized_ignores_scale_and_origin_of_scores(lists, scale, shift):
    # Where a ranking is shorter than the longest, 0 means something.
    shift = shift if len({len(names) for names in lists}) == 1 else 0.0
    other = {str(n): ranked(names, scale * ranked(names).scores + shift) for n, names in enumerate(lists)}
    # From the numbers that a ranking holds: 32.01 in float32 is off by 1e-4 of a spread of 0.01.
    one = {n: ranked(list(r.ids), (r.scores.astype(np.float64) - shift) / scale) for n, r in other.items()}
    weights = {name: 1.0 + n for n, name in enumerate(one)}
    first, second = standardized(one, weights), standardized(other, weights)
    known = dict(zip(second.ids, second.scores.tolist(), strict=True))
    assert sorted(known) == sorted({name for names in lists for name in names})
    assert [known[i] for i in first.ids] == pytest.approx(first.scores.tolist(), abs=1e-3)


def test_one_document_stands_before_those_a_ranking_lacks_also_where_scores_are_huge():
    # Less by 1, 1e9 was the same float32, and nothing of the ranking counted.
    fused = standardized({"a": ranked(["x"], [1e9]), "b": ranked(["y"], [1.0])}, {"a": 2.0, "b": 1.0})
    assert list(fused) == [("x", pytest.approx(1.0)), ("y", pytest.approx(-1.0))]
    assert standardized({}, {}).ids == ()


@pytest.mark.parametrize("scores", [[12.0], [12.0, 11.9], [7.0, 7.0, 7.0], [-3.0], [0.0, 0.0]])
def test_what_few_passages_have_in_common_with_a_query_stands_before_all_others(scores):
    # A rare word, or the number of a part: BM25 finds few, the bi-encoder always as many as it is asked for.
    found = [f"part {n}" for n in range(len(scores))]
    near = ranked([f"d{n}" for n in range(100)], np.linspace(0.6, 0.3, 100))
    assert Scores()({"bm25": ranked(found, scores), "dense": near}).ids[: len(found)] == tuple(found)


def test_a_ranking_that_was_cut_says_nothing_of_what_it_lacks_but_that_it_is_no_better():
    longer = ranked(["a", "b", "c"], [9.0, 8.0, 7.0])
    for shorter, last in ((["x", "y", "z"], 5.0), (["x", "y"], 0.0)):
        scores = {**dict.fromkeys("abc", last), **dict(zip(shorter, (6.0, 5.5, 5.0), strict=False))}
        fused = standardized({"cut": longer, "other": ranked(shorter, [scores[i] for i in shorter])},
                             {"cut": 0.0, "other": 1.0})  # fmt: skip
        values = np.float32([scores[i] for i in fused.ids])
        assert fused.scores == pytest.approx(zscore(values).tolist(), abs=1e-6)


def test_a_blank_document_says_nothing_of_what_its_ranking_lacks():
    """One -inf made all that the ranking lacked -inf, too."""
    dense = Ranking.sorted(["c", "a", "d"], [0.9, 0.8, 0.1])
    for others in ([9.0, 5.0, -np.inf], [9.0, 9.0, -np.inf], [-np.inf] * 3):
        fused = Scores()({"bm25": Ranking.sorted(["a", "b", "blank"], others), "dense": dense})
        scores = dict(zip(fused.ids, fused.scores.tolist(), strict=True))
        assert scores["blank"] == -np.inf
        assert np.isfinite([scores["c"], scores["d"]]).all()
        assert scores["c"] > scores["d"]


def test_a_silent_ranking_changes_nothing():
    words = ranked(["x", "y"], [3.0, 1.0])
    for silent in (ranked([], []), ranked(["x", "y"], [1.0, 1.0])):
        assert Scores()({"bm25": words, "dense": silent}).ids == ("x", "y")
    assert len(Scores()({"bm25": ranked([], []), "dense": ranked([], [])})) == 0


def test_fusions_are_values_and_say_what_is_wrong():
    assert (RRF(), Scores()) == (RRF(60), Scores({"bm25": 0.4, "dense": 0.6}))
    with pytest.raises(InputError, match="no weight for sparse"):
        Scores()({"bm25": ranked(["x"]), "sparse": ranked(["x"])})
    for wrong in ({}, {"bm25": 0.0}, {"bm25": -1.0, "dense": 2.0}):
        with pytest.raises(InputError, match="weights"):
            Scores(wrong)
    with pytest.raises(InputError, match="weights are for"):
        standardized({"bm25": ranked(["x"])}, {"dense": 1.0})


def test_a_prior_counts_in_standard_deviations_of_the_fused_scores():
    words, near = ranked(["x", "y", "z"], [3.0, 2.0, 1.0]), ranked(["y", "x", "z"], [0.9, 0.8, 0.7])
    plain = Scores()({"bm25": words, "dense": near})
    added = {"x": 0.5, "y": -0.25, "z": 0.0}
    made = Scores(prior=lambda ids: np.array([added[id_] for id_ in ids]))({"bm25": words, "dense": near})
    spread = plain.scores.astype(np.float64).std()
    expected = {id_: score + spread * added[id_] for id_, score in plain}
    assert dict(made) == pytest.approx(expected)
    assert made.ids == tuple(sorted(expected, key=lambda id_: -expected[id_]))
    assert Scores(prior=lambda ids: np.zeros(len(ids)))({"bm25": words, "dense": near}).scores.tolist() == (
        plain.scores.tolist()
    )


def test_a_prior_orders_what_is_equal_and_leaves_blank_documents_last():
    even = ranked(["a", "b", "c"], [1.0, 1.0, -np.inf])
    assert list(shifted(even, lambda ids: np.array([0.0, 0.5, 9.0]))) == [("b", 1.5), ("a", 1.0), ("c", -np.inf)]
    assert len(shifted(ranked([], []), lambda ids: np.zeros(0))) == 0
    for wrong in ([0.0], [0.0, np.nan, 1.0], [[0.0, 0.0, 0.0]]):
        with pytest.raises(InputError, match="one finite number a document: 3 here"):
            shifted(even, lambda ids, wrong=wrong: np.array(wrong))
    with pytest.raises(InputError, match="one finite number a document: could not convert"):
        shifted(even, lambda ids: list(ids))
    # Opposed rankings of equal weight cancel but for rounding, which has a spread as well.
    words, near = ranked(["x", "y", "z"], [3.0, 2.0, 1.0]), ranked(["z", "y", "x"], [0.3, 0.2, 0.1])
    even = Scores({"a": 0.5, "b": 0.5}, prior=lambda ids: np.array([{"x": 0, "y": 1, "z": 2}[id_] for id_ in ids]))
    assert even({"a": words, "b": near}).ids == ("z", "y", "x")


def test_the_length_prior_by_hand():
    lengths = {"title": 20, "empty": 0, "whole": 200, "long": 5000}
    prior = LengthPrior(lambda ids: np.array([lengths[id_] for id_ in ids]))
    assert prior(list(lengths)).tolist() == pytest.approx([0.3 * np.log(0.1), 0.3 * np.log(1 / 200), 0.0, 0.0])
    assert "lengths" not in repr(prior)
    for made in (lambda: LengthPrior([20]), lambda: Scores(prior=0.5)):
        with pytest.raises(InputError, match="must be a function of ids, such as"):
            made()
    for wrong in ({"strength": -1.0}, {"strength": float("inf")}, {"strength": "0.3"}, {"full": 0}, {"full": 2.5}):
        with pytest.raises(InputError, match=r"strength of a prior|full must be"):
            LengthPrior(prior.lengths, **wrong)
