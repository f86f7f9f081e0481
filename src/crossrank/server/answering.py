"""From a request's bytes to a reply's: read, understand, admit, compute in a thread, stop when nobody waits."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from crossrank.errors import IndexFileError, InputError, RemoteError
from crossrank.falling import finite
from crossrank.server import bodies, searches, searching, telling
from crossrank.server.daemons import Daemons
from crossrank.server.limits import Gate, Reach, estimate
from crossrank.server.lines import origin_of, said
from crossrank.server.metrics import Metrics
from crossrank.server.refusals import CancelledRequestError, RefusedError, invalid, late, leaving, overloaded
from crossrank.server.replies import encoded
from crossrank.server.rerankers import Reranker
from crossrank.server.service import Service
from crossrank.server.speeds import Speed
from crossrank.server.tickets import Ticket
from crossrank.server.wire import dialects, fields, openai, teiembed, vllm
from crossrank.server.wire import search as search_wire
from crossrank.server.wire.embeddings import Embedded, Embedding
from crossrank.server.wire.shapes import Dialect, Outcome, Rerank, Timing
from crossrank.types import Truncation, order_of

DEADLINE = "x-crossrank-deadline-ms"
_LOG = logging.getLogger("crossrank.server")
# Python would also take "²", "1_000" and 5,000 digits.
_MILLISECONDS = re.compile("[0-9]{1,12}")
_UNREADABLE = "the index cannot be read, or is of another embedder now; ask again later, and see the server's log"
# Seconds over a deadline in which a thread says itself that it is late; a little more than it waits for the backend.
_GRACE = 0.6


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
        refuse: an error to status and body; by the path, until its body says which dialect it is of.
    """

    id: str
    path: str
    headers: Sequence[tuple[bytes, bytes]]
    receive: bodies.Receive
    began: float
    facts: dict[str, Any] = field(default_factory=dict)
    refuse: Callable[[RefusedError, str], tuple[int, Any]] = field(init=False)

    def __post_init__(self) -> None:
        self.refuse = dialects.refuse_of(self.path)

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
        costs: tokens that each model may read for it.
        documents: texts it brings; `run` says how many were read when that is another number.
        run: computes the reply's JSON and headers, in a thread.
    """

    costs: Mapping[Speed, int]
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
        # A thread for each request under way: one that waits for the backend must not hold up another's tokenizing.
        self._threads = Daemons("crossrank-request")
        self._reading = ThreadPoolExecutor(1, "crossrank-reading")

    def close(self) -> None:
        """Read no more bodies. Threads of requests end with them, and keep no process from its end."""
        self._reading.shutdown(wait=False, cancel_futures=True)

    async def answer(self, call: Call, understand: Understand, grow: Callable[[int], None]) -> Reply:
        """The reply to a request, errors included; `grow` is asked for room for body and reply, see `Gate.holding`."""
        try:
            return await self._answer(call, understand, grow)
        except RefusedError as refusal:
            return self._refused(call, refusal)
        except CancelledRequestError:
            # Nobody reads this; 499 is what nginx and Cohere call it.
            return self._refused(call, RefusedError("the client closed the connection", 499, "ClientClosedRequest"))
        except InputError as error:
            return self._refused(call, invalid(str(error)))
        except asyncio.CancelledError:
            # The server's patience with its drain has ended.
            return self._refused(call, leaving())
        except RemoteError as error:
            return self._refused(call, _unembedded(call, error))
        except IndexFileError as error:
            self.service.searchable = False
            # Its message names the folder, and may hold what was asked.
            _LOG.error("request %s failed: %s", call.id, said(error))
            return self._refused(call, leaving(_UNREADABLE))
        except MemoryError:
            return self._refused(call, RefusedError("out of memory; send fewer documents", 503, "UnavailableError"))
        except Exception as error:
            # Messages name folders, which are none of a stranger's business.
            _LOG.error("request %s failed: %s at %s", call.id, said(error), origin_of(error))
            return self._refused(
                call, RefusedError("the server failed; its log says where", 500, "InternalServerError")
            )

    async def _answer(self, call: Call, understand: Understand, grow: Callable[[int], None]) -> Reply:
        if not self.service.ready:
            raise leaving("the server is not ready yet; ask again in a moment")
        limits, seconds = self.gate.limits, self._seconds(call)
        left = seconds - (time.perf_counter() - call.began)
        body = await bodies.read(call.receive, call.headers, limits, grow, left)
        loop = asyncio.get_running_loop()
        if len(body) > bodies.LARGE:
            job = await loop.run_in_executor(self._reading, lambda: understand(call, bodies.parse(body, limits.values)))
        else:
            job = understand(call, bodies.parse(body, limits.values))
        call.facts["documents"] = job.documents
        # The deadline counts from the headers, so a slow body is on the client's own account.
        left = seconds - (time.perf_counter() - call.began)
        if left <= 0:
            raise late(f"the body took longer to arrive than the {seconds:.3g} s until the deadline")
        with ExitStack() as admission:
            ticket = admission.enter_context(self.gate.admitted(job.costs, left))
            reply = await self._computed(call, job, ticket, grow, admission)
        for model, documents in call.facts.get("read", {call.facts["model"]: call.facts["documents"]}).items():
            self.metrics.scored(documents, model)
        return reply

    async def _computed(
        self, call: Call, job: Job, ticket: Ticket, grow: Callable[[int], None], admission: ExitStack
    ) -> Reply:
        """Run the job in a thread, and stop it when the client leaves or the deadline has passed."""
        try:
            work = asyncio.get_running_loop().run_in_executor(self._threads, self._run, call, job, ticket, grow)
        except RuntimeError:  # "can't start new thread": a limit of the user or of the container.
            raise overloaded("the system gives this process no more threads", 1.0) from None
        gone = asyncio.ensure_future(_disconnected(call.receive))
        either: set[asyncio.Future[Any]] = {work, gone}
        try:
            await asyncio.wait(either, timeout=max(0.0, ticket.left()) + _GRACE, return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and not gone.done():
                # It waits for what looks at no ticket, such as an embedder behind an address.
                raise ticket.overdue()
            if not work.done():
                self.service.scheduler.cancel(ticket)
                await asyncio.wait({work})
            return work.result()
        finally:
            gone.cancel()
            if not work.done():
                # It is late, or this task was cancelled. The thread goes on for a while, and its request counts as long
                # as that, so that threads are never more than requests. Nobody waits for what this one says.
                self.service.scheduler.cancel(ticket)
                held = admission.pop_all()

                def ended(done: asyncio.Future[Reply]) -> None:
                    held.close()
                    if not done.cancelled():
                        done.exception()

                work.add_done_callback(ended)

    def _run(self, call: Call, job: Job, ticket: Ticket, grow: Callable[[int], None]) -> Reply:
        ticket.check()
        payload, headers = job.run(ticket)
        ticket.check()
        timing = timing_of(call, ticket)
        call.facts |= {"timing": timing, "tokens": ticket.tokens}
        headers["Server-Timing"] = ", ".join(
            f"{name};dur={1000 * getattr(timing, name):.1f}" for name in ("tokenize", "queue", "compute", "total")
        )
        body = encoded(payload)
        grow(len(body))
        return Reply(200, body, headers)

    def _seconds(self, call: Call) -> float:
        """The deadline that a request names, or the server's own."""
        limits, stated = self.gate.limits, call.header(DEADLINE)
        if stated is None:
            return limits.seconds
        if not _MILLISECONDS.fullmatch(stated.strip()) or not 1 <= int(stated) <= 1000 * limits.most_seconds:
            raise invalid(f"X-Crossrank-Deadline-Ms must be from 1 to {1000 * limits.most_seconds:.0f} milliseconds")
        return int(stated) / 1000

    def _refused(self, call: Call, refusal: RefusedError) -> Reply:
        self.metrics.refused(refusal.kind)
        call.facts["error"] = refusal.kind
        status, body = call.refuse(refusal, call.id)
        headers = {} if refusal.retry_after is None else {"Retry-After": f"{refusal.retry_after:.0f}"}
        if refusal.status in (408, 413, 415):
            # What is left of the body is not read, so the connection cannot be used again.
            headers["Connection"] = "close"
        return Reply(status, encoded(body), headers)

    # What each route understands ---------------------------------------------------------------------------------

    def rerank(self, call: Call, body: Mapping[str, Any]) -> Job:
        """A body of one of the rerank dialects; at some of their paths TEI's clients ask for vectors, too."""
        if dialects.embeds(call.path, body):
            return self.embed_bare(call, body)
        return self.scoring(call, body, dialects.of(call.path, body))

    def score(self, call: Call, body: Mapping[str, Any]) -> Job:
        """A body of vLLM's score."""
        return self.scoring(call, body, vllm.SCORE)

    def scoring(self, call: Call, body: Mapping[str, Any], dialect: Dialect) -> Job:
        """A body of a dialect that scores."""
        call.facts["dialect"], call.refuse = dialect.name, dialect.refuse
        reranker = self.service.asked(body.get("model"))
        call.facts["model"] = reranker.name
        request = dialect.read(body)
        if request.id and call.header("x-request-id") is None:
            call.id = request.id
        unread = (*fields.unread(body, dialect.fields), *request.unread)
        warnings = (telling.unread(unread, dialect.fields),) if unread else ()
        reach = reranker.reach(request.caps)
        self.gate.limits.check_documents(len(request.pairs), "documents")
        self.gate.limits.check_words(request.pairs, reach)

        def run(ticket: Ticket) -> tuple[Any, dict[str, str]]:
            outcome, headers = _outcome(call, reranker, request, ticket, warnings)
            return dialect.reply(request, outcome), headers | dialect.headers(outcome) | telling.ignored(unread)

        return Job({reranker.speed: estimate(request.pairs, reach)}, len(request.pairs), run)

    def embed(self, call: Call, body: Mapping[str, Any]) -> Job:
        """A body of OpenAI's embeddings."""
        return self.embedding(call, body, openai.OPENAI)

    def embed_bare(self, call: Call, body: Mapping[str, Any]) -> Job:
        """A body of text-embeddings-inference's embeddings."""
        return self.embedding(call, body, teiembed.TEI)

    def embedding(self, call: Call, body: Mapping[str, Any], dialect: Embedding) -> Job:
        """A body of a dialect that asks for vectors."""
        # Errors are told as the path wants them: OpenAI's embeddings are also at infinity's and others' paths.
        call.facts["dialect"] = dialect.name
        request, service = dialect.read(body), self.service
        if service.embedder is None:
            raise RefusedError("this server has no embedding model", 404, "NotFoundError", "model")
        call.facts["model"] = service.embedding_model or ""
        request.check_width(service.embedder.width)
        pairs, reach = [("", text) for text in request.texts], Reach(0, service.embedder.max_length)
        self.gate.limits.check_documents(len(pairs), dialect.field)
        self.gate.limits.check_words(pairs, reach)
        size = request.size(service.embedder.width)
        self.gate.limits.check_reply(size, request.smaller, dialect.field)
        unread = (*fields.unread(body, dialect.fields), *request.unread)

        def run(ticket: Ticket) -> tuple[Any, dict[str, str]]:
            made = service.embed(request.texts, ticket, queries=request.queries)
            _check_whole(request.whole, made.truncations)
            outcome = Embedded(service.embedding_model or "", made.vectors, ticket.tokens, timing_of(call, ticket))
            headers = telling.truncated(len(made.truncations)) | telling.ignored(unread)
            return dialect.reply(request, outcome), headers | dialect.headers(request, outcome)

        return Job({service.embedding_speed: estimate(pairs, reach)}, len(pairs), run)

    def search(self, call: Call, body: Mapping[str, Any]) -> Job:
        """A body of crossrank's own search."""
        call.facts["dialect"] = "search"
        asked, service = search_wire.read(body), self.service
        reranker = service.named(body.get("model"))
        call.facts["model"] = reranker.name
        if (coarse := service.before(reranker, body.get("coarse"))) is not None:
            asked, call.facts["coarse"] = replace(asked, coarse=coarse), coarse.name
        self.gate.limits.check_documents(len(documents := asked.documents or ()), "documents")
        for pairs, reach in searches.texts_read(service, reranker, asked):
            self.gate.limits.check_words(pairs, reach)

        def run(ticket: Ticket) -> tuple[Any, dict[str, str]]:
            found = searching.search(service, reranker, asked, ticket)
            call.facts["read"] = searching.counted(reranker, asked, found)
            call.facts["documents"] = max(call.facts["read"].values())
            lost = searching.lost(found)
            warnings = [telling.cut(cut, telling.text_of(step, id_)) for step, id_, cut in lost[: telling.MOST]]
            made = search_wire.reply(asked, found, reranker, call.id, timing_of(call, ticket), warnings)
            # Two models may have cut the same text.
            last = found.readers.get(found.last)
            kind = {"X-Crossrank-Score": last.score_kind} if last is not None and found.ranking.head else {}
            return made, kind | telling.truncated(len({id_ for _, id_, _ in lost}))

        return Job(searches.foreseen(service, reranker, asked), len(documents), run)


