"""The routes: which path is answered by what."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any

from crossrank import extras
from crossrank.pipeline import MIX
from crossrank.scorers import share_of
from crossrank.server import metrics as counting
from crossrank.server import openapi, page
from crossrank.server.about import About
from crossrank.server.answering import Answering, Understand
from crossrank.server.guard import Door, Guard
from crossrank.server.limits import Gate
from crossrank.server.refusals import RefusedError
from crossrank.server.replies import encoded
from crossrank.server.service import Service
from crossrank.server.wire import dialects, openai

extras.require("starlette", extra="server")

from starlette.applications import Starlette  # noqa: E402
from starlette.exceptions import HTTPException  # noqa: E402
from starlette.middleware.cors import CORSMiddleware  # noqa: E402
from starlette.requests import Request  # noqa: E402
from starlette.responses import Response  # noqa: E402
from starlette.routing import Match, Route  # noqa: E402

if TYPE_CHECKING:
    from crossrank.server.traces import Traces

_LOG = logging.getLogger("crossrank.server")
# Bytes of a reply that are handed over at once.
_PART = 256 * 1024
Handler = Callable[[Request], Awaitable[Response]]
# What the products' own clients for JavaScript say of themselves in every request: nothing of it is read here, and a
# browser sends none of their requests unless it is allowed. First OpenAI's, then Cohere's and Voyage's.
_CLIENTS = (
    "openai-organization", "openai-project", "x-stainless-arch", "x-stainless-helper-method", "x-stainless-lang",
    "x-stainless-os", "x-stainless-package-version", "x-stainless-retry-count", "x-stainless-runtime",
    "x-stainless-runtime-version", "x-stainless-timeout", "x-client-name", "x-fern-language", "x-fern-runtime",
    "x-fern-runtime-version", "x-fern-sdk-name", "x-fern-sdk-version",
)  # fmt: skip
# Headers that web pages of the origins let in may send, and those that they may read.
_ALLOWED = ("authorization", "content-type", "traceparent", "tracestate", "x-api-key", "x-crossrank-deadline-ms",
            "x-request-id", *_CLIENTS)  # fmt: skip
_EXPOSED = ("retry-after", "server-timing", "x-crossrank-caution", "x-crossrank-score", "x-crossrank-truncated",
            "x-crossrank-unread", "x-request-id")  # fmt: skip


# Chrome asks before a page of the internet calls a server of this machine or network; the origins that are named may.
# Older versions of Starlette do not know that question.
_PRIVATE: dict[str, Any] = (
    {"allow_private_network": True} if "allow_private_network" in signature(CORSMiddleware).parameters else {}
)


@dataclass(frozen=True, slots=True)
class Built:
    """An application and its parts.

    Attributes:
        app: ASGI.
        gate: what is under way.
        leave: makes `/ready` say 503 while requests are still answered.
    """

    app: Any
    gate: Gate
    leave: Callable[[], None]


def build(
    service: Service,
    door: Door | None = None,
    traces: Traces | None = None,
    on_ready: Callable[[], None] = lambda: None,
) -> Built:
    """The ASGI application that serves `service`. Its startup event starts the service, its shutdown stops it.

    Args:
        service: what is served.
        door: who may come in; everyone when absent.
        traces: where a span of each request goes; nowhere when absent.
        on_ready: called once, when the models are warm.
    """
    door = door or Door()
    metrics, gate = counting.Metrics(), Gate(service.limits)
    metrics.watch(gate, service.scheduler, service.speeds)
    if service.index is not None:
        metrics.watch_index(lambda: service.searchable)
    service.scheduler.on_batch = metrics.computed
    answering, about = Answering(service, gate, metrics), About(service)
    state = {"leaving": False}

    def leave() -> None:
        state["leaving"] = True

    posts = _posts(answering)
    routes = [
        *posts,
        *_gets(service, about, metrics, lambda: service.ready and not state["leaving"], len(door.keys) > 0),
        *_page(share_of(service.reranker.scorer, None, MIX)),
    ]
    # A redirect would send clients to http, which a proxy in front may not even answer, and many clients do not follow
    # one with a body. So the guard reads slashes too many as what was meant, and only in what clients join from an
    # address of the user's: /metrics and the like keep one spelling, which a rule of a proxy may be about.
    star = Starlette(
        routes=routes,
        lifespan=_lifespan(service, answering, traces, on_ready),
        exception_handlers={HTTPException: _no_route},
    )
    star.router.redirect_slashes = False
    watch = None if traces is None else traces.answered
    models = {f"{path}/{name}" for path in dialects.MODELS for name in service.names}
    known = {route.path for route in routes} | models
    clients = {route.path for route in posts} | {*dialects.MODELS, *dialects.READY} | models
    guarded: Any = Guard(star, door, metrics, known, watch, clients)
    if door.origins:
        guarded = CORSMiddleware(
            guarded,
            allow_origins=list(door.origins),
            allow_methods=["GET", "POST"],
            allow_headers=_ALLOWED,
            expose_headers=_EXPOSED,
            **_PRIVATE,
        )
    return Built(guarded, gate, leave)


def _lifespan(
    service: Service, answering: Answering, traces: Traces | None, on_ready: Callable[[], None]
) -> Callable[[Any], Any]:
    def warmed(task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _LOG.error("the warm-up failed, so this server will not become ready: %s", error)
        elif service.ready:
            on_ready()

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        if traces is not None:
            traces.start()
        # In a thread, so that /health and /ready answer while the models warm up.
        warming = asyncio.create_task(asyncio.to_thread(service.start))
        warming.add_done_callback(warmed)
        yield
        await asyncio.wait({warming})
        await asyncio.to_thread(service.stop)
        answering.close()
        if traces is not None:
            await asyncio.to_thread(traces.stop)

    return lifespan


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    told = {404: "no such path; see /docs", 405: f"{request.method} is not a method of this path; see /docs"}
    kind = "MethodNotAllowedError" if error.status_code == 405 else "NotFoundError"
    refusal = RefusedError(told.get(error.status_code, error.detail), error.status_code, kind)
    return _refused(request, refusal, {"Allow": ", ".join(_methods(request))} if error.status_code == 405 else None)


def _methods(request: Request) -> list[str]:
    """Of the path, in all of its routes: Starlette names those of the first, and / is both page and TEI's."""
    routes = (route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE)
    return sorted({method for route in routes for method in route.methods or ()})


