"""A model's values on queries: nDCG@10, what of it is to be expected with noise, and how far two orders agree."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from crossrank.agreement import kendall
from crossrank.evaluation import measures
from crossrank.training.judgments import Scale, grades
from crossrank.training.negatives import Shown
from crossrank.types import Ranking

MEASURE = "nDCG@10"
CUTOFF = 10
# Standard deviation of a score's noise, as a share of that of the scores within a query. On 237 queries of WikiQA and
# five tuned models, mean gain over its spread is 0.33 to 0.41 in nDCG@10, and 0.45 to 0.62 with noise of 0.3, 0.50 to
# 0.70 with 0.5 and 0.53 to 0.72 with 0.7, at which the gain itself stops growing (LOG.md).
NOISE = 0.5


def telling(shown: Shown) -> bool:
    """Whether an order of these documents can be better or worse: they have more than one label."""
    return bool(shown.labels.max() > shown.labels.min())


def values(
    shown: Sequence[Shown], scores: Sequence[NDArray[np.float32]], scale: Scale, low: float, high: float
) -> NDArray[np.float64]:
    """nDCG@10 of each query, shape (n,). Equal scores keep the order of the documents, which is shuffled.

    >>> one = Shown("q", ("a", "b"), np.array([0.0, 1.0]), *np.zeros((3, 2), int), np.zeros(0))
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


def expected(
    shown: Sequence[Shown], scores: Sequence[NDArray[np.float32]], scale: Scale, low: float, high: float
) -> NDArray[np.float64]:
    """Expected nDCG@10 of each query when each score carries noise, shape (n,).

    nDCG@10 moves in jumps, or not at all; this moves with every score, so fewer queries tell two models apart. The
    noise is in proportion to the model's own scores: making all of them larger changes nothing.

    Source: M. Taylor et al. 2008, "SoftRank: optimizing non-smooth rank metrics", equations 6 to 9: each score is the
    mean of a normal distribution; documents are compared two by two, as if comparisons were independent.

    >>> one = Shown("q", ("a", "b"), np.array([0.0, 1.0]), *np.zeros((3, 2), int), np.zeros(0))
    >>> near, far = (expected([one], [np.float32([0, s])], "labels", 0, 1)[0] for s in (1.0, 100.0))
    >>> bool(near == far), round(float(near), 3)
    (True, 0.999)
    >>> round(float(expected([one], [np.float32([3, 3])], "labels", 0, 1)[0]), 3)
    0.815
    """
    finite = [found[np.isfinite(found)] for found in scores]
    spreads = [float(found.std(dtype=np.float64)) for found in finite if len(found)]
    noise = NOISE * float(np.mean(spreads)) if spreads else 0.0
    whole = [grades(one.labels, scale, low, high) for one in shown]
    return np.array([_expected(s.astype(np.float64), g, noise) for s, g in zip(scores, whole, strict=True)])


def _expected(scores: NDArray[np.float64], gains: NDArray[np.int64], noise: float) -> float:
    """Of one query: probabilities of the first ranks by letting each document in turn stand above the others or not."""
    size = min(CUTOFF, len(scores))
    discounts = 1 / np.log2(np.arange(2, size + 2))
    ideal = float(np.sort(gains)[::-1][:size] @ discounts)
    if ideal <= 0:
        return 0.0
    above = _normal(_differences(scores), noise)
    np.fill_diagonal(above, 0.0)
    ranks = np.zeros((len(scores), size))
    ranks[:, 0] = 1.0
    for other in above:
        lower = np.roll(ranks, 1, axis=1)
        lower[:, 0] = 0.0
        ranks += other[:, None] * (lower - ranks)
    return float(gains @ (ranks @ discounts)) / ideal


def _differences(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Row - column; 0 for equal scores, blank documents' -inf among them."""
    left, right = scores[:, None], scores[None]
    with np.errstate(invalid="ignore"):
        return np.where(left == right, 0.0, left - right)


def _normal(differences: NDArray[np.float64], noise: float) -> NDArray[np.float64]:
    """The probability that a difference of two scores with noise is above 0."""
    if noise <= 0:
        return np.asarray((np.sign(differences) + 1) / 2)
    flat = [0.5 * math.erfc(-d / (2 * noise)) for d in differences.ravel().tolist()]
    return np.array(flat).reshape(differences.shape)


def agreement(first: Sequence[NDArray[np.float32]], second: Sequence[NDArray[np.float32]]) -> float:
    """The mean of Kendall's tau between two models' orders over queries of two documents or more; 1 for equal orders.

    >>> round(agreement([np.float32([3, 2, 1])], [np.float32([3, 1, 2])]), 3)
    0.333
    """
    found = [kendall(a, b) for a, b in zip(first, second, strict=True) if len(a) > 1]
    return float(np.mean(found)) if found else 1.0
