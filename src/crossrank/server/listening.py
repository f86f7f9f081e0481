"""The HTTP server: uvicorn with bounds on slow clients, and a drain on SIGTERM that loses no request."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from crossrank import extras
from crossrank.server.descriptors import fitting
from crossrank.server.limits import Limits
from crossrank.server.places import bound, told

extras.require("uvicorn", extra="server")

import uvicorn  # noqa: E402
from uvicorn.protocols.http.h11_impl import H11Protocol  # noqa: E402

_LOG = logging.getLogger("crossrank.server")
_HEAD_BYTES = 32 * 1024
_BACKLOG = 2048
# Connections that asyncio takes in one turn of its loop, before the first of them is looked at. Where descriptors ran
# out it would write as many tracebacks.
_AT_ONCE = 32
# Seconds that requests under way have for the rest of their bodies when a drain begins. Who has not sent it by then
# would hold up the end for all, and is told to ask another replica.
_DRAIN_BODY_SECONDS = 3.0
# Seconds after which a connection without a request may be closed for another. Who connects says what for at once.
_SILENT_SECONDS = 1.0
# Where a request's scope has the task that answers it.
_TASK = "crossrank.task"


class _Bounded(H11Protocol):
    """uvicorn's protocol, which closes a connection whose headers do not come within `head_seconds`, and drops one
    whose reply is not taken within `reply_seconds`. When more than `most` are open, those are closed that have been
    without a request for longest: whoever says nothing keeps nobody out. Not before `_SILENT_SECONDS`: asyncio takes
    many connections before it reads from the first of them, and what that one has sent already would be lost. Only
    where even `2 * _AT_ONCE` more are open are they closed before, lest the descriptors run out.

    uvicorn itself waits for ever for the headers of a connection's first request, and of a later one once its first
    byte is there, and for a client that does not read: a few thousand such connections would fill the server, and
    their replies its memory.
    """

    head_seconds = 10.0
    reply_seconds = 30.0
    drain_body_seconds = _DRAIN_BODY_SECONDS
    most = 2048
    # Of one server: its connections with a request, or with a reply that is not taken yet.
    busy: set[_Bounded]
    # And those that were read from and have no request, the one that has been so for longest first, and since when.
    silent: dict[_Bounded, float]
    _settling: asyncio.Handle | None = None
    _impatient: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _leaving: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The clock of the first request starts."""
        super().connection_made(transport)  # type: ignore[arg-type]
        # Writing is paused as long as anything waits for the client.
        self.transport.set_write_buffer_limits(high=0)
        self._wait_for_head()
        self._fall_silent()
        self._make_room()

    def data_received(self, data: bytes) -> None:
        """A complete head stops the clock; the first byte of a later request starts it again."""
        super().data_received(data)
        if not self._idle():
            self._speak()
            self.busy.add(self)
            self._stop_waiting()
        elif self._impatient is None and self.timeout_keep_alive_task is None:
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """No clock outlives its connection."""
        self._speak()
        self.busy.discard(self)
        self._stop_waiting()
        self._stop_unread()
        if self._leaving is not None:
            self._leaving.cancel()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """A drain begins: the clock of a body that is under way starts."""
        super().shutdown()
        if self._half_sent():
            self._leaving = self.loop.call_later(self.drain_body_seconds, self._give_up)

    def pause_writing(self) -> None:
        """A part of a reply has to wait for the client: the clock of this reply starts."""
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self.reply_seconds, self._drop)

    def resume_writing(self) -> None:
        """The client has taken what waited; the clock goes on until it has everything."""
        super().resume_writing()
        if self._idle():
            self._stop_unread()
            self._rest()

    def on_response_complete(self) -> None:
        """No clock for a reply that has gone."""
        if not self.flow.write_paused:
            self._stop_unread()
        super().on_response_complete()
        # Unless the next request was there already.
        if self._idle() and not self.flow.write_paused:
            self._rest()

    def _unsupported_upgrade_warning(self) -> None:
        # uvicorn advises to install a WebSocket library; here the request is answered as if it had not asked for one.
        pass

    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _rest(self) -> None:
        self.busy.discard(self)
        if not self.transport.is_closing():
            self._fall_silent()

    def _fall_silent(self, turns: int = 2) -> None:
        # The loop reads from this connection in its next turn, after what was asked for before that: so what it had
        # sent by now has been read in the turn after the next.
        if turns:
            self._speak()
            self._settling = self.loop.call_soon(self._fall_silent, turns - 1)
        else:
            self._settling = None
            self.silent[self] = self.loop.time()

    def _speak(self) -> None:
        self.silent.pop(self, None)
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None

    def _make_room(self) -> None:
        latest = self.loop.time() - _SILENT_SECONDS
        while (over := len(self.connections) - self.most) > 0 and self.silent:
            longest, since = next(iter(self.silent.items()))
            if since > latest and over <= 2 * _AT_ONCE:
                return
            del self.silent[longest]
            longest.transport.close()
            # It has nothing left to send, so its descriptor is free in a moment, and it need not be counted.
            self.connections.discard(longest)

    def _half_sent(self) -> bool:
        return not self._idle() and self.cycle.more_body and not self.cycle.response_started

    def _give_up(self) -> None:
        if self._half_sent():
            scope: Any = self.cycle.scope
            # As at the end of the drain: it is answered with 503.
            scope[_TASK].cancel()

    def _wait_for_head(self) -> None:
        self._impatient = self.loop.call_later(self.head_seconds, self._expire)

    def _stop_waiting(self) -> None:
        if self._impatient is not None:
            self._impatient.cancel()
            self._impatient = None

    def _stop_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _drop(self) -> None:
        self._unread = None
        if self.flow.write_paused:
            # Closing would wait for the client to read.
            self.transport.abort()

    def _expire(self) -> None:
        self._impatient = None
        if self._idle() and not self.transport.is_closing():
            self.transport.close()


