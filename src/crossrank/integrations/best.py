"""The best of a list of texts that a host brings, with the scores it came with."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from crossrank.asking import check_query, check_real
from crossrank.calibration import above, check_threshold, without_probabilities
from crossrank.cascade import OnError, Stage, Trace, Unavailable, check_on_error, rerank
from crossrank.crossencoder import CrossEncoder
from crossrank.errors import InputError
from crossrank.falling import falling, finite
from crossrank.integrations.lists import NOTE, PROBABILITY, QUERY_READ, READ
from crossrank.relevance import threshold_of
from crossrank.scorers import name_of
from crossrank.types import Passage, Ranking, Scorer, check_k

Scores = Literal["logit", "probability"]
Threshold = float | Literal["model"] | None
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a host asks for besides a query and texts.

    Attributes:
        scores: "logit" tells the model's raw scores, "probability" those that `scorer.probability` gives, from 0 to 1.
        threshold: only texts that have at least this probability are returned; "model" takes the model's own
            (`CrossEncoder.threshold`), None leaves none out.
        mix: share of the model's score in the order, over 0 and at most 1; the rest is from the scores that the texts
            came with, or from their order where one has none. See `crossrank.cascade.mixed`. Under 1, scores are
            mixed ones, which order and mean nothing else, and probabilities are beside them.
        budget_ms: milliseconds in which the answer is due. What could not be read until then stays behind, in order.
        on_error: "keep" returns the texts as they came, and says so, where the model cannot be loaded or fails;
            "raise" passes the error on.

    Raises:
        InputError: one of them is something else, or probabilities are asked for of texts that may not be read, or not
            be ordered by them.
    """

    scores: Scores = "logit"
    threshold: Threshold = None
    mix: float = 1.0
    budget_ms: float | None = None
    on_error: OnError = "raise"

    def __post_init__(self) -> None:
        if self.scores not in get_args(Scores):
            raise InputError(f'scores are "logit" or "probability", not {self.scores!r}')
        check_threshold(self.threshold)
        check_real("mix", self.mix)
        if not 0.0 < self.mix <= 1.0:
            raise InputError(f"mix is a share over 0 and at most 1, not {self.mix}")
        if self.budget_ms is not None:
            check_real("budget_ms", self.budget_ms)
            if not 0.0 < self.budget_ms < math.inf:
                raise InputError(f"budget_ms is a time over 0, not {self.budget_ms}")
        check_on_error(self.on_error)
        others = {"mix": self.mix < 1.0, "budget_ms": self.budget_ms is not None, "on_error": self.on_error == "keep"}
        if self.scores == "probability" and any(others.values()):
            named = " and ".join(name for name in others if others[name])
            raise InputError(
                f'scores="probability" are for lists that the model reads whole and orders alone: leave {named} out, '
                "or take the probabilities from the metadata"
            )


@dataclass(frozen=True, slots=True)
class Best:
    """One text of a list.

    Attributes:
        position: in the list.
        score: what orders it: the model's, raw, or the probability, or a mix, see `Asked`; of a blank text -inf, or 0.
        told: the score as hosts are told it, see `finite` and `falling`.
        notes: what people should know of how it was read, for the metadata of a host; mostly empty.
    """

    position: int
    score: float
    told: float
    notes: Mapping[str, Any]


