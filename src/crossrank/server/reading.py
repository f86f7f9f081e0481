"""What the cross-encoder of a search reads, as far as the budget reaches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from crossrank.anytime import FEW, Stopped
from crossrank.cascade import Trace, mixed, shares
from crossrank.grouping import owner_of
from crossrank.server.limits import estimate
from crossrank.server.rerankers import Reranker
from crossrank.server.searches import Search
from crossrank.server.service import Service
from crossrank.server.speeds import behind
from crossrank.server.tickets import Ticket
from crossrank.types import Passage, Ranking

Texts = Callable[[Sequence[str]], Sequence[Passage]]
# The cross-encoder's step, whatever its model is called.
RERANKED = "reranked"


def reranked(
    reranker: Reranker, asked: Search, head: Ranking, ranking: Ranking, texts: Texts, ticket: Ticket
) -> tuple[Ranking, Trace]:
    """As `crossrank.cascade.rerank` with one stage, but a chunk at a time: within the limits, and stopped when late."""
    began, before = time.perf_counter(), ranking.cut(asked.depth).scores
    candidates = texts(head.ids)
    pairs = [(asked.query, passage.scored_text) for passage in candidates]
    owners = [owner_of(passage) for passage in candidates]
    rule = asked.stopping
    ends = range(0) if rule is None else range(rule.first, len(pairs), FEW)

    def enough(scores: NDArray[np.float32]) -> bool:
        return rule is not None and rule.settled(scores, before, asked.mix, owners)

    scored = reranker.score(pairs, ticket, ends=ends, enough=enough)
    # A budget may have cut the head: the mix keeps the scale of the whole depth.
    head = head.cut(len(scored.scores))
    stopped: Stopped = "settled" if len(head) < len(pairs) else ""
    ranking = mixed(head, scored.scores, asked.mix, before).over(ranking)
    raw = dict(zip(head.ids, scored.scores.tolist(), strict=True))
    return ranking, Trace(
        RERANKED, ranking, time.perf_counter() - began, raw, scored.truncations, stopped=stopped, how=shares(asked.mix)
    )


def time_left(asked: Search, began: float) -> float:
    """Seconds of the budget that are left of a search that began then, on the clock of `time.monotonic`."""
    return float("inf") if asked.budget is None else asked.budget - (time.monotonic() - began)


def fitting(service: Service, reranker: Reranker, costs: Iterable[int], most: int, left: float) -> int:
    """How many of these, in their order, the cross-encoder reads in so many seconds, given the tokens of each."""
    speed = reranker.speed
    if left == float("inf") or speed.rate <= 0:
        return most if left > 0 else 0
    queued, tokens, fits = service.scheduler.queued, 0, 0
    for cost in costs:
        tokens += cost
        if behind(queued, speed, speed.seconds(tokens)) > left:
            break
        fits += 1
    return fits


def depth_of(
    service: Service, reranker: Reranker, asked: Search, ranking: Ranking, texts: Texts, began: float
) -> tuple[int, tuple[str, ...]]:
    """How many passages the cross-encoder reads: the depth, or as many as the rest of the budget is enough for. And
    why it is not all of them: an index has always more, but whoever brings documents wants to know.
    """
    most = min(asked.depth, len(ranking))
    if asked.mix == 0:
        return 0, ()
    notes: tuple[str, ...] = ()
    if asked.documents is not None and most < len(ranking):
        given = len(ranking)
        notes = (f"depth leaves {given - most:,} of {given:,} documents unread: raise it, or leave it out to read all",)
    if asked.budget is None or not most:
        return most, notes
    reach = reranker.reach()
    costs = (estimate([(asked.query, passage.scored_text)], reach) for passage in texts(ranking.ids[:most]))
    fits = fitting(service, reranker, costs, most, time_left(asked, began))
    return fits, notes if fits == most else (*notes, f"the budget was enough for {fits} of {most} passages")
