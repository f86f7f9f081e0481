"""Who may come in: by the name that a request calls the server, and from which web page."""

from __future__ import annotations

import asyncio
import json
from inspect import signature
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from starlette.middleware.cors import CORSMiddleware

import crossrank
import tiny
from crossrank.cli import root, serve
from crossrank.errors import InputError
from crossrank.server import guard
from crossrank.server.app import build
from crossrank.server.guard import Door, on_loopback
from crossrank.server.keys import Keys
from crossrank.server.listening import Listener
from crossrank.server.service import Service

KEYS = Keys([])


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Service:
    return Service(crossrank.load(tiny.cross_encoder(tmp_path_factory.mktemp("guard") / "model"), backend="fake"))


def ask(
    service: Service, door: Door, method: str, path: str, json: dict[str, Any] | None = None, **headers: str
) -> httpx.Response:
    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app=build(service, door).app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            # The whole address, of which the client changes nothing.
            return await client.request(method, f"http://localhost{path}", headers=headers, json=json)

    return asyncio.run(asked())


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "127.1", "localhost", "LOCALHOST"])
def test_a_loopback_address_answers_to_names_of_this_machine(service: Service, host: str) -> None:
    assert on_loopback(host)
    door = Door.at(host, KEYS)
    assert ask(service, door, "GET", "/", Host="evil.example:7997").status_code == 421
    for name in (f"{host}:7997", "localhost:7997", "127.0.0.1", "[::1]:7997"):
        assert ask(service, door, "GET", "/", Host=name).status_code == 200, name


def test_probes_are_answered_by_any_name(service: Service) -> None:
    """Those of Kubernetes and HAProxy come by an address, or with an empty name."""
    door = Door.at("127.0.0.1", KEYS)
    for path in ("/health", "/ready"):
        for name in ("10.1.2.3:7997", ""):
            assert ask(service, door, "GET", path, Host=name).status_code == (200 if path == "/health" else 503)


def test_slashes_too_many_are_of_no_account(tmp_path: Path) -> None:
    """Clients join an address that ends with a slash and a path that begins with one."""
    service = Service(crossrank.load(tiny.cross_encoder(tmp_path), backend="fake"))
    door = Door(Keys(["secret-of-the-house"]))
    given = {"X-API-Key": "secret-of-the-house"}
    service.start()
    try:
        for path in ("/v1/rerank/", "/v1//rerank", "//v1/rerank", "/v1/rerank//", "/cohere/v2/rerank/"):
            assert ask(service, door, "POST", path).status_code == 401, path
            made = ask(service, door, "POST", path, json={"query": "paris", "documents": ["paris"]}, **given)
            assert (made.status_code, len(made.json()["results"])) == (200, 1), path
            assert ask(service, door, "GET", path, **given).status_code == 405, path
    finally:
        service.stop()


def test_what_is_open_or_watched_has_one_spelling(service: Service) -> None:
    door = Door(Keys(["secret-of-the-house"]))
    given = {"X-API-Key": "secret-of-the-house"}
    assert ask(service, door, "GET", "/v1/models/").status_code == 401
    assert ask(service, door, "GET", "/v1/models/", **given).status_code == 200
    for path in (
        "/metrics/",
        "//metrics",
        "/info/",
        "/health/",
        "//health",
        "/page//../metrics",
        "/health//../metrics",
    ):
        assert ask(service, door, "GET", path).status_code in (401, 404), path
        assert ask(service, door, "GET", path, **given).status_code == 404, path


def test_metrics_and_the_log_call_a_path_by_its_name(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="crossrank.server.access"):
        ask(service, Door(), "POST", "/v1//rerank/")
        ask(service, Door(), "POST", "/v1//secret/")
    assert [json.loads(record.getMessage())["path"] for record in caplog.records] == ["/v1/rerank", "other"]


