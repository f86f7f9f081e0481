"""Do two lists of scores say the same order?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def tau(a: Sequence[float] | NDArray[Any], b: Sequence[float] | NDArray[Any]) -> float:
    """Kendall's tau-b (Kendall 1945) of two lists of scores: 1 for the same order, 0 for none in common.

    Pairs that are tied in one list count half, so that ties cannot pass for order; 1 where nothing can be ordered.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    pairs = np.triu_indices(len(first), 1)
    x, y = np.sign(first[:, None] - first)[pairs], np.sign(second[:, None] - second)[pairs]
    weight = np.sqrt(np.count_nonzero(x) * np.count_nonzero(y))
    return float((x * y).sum() / weight) if weight else 1.0
