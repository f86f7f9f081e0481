"""What is asked of a search, what it may cost before it is begun, and what it found: values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest
from typing import Literal

from crossrank.cascade import Trace, last_to_read
from crossrank.grouping import PerDocument
from crossrank.pipeline import MIX
from crossrank.planner import ADVICE, SETTLES, depths
from crossrank.scorers import share_of
from crossrank.server.limits import Reach, estimate
from crossrank.server.rerankers import Reranker
from crossrank.server.service import Service
from crossrank.server.speeds import Speed
from crossrank.stopping import Stopping
from crossrank.types import Passage, Ranking

# The cross-encoders' steps, whatever their models are called.
COARSE, RERANKED = "coarse", "reranked"
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
        depth: passages that each retriever returns, and that the first cross-encoder reads at most; 0 of no documents.
        mix: share of each cross-encoder in the order it leaves; 0 leaves the order of the first stage. None is what a
            model brings that was tuned in a search, or the usual one.
        budget: seconds for the whole search; None takes what it takes. What would take longer than is left, by its
            estimate, is left out: the dense order of candidates, what of them the cross-encoder reads, their evidence.
        where: filters on metadata.
        columns: entries of each step's ranking to return, 0 for none.
        evidence: find the sentence that answers in each passage.
        documents: candidates to rank instead of the index's passages, with ids of their own; None searches the index.
        threshold: of the k passages only those that have at least this probability are returned; "model" is the
            cross-encoder's own. None leaves none out.
        stop_early: read on only while a passage that is not read is likely to reach the k best, see
            `crossrank.stopping`. None is as within a budget of a pipeline: where there is one, and at most `SETTLES`.
        per_document: passages of one document among the k, at most, see `crossrank.grouping`; None is any number.
        coarse: a cheaper model, which reads before the one that is asked for; that reads only the best of what this
            leaves, and all of `depth` where a budget is not enough for this. None reads nothing first.
    """

    query: str
    k: int = 10
    depth: int = 100
    mix: float | None = None
    budget: float | None = None
    where: tuple[str, ...] = ()
    columns: int = 0
    evidence: bool = False
    documents: tuple[Passage, ...] | None = None
    threshold: float | Literal["model"] | None = None
    stop_early: bool | None = None
    per_document: int | None = None
    coarse: Reranker | None = None

    @property
    def fine_depth(self) -> int:
        """Passages that the model reads at most, of those that the coarse one leaves where there is one."""
        return depths(self.depth, 2)[-1] if self.coarse is not None and self.depth else self.depth

    @property
    def reranks(self) -> bool:
        """Whether a cross-encoder reads at all."""
        return self.mix is None or self.mix > 0

    def share(self, reranker: Reranker) -> float:
        """Of a model's score in the order that it leaves."""
        return share_of(reranker.scorer, self.mix, MIX)

    def stopping(self, reranker: Reranker) -> Stopping | None:
        """The rule by which a model's reading ends; None reads on."""
        usual = self.budget is not None and self.share(reranker) <= SETTLES
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
        ranking: the k best; `ranking.head` of them were read by the last cross-encoder that read any.
        passages: by id, for all that `ranking` and the columns name.
        traces: every step in order; those of the cross-encoders are called "coarse" and "reranked".
        evidence: for the k best, where the sentence lies that answers; None where it was not looked for.
        readers: the cross-encoders that were to read, by the names of their steps.
        seconds: of the evidence.
        notes: that a cross-encoder has no words in the query's script, what a budget left out, why the cross-encoder
            read fewer than it might have, why nothing was found, what `per_document` or a threshold left out,
            for people.
    """

    ranking: Ranking
    passages: Mapping[str, Passage]
    traces: tuple[Trace, ...]
    evidence: Sequence[tuple[int, int] | None]
    readers: Mapping[str, Reranker]
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def read(self) -> int:
        """Passages that the model read, which is the last of the cross-encoders."""
        return sum(len(trace.scores) for trace in self.traces if trace.name == RERANKED)

    @property
    def last(self) -> str:
        """The last step whose cross-encoder has read anything: probabilities are its; empty where none has."""
        last = last_to_read(self.traces)
        return "" if last is None else last.name


def foreseen(service: Service, reranker: Reranker, asked: Search) -> dict[Speed, int]:
    """Tokens that each model may read for a search, guessed from lengths: the embedder, and the cross-encoders, the
    last also for the evidence. Of each a budget allows what fits.
    """
    first, left = embedded(service, asked), float("inf")
    if asked.budget is not None:
        left = asked.budget - service.embedding_speed.seconds(first)
        if asked.documents and left < 0:
            first, left = 0, asked.budget
    made = {service.embedding_speed: first}
    texts: Sequence[str] = [passage.scored_text for passage in asked.documents or ()]
    if asked.documents is None:
        texts = (_PASSAGE,) * min(asked.depth, service.passages)
    pairs = [(asked.query, text) for text in texts[: asked.depth]] if asked.reranks else []
    count = len(pairs)
    if asked.coarse is not None and pairs:
        speed, whole = asked.coarse.speed, estimate(pairs, asked.coarse.reach())
        tokens = _within(whole, speed, ADVICE.coarse * left)
        # Where not even one is read first, the last reads as it would alone.
        if sorted_out := tokens * len(pairs) // whole:
            made[speed], count, left = tokens, min(asked.fine_depth, sorted_out), left - speed.seconds(tokens)
    # Which of them come to the last one is not known.
    read = estimate(pairs, reranker.reach()) * count // max(1, len(pairs)) + _compared(service, reranker, asked)
    return {**made, reranker.speed: _within(read, reranker.speed, left)}


def _within(tokens: int, speed: Speed, seconds: float) -> int:
    """So many tokens, or what a model reads of them in so many seconds."""
    return tokens if seconds == float("inf") or speed.rate <= 0 else min(tokens, int(max(0.0, seconds) * speed.rate))


def texts_read(service: Service, reranker: Reranker, asked: Search) -> Iterator[tuple[list[tuple[str, str]], Reach]]:
    """What each model may read of the documents that a request brings, and how far. Which of them another leaves to a
    cross-encoder is not known where that orders them first: the longest count.
    """
    texts = [passage.scored_text for passage in asked.documents or ()]
    if service.embedder is not None:
        yield [("", text) for text in texts], Reach(0, service.embedder.max_length)
        texts = nlargest(asked.depth, texts, key=len)
    if not asked.reranks:
        return
    texts = texts[: asked.depth]
    if asked.coarse is not None:
        yield [(asked.query, text) for text in texts], asked.coarse.reach()
        # A budget may leave no time for the coarse one, and then the other reads all of depth.
        texts = nlargest(asked.fine_depth, texts, key=len) if asked.budget is None else texts
    yield [(asked.query, text) for text in texts], reranker.reach()


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
