"""A search for the server: retrieve, fuse, rerank as far as the budget reaches, and say what every step did."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from crossrank import evidence
from crossrank.calibration import above
from crossrank.cascade import Trace, mixed
from crossrank.errors import InputError
from crossrank.fusion import Scores
from crossrank.index import one_version
from crossrank.pipeline import MIX, Pipeline
from crossrank.relevance import threshold_of
from crossrank.retrieval.first import first_stage
from crossrank.server.limits import Reach, estimate
from crossrank.server.refusals import invalid
from crossrank.server.service import Service
from crossrank.server.tickets import Ticket, working
from crossrank.types import Passage, Ranking, Truncation

if TYPE_CHECKING:
    from crossrank.index import Index

Texts = Callable[[Sequence[str]], Sequence[Passage]]
First = tuple[Texts, Ranking, tuple[Trace, ...], tuple[str, ...]]
"""Of a first stage: where its texts are, what it found, its steps, and why it found nothing."""

# The cross-encoder's step, whatever its model is called.
RERANKED = "reranked"
# Passages in which the sentence is looked for that answers.
_MOST_EVIDENCE = 50
# Sentences of one passage that are compared: the page waits for them.
_MOST_SENTENCES = 16
# What is read of an index is not known beforehand; its passages have about 200 tokens at most.
_PASSAGE = "x" * 600


@dataclass(frozen=True, slots=True)
class Search:
    """What is asked of the index.

    Attributes:
        query: not blank.
        k: passages to return.
        depth: passages that each retriever returns, and that the cross-encoder reads at most.
        mix: share of the cross-encoder in the final order; 0 leaves the order of the first stage.
        budget: seconds for the whole search; None takes what it takes.
        where: filters on metadata.
        columns: entries of each step's ranking to return, 0 for none.
        evidence: find the sentence that answers in each passage.
        documents: candidates to rank instead of the index's passages, with ids of their own; None searches the index.
        threshold: of the k passages only those that have at least this probability are returned; "model" is the
            cross-encoder's own. None leaves none out.
    """

    query: str
    k: int = 10
    depth: int = 100
    mix: float = MIX
    budget: float | None = None
    where: tuple[str, ...] = ()
    columns: int = 0
    evidence: bool = False
    documents: tuple[Passage, ...] | None = None
    threshold: float | Literal["model"] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What a search found.

    Attributes:
        ranking: the k best; `ranking.head` of them were read by the cross-encoder.
        passages: by id, for all that `ranking` and the columns name.
        traces: every step in order; the cross-encoder's is called "reranked".
        evidence: for the k best, where the sentence lies that answers.
        read: passages the cross-encoder read.
        seconds: of the evidence.
        notes: why the cross-encoder read fewer than it might have, why nothing was found, or what a threshold left out,
            for people.
    """

    ranking: Ranking
    passages: Mapping[str, Passage]
    traces: tuple[Trace, ...]
    evidence: Sequence[tuple[int, int] | None]
    read: int
    seconds: float
    notes: tuple[str, ...] = ()


def foreseen(service: Service, asked: Search) -> tuple[int, int]:
    """Tokens that a search may take, guessed from lengths: those embedded, and those that the cross-encoder reads, of
    which a budget allows as much as fits.
    """
    texts: Sequence[str] = [passage.scored_text for passage in asked.documents or ()]
    embedded = 0
    if service.embedder is not None:
        embedded = estimate([("", text) for text in (asked.query, *texts)], Reach(0, service.embedder.max_length))
    if asked.documents is None:
        texts = (_PASSAGE,) * min(asked.depth, service.passages)
    read = estimate([(asked.query, text) for text in texts[: asked.depth]], service.reach()) if asked.mix else 0
    if asked.budget is not None and service.scheduler.rate > 0:
        read = min(read, int(asked.budget * service.scheduler.rate))
    return embedded, read


def search(service: Service, asked: Search, ticket: Ticket) -> Found:
    """The best passages of the service's index, at one version of it, or of the candidates that the request brings.

    Raises:
        InputError: no index.
        IndexFileError: it cannot be read, or is of another embedder now.
        RefusedError: a filter that cannot be understood, too late, too many tokens, or a threshold that the
            cross-encoder has no probabilities for.
        CancelledRequestError: the client left.
    """
    began, limit = time.monotonic(), _limit(service, asked.threshold)
    with working(ticket):
        found = one_version(lambda: _search(service, asked, ticket, began, limit))
    service.searchable |= asked.documents is None
    return found


def _search(service: Service, asked: Search, ticket: Ticket, began: float, limit: float | None) -> Found:
    ticket.check()  # It is asked again where its version is gone, and by then the client may be, too.
    texts, ranking, traces, why = (
        _first_stage(service, asked) if asked.documents is None else _candidates(service, asked, ticket)
    )
    ticket.check()
    depth, notes = _depth(service, asked, ranking, texts, began)
    if depth:
        ranking, trace = _reranked(service, asked, ranking.cut(depth), ranking, texts, ticket)
        traces = (*traces, trace)
    final = ranking.cut(asked.k)
    if limit is not None:
        final, more = _probable(service, final, traces[-1].scores if depth else {}, limit)
        notes = (*notes, *more)
    named = dict.fromkeys(final.ids)
    for trace in traces:
        named.update(dict.fromkeys(trace.ranking.ids[: asked.columns]))
    passages = dict(zip(named, texts(list(named)), strict=True)) if named else {}
    started = time.monotonic()
    spans: Sequence[tuple[int, int] | None] = [None] * len(final)
    if asked.evidence and _time_left(asked, began) > 0:
        shown = [passages[id_] for id_ in final.ids[:_MOST_EVIDENCE]]
        found = evidence.find(
            asked.query, shown, lambda pairs: service.score(pairs, ticket).scores, drops=False, most=_MOST_SENTENCES
        )
        spans = [None if one is None else (one.start, one.stop) for one in found] + list(spans[len(found) :])
    return Found(final, passages, traces, spans, depth, time.monotonic() - started, (*why, *notes))


