"""Reading a request's body: bounded in size and time, and turned into JSON that cannot exhaust memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from crossrank.server.limits import Limits
from crossrank.server.refusals import CancelledRequestError, RefusedError, invalid, too_large

Receive = Callable[[], Awaitable[Any]]
# Bytes from which parsing is moved off the event loop, one body at a time: JSON of tiny values takes 30 times its
# size as Python objects, and the loop must go on answering health checks.
LARGE = 256 * 1024


async def read(
    receive: Receive, headers: Iterable[tuple[bytes, bytes]], limits: Limits, grow: Callable[[int], None]
) -> bytes:
    """The whole body.

    Args:
        receive: of ASGI.
        headers: of the request.
        limits: of the server.
        grow: asked for room for each part before it is kept, see `Gate.holding`.

    Raises:
        RefusedError: 413 when it is too large, told from its Content-Length before anything is read; 408 when it
            comes too slowly; 429 when the bodies under way fill the memory set apart for them.
        CancelledRequestError: the client left.
    """
    limit = limits.body
    stated = next((value for name, value in headers if name == b"content-length"), b"")
    if stated.isdigit() and int(stated) > limit:
        raise too_large(f"the body has {int(stated):,} bytes; at most {limit:,} are read")
    try:
        return await asyncio.wait_for(_read(receive, limit, grow), limits.body_seconds)
    except asyncio.TimeoutError:
        raise RefusedError(
            f"the body did not arrive within {limits.body_seconds:g} s", 408, "RequestTimeoutError"
        ) from None


async def _read(receive: Receive, limit: int, grow: Callable[[int], None]) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CancelledRequestError("the client closed the connection")
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise too_large(f"the body has more than the {limit:,} bytes that are read")
        grow(len(part))
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def parse(body: bytes) -> dict[str, Any]:
    """The body as a JSON object.

    Raises:
        RefusedError: it is none.

    >>> parse(b'{"query": "x"}')
    {'query': 'x'}
    """
    try:
        value = json.loads(body, parse_constant=_no_constant)
    except RecursionError:
        raise invalid("the body is nested too deeply") from None
    except (ValueError, UnicodeDecodeError) as error:
        # The message of a JSON error says where, not what; the text itself stays out of logs and replies.
        where = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise invalid(f"the body is not JSON{where}") from None
    if not isinstance(value, dict):
        raise invalid('the body must be a JSON object such as {"query": "...", "documents": ["..."]}')
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
