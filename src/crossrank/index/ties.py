"""Equal scores at the cut: which rows of a table are in an answer, and in what order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.types import Ranking

_TIES = 16_384
"""How far ties at the cut are followed to order them by id."""


def through_ties(fetch: Callable[[int], Any], depth: int, column: str) -> Any:
    """At least the best `depth` rows, and those that tie with the last of them: which of them Lance leaves out is
    chance, and an answer must not be.

    Args:
        fetch: gives an Arrow table of so many rows, the best first.
        depth: at least 1.
        column: holds the scores.
    """
    limit = depth + 1
    while True:
        found = fetch(limit)
        scores = found[column].to_numpy()
        if len(scores) < limit or scores[depth - 1] != scores[-1] or limit > max(_TIES, depth):
            return found
        limit *= 4


def ranking_of(ids: Sequence[str], scores: Sequence[float] | NDArray[np.floating[Any]], depth: int) -> Ranking:
    """The best `depth`; equal scores in the order of their ids.

    >>> ranking_of(["b", "a", "c"], [1.0, 1.0, 2.0], 2).ids
    ('c', 'a')
    """
    values = np.asarray(scores, dtype=np.float32)
    by_id = sorted(range(len(ids)), key=ids.__getitem__)
    return Ranking.sorted([ids[place] for place in by_id], values[by_id]).cut(depth)
