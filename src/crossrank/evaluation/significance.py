"""Could a difference this large be chance? A paired randomization test, and Holm's correction for many comparisons.

Sources: M. Smucker, J. Allan and B. Carterette, A Comparison of Statistical Significance Tests for Information
Retrieval Evaluation, CIKM 2007, which found Fisher's randomization test fit and the sign and Wilcoxon tests unfit for
such data; S. Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of Statistics 6, 1979.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import InputError
from crossrank.evaluation.bootstrap import paired

# Bounds the memory of one step: 2 million signs.
_STEP = 2_000_000
# Sums of the same numbers in another order differ by this much of their size; equal ones must count as equal.
_SAME = 1e-9


def randomization(
    values: Mapping[str, float], baseline: Mapping[str, float], draws: int = 10_000, seed: int = 0
) -> float:
    """Two-sided p of the mean of `values - baseline`, paired by query, under random exchange of the two in each query.

    With few queries all exchanges are counted (2 to the power of the queries that differ, when that is not over
    `draws`), else so many are drawn. A drawn p is never 0: the observed assignment counts as one of them.

    Raises:
        InputError: the two have different queries or none, or `draws` is under 1.

    >>> randomization({"q1": 1.0, "q2": 1.0, "q3": 1.0}, {"q1": 0.5, "q2": 0.5, "q3": 0.5})
    0.25
    >>> randomization({"q1": 0.5}, {"q1": 0.5})
    1.0
    """
    if draws < 1:
        raise InputError(f"draws must be at least 1, not {draws}")
    found = paired(values, baseline)
    if not len(found):
        raise InputError("there are no queries to compare")
    # Queries without a difference have the same sum under either sign.
    moved = np.abs(found[found != 0.0])
    if not len(moved):
        return 1.0
    observed = abs(float(found.sum())) - _SAME * float(moved.sum())
    # 2 to the power of the moved ones is at most `draws`; as a float it overflows with 1,024 of them.
    if len(moved) < draws.bit_length():
        signs = np.indices((2,) * len(moved), dtype=np.int8).reshape(len(moved), -1).T * 2.0 - 1.0
        return float(np.mean(np.abs(signs @ moved) >= observed))
    as_large = _as_large(moved, observed, draws, np.random.default_rng(seed))
    return (as_large + 1) / (draws + 1)


def _as_large(moved: NDArray[np.float64], observed: float, draws: int, random: np.random.Generator) -> int:
    step, count = max(1, _STEP // len(moved)), 0
    for start in range(0, draws, step):
        signs = random.integers(0, 2, (min(step, draws - start), len(moved))) * 2.0 - 1.0
        count += int(np.sum(np.abs(signs @ moved) >= observed))
    return count


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Each p corrected for having made all of these comparisons; in the order given.

    Sorted ascending, the i-th of m (from 0) is multiplied by m - i, held under 1, and never falls below the one before.

    >>> {name: round(value, 3) for name, value in holm({"a": 0.01, "b": 0.04, "c": 0.03}).items()}
    {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    corrected: dict[str, float] = {}
    highest = 0.0
    for place, name in enumerate(sorted(p, key=lambda name: p[name])):
        highest = max(highest, min(1.0, (len(p) - place) * p[name]))
        corrected[name] = highest
    return {name: corrected[name] for name in p}
