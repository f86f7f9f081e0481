"""What the cross-encoders of a search read, coarse to fine, as far as its budget reaches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossrank.anytime import FEW, Stopped
from crossrank.cascade import Trace, head_of, placed, shares
from crossrank.grouping import owner_of
from crossrank.planner import ADVICE
from crossrank.server.limits import estimate
from crossrank.server.rerankers import Reranker
from crossrank.server.searches import COARSE, RERANKED, Search
from crossrank.server.service import Service
from crossrank.server.speeds import behind
from crossrank.server.tickets import Ticket
from crossrank.stopping import Stopping
from crossrank.types import Passage, Ranking

Texts = Callable[[Sequence[str]], Sequence[Passage]]


@dataclass(frozen=True, slots=True)
class Step:
    """A cross-encoder of a search.

    Attributes:
        name: of its step, whatever the model is called.
        reranker: what reads.
        depth: passages that it reads at most of what another has left.
        stopping: the rule by which its reading ends; None reads on.
        weight: share of its score in the order that it leaves.
        share: what it may take of the time that is left.
    """

    name: str
    reranker: Reranker
    depth: int
    stopping: Stopping | None
    weight: float
    share: float = 1.0


def steps_of(reranker: Reranker, asked: Search) -> tuple[Step, ...]:
    """The cross-encoders that read for a search, the model that is asked for last; none where it is not to rerank."""
    if not asked.reranks:
        return ()
    last = Step(RERANKED, reranker, asked.fine_depth, asked.stopping(reranker), asked.share(reranker))
    if asked.coarse is None:
        return (last,)
    rule = asked.stopping(asked.coarse)
    leaving = None if rule is None else rule.leaving(asked.fine_depth)
    return (Step(COARSE, asked.coarse, asked.depth, leaving, asked.share(asked.coarse), ADVICE.coarse), last)


def read(
    service: Service, steps: Sequence[Step], asked: Search, ranking: Ranking, texts: Texts, ticket: Ticket, began: float
) -> tuple[Ranking, tuple[Trace, ...], tuple[str, ...]]:
    """As `crossrank.cascade.rerank`, but a chunk at a time: within the limits, and stopped when late.

    Returns:
        The ranking, what those steps did that read anything, and what is to be told of them.
    """
    if not steps or not len(ranking):
        return ranking, (), ()
    reach = ranking.cut(asked.depth).ids
    passages = dict(zip(reach, texts(reach), strict=True))
    traces: list[Trace] = []
    notes: list[str] = []
    for number, step in enumerate(steps):
        # Where the time was too short for those before it, it reads as it would alone.
        head = head_of(ranking, step.depth if traces else asked.depth, traces)
        candidates = [passages[id_] for id_ in head.ids]
        pairs = [(asked.query, passage.scored_text) for passage in candidates]
        costs = (estimate([pair], step.reranker.reach()) for pair in pairs)
        fits = fitting(service, step.reranker, costs, len(pairs), step.share * time_left(asked, began))
        called = f"{step.name}: " if len(steps) > 1 else ""
        if fits:
            notes += [f"{called}{said}" for said in [step.reranker.scorer.caution(asked.query)] if said]
            ranking, trace = _scored(step, asked, head, ranking, pairs[:fits], [*map(owner_of, candidates)], ticket)
            traces.append(trace)
        if not number:
            notes += _unread(asked, len(head), len(ranking))
        if fits < len(pairs):
            notes.append(f"{called}the budget was enough for {fits} of {len(pairs)} passages")
    return ranking, tuple(traces), tuple(notes)


def _scored(
    step: Step,
    asked: Search,
    head: Ranking,
    ranking: Ranking,
    pairs: Sequence[tuple[str, str]],
    owners: Sequence[str],
    ticket: Ticket,
) -> tuple[Ranking, Trace]:
    """The ranking after a step that reads these pairs of its head, of which a budget may have left out the last."""
    began, rule = time.perf_counter(), step.stopping
    ends = range(0) if rule is None else range(rule.first, len(pairs), FEW)

    def enough(scores: NDArray[np.float32]) -> bool:
        return rule is not None and rule.settled(scores, head.scores, step.weight, owners)

    scored = step.reranker.score(pairs, ticket, ends=ends, enough=enough)
    count = len(scored.scores)
    stopped: Stopped = "settled" if count < len(pairs) else "deadline" if count < len(head) else ""
    ranking = placed(head, scored.scores, step.weight).over(ranking)
    raw = dict(zip(head.ids[:count], scored.scores.tolist(), strict=True))
    taken = time.perf_counter() - began
    return ranking, Trace(step.name, ranking, taken, raw, scored.truncations, stopped=stopped, how=shares(step.weight))


def _unread(asked: Search, read: int, given: int) -> list[str]:
    """That not all of the documents are read: an index has always more, but whoever brings them wants to know."""
    if asked.documents is None or read == given:
        return []
    return [f"depth leaves {given - read:,} of {given:,} documents unread: raise it, or leave it out to read all"]


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
