"""One request's passage through the server: its deadline, what it has cost so far, and whether anyone still waits."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from crossrank.server.refusals import CancelledRequestError, RefusedError, late
from crossrank.server.speeds import Speed


@dataclass(eq=False)
class Ticket:
    """A request on its way. The thread that answers it writes it; the scheduler adds what it computed.

    Attributes:
        deadline: the moment an answer is due, on the clock of `time.monotonic`.
        costs: tokens that each model may read for it, guessed from its characters before anything is tokenized.
        estimate: all of them.
        arrived: when it came, on the same clock.
        tokens: tokens handed to the backend so far.
        attained: tokens the backend has computed so far.
        compute: seconds of the batches that held its sequences.
        blocked: seconds its thread waited for the backend, queue and computing together.
        tokenizing: seconds its thread spent on the way from text to token ids and from logits to an order.
        cancelled: nobody waits for the answer any more.
    """

    deadline: float
    costs: Mapping[Speed, int] = field(default_factory=dict)
    estimate: int = field(init=False)
    arrived: float = field(default_factory=time.monotonic)
    tokens: int = 0
    attained: int = 0
    compute: float = 0.0
    blocked: float = 0.0
    tokenizing: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        self.estimate = sum(self.costs.values())

    @classmethod
    def lasting(cls, seconds: float, costs: Mapping[Speed, int] | None = None) -> Ticket:
        """A ticket due in so many seconds.

        >>> Ticket.lasting(5.0).left() > 4.9
        True
        """
        return cls(time.monotonic() + seconds, {speed: tokens for speed, tokens in (costs or {}).items() if tokens})

    def left(self) -> float:
        """Seconds until the deadline; negative when it has passed."""
        return self.deadline - time.monotonic()

    @property
    def size(self) -> int:
        """Tokens this request needs, as far as is known: a guess at first, what it really took when that is more."""
        return max(self.estimate, self.tokens)

    @property
    def batches(self) -> float:
        """How many batches of its models that is."""
        return self._scaled(self.size) * sum(tokens / speed.batch_tokens for speed, tokens in self.costs.items())

    @property
    def outstanding(self) -> dict[Speed, float]:
        """Seconds that each model still computes, by the same guess."""
        share = self._scaled(max(0, self.size - self.attained))
        return {speed: share * speed.seconds(tokens) for speed, tokens in self.costs.items()}

    def _scaled(self, tokens: int) -> float:
        return tokens / max(1, self.estimate)

    @property
    def queued(self) -> float:
        """Seconds spent waiting for a turn."""
        return max(0.0, self.blocked - self.compute)

    def check(self) -> None:
        """Go on only while it makes sense.

        Raises:
            CancelledRequestError: the client has left.
            RefusedError: the deadline has passed.
        """
        if self.cancelled:
            raise CancelledRequestError("the client closed the connection")
        if self.left() <= 0:
            raise self.overdue()

    def overdue(self) -> RefusedError:
        """What the client is told when the deadline has passed."""
        # A body takes time too, so this is less than the deadline that the client has named.
        seconds = self.deadline - self.arrived
        return late(
            f"the answer was not ready within the {seconds:.3g} s left of the deadline: send less, or name a later "
            "deadline in X-Crossrank-Deadline-Ms"
        )


# The ticket whose thread is calling a model: backends have no parameter for it.
_CURRENT: ContextVar[Ticket | None] = ContextVar("crossrank_ticket", default=None)


def current() -> Ticket:
    """The ticket of this thread's request; one that is due in an hour where there is none."""
    return _CURRENT.get() or Ticket.lasting(3600.0)


@contextmanager
def carried(ticket: Ticket) -> Iterator[None]:
    """Models called inside work for this ticket.

    >>> mine = Ticket.lasting(5.0)
    >>> with carried(mine):
    ...     current() is mine
    True
    """
    token = _CURRENT.set(ticket)
    try:
        yield
    finally:
        _CURRENT.reset(token)


@contextmanager
def working(ticket: Ticket) -> Iterator[None]:
    """As `carried`, where there is nothing but models: time that is no wait for the backend counts as tokenizing."""
    began, blocked = time.perf_counter(), ticket.blocked
    try:
        with carried(ticket):
            yield
    finally:
        waited = ticket.blocked - blocked
        ticket.tokenizing += max(0.0, time.perf_counter() - began - waited)
