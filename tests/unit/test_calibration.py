"""Calibration keeps the order, recovers known parameters, and refuses what cannot be calibrated."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import crossrank
from crossrank.calibration import (
    Platt,
    above,
    check_threshold,
    equal_count_bins,
    expected_calibration_error,
    sigmoid,
)
from crossrank.errors import InputError
from crossrank.ranked import Ranked

logits = st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=20)


@given(logits)
def test_sigmoid_is_bounded_and_monotone(values):
    x = np.sort(np.array(values, dtype=np.float32))
    p = sigmoid(x)
    assert ((p >= 0) & (p <= 1)).all()
    assert (np.diff(p) >= 0).all()


def test_blank_is_never_relevant():
    assert Platt(1.0, 5.0).probability(np.float32([-np.inf])).tolist() == [0.0]


@pytest.mark.parametrize(("slope", "intercept"), [(0.5, -2.0), (3.0, 1.0)])
def test_fit_recovers_the_truth(slope, intercept):
    rng = np.random.default_rng(1)
    x = rng.normal(0, 2, 20000).astype(np.float32)
    y = rng.random(20000) < sigmoid((slope * x + intercept).astype(np.float32))
    fitted = Platt.fit(x, y)
    assert abs(fitted.slope - slope) < 0.15
    assert abs(fitted.intercept - intercept) < 0.15
    assert expected_calibration_error(fitted.probability(x), y) < 0.02


def test_separable_data_stays_finite():
    x = np.concatenate([np.full(50, -3.0), np.full(50, 3.0)]).astype(np.float32)
    fitted = Platt.fit(x, x > 0)
    assert np.isfinite(fitted.slope)
    assert fitted.slope > 0


def test_blank_passages_are_left_out_of_a_fit():
    x = np.linspace(-3, 3, 50).astype(np.float32)
    blank = np.concatenate([x, np.full(5, -np.inf, np.float32)])
    assert Platt.fit(blank, blank > 0.5) == Platt.fit(x, x > 0.5)
    for bad in (np.nan, np.inf):
        with pytest.raises(InputError, match=f"logit {bad} cannot be calibrated"):
            Platt.fit(np.append(x, np.float32(bad)), np.append(x > 0, True))
    with pytest.raises(InputError, match="one judgment a logit"):
        Platt.fit(x, x[1:] > 0)


def test_hopeless_data_is_refused():
    x = np.linspace(-1, 1, 50).astype(np.float32)
    with pytest.raises(InputError, match="both kinds"):
        Platt.fit(x, np.ones(50, bool))
    with pytest.raises(InputError, match="do not rise"):
        Platt.fit(x, x < 0)
    with pytest.raises(InputError, match="positive slope"):
        Platt(-1.0, 0.0)


@pytest.mark.parametrize("scale", [0.01, 0.1, 1.0, 10.0, 100.0])
@pytest.mark.parametrize("shift", [-50.0, 0.0, 10.0, 200.0])
@pytest.mark.parametrize("apart", [0.5, 2.0, 20.0])
def test_a_fit_is_the_best_wherever_the_logits_lie(scale, shift, apart):
    optimize = pytest.importorskip("scipy.optimize", reason="the judge")
    rng = np.random.default_rng(0)
    y = rng.random(200) < 0.3
    x = ((rng.normal(size=200) + apart * y) * scale + shift).astype(np.float32)
    target = np.where(y, (y.sum() + 1) / (y.sum() + 2), 1 / ((~y).sum() + 2))

    def loss(beta, at):
        z = beta[0] * at + beta[1]
        return np.sum(np.logaddexp(0, z) - target * z)

    wide = x.astype(np.float64)
    best = optimize.minimize(loss, [0, 0], ((wide - wide.mean()) / wide.std(),), "BFGS", options={"gtol": 1e-8})
    fitted = Platt.fit(x, y)
    assert loss((fitted.slope, fitted.intercept), wide) == pytest.approx(best.fun, abs=1e-5)


@pytest.mark.parametrize("far", [[1e6], [-1e6], [1e30], [1e6, 3e8], [1e6, -1e6]])
@pytest.mark.parametrize("relevant", [True, False])
def test_outliers_that_spoil_a_fit_are_named(far, relevant):
    """One logit of 1e6 among ordinary ones gave all others nearly one probability, without a word."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, 500)
    judged = rng.random(500) < sigmoid(logits)
    x, y = np.float32([-np.inf, *logits, *far]), np.array([False, *judged, *[relevant] * len(far)])
    named = ", ".join(rf"{value:g} \(pair {502 + place}\)" for place, value in enumerate(far)).replace("+", r"\+")
    with pytest.raises(InputError, match=rf"^{len(far)} of {500 + len(far)} logits lie far .*: {named}\. Look why"):
        Platt.fit(x, y)
    assert abs(Platt.fit(x[: -len(far)], y[: -len(far)]).slope - 1) < 0.3


