"""Joining the rankings of one query. Each function is a cited formula; all are pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from crossrank.asking import check_real
from crossrank.errors import InputError
from crossrank.types import Ranking, check_k

# Shares of BM25 and of the bi-encoder in a fusion of scores. Chosen on dev sets, see LOG.md.
SHARES = {"bm25": 0.4, "dense": 0.6}
# What a short passage loses, and from how many tokens on none does. Chosen on dev sets, see LOG.md.
STRENGTH, FULL = 0.3, 200


class Fusion(Protocol):
    """How a pipeline joins what its retrievers found. One with a string `told` says in it how, for `Trace.how`."""

    def __call__(self, rankings: Mapping[str, Ranking]) -> Ranking:
        """One ranking of all documents, from rankings by the retriever's name."""
        ...


class Prior(Protocol):
    """What is known of documents before any query: their lengths, their dates, how often they are opened.

    One with a string `told` says in it what it adds, for `Trace.how`.
    """

    def __call__(self, ids: Sequence[str]) -> NDArray[np.floating[Any]]:
        """One number a document, shape (n,), in standard deviations of the fused scores; 0 changes nothing."""
        ...


@dataclass(frozen=True, slots=True)
class LengthPrior:
    """Shorter passages less: `strength * ln(tokens / full)`, and 0 from `full` tokens on.

    BM25 and cosines both favour a text that is little more than the query's words, such as a bare title, beyond what
    readers find relevant among texts of its length; Singhal, Buckley and Mitra, SIGIR 1996, "Pivoted Document Length
    Normalization", measured that of term weights, and Kraaij, Westerveld and Hiemstra, SIGIR 2002, took the logarithm
    of the length as a prior. One passage among others of its own length loses nothing, as only differences order.

    Attributes:
        lengths: tokens of the passages of the given ids, such as `Index.lengths`.
        strength: at least 0.
        full: tokens, at least 1; the usual index cuts its passages at so many.

    Raises:
        InputError: a number out of its range.

    >>> prior = LengthPrior(lambda ids: np.array([len(id_) for id_ in ids]), full=8)
    >>> prior(["abcd", "abcdefgh", "abcdefghij"]).round(2).tolist()
    [-0.21, 0.0, 0.0]
    """

    lengths: Callable[[Sequence[str]], NDArray[np.integer[Any]]] = field(repr=False)
    strength: float = STRENGTH
    full: int = FULL

    def __post_init__(self) -> None:
        _check_callable("lengths", self.lengths, "Index.lengths")
        check_real("the strength of a prior", self.strength)
        if not 0 <= self.strength < float("inf"):
            raise InputError(f"the strength of a prior must be at least 0 and finite, not {self.strength}")
        check_k(self.full, "full")

    @property
    def told(self) -> str:
        """What `Trace.how` says of it."""
        return f"less {self.strength:g} ln({self.full} / tokens) standard deviations under {self.full} tokens"

    def __call__(self, ids: Sequence[str]) -> NDArray[np.float64]:
        """See `Prior`."""
        # A passage without text has no token, and its score is -inf already.
        tokens = np.maximum(1, np.asarray(self.lengths(ids), dtype=np.float64))
        return self.strength * np.minimum(0.0, np.log(tokens / self.full))


@dataclass(frozen=True, slots=True)
class RRF:
    """Reciprocal rank fusion, see `rrf`: knows nothing of scores, so it joins any retrievers.

    >>> RRF()({"a": Ranking.sorted(["x", "y"], [2, 1]), "b": Ranking.sorted(["y"], [9])}).ids
    ('y', 'x')
    """

    k: int = 60

    @property
    def told(self) -> str:
        """What `Trace.how` says of it."""
        return f"the sum of 1 / ({self.k} + rank)"

    def __call__(self, rankings: Mapping[str, Ranking]) -> Ranking:
        """See `rrf`."""
        return rrf(list(rankings.values()), self.k)


