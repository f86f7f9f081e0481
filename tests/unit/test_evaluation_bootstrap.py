from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossrank.errors import InputError
from crossrank.evaluation import difference, difference_over_sets, mean, mean_over_sets
from crossrank.evaluation.bootstrap import paired, student

values = st.lists(st.floats(0, 1), min_size=1, max_size=40)


@settings(max_examples=50)
@given(values, st.integers(0, 5))
def test_interval_holds_the_mean_and_stays_in_range(found: list[float], seed: int) -> None:
    interval = mean(found, resamples=400, seed=seed)
    assert interval.mean == pytest.approx(np.mean(found))
    assert min(found) - 1e-12 <= interval.low <= interval.high <= max(found) + 1e-12
    assert interval.queries == len(found)
    assert interval == mean(found, resamples=400, seed=seed)


@settings(max_examples=30)
@given(values, st.floats(-3, 3), st.floats(0.1, 10))
def test_interval_follows_shift_and_scale(found: list[float], shift: float, scale: float) -> None:
    plain, moved = mean(found, resamples=300), mean([shift + scale * value for value in found], resamples=300)
    expected = [shift + scale * number for number in (plain.mean, plain.low, plain.high)]
    assert [moved.mean, moved.low, moved.high] == pytest.approx(expected, abs=1e-9)


@settings(max_examples=30)
@given(st.dictionaries(st.text(max_size=3), st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30))
def test_difference_ignores_the_order_of_the_baseline_and_turns_its_sign(pairs: dict) -> None:
    left, right = ({query: pair[side] for query, pair in pairs.items()} for side in (0, 1))
    shuffled = dict(reversed(right.items()))
    one, other = difference(left, shuffled, resamples=300), difference(right, left, resamples=300)
    assert one == difference(left, right, resamples=300)
    assert one.mean == pytest.approx(-other.mean, abs=1e-12)
    # The percentiles are symmetric (2.5 % and 97.5 %), so the interval turns over whole.
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-9)


def test_equal_systems_differ_by_nothing() -> None:
    system = {"a": 0.25, "b": 0.75}
    interval = difference(system, system)
    assert (interval.mean, interval.low, interval.high) == (0.0, 0.0, 0.0)
    assert not interval.excludes_zero


def test_coverage_on_synthetic_data() -> None:
    """Of 500 experiments with a known mean, about 95 % of the stated 95 % intervals hold it; 80 % likewise."""
    random = np.random.default_rng(3)
    for confidence, tolerance in ((0.95, 0.03), (0.80, 0.05)):
        held = 0
        for seed in range(500):
            sample = random.beta(0.6, 0.4, size=60)
            interval = mean(sample, confidence=confidence, resamples=500, seed=seed)
            held += interval.low <= 0.6 <= interval.high
        assert held / 500 == pytest.approx(confidence, abs=tolerance)


def test_pairing_finds_what_unpaired_intervals_hide() -> None:
    random = np.random.default_rng(0)
    hard = random.beta(0.5, 0.5, size=100)
    base = {str(i): float(value) for i, value in enumerate(hard)}
    better = {query: value + 0.02 + 0.01 * random.standard_normal() for query, value in base.items()}
    assert mean(list(better.values())).low < mean(list(base.values())).high
    assert difference(better, base).low > 0.0
    assert difference(better, base).excludes_zero
    assert difference(base, better).excludes_zero


def test_each_set_counts_the_same() -> None:
    small, large = [1.0, 1.0], [0.0] * 100
    assert mean_over_sets([small, large]).mean == 0.5
    assert mean_over_sets([small, large]).queries == 102
    systems = [({"a": 1.0}, {"a": 0.5}), ({"b": 0.0, "c": 0.0}, {"b": 0.0, "c": 0.0})]
    assert difference_over_sets(systems).mean == 0.25


def test_many_queries_are_resampled_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    found = np.random.default_rng(1).random(50)
    whole = mean(found, resamples=1000)
    monkeypatch.setattr("crossrank.evaluation.bootstrap._STEP", 333)
    stepped = mean(found, resamples=1000)
    assert stepped == whole


