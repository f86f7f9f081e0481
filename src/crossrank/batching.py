"""Which sequences share a batch. A pure function over lengths: it knows no model and no thread."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import InputError


def plan(lengths: NDArray[np.int64], budget: int, padded: bool) -> list[NDArray[np.int64]]:
    """Cut sequences into batches that cost at most `budget` tokens each, longest first.

    A batch costs the sum of its lengths, or, where the backend pads, its longest times its count. A sequence longer
    than the budget gets a batch of its own. Longest first, so that a batch that does not fit in memory fails at once;
    like lengths together, so that little is padding. Every position appears exactly once, which is the way back:
    `out[batch] = backend.forward(tokens.take(batch))`.

    >>> [batch.tolist() for batch in plan(np.array([3, 9, 4, 2]), budget=9, padded=False)]
    [[1], [2, 0, 3]]
    >>> [batch.tolist() for batch in plan(np.array([3, 9, 4, 2]), budget=9, padded=True)]
    [[1], [2, 0], [3]]
    """
    if budget < 1:
        raise InputError(f"the token budget of a batch must be at least 1, not {budget}")
    order = np.argsort(-np.asarray(lengths), kind="stable")
    batches: list[NDArray[np.int64]] = []
    begin, cost = 0, 0
    for end, row in enumerate(order):
        length = int(lengths[row])
        # Sorted, so the first of a batch is its longest.
        grown = int(lengths[order[begin]]) * (end + 1 - begin) if padded else cost + length
        if end > begin and grown > budget:
            batches.append(order[begin:end])
            begin, cost = end, 0
        cost += length
    if len(order):
        batches.append(order[begin:])
    return batches
