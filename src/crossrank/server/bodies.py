"""Reading a request's body: bounded in size and time, and turned into JSON that cannot exhaust memory."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from crossrank.server.limits import Limits
from crossrank.server.refusals import LONGEST_NAME, CancelledRequestError, RefusedError, invalid, too_large

Receive = Callable[[], Awaitable[Any]]
# Bytes from which parsing is moved off the event loop, one body at a time: JSON of tiny values takes 30 times its
# size as Python objects, and the loop must go on answering health checks.
LARGE = 256 * 1024
_FEWER = "send fewer or shorter texts at once"
_STRING = re.compile(r'"[^"]*"')


async def read(
    receive: Receive,
    headers: Iterable[tuple[bytes, bytes]],
    limits: Limits,
    grow: Callable[[int], None],
    seconds: float = float("inf"),
) -> bytes:
    """The whole body.

    Args:
        receive: of ASGI.
        headers: of the request.
        limits: of the server.
        grow: asked for room for each part before it is kept, see `Gate.holding`.
        seconds: until the request's deadline.

    Raises:
        RefusedError: 415 when it is compressed; 413 when it is too large, told from its Content-Length before anything
            is read; 408 when it comes too slowly; 429 when the requests under way fill the memory set apart for them.
        CancelledRequestError: the client left.
    """
    limit, patience = limits.body, min(limits.body_seconds, seconds)
    if any(name == b"content-encoding" and value.strip().lower() not in (b"", b"identity") for name, value in headers):
        raise RefusedError(
            "the body is compressed (Content-Encoding), and only plain bodies are read: send it as it is",
            415,
            "UnsupportedMediaTypeError",
        )
    stated = next((value for name, value in headers if name == b"content-length"), b"")
    if stated.isdigit() and int(stated) > limit:
        raise too_large(f"the body has {int(stated):,} bytes, over the {limit:,} of --max-body: {_FEWER}")
    try:
        return await asyncio.wait_for(_read(receive, limit, grow), patience)
    except asyncio.TimeoutError:
        within = f"{patience:.3g} s" if patience < seconds else f"the {patience:.3g} s left of the deadline"
        raise RefusedError(f"the body did not arrive within {within}", 408, "RequestTimeoutError") from None


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
            raise too_large(f"the body has more than the {limit:,} bytes of --max-body: {_FEWER}")
        grow(len(part))
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def parse(body: bytes, most: int) -> dict[str, Any]:
    """The body as a JSON object.

    Args:
        body: as it came.
        most: values that it may hold. Python reads JSON in one go, while no other thread runs.

    Raises:
        RefusedError: 400 when it is none, 413 when it holds too many values.

    >>> parse(b'{"query": "x"}', most=10)
    {'query': 'x'}
    """
    try:
        # As json.loads does it: UTF-8, or another of Unicode's encodings.
        text = body.decode(json.detect_encoding(body), "surrogatepass")
        _check_values(text, most)
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_once)
    except RecursionError:
        raise invalid("the body is nested too deeply") from None
    except UnicodeDecodeError:
        raise invalid("the body is not UTF-8") from None
    except json.JSONDecodeError as error:
        # Its message says where, not what; the text itself stays out of logs and replies.
        raise invalid(f"the body is not JSON (line {error.lineno}, column {error.colno})") from None
    except ValueError:
        raise invalid("a number in the body is too large") from None
    if not isinstance(value, dict):
        raise invalid('the body must be a JSON object such as {"query": "...", "documents": ["..."]}')
    return value


def _once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; Python would keep the last of two members of one name, and a condition or a text be lost."""
    made = dict(members)
    if len(made) < len(members):
        names = [name for name, _ in members]
        twice = next(name for name, count in Counter(names).items() if count > 1)[:LONGEST_NAME]
        raise invalid(f"the name {twice!r} comes twice in one object of the body; keep one", twice)
    return made


def _check_values(text: str, most: int) -> None:
    """Refuse JSON of more than so many values: each but the first has a comma or a bracket in front of it."""
    if _separators(text) >= most:
        # Texts hold commas and brackets too. Without escapes a string ends at the next quote.
        text = text.replace("\\\\", "").replace('\\"', "")
        # Every value may be a string, and have another for its name.
        if text.count('"') > 4 * most or _separators(_STRING.sub("", text)) >= most:
            raise too_large(f"the body holds more than {most:,} JSON values: send fewer documents, or fewer fields")


def _separators(text: str) -> int:
    return text.count(",") + text.count("[") + text.count("{")


def _finite(text: str) -> float:
    """A number with a fraction or an exponent; 1e999 is infinite, and no reply could give it back. Of whole ones Python
    says itself when they have too many digits.
    """
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large")
    return number


def _no_constant(name: str) -> None:
    raise invalid(f"{name} is not JSON: send null, or a number")
