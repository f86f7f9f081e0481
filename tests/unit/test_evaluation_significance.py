from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossrank.errors import InputError
from crossrank.evaluation.bootstrap import difference
from crossrank.evaluation.significance import holm, randomization

values = st.lists(st.sampled_from([-0.5, -0.25, 0.0, 0.1, 0.3, 0.7]), min_size=1, max_size=11)


def named(numbers: list[float]) -> dict[str, float]:
    return {f"q{i}": number for i, number in enumerate(numbers)}


@given(values)
def test_few_queries_are_counted_exactly(moved: list[float]) -> None:
    """Against every assignment of signs, one by one."""
    signs = np.array(np.meshgrid(*[[-1, 1]] * len(moved))).reshape(len(moved), -1).T
    sums = np.abs(signs @ np.array(moved))
    want = float(np.mean(sums >= abs(sum(moved)) - 1e-9))
    assert randomization(named(moved), named([0.0] * len(moved))) == pytest.approx(want)


def test_many_queries_agree_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats", reason="comes with the extra eval")
    rng = np.random.default_rng(3)
    moved = rng.normal(0.02, 0.1, 60)
    p = randomization(named(moved.tolist()), named([0.0] * 60), draws=4_000)
    theirs = stats.permutation_test(
        (moved,), np.mean, permutation_type="samples", n_resamples=4_000, rng=np.random.default_rng(4)
    ).pvalue
    assert p == pytest.approx(theirs, abs=0.04)
    assert p == randomization(named(moved.tolist()), named([0.0] * 60), draws=4_000)


def test_the_level_is_kept_without_a_difference() -> None:
    rng = np.random.default_rng(0)
    found = [randomization(named(rng.normal(0, 1, 25).tolist()), named([0.0] * 25), draws=400) for _ in range(300)]
    assert 0.02 < np.mean(np.array(found) < 0.05) < 0.09


def test_a_large_difference_is_never_impossible_by_chance() -> None:
    p = randomization(named([1.0] * 200), named([0.0] * 200), draws=999)
    assert p == pytest.approx(0.001)


@pytest.mark.parametrize("changed", [1023, 1024, 3000])
def test_any_number_of_queries(changed: int) -> None:
    """2 to the power of 1,024 changed queries was too large a number, after all of them had been scored."""
    assert randomization(named([0.1] * changed), named([0.0] * changed), draws=99) == pytest.approx(0.01)


def test_exchanges_are_counted_up_to_the_draws() -> None:
    # 2 ** 10 of 1,024: exact, where 1,023 draws give the next best, 1 / 1,024.
    moved = named([0.1] * 10)
    assert randomization(moved, named([0.0] * 10), draws=1024) == 2 / 1024
    assert randomization(moved, named([0.0] * 10), draws=1023) >= 1 / 1024
    # Queries that stayed are none of them: three that gained are exact, however many others there are.
    assert randomization(named([1.0] * 3 + [0.0] * 40), named([0.0] * 43)) == 0.25


def test_other_queries_are_refused() -> None:
    with pytest.raises(InputError, match="same queries"):
        randomization({"a": 1.0}, {"b": 1.0})


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=8))
def test_holm_only_raises_and_keeps_the_order(p: dict[str, float]) -> None:
    corrected = holm(p)
    assert list(corrected) == list(p)
    assert all(p[name] <= corrected[name] <= 1.0 for name in p)
    by_p = sorted(p, key=lambda name: p[name])
    assert all(corrected[a] <= corrected[b] for a, b in pairwise(by_p))
    if p:
        assert corrected[by_p[0]] == pytest.approx(min(1.0, len(p) * p[by_p[0]]))


def test_a_value_that_is_none_is_refused() -> None:
    """NaN was significant: p of 0.0."""
    values = {"a": 1.0, "b": float("nan")}
    for test in (randomization, difference):
        with pytest.raises(InputError, match="the difference of query 'b' is not finite"):
            test(values, {"a": 0.0, "b": 0.0})
