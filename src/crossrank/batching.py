"""Which sequences share a batch, and which entries of a list a slice. Pure functions: they know no model, no thread."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import InputError
from crossrank.types import Backend

BUDGET = 8192
"""Tokens of one batch. Scores do not depend on it; memory does: about 60 MB of activations for a MiniLM."""


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
    # Python's own numbers: NumPy's take three times as long in such a loop.
    falling: list[int] = np.asarray(lengths)[order].tolist()
    batches: list[NDArray[np.int64]] = []
    begin, cost = 0, 0
    for end, length in enumerate(falling):
        # Sorted, so the first of a batch is its longest.
        grown = falling[begin] * (end + 1 - begin) if padded else cost + length
        if end > begin and grown > budget:
            batches.append(order[begin:end])
            begin, cost = end, 0
        cost += length
    if len(order):
        batches.append(order[begin:])
    return batches


def budget_of(backend: Backend) -> int:
    """Tokens of one call of the backend: its own `budget` where it cuts batches itself, else BUDGET.

    >>> from crossrank.backends.fake import Fake
    >>> budget_of(Fake())
    8192
    """
    own = getattr(backend, "budget", BUDGET)
    return own if isinstance(own, int) else BUDGET


def slices(costs: NDArray[np.int64], first: int, most: int) -> list[slice]:
    """Cut a list into consecutive parts of bounded cost, so that memory does not grow with the list.

    The first part costs about `first`, each further one twice its predecessor, up to `most`: work on the first begins
    soon, and later ones are large enough to sort. A rest of at most half a part joins the last one, so that a short
    list stays whole. A part costs at most 1.5 times `most`, unless it is a single entry.

    >>> slices(np.array([1, 1, 1, 1, 1, 1, 1, 1, 1, 1]), first=2, most=4)
    [slice(0, 2, None), slice(2, 6, None), slice(6, 10, None)]
    >>> slices(np.array([2, 1]), first=2, most=4)
    [slice(0, 2, None)]
    """
    if not 1 <= first <= most:
        raise InputError(f"slices must cost at least 1 and grow, not from {first} to {most}")
    ends = np.cumsum(costs)
    parts: list[slice] = []
    begin, spent, budget = 0, 0, first
    while begin < len(ends):
        end = max(begin + 1, int(np.searchsorted(ends, spent + budget, side="right")))
        if ends[-1] - spent <= budget + budget // 2:
            end = len(ends)
        parts.append(slice(begin, end))
        begin, spent, budget = end, int(ends[end - 1]), min(2 * budget, most)
    return parts
