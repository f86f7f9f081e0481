"""One thread owns the backend; sequences of many requests share its batches.

Request threads tokenize, hand their sequences over and wait. The owner fills each batch up to a budget of tokens:
shortest deadline first, small requests before large ones, and large ones always a share, so that nobody starves and
one client with 5,000 documents does not stand in front of everyone else.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from crossrank.server.batches import Lane, Part, Work, choose, joined
from crossrank.server.refusals import CancelledRequestError, late, leaving
from crossrank.server.speeds import Speed
from crossrank.server.tickets import Ticket, current
from crossrank.types import Backend, Pooling, Tokens


@dataclass(frozen=True, slots=True)
class Batch:
    """What the owner computed at once, for metrics.

    Attributes:
        speed: of the model that computed.
        sequences: how many.
        tokens: in all of them.
        requests: how many requests they came from.
        seconds: wall-clock time of the backend.
    """

    speed: Speed
    sequences: int
    tokens: int
    requests: int
    seconds: float


class Scheduler:
    """A queue of sequences and the one thread that computes them. `start` makes the thread; nothing else does.

    Args:
        on_batch: called by the owner after each batch; must be quick.

    `measures` has what tells how fast a model is. The owner calls it when nothing waits and no batch of the model has
    been large enough for `speeds.IDLE_SECONDS` to tell; then after twice as long, and so on until its next batch.

    >>> from crossrank.backends.fake import Fake
    >>> scheduler = Scheduler()
    >>> scheduler.start()
    >>> shared = Shared(Fake(), scheduler, Speed("score"))
    >>> tokens = Tokens.of([[101, 7, 102], [101, 8, 102]])
    >>> bool((shared.forward(tokens) == Fake().forward(tokens)).all())
    True
    >>> scheduler.stop()
    """

    def __init__(self, on_batch: Callable[[Batch], None] | None = None) -> None:
        self.on_batch = on_batch
        self.measures: dict[Speed, Callable[[], None]] = {}
        self._waiting: list[Work] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._count = 0
        self._batches = 0
        # The number of the batch that last computed for each lane: the lane that waited longest has the next turn.
        self._turns: dict[int, int] = {}

    @property
    def alive(self) -> bool:
        """Whether there is a thread that computes."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def queued(self) -> dict[Speed, float]:
        """Seconds that each model will compute of what was handed over and is not computed yet."""
        left: dict[Speed, float] = defaultdict(float)
        with self._changed:
            for work in self._waiting:
                left[work.lane.speed] += work.lane.speed.seconds(int(work.lengths[work.given :].sum()))
        return left

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
            if self._stopping or not self.alive:
                raise leaving()
            self._count += 1
            work = Work(lane, tokens, tokens.lengths, ticket, self._count)
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

    def _drop(self, work: Work) -> None:
        with self._changed:
            if work in self._waiting:
                self._waiting.remove(work)

    def _own(self) -> None:
        while True:
            with self._changed:
                self._sweep()
                if self._waiting:
                    step = self._next()
                elif self._stopping:
                    return
                elif self._changed.wait(self._idle()) or self._waiting:
                    continue
                else:
                    step = self._measure
            step()

    def _next(self) -> Callable[[], None]:
        """Computes the next batch. Holds the lock."""
        lane, parts = choose(self._waiting, self._turns)
        self._batches += 1
        self._turns[id(lane)] = self._batches
        return partial(self._compute, lane, parts)

    def _idle(self) -> float | None:
        """Seconds to wait for work until a speed is measured again."""
        due = [speed.due for speed in self.measures]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _measure(self) -> None:
        """Measure the speed that is due first; one alone, because meanwhile a request may have come."""
        measures = self.measures
        speed = min(measures, key=lambda one: one.due, default=None)
        if speed is not None:
            # What is wrong with a backend is told to the next request.
            with suppress(Exception):
                measures[speed]()
            speed.put_off()

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
        began = time.perf_counter()
        failed: Exception | None = None
        try:
            # To join them takes memory, and the one thread must not end where there is none.
            tokens = joined(parts)
            values = lane.compute(tokens)
        except Exception as error:
            failed = error
        seconds = time.perf_counter() - began
        if failed is None:
            lane.speed.learn(len(tokens.ids), seconds)
            if self.on_batch is not None:
                self.on_batch(Batch(lane.speed, len(tokens), len(tokens.ids), len(parts), seconds))
        elif len(parts) > 1:
            # One request's bad sequence must not fail the others: when several share the batch, each goes alone.
            for part in parts:
                self._compute(lane, [part])
            return
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


class Shared:
    """A backend that hands its sequences to a scheduler: what reads texts need not know that it shares.

    Args:
        backend: computes, and is called by the scheduler's thread only.
        scheduler: where the sequences go.
        speed: of the model that the backend has.
    """

    def __init__(self, backend: Backend, scheduler: Scheduler, speed: Speed) -> None:
        self.name = backend.name
        self.padded = backend.padded
        self._scheduler = scheduler
        self._backend = backend
        self._forward = Lane(speed, backend.forward, backend.padded)
        self._pools: dict[Pooling, Lane] = {
            "mean": Lane(speed, lambda tokens: backend.pool(tokens, "mean"), backend.padded),
            "cls": Lane(speed, lambda tokens: backend.pool(tokens, "cls"), backend.padded),
        }

    def forward(self, tokens: Tokens) -> NDArray[np.float32]:
        """Raw logits, shape (n,), for the ticket of this thread; see `Backend.forward`."""
        return self._scheduler.submit(self._forward, tokens, current())

    def pool(self, tokens: Tokens, pooling: Pooling) -> NDArray[np.float32]:
        """One vector a sequence, shape (n, hidden), for the ticket of this thread; see `Backend.pool`."""
        if pooling not in self._pools:
            return self._backend.pool(tokens, pooling)
        return self._scheduler.submit(self._pools[pooling], tokens, current())
