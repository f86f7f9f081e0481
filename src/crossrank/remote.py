"""JSON to an OpenAI-compatible address and back: retries with back-off, limits on time and bytes."""

from __future__ import annotations

import json
import random
import re
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import SplitResult, urlsplit

from crossrank.asking import check_real, check_whole
from crossrank.credentials import authorization, public_query, without_secrets
from crossrank.errors import InputError, RemoteError
from crossrank.extras import require
from crossrank.forks import renew_in_children

require("httpx", extra="llm")

import httpx  # noqa: E402

RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Answers after which the same request may succeed."""
CURES = {
    **dict.fromkeys((301, 302, 303, 307, 308), "it has moved, and redirects are not followed: name the new address"),
    401: "the key is missing or wrong",
    402: "the account has no credit left",
    403: "the key does not allow this",
    404: "no such model or path: the address usually ends in /v1, or another version",
    405: "no such path: the address usually ends in /v1, or another version",
    410: "this model or path is no more",
}
"""Answers that no other request would fare better with, and what may help."""
LONGEST_WAIT = 60.0
"""Seconds between two tries, whatever the server asks for."""
LONGEST_TIMEOUT = 1e6
"""Seconds of one try, at most: sockets take no more than some 24 days."""
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_TOLD = 300
"""Characters of a refusal that an error repeats."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back.

    Attributes:
        body: the JSON object; see `Address` for an array.
        tries: requests it took, from 1.
    """

    body: Mapping[str, Any]
    tries: int


class Address:
    """One address of an API, for many threads. Nothing is connected before the first request.

    Proxies and certificates are those of the environment, as httpx reads it. Redirects are not followed, so that the
    key goes to this address alone. A copy, what is read from a pickle, and a forked process open connections of their
    own; a pickle holds the key.

    Args:
        url: up to the version, such as `https://api.openai.com/v1` or `http://localhost:8000/v1`. A query, such as
            `?api-version=1`, goes with every request. `user:password@` is sent in place of the key. Neither this nor
            what looks like a secret in the query is in `Address.url`, errors or logs.
        key: sent as a bearer token, without white space around it; "" sends none.
        timeout: seconds of one try, from the connection to the last byte.
        tries: requests for one answer, at most.
        pause: seconds before the second try; each further one waits twice as long, up to `LONGEST_WAIT`, less a random
            half. A server's Retry-After counts instead where it is longer.
        most_bytes: of one answer.
        headers: more that every request has, as gateways want them; one called Authorization is sent instead of `key`.
        array: the name that a bare JSON array gets in `Reply.body`; without one it is no answer.

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
        array: str = "",
    ) -> None:
        parts = _parts(url)
        if parts is None:
            raise InputError(f"{without_secrets(url)!r} is no address of an API: give it as https://api.openai.com/v1")
        check_real("timeout", timeout)
        check_real("pause", pause)
        check_whole("tries", tries)
        if timeout <= 0 or tries < 1 or pause < 0 or most_bytes < 1:
            raise InputError("timeout, tries and most_bytes must be positive, and the pause not negative")
        if timeout > LONGEST_TIMEOUT:
            raise InputError(f"a timeout is at most {LONGEST_TIMEOUT:,.0f} seconds, not {timeout}")
        self._base = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
        self._query = parts.query
        self._shown_query = public_query(parts.query)
        self.url = self._shown("")
        self._headers = httpx.Headers(authorization(_checked_key(key), parts))
        self._headers.update(_checked_headers(headers or {}))
        self._timeout, self._tries, self._pause, self._most = timeout, tries, pause, most_bytes
        self._array = array
        self._connect()

    def _connect(self) -> None:
        self._idle: list[_Line] = []
        self._tls: ssl.SSLContext | None = None
        self._lock = threading.Lock()
        # Connections are kept open between calls, and end with this object.
        weakref.finalize(self, _close, self._idle)
        renew_in_children(self)

    def renew(self) -> None:
        """In a forked child: on the parent's connections it would read answers to others' requests, and take theirs."""
        self._lock = threading.Lock()
        # Closes the child's ends alone.
        _close(self._idle)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_idle", "_tls", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._connect()

    def __repr__(self) -> str:
        return f"Address({self.url!r})"

    def close(self) -> None:
        """Close idle connections; the next request opens new ones."""
        with self._lock:
            _close(self._idle)

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

    def _shown(self, path: str) -> str:
        """The address of a request as it may be told to anyone."""
        return f"{self._base}{path}{'?' if self._shown_query else ''}{self._shown_query}"

    def _once(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        response, content = self._response(path, body)
        made, status = _parsed(content, self._array), response.status_code
        if status == 200 and made is not None:
            status = _status_within(made)
            if status == 200:
                return made
        told = f"{self._shown(path)} answered {status or 'with an error'}"
        if status in RETRIED:
            raise _RetryError(f"{told}: {_told(content)}", status, _asked_wait(response.headers.get("retry-after", "")))
        if status == 200:
            raise _RetryError(f"{self._shown(path)} answered with no JSON object ({_told(content)})", 200)
        cure = f" ({CURES[status]})" if status in CURES else ""
        raise RemoteError(f"{told}{cure}: {_moved(response, path) or _told(content)}", status)

    def _response(self, path: str, body: Mapping[str, Any]) -> tuple[httpx.Response, bytes]:
        """One try, which ends in time whatever the server does."""
        url, line = self._shown(path), self._line()
        extensions: dict[str, Any] = {"trace": line.noticed}
        if self._query != self._shown_query:
            # httpx logs the address of a request, and not what is sent in its place.
            extensions["target"] = httpx.URL(f"{self._base}{path}?{self._query}").raw_path
        asked: dict[str, Any] = {"json": body, "headers": self._headers, "extensions": extensions}
        try:
            with line.watched(self._timeout), line.client.stream("POST", url, **asked) as response:
                content = self._content(response)
        except httpx.HTTPError as error:
            line.client.close()
            if line.late or isinstance(error, httpx.TimeoutException):
                raise _RetryError(f"{url} did not answer in {self._timeout:g} s") from error
            # Names of classes tell more than their messages, which are often empty.
            raise _RetryError(f"{url} cannot be reached ({type(error).__name__}: {error})") from error
        except BaseException:
            line.client.close()
            raise
        with self._lock:
            self._idle.append(line)
        return response, content

    def _line(self) -> _Line:
        with self._lock:
            if self._idle:
                return self._idle.pop()
            if self._tls is None:
                # Reading certificates takes long, and httpx would do it for each connection.
                self._tls = httpx.create_ssl_context()
            one = httpx.Limits(max_connections=1)
            return _Line(httpx.Client(timeout=self._timeout, verify=self._tls, limits=one))

    def _content(self, response: httpx.Response) -> bytes:
        found = bytearray()
        for part in response.iter_bytes():
            found += part
            if len(found) > self._most:
                raise RemoteError(f"{self.url} answered with more than {self._most:,} bytes", response.status_code)
        return bytes(found)


class _Line:
    """A client with one connection, for one request at a time, so that this one can be cut when its time is up.

    The client's own limits are for each read: a server that drips, in its headers or after them, would never end.
    """

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self.late = False
        self._busy = False
        self._stream: Any = None
        self._lock = threading.Lock()

    def noticed(self, event: str, info: Mapping[str, Any]) -> None:
        """What the client does; for its extension `trace`."""
        if not event.endswith(("connect_tcp.complete", "start_tls.complete")):
            return
        with self._lock:
            self._stream = info["return_value"]
            if self.late:
                self._stream.close()
                raise httpx.ConnectTimeout("too slow")

    @contextmanager
    def watched(self, seconds: float) -> Iterator[None]:
        """Cut the connection when this takes longer.

        Raises:
            httpx.ReadTimeout: it was cut, and what was read until then may look whole.
        """
        watch = threading.Timer(seconds, self._cut)
        watch.daemon, self._busy = True, True
        watch.start()
        try:
            yield
        finally:
            watch.cancel()
            with self._lock:
                self._busy = False
        if self.late:
            raise httpx.ReadTimeout("too slow")

    def _cut(self) -> None:
        with self._lock:
            if not self._busy:
                return
            self.late = True
            connection = None if self._stream is None else self._stream.get_extra_info("socket")
            if connection is not None:
                # Closing it would wake nobody, and its number might be another connection's by then. Not the method of
                # `ssl`, which takes the cipher from under the thread that reads.
                with suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)