def best(
    scorer: Scorer,
    query: str,
    texts: Sequence[str],
    k: int | None,
    asked: Asked | None = None,
    before: Sequence[float | None] | None = None,
) -> list[Best]:
    """The `k` texts that answer the query best, best first; equal scores keep their incoming order.

    Args:
        scorer: what reads them.
        query: not blank.
        texts: any; a blank one has the logit -inf and the probability 0.
        k: texts to return at most; None for all.
        asked: how; as `Asked()` when absent.
        before: the scores that the texts came with, for a mix; where one is None, or all, their order counts.

    Raises:
        InputError: a blank query, a `k` under 1, or a probability is asked for and the model gives none.
        ScoreError: the model gives NaN.

    >>> class Length:
    ...     def score(self, pairs):
    ...         return np.array([len(text) for _, text in pairs], np.float32)
    >>> [(found.position, found.score) for found in best(Length(), "which?", ["ab", "abcd", "ab"], k=2)]
    [(1, 4.0), (0, 2.0)]
    >>> mixed = best(Length(), "which?", ["ab", "abcd", "abc"], 3, Asked(mix=0.4), before=[0.9, 0.1, 0.8])
    >>> [found.position for found in mixed]
    [2, 0, 1]
    """
    asked = asked or Asked()
    check_query(query)
    if k is not None:
        check_k(k)
    if not texts:
        return []
    # The engine takes ids, and a list may hold one text twice: positions are the ids here.
    passages = {str(position): Passage(str(position), text) for position, text in enumerate(texts)}
    limit = _limit(scorer, asked)
    deadline = None if asked.budget_ms is None else time.perf_counter() + asked.budget_ms / 1000
    came = _came(len(texts), before)
    arrived = _arrived(list(passages), asked, came)
    ranking, (trace,) = rerank(
        query,
        arrived,
        [Stage(scorer, len(texts), asked.mix)],
        lambda ids: [passages[id_] for id_ in ids],
        deadline=deadline,
        on_error=asked.on_error,
    )
    if not trace.scores:
        # Nothing was read: the order in which they came, whatever their scores say.
        ranking = Ranking(tuple(passages), -np.arange(1, len(texts) + 1, dtype=np.float32), 0)
    final = ranking if k is None else ranking.cut(k)
    chances = _chances(scorer, final, trace, asked)
    rows = list(range(len(final))) if limit is None else above(chances, limit)[0]
    scores = [chance or 0.0 for chance in chances] if asked.scores == "probability" else _told(final, trace, came)
    left = [scores[row] for row in rows]
    whole = len(trace.scores) == len(texts)
    told = finite(left) if whole or not trace.scores else list(map(falling(final).__getitem__, rows))
    notes = _notes(trace, arrived)
    made = []
    for row, score, shown in zip(rows, left, told, strict=True):
        position = int(final.ids[row])
        beside = {PROBABILITY: chances[row]} if asked.mix < 1.0 and chances[row] is not None else {}
        made.append(Best(position, score, shown, {**notes(position), **beside}))
    return made


def _came(count: int, before: Sequence[float | None] | None) -> NDArray[np.float64] | None:
    """The scores that texts came with, where all have one that can be compared."""
    known = [float(score) for score in before or () if score is not None and math.isfinite(score)]
    return np.array(known) if len(known) == count else None


def _arrived(ids: list[str], asked: Asked, came: NDArray[np.float64] | None) -> Ranking:
    """The texts in the order in which they are read: for a mix by their scores, if they have some, or as they came."""
    if asked.mix == 1.0 or came is None:
        return Ranking.sorted(ids, -np.arange(1, len(ids) + 1, dtype=np.float32))
    # Scaled here, because a mix standardizes them anyway, and float32 cannot tell times of this century apart.
    scale = np.abs(came - came[0]).max() or 1.0
    return Ranking.sorted(ids, ((came - came[0]) / scale).astype(np.float32))


def _told(final: Ranking, trace: Trace, came: NDArray[np.float64] | None) -> list[float]:
    """The scores of texts; of those of which none was read the ones that they came with, to the last digit."""
    if trace.scores or came is None:
        return [float(score) for score in final.scores]
    return [float(came[int(id_)]) for id_ in final.ids]


def _limit(scorer: Scorer, asked: Asked) -> float | None:
    """The least probability that is returned; None for all. Refuse probabilities of a model that gives none."""
    options = {"scores": asked.scores == "probability", "threshold": asked.threshold is not None}
    if not any(options.values()) or isinstance(scorer, Unavailable):
        return None
    if not isinstance(scorer, CrossEncoder):
        raise InputError(without_probabilities(name_of(scorer), " and ".join(one for one in options if options[one])))
    limit = threshold_of(scorer, 0.0 if asked.threshold is None else asked.threshold)
    return None if asked.threshold is None else limit


def _chances(scorer: Scorer, final: Ranking, trace: Trace, asked: Asked) -> list[float | None]:
    """The probability of each text that was read; None of the others, or where nobody asks and the model has none."""
    wanted = asked.scores == "probability" or asked.threshold is not None
    if not isinstance(scorer, CrossEncoder) or not (wanted or (asked.mix < 1.0 and scorer.checkpoint.calibration)):
        return [None] * len(final)
    raw = [trace.scores.get(id_) for id_ in final.ids]
    found = scorer.probability(np.array([-np.inf if one is None else one for one in raw], np.float32)).tolist()
    return [None if one is None else chance for one, chance in zip(raw, found, strict=True)]


def _notes(trace: Trace, arrived: Ranking) -> Callable[[int], dict[str, Any]]:
    """What is to be said of the text at a position of the list."""
    # What was cut is told by its place among those that came, and -1 is the query.
    places = (*map(int, arrived.ids), -1)
    cut = {places[t.position]: t.told for t in trace.truncations if t.lost}
    if trace.stopped == "error":
        _log.warning("the order before is kept: %s", trace.note)

    def of(position: int) -> dict[str, Any]:
        notes = {READ: cut.get(position), QUERY_READ: cut.get(-1), NOTE: trace.note}
        return {key: one for key, one in notes.items() if one}

    return of