def _outcome(
    call: Call, reranker: Reranker, request: Rerank, ticket: Ticket, warnings: tuple[str, ...]
) -> tuple[Outcome, dict[str, str]]:
    scored = reranker.score(request.pairs, ticket, request.caps)
    lost = [cut for cut in scored.truncations if cut.lost]
    _check_whole(request.whole, lost)
    values = finite((scored.scores if request.raw else reranker.probability(scored.scores)).tolist())
    order = order_of(scored.scores)[: request.k] if request.sorted else np.arange(len(values))
    cautions = reranker.cautions(request.pairs)
    outcome = Outcome(
        id=call.id,
        model=reranker.name,
        created=int(time.time()),
        positions=tuple(order.tolist()),
        scores=tuple(values[position] for position in order),
        tokens=scored.tokens,
        characters=sum(len(query) + len(document) for query, document in request.pairs),
        warnings=(*warnings, *cautions, *(telling.cut(cut) for cut in lost[: telling.MOST])),
        timing=timing_of(call, ticket),
    )
    kind = {"X-Crossrank-Score": "logit" if request.raw else reranker.score_kind}
    return outcome, kind | telling.truncated(len(lost)) | telling.cautioned(cautions)


def _check_whole(asked: str, lost: Sequence[Truncation]) -> None:
    """Refuse a request that asks, in this field, to be refused when something of a text is not read."""
    if asked and lost:
        raise invalid(f"{telling.cut(lost[0])}; leave out {asked}, or send shorter texts", asked)


def timing_of(call: Call, ticket: Ticket) -> Timing:
    """What a request has cost until now."""
    return Timing(ticket.tokenizing, ticket.queued, ticket.compute, time.perf_counter() - call.began)


def _unembedded(call: Call, error: RemoteError) -> RefusedError:
    """Why a query has no vector. What the address itself says is not logged: it may quote the query."""
    if error.status == 200:
        # Another model answers there now, or none: to ask again would not help.
        _LOG.error("request %s failed: %s", call.id, said(error))
        told = "the vectors of the index's embedder do not fit the index, or cannot be read; see the server's log"
        return RefusedError(told, 503, "UnavailableError")
    _LOG.error("request %s failed: the index's embedder gave status %d (0: none)", call.id, error.status)
    return leaving("the index's embedder does not answer; ask again in a moment")


async def _disconnected(receive: bodies.Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
