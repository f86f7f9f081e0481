"""What is asked of a search, what it may cost before it is begun, and what it found: values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest
from typing import Literal

from crossrank.cascade import Trace
from crossrank.grouping import PerDocument
from crossrank.pipeline import MIX
from crossrank.planner import SETTLES
from crossrank.server.limits import Reach, estimate
from crossrank.server.rerankers import Reranker
from crossrank.server.service import Service
from crossrank.server.speeds import Speed
from crossrank.stopping import Stopping
from crossrank.types import Passage, Ranking

# Passages in which the sentence is looked for that answers.
MOST_EVIDENCE = 50
# Sentences of one passage that are compared: the page waits for them.
MOST_SENTENCES = 16
# What is read of an index is not known beforehand; its passages have about 200 tokens at most.
_PASSAGE = "x" * 600
# Sentences are not counted beforehand, for the event loop would do it: one has about 80 characters.
_SENTENCE = "x" * 80


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
    first, embedding, rate = embedded(service, asked), service.embedding_speed, reranker.speed.rate
    texts: Sequence[str] = [passage.scored_text for passage in asked.documents or ()]
    if asked.documents is None:
        texts = (_PASSAGE,) * min(asked.depth, service.passages)
    read = estimate([(asked.query, text) for text in texts[: asked.depth]], reranker.reach()) if asked.mix else 0
    read += _compared(service, reranker, asked)
    if asked.budget is not None and rate > 0:
        left = asked.budget - embedding.seconds(first)
        if asked.documents and left < 0:
            first, left = 0, asked.budget
        read = min(read, int(max(0.0, left) * rate))
    return {embedding: first, reranker.speed: read}


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


def embedded(service: Service, asked: Search) -> int:
    """Tokens that the embedder may read, guessed from lengths."""
    if service.embedder is None:
        return 0
    texts = (asked.query, *(passage.scored_text for passage in asked.documents or ()))
    return estimate([("", text) for text in texts], Reach(0, service.embedder.max_length))


def _compared(service: Service, reranker: Reranker, asked: Search) -> int:
    """Tokens of the sentences that compete as evidence, guessed from lengths. Which passages are best is not known."""
    known = (Passage("", _PASSAGE),) if asked.documents is None else asked.documents
    shown = min(asked.k, MOST_EVIDENCE, service.passages if asked.documents is None else len(known))
    if not asked.evidence or not shown:
        return 0
    tokens, reach = 0, reranker.reach()
    for passage in known:
        sentences = min(MOST_SENTENCES, -(-len(passage.text) // len(_SENTENCE)))
        tokens += sentences * estimate([(asked.query, passage.title + _SENTENCE)], reach) if sentences > 1 else 0
    return tokens * shown // len(known)