def raw(service: Service, door: Door, path: str, *headers: tuple[bytes, bytes]) -> tuple[int, bytes]:
    """A request as a client that writes its own first line and headers sends it; status and body of the reply."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"",
             "headers": list(headers), "root_path": "", "scheme": "http", "http_version": "1.0"}  # fmt: skip
    asyncio.run(build(service, door).app(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


def test_a_client_of_http_1_0_comes_in_without_a_name(service: Service) -> None:
    # It got 421 for all but the probes, as if it were a web page: which never leaves the Host header out.
    local = Door.at("127.0.0.1", KEYS, ("search.example.com",))
    for path in ("/metrics", "/info", "/v1/models"):
        assert raw(service, local, path)[0] == 200
        for name in (b"", b"evil.example"):
            assert raw(service, local, path, (b"host", name))[0] == 421
    # Whoever names a host of an address that others reach wants it to be named.
    assert raw(service, Door.at("0.0.0.0", KEYS, ("search.example.com",)), "/metrics")[0] == 421
    assert raw(service, Door.at("127.0.0.1", Keys(["a-secret-of-tests"])), "/metrics")[0] == 401


def test_a_whole_address_in_the_first_line_is_understood(service: Service) -> None:
    # RFC 9112, 3.2.2: it got 404. Its host counts, and not what the header says.
    door, here = Door.at("127.0.0.1", KEYS), (b"host", b"localhost")
    whole = raw(service, door, "http://localhost:7997/v1/models", (b"host", b"evil.example"))
    assert whole == raw(service, door, "/v1/models", here) != (404, b"")
    assert raw(service, door, "HTTPS://LocalHost", here)[0] == 200
    for address in ("http://evil.example/v1/models", "http:///v1/models", "http://localhost@evil.example/v1/models"):
        assert raw(service, door, address, here)[0] == 421, address
    for path in ("ftp://localhost/v1/models", "http:/v1/models", "http://localhost/no-such-path"):
        assert raw(service, door, path, here)[0] == 404, path


def test_a_loopback_address_of_version_6(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolved(host: str, *_: Any, **__: Any) -> list[Any]:
        return [(10, 1, 6, "", (host, 0, 0, 0))]

    monkeypatch.setattr(guard, "getaddrinfo", resolved)
    assert [on_loopback(one) for one in ("::1", "::ffff:127.0.0.1", "fe80::1%eth0", "::")] == [True, True, False, False]
    assert ask(service, Door.at("::1", KEYS), "GET", "/", Host="[::1]:7997").status_code == 200


def test_a_name_of_several_addresses_is_of_this_machine_if_all_of_them_are(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ["127.0.1.1", "127.0.0.1"]
    monkeypatch.setattr(guard, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", (one, 0)) for one in found])
    assert on_loopback("desk")
    assert {"desk", "127.0.1.1"} <= set(Door.at("desk", KEYS).hosts)
    found.append("192.0.2.7")
    assert not on_loopback("desk")
    assert Door.at("desk", KEYS).hosts == ()


def test_an_address_that_others_reach_answers_to_every_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise OSError("no such name")

    assert not on_loopback("0.0.0.0")
    assert Door.at("0.0.0.0", KEYS).hosts == ()
    monkeypatch.setattr(guard, "getaddrinfo", unknown)
    assert not on_loopback("no-such-name")


def test_allowed_names_are_compared_as_names(service: Service) -> None:
    door = Door.at("0.0.0.0", KEYS, ("Search.Example.COM", "other.example:443", "[2001:DB8::1]", "2001:db8::2"))
    names = ("search.example.com", "SEARCH.example.com:80", "other.example", "[2001:db8::1]", "[2001:db8::2]:7997")
    for name in (*names, "localhost"):
        assert ask(service, door, "GET", "/", Host=name).status_code == 200, name
    for name in ("evil.example", "0.0.0.0"):
        assert ask(service, door, "GET", "/", Host=name).status_code == 421
    with pytest.raises(InputError, match="--allow-host"):
        Door.at("0.0.0.0", KEYS, ("",))


def test_web_pages_may_pass_on_what_clients_are_told_to(service: Service) -> None:
    door = Door.at("127.0.0.1", KEYS, (), ("https://shop.example",))
    wanted = "authorization,content-type,traceparent,x-crossrank-deadline-ms,x-request-id"
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": wanted}
    reply = ask(service, door, "OPTIONS", "/v1/rerank", Origin="https://shop.example", **asked)
    assert reply.status_code == 200
    assert set(wanted.split(",")) <= set(reply.headers["access-control-allow-headers"].lower().split(", "))
    exposed = ask(service, door, "GET", "/ready", Origin="https://shop.example").headers[
        "access-control-expose-headers"
    ]
    assert {"retry-after", "x-request-id"} <= set(exposed.split(", "))


@pytest.mark.parametrize(
    "sent",
    [
        # OpenAI's client, as it is in a browser.
        "authorization,content-type,openai-organization,openai-project,x-stainless-arch,x-stainless-lang,x-stainless-os,"
        "x-stainless-package-version,x-stainless-retry-count,x-stainless-runtime,x-stainless-runtime-version,"
        "x-stainless-timeout",
        # Cohere's, and Voyage's, which is made by the same generator.
        "authorization,content-type,x-client-name,x-fern-language,x-fern-runtime,x-fern-runtime-version,x-fern-sdk-name,"
        "x-fern-sdk-version",
    ],
)
def test_the_products_own_clients_are_let_in_from_a_page(service: Service, sent: str) -> None:
    # They say in headers what they are, so that the browser's preflight got 400.
    door = Door.at("127.0.0.1", KEYS, (), ("https://shop.example",))
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": sent}
    assert ask(service, door, "OPTIONS", "/v1/embeddings", Origin="https://shop.example", **asked).status_code == 200
    asked["Access-Control-Request-Headers"] += ",x-something-else"
    assert ask(service, door, "OPTIONS", "/v1/embeddings", Origin="https://shop.example", **asked).status_code == 400


@pytest.mark.skipif(
    "allow_private_network" not in signature(CORSMiddleware).parameters, reason="Starlette is older than that question"
)
def test_a_page_of_the_internet_that_is_named_reaches_a_server_of_this_machine(service: Service) -> None:
    # Chrome asks first, and got 400.
    door = Door.at("127.0.0.1", KEYS, (), ("https://shop.example",))
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Private-Network": "true"}
    reply = ask(service, door, "OPTIONS", "/v1/rerank", Origin="https://shop.example", **asked)
    assert (reply.status_code, reply.headers["access-control-allow-private-network"]) == (200, "true")
    assert ask(service, door, "OPTIONS", "/v1/rerank", Origin="https://evil.example", **asked).status_code == 400


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ("https://shop.example/", "https://shop.example"),
        ("HTTPS://Shop.Example:443", "https://shop.example"),
        ("http://shop.example:80", "http://shop.example"),
        ("http://shop.example:8080", "http://shop.example:8080"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("*", "https://anything.example"),
    ],
)
def test_an_origin_is_met_however_it_is_typed(service: Service, typed: str, sent: str) -> None:
    # What a browser never sends was taken, and its page got 403.
    door = Door.at("127.0.0.1", KEYS, (), (typed,))
    reply = ask(service, door, "GET", "/info", Origin=sent)
    assert (reply.status_code, reply.headers["access-control-allow-origin"]) == (200, "*" if typed == "*" else sent)
    assert ask(service, Door.at("127.0.0.1", KEYS), "GET", "/info", Origin=sent).status_code == 403


@pytest.mark.parametrize(
    "typed",
    ["shop.example", "https://shop.example/app", "https://", "https://a@shop.example", "https://shop.example?",
     "https://shop.example:x", "https://bücher.example", "null", "", "https://shop.example,b.example"],
)  # fmt: skip
def test_what_is_no_origin_is_refused(typed: str) -> None:
    with pytest.raises(InputError, match=r"--cors takes an origin such as https://app\.example\.com"):
        Door.at("127.0.0.1", KEYS, (), (typed,))


@pytest.mark.parametrize(
    ("origin", "host", "let_in"),
    [
        ("http://localhost:7997", "localhost:7997", True),
        ("https://localhost", "localhost", True),
        ("https://localhost", "localhost:443", True),
        ("http://localhost", "LOCALHOST:80", True),
        ("http://[::1]:7997", "[::1]:7997", True),
        ("https://localhost:8443", "localhost", False),
        ("http://localhost", "localhost:443", False),
        ("http://localhost:1", "localhost:2", False),
        ("http://localhost:x", "localhost", False),
        ("null", "localhost", False),
        ("", "localhost", False),
    ],
)
def test_the_page_is_let_in_by_its_own_address(service: Service, origin: str, host: str, let_in: bool) -> None:
    reply = ask(service, Door.at("127.0.0.1", KEYS), "GET", "/info", Origin=origin, Host=host)
    assert reply.status_code == (200 if let_in else 403)
    if not let_in:
        assert f"this page is of {origin}, and the server was called as {host}; see --cors" in reply.json()["message"]


def test_two_addresses_that_are_none_are_not_one(service: Service) -> None:
    assert ask(service, Door(), "GET", "/info", Origin="http://a:x", Host="b:y").status_code == 403


def test_a_file_of_keys_that_is_no_text_is_told(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes("a-secret-key".encode("utf-16"))
    refused = CliRunner().invoke(root, ["serve", "--keys", str(file)])
    assert (refused.exit_code, "no text in UTF-8" in refused.output) == (2, True)


@pytest.mark.parametrize("variable", ["", ",", " , "])
def test_a_variable_of_keys_that_holds_none_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    # It opened the server to everyone who reaches it.
    monkeypatch.setattr(serve, "_service", lambda *_: pytest.fail("the models were loaded"))
    refused = CliRunner().invoke(root, ["serve"], env={"CROSSRANK_API_KEYS": variable})
    assert (refused.exit_code, "is set and holds no key" in refused.output) == (2, True)


def test_keys_are_read_from_files_of_every_editor(tmp_path: Path) -> None:
    # One that Notepad saved begins with a mark, which was a part of the first key.
    file = tmp_path / "keys"
    file.write_text("a-secret-key\n", encoding="utf-8-sig")
    assert serve._keys(file).admit("Bearer a-secret-key", None)


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.2", False), ("0.0.0.0", True)])
def test_serve_warns_of_no_keys_only_where_others_reach_it(
    service: Service, monkeypatch: pytest.MonkeyPatch, host: str, warned: bool
) -> None:
    monkeypatch.setattr(serve, "_service", lambda *_: service)
    monkeypatch.setattr(serve, "_log_to_stderr", lambda *_: None)
    monkeypatch.setattr(Listener, "run", lambda self: self._socket.close())
    done = CliRunner().invoke(root, ["serve", "--host", host, "--port", "0"])
    assert done.exit_code == 0, done.output
    assert ("everyone who reaches" in done.output) is warned
