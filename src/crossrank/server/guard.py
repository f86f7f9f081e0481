"""The door: who may come in, which headers every reply carries, and one line of log for each request, without texts."""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from socket import SOCK_STREAM, getaddrinfo
from typing import Any
from urllib.parse import urlsplit

from crossrank.errors import InputError
from crossrank.server.answering import Call
from crossrank.server.keys import Keys
from crossrank.server.metrics import Metrics
from crossrank.server.refusals import RefusedError, invalid
from crossrank.server.replies import encoded
from crossrank.server.wire.dialects import HEALTH, READY
from crossrank.server.wire.shapes import ID, Timing

App = Callable[[Any, Any, Any], Awaitable[None]]
Watch = Callable[[Call, Mapping[str, Any]], None]
ACCESS = logging.getLogger("crossrank.server.access")

# A load balancer's probe comes by an address, or with no name at all, and these tell nobody anything.
_PROBES = (*HEALTH, *READY)
# Open without a key: whether the server lives, and the page's files, which hold nothing of the index.
_OPEN = ("/", "/docs", "/openapi.json", *_PROBES)
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
_PORTS = {"http": 80, "https": 443}
_NAME = re.compile(r"[a-z0-9._:-]+")
_SLASHES = re.compile(r"/{2,}")
# What stands before the path where a request's first line holds a whole address.
_ABSOLUTE = re.compile(r"https?://(?P<host>[^/]*)", re.IGNORECASE)
# Nothing from elsewhere may be loaded, and nobody may frame the page.
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
)


@dataclass(frozen=True, slots=True)
class Door:
    """Who may come in.

    Attributes:
        keys: of the API.
        hosts: names that a Host header may have; empty allows all. On a loopback address it keeps out web pages that
            point a name of their own at it.
        origins: web pages elsewhere that may call this server from a browser; none by default.
        nameless: whether a request without a Host header may come in where `hosts` names some. Only programs that speak
            HTTP/1.0 send none: a browser always does, so no web page comes in this way.
    """

    keys: Keys = field(default_factory=lambda: Keys([]))
    hosts: Collection[str] = ()
    origins: Collection[str] = ()
    nameless: bool = False

    @classmethod
    def at(cls, host: str, keys: Keys, hosts: Collection[str] = (), origins: Collection[str] = ()) -> Door:
        """The door of a server that listens at an address: on loopback only names of this machine are let in.

        Raises:
            InputError: one of `hosts` is no name, or one of `origins` no origin.

        >>> Door.at("127.0.0.1", Keys([])).hosts[0], Door.at("0.0.0.0", Keys([])).hosts
        ('localhost', ())
        """
        named = [_name(one) for one in hosts]
        if "" in named:
            raise InputError("--allow-host takes the name that clients call, such as search.example.com")
        local = on_loopback(host)
        if local:
            named += [_name(one) for one in (host, *_addresses(host))]
        return cls(keys, (*_THIS_MACHINE, *named) if named else (), tuple(map(_origin, origins)), local)

    def refusal(self, call: Call, method: str) -> RefusedError | None:
        """Why a request may not come in; None lets it in."""
        if call.path not in _PROBES and not self._called_right(call.header("host")):
            return RefusedError("this server is not called by that name; see --allow-host", 421, "HostError")
        origin, called = call.header("origin"), call.header("host") or ""
        if origin is not None and method != "OPTIONS" and not self._knows(origin, called):
            told = f"this page is of {origin}, and the server was called as {called or 'nothing'}"
            return RefusedError(
                f"web pages from elsewhere may not call this server: {told}; see --cors, or let the proxy pass the "
                "Host header on as it is",
                403,
                "OriginError",
            )
        # TEI reranks at / what is posted there.
        opened = method == "OPTIONS" or (method != "POST" and (call.path in _OPEN or call.path.startswith("/page/")))
        if not opened and not self.keys.admit(call.header("authorization"), call.header("x-api-key")):
            return RefusedError("an API key is needed: Authorization: Bearer KEY", 401, "AuthenticationError")
        return None

    def _called_right(self, host: str | None) -> bool:
        if not self.hosts or (host is None and self.nameless):
            return True
        return _name(host or "") in self.hosts

    def _knows(self, origin: str, host: str) -> bool:
        if origin in self.origins or "*" in self.origins:
            return True
        scheme, _, place = origin.partition("://")
        page = _place(scheme, place)
        return page[0] != "" and page == _place(scheme, host)


