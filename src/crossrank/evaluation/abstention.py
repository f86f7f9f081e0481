"""How often a threshold is wrong: answers that it loses, and queries without an answer that it tells something.

Each share has Wilson's interval, see `reliability`. A query whose relevant documents are taken out of its candidates is
one without an answer, and a hard one: what is left is still about its subject.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossrank.evaluation.reliability import wilson

THRESHOLDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
# A threshold is chosen among thousandths: no set of queries tells more.
_CHOICES = np.arange(1, 1000) / 1000


@dataclass(frozen=True, slots=True)
class Share:
    """How many queries of how many, and the 95 % interval of that share.

    Attributes:
        count: queries.
        queries: of so many. Where it is 0 nothing is known: the share is 0, its interval from 0 to 1.
        share: from 0 to 1.
        low: lower end.
        high: upper end.
    """

    count: int
    queries: int
    share: float
    low: float
    high: float

    @classmethod
    def of(cls, hits: NDArray[np.bool_]) -> Share:
        """The share of the queries that are hit, shape (n,).

        >>> found = Share.of(np.array([True, False, False, False]))
        >>> found.count, found.queries, found.share, round(found.high, 3)
        (1, 4, 0.25, 0.699)
        """
        count, queries = int(hits.sum()), len(hits)
        low, high = wilson(count, queries) if queries else (0.0, 1.0)
        return cls(count, queries, count / max(1, queries), low, high)


@dataclass(frozen=True, slots=True)
class Cut:
    """What a threshold does.

    Attributes:
        threshold: the least probability that is shown.
        lost: of the queries with an answer, those of which it leaves out every answer.
        nothing: of the same, those that are told that nothing is relevant; all of them are in `lost`, too.
        something: of the queries without an answer, those that are shown something.
    """

    threshold: float
    lost: Share
    nothing: Share
    something: Share


@dataclass(frozen=True, slots=True, eq=False)
class Best:
    """The highest probabilities of queries, which tell what any threshold does.

    Attributes:
        answer: of the relevant documents of each query that has some, shape (n,).
        shown: of all documents of the same queries, shape (n,).
        without: of the documents that are not relevant, of each query that has some, shape (m,): queries without a
            relevant one as they are, and others without their answers.
    """

    answer: NDArray[np.float64]
    shown: NDArray[np.float64]
    without: NDArray[np.float64]

    @classmethod
    def of(cls, query: NDArray[np.int64], chances: NDArray[np.float32], relevant: NDArray[np.bool_]) -> Best:
        """From judged pairs: number of the query, probability and judgment of each, shape (n,).

        >>> best = Best.of(np.array([0, 0, 1]), np.float32([0.75, 0.5, 0.25]), np.array([True, False, False]))
        >>> best.answer.tolist(), best.shown.tolist(), best.without.tolist()
        ([0.75], [0.75], [0.5, 0.25])
        """
        top = np.full((2, int(query.max(initial=-1)) + 1), -1.0)
        np.maximum.at(top, (relevant.astype(int), query), chances.astype(np.float64))
        has = top[1] >= 0
        return cls(top[1, has], top[:, has].max(axis=0), top[0, top[0] >= 0])

    def at(self, threshold: float) -> Cut:
        """What this threshold does.

        >>> Best(np.array([0.2, 0.8]), np.array([0.6, 0.8]), np.array([0.6])).at(0.5).lost.count
        1
        """
        lost, nothing, something = self.answer < threshold, self.shown < threshold, self.without >= threshold
        return Cut(threshold, Share.of(lost), Share.of(nothing), Share.of(something))

    def largest(self, most_lost: float) -> float | None:
        """The largest threshold, in thousandths, that loses the answers of at most this share of the queries with some.

        None where even 0.001 loses more, or no query has an answer.

        >>> best = Best(np.array([0.1234, 0.5, 0.5, 0.9]), np.ones(4), np.zeros(0))
        >>> best.largest(0.2), best.largest(0.25), Best(*np.zeros((3, 4))).largest(0.2)
        (0.123, 0.5, None)
        """
        if not len(self.answer):
            return None
        # A share such as 0.29 of 100 queries is a little under 29 in binary numbers.
        may = min(int(most_lost * len(self.answer) + 1e-9), len(self.answer) - 1)
        place = int(np.searchsorted(_CHOICES, np.sort(self.answer)[may], "right"))
        return float(_CHOICES[place - 1]) if place else None


def fewest(most_lost: float) -> int:
    """Queries with an answer of which none is lost, that show that at most this share of all are: `Share.high` is it.

    >>> fewest(0.05), wilson(0, 73)[1] <= 0.05 < wilson(0, 72)[1]
    (73, True)
    """
    # Of none in n Wilson's upper end is z^2 / (n + z^2), and z^2 / (1 + z^2) for n = 1.
    one = wilson(0, 1)[1]
    return math.ceil(one / (1 - one) * (1 - most_lost) / most_lost)