def _limit(service: Service, threshold: float | Literal["model"] | None) -> float | None:
    """The probability that a threshold is; whoever asks for one must not get an answer without it."""
    if threshold is None:
        return None
    if service.score_kind == "sigmoid":
        raise invalid(f"{service.model} gives no probabilities, so there is no threshold; leave it out", "threshold")
    try:
        return threshold_of(service.scorer, threshold, service.model)
    except InputError as error:
        raise invalid(str(error), "threshold") from error


def _probable(
    service: Service, final: Ranking, logits: Mapping[str, float], limit: float
) -> tuple[Ranking, tuple[str, ...]]:
    """The passages that are at least so probable, or all where none was read, and what is told of the others."""
    rows, said = above([service.chance(logits[id_]) if id_ in logits else None for id_ in final.ids], limit)
    head = sum(row < final.head for row in rows)
    return Ranking(tuple(final.ids[row] for row in rows), final.scores[rows], head), said


def _first_stage(service: Service, asked: Search) -> First:
    index, embedder = service.latest()
    _check(asked.where)
    texts, retrievers = index.passages, first_stage(index, embedder, asked.where)
    answer = Pipeline(retrievers, texts, (), asked.depth, Scores()).search(asked.query, k=2 * asked.depth)
    why = (_why_nothing(index, asked.where),) if asked.where and not len(answer.ranking) else ()
    return texts, answer.ranking, answer.traces, why


def _check(where: Sequence[str]) -> None:
    """Refuse a filter that is none under the name of its field, which the index that reads it does not know."""
    from crossrank.index import filters

    try:
        filters.parse(where)
    except InputError as error:
        raise invalid(str(error), "where") from error


def _why_nothing(index: Index, where: Sequence[str]) -> str:
    """What the filter has to do with it: most often a field's name was mistyped."""
    from crossrank.index import filters

    return filters.mistake(where, index.has_field) or "nothing was found with where; try without it"


def _candidates(service: Service, asked: Search, ticket: Ticket) -> First:
    """The request's own documents as given, and by the embedder where there is one."""
    passages = {passage.id: passage for passage in asked.documents or ()}
    ids = list(passages)
    ranking = Ranking.sorted(ids, -np.arange(1, len(ids) + 1, dtype=np.float32))
    traces = [Trace("given", ranking, 0.0, {})]
    if service.embedder is not None:
        began = time.perf_counter()
        made = service.embed([asked.query, *(passage.scored_text for passage in passages.values())], ticket)
        ranking = Ranking.sorted(ids, made.vectors[1:] @ made.vectors[0])
        # The query was the first text, and is -1 in a trace.
        cuts = tuple(replace(cut, position=cut.position - 1) for cut in made.truncations)
        traces.append(Trace("dense", ranking, time.perf_counter() - began, {}, cuts))
    return lambda ids: [passages[id_] for id_ in ids], ranking, tuple(traces), ()


def _reranked(
    service: Service, asked: Search, head: Ranking, ranking: Ranking, texts: Texts, ticket: Ticket
) -> tuple[Ranking, Trace]:
    """As `crossrank.cascade.rerank` with one stage, but a chunk at a time: within the limits, and stopped when late."""
    began = time.perf_counter()
    scored = service.score([(asked.query, passage.scored_text) for passage in texts(head.ids)], ticket)
    # A budget may have cut the head: the mix keeps the scale of the whole depth.
    ranking = mixed(head, scored.scores, asked.mix, ranking.cut(asked.depth).scores).over(ranking)
    raw = dict(zip(head.ids, scored.scores.tolist(), strict=True))
    return ranking, Trace(RERANKED, ranking, time.perf_counter() - began, raw, scored.truncations)


def _time_left(asked: Search, began: float) -> float:
    return float("inf") if asked.budget is None else asked.budget - (time.monotonic() - began)


def _depth(
    service: Service, asked: Search, ranking: Ranking, texts: Texts, began: float
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
    rate, left = service.scheduler.rate, _time_left(asked, began)
    if left == float("inf") or rate <= 0 or not most:
        return most, notes
    spent, fits, reach = service.scheduler.queued_seconds, 0, service.reach()
    for passage in texts(ranking.ids[:most]):
        spent += estimate([(asked.query, passage.scored_text)], reach) / rate
        if spent > left:
            break
        fits += 1
    return fits, notes if fits == most else (*notes, f"the budget was enough for {fits} of {most} passages")


def lost(found: Found) -> list[tuple[str, str | None, Truncation]]:
    """What a step did not read whole: the step, the passage's id or None for the query, and how far it was read."""
    made: list[tuple[str, str | None, Truncation]] = []
    before: tuple[str, ...] = ()
    for trace in found.traces:
        made += [
            (trace.name, None if cut.position < 0 else before[cut.position], cut)
            for cut in trace.truncations
            if cut.lost
        ]
        before = trace.ranking.ids
    return made