class Guard:
    """Wraps an ASGI application.

    Args:
        app: answers who is let in.
        door: who is let in.
        metrics: counts.
        routes: paths that metrics may name; others are "other", so that strangers cannot fill memory with names.
        watch: told of each request when it is over, with what the access log says of it.
        clients: of `routes`, those that are also meant by a path with more slashes, as clients make of an address that
            ends with one: `/v1//rerank`, `/v1/rerank/`.
    """

    def __init__(
        self,
        app: App,
        door: Door,
        metrics: Metrics,
        routes: Collection[str],
        watch: Watch | None = None,
        clients: Collection[str] = (),
    ) -> None:
        self._app = app
        self._door = door
        self._metrics = metrics
        self._routes = frozenset(routes)
        self._watch = watch
        self._clients = frozenset(clients)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = _origin_form(scope)
        if (meant := _SLASHES.sub("/", scope["path"]).rstrip("/")) in self._clients:
            # Before the door is asked, so that all that follows sees one path.
            scope = {**scope, "path": meant}
        call = _call(scope, receive)
        scope["crossrank.call"] = call
        seen = {"status": 0}

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                seen["status"] = message["status"]
                message["headers"] = [*message["headers"], *_HEADERS, (b"x-request-id", call.id.encode())]
            await send(message)

        refusal = _ambiguous(call) or self._door.refusal(call, scope["method"])
        try:
            if refusal is None:
                await self._app(scope, receive, sending)
            else:
                call.facts["error"] = refusal.kind
                self._metrics.refused(refusal.kind)
                await _refuse(call, refusal, sending)
        finally:
            self._told(call, scope, seen["status"])

    def _told(self, call: Call, scope: Any, status: int) -> None:
        total = time.perf_counter() - call.began
        computed: Timing = call.facts.get("timing", Timing())
        timing = Timing(computed.tokenize, computed.queue, computed.compute, total)
        route = call.path if call.path in self._routes else "other"
        dialect, model = call.facts.get("dialect", ""), call.facts.get("model", "")
        self._metrics.answered(route, dialect, model, status, timing)
        logged = ACCESS.isEnabledFor(logging.INFO)
        if not logged and self._watch is None:
            return
        line: dict[str, Any] = {
            "time": round(time.time(), 3),
            "id": call.id,
            "client": (scope.get("client") or ("",))[0],
            "method": scope["method"],
            # A path that is not ours may hold anything.
            "path": route,
            "status": status,
            "ms": round(1000 * total, 1),
        }
        told = ("dialect", "model", "coarse", "documents", "tokens", "error")
        line |= {name: call.facts[name] for name in told if name in call.facts}
        if timing.compute:
            line |= {f"{n}_ms": round(1000 * getattr(timing, n), 1) for n in ("tokenize", "queue", "compute")}
        if logged:
            ACCESS.info(json.dumps(line))
        if self._watch is not None:
            self._watch(call, line)


def _ambiguous(call: Call) -> RefusedError | None:
    """Why nobody knows where this request ends: a proxy in front may go by the other of its two lengths, and take what
    follows for a request that it has let in (RFC 9112, 6.1).
    """
    if call.header("content-length") is None or call.header("transfer-encoding") is None:
        return None
    return invalid("send Content-Length or Transfer-Encoding, not both")


def _origin_form(scope: Any) -> Any:
    """The request as it is without an address in its first line, which proxies send and every server has to take:
    `POST http://localhost/v1/rerank HTTP/1.1`. Its host then counts, whatever the Host header says (RFC 9112, 3.2.2).
    """
    found = _ABSOLUTE.match(scope["path"])
    if found is None:
        return scope
    host = found["host"].encode("latin-1", "replace")
    headers = [(b"host", host), *(pair for pair in scope["headers"] if pair[0] != b"host")]
    return {**scope, "path": scope["path"][found.end() :] or "/", "headers": headers}


def _call(scope: Any, receive: Any) -> Call:
    headers = scope["headers"]
    given = next((value for name, value in headers if name == b"x-request-id"), b"").decode("latin-1")
    return Call(
        given if ID.fullmatch(given) else uuid.uuid4().hex, scope["path"], headers, receive, time.perf_counter()
    )


def on_loopback(host: str) -> bool:
    """Whether a server that listens at this address or name is reached from this machine alone.

    >>> on_loopback("127.0.0.2"), on_loopback("0.0.0.0")
    (True, False)
    """
    found = [ip_address(address.partition("%")[0]) for address in _addresses(host)]
    return bool(found) and all((getattr(one, "ipv4_mapped", None) or one).is_loopback for one in found)


def _addresses(host: str) -> list[str]:
    """The addresses of a name or an address; none where it has none, which whoever binds it will tell."""
    try:
        return list(dict.fromkeys(str(one[4][0]) for one in getaddrinfo(host, None, type=SOCK_STREAM)))
    except (OSError, UnicodeError):
        return []


def _name(host: str) -> str:
    """The name in a Host header, without its port. A bare IPv6 address is one too."""
    if host.count(":") > 1 and not host.startswith("["):
        return host.lower()
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _origin(text: str) -> str:
    """A web origin as browsers send it: small letters, no default port, nothing after it.

    Raises:
        InputError: it is none, and would never be met.
    """
    if text == "*":
        return text
    try:
        parts = urlsplit(text)
        scheme, name, port = parts.scheme, parts.hostname or "", parts.port
    except ValueError:
        scheme = name = ""
    if not scheme or not _NAME.fullmatch(name) or parts.path not in ("", "/") or set("?#@") & set(text):
        raise InputError(f"--cors takes an origin such as https://app.example.com, or *, and not {text!r}")
    shown = f"[{name}]" if ":" in name else name
    return f"{scheme}://{shown}" + ("" if port in (None, _PORTS.get(scheme)) else f":{port}")


def _place(scheme: str, host: str) -> tuple[str, int | None]:
    """The name and the port of a host; the scheme's own port where none is written."""
    try:
        parts = urlsplit(f"//{host}")
        return (parts.hostname or "").lower(), parts.port or _PORTS.get(scheme)
    except ValueError:
        return "", None


async def _refuse(call: Call, refusal: RefusedError, send: Any) -> None:
    status, body = call.refuse(refusal, call.id)
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    content = encoded(body)
    headers.append((b"content-length", str(len(content)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
