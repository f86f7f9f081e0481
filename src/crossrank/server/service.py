"""What the server does, without HTTP: rerank with one of its models, embed and search, through the shared scheduler."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crossrank.crossencoder import CrossEncoder
from crossrank.embedder import TextEmbedder
from crossrank.errors import InputError
from crossrank.server.cutting import chunks
from crossrank.server.limits import Limits
from crossrank.server.refusals import LONGEST_NAME, RefusedError, invalid
from crossrank.server.rerankers import WARM_TEXT, Reranker
from crossrank.server.scheduler import Scheduler, Shared
from crossrank.server.speeds import BATCH_SECONDS, EMBED, LEAST_TOKENS, SCORE, Speed
from crossrank.server.tickets import Ticket, working
from crossrank.types import Embedded, Embedder, Truncation

if TYPE_CHECKING:
    from crossrank.index import Index

# No measurement of a model at the start begins after so long.
_MEASURING_SECONDS = 0.1
# What infinity's clients send where nobody has named a model.
_UNSAID = "default/not-specified"


class Service:
    """The models and the index that a server serves. Makes no thread until `start`.

    Args:
        scorers: a cross-encoder, which is called by its own name; or several by the names that requests choose them by,
            of which the first is the default. One that has two names has one place in the queue.
        embedder: for embeddings and search; None offers neither.
        index: what is searched; None offers no search.
        limits: of one request.
        batch_tokens: tokens of one batch; None measures this machine in `start`, and while nothing waits.
        asker: embeds the queries to the index where `embedder` does not, such as a model behind an address. It is given
            nothing else: what others send to be embedded does not leave this machine.
    """

    def __init__(
        self,
        scorers: CrossEncoder | Mapping[str, CrossEncoder],
        embedder: TextEmbedder | None = None,
        index: Index | None = None,
        limits: Limits | None = None,
        batch_tokens: int | None = None,
        asker: Embedder | None = None,
    ) -> None:
        if index is not None and embedder is None and asker is None:
            raise InputError("search needs the embedder that the index was made with")
        self.limits = limits or Limits()
        self.scheduler = Scheduler()
        self._batch_tokens = batch_tokens
        named = {public(scorers.checkpoint.name): scorers} if isinstance(scorers, CrossEncoder) else dict(scorers)
        if not named:
            raise InputError("a server needs a model")
        made: dict[int, Reranker] = {}
        self.rerankers: dict[str, Reranker] = {}
        for name, scorer in named.items():
            if id(scorer) not in made:
                speed = self._speed(SCORE, name)
                made[id(scorer)] = Reranker(name, scorer, self.scheduler, speed, self.limits)
            self.rerankers[name] = made[id(scorer)].called(name)
        # The cross-encoders, each once, whatever it is called.
        self.loaded = tuple(made.values())
        self.reranker = next(iter(self.rerankers.values()))
        self.embedder = copy.copy(embedder) if embedder is not None else None
        self.embedding_model = None if embedder is None else public(embedder.checkpoint.name)
        self.embedding_speed = self._speed(EMBED, self.embedding_model or "")
        if self.embedder is not None:
            self._bare_embedder = self.embedder.backend
            self.embedder.backend = Shared(self.embedder.backend, self.scheduler, self.embedding_speed)
        self.index = index
        # As many as there were at the last search: to count them reads the folder, and the event loop must not.
        self.passages = 0 if index is None else len(index)
        self.asker: Embedder | None = asker or self.embedder
        self._warm = False
        # Whether the last search could read the index.
        self.searchable = index is not None

    def _speed(self, lane: str, model: str) -> Speed:
        return Speed(lane, model, self._batch_tokens or LEAST_TOKENS, self._batch_tokens is not None)

    @property
    def speeds(self) -> tuple[Speed, ...]:
        """Of all models."""
        embedding = () if self.embedder is None else (self.embedding_speed,)
        return (*(one.speed for one in self.loaded), *embedding)

    @property
    def names(self) -> tuple[str, ...]:
        """The models that are served: the default, the other cross-encoders, the embedder."""
        return tuple(dict.fromkeys((*self.rerankers, *filter(None, [self.embedding_model]))))

    def asked(self, named: object) -> Reranker:
        """The model that the body of a request names; the default where it names none. Where there is no choice the
        name is not looked at: clients of other products send those of their models.

        Raises:
            RefusedError: 404, there are several, and none is called so.
        """
        if len(self.rerankers) == 1 or named == _UNSAID:
            return self.reranker
        return self.named(named)

    def named(self, name: object, field: str = "model") -> Reranker:
        """The model that a field of a request names; the default where that is None.

        Raises:
            RefusedError: 404, there is none; 400, it is no name.
        """
        if name is None:
            return self.reranker
        if not isinstance(name, str):
            raise invalid(f"{field} must be a string", field)
        if name not in self.rerankers:
            first, *others = self.rerankers
            told = f"there are {', '.join([f'{first} (the default)', *others])}" if others else f"there is {first}"
            shown = name[:LONGEST_NAME]
            raise RefusedError(f"no model {shown!r} reranks here; {told}", 404, "NotFoundError", field)
        return self.rerankers[name]

    def before(self, model: Reranker, name: object) -> Reranker | None:
        """The model of this name, which is to read before another; None where the name is.

        Raises:
            RefusedError: as `named`, and 400, it is that other one, whatever it is called.
        """
        coarse = None if name is None else self.named(name, "coarse")
        if coarse is not None and coarse.speed is model.speed:
            same = coarse.name if coarse.name == model.name else f"{coarse.name} is {model.name}, and so"
            raise invalid(f"{same} reads last already: name a cheaper model as coarse, or leave it out", "coarse")
        return coarse

    def start(self) -> None:
        """Start the scheduler, warm the models up, measure how fast they are here, and choose the size of a batch."""
        self.scheduler.start()
        for one in self.loaded:
            one.measure(_MEASURING_SECONDS)
        self._measure_embedder(_MEASURING_SECONDS)
        self.scheduler.measures = {one.speed: partial(one.measure, BATCH_SECONDS) for one in self.loaded}
        if self.embedder is not None:
            self.scheduler.measures[self.embedding_speed] = partial(self._measure_embedder, BATCH_SECONDS)
        for one in self.loaded:
            one.warm()
        if self.embedder is not None:
            with working(Ticket.lasting(60.0)):
                self.embedder.embed([WARM_TEXT])
        self._warm = True

    def stop(self) -> None:
        """Compute what waits and end the scheduler's thread."""
        self._warm = False
        self.scheduler.stop()
        for one in self.loaded:
            one.close()

    @property
    def ready(self) -> bool:
        """Whether requests can be computed: the models are warm, and the thread that owns them lives."""
        return self._warm and self.scheduler.alive

    def _measure_embedder(self, seconds: float) -> None:
        """Of its own: by a cross-encoder's speed, which is often much slower, large requests were refused until it had
        embedded for a while."""
        if self.embedder is None:
            return
        pooling = self.embedder.checkpoint.pooling
        assert pooling is not None, "a bi-encoder has one"
        ids = self.embedder.tokenizer.encode(WARM_TEXT).ids[: self.embedder.max_length]
        self.embedding_speed.measure(lambda tokens: self._bare_embedder.pool(tokens, pooling), ids, seconds)

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
            for chunk in chunks([("", text) for text in texts]):
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


def public(name: str) -> str:
    """A model's name for strangers: of a folder only the last part, so that no reply tells where things lie."""
    path = Path(name)
    # A name of the hub may be that of a folder here as well, and says nothing of where.
    return (
        Path(os.path.abspath(name)).name if path.is_absolute() or name.startswith((".", "~")) or path.is_dir() else name
    )
