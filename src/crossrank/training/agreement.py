"""How far two judges agree: weighted kappa on the same grades, Kendall's tau on the order."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

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
    """Kendall's tau-b between two orders, ties allowed; 0 when one of them ties everything.

    Source: M. Kendall 1945, "The treatment of ties in ranking problems". Of more than `MOST` judgments a sample is
    compared (seed 0).

    Raises:
        InputError: no judgments, or not as many.

    >>> kendall([1, 2, 3], [10, 20, 30]), kendall([1, 2, 3], [3, 2, 1]), kendall([1, 1], [1, 2])
    (1.0, -1.0, 0.0)
    """
    a, b = _both(first, second)
    if len(a) > MOST:
        drawn = np.random.default_rng(0).permutation(len(a))[:MOST]
        a, b = a[drawn], b[drawn]
    left, right = np.triu_indices(len(a), 1)
    x, y = np.sign(a[left] - a[right]), np.sign(b[left] - b[right])
    untied = float(np.sqrt(np.sum(x != 0) * np.sum(y != 0)))
    return float(np.sum(x * y) / untied) if untied else 0.0


def _both(first: ArrayLike, second: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise InputError(f"two judges must have judged the same pairs, not {a.shape} and {b.shape}")
    return a, b
