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
from crossrank.training.searched import Answered, best_of
from crossrank.types import Ranking

# What is ranked: judged and mined documents, or what a search found.
Lists = Shown | Answered

MEASURE = "nDCG@10"
CUTOFF = 10
# Standard deviation of a score's noise, as a share of that of the scores within a query. On 237 queries of WikiQA and
# five tuned models, mean gain over its spread is 0.33 to 0.41 in nDCG@10, and 0.45 to 0.62 with noise of 0.3, 0.50 to
# 0.70 with 0.5 and 0.53 to 0.72 with 0.7, at which the gain itself stops growing (LOG.md).
NOISE = 0.5


def telling(one: Lists) -> bool:
    """Whether an order of these documents can be better or worse: they have more than one label."""
    return bool(len(one) and one.labels.max() > one.labels.min())


def values(
    lists: Sequence[Lists],
    scores: Sequence[NDArray[np.float32]],
    scale: Scale,
    low: float,
    high: float,
    mix: float = 1.0,
) -> NDArray[np.float64]:
    """nDCG@10 of each query, shape (n,). Equal scores keep the order of the documents, which is shuffled.

    A document of several passages counts once, by its best one, and one that a search did not find as missing.

    Args:
        lists: what is ranked.
        scores: of each one's documents.
        scale: of the labels, like the next two.
        low: the least label.
        high: the highest.
        mix: share of the scores in the order of a search; without meaning for a list that is no search's.

    >>> one = Shown("q", ("a", "b"), np.array([0.0, 1.0]), *np.zeros((3, 2), int), np.zeros(0))
    >>> values([one], [np.float32([0, 1])], "labels", 0, 1).tolist()
    [1.0]
    >>> two = Answered("q", ("a", "b"), np.float32([1, -1]), np.array([0, 1]), np.array([0.0, 1.0]), ())
    >>> [round(float(values([two], [np.float32([0, 3])], "labels", 0, 1, mix)[0]), 3) for mix in (0.4, 0.6)]
    [0.631, 1.0]
    """
    if not lists:
        return np.zeros(0)
    qrels, run = {}, {}
    for number, (one, found) in enumerate(zip(lists, scores, strict=True)):
        order, labels = documents(one, found, mix)
        names = [str(i) for i in range(len(labels))]
        whole = grades(labels, scale, low, high).tolist()
        qrels[str(number)] = dict(zip(names, whole, strict=True))
        run[str(number)] = Ranking.sorted(names[: len(order)], order)
    return np.array(list(measures.per_query(qrels, run, [MEASURE])[MEASURE].values()))


def documents(
    one: Lists, scores: NDArray[np.float32], mix: float = 1.0
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """What orders the documents, each by its best passage, and their labels; behind these, those of what was not found.

    Shapes (n,) and (n + not found,).
    """
    if not isinstance(one, Answered):
        best = one.best(scores)
        return scores[best], one.labels[best]
    mixed = one.mixed(scores, mix)
    best = best_of(mixed, one.owner)
    return mixed[best], np.array([*one.labels[best], *one.unfound])


def expected(
    lists: Sequence[Lists],
    scores: Sequence[NDArray[np.float32]],
    scale: Scale,
    low: float,
    high: float,
    mix: float = 1.0,
) -> NDArray[np.float64]:
    """Expected nDCG@10 of each query when each score carries noise, shape (n,). Arguments as of `values`.

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
    ordered = [documents(one, found, mix) for one, found in zip(lists, scores, strict=True)]
    finite = [order[np.isfinite(order)] for order, _ in ordered]
    spreads = [float(order.std(dtype=np.float64)) for order in finite if len(order)]
    noise = NOISE * float(np.mean(spreads)) if spreads else 0.0
    whole = [(order.astype(np.float64), grades(labels, scale, low, high)) for order, labels in ordered]
    return np.array([_expected(order, gains, noise) for order, gains in whole])


def _expected(scores: NDArray[np.float64], gains: NDArray[np.int64], noise: float) -> float:
    """Of one query: probabilities of the first ranks by letting each document in turn stand above the others or not.

    Gains beyond the scores are those of documents that no order brings back.
    """
    ideal = np.sort(gains)[::-1][:CUTOFF]
    best = float(ideal @ (1 / np.log2(np.arange(2, len(ideal) + 2))))
    if best <= 0:
        return 0.0
    size = min(CUTOFF, len(scores))
    above = _normal(_differences(scores), noise)
    np.fill_diagonal(above, 0.0)
    ranks = np.zeros((len(scores), size))
    ranks[:, :1] = 1.0
    for other in above:
        lower = np.roll(ranks, 1, axis=1)
        lower[:, :1] = 0.0
        ranks += other[:, None] * (lower - ranks)
    return float(gains[: len(scores)] @ (ranks @ (1 / np.log2(np.arange(2, size + 2))))) / best


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
