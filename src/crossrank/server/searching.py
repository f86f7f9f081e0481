"""A search for the server: retrieve, fuse, rerank as far as the budget reaches, and say what every step did."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from crossrank import evidence
from crossrank.calibration import above
from crossrank.cascade import Trace
from crossrank.errors import InputError
from crossrank.grouping import Grouped, grouped
from crossrank.index import one_version
from crossrank.pipeline import Pipeline
from crossrank.relevance import threshold_of
from crossrank.retrieval.first import first_stage, usual_fusion
from crossrank.server.limits import estimate
from crossrank.server.reading import Step, Texts, fitting, read, steps_of, time_left
from crossrank.server.refusals import invalid
from crossrank.server.rerankers import Reranker
from crossrank.server.searches import MOST_EVIDENCE, MOST_SENTENCES, Found, Search, embedded
from crossrank.server.service import Service
from crossrank.server.speeds import behind
from crossrank.server.tickets import Ticket, carried
from crossrank.types import Passage, Ranking, Truncation

First = tuple[Texts, Ranking, tuple[Trace, ...], tuple[str, ...]]
"""Of a first stage: where its texts are, what it found, its steps, and why it found nothing."""

DENSE = "dense"


def counted(reranker: Reranker, asked: Search, found: Found) -> dict[str, int]:
    """Documents that were read for a search, by model; those embedded count as the model's, and an index holds the
    vectors of its own.
    """
    made = {one.name: 0 for one in (reranker, *found.readers.values())}
    made |= {found.readers[trace.name].name: len(trace.scores) for trace in found.traces if trace.scores}
    if asked.documents is not None and any(trace.name == DENSE for trace in found.traces):
        made[reranker.name] = len(asked.documents)
    return made


def search(service: Service, reranker: Reranker, asked: Search, ticket: Ticket) -> Found:
    """The best passages of the service's index, at one version of it, or of the candidates that the request brings.

    Raises:
        InputError: no index.
        IndexFileError: it cannot be read, or is of another embedder now.
        RefusedError: a filter that cannot be understood, too late, too many tokens, or a threshold that a
            cross-encoder that may be the last to read has no probabilities for.
        CancelledRequestError: the client left.
    """
    began, steps = time.monotonic(), steps_of(reranker, asked)
    limits = _limits(steps, asked)
    with carried(ticket):
        found = one_version(lambda: _search(service, reranker, steps, asked, ticket, began, limits))
    service.searchable |= asked.documents is None
    return found


def _search(
    service: Service,
    reranker: Reranker,
    steps: Sequence[Step],
    asked: Search,
    ticket: Ticket,
    began: float,
    limits: Mapping[str, float],
) -> Found:
    ticket.check()  # It is asked again where its version is gone, and by then the client may be, too.
    texts, ranking, before, why = (
        _first_stage(service, asked) if asked.documents is None else _candidates(service, asked, ticket, began)
    )
    ticket.check()
    ranking, after, notes = read(service, steps, asked, ranking, texts, ticket, began)
    traces, readers = (*before, *after), {step.name: step.reranker for step in steps}
    top = Grouped(ranking.cut(asked.k), ()) if asked.limit is None else grouped(ranking, asked.limit, texts)
    final, notes = top.ranking, (*notes, *top.notes)
    if limits:
        final, more = _probable(readers, after[-1] if after else None, final, limits)
        notes = (*notes, *more)
    named = dict.fromkeys(final.ids)
    for trace in traces:
        named.update(dict.fromkeys(trace.ranking.ids[: asked.columns]))
    passages = dict(zip(named, texts(list(named)), strict=True)) if named else {}
    started = time.monotonic()
    spans, short = _evidence(service, reranker, asked, [passages[id_] for id_ in final.ids], ticket, began)
    return Found(final, passages, traces, spans, readers, time.monotonic() - started, (*why, *notes, *short))


def _evidence(
    service: Service, reranker: Reranker, asked: Search, passages: Sequence[Passage], ticket: Ticket, began: float
) -> tuple[Sequence[tuple[int, int] | None], tuple[str, ...]]:
    """Where the sentence of each passage lies that answers, as far as the budget reaches; and how far that was."""
    if not asked.evidence:
        return [None] * len(passages), ()
    shown, reach = passages[:MOST_EVIDENCE], reranker.reach()
    costs = (estimate(evidence.pairs(asked.query, passage, MOST_SENTENCES), reach) for passage in shown)
    fits = fitting(service, reranker, costs, len(shown), time_left(asked, began))
    found = evidence.find(
        asked.query, shown[:fits], lambda pairs: reranker.score(pairs, ticket).scores, drops=False, most=MOST_SENTENCES
    )
    spans = [None if one is None else (one.start, one.stop) for one in found] + [None] * (len(passages) - fits)
    short = f"the budget was enough for the evidence of {fits} of {len(shown)} passages"
    return spans, (short,) if fits < len(shown) else ()


def _limits(steps: Sequence[Step], asked: Search) -> dict[str, float]:
    """The probability that a threshold is, by step that may be the last to read: within a budget any; none without one.
    Whoever asks for one must not get an answer without it.
    """
    if asked.threshold is None:
        return {}
    may = steps if asked.budget is not None else steps[-1:]
    return {step.name: _limit(step.reranker, asked.threshold, step is steps[-1]) for step in may}


def _limit(reranker: Reranker, threshold: float | Literal["model"], last: bool) -> float:
    called = reranker.name if last else f"{reranker.name}, after which budget_ms may leave no time to read,"
    if reranker.score_kind == "sigmoid":
        raise invalid(f"{called} gives no probabilities, so there is no threshold; leave it out", "threshold")
    try:
        return threshold_of(reranker.scorer, threshold, called)
    except InputError as error:
        raise invalid(str(error), "threshold") from error


def _probable(
    readers: Mapping[str, Reranker], last: Trace | None, final: Ranking, limits: Mapping[str, float]
) -> tuple[Ranking, tuple[str, ...]]:
    """The passages that are at least so probable, or all where none was read, and what is told of the others."""
    chances: list[float | None] = [None] * len(final)
    if last is not None:
        reader, logits = readers[last.name], last.scores
        chances = [reader.chance(logits[id_]) if id_ in logits else None for id_ in final.ids]
    rows, said = above(chances, 0.0 if last is None else limits[last.name])
    return final.take(rows), said


def _first_stage(service: Service, asked: Search) -> First:
    index, embedder = service.latest()
    _check(asked.where)
    texts, retrievers = index.passages, first_stage(index, embedder, asked.where)
    answer = Pipeline(retrievers, texts, (), asked.depth, usual_fusion(index)).search(asked.query, k=2 * asked.depth)
    nothing = answer.nothing or "nothing was found with where; try without it"
    why = (nothing,) if asked.where and not answer.passages else ()
    return texts, answer.ranking, answer.traces, why


def _check(where: Sequence[str]) -> None:
    """Refuse a filter that is none under the name of its field, which the index that reads it does not know."""
    from crossrank.index import filters

    try:
        filters.parse(where)
    except InputError as error:
        raise invalid(str(error), "where") from error


def _candidates(service: Service, asked: Search, ticket: Ticket, began: float) -> First:
    """The request's own documents as given, and by the embedder where there is one that the budget is enough for."""
    passages = {passage.id: passage for passage in asked.documents or ()}
    ids = list(passages)
    ranking = Ranking.sorted(ids, -np.arange(1, len(ids) + 1, dtype=np.float32))
    traces = [Trace("given", ranking, 0.0, {})]
    why: tuple[str, ...] = ()
    if service.embedder is not None and ids:
        seconds = service.embedding_speed.seconds(embedded(service, asked))
        if behind(service.scheduler.queued, service.embedding_speed, seconds) > time_left(asked, began):
            why = (f"the budget was not enough to embed {len(ids):,} documents: they were taken in the order given",)
        else:
            ranking, trace = _dense(service, asked.query, passages, ticket)
            traces.append(trace)
    return lambda ids: [passages[id_] for id_ in ids], ranking, tuple(traces), why


def _dense(service: Service, query: str, passages: Mapping[str, Passage], ticket: Ticket) -> tuple[Ranking, Trace]:
    began = time.perf_counter()
    asked = service.embed([query], ticket, queries=True)
    made = service.embed([passage.scored_text for passage in passages.values()], ticket)
    ranking = Ranking.sorted(list(passages), made.vectors @ asked.vectors[0])
    cuts = (*(replace(cut, position=-1) for cut in asked.truncations), *made.truncations)
    return ranking, Trace(DENSE, ranking, time.perf_counter() - began, {}, cuts)


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