def test_far_logits_that_fit_the_others_are_no_outliers():
    rng = np.random.default_rng(0)
    together, few = rng.normal(-11, 0.05, 100), np.array([8, 7.5, 8.2])
    # The few relevant ones of a model that gives all else one score; also where one relevant passage is among these.
    for relevant in ([], [-11.01]):
        x = np.float32([*together, *few, *relevant])
        fitted = Platt.fit(x, np.arange(len(x)) >= 100)
        assert fitted.probability(np.float32([8.0]))[0] > 0.7
        assert fitted.probability(np.float32([-11.0]))[0] < 0.1
    # The same where scores within the crowd tell a little of relevance, which the few would cost.
    crowd = np.array([*rng.normal(-11.0, 0.1, 83), *rng.normal(-10.9, 0.1, 13)])
    fitted = Platt.fit(np.float32([*crowd, 8.0, 8.1, 7.9, 8.2]), np.arange(100) >= 83)
    assert fitted.probability(np.float32([8.0]))[0] > 0.7
    assert fitted.probability(np.float32([-11.0]))[0] < 0.2
    # A certain mistake or a certain success, ten times as far as all others, costs the fit little.
    logits = rng.normal(0, 3, 1000)
    judged = rng.random(1000) < sigmoid(logits)
    usual = Platt.fit(logits.astype(np.float32), judged).slope
    for value, relevant in ((1e3, True), (100.0, False)):
        found = Platt.fit(np.float32([*logits, value]), np.array([*judged, relevant]))
        assert usual / 2 < found.slope <= usual


def test_outliers_are_not_to_blame_where_the_others_fall_with_relevance():
    """Without them there would be nothing to calibrate, either."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 0.1, 100)
    x, y = np.float32([*logits, 9, 9.1]), np.array([*(logits < -0.05), True, True])
    with pytest.raises(InputError, match="do not rise with relevance"):
        Platt.fit(x[:-2], y[:-2])
    assert Platt.fit(x, y).slope > 0


def test_equal_probabilities_are_never_parted():
    half = np.full(100, 0.5, np.float32)
    for relevant in (np.arange(100) < 50, np.arange(100) % 2 == 0):
        assert expected_calibration_error(half, relevant) == 0.0
    rng = np.random.default_rng(0)
    p = np.round(rng.random(500), 1).astype(np.float32)
    y, order = rng.random(500) < p, rng.permutation(500)
    assert expected_calibration_error(p, y, 7) == pytest.approx(expected_calibration_error(p[order], y[order], 7))
    parts = equal_count_bins(p, 7)
    assert sorted(np.concatenate(parts).tolist()) == list(range(500))
    assert all(p[low].max() < p[high].min() for low, high in pairwise(parts))
    assert equal_count_bins(np.zeros(0, np.float32), 7) == []
    # A border in the middle of equal ones moves down.
    assert [part.tolist() for part in equal_count_bins(np.float32([0.1, 0.5, 0.5, 0.9]), 2)] == [[0], [1, 2, 3]]


def test_what_holds_no_scores_is_refused_with_the_cure():
    ranked = Ranked((1, 0), np.float32([2, 1]), ())
    scorers = (Platt(1.0, 0.0), crossrank.load())
    for scorer in scorers:
        assert scorer.probability(ranked.scores).shape == scorer.probability([2, 1]).shape == (2,)
        with pytest.raises(InputError, match=r"not of Ranked: pass ranked\.scores"):
            scorer.probability(ranked)
        for wrong in ("x", "1.5", None, {"a": 1.0}, [1.0, None], [[1.0], [2.0, 3.0]]):
            with pytest.raises(InputError, match="made of numbers, such as ranked"):
                scorer.probability(wrong)


def test_the_largest_scores_have_probabilities_too():
    assert Platt(1e300, 0.0).probability(np.float32([1e10, -1e10])).tolist() == [1.0, 0.0]


def test_a_threshold_is_a_number():
    for wrong in (True, False, 1.5, "0.5", np.array([0.3, 0.2])):
        with pytest.raises(InputError, match="the threshold is a probability"):
            check_threshold(wrong)
    for right in (None, "model", 0, 0.5, 1.0, np.float32(0.5)):
        check_threshold(right)


def test_what_just_reaches_a_threshold_stays():
    """It would be told as "a probability of 0.500, under 0.5"."""
    assert above([0.5, 0.4], 0.5) == ([0], ("left out: 1 passage under the threshold of 0.5",))
    assert above([1.0, 0.0], 1.0)[0] == [0]
    assert above([0.0, 0.0], 0.0) == ([0, 1], ())
