"""Which sequences of which requests the next batch takes. Pure functions over the queue."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from crossrank.packed import offsets_of
from crossrank.server.speeds import Speed
from crossrank.server.tickets import Ticket
from crossrank.types import Tokens

Compute = Callable[[Tokens], NDArray[np.float32]]

# Share of a batch that requests too large to go first can count on while smaller ones wait.
LARGE_SHARE = 0.25
# A request of more batches than this is large, whatever model they are of. At 20 ms a batch: 80 ms of the machine.
LARGE_BATCHES = 4


@dataclass(frozen=True, slots=True)
class Lane:
    """What may share a batch: sequences for one function of one backend.

    Attributes:
        speed: of that model.
        compute: sequences in, one row each out.
        padded: see `Backend.padded`.
    """

    speed: Speed
    compute: Compute
    padded: bool


@dataclass(eq=False)
class Work:
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

    work: Work
    begin: int
    end: int


def choose(waiting: Sequence[Work], turns: Mapping[int, int] | None = None) -> tuple[Lane, list[Part]]:
    """The next batch: which lane, and which rows of which work, at most the tokens of its batches or one sequence.

    The lane is the one whose last turn is longest ago. Within it small requests go first, shortest deadline first; when
    a large one waits, `LARGE_SHARE` of the batch is kept for it, and what either leaves over goes to the other.

    Args:
        waiting: at least one.
        turns: for the identity of a lane, the number of its last batch.
    """
    last = turns or {}
    order = sorted(waiting, key=lambda work: (work.ticket.deadline, work.number))
    lane = min(order, key=lambda work: last.get(id(work.lane), 0)).lane
    mine = [work for work in order if work.lane is lane]
    first = [work for work in mine if work.ticket.batches <= LARGE_BATCHES]
    rest = [work for work in mine if work.ticket.batches > LARGE_BATCHES]
    filling, budget = _Filling(lane.padded), lane.speed.batch_tokens
    filling.take(first, budget - int(LARGE_SHARE * budget) if rest else budget)
    filling.take(rest, budget)
    filling.take(first, budget)
    return lane, filling.parts()


class _Filling:
    """A batch being filled, work by work, row by row."""

    def __init__(self, padded: bool) -> None:
        self._padded = padded
        self._taken: dict[int, tuple[Work, int, int]] = {}
        self._sequences = self._sum = self._longest = 0

    def take(self, works: Sequence[Work], budget: int) -> None:
        """Take rows in order while the batch costs at most `budget` tokens, with padding where the backend pads; the
        first row of a batch always fits."""
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


def joined(parts: Sequence[Part]) -> Tokens:
    """The rows of all parts as one batch; their own arrays when that is all of one work."""
    if len(parts) == 1 and parts[0].begin == 0 and parts[0].end == len(parts[0].work.tokens):
        return parts[0].work.tokens
    ids, types, lengths = [], [], []
    for part in parts:
        tokens = part.work.tokens
        span = slice(int(tokens.offsets[part.begin]), int(tokens.offsets[part.end]))
        ids.append(tokens.ids[span])
        types.append(tokens.types[span])
        lengths.append(part.work.lengths[part.begin : part.end])
    return Tokens(np.concatenate(ids), np.concatenate(types), offsets_of(np.concatenate(lengths)))
