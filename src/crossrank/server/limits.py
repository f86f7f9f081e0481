"""What one request may cost, and how much may be under way at once: decided before memory or time is spent."""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from crossrank.errors import InputError
from crossrank.server.batches import LARGE_BATCHES, LARGE_SHARE
from crossrank.server.refusals import overloaded, too_large
from crossrank.server.speeds import Speed, meanwhile
from crossrank.server.tickets import Ticket

# Letters a token stands for, roughly, in English. For estimates only: other scripts have fewer.
_LETTERS_A_TOKEN = 4
# The share of a deadline that is planned: lengths are guessed, and the rest of the way takes time too. Who is refused
# at once can ask another replica; who is late cannot.
_PLANNED = 0.75
# Requests that are and were foreseen to be quicker say nothing about waiting; what one of the others adds to the means.
_TELLING, _NEWS = 0.05, 0.1
# How far over its deadline an estimate may be before the request is refused for its own size.
_DOUBT = 1.5
# Values of JSON in a body for each document it may have: an object with dozens of fields. 640,000 values take Python
# 0.1 to 0.2 s, in which no other thread runs.
_VALUES_A_DOCUMENT = 64
_SHORTER = "--max-tokens allows: send fewer or shorter texts at once"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one request and of the whole server.

    Attributes:
        body: bytes of one request's body.
        documents: documents (pairs, texts) of one request.
        tokens: tokens the model may read for one request, the query counted once for each document.
        requests: requests under way at once; each holds a thread while it is computed.
        reply: bytes of one reply of embeddings, which may be 2,000 times as long as its request.
        bytes: bytes of bodies and replies under way at once.
        connections: connections open at once.
        seconds: a request's deadline when it names none.
        most_seconds: the longest deadline a request may name.
        head_seconds: time a client has to send its headers.
        body_seconds: time a client has to send its body.
        reply_seconds: time a client has to take its reply.
        drain_seconds: time that requests under way have to finish after SIGTERM.
    """

    body: int = 32 * 1024 * 1024
    documents: int = 10_000
    tokens: int = 8_000_000
    requests: int = 256
    reply: int = 32 * 1024 * 1024
    bytes: int = 256 * 1024 * 1024
    connections: int = 2048
    seconds: float = 60.0
    most_seconds: float = 900.0
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    reply_seconds: float = 30.0
    drain_seconds: float = 30.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"the limit {name} must be a finite number over 0, not {getattr(self, name)}")

    @property
    def values(self) -> int:
        """JSON values of one body: numbers, strings, lists and objects at any depth."""
        return _VALUES_A_DOCUMENT * (self.documents + 1)

    def check_documents(self, count: int, param: str) -> None:
        """Refuse more documents than one request may have.

        >>> Limits(documents=2).check_documents(2, "documents")
        """
        if count > self.documents:
            raise too_large(
                f"{count:,} documents are more than the {self.documents:,} of --max-documents: send fewer at once",
                param,
            )

    def check_words(self, pairs: Sequence[tuple[str, str]], reach: Reach) -> None:
        """Refuse texts of which more tokens would be read than one request may have: a word is at least one token."""
        # A word has at least one character, so short texts need no counting.
        if sum(len(query) + len(document) for query, document in pairs) <= self.tokens:
            return
        asked: dict[str, int] = {}
        words = 0
        for query, document in pairs:
            if query not in asked:
                asked[query] = _words(query, reach.query)
            words += asked[query] + _words(document, reach.document)
            if words > self.tokens:
                raise too_large(f"these texts have over {self.tokens:,} words, more tokens than {_SHORTER}")

    def check_tokens(self, tokens: int) -> None:
        """Refuse to go on with a request that has turned out to hold too many tokens."""
        if tokens > self.tokens:
            raise too_large(f"these texts have more than {self.tokens:,} tokens, over what {_SHORTER}")

    def check_reply(self, size: int, cure: str, param: str) -> None:
        """Refuse a request whose reply would have more bytes than one may have."""
        if size > self.reply:
            raise too_large(
                f"the reply would have about {size:,} bytes, more than the {self.reply:,} that one may have: {cure}",
                param,
            )


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a model reads long texts, in tokens.

    Attributes:
        query: of a query, which is read with each of its documents.
        document: of a document, with what overlapping windows read twice.
    """

    query: int
    document: int


