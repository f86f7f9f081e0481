"""A model's values on queries: nDCG@10 a query, and how far two models agree on an order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from crossrank.evaluation import measures
from crossrank.training.judgments import Scale, grades
from crossrank.training.negatives import Shown
from crossrank.types import Ranking

MEASURE = "nDCG@10"


def telling(shown: Shown) -> bool:
    """Whether an order of these documents can be better or worse: they have more than one label."""
    return bool(shown.labels.max() > shown.labels.min())


def values(
    shown: Sequence[Shown], scores: Sequence[NDArray[np.float32]], scale: Scale, low: float, high: float
) -> NDArray[np.float64]:
    """nDCG@10 of each query, shape (n,). Equal scores keep the order of the documents, which is shuffled.

    >>> one = Shown("q", ("a", "b"), np.array([0.0, 1.0]), np.ones(2, bool), np.zeros(2, bool), np.zeros(0))
    >>> values([one], [np.float32([0, 1])], "labels", 0, 1).tolist()
    [1.0]
    """
    if not shown:
        return np.zeros(0)
    qrels, run = {}, {}
    for number, (one, found) in enumerate(zip(shown, scores, strict=True)):
        names = [str(i) for i in range(len(one))]
        whole = grades(one.labels, scale, low, high).tolist()
        qrels[str(number)] = dict(zip(names, whole, strict=True))
        run[str(number)] = Ranking.sorted(names, found)
    return np.array(list(measures.per_query(qrels, run, [MEASURE])[MEASURE].values()))


def agreement(first: Sequence[NDArray[np.float32]], second: Sequence[NDArray[np.float32]]) -> float:
    """Kendall's tau-a between two models' orders, the mean over queries of two documents or more; 1 for equal orders.

    Source: M. Kendall 1938, "A new measure of rank correlation".

    >>> round(agreement([np.float32([3, 2, 1])], [np.float32([3, 1, 2])]), 3)
    0.333
    """
    found = []
    for a, b in zip(first, second, strict=True):
        if len(a) < 2:
            continue
        left, right = np.triu_indices(len(a), 1)
        found.append(float(np.mean(np.sign(a[left] - a[right]) * np.sign(b[left] - b[right]))))
    return float(np.mean(found)) if found else 1.0
