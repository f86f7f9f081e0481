"""The cost model fits what was measured, the pace follows, and neither is thrown off by a disturbed measurement."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossrank.cost import CostModel, Habit, Pace, Sample, fit
from crossrank.errors import InputError

TRUTH = CostModel(call=0.001, sequence=0.0001, token=0.00005, square=3e-8)
SHAPES = [[16], [64], [128], [500], [64] * 4, [30] * 16, [200] * 4, [400] * 3, [90] * 50]


def samples(truth, noise=0.0, seed=0):
    dice = np.random.default_rng(seed)
    return [Sample(np.array(one), truth.seconds(one) * float(1 + noise * dice.standard_normal())) for one in SHAPES]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_fit_predicts_lists_it_has_not_seen(workers):
    truth = CostModel(0.001, 0.0001, 0.00005, 3e-8, workers=workers)
    found = fit(samples(truth, noise=0.03), workers)
    dice = np.random.default_rng(1)
    for _ in range(20):
        lengths = dice.integers(10, 500, dice.integers(1, 60))
        assert found.seconds(lengths) == pytest.approx(truth.seconds(lengths), rel=0.10)


def test_one_disturbed_measurement_changes_little():
    measured = samples(TRUTH)
    measured[4] = Sample(measured[4].lengths, measured[4].seconds * 6)
    found = fit(measured)
    for shape in SHAPES:
        assert found.seconds(shape) == pytest.approx(TRUTH.seconds(shape), rel=0.08)


def test_no_part_is_below_zero():
    # Falling time for more tokens cannot be; a plain least-squares fit would say so.
    found = fit([Sample(np.array([10]), 0.010), Sample(np.array([100]), 0.009), Sample(np.array([500]), 0.011)])
    assert min(found.call, found.sequence, found.token, found.square) >= 0
    assert found.seconds([100]) == pytest.approx(0.010, rel=0.15)


def test_workers_share_sequences_where_that_is_even_and_rows_where_it_is_not():
    model = CostModel(0.0, 0.0, 1.0, 0.0, workers=2)
    assert model.seconds([10, 6, 5]) == pytest.approx(11)
    assert model.seconds([10]) == pytest.approx(5)
    assert model.seconds([10, 10, 10]) == pytest.approx(15)
    assert model.seconds([10] * 100) == pytest.approx(500)


def test_a_backend_that_pads_pays_the_longest_of_a_batch():
    model = CostModel(1.0, 0.0, 1.0, 0.0, padded=True, budget=100)
    assert model.seconds([50, 10, 10]) == (1 + 100) + (1 + 10)
    assert model.seconds([]) == 0


@given(st.lists(st.integers(1, 512), min_size=1, max_size=40), st.integers(1, 4), st.integers(1, 39))
def test_a_part_takes_no_longer_and_joining_saves(lengths, workers, cut):
    model = CostModel(0.001, 0.0001, 0.00005, 3e-8, workers=workers)
    whole = model.seconds(lengths)
    one, other = lengths[:cut], lengths[cut:]
    # A part may be less even than the whole, by as much as the engine puts up with.
    assert model.seconds(one) <= whole * (1 + 1e-9 if workers == 1 else 1.151)
    if workers == 1:
        assert whole <= model.seconds(one) + model.seconds(other) + 1e-12


def test_a_pace_follows_a_machine_that_became_slower():
    pace = Pace(TRUTH)
    for _ in range(30):
        pace.observe([100] * 10, 2 * TRUTH.seconds([100] * 10))
    assert pace.ratio == pytest.approx(2, rel=0.01)


def test_one_hiccup_moves_a_pace_little():
    pace = Pace(TRUTH)
    pace.observe([100] * 10, 100 * TRUTH.seconds([100] * 10))
    assert pace.ratio == pytest.approx(1.4)


def test_an_unknown_pace_takes_its_first_measurement():
    pace = Pace()
    assert not pace.known
    pace.observe([100, 100], 1.0)
    assert pace.known
    assert pace.seconds([100, 100]) == pytest.approx(1.0)


def test_usual_documents_are_as_long_as_those_seen():
    pace = Pace(CostModel(0.0, 0.0, 0.001, 0.0))
    assert pace.documents(1.28, most=100) == 10
    for _ in range(60):
        pace.observe([64] * 10, 0.64, documents=10)
    assert pace.documents(1.28, most=100) == 20
    assert pace.documents(1.28, most=7) == 7
    assert pace.documents(-1.0, most=7) == 0


def test_what_reads_nothing_is_hoped_to_be_faster_and_predicted_as_before():
    pace = Pace(CostModel(0.0, 0.0, 0.001, 0.0))
    pace.ratio = 10.0
    assert not pace.begins(0.1)
    for _ in range(100):
        pace.idle()
    assert pace.begins(0.1)
    assert pace.seconds([100]) == pytest.approx(1.0)
    assert pace.documents(1.28, most=100) == 1
    slow, fast = Pace(pace.model), pace
    slow.ratio, slow.hope = pace.ratio, pace.hope
    fast.observe([100], 0.1)  # faster than hoped: the hope was right
    assert fast.ratio == pytest.approx(10 * 0.995**100 * (1 - 0.2 * 2 / 3))
    slow.observe([100], 1.0)  # as slow as ever
    assert slow.ratio == pytest.approx(10.0)
    assert fast.hope == slow.hope == 1.0


@pytest.mark.parametrize("again", [copy.deepcopy, lambda pace: pickle.loads(pickle.dumps(pace))])
def test_a_copy_of_a_pace_knows_what_it_has_learned(again):
    pace = Pace(TRUTH)
    pace.observe([100], 10 * TRUTH.seconds([100]), documents=1)
    made = again(pace)
    assert (made.model, made.ratio, made.usual(3)) == (TRUTH, pace.ratio, pace.usual(3))
    made.observe([100], 1.0)
    assert made.ratio != pace.ratio


def test_what_cannot_be_fitted():
    for bad in ([], [Sample(np.array([], dtype=np.int64), 1.0)], [Sample(np.array([3]), 0.0)]):
        with pytest.raises(InputError, match="measurement"):
            fit(bad)
    wrong = [{"call": -1.0}, {"token": float("nan")}, {"workers": 0}, {"workers": 2.5}]
    for parts in (*wrong, {"budget": 10**13}, {"padded": 1}):
        with pytest.raises(InputError):
            CostModel(**{"call": 0.0, "sequence": 0.0, "token": 0.0, "square": 0.0, **parts})


def test_a_habit_is_not_one_bad_day():
    habit = Habit(0.010)
    assert habit.after(1.0).mean < 0.015
    for _ in range(50):
        habit = habit.after(0.002)
    assert habit.mean == pytest.approx(0.002, rel=0.01)
    assert habit.mean <= habit.most < 0.003
