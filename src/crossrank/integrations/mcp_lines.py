"""Lines of the Model Context Protocol over stdin and stdout, around the streams of the official SDK.

The SDK drops a line that it cannot read, for whose answer an agent would wait, and what is under way when stdin ends.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import Any

from crossrank.extras import require
from crossrank.unicode import valid_text

require("mcp", extra="mcp")

from mcp.shared.message import SessionMessage  # noqa: E402
from mcp.types import (  # noqa: E402
    ErrorData,
    JSONRPCError,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError  # noqa: E402

_NO_JSON, _NO_REQUEST = -32700, -32600
_ABOUT = 'a request is {"jsonrpc": "2.0", "id": ..., "method": ..., "params": {...}}, id a text or a whole number'
_NOTHING: tuple[Any, ...] = ()


class _Around:
    """A stream of the SDK's, closed as it is."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def aclose(self) -> None:
        """As the SDK's."""
        await self._stream.aclose()

    async def __aenter__(self) -> Any:  # itself; typing.Self is of Python 3.11
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class Requests(_Around):
    """The SDK's stream of requests, which ends only when each is answered, what is none among them."""

    def __init__(self, stream: Any, write: Any) -> None:
        super().__init__(stream)
        self._write = write
        self._read: deque[SessionMessage] = deque()
        self._waiting: set[str | int] = set()
        self._changed = asyncio.Event()

    def __aiter__(self) -> Requests:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        while True:
            message = self._read.popleft() if self._read else await self._next()
            if isinstance(message, ValidationError):
                await self._read_again(message)
            elif isinstance(message, SessionMessage) and _has_no_id(message.message):
                await self._refuse(None, _NO_REQUEST, _ABOUT)
            else:
                break
        if isinstance(message, SessionMessage):
            said = message.message
            if isinstance(said, JSONRPCRequest):
                self._waiting.add(said.id)
            elif isinstance(said, JSONRPCNotification) and said.method == "notifications/cancelled":
                # Such a request gets no answer.
                self.answered((said.params or {}).get("requestId"))
        return message

    async def _next(self) -> SessionMessage | Exception:
        try:
            message: SessionMessage | Exception = await self._stream.__anext__()
        except StopAsyncIteration:
            while self._waiting:
                self._changed.clear()
                await self._changed.wait()
            raise
        return message

    async def _read_again(self, error: ValidationError) -> None:
        """Read what the SDK could not, or answer that nobody can: it drops such lines, and the agent would wait."""
        try:
            given = _given(error)
        except (ValueError, RecursionError):
            await self._refuse(None, _NO_JSON, "this line is no JSON")
            return
        # A batch, as the protocol of 2025-03-26 has it, is its messages.
        for one in given if given is _NOTHING or (isinstance(given, list) and given) else [given]:
            try:
                self._read.append(SessionMessage(jsonrpc_message_adapter.validate_python(one, by_name=False)))
            except ValidationError:
                id_ = one.get("id") if isinstance(one, dict) else None
                known = id_ if _is_id(id_) else None
                await self._refuse(known, _NO_REQUEST, _ABOUT)

    async def _refuse(self, id_: str | int | None, code: int, message: str) -> None:
        error = JSONRPCError(jsonrpc="2.0", id=id_, error=ErrorData(code=code, message=message))
        await self._write.send(SessionMessage(error))

    def answered(self, request: Any) -> None:
        """A request needs to be waited for no more; what is no id is none's."""
        # True is 1 to a set, and a list would end the server.
        if _is_id(request):
            self._waiting -= {request}
            self._changed.set()

    async def receive(self) -> SessionMessage | Exception:
        """As the SDK's."""
        message: SessionMessage | Exception = await self._stream.receive()
        return message


class Replies(_Around):
    """The SDK's stream of replies, which tells what is answered."""

    def __init__(self, stream: Any, requests: Requests) -> None:
        super().__init__(stream)
        self._requests = requests

    async def send(self, item: SessionMessage, /) -> None:
        """As the SDK's."""
        await self._stream.send(item)
        if isinstance(item.message, JSONRPCResponse | JSONRPCError):
            self._requests.answered(item.message.id)


def _is_id(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _has_no_id(said: Any) -> bool:
    """Whether this is a request whose id is missing, null, or no id, which the SDK takes for a notification.

    The protocol's notifications all have such names, and whoever sent anything else waits for its answer.
    """
    return isinstance(said, JSONRPCNotification) and not said.method.startswith("notifications/")


def _given(error: ValidationError) -> Any:
    """The JSON that the SDK refused, halves of surrogate pairs in its texts replaced.

    Raises:
        ValueError: it is none.
        RecursionError: it nests too deep.
    """
    for one in error.errors(include_url=False):
        if one["type"] == "json_invalid":
            # An empty line asks nothing.
            return _valid(json.loads(one["input"])) if one["input"].strip() else _NOTHING
        # Of each kind of message the SDK tells what is wrong: at its top, or that one of its fields is missing.
        if len(one["loc"]) < 2 or (len(one["loc"]) == 2 and one["type"] == "missing"):
            return one["input"]
    return None


def _valid(value: Any) -> Any:
    if isinstance(value, str):
        return valid_text(value)
    if isinstance(value, dict):
        return {valid_text(name): _valid(inner) for name, inner in value.items()}
    return [_valid(inner) for inner in value] if isinstance(value, list) else value