@dataclass(frozen=True, slots=True)
class Scores:
    """Fusion of standardized scores, see `standardized`: keeps by how much a document is better.

    Attributes:
        weights: by the retriever's name, for all retrievers of the pipeline; at least 0.
        prior: what is added to each document's sum, in standard deviations of the sums; nothing when absent.

    >>> Scores()({"bm25": Ranking.sorted(["x"], [9]), "dense": Ranking.sorted(["y", "x", "z"], [0.8, 0.7, 0.3])}).ids
    ('x', 'y', 'z')
    """

    weights: Mapping[str, float] = field(default_factory=lambda: dict(SHARES))
    prior: Prior | None = None

    def __post_init__(self) -> None:
        check_weights(self.weights)
        if self.prior is not None:
            _check_callable("a prior", self.prior, "LengthPrior(index.lengths)")
        if not sum(self.weights.values()) > 0:
            raise InputError(f"weights must be at least 0, and one of them over 0, not {dict(self.weights)}")

    @property
    def told(self) -> str:
        """What `Trace.how` says of it."""
        sums = " + ".join(f"{weight:g} {name}" for name, weight in self.weights.items())
        return f"{sums}, standardized" + (
            "" if self.prior is None else f"; {getattr(self.prior, 'told', 'and a prior')}"
        )

    def __call__(self, rankings: Mapping[str, Ranking]) -> Ranking:
        """See `standardized` and `shifted`."""
        if missing := sorted(set(rankings) - set(self.weights)):
            raise InputError(f"no weight for {', '.join(missing)}; weights are for {', '.join(sorted(self.weights))}")
        fused = standardized(rankings, {name: self.weights[name] for name in rankings})
        return fused if self.prior is None else shifted(fused, self.prior)


def fusion_of(wanted: Fusion | str, prior: Prior | None = None) -> Fusion:
    """The fusion that is called so, "scores" (with this prior) or "rrf"; any other function of rankings as it is.

    Raises:
        InputError: there is none of this name.

    >>> fusion_of("rrf")
    RRF(k=60)
    """
    if callable(wanted):
        return wanted
    if wanted not in ("scores", "rrf"):
        raise InputError(f"unknown fusion {wanted!r}; use 'scores', 'rrf', or a function of rankings by name")
    return Scores(prior=prior) if wanted == "scores" else RRF()


def _check_callable(what: str, value: Any, such: str) -> None:
    if not callable(value):
        raise InputError(f"{what} must be a function of ids, such as {such}, not {type(value).__name__}")


def check_weights(weights: Mapping[str, float]) -> None:
    """Refuse weights that are no numbers of at least 0. One of 0 leaves a ranking's scores out, whatever they are."""
    if not isinstance(weights, Mapping):
        told = type(weights).__name__
        raise InputError(f'weights are by the names of rankings, as in {{"bm25": 0.5, "dense": 0.5}}, not a {told}')
    for name, weight in weights.items():
        check_real(f"the weight of {name}", weight)
        if not 0 <= weight < float("inf"):
            raise InputError(f"weights must be at least 0 and finite, not {weight} for {name}")


def check_ranking(value: Any) -> None:
    """Refuse what is no `Ranking`, such as a list of ids or of (id, score) pairs."""
    if not isinstance(value, Ranking):
        raise InputError(
            f"a ranking is a crossrank.Ranking, not {type(value).__name__}; make one with Ranking.sorted(ids, scores), "
            "where scores of range(len(ids), 0, -1) keep an order that has none"
        )


