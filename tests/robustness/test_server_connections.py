"""Connections of the server: more than fit, silent ones, and bodies that are half sent when it ends."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from crossrank.cli import root, serve
from crossrank.errors import InputError
from crossrank.server import descriptors, listening
from crossrank.server.limits import Limits
from crossrank.server.lines import Line, Seldom
from crossrank.server.listening import Listener
from crossrank.server.places import bound
from serving import request, serving, until

PROJECT = Path(__file__).resolve().parents[2]
# A server that answers nothing but its own limits, in a process that has few descriptors.
SMALL = """
import logging, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (400, 400))
logging.basicConfig()
from crossrank.server import descriptors, listening
from crossrank.server.limits import Limits

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})

descriptors.ask_for(Limits().connections)
listener = listening.Listener(app, "127.0.0.1", 0, Limits())
print(listener.port, listener.most, flush=True)
listener.run()
"""


@pytest.mark.skipif(os.name == "nt", reason="there are no such limits")
def test_silent_connections_neither_stop_the_server_nor_fill_its_log() -> None:
    # 1,024 of them took all descriptors: nobody was answered for 10 s, and the log got a thousand tracebacks a second.
    environment = {**os.environ, "PYTHONPATH": str(PROJECT / "src")}
    with (
        subprocess.Popen(
            [sys.executable, "-c", SMALL], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process,
        ExitStack() as opened,
    ):
        try:
            assert process.stdout is not None
            port, most = map(int, process.stdout.readline().split())
            assert most == 200
            kept = [opened.enter_context(socket.create_connection(("127.0.0.1", port), 30)) for _ in range(700)]
            for _ in range(3):
                with socket.create_connection(("127.0.0.1", port), 30) as one:
                    one.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                    assert one.recv(4096).startswith(b"HTTP/1.1 200")
            # The newest are still open: who came first went first.
            kept[-1].sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert kept[-1].recv(4096).startswith(b"HTTP/1.1 200")
            assert kept[0].recv(1) == b""
        finally:
            process.terminate()
            _, told = process.communicate(timeout=30)
    assert told == ""


def test_the_limit_of_descriptors_is_raised_as_far_as_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    resource: Any = pytest.importorskip("resource", reason="there are no such limits")
    now = [(1024, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda which: now[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda which, to: now.append(to))
    assert descriptors.fitting(2048) == 1024 - descriptors.RESERVE
    descriptors.ask_for(2048)
    assert (now[-1], descriptors.fitting(2048)) == ((2048 + descriptors.RESERVE, 4096), 2048)
    now[:] = [(1024, 1500)]
    descriptors.ask_for(2048)
    assert (now[-1], descriptors.fitting(2048)) == ((1500, 1500), 1500 - descriptors.RESERVE)
    for enough in ((65_536, 65_536), (resource.RLIM_INFINITY, resource.RLIM_INFINITY)):
        now[:] = [enough]
        descriptors.ask_for(2048)
        assert (now, descriptors.fitting(2048)) == ([enough], 2048)

    def refuses(which: int, to: tuple[int, int]) -> None:
        raise ValueError("not here")

    monkeypatch.setattr(resource, "setrlimit", refuses)
    now[:] = [(64, resource.RLIM_INFINITY)]
    descriptors.ask_for(2048)
    assert descriptors.fitting(2048) == 32


def test_one_thing_is_logged_once_in_a_while() -> None:
    now, said = [0.0], Seldom(10.0, lambda: now[0])

    def lines(message: str, error: Exception | None = None) -> list[dict[str, Any]]:
        caught = None if error is None else (type(error), error, None)
        record = logging.LogRecord("asyncio", logging.ERROR, "", 0, message, (), caught)
        return [json.loads(Line().format(record))] if said.filter(record) else []

    full = "socket.accept() out of system resource\nsocket: <...>"
    assert [line["message"] for line in lines(full)] == [full]
    assert not any(lines(full) for _ in range(1000))
    assert lines("another") != []
    now[0] = 11.0
    assert lines(full)[0]["again"] == 1000
    # Of one message with two errors both are told.
    assert lines("Exception in ASGI application", ValueError("a"))[0]["error"] == "ValueError: a"
    assert lines("Exception in ASGI application", ValueError("b")) != []
    assert lines("Exception in ASGI application", ValueError("b")) == []
    for number in range(2000):
        lines(f"message {number}")
    assert len(said._said) <= 256


def test_what_asyncio_says_is_a_line_too(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("crossrank.server", "crossrank.server.access", "uvicorn", "opentelemetry", "asyncio"):
        logger = logging.getLogger(name)
        monkeypatch.setattr(logger, "handlers", [])
        monkeypatch.setattr(logger, "propagate", True)
        monkeypatch.setattr(logger, "level", logger.level)
    serve._log_to_stderr(False)
    loop = asyncio.new_event_loop()
    for _ in range(5):
        loop.call_exception_handler({"message": "socket.accept() out of system resource", "exception": OSError(24, "")})
    loop.close()
    (line,) = capfd.readouterr().err.splitlines()
    assert json.loads(line)["message"] == "socket.accept() out of system resource"


def test_a_half_sent_body_does_not_hold_up_the_end(cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # It held SIGTERM for the whole --drain.
    monkeypatch.setattr(listening, "_DRAIN_BODY_SECONDS", 0.3)
    with serving(cross_encoder_folder, rate=2000) as server, ThreadPoolExecutor(1) as pool:
        with server.socket() as half, server.socket() as idle:
            half.sendall(request("/v2/rerank", {"query": "paris", "documents": ["x" * 200]})[:-10])
            until(lambda: server.built.gate._bytes > 100)
            sent = pool.submit(server.rerank, ["paris " * 20] * 150)
            until(lambda: server.backend.calls != [])
            server.listener.stop()
            told = half.recv(4096)
            assert idle.recv(10) == b""
        # What is complete is answered, however long it takes.
        assert sent.result(60).status_code == 200
    assert told.startswith(b"HTTP/1.1 503")
    assert b"retry-after: 1" in told.lower()


def test_a_taken_port_is_told_before_the_models_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "_service", lambda *_: pytest.fail("the models were loaded"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = CliRunner().invoke(root, ["serve", "--port", str(port)])
    assert "choose another --host or --port" in " ".join(done.stderr.split())


def test_nobody_connects_before_it_listens() -> None:
    # Who came early waited for the models, instead of being told that there is nobody yet.
    with bound("127.0.0.1", 0) as place:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(place.getsockname(), 5)
        listener = Listener(None, "127.0.0.1", 0, Limits(), place=place)
        socket.create_connection(("127.0.0.1", listener.port), 5).close()


def test_two_servers_that_are_started_together_do_not_both_get_the_place() -> None:
    # With SO_REUSEADDR both had it, and the second learned of it when its models were loaded.
    with bound("127.0.0.1", 0) as first, pytest.raises(InputError, match="choose another --host or --port"):
        bound("127.0.0.1", first.getsockname()[1])


def test_a_server_that_is_started_again_gets_its_place() -> None:
    place = bound("127.0.0.1", 0)
    port = place.getsockname()[1]
    for _ in range(3):
        listener = Listener(None, "127.0.0.1", port, Limits(), place=place)
        with socket.create_connection(("127.0.0.1", port), 5) as client:
            # The side that closes first is remembered for a minute.
            listener._socket.accept()[0].close()
            assert client.recv(1) == b""
        listener._socket.close()
        place = bound("127.0.0.1", port)
        with pytest.raises(InputError):
            bound("127.0.0.1", port)
    place.close()


# A toy that reads no bodies, with few connections.


@contextmanager
def toy(monkeypatch: pytest.MonkeyPatch, most: int, free: threading.Event | None = None) -> Iterator[Listener]:
    """`/slow` is answered when `free` is set, or at the end."""
    go_on = free or threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for _ in range(2):
                await send({"type": (await receive())["type"] + ".complete"})
            return
        while scope["path"] == "/slow" and not go_on.is_set():
            await asyncio.sleep(0.01)
        if scope["path"] == "/block":
            time.sleep(0.2)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    monkeypatch.setattr(listening, "fitting", lambda connections: most)
    listener = Listener(app, "127.0.0.1", 0, Limits())
    thread = threading.Thread(target=listener.run)
    thread.start()
    try:
        until(lambda: listener._server.started)
        yield listener
    finally:
        go_on.set()
        listener.stop()
        thread.join(30)
        assert not thread.is_alive()


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def test_a_burst_while_all_connections_are_in_use_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    # Connections of one turn closed each other before they were read from: 25 of 30 whole requests were lost.
    free = threading.Event()
    with toy(monkeypatch, most=20, free=free) as listener, ExitStack() as opened:

        def asking(path: str) -> socket.socket:
            made = opened.enter_context(socket.create_connection(("127.0.0.1", listener.port), 30))
            made.sendall(get(path))
            return made

        slow = [asking("/slow") for _ in range(20)]
        until(lambda: len(listener._server.server_state.tasks) == 20)
        for _ in range(2):
            told = [one.recv(4096).lower() for one in [asking("/") for _ in range(30)]]
            assert [one[9:12] for one in told] == [b"503"] * 30
            assert all(b"retry-after: 1" in one for one in told)
            # And when the loop is busy while they come.
            asking("/block")
        free.set()
        assert {one.recv(4096)[9:12] for one in slow} == {b"200"}


@pytest.mark.alone
def test_who_said_nothing_for_a_second_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "_SILENT_SECONDS", 0.3)
    with toy(monkeypatch, most=5) as listener, ExitStack() as opened:

        def connected() -> socket.socket:
            return opened.enter_context(socket.create_connection(("127.0.0.1", listener.port), 30))

        def answered(one: socket.socket) -> bool:
            one.sendall(get("/"))
            told = b""
            while not told.endswith(b"ok"):
                told += one.recv(4096)
            return told.startswith(b"HTTP/1.1 200")

        kept = [connected() for _ in range(8)]
        until(lambda: len(listener._server.server_state.connections) == 8)
        time.sleep(0.1)
        assert answered(kept[0])
        time.sleep(0.5)
        # This one is the ninth, and all that are too many go for it.
        kept.append(connected())
        assert answered(kept[-1])
        assert [one.recv(1) for one in kept[1:5]] == [b""] * 4
        assert all(answered(one) for one in (kept[0], *kept[5:]))


def test_a_half_sent_body_that_nobody_reads_gets_503(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # It was a 500 with a traceback in the log.
    monkeypatch.setattr(listening, "_DRAIN_BODY_SECONDS", 0.2)
    with toy(monkeypatch, most=5) as listener, socket.create_connection(("127.0.0.1", listener.port), 30) as half:
        half.sendall(b"POST /slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc")
        until(lambda: len(listener._server.server_state.tasks) == 1)
        listener.stop()
        told = half.recv(4096).lower()
    assert told.startswith(b"http/1.1 503")
    assert b"retry-after: 1" in told
    assert not any(record.exc_info for record in caplog.records)
