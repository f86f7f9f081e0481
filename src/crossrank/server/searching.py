"""A search for the server: retrieve, fuse, rerank as far as the budget reaches, and say what every step did."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import nlargest
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from crossrank import evidence
from crossrank.anytime import FEW, Stopped
from crossrank.calibration import above
from crossrank.cascade import Trace, mixed, shares
from crossrank.errors import InputError
from crossrank.grouping import Grouped, PerDocument, grouped, owner_of
from crossrank.index import one_version
from crossrank.pipeline import MIX, Pipeline
from crossrank.planner import SETTLES
from crossrank.relevance import threshold_of
from crossrank.retrieval.first import first_stage, usual_fusion
from crossrank.server.limits import Reach, estimate
from crossrank.server.refusals import invalid
from crossrank.server.rerankers import Reranker
from crossrank.server.service import Service
from crossrank.server.speeds import Speed, behind
from crossrank.server.tickets import Ticket, carried
from crossrank.stopping import Stopping
from crossrank.types import Passage, Ranking, Truncation

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
# Sentences are not counted beforehand, for the event loop would do it: one has about 80 characters.
_SENTENCE = "x" * 80
DENSE = "dense"


@dataclass(frozen=True, slots=True)
class Search:
    """What is asked of the index.

    Attributes:
        query: not blank.
        k: passages to return.
        depth: passages that each retriever returns, and that the cross-encoder reads at most.
        mix: share of the cross-encoder in the final order; 0 leaves the order of the first stage.
        budget: seconds for the whole search; None takes what it takes. What would take longer than is left, by its
            estimate, is left out: the dense order of candidates, what of them the cross-encoder reads, their evidence.
        where: filters on metadata.
        columns: entries of each step's ranking to return, 0 for none.
        evidence: find the sentence that answers in each passage.
        documents: candidates to rank instead of the index's passages, with ids of their own; None searches the index.
        threshold: of the k passages only those that have at least this probability are returned; "model" is the
            cross-encoder's own. None leaves none out.
        stop_early: read on only while a passage that is not read is likely to reach the k best, see
            `crossrank.stopping`. None is as within a budget of a pipeline: where there is one, and the usual mix.
        per_document: passages of one document among the k, at most, see `crossrank.grouping`; None is any number.
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
    stop_early: bool | None = None
    per_document: int | None = None

    @property
    def stopping(self) -> Stopping | None:
        """The rule by which reading ends; None reads on."""
        usual = self.budget is not None and self.mix <= SETTLES
        asked = usual if self.stop_early is None else self.stop_early
        return Stopping(k=self.k, per_document=self.limit) if asked else None

    @property
    def limit(self) -> PerDocument | None:
        """How many passages of each document stay; None leaves all."""
        return None if self.per_document is None else PerDocument(self.k, self.per_document)


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What a search found.

    Attributes:
        ranking: the k best; `ranking.head` of them were read by the cross-encoder.
        passages: by id, for all that `ranking` and the columns name.
        traces: every step in order; the cross-encoder's is called "reranked".
        evidence: for the k best, where the sentence lies that answers; None where it was not looked for.
        read: passages the cross-encoder read.
        seconds: of the evidence.
        notes: that the cross-encoder has no words in the query's script, what a budget left out, why the cross-encoder
            read fewer than it might have, why nothing was found, what `per_document` or a threshold left out,
            for people.
    """

    ranking: Ranking
    passages: Mapping[str, Passage]
    traces: tuple[Trace, ...]
    evidence: Sequence[tuple[int, int] | None]
    read: int
    seconds: float
    notes: tuple[str, ...] = ()


def foreseen(service: Service, reranker: Reranker, asked: Search) -> dict[Speed, int]:
    """Tokens that each model may read for a search, guessed from lengths: the embedder, and the cross-encoder, also for
    the evidence. Of each a budget allows what fits.
    """
    embedded, embedding, rate = _embedded(service, asked), service.embedding_speed, reranker.speed.rate
    texts: Sequence[str] = [passage.scored_text for passage in asked.documents or ()]
    if asked.documents is None:
        texts = (_PASSAGE,) * min(asked.depth, service.passages)
    read = estimate([(asked.query, text) for text in texts[: asked.depth]], reranker.reach()) if asked.mix else 0
    read += _compared(service, reranker, asked)
    if asked.budget is not None and rate > 0:
        left = asked.budget - embedding.seconds(embedded)
        if asked.documents and left < 0:
            embedded, left = 0, asked.budget
        read = min(read, int(max(0.0, left) * rate))
    return {embedding: embedded, reranker.speed: read}


def texts_read(service: Service, reranker: Reranker, asked: Search) -> Iterator[tuple[list[tuple[str, str]], Reach]]:
    """What each model may read of the documents that a request brings, and how far. Which of them `depth` leaves to the
    cross-encoder is not known where the embedder orders them first: the longest count.
    """
    texts = [passage.scored_text for passage in asked.documents or ()]
    if service.embedder is not None:
        yield [("", text) for text in texts], Reach(0, service.embedder.max_length)
        texts = nlargest(asked.depth, texts, key=len)
    if asked.mix:
        yield [(asked.query, text) for text in texts[: asked.depth]], reranker.reach()


def _embedded(service: Service, asked: Search) -> int:
    """Tokens that the embedder may read, guessed from lengths."""
    if service.embedder is None:
        return 0
    texts = (asked.query, *(passage.scored_text for passage in asked.documents or ()))
    return estimate([("", text) for text in texts], Reach(0, service.embedder.max_length))


def _compared(service: Service, reranker: Reranker, asked: Search) -> int:
    """Tokens of the sentences that compete as evidence, guessed from lengths. Which passages are best is not known."""
    known = (Passage("", _PASSAGE),) if asked.documents is None else asked.documents
    shown = min(asked.k, _MOST_EVIDENCE, service.passages if asked.documents is None else len(known))
    if not asked.evidence or not shown:
        return 0
    tokens, reach = 0, reranker.reach()
    for passage in known:
        sentences = min(_MOST_SENTENCES, -(-len(passage.text) // len(_SENTENCE)))
        tokens += sentences * estimate([(asked.query, passage.title + _SENTENCE)], reach) if sentences > 1 else 0
    return tokens * shown // len(known)


def counted(asked: Search, found: Found) -> int:
    """Documents that a model has read for a search; an index holds the vectors of its own."""
    embedded = asked.documents is not None and any(trace.name == DENSE for trace in found.traces)
    return len(asked.documents or ()) if embedded else found.read


def search(service: Service, reranker: Reranker, asked: Search, ticket: Ticket) -> Found:
    """The best passages of the service's index, at one version of it, or of the candidates that the request brings.

    Raises:
        InputError: no index.
        IndexFileError: it cannot be read, or is of another embedder now.
        RefusedError: a filter that cannot be understood, too late, too many tokens, or a threshold that the
            cross-encoder has no probabilities for.
        CancelledRequestError: the client left.
    """
    began, limit = time.monotonic(), _limit(reranker, asked.threshold)
    with carried(ticket):
        found = one_version(lambda: _search(service, reranker, asked, ticket, began, limit))
    service.searchable |= asked.documents is None
    return found


def _search(
    service: Service, reranker: Reranker, asked: Search, ticket: Ticket, began: float, limit: float | None
) -> Found:
    ticket.check()  # It is asked again where its version is gone, and by then the client may be, too.
    texts, ranking, traces, why = (
        _first_stage(service, asked) if asked.documents is None else _candidates(service, asked, ticket, began)
    )
    ticket.check()
    depth, notes = _depth(service, reranker, asked, ranking, texts, began)
    if depth:
        notes = (*filter(None, [reranker.scorer.caution(asked.query)]), *notes)
        ranking, trace = _reranked(reranker, asked, ranking.cut(depth), ranking, texts, ticket)
        traces = (*traces, trace)
    top = Grouped(ranking.cut(asked.k), ()) if asked.limit is None else grouped(ranking, asked.limit, texts)
    final, notes, known = top.ranking, (*notes, *top.notes), traces[-1].scores if depth else {}
    if limit is not None:
        final, more = _probable(reranker, final, known, limit)
        notes = (*notes, *more)
    named = dict.fromkeys(final.ids)
    for trace in traces:
        named.update(dict.fromkeys(trace.ranking.ids[: asked.columns]))
    passages = dict(zip(named, texts(list(named)), strict=True)) if named else {}
    started = time.monotonic()
    spans, short = _evidence(service, reranker, asked, [passages[id_] for id_ in final.ids], ticket, began)
    return Found(final, passages, traces, spans, len(known), time.monotonic() - started, (*why, *notes, *short))


def _evidence(
    service: Service, reranker: Reranker, asked: Search, passages: Sequence[Passage], ticket: Ticket, began: float
) -> tuple[Sequence[tuple[int, int] | None], tuple[str, ...]]:
    """Where the sentence of each passage lies that answers, as far as the budget reaches; and how far that was."""
    if not asked.evidence:
        return [None] * len(passages), ()
    shown, reach = passages[:_MOST_EVIDENCE], reranker.reach()
    costs = (estimate(evidence.pairs(asked.query, passage, _MOST_SENTENCES), reach) for passage in shown)
    fits = _fitting(service, reranker, costs, len(shown), _time_left(asked, began))
    found = evidence.find(
        asked.query, shown[:fits], lambda pairs: reranker.score(pairs, ticket).scores, drops=False, most=_MOST_SENTENCES
    )
    spans = [None if one is None else (one.start, one.stop) for one in found] + [None] * (len(passages) - fits)
    short = f"the budget was enough for the evidence of {fits} of {len(shown)} passages"
    return spans, (short,) if fits < len(shown) else ()


def _limit(reranker: Reranker, threshold: float | Literal["model"] | None) -> float | None:
    """The probability that a threshold is; whoever asks for one must not get an answer without it."""
    if threshold is None:
        return None
    if reranker.score_kind == "sigmoid":
        raise invalid(f"{reranker.name} gives no probabilities, so there is no threshold; leave it out", "threshold")
    try:
        return threshold_of(reranker.scorer, threshold, reranker.name)
    except InputError as error:
        raise invalid(str(error), "threshold") from error


def _probable(
    reranker: Reranker, final: Ranking, logits: Mapping[str, float], limit: float
) -> tuple[Ranking, tuple[str, ...]]:
    """The passages that are at least so probable, or all where none was read, and what is told of the others."""
    rows, said = above([reranker.chance(logits[id_]) if id_ in logits else None for id_ in final.ids], limit)
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
        seconds = service.embedding_speed.seconds(_embedded(service, asked))
        if behind(service.scheduler.queued, service.embedding_speed, seconds) > _time_left(asked, began):
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


def _reranked(
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


def _time_left(asked: Search, began: float) -> float:
    return float("inf") if asked.budget is None else asked.budget - (time.monotonic() - began)


def _fitting(service: Service, reranker: Reranker, costs: Iterable[int], most: int, left: float) -> int:
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


def _depth(
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
    fits = _fitting(service, reranker, costs, most, _time_left(asked, began))
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
