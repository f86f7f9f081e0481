"""Agreement of two judges or two ways to score: weighted kappa of grades, Kendall's tau of orders."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossrank.agreement import MOST, kendall, weighted_kappa
from crossrank.errors import InputError

SCORES = st.sampled_from([-np.inf, -2.0, -1.0, 0.0, 1.0, 3.0])


def test_kappa_by_hand() -> None:
    # Cohen 1968: 1 - observed / expected squared differences; here 1/4 and 20/16.
    assert weighted_kappa([0, 1, 2, 1], [0, 1, 2, 2]) == pytest.approx(1 - 0.25 / 1.25)
    assert weighted_kappa([1, 1], [1, 1]) == 1.0
    with pytest.raises(InputError):
        weighted_kappa([1], [1, 2])


def test_kappa_of_many_grades_takes_no_square_of_memory() -> None:
    many = np.arange(1_000_000) % 11
    assert weighted_kappa(many, many) == 1.0
    assert weighted_kappa(many, 10 - many) == pytest.approx(-1.0, abs=1e-4)


@given(st.lists(st.tuples(st.integers(0, 10), st.integers(0, 10)), min_size=2, max_size=30))
@settings(max_examples=50)
def test_kappa_is_symmetric_and_bounded(pairs: list[tuple[int, int]]) -> None:
    a, b = np.array(pairs).T
    assert weighted_kappa(a, b) == pytest.approx(weighted_kappa(b, a))
    assert -1.0 - 1e-9 <= weighted_kappa(a, b) <= 1.0 + 1e-9
    by_chance = np.mean((a[:, None] - b[None]) ** 2)
    assert weighted_kappa(a, b) == pytest.approx(1 - np.mean((a - b) ** 2) / by_chance if by_chance else 1.0)


@given(st.lists(st.tuples(SCORES, SCORES), min_size=1, max_size=12))
def test_tau_counts_pairs(both: list[tuple[float, float]]) -> None:
    a, b = np.array(both, np.float32).T
    pairs = [(int(a[i] > a[j]) - int(a[i] < a[j]), int(b[i] > b[j]) - int(b[i] < b[j]))
             for i in range(len(a)) for j in range(i)]  # fmt: skip
    first, second = sum(x != 0 for x, _ in pairs), sum(y != 0 for _, y in pairs)
    want = sum(x * y for x, y in pairs) / np.sqrt(first * second) if first and second else float(first == second)
    assert kendall(a, b) == pytest.approx(want)
    assert kendall(b, a) == pytest.approx(want)
    assert kendall(a, 3 * b) == pytest.approx(want)
    assert kendall(a, a) == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_tau_is_scipys(seed: int) -> None:
    stats = pytest.importorskip("scipy.stats", reason="the judge is scipy, which crossrank itself does not need")
    a, b = np.random.default_rng(seed).integers(0, 40, (2, 200))
    assert kendall(a, b) == pytest.approx(stats.kendalltau(a, b).statistic)


def test_tau_of_many_judgments_is_that_of_a_sample() -> None:
    many = np.arange(200_000)  # all pairs would take 300 GB
    assert (kendall(many, many), kendall(many, -many)) == (1.0, -1.0)
    assert kendall(many[:MOST], -many[:MOST]) == -1.0


def test_judges_judged_the_same() -> None:
    for first, second in (([1], [1, 2]), ([], []), ([[1, 2]], [[1, 2]])):
        with pytest.raises(InputError):
            kendall(first, second)


@pytest.mark.parametrize("count", [2, 100, 2 * MOST])
def test_tau_of_what_is_no_number_is_none(count: int) -> None:
    """It was taken for a tie, so that a model that gives NaN agreed to 0.98 and was taken for right."""
    a = np.arange(float(count))
    b = a.copy()
    b[count // 2] = np.nan
    assert np.isnan([kendall(a, b), kendall(b, a), kendall(b, b)]).all()
    assert not kendall(a, b) >= -1
