"""From a request's bytes to a reply's: read, understand, admit, compute in a thread, stop when nobody waits."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from crossrank.errors import CrossrankError, InputError
from crossrank.server import bodies, searching
from crossrank.server.limits import Gate, estimate
from crossrank.server.metrics import Metrics
from crossrank.server.refusals import CancelledRequestError, RefusedError, invalid, late, leaving
from crossrank.server.service import Service
from crossrank.server.tickets import Ticket
from crossrank.server.wire import dialects, openai, vllm
from crossrank.server.wire import search as search_wire
from crossrank.server.wire.shapes import Dialect, Outcome, Rerank, Timing, error_body
from crossrank.types import Truncation, order_of

DEADLINE = "x-crossrank-deadline-ms"
_LOG = logging.getLogger("crossrank.server")


@dataclass
class Call:
    """One HTTP request.

    Attributes:
        id: in the reply's headers, in the log, and in the reply where the dialect has a place for it.
        path: of the address.
        headers: names in lower case.
        receive: of ASGI.
        began: when the headers had arrived, on the clock of `time.perf_counter`.
        facts: what the access log and the metrics say of it; filled on the way.
    """

    id: str
    path: str
    headers: Sequence[tuple[bytes, bytes]]
    receive: bodies.Receive
    began: float
    facts: dict[str, Any] = field(default_factory=dict)

    def header(self, name: str) -> str | None:
        """A header's value."""
        found = next((value for key, value in self.headers if key == name.encode()), None)
        return None if found is None else found.decode("latin-1")


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Job:
    """A request that has been understood.

    Attributes:
        estimate: tokens it may need.
        documents: texts it brings.
        run: computes the reply's JSON and headers, in a thread.
    """

    estimate: int
    documents: int
    run: Callable[[Ticket], tuple[Any, dict[str, str]]]


Understand = Callable[[Call, Mapping[str, Any]], Job]


