"""How far two judges, or two ways to score, agree: weighted kappa on the same grades, Kendall's tau on the order."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crossrank.errors import InputError

# Pairs of pairs are compared all at once; 3,000 judgments are 9 million comparisons.
MOST = 3000


def weighted_kappa(first: ArrayLike, second: ArrayLike) -> float:
    """Cohen's kappa with quadratic weights: 1 for equal grades, 0 for what chance gives, below for worse.

    Source: J. Cohen 1968, "Weighted kappa". Two judges who each give one and the same grade to everything agree by
    chance only: 0, or 1 when the grades are equal.

    Args:
        first: whole grades, shape (n,).
        second: grades on the same scale, in the same order.

    Raises:
        InputError: no grades, or not as many.

    >>> weighted_kappa([0, 1, 2], [0, 1, 2]), weighted_kappa([0, 1, 0, 1], [0, 0, 1, 1])
    (1.0, 0.0)
    """
    a, b = _both(first, second)
    seen = float(np.mean((a - b) ** 2))
    # The mean squared difference of every grade of one with every grade of the other, without the n^2 differences.
    by_chance = float(a.var() + b.var() + (a.mean() - b.mean()) ** 2)
    if by_chance == 0.0:
        return 1.0
    return 1.0 - seen / by_chance


def kendall(first: ArrayLike, second: ArrayLike) -> float:
    """Kendall's tau-b between two orders: 1 for equal ones, -1 for opposite ones; ties are counted out.

    Source: M. Kendall 1945, "The treatment of ties in ranking problems". Where both tie everything, which the formula
    leaves open, the orders are equal: 1. Where only one does, it says nothing of the other's: 0. Of more than `MOST`
    judgments a sample is compared (seed 0). NaN has no place in an order: where any is, tau is NaN.

    Args:
        first: scores or grades, shape (n,); infinite ones are like any other.
        second: of the same things, in the same order; on any scale.

    Raises:
        InputError: no judgments, or not as many.

    >>> kendall([1, 2, 3], [10, 20, 30]), kendall([1, 2, 3], [3, 2, 1]), kendall([1, 1], [1, 2])
    (1.0, -1.0, 0.0)
    """
    a, b = _both(first, second)
    if np.isnan(a).any() or np.isnan(b).any():
        return math.nan
    if len(a) > MOST:
        drawn = np.random.default_rng(0).permutation(len(a))[:MOST]
        a, b = a[drawn], b[drawn]
    x, y = _signs(a), _signs(b)
    ordered, also = int(np.count_nonzero(x)), int(np.count_nonzero(y))
    if not ordered or not also:
        return float(ordered == also)
    return float(np.sum(x * y, dtype=np.int64)) / math.sqrt(ordered * also)


def _signs(scores: NDArray[np.float64]) -> NDArray[np.int8]:
    """Of every pair once: 1 where the first is above, -1 where it is below."""
    first, second = np.triu_indices(len(scores), 1)
    # Compared, not subtracted: two blank documents are both -inf, which is a tie and not NaN.
    one, two = scores[first], scores[second]
    return (one > two).astype(np.int8) - (one < two).astype(np.int8)


def _both(first: ArrayLike, second: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise InputError(f"two judges must have judged the same pairs, not {a.shape} and {b.shape}")
    return a, b
