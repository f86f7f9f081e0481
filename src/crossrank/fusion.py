"""Joining the rankings of one query. Each function is a cited formula; all are pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import InputError
from crossrank.types import Ranking


def rrf(rankings: Sequence[Ranking], k: int = 60) -> Ranking:
    """Reciprocal rank fusion: the score of a document is the sum of 1 / (k + rank) over the rankings that hold it.

    Ranks count from 1. Only ranks matter, so rankings whose scores have different scales can be joined. Ties keep the
    order in which documents first appear, ranking by ranking. Source: Cormack, Clarke and Buettcher, SIGIR 2009, which
    also found k = 60.

    >>> first = Ranking.sorted(["a", "b"], [9.0, 8.0])
    >>> second = Ranking.sorted(["b", "c"], [0.2, 0.1])
    >>> rrf([first, second]).ids
    ('b', 'a', 'c')
    """
    if k < 0:
        raise InputError(f"the constant of reciprocal rank fusion must be at least 0, not {k}")
    scores: dict[str, float] = {}
    for ranking in rankings:
        for rank, document in enumerate(ranking.ids, start=1):
            scores[document] = scores.get(document, 0.0) + 1.0 / (k + rank)
    return Ranking.sorted(list(scores), list(scores.values()))


def zscore(scores: NDArray[np.float32], among: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Scores minus their mean, over their standard deviation; all 0 when they are equal. -inf stays -inf.

    Args:
        scores: shape (n,).
        among: scores whose mean and deviation count instead of their own.

    >>> zscore(np.float32([1, 3])).tolist()
    [-1.0, 1.0]
    >>> zscore(np.float32([5]), among=np.float32([1, 3])).tolist()
    [3.0]
    """
    finite = np.isfinite(scores)
    out = np.where(finite, np.float32(0), scores).astype(np.float32)
    known = scores[finite] if among is None else among[np.isfinite(among)]
    if finite.any() and len(known):
        values = known.astype(np.float64)
        spread = values.std()
        if spread > 0:
            out[finite] = (scores[finite].astype(np.float64) - values.mean()) / spread
    return out


def minmax(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores mapped so that the smallest is 0 and the largest 1; all 0 when they are equal. -inf stays -inf.

    >>> minmax(np.float32([2, 4, 3])).tolist()
    [0.0, 1.0, 0.5]
    """
    finite = np.isfinite(scores)
    out = np.where(finite, np.float32(0), scores).astype(np.float32)
    if finite.any():
        values = scores[finite].astype(np.float64)
        width = values.max() - values.min()
        if width > 0:
            out[finite] = (values - values.min()) / width
    return out


def weighted(rankings: Mapping[str, Ranking], weights: Mapping[str, float]) -> Ranking:
    """Weighted sum of each ranking's min-max normalized scores; a document a ranking lacks gets 0 from it.

    Source: the "CombSUM" of Fox and Shaw, TREC-2 1994, with weights. Ties keep the order of first appearance.

    >>> first = Ranking.sorted(["a", "b"], [9.0, 8.0])
    >>> second = Ranking.sorted(["b", "c"], [0.2, 0.1])
    >>> weighted({"bm25": first, "dense": second}, {"bm25": 0.3, "dense": 0.7}).ids
    ('b', 'a', 'c')
    """
    if set(rankings) != set(weights):
        raise InputError(f"weights are for {sorted(weights)}, rankings are {sorted(rankings)}")
    scores: dict[str, float] = {}
    for name, ranking in rankings.items():
        for document, value in zip(ranking.ids, minmax(ranking.scores), strict=True):
            scores[document] = scores.get(document, 0.0) + weights[name] * float(value)
    return Ranking.sorted(list(scores), list(scores.values()))
