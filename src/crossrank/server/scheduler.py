"""One thread owns the backend; sequences of many requests share its batches.

Request threads tokenize, hand their sequences over and wait. The owner fills each batch up to a budget of tokens:
shortest deadline first, small requests before large ones, and large ones always a share, so that nobody starves and
one client with 5,000 documents does not stand in front of everyone else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.server.refusals import CancelledRequestError, late, leaving
from crossrank.server.tickets import Ticket, current
from crossrank.types import Backend, Pooling, Tokens

Compute = Callable[[Tokens], NDArray[np.float32]]

# What a lane computes. Each has a speed of its own: the embedder is another model, often a much quicker one.
SCORE, EMBED = "score", "embed"
# Share of a batch that requests too large to go first can count on while smaller ones wait.
LARGE_SHARE = 0.25
# A request of more batches than this is large. At 20 ms a batch: 80 ms of the backend.
LARGE_BATCHES = 4
# A batch must not be so small that calling the backend costs more than computing, nor so large that it fills memory.
LEAST_TOKENS, MOST_TOKENS = 1024, 65_536
# The share of a new measurement in the running mean of tokens a second.
_NEWS = 0.2


@dataclass(frozen=True, slots=True)
class Lane:
    """What may share a batch: sequences for one function of one backend.

    Attributes:
        name: for people and metrics.
        compute: sequences in, one row each out.
        padded: see `Backend.padded`.
    """

    name: str
    compute: Compute
    padded: bool


@dataclass(eq=False)
class _Work:
    """Sequences of one request that wait for the owner."""

    lane: Lane
    tokens: Tokens
    lengths: NDArray[np.int64]
    ticket: Ticket
    number: int
    done: threading.Event = field(default_factory=threading.Event)
    given: int = 0
    rows: list[NDArray[np.float32]] = field(default_factory=list)
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """Rows `begin` to `end` of one request's sequences, in a batch."""

    work: Any
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Batch:
    """What the owner computed at once, for metrics.

    Attributes:
        lane: which function of which backend.
        sequences: how many.
        tokens: in all of them.
        requests: how many requests they came from.
        seconds: wall-clock time of the backend.
    """

    lane: str
    sequences: int
    tokens: int
    requests: int
    seconds: float