def _refused(request: Request, refusal: RefusedError, headers: dict[str, str] | None = None) -> Response:
    call = request.scope["crossrank.call"]
    call.facts["error"] = refusal.kind
    status, body = call.refuse(refusal, call.id)
    return _json(body, status, headers)


def _json(payload: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(encoded(payload), status, headers, "application/json")


class _Post:
    """A route that answers bodies. Not a function, because the room of a request is kept until its reply has gone."""

    def __init__(self, answering: Answering, understand: Understand) -> None:
        self._answering = answering
        self._understand = understand

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        with self._answering.gate.holding() as grow:
            reply = await self._answering.answer(scope["crossrank.call"], self._understand, grow)
            head = Response(None, reply.status, dict(reply.headers), "application/json")
            head.headers["content-length"] = str(len(reply.body))
            # Cancelled when the drain ends: this client does not read, and there is nothing left to tell it.
            with suppress(asyncio.CancelledError):
                await send({"type": "http.response.start", "status": head.status_code, "headers": head.raw_headers})
                # A part is sent when the client has taken the one before.
                for end in range(_PART, len(reply.body) + _PART, _PART):
                    part = {"body": reply.body[end - _PART : end], "more_body": end < len(reply.body)}
                    await send({"type": "http.response.body", **part})


def _posts(answering: Answering) -> list[Route]:
    made = {
        dialects.RERANK: answering.rerank,
        dialects.SCORE: answering.score,
        dialects.EMBED: answering.embed,
        dialects.TEI_EMBED: answering.embed_bare,
        ("/search",): answering.search,
    }
    return [
        Route(path, _Post(answering, understand), methods=["POST"])
        for paths, understand in made.items()
        for path in paths
    ]


def _gets(
    service: Service, about: About, metrics: counting.Metrics, ready: Callable[[], bool], keyed: bool
) -> list[Route]:
    created = int(time.time())
    description = openapi.document(service, keyed)

    async def health(request: Request) -> Response:
        return _json({"status": "ok"})

    async def is_ready(request: Request) -> Response:
        now = ready()
        return _json({"ready": now}, 200 if now else 503, {} if now else {"Retry-After": "1"})

    async def models(request: Request) -> Response:
        return _json(openai.models(service.names, created))

    async def model(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in service.names:
            refusal = RefusedError("no such model is served; GET /v1/models lists those that are", 404, "NotFoundError",
                                   "model")  # fmt: skip
            return _refused(request, refusal)
        return _json(openai.model(name, created))

    async def info(request: Request) -> Response:
        return _json(await about.told())

    async def numbers(request: Request) -> Response:
        return Response(metrics.text(), media_type=counting.CONTENT_TYPE)

    async def described(request: Request) -> Response:
        return _json(description)

    gets: dict[str, Handler] = {
        "/metrics": numbers, "/openapi.json": described,
        **dict.fromkeys(dialects.HEALTH, health), **dict.fromkeys(dialects.READY, is_ready),
        **dict.fromkeys(dialects.INFO, info),
        **dict.fromkeys(dialects.MODELS, models),
        # A name of the hub holds a slash.
        **dict.fromkeys((f"{path}/{{name:path}}" for path in dialects.MODELS), model),
    }  # fmt: skip
    return [Route(path, handler) for path, handler in gets.items()]


def _page(mix: float) -> list[Route]:
    def route(content: bytes, kind: str) -> Handler:
        async def handle(request: Request) -> Response:
            return Response(content, headers={"Cache-Control": "no-cache"}, media_type=kind)

        return handle

    return [Route(path, route(content, kind)) for path, (content, kind) in page.files(mix).items()]
