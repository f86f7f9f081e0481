"""What the server does, without HTTP: score, embed and search for one ticket, through the shared scheduler."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from crossrank.calibration import sigmoid
from crossrank.crossencoder import CrossEncoder
from crossrank.embedder import TextEmbedder
from crossrank.errors import InputError
from crossrank.scorecache import CachedScorer
from crossrank.scored import Scored
from crossrank.server.cutting import Caps, Cutter, merged
from crossrank.server.limits import Limits, Reach
from crossrank.server.refusals import invalid
from crossrank.server.scheduler import EMBED, LEAST_TOKENS, MOST_TOKENS, Scheduler, Shared
from crossrank.server.tickets import Ticket, working
from crossrank.types import Embedded, Embedder, Tokens, Truncation

if TYPE_CHECKING:
    from crossrank.index import Index

_LOG = logging.getLogger("crossrank.server")
# Characters and documents tokenized at once. It bounds the memory of one request's tokens, and is where a request
# notices that it was cancelled.
_CHARACTERS, _DOCUMENTS = 400_000, 512
# How long one batch should take: the longest that a new request waits for the one under way.
BATCH_SECONDS = 0.02
# Each backend is measured this often, and no other measurement begins after so long: at the start, and later on.
_MOST_MEASUREMENTS, _MEASURING_SECONDS = 5, 0.1
_WARM_QUERY = "which way does the river run?"
_WARM_FOREIGN = "где"
_WARM_TEXT = "The quick brown fox jumps over the lazy dog while the river carries the boats down to the sea. " * 4


class Service:
    """The models and the index that a server serves. Makes no thread until `start`.

    Args:
        scorer: the cross-encoder. Of one that remembers, only what its file does not know is computed.
        embedder: for embeddings and search; None offers neither.
        index: what is searched; None offers no search.
        limits: of one request.
        batch_tokens: tokens of one batch; None measures this machine in `start`, and while nothing waits.
        asker: embeds the queries to the index where `embedder` does not, such as a model behind an address. It is given
            nothing else: what others send to be embedded does not leave this machine.
    """

    def __init__(
        self,
        scorer: CrossEncoder,
        embedder: TextEmbedder | None = None,
        index: Index | None = None,
        limits: Limits | None = None,
        batch_tokens: int | None = None,
        asker: Embedder | None = None,
    ) -> None:
        if index is not None and embedder is None and asker is None:
            raise InputError("search needs the embedder that the index was made with")
        self.limits = limits or Limits()
        self.scheduler = Scheduler(batch_tokens or LEAST_TOKENS)
        self._fitting = batch_tokens is None
        self._bare = scorer.backend
        # Copies, so that the caller's own scorer keeps its backend.
        computing = copy.copy(scorer.uncached)
        computing.backend = Shared(scorer.backend, self.scheduler)
        self.scorer: CrossEncoder = computing
        if isinstance(scorer, CachedScorer):
            self.scorer = CachedScorer(computing, scorer.store.path, scorer.store.most)
        self.cutter = Cutter(self.scorer)
        self.embedder = copy.copy(embedder) if embedder is not None else None
        if self.embedder is not None:
            self._bare_embedder = self.embedder.backend
            self.embedder.backend = Shared(self.embedder.backend, self.scheduler)
        self.index = index
        # As many as there were at the last search: to count them reads the folder, and the event loop must not.
        self.passages = 0 if index is None else len(index)
        self.asker: Embedder | None = asker or self.embedder
        self.model = _public(scorer.checkpoint.name)
        self.embedding_model = _public(embedder.checkpoint.name) if embedder is not None else None
        self._warm = False
        # Whether the last search could read the index.
        self.searchable = index is not None
        self.fingerprint = scorer.fingerprint
        self._tokenizer: Tokenizer = scorer.checkpoint.tokenizer()

    @property
    def names(self) -> tuple[str, ...]:
        """The models that are served, the cross-encoder first."""
        return tuple(name for name in (self.model, self.embedding_model) if name)

    def start(self) -> None:
        """Start the scheduler, warm the models up, measure how fast they are here, and choose the size of a batch."""
        self.scheduler.start()
        self._measure(_MEASURING_SECONDS)
        self.scheduler.on_idle = lambda: self._measure(BATCH_SECONDS)
        with working(Ticket.lasting(60.0)):
            self.scorer.uncached.score([(_WARM_QUERY, _WARM_TEXT)])
            # Of a vocabulary of 250,000 pieces it takes a second to know which scripts it has.
            self.scorer.caution(_WARM_FOREIGN)
            if self.embedder is not None:
                self.embedder.embed([_WARM_TEXT])
        self._warm = True

    def stop(self) -> None:
        """Compute what waits and end the scheduler's thread."""
        self._warm = False
        self.scheduler.stop()
        if isinstance(self.scorer, CachedScorer):
            self.scorer.close()

    @property
    def ready(self) -> bool:
        """Whether requests can be computed: the models are warm, and the thread that owns them lives."""
        return self._warm and self.scheduler.alive

    def _measure(self, seconds: float) -> None:
        """Learn how fast the backends are here, where that is more than was known, and how large a batch may be. That
        they are slower is told by the batches of requests, which are larger than these.
        """
        scheduler = self.scheduler
        ids = self._tokenizer.encode(_WARM_QUERY, _WARM_TEXT).ids[: self.scorer.max_length]
        best = _speed(self._bare.forward, _many(ids), seconds)
        scheduler.rate = max(scheduler.rate, best)
        if self._fitting:
            fitting = int(np.clip(best * BATCH_SECONDS, LEAST_TOKENS, MOST_TOKENS))
            scheduler.batch_tokens = max(scheduler.batch_tokens, fitting)
        if self.embedder is not None:
            # Of its own: by the cross-encoder's, which is often much slower, large requests were refused until it had
            # embedded for a while.
            embedding = self._embedding_speed(self.embedder, seconds)
            scheduler.embed_rate = max(scheduler.rates.get(EMBED, 0.0), embedding)

    def _embedding_speed(self, embedder: TextEmbedder, seconds: float) -> float:
        pooling = embedder.checkpoint.pooling
        assert pooling is not None, "a bi-encoder has one"
        ids = embedder.tokenizer.encode(_WARM_TEXT).ids[: embedder.max_length]
        return _speed(lambda tokens: self._bare_embedder.pool(tokens, pooling), _many(ids), seconds)

    # Scoring -----------------------------------------------------------------------------------------------------

    def score(
        self,
        pairs: Sequence[tuple[str, str]],
        ticket: Ticket,
        caps: Caps | None = None,
        *,
        ends: range = range(0),
        enough: Callable[[NDArray[np.float32]], bool] = lambda scores: False,
    ) -> Scored:
        """Raw logits of (query, document) pairs, in their order, with what was cut; -inf for a blank document.

        Args:
            pairs: all that there are.
            ticket: of the request.
            caps: how much of the texts is read.
            ends: after so many pairs `enough` is asked.
            enough: whether these scores, of the pairs up to there, make all others needless.

        Raises:
            RefusedError: too many tokens, too late, or a query in which the model reads nothing.
            CancelledRequestError: the client left.
        """
        scores = [np.zeros(0, dtype=np.float32)]
        truncations: dict[Truncation, None] = {}
        total = begin = 0
        with working(ticket):
            for chunk in _chunks(pairs, ends):
                if begin in ends and enough(np.concatenate(scores)):
                    break
                ticket.check()
                texts, cuts = self.cutter.cut(chunk, caps)
                try:
                    scored = self.scorer.scored(texts)
                except InputError as error:  # of texts only a query can be refused: a document may be blank
                    raise invalid(str(error), "query") from error
                if scored.note:
                    # What its file of scores cannot do costs no answer.
                    _LOG.warning("%s", scored.note)
                total += scored.tokens
                self.limits.check_tokens(total)
                scores.append(scored.scores)
                for cut in merged(cuts, scored.truncations):
                    truncations[cut if cut.position < 0 else replace(cut, position=cut.position + begin)] = None
                begin += len(chunk)
        return Scored(np.concatenate(scores), tuple(truncations), total)

    def cautions(self, pairs: Sequence[tuple[str, str]]) -> tuple[str, ...]:
        """What is to be said of the scores for these queries, once; of many the first ten are looked at."""
        queries = list(dict.fromkeys(query for query, _ in pairs))[:10]
        return tuple(dict.fromkeys(filter(None, map(self.scorer.caution, queries))))

    def reach(self, caps: Caps | None = None) -> Reach:
        """How far the cross-encoder reads a query and a document, when a request wants so much of them read."""
        caps, windows = caps or Caps(), self.scorer.windows
        most = windows.size * min(windows.read, caps.windows or windows.read)
        half = self.scorer.max_length // 2
        return Reach(
            min(half, caps.query or half, caps.pair or half), min(most, caps.document or most, caps.pair or most)
        )

    @property
    def score_kind(self) -> str:
        """What a probability of this server is: "calibrated" on judgments, "trained" by the model's authors, or a plain
        "sigmoid" over a logit, which orders but does not state a chance.
        """
        if self.scorer.calibrated:
            return "calibrated"
        return "trained" if self.scorer.checkpoint.activation in ("sigmoid", "softmax") else "sigmoid"

    def probability(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores in [0, 1], in the same order; see `score_kind`. -inf gives 0."""
        return sigmoid(scores) if self.score_kind == "sigmoid" else self.scorer.probability(scores)

    def chance(self, logit: float) -> float:
        """One score in [0, 1], see `probability`."""
        return float(self.probability(np.array([logit], dtype=np.float32))[0])

    # Embedding ---------------------------------------------------------------------------------------------------

    def embed(self, texts: Sequence[str], ticket: Ticket, *, queries: bool = False) -> Embedded:
        """Unit vectors, shape (n, width), in the order of the texts, with what was not read to its end.

        Texts are documents, or `queries`: some embedders read these otherwise.

        Raises:
            RefusedError: too many tokens, too late, or this server has no embedder.
            CancelledRequestError: the client left.
        """
        if self.embedder is None:
            raise InputError("this server has no embedding model")
        embedder = self.embedder.queries if queries else self.embedder
        parts = [np.zeros((0, self.embedder.width), dtype=np.float32)]
        truncations: list[Truncation] = []
        begin = 0
        with working(ticket):
            for chunk in _chunks([("", text) for text in texts]):
                ticket.check()
                made = embedder.embedded([text for _, text in chunk])
                self.limits.check_tokens(ticket.tokens)
                parts.append(made.vectors)
                truncations += [replace(cut, position=cut.position + begin) for cut in made.truncations]
                begin += len(chunk)
        return Embedded(np.concatenate(parts), tuple(truncations))

    def latest(self) -> tuple[Index, Embedder]:
        """The index at its last commit, and what embeds its queries; what was committed since the last search is in it.

        Raises:
            InputError: this server has no index.
            IndexFileError: it was made anew with another embedder than this server's.
        """
        if self.index is None or self.asker is None:
            raise InputError("this server has no index; start it with one (crossrank serve INDEX), or send documents")
        index = self.index.latest()
        if index is not self.index:
            index.check_embedder(self.asker)
            self.index, self.passages = index, len(index)
        return index, self.asker


def _many(ids: list[int]) -> Tokens:
    return Tokens.of([ids] * max(1, LEAST_TOKENS // len(ids)))


def _speed(compute: Callable[[Tokens], object], tokens: Tokens, seconds: float) -> float:
    """Tokens a second, the best of the measurements that begin in so many seconds."""
    best, end = 0.0, time.perf_counter() + seconds
    for _ in range(_MOST_MEASUREMENTS):
        began = time.perf_counter()
        compute(tokens)
        best = max(best, len(tokens.ids) / (time.perf_counter() - began))
        # A restarted server is missed: where one pass is slow it is measured once, and batches teach the rest.
        if time.perf_counter() > end:
            break
    return best


def _public(name: str) -> str:
    """A model's name for strangers: of a folder only the last part, so that no reply tells where things lie."""
    path = Path(name)
    # A name of the hub may be that of a folder here as well, and says nothing of where.
    return path.name if path.is_absolute() or name.startswith((".", "~")) or path.is_dir() else name


def _chunks(pairs: Sequence[tuple[str, str]], ends: range = range(0)) -> Iterator[Sequence[tuple[str, str]]]:
    """The pairs in order, a bounded number of characters at a time, and none on both sides of one of `ends`."""
    begin = size = 0
    for end, (_, document) in enumerate(pairs):
        size += len(document)
        if end > begin and (size > _CHARACTERS or end - begin >= _DOCUMENTS or end in ends):
            yield pairs[begin:end]
            begin, size = end, len(document)
    if begin < len(pairs):
        yield pairs[begin:]
