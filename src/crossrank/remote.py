"""JSON to an OpenAI-compatible address and back: retries with back-off, limits on time and bytes."""

from __future__ import annotations

import json
import random
import re
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from crossrank.errors import InputError, RemoteError
from crossrank.extras import require

require("httpx", extra="llm")

import httpx  # noqa: E402

T = TypeVar("T")
RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Answers after which the same request may succeed."""
CURES = {
    401: "the key is missing or wrong",
    403: "the key does not allow this",
    404: "no such model or path: the address usually ends in /v1",
}
"""Answers that no other request would fare better with, and what may help."""
LONGEST_WAIT = 60.0
"""Seconds between two tries, whatever the server asks for."""
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_TOLD = 300
"""Characters of a refusal that an error repeats."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back.

    Attributes:
        body: the JSON object.
        tries: requests it took, from 1.
    """

    body: Mapping[str, Any]
    tries: int


class Address:
    """One address of an API, for many threads. Nothing is connected before the first request.

    Proxies and certificates are those of the environment, as httpx reads it. Redirects are not followed, so that the
    key goes to this address alone.

    Args:
        url: up to the version, such as `https://api.openai.com/v1` or `http://localhost:8000/v1`.
        key: sent as a bearer token, without white space around it; "" sends none.
        timeout: seconds of one try, from the connection to the last byte.
        tries: requests for one answer, at most.
        pause: seconds before the second try; each further one waits twice as long, up to `LONGEST_WAIT`, less a random
            half. A server's Retry-After counts instead where it is longer.
        most_bytes: of one answer.
        headers: more that every request has, as gateways want them; one called Authorization is sent instead of `key`.

    Raises:
        InputError: no http address, a key or headers that no request can hold, or a number out of its range.
    """

    def __init__(
        self,
        url: str,
        key: str = "",
        *,
        timeout: float = 60.0,
        tries: int = 4,
        pause: float = 0.5,
        most_bytes: int = 8 * 2**20,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if not _is_address(url):
            raise InputError(f"{url!r} is no address of an API: give it as https://api.openai.com/v1")
        if timeout <= 0 or tries < 1 or pause < 0 or most_bytes < 1:
            raise InputError("timeout, tries and most_bytes must be positive, and the pause not negative")
        self.url = url.rstrip("/")
        key = _checked_key(key)
        self._headers = httpx.Headers({"Authorization": f"Bearer {key}"} if key else {})
        self._headers.update(_checked_headers(headers or {}))
        self._timeout, self._tries, self._pause, self._most = timeout, tries, pause, most_bytes
        self._client: httpx.Client | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Address({self.url!r})"

    def close(self) -> None:
        """Close idle connections; the next request opens new ones."""
        with self._lock:
            if self._client is not None:
                self._client.close()
            self._client = None

    def post(self, path: str, body: Mapping[str, Any], stop: threading.Event | None = None) -> Reply:
        """The answer to one request.

        Args:
            path: after the address, such as "/chat/completions".
            body: sent as JSON.
            stop: set by another thread, it ends the wait for the next try.

        Raises:
            RemoteError: refused, or not answered after all tries.
        """
        stop = stop or threading.Event()
        for number in range(1, self._tries + 1):
            wait = min(LONGEST_WAIT, self._pause * 2 ** (number - 1)) * random.uniform(0.5, 1.0)
            try:
                return Reply(self._once(path, body), number)
            except _RetryError as retry:
                if number == self._tries or stop.wait(min(LONGEST_WAIT, max(wait, retry.wait))):
                    raise RemoteError(f"{retry} ({number} tries)", retry.status, number) from retry
        raise AssertionError("unreachable")

    def _once(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        end = time.monotonic() + self._timeout
        try:
            with self._ready().stream("POST", self.url + path, json=body, headers=self._headers) as response:
                content = self._content(response, end)
        except httpx.TimeoutException as error:
            raise _RetryError(f"{self.url}{path} did not answer in {self._timeout:g} s") from error
        except httpx.HTTPError as error:
            # Names of classes tell more than their messages, which are often empty.
            raise _RetryError(f"{self.url}{path} cannot be reached ({type(error).__name__}: {error})") from error
        if response.status_code in RETRIED:
            told = f"{self.url}{path} answered {response.status_code}: {_shown(content)}"
            raise _RetryError(told, response.status_code, _asked_wait(response.headers.get("retry-after", "")))
        if response.status_code != 200:
            raise RemoteError(_refusal(self.url + path, response.status_code, content), response.status_code)
        try:
            made = json.loads(content)
        except (ValueError, RecursionError):
            made = None
        if not isinstance(made, dict):
            raise _RetryError(f"{self.url}{path} answered with no JSON object: {_shown(content)}", 200)
        return made

    def _ready(self) -> httpx.Client:
        with self._lock:
            if self._client is None:
                self._client = httpx.Client(timeout=self._timeout)
                # Connections are kept open between calls, and end with this object.
                weakref.finalize(self, self._client.close)
            return self._client

    def _content(self, response: httpx.Response, end: float) -> bytes:
        found = bytearray()
        for part in response.iter_bytes():
            found += part
            if len(found) > self._most:
                raise RemoteError(f"{self.url} answered with more than {self._most:,} bytes", response.status_code)
            # The client's own limit is for each read: a server that drips would never end.
            if time.monotonic() > end:
                raise httpx.ReadTimeout("too slow")
        return bytes(found)


def at_once(jobs: Sequence[Callable[[], T]], most: int, stop: threading.Event | None = None) -> list[T]:
    """Run jobs in threads, at most `most` at once, and give their results in order.

    The first error ends it: jobs that have not begun do not begin, and nobody waits for those under way. So does
    Ctrl-C; the threads are daemons, because those of `concurrent.futures` would keep the interpreter until their last
    answer.

    Args:
        jobs: in the order in which they begin.
        most: at least 1.
        stop: set when it ends, so that jobs can stop waiting; set by another thread, it ends it, too.

    >>> at_once([lambda: 1, lambda: 2, lambda: 3], most=2)
    [1, 2, 3]
    """
    stop = stop or threading.Event()
    made: dict[int, T] = {}
    errors: list[BaseException] = []
    todo, lock, finished = iter(enumerate(jobs)), threading.Lock(), threading.Event()

    def work() -> None:
        try:
            while not stop.is_set():
                with lock:
                    number, job = next(todo, (-1, None))
                if job is None:
                    break
                made[number] = job()
        except BaseException as error:
            errors.append(error)
        if errors or len(made) == len(jobs) or stop.is_set():
            finished.set()

    try:
        for number in range(min(most, len(jobs))):
            threading.Thread(target=work, name=f"crossrank-remote-{number}", daemon=True).start()
        # Not one long wait, which Ctrl-C could not end on Windows.
        while jobs and not finished.wait(0.2):
            pass
    finally:
        stop.set()
    if errors:
        raise errors[0]
    if len(made) < len(jobs):
        raise RemoteError("the call was stopped before all answers had come")
    return [made[number] for number in range(len(jobs))]


class _RetryError(Exception):
    """The same request may succeed later."""

    def __init__(self, message: str, status: int = 0, wait: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.wait = wait


def _is_address(url: str) -> bool:
    """Whether a request to it can be made at all: what is wrong with an address shows before anything is sent."""
    try:
        parts = httpx.URL(url)
        parts.raw_host.decode().encode("idna")  # as the resolver will
        return parts.scheme in ("http", "https") and bool(parts.host) and 0 <= (parts.port or 0) <= 65535
    except (httpx.InvalidURL, ValueError, TypeError):
        return False


def _checked_key(key: str | None) -> str:
    """The key without white space around it: files of secrets end in a newline, which no header may hold.

    None, of a variable that is not set, is none.

    Raises:
        InputError: a header cannot hold it. The message does not repeat it, and nobody else's would be that careful.
    """
    if key is not None and not isinstance(key, str):
        raise InputError(f"the API key is a text, not {type(key).__name__}")
    key = (key or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise InputError("the API key holds line ends, or characters beyond ASCII, which no key has: copy it again")
    return key


def _checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers that can be sent, their values without spaces around them, which are no part of them.

    Raises:
        InputError: one cannot. The message does not repeat its value, which may be secret.
    """
    if not isinstance(headers, Mapping):
        raise InputError(f"headers are a mapping of names to texts, not {type(headers).__name__}")
    for name, value in headers.items():
        texts = isinstance(name, str) and isinstance(value, str)
        if not (texts and _HEADER.fullmatch(name) and value.isascii() and value.isprintable()):
            raise InputError(f"the header {name!r} cannot be sent: names and values are ASCII texts of one line")
    return {name: value.strip(" ") for name, value in headers.items()}


def _asked_wait(header: str) -> float:
    """Seconds that a Retry-After header asks for: a number, or a date; 0 when it says neither."""
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return 0.0


def _refusal(url: str, status: int, content: bytes) -> str:
    return f"{url} answered {status}{f' ({CURES[status]})' if status in CURES else ''}: {_shown(content)}"


def _shown(content: bytes) -> str:
    """The beginning of an answer on one line."""
    return " ".join(content[: 4 * _TOLD].decode("utf-8", "replace").split())[:_TOLD] or "nothing"