class Scheduler:
    """A queue of sequences and the one thread that computes them. `start` makes the thread; nothing else does.

    Args:
        batch_tokens: tokens of one batch.
        on_batch: called by the owner after each batch; must be quick.

    >>> from crossrank.backends.fake import Fake
    >>> scheduler = Scheduler(batch_tokens=1024)
    >>> scheduler.start()
    >>> shared = Shared(Fake(), scheduler)
    >>> tokens = Tokens.of([[101, 7, 102], [101, 8, 102]])
    >>> bool((shared.forward(tokens) == Fake().forward(tokens)).all())
    True
    >>> scheduler.stop()
    """

    def __init__(self, batch_tokens: int = 4096, on_batch: Callable[[Batch], None] | None = None) -> None:
        self.batch_tokens = batch_tokens
        self.rates: dict[str, float] = {}
        self.on_batch = on_batch
        self._waiting: list[_Work] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._count = 0
        self._batches = 0
        # The number of the batch that last computed for each lane: the lane that waited longest has the next turn.
        self._turns: dict[int, int] = {}

    @property
    def rate(self) -> float:
        """Tokens that the cross-encoder reads in a second, lately; 0 while nothing is known."""
        return self.rates.get(SCORE, 0.0)

    @rate.setter
    def rate(self, speed: float) -> None:
        self.rates[SCORE] = speed

    @property
    def embed_rate(self) -> float:
        """As `rate`, of the embedder; the cross-encoder's while nothing is known of it."""
        return self.rates.get(EMBED, self.rate)

    @embed_rate.setter
    def embed_rate(self, speed: float) -> None:
        self.rates[EMBED] = speed

    def seconds(self, tokens: float, embedded: float = 0.0) -> float:
        """How long so many tokens take, of which the embedder reads this share; 0 while nothing is known."""
        if self.rate <= 0:
            return 0.0
        return tokens * ((1.0 - embedded) / self.rate + embedded / self.embed_rate)

    @property
    def queued_seconds(self) -> float:
        """How long what was handed over and is not computed yet will take."""
        with self._changed:
            left = [(work.lane.name, int(work.lengths[work.given :].sum())) for work in self._waiting]
        return sum(self.seconds(tokens, float(name == EMBED)) for name, tokens in left)

    @property
    def queued_tokens(self) -> int:
        """Tokens handed over and not yet computed."""
        with self._changed:
            return sum(int(work.lengths[work.given :].sum()) for work in self._waiting)

    def start(self) -> None:
        """Begin to compute."""
        self._thread = threading.Thread(target=self._own, name="crossrank-backend", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Compute what waits, take nothing new, and end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def submit(self, lane: Lane, tokens: Tokens, ticket: Ticket) -> NDArray[np.float32]:
        """Compute sequences in their order: hand them over and wait.

        Raises:
            RefusedError: the deadline passed, or the server is shutting down.
            CancelledRequestError: the client left.
        """
        if not len(tokens):
            return lane.compute(tokens)
        ticket.check()
        began = time.perf_counter()
        with self._changed:
            if self._stopping or self._thread is None:
                raise leaving()
            self._count += 1
            work = _Work(lane, tokens, tokens.lengths, ticket, self._count)
            ticket.tokens += int(tokens.offsets[-1])
            self._waiting.append(work)
            self._changed.notify_all()
        try:
            # The owner sets `done` when it drops work too; the extra half second is for a batch already under way.
            if not work.done.wait(max(0.0, ticket.left()) + 0.5):
                self._drop(work)
                ticket.check()
                raise late("the answer was not ready in time")
        finally:
            ticket.blocked += time.perf_counter() - began
        if work.error is not None:
            raise work.error
        return np.concatenate(work.rows) if len(work.rows) > 1 else work.rows[0]

    def cancel(self, ticket: Ticket) -> None:
        """Drop what a request still has in the queue."""
        with self._changed:
            ticket.cancelled = True
            self._changed.notify_all()

    def _drop(self, work: _Work) -> None:
        with self._changed:
            if work in self._waiting:
                self._waiting.remove(work)

    def _own(self) -> None:
        while True:
            with self._changed:
                self._sweep()
                while not self._waiting:
                    if self._stopping:
                        return
                    self._changed.wait()
                    self._sweep()
                lane, parts = choose(self._waiting, self.batch_tokens, self._turns)
                self._batches += 1
                self._turns[id(lane)] = self._batches
            self._compute(lane, parts)

    def _sweep(self) -> None:
        """Take out work that nobody waits for any more, or that is too late. Holds the lock."""
        now = time.monotonic()
        kept = []
        for work in self._waiting:
            if work.ticket.cancelled or work.ticket.deadline <= now:
                try:
                    work.ticket.check()
                except Exception as error:
                    work.error = error
                work.error = work.error or CancelledRequestError("dropped")
                work.done.set()
            else:
                kept.append(work)
        self._waiting = kept

    def _compute(self, lane: Lane, parts: Sequence[Part]) -> None:
        tokens = _joined(parts)
        began = time.perf_counter()
        try:
            values: Any = lane.compute(tokens)
            failed = None
        except Exception as error:
            # One request's bad sequence must not fail the others: when several share the batch, each goes alone.
            values, failed = None, error
        seconds = time.perf_counter() - began
        if failed is not None and len(parts) > 1:
            for part in parts:
                self._compute(lane, [part])
            return
        self._learn(Batch(lane.name, len(tokens), len(tokens.ids), len(parts), seconds))
        with self._changed:
            row = 0
            for part in parts:
                count = part.end - part.begin
                part.work.ticket.compute += seconds
                part.work.ticket.attained += int(part.work.lengths[part.begin : part.end].sum())
                if failed is not None:
                    part.work.error = failed
                else:
                    part.work.rows.append(values[row : row + count])
                row += count
                part.work.given = part.end
                if failed is not None or part.end == len(part.work.tokens):
                    if part.work in self._waiting:
                        self._waiting.remove(part.work)
                    part.work.done.set()

    def _learn(self, batch: Batch) -> None:
        if batch.seconds > 0:
            speed = batch.tokens / batch.seconds
            # Small batches say little about speed: a lone query is all overhead.
            weight = _NEWS * min(1.0, batch.tokens / self.batch_tokens)
            before = self.rates.get(batch.lane, self.rate)
            self.rates[batch.lane] = speed if before == 0 else before + weight * (speed - before)
        if self.on_batch is not None:
            self.on_batch(batch)


def choose(waiting: Sequence[_Work], budget: int, turns: Mapping[int, int] | None = None) -> tuple[Lane, list[Part]]:
    """The next batch: which lane, and which rows of which work, at most `budget` tokens or one sequence.

    The lane is the one whose last turn is longest ago. Within it small requests go first, shortest deadline first; when
    a large one waits, `LARGE_SHARE` of the budget is kept for it, and what either leaves over goes to the other.

    Args:
        waiting: at least one.
        budget: tokens; padding counts where the lane's backend pads.
        turns: for the identity of a lane, the number of its last batch.
    """
    last = turns or {}
    order = sorted(waiting, key=lambda work: (work.ticket.deadline, work.number))
    lane = min(order, key=lambda work: last.get(id(work.lane), 0)).lane
    mine = [work for work in order if work.lane is lane]
    large = LARGE_BATCHES * budget
    first = [work for work in mine if work.ticket.size <= large]
    rest = [work for work in mine if work.ticket.size > large]
    filling = _Filling(budget, lane.padded)
    filling.take(first, budget - int(LARGE_SHARE * budget) if rest else budget)
    filling.take(rest, budget)
    filling.take(first, budget)
    return lane, filling.parts()


class _Filling:
    """A batch being filled, work by work, row by row."""

    def __init__(self, budget: int, padded: bool) -> None:
        self._padded = padded
        self._taken: dict[int, tuple[_Work, int, int]] = {}
        self._sequences = self._sum = self._longest = 0

    def take(self, works: Sequence[_Work], budget: int) -> None:
        """Take rows in order while the batch costs at most `budget`; the first row of a batch always fits."""
        for work in works:
            _, begin, end = self._taken.get(work.number, (work, work.given, work.given))
            while end < len(work.lengths) and self._admit(int(work.lengths[end]), budget):
                end += 1
            if end > begin:
                self._taken[work.number] = (work, begin, end)
            if end < len(work.lengths):
                return

    def _admit(self, length: int, budget: int) -> bool:
        longest, total = max(self._longest, length), self._sum + length
        cost = longest * (self._sequences + 1) if self._padded else total
        if self._sequences and cost > budget:
            return False
        self._sequences, self._sum, self._longest = self._sequences + 1, total, longest
        return True

    def parts(self) -> list[Part]:
        return [Part(*taken) for taken in self._taken.values()]


def _joined(parts: Sequence[Part]) -> Tokens:
    """The rows of all parts as one batch; their own arrays when that is all of one work."""
    if len(parts) == 1 and parts[0].begin == 0 and parts[0].end == len(parts[0].work.tokens):
        only: Tokens = parts[0].work.tokens
        return only
    ids, types, lengths = [], [], []
    for part in parts:
        tokens = part.work.tokens
        span = slice(int(tokens.offsets[part.begin]), int(tokens.offsets[part.end]))
        ids.append(tokens.ids[span])
        types.append(tokens.types[span])
        lengths.append(part.work.lengths[part.begin : part.end])
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(np.concatenate(lengths))])
    return Tokens(np.concatenate(ids), np.concatenate(types), offsets)