class _Server(uvicorn.Server):
    """On SIGTERM: say so, go on for `linger` seconds while load balancers notice, then drain and return."""

    def __init__(self, config: uvicorn.Config, linger: float, on_leaving: Callable[[], None]) -> None:
        super().__init__(config)
        self._linger = linger
        self._on_leaving = on_leaving
        self._exit_at: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, whose `backlog` is both what waits in the kernel and what is taken at once."""
        await super().startup(sockets)
        for one in sockets or ():
            one.listen(_BACKLOG)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but a signal that was obeyed is not raised again: a drained server leaves with code 0."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        kept = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in kept.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal begins the drain; a second one ends it at once."""
        if self._exit_at is not None:
            self.force_exit = self.should_exit = True
            return
        self._exit_at = time.monotonic() + self._linger
        self._on_leaving()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's; a forced end cancels what is under way, as the end of the drain does, and not the application:
        that would leave a traceback in the log, and the spans of the last requests unsent.
        """
        await super().shutdown(sockets)
        if self.force_exit:
            for task in self.server_state.tasks:
                task.cancel()
            await self.lifespan.shutdown()

    async def on_tick(self, counter: int) -> bool:
        """As uvicorn's; ten times a second."""
        if self._exit_at is not None and time.monotonic() >= self._exit_at:
            self.should_exit = True
        return await super().on_tick(counter)


class Listener:
    """A bound socket and the server behind it.

    Args:
        app: ASGI.
        host: address or name.
        port: 0 takes a free one.
        limits: of connections and of time.
        linger: seconds to go on after SIGTERM, while `/ready` says 503.
        on_leaving: called when SIGTERM or SIGINT comes.
        place: what `places.bound` gave for this host and port, where somebody wanted to know early that they are free.

    Raises:
        InputError: the address cannot be bound.
    """

    def __init__(
        self,
        app: Any,
        host: str,
        port: int,
        limits: Limits,
        linger: float = 0.0,
        on_leaving: Callable[[], None] = lambda: None,
        place: socket.socket | None = None,
    ) -> None:
        self._socket = bound(host, port) if place is None else place
        with told(self._socket, host, port):
            # For who wants the place when this server has ended, see `places.bound`: connections that are closed, and
            # that the kernel remembers for a minute, have this from here.
            if os.name == "posix":
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.listen(_BACKLOG)
        self.most = fitting(limits.connections)
        busy: set[_Bounded] = set()
        own = {
            "head_seconds": limits.head_seconds,
            "reply_seconds": limits.reply_seconds,
            "drain_body_seconds": min(_DRAIN_BODY_SECONDS, limits.body_seconds),
            "most": self.most,
            "busy": busy,
            "silent": {},
        }
        config = uvicorn.Config(
            # Not uvicorn's `limit_concurrency`: it counts who says nothing too, and does not say when to ask again.
            _answered(app, lambda: len(busy) > self.most),
            http=type("Bounded", (_Bounded,), own),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=math.ceil(limits.drain_seconds),
            h11_max_incomplete_event_size=_HEAD_BYTES,
            backlog=_AT_ONCE,
        )
        self._server = _Server(config, linger, on_leaving)
        self.host = host
        self.port: int = self._socket.getsockname()[1]

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, or until `stop`."""
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._socket.close()

    def stop(self) -> None:
        """Drain and end, from any thread."""
        self._server.handle_exit(0, None)


def _answered(app: Any, full: Callable[[], bool]) -> Any:
    """The application, with 503 for requests while it is full, and for those that are cancelled before their reply."""

    async def run(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        if full():
            _LOG.warning("a request got 503: all connections have requests under way")
            await _refuse(send)
            return
        scope[_TASK] = asyncio.current_task()
        started = False

        async def watched(message: Any) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await app(scope, receive, watched)
        except asyncio.CancelledError:
            # Whoever reads bodies has answered in the words of its dialect; the others are told here.
            if started:
                raise
            await _refuse(send)

    return run


async def _refuse(send: Any) -> None:
    body = b"the server cannot answer this now; ask again in a moment, or another replica\n"
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body)),
               (b"retry-after", b"1"), (b"connection", b"close")]  # fmt: skip
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})