def _close(idle: list[_Line]) -> None:
    while idle:
        idle.pop().client.close()


class _RetryError(Exception):
    """The same request may succeed later."""

    def __init__(self, message: str, status: int = 0, wait: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.wait = wait


def can_be_asked(url: object) -> bool:
    """Whether an `Address` can be made of this.

    >>> can_be_asked("http://localhost:8000/v1"), can_be_asked("http://me:pass/word@localhost")
    (True, False)
    """
    return _parts(url) is not None


def _parts(url: object) -> SplitResult | None:
    """What an address consists of; None where no request to it can be made, which shows before anything is sent."""
    try:
        parts = httpx.URL(url)  # type: ignore[arg-type]
        parts.raw_host.decode().encode("idna")  # as the resolver will
        good = parts.scheme in ("http", "https") and bool(parts.host) and 0 <= (parts.port or 0) <= 65535
        return urlsplit(str(url)) if good and not parts.fragment else None
    except (httpx.InvalidURL, ValueError, TypeError):
        return None


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


def _parsed(content: bytes, array: str) -> dict[str, Any] | None:
    try:
        made = json.loads(content)
    except (ValueError, RecursionError):
        return None
    made = {array: made} if array and isinstance(made, list) else made
    return made if isinstance(made, dict) else None


def _status_within(made: Mapping[str, Any]) -> int:
    """The status that an answer with status 200 should have had: gateways pass on errors of models so; 0 is unknown."""
    error = made.get("error")
    if not error or any(made.get(name) for name in ("choices", "data", "results")):
        return 200
    code = str(error.get("code") or error.get("status")) if isinstance(error, dict) else ""
    return int(code) if re.fullmatch("[45][0-9][0-9]", code) else 0


def _moved(response: httpx.Response, path: str) -> str:
    """The address that a redirect leads to, as `Address` takes it and without what may be secret; empty if none."""
    if not response.has_redirect_location:
        return ""
    # httpx has read it before, and calls one that is none a failure.
    found = response.url.join(response.headers["location"])
    place = f"{found.scheme}://{found.netloc.decode()}{found.raw_path.partition(b'?')[0].decode()}"
    return place.removesuffix(path)[:_TOLD]


def _told(content: bytes) -> str:
    """The beginning of an answer on one line."""
    return " ".join(content[: 4 * _TOLD].decode("utf-8", "replace").split())[:_TOLD] or "nothing"
