"""Do several ways of computing one model agree, in scores and in order? The measures of `crossrank check`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossrank.agreement import kendall
from crossrank.errors import InputError
from crossrank.types import order_of

NEAR = {"float32": 1e-4, "int16": 0.004, "float16": 0.01, "bfloat16": 0.05}
"""How far a score may be from the float32 judge, by the number format that computed it: in units of the spread of the
judge's scores (`spread`). The shipped model on SelQA sentences was within 3e-6 in float32, and in bfloat16 within 0.015
(native engine) and 0.023 (torch); in int16 it was within 0.001 on WikiQA's. See LOG.md."""

MOVES = {
    "cpu": 0.0, "fake": 0.0, "reference": 2e-5,
    "torch": 2e-5, "torch-bfloat16": 0.1, "cuda": 2e-5, "cuda-bfloat16": 0.1,
}  # fmt: skip
"""How far a score may move with what else is in its batch, by backend: matrix products round differently by shape. The
native engine adds every number in one order, whatever stands beside it."""

Scores = NDArray[np.float32]
_FORMAT = re.compile(r"\b(?:b?float16|float32|int16)\b")


def near(backend: str) -> float:
    """The value of `NEAR` for a backend, by its name; the tightest for one that names no number format.

    >>> near("cpu (avx512, bfloat16)"), near("reference (numpy, float32)")
    (0.05, 0.0001)
    """
    found = _FORMAT.search(backend)
    return NEAR[found[0]] if found else min(NEAR.values())


def moves(backend: str) -> float:
    """The value of `MOVES` for a backend, by its name.

    >>> moves("cpu (avx512, bfloat16)"), moves("torch (cpu, bfloat16)")
    (0.0, 0.1)
    """
    kind = backend.partition(" ")[0]
    half = f"{kind}-bfloat16"
    return MOVES[half] if half in MOVES and near(backend) > NEAR["float32"] else MOVES[kind]


@dataclass(frozen=True, slots=True)
class Way:
    """One way to compute a model's scores.

    Attributes:
        name: for people: "cpu (avx2, float32)".
        score: raw scores of (query, passage) pairs, shape (n,).
        near: its tolerance, in units of the spread: a value of `NEAR`.
    """

    name: str
    score: Callable[[Sequence[tuple[str, str]]], Scores]
    near: float


@dataclass(frozen=True, slots=True)
class Swap:
    """Two documents of one query whose order is another one than the judge's.

    Attributes:
        query: position of the query.
        first: position, among the query's documents, of the one that the judge puts first.
        second: of the other one.
        gap: what the judge's scores differ by; 0 for a tie.
    """

    query: int
    first: int
    second: int
    gap: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far one way agrees with the judge.

    Attributes:
        name: of the way.
        largest: the largest difference of two scores; infinite where one is finite and the other is not.
        typical: the median difference.
        limit: the largest difference allowed: its tolerance times the spread of the judge's scores.
        tau: mean of Kendall's tau-b over the queries with two or more documents (1 when there are none).
        least_tau: the lowest of them.
        same_first: queries whose best document is the judge's.
        same_order: queries whose whole order is the judge's.
        queries: how many there are.
        swaps: every pair in another order, those furthest apart first.
        ties: of these, the pairs that the judge tells apart by no more than twice `limit`: their order is anybody's.
    """

    name: str
    largest: float
    typical: float
    limit: float
    tau: float
    least_tau: float
    same_first: int
    same_order: int
    queries: int
    swaps: tuple[Swap, ...]
    ties: int

    @property
    def ok(self) -> bool:
        """Whether all scores are within the limit and only what is as good as tied stands in another order."""
        return bool(self.largest <= self.limit) and self.ties == len(self.swaps)


def spread(scores: Scores) -> float:
    """Standard deviation of the finite scores, and at least 1: the unit of `NEAR`.

    >>> spread(np.float32([-4, 4, -np.inf]))
    4.0
    """
    finite = scores[np.isfinite(scores)]
    return max(1.0, float(finite.std())) if len(finite) else 1.0


def compare(way: Way, found: Scores, judge: Scores, sizes: Sequence[int]) -> Agreement:
    """Hold the scores of one way against the judge's.

    Args:
        way: which one.
        found: its scores, shape (n,).
        judge: the judge's, shape (n,).
        sizes: documents of each query; scores are grouped so.

    Raises:
        InputError: shapes or sizes do not fit.
        ScoreError: a score is NaN.

    >>> found = compare(Way("w", len, 0.1), np.float32([0, 1, 9]), np.float32([0.01, 0, 9]), [2, 1])
    >>> found.ok, found.largest, len(found.swaps), found.ties, found.same_first, found.tau
    (False, 1.0, 1, 1, 1, -1.0)
    """
    if found.shape != judge.shape or found.shape != (sum(sizes),):
        raise InputError(f"scores of shapes {found.shape} and {judge.shape} for {sum(sizes)} pairs")
    same = found == judge  # -inf from -inf would be NaN
    apart = np.where(same, 0.0, np.abs(np.where(same, 0.0, found) - np.where(same, 0.0, judge)))
    limit = way.near * spread(judge)
    taus, swaps, same_first, same_order, begin = [], list[Swap](), 0, 0, 0
    for number, size in enumerate(sizes):
        mine, theirs = found[begin : begin + size], judge[begin : begin + size]
        begin += size
        ours, wanted = order_of(mine), order_of(theirs)
        same_first += bool(size == 0 or ours[0] == wanted[0])
        same_order += bool((ours == wanted).all())
        if size > 1:
            taus.append(kendall(mine, theirs))
        swaps += _swaps(number, ours, wanted, theirs)
    swaps.sort(key=lambda swap: -swap.gap)
    return Agreement(
        way.name, float(apart.max(initial=0.0)), float(np.median(apart)) if len(apart) else 0.0, limit,
        float(np.mean(taus)) if taus else 1.0, min(taus, default=1.0), same_first, same_order, len(sizes),
        tuple(swaps), sum(swap.gap <= 2 * limit for swap in swaps),
    )  # fmt: skip


def _swaps(query: int, ours: NDArray[np.int64], wanted: NDArray[np.int64], judge: Scores) -> list[Swap]:
    """Pairs of documents that two orders put the other way round."""
    if (ours == wanted).all():
        return []
    place = np.argsort(ours)[wanted]  # where our order has the judge's first, second, ...
    above, below = np.nonzero(np.triu(place[:, None] > place[None, :], 1))
    return [
        Swap(
            query,
            int(wanted[i]),
            int(wanted[j]),
            float(judge[wanted[i]] - judge[wanted[j]]) if judge[wanted[i]] != judge[wanted[j]] else 0.0,
        )
        for i, j in zip(above.tolist(), below.tolist(), strict=True)
    ]