def estimate(pairs: Iterable[tuple[str, str]], reach: Reach) -> int:
    """Tokens that (query, document) pairs may take, guessed from lengths.

    >>> estimate([("who wrote Faust?", "Goethe wrote Faust.")] * 2, Reach(256, 25_600))
    22
    """
    query, document = _LETTERS_A_TOKEN * reach.query, _LETTERS_A_TOKEN * reach.document
    return sum((min(len(asked), query) + min(len(text), document)) // _LETTERS_A_TOKEN + 3 for asked, text in pairs)


def _words(text: str, most: int) -> int:
    """Words of a text, counted up to `most`, so that a list of millions is never made."""
    return min(len(text.split(None, most)), most)


class Gate:
    """Counts what is under way and refuses what would not be answered in time.

    There is one for all models: they share the machine. How fast each of them is here its `Speed` knows.

    Args:
        limits: of the server.

    >>> gate = Gate(Limits(requests=1))
    >>> with gate.admitted({Speed("score"): 100}, seconds=5.0):
    ...     len(gate.tickets)
    1
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.tickets: set[Ticket] = set()
        self._bytes = 0
        self._foreseen = self._took = _TELLING
        self._lock = threading.Lock()

    @contextmanager
    def admitted(self, costs: Mapping[Speed, int], seconds: float) -> Iterator[Ticket]:
        """A ticket for a request of which each model reads about so many tokens, and that is due in so many seconds.

        Raises:
            RefusedError: 429 when there is no room or too much is waiting already; 413 when even an idle server would
                need longer.
        """
        ticket = Ticket.lasting(seconds, costs)
        with self._lock:
            if len(self.tickets) >= self.limits.requests:
                raise overloaded(f"{len(self.tickets)} requests are under way, as many as fit", self._retry(0.0))
            foreseen = self._check_time(ticket, seconds)
            self.tickets.add(ticket)
        try:
            yield ticket
        finally:
            with self._lock:
                self.tickets.discard(ticket)
                if not ticket.cancelled:
                    # What an embedder behind an address took, or a slow disk, says nothing of the models here.
                    self._learn(foreseen, ticket.tokenizing + ticket.blocked)

    @contextmanager
    def holding(self) -> Iterator[Callable[[int], None]]:
        """Room for one request's body, as it arrives, and its reply: call what this gives with the bytes of each part.

        Raises:
            RefusedError: 429, by that call, when bodies and replies under way fill the memory set apart for them.
        """
        held, left = 0, False

        def grow(bytes: int) -> None:
            nonlocal held
            with self._lock:
                if left:
                    return  # A thread whose request was answered as late: nobody would give back what it takes.
                if self._bytes + bytes > self.limits.bytes:
                    raise overloaded("the requests under way and their replies fill the memory set apart for them", 1.0)
                self._bytes += bytes
                held += bytes

        try:
            yield grow
        finally:
            with self._lock:
                left = True
                self._bytes -= held

    def _learn(self, foreseen: float, took: float) -> None:
        if max(foreseen, took) >= _TELLING:
            self._foreseen += _NEWS * (foreseen - self._foreseen)
            self._took += _NEWS * (took - self._took)

    @property
    def slip(self) -> float:
        """How many times longer requests took lately than was foreseen, at least 1: tokenizing, other programs."""
        return max(1.0, self._took / self._foreseen)

    def _check_time(self, ticket: Ticket, seconds: float) -> float:
        """Seconds that are foreseen until the answer, before any slip; 0 while nothing is known."""
        alone = sum(ticket.outstanding.values())
        if alone > _DOUBT * seconds:
            raise too_large(
                f"about {ticket.estimate:,} tokens take {_told(alone)} here, and {_told(seconds)} of the deadline are "
                "left: send fewer documents, or name a later deadline in X-Crossrank-Deadline-Ms"
            )
        wait = self._wait(ticket)
        needed = self.slip * (wait + alone)
        # A server with nothing else to do tries, whatever the estimate says.
        if wait > 0 and needed > _PLANNED * seconds:
            raise overloaded(
                f"about {needed:.1f} s of work is waiting, and {_told(seconds)} of the deadline are left",
                self._retry(needed - _PLANNED * seconds),
            )
        return wait + alone

    def _wait(self, ticket: Ticket) -> float:
        """Seconds that are computed before this request's, by the order that the scheduler keeps: among those of its
        models by size, and of other models a batch after each of its own.
        """
        everyone: dict[Speed, float] = defaultdict(float)
        small: dict[Speed, float] = defaultdict(float)
        for one in self.tickets:
            if one.cancelled:
                continue  # Its thread has not ended, and has nothing left to compute.
            goes_first = one.batches <= LARGE_BATCHES
            for speed, seconds in one.outstanding.items():
                everyone[speed] += seconds
                if goes_first:
                    small[speed] += seconds
        if ticket.batches <= LARGE_BATCHES:
            first = {speed: _before(small[speed], everyone[speed]) for speed in ticket.costs}
        else:
            first = {speed: everyone[speed] for speed in ticket.costs}
        mine = {speed: first[speed] + own for speed, own in ticket.outstanding.items()}
        return sum(first.values()) + meanwhile(mine, everyone)

    def _retry(self, seconds: float) -> float:
        return float(max(1, math.ceil(seconds)))


def _before(small: float, everyone: float) -> float:
    """Seconds before a small request: the small ones, and the share of the large ones."""
    return small if small == everyone else small / (1.0 - LARGE_SHARE)


def _told(seconds: float) -> str:
    return f"{seconds:,.1f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