class Shared:
    """A backend that hands its sequences to a scheduler: what reads texts need not know that it shares.

    Args:
        backend: computes, and is called by the scheduler's thread only.
        scheduler: where the sequences go.
    """

    def __init__(self, backend: Backend, scheduler: Scheduler) -> None:
        self.name = backend.name
        self.padded = backend.padded
        self._scheduler = scheduler
        self._backend = backend
        self._forward = Lane(SCORE, backend.forward, backend.padded)
        self._pools: dict[Pooling, Lane] = {
            "mean": Lane(EMBED, lambda tokens: backend.pool(tokens, "mean"), backend.padded),
            "cls": Lane(EMBED, lambda tokens: backend.pool(tokens, "cls"), backend.padded),
        }

    def forward(self, tokens: Tokens) -> NDArray[np.float32]:
        """Raw logits, shape (n,), for the ticket of this thread; see `Backend.forward`."""
        return self._scheduler.submit(self._forward, tokens, current())

    def pool(self, tokens: Tokens, pooling: Pooling) -> NDArray[np.float32]:
        """One vector a sequence, shape (n, hidden), for the ticket of this thread; see `Backend.pool`."""
        if pooling not in self._pools:
            return self._backend.pool(tokens, pooling)
        return self._scheduler.submit(self._pools[pooling], tokens, current())