@pytest.mark.parametrize(
    ("found", "options", "message"),
    [
        ([], {}, "one value a query"),
        ([[1.0]], {}, "one value a query"),
        ([0.5, float("nan")], {}, "value 1 is not finite"),
        ([0.5], {"confidence": 95}, "between 0 and 1"),
        ([0.5], {"resamples": 0}, "at least 1"),
    ],
)
def test_bad_input(found: list, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        mean(found, **options)


def test_what_differs_by_rounding_has_not_changed() -> None:
    assert difference({"a": 0.1 + 0.2, "b": 0.5}, {"a": 0.3, "b": 0.5}).changed == 0


def test_unlike_queries_cannot_be_paired() -> None:
    with pytest.raises(InputError, match="2 differ, such as 'a'"):
        paired({"a": 1.0, "c": 1.0}, {"b": 1.0, "c": 1.0})
    with pytest.raises(InputError, match="no values"):
        mean_over_sets([])


@pytest.mark.parametrize(("confidence", "freedom"), [(0.5, 1), (0.9, 2), (0.95, 3), (0.95, 8), (0.99, 28), (0.95, 29)])
def test_students_distribution(confidence: float, freedom: int) -> None:
    stats = pytest.importorskip("scipy.stats", reason="the judge")
    assert student(confidence, freedom) == pytest.approx(stats.t.ppf((1 + confidence) / 2, freedom), rel=1e-9)


def test_a_difference_in_under_thirty_queries_has_students_interval() -> None:
    few = {f"q{number}": 0.1 * number for number in range(1, 9)}
    # Worked out by hand: mean 0.45, spread 0.1 * sqrt(6), t of 7 degrees of freedom 2.365.
    half = 2.364624 * 0.1 * 6**0.5 / 8**0.5
    found = difference(few, dict.fromkeys(few, 0.0))
    assert (found.low, found.high) == pytest.approx((0.45 - half, 0.45 + half), abs=1e-6)
    # What did not change is no evidence: the degrees of freedom stay 7, in 16 queries.
    more = {**few, **{f"z{number}": 0.0 for number in range(8)}}
    half = 2.364624 * float(np.std(list(more.values()), ddof=1)) / 4
    assert difference(more, dict.fromkeys(more, 0.0)).high == pytest.approx(0.225 + half, abs=1e-6)
    many = {f"q{number}": 0.01 * number for number in range(1, 31)}
    plain = mean(list(many.values()))
    found = difference(many, dict.fromkeys(many, 0.0))
    assert (found.low, found.high) == (plain.low, plain.high)


def test_intervals_of_few_changed_queries_hold_the_truth() -> None:
    """A percentile interval of 20 queries of which 3 change covered 79 % where it stated 95."""
    random, held, widths = np.random.default_rng(0), 0, []
    zeros = {str(i): 0.0 for i in range(20)}
    for seed in range(300):
        moved = np.where(random.random(20) < 0.15, random.normal(0.1, 0.4, 20), 0.0)
        interval = difference(dict(zip(zeros, moved.tolist(), strict=True)), zeros, resamples=100, seed=seed)
        held += interval.low <= 0.015 <= interval.high
        widths.append(interval.high - interval.low)
    assert held / 300 >= 0.91
    # Wider ones would hold the truth too, and tell less.
    assert float(np.median(widths)) < 0.3


def test_no_interval_of_differences_is_wider_than_they_can_be() -> None:
    """Of two queries it was -2.53 to 2.16, for a measure from 0 to 1."""
    base = {"a": 0.1, "b": 0.6}
    interval = difference({"a": 0.6, "b": 0.3}, base)
    assert (interval.low, interval.high) == (-1.0, 1.0)
    # Counts have no such range.
    interval = difference({"a": 9.0, "b": 2.0}, {"a": 1.0, "b": 4.0})
    assert (interval.low < -1, interval.high > 1) == (True, True)
    # Nor where the baseline alone is beyond 1: cut at -1, the interval would not hold its own mean.
    interval = difference({"a": 0.0, "b": 1.0}, {"a": 5.0, "b": 0.5})
    assert interval.low < interval.mean == -2.25


def test_what_rests_on_few_queries_is_no_difference_yet() -> None:
    base = {str(i): 0.5 for i in range(100)}
    for changed, told in ((5, False), (8, True), (50, True)):
        better = {query: value + 0.2 * (int(query) < changed) for query, value in base.items()}
        interval = difference(better, base)
        assert (interval.changed, interval.excludes_zero) == (changed, told)
    # Of queries that gain the same the interval has no width; all six of six are 0.03 by chance, five are 0.06.
    for queries, told in ((2, False), (5, False), (6, True)):
        same = difference(dict.fromkeys("abcdef"[:queries], 0.7), dict.fromkeys("abcdef"[:queries], 0.5))
        assert (same.low > 0, same.excludes_zero) == (True, told)