class Answering:
    """Answers requests with a service.

    Args:
        service: what computes.
        gate: what may come in.
        metrics: counts.
    """

    def __init__(self, service: Service, gate: Gate, metrics: Metrics) -> None:
        self.service = service
        self.gate = gate
        self.metrics = metrics
        # As many threads as requests may be under way: one that waits for the backend must not hold up another's
        # tokenizing. Threads are made when they are needed.
        self._threads = ThreadPoolExecutor(gate.limits.requests, "crossrank-request")
        self._reading = ThreadPoolExecutor(1, "crossrank-reading")
        self._created = int(time.time())

    def close(self) -> None:
        """End the threads, after their requests."""
        self._threads.shutdown()
        self._reading.shutdown()

    async def answer(self, call: Call, understand: Understand) -> Reply:
        """The reply to a request, errors included."""
        named = dialects.by_path(call.path)
        call.facts["refuse"] = error_body if named is None else named.refuse
        try:
            with self.gate.holding() as grow:
                return await self._answer(call, understand, grow)
        except RefusedError as refusal:
            return self._refused(call, refusal)
        except CancelledRequestError:
            # Nobody reads this; 499 is what nginx and Cohere call it.
            return self._refused(call, RefusedError("the client closed the connection", 499, "ClientClosedRequest"))
        except InputError as error:
            return self._refused(call, invalid(str(error)))
        except MemoryError:
            return self._refused(call, RefusedError("out of memory; send fewer documents", 503, "UnavailableError"))
        except (CrossrankError, Exception) as error:
            # A traceback may quote texts, so the log gets places and the kind of error, not its message.
            _LOG.error("request %s failed: %s at %s", call.id, type(error).__name__, _places(error))
            told = str(error) if isinstance(error, CrossrankError) else "the server failed; its log says where"
            return self._refused(call, RefusedError(told, 500, "InternalServerError"))

    async def _answer(self, call: Call, understand: Understand, grow: Callable[[int], None]) -> Reply:
        if not self.service.ready:
            raise leaving("the server is not ready yet; ask again in a moment")
        seconds = self._seconds(call)
        body = await bodies.read(call.receive, call.headers, self.gate.limits, grow)
        loop = asyncio.get_running_loop()
        if len(body) > bodies.LARGE:
            job = await loop.run_in_executor(self._reading, lambda: understand(call, bodies.parse(body)))
        else:
            job = understand(call, bodies.parse(body))
        call.facts["documents"] = job.documents
        # The deadline counts from the headers, so a slow body is on the client's own account.
        left = seconds - (time.perf_counter() - call.began)
        if left <= 0:
            raise late(f"the body took longer to arrive than the {seconds:.3g} s until the deadline")
        with self.gate.admitted(job.estimate, left) as ticket:
            reply = await self._computed(call, job, ticket)
        self.metrics.scored(job.documents)
        return reply

    async def _computed(self, call: Call, job: Job, ticket: Ticket) -> Reply:
        """Run the job in a thread, and stop it when the client leaves."""
        work = asyncio.get_running_loop().run_in_executor(self._threads, self._run, call, job, ticket)
        gone = asyncio.ensure_future(_disconnected(call.receive))
        either: set[asyncio.Future[Any]] = {work, gone}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self.service.scheduler.cancel(ticket)
            return await work
        finally:
            gone.cancel()
            if not work.done():
                # This task was cancelled: the server's patience with its drain has ended.
                self.service.scheduler.cancel(ticket)

    def _run(self, call: Call, job: Job, ticket: Ticket) -> Reply:
        ticket.check()
        payload, headers = job.run(ticket)
        ticket.check()
        timing = timing_of(call, ticket)
        call.facts |= {"timing": timing, "tokens": ticket.tokens}
        headers["Server-Timing"] = ", ".join(
            f"{name};dur={1000 * getattr(timing, name):.1f}" for name in ("tokenize", "queue", "compute", "total")
        )
        return Reply(200, encoded(payload), headers)

    def _seconds(self, call: Call) -> float:
        """The deadline that a request names, or the server's own."""
        limits, stated = self.gate.limits, call.header(DEADLINE)
        if stated is None:
            return limits.seconds
        if not stated.strip().isdigit() or not 1 <= int(stated[:12]) <= 1000 * limits.most_seconds:
            raise invalid(f"X-Crossrank-Deadline-Ms must be from 1 to {1000 * limits.most_seconds:.0f} milliseconds")
        return int(stated) / 1000

    def _refused(self, call: Call, refusal: RefusedError) -> Reply:
        self.metrics.refused(refusal.kind)
        call.facts["error"] = refusal.kind
        status, body = call.facts["refuse"](refusal, call.id)
        headers = {} if refusal.retry_after is None else {"Retry-After": f"{refusal.retry_after:.0f}"}
        if refusal.status in (408, 413):
            # What is left of the body is not read, so the connection cannot be used again.
            headers["Connection"] = "close"
        return Reply(status, encoded(body), headers)

    # What each route understands ---------------------------------------------------------------------------------

    def rerank(self, call: Call, body: Mapping[str, Any]) -> Job:
        """A body of one of the rerank dialects."""
        return self.scoring(call, body, dialects.of(call.path, body))

    def score(self, call: Call, body: Mapping[str, Any]) -> Job:
        """A body of vLLM's score."""
        return self.scoring(call, body, vllm.SCORE)

    def scoring(self, call: Call, body: Mapping[str, Any], dialect: Dialect) -> Job:
        """A body of a dialect that scores."""
        call.facts |= {"dialect": dialect.name, "refuse": dialect.refuse}
        request = dialect.read(body)
        documents = [document for _, document in request.pairs]
        longest = max((query for query, _ in request.pairs), key=len, default="")
        self.gate.limits.check_documents(len(documents), "documents")
        self.gate.limits.check_words("" if not request.sorted else longest, documents)

        def run(ticket: Ticket) -> tuple[Any, dict[str, str]]:
            outcome, headers = self._outcome(call, request, ticket)
            return dialect.reply(request, outcome), headers | dialect.headers(outcome)

        return Job(estimate(longest, documents), len(documents), run)

    def _outcome(self, call: Call, request: Rerank, ticket: Ticket) -> tuple[Outcome, dict[str, str]]:
        service = self.service
        scored = service.score(request.pairs, ticket, request.caps)
        lost = [cut for cut in scored.truncations if cut.lost]
        if request.whole and lost:
            raise invalid(f"{_told(lost[0])}; allow truncation, or send shorter texts")
        values = scored.scores if request.raw else service.probability(scored.scores)
        order = order_of(scored.scores)[: request.k] if request.sorted else np.arange(len(values))
        outcome = Outcome(
            id=call.id,
            model=service.model,
            created=int(time.time()),
            positions=tuple(order.tolist()),
            scores=tuple(value if np.isfinite(value) else None for value in values[order].tolist()),
            tokens=scored.tokens,
            characters=sum(len(query) + len(document) for query, document in request.pairs),
            warnings=tuple(_told(cut) for cut in lost[:20]),
            timing=timing_of(call, ticket),
        )
        headers = {"X-Crossrank-Score": "logit" if request.raw else service.score_kind}
        if lost:
            headers["X-Crossrank-Truncated"] = str(len(lost))
        return outcome, headers

    def embed(self, call: Call, body: Mapping[str, Any]) -> Job:
        """A body of OpenAI's embeddings."""
        call.facts["dialect"] = "openai"
        request, service = openai.read(body), self.service
        if service.embedder is None:
            raise RefusedError("this server has no embedding model", 404, "NotFoundError", "model")
        openai.check_width(request, service.embedder.width)
        self.gate.limits.check_documents(len(request.texts), "input")
        self.gate.limits.check_words("", request.texts)

        def run(ticket: Ticket) -> tuple[Any, dict[str, str]]:
            vectors = service.embed(request.texts, ticket)
            return openai.reply(request, vectors, service.embedding_model or "", ticket.tokens), {}

        return Job(estimate("", request.texts), len(request.texts), run)

    def search(self, call: Call, body: Mapping[str, Any]) -> Job:
        """A body of crossrank's own search."""
        call.facts["dialect"] = "search"
        asked, service = search_wire.read(body), self.service
        self.gate.limits.check_documents(len(asked.documents), "documents")
        self.gate.limits.check_words(asked.query, asked.documents)

        def run(ticket: Ticket) -> tuple[Any, dict[str, str]]:
            found = searching.search(service, asked, ticket)
            warnings = [_told(cut) for cut in searching.truncations(found) if cut.lost]
            made = search_wire.reply(asked, found, service, call.id, timing_of(call, ticket), warnings)
            return made, {"X-Crossrank-Score": service.score_kind}

        # An index's passages have about 200 tokens at most; the query is read with each.
        texts = asked.documents or ("x" * 600,) * (asked.depth if asked.mix else 1)
        return Job(estimate(asked.query, texts), len(asked.documents) or asked.depth, run)


def timing_of(call: Call, ticket: Ticket) -> Timing:
    """What a request has cost until now."""
    return Timing(ticket.tokenizing, ticket.queued, ticket.compute, time.perf_counter() - call.began)


def encoded(payload: Any) -> bytes:
    """JSON in UTF-8; escaped where a text holds half of a surrogate pair, which UTF-8 cannot hold.

    >>> encoded({"text": chr(0xD800)})
    b'{"text":"\\\\ud800"}'
    """
    try:
        return json.dumps(payload, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(payload, allow_nan=False, separators=(",", ":")).encode()


async def _disconnected(receive: bodies.Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _told(cut: Truncation) -> str:
    name = "the query" if cut.position < 0 else f"document {cut.position}"
    return f"{name} was not read whole: {cut.read:,} of {'' if cut.exact else 'more than '}{cut.tokens:,} tokens"


def _places(error: BaseException) -> str:
    """Where an error came from, without any of its text."""
    places, frame = [], error.__traceback__
    while frame is not None:
        code = frame.tb_frame.f_code
        places.append(f"{code.co_filename.rsplit('/', 1)[-1]}:{frame.tb_lineno}")
        frame = frame.tb_next
    return " > ".join(places[-8:])