def rrf(rankings: Sequence[Ranking], k: int = 60) -> Ranking:
    """Reciprocal rank fusion: the score of a document is the sum of 1 / (k + rank) over the rankings that hold it.

    Ranks count from 1. Only ranks matter, so rankings whose scores have different scales can be joined. Ties keep the
    order in which documents first appear, ranking by ranking. Source: Cormack, Clarke and Buettcher, SIGIR 2009, which
    also found k = 60.

    Raises:
        InputError: an entry is no `Ranking`, or `k` is under 0.

    >>> first = Ranking.sorted(["a", "b"], [9.0, 8.0])
    >>> second = Ranking.sorted(["b", "c"], [0.2, 0.1])
    >>> rrf([first, second]).ids
    ('b', 'a', 'c')
    """
    if isinstance(rankings, Ranking):
        raise InputError("rrf takes a list of rankings, not one: rrf([a, b])")
    if not isinstance(rankings, Iterable):
        raise InputError(f"rrf takes a list of rankings, not {type(rankings).__name__}: rrf([a, b])")
    check_real("the constant of reciprocal rank fusion", k)
    if k < 0:
        raise InputError(f"the constant of reciprocal rank fusion must be at least 0, not {k}")
    scores: dict[str, float] = {}
    for ranking in rankings:
        check_ranking(ranking)
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

    Raises:
        InputError: a ranking without a weight, a weight under 0, or a score that is NaN.

    >>> first = Ranking.sorted(["a", "b"], [9.0, 8.0])
    >>> second = Ranking.sorted(["b", "c"], [0.2, 0.1])
    >>> weighted({"bm25": first, "dense": second}, {"bm25": 0.3, "dense": 0.7}).ids
    ('b', 'a', 'c')
    """
    if set(rankings) != set(weights):
        raise InputError(f"weights are for {sorted(weights)}, rankings are {sorted(rankings)}")
    check_weights(weights)
    scores: dict[str, float] = {}
    for name, ranking in rankings.items():
        for document, value in zip(ranking.ids, minmax(ranking.scores), strict=True):
            # A weight of 0 times the -inf of a blank document would be NaN.
            scores[document] = scores.get(document, 0.0) + (weights[name] * float(value) if weights[name] else 0.0)
    return Ranking.sorted(list(scores), list(scores.values()))


def standardized(rankings: Mapping[str, Ranking], weights: Mapping[str, float]) -> Ranking:
    """Weighted sum of each ranking's standardized scores, over all documents that some ranking holds.

    A document that a ranking lacks has at most the score of its last one (but for -inf, which is of blank documents and
    stays), and gets that; or 0, if that is less, from a ranking shorter than the longest: it was not cut, so it did not
    find the document, as BM25 does with a rare word in a few passages. That holds for rankings of one depth, as a
    `Pipeline` asks all its retrievers for: what a ranking lacks that was cut shorter than another would stand at 0, far
    below its cosines, so cut all at the shortest, or use `rrf`. Where all scores of a ranking are equal, what it lacks
    gets less. Unlike ranks, scores tell a clear first place from a narrow one: Bruch, Gai and Ingber, TOIS 2023, "An
    Analysis of Fusion Functions for Hybrid Retrieval", find convex combinations of scores better than RRF in and out of
    domain. Ties keep the order of first appearance. A ranking that is empty, or whose scores are all equal and which
    lacks none, says nothing.

    Raises:
        InputError: a ranking without a weight, a weight under 0, or a score that is NaN.

    >>> first = Ranking.sorted(["a", "b", "c"], [9.0, 2.0, 1.0])
    >>> second = Ranking.sorted(["b", "a", "c"], [0.6, 0.5, 0.3])
    >>> standardized({"bm25": first, "dense": second}, {"bm25": 0.5, "dense": 0.5}).ids
    ('a', 'b', 'c')
    """
    if set(rankings) != set(weights):
        raise InputError(f"weights are for {sorted(weights)}, rankings are {sorted(rankings)}")
    check_weights(weights)
    places: dict[str, int] = {}
    for ranking in rankings.values():
        for document in ranking.ids:
            places.setdefault(document, len(places))
    total = np.zeros(len(places), dtype=np.float64)
    longest = max(map(len, rankings.values()), default=0)
    for name, ranking in rankings.items():
        if len(ranking) and weights[name]:
            scores = np.full(len(places), _missing(ranking, longest), dtype=np.float32)
            scores[[places[document] for document in ranking.ids]] = ranking.scores
            total += weights[name] * zscore(scores)
    return Ranking.sorted(list(places), total.astype(np.float32))


def shifted(ranking: Ranking, prior: Prior) -> Ranking:
    """The ranking by its scores and what is known before any query, in standard deviations of the scores.

    -inf stays -inf. Where all scores are equal the prior alone orders, in its own numbers. Ties keep their order.

    Raises:
        InputError: the prior gives another number of numbers than documents, or one that is not finite.

    >>> before = Ranking.sorted(["old", "new"], [2.0, 1.0])
    >>> shifted(before, lambda ids: np.array([0.0 if id_ == "old" else 3.0 for id_ in ids])).ids
    ('new', 'old')
    """
    given = prior(ranking.ids)
    try:
        added = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"a prior gives one finite number a document: {error}") from error
    if added.shape != (len(ranking),) or not np.isfinite(added).all():
        raise InputError(f"a prior gives one finite number a document: {len(ranking)} here, not shape {added.shape}")
    known = ranking.scores[np.isfinite(ranking.scores)].astype(np.float64)
    spread = float(known.std()) if len(known) else 0.0
    # Sums that are equal but for rounding have a spread, too.
    spread = spread if spread > 1e-6 else 1.0
    return Ranking.sorted(ranking.ids, ranking.scores + spread * added)


def _missing(ranking: Ranking, longest: int) -> float:
    """The score of what a ranking lacks, see `standardized`."""
    # -inf is of a blank document and says nothing of others.
    scores = ranking.scores[np.isfinite(ranking.scores)]
    if not len(scores):
        return 0.0
    low = float(scores.min())
    if len(ranking) < longest:
        low = min(low, 0.0)
    return low if low < scores.max() else low - max(1.0, abs(low))
