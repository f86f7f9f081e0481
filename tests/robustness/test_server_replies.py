"""Replies on a real socket: who does not take them, who takes them slowly, and what is said when the drain ends."""

from __future__ import annotations

import json
import logging
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from crossrank.server.limits import Limits
from serving import Serving, request, serving, until

# One word, which is one token, and more than the buffers of both sides of a connection hold.
LARGE = {"query": "paris", "documents": ["x" * 12_000_000], "return_documents": True}


def unread(server: Serving) -> socket.socket:
    """A connection that asks for a large reply and does not read it."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.settimeout(30)
    made.connect(("127.0.0.1", server.listener.port))
    made.sendall(request("/v2/rerank", LARGE))
    return made


def test_who_does_not_take_a_reply_is_dropped_and_keeps_no_memory(cross_encoder_folder: Path) -> None:
    # 14 such connections kept 500 MB for ever.
    limits = Limits(bytes=26_000_000, reply_seconds=1.5)
    with serving(cross_encoder_folder, limits=limits) as server, unread(server) as sleeper:
        # The reply counts like the body until it has gone, so that another large body finds no room.
        until(lambda: server.built.gate._bytes > 24_000_000)
        assert server.client.post("/v2/rerank", json=LARGE).status_code == 429
        assert server.rerank(["paris"]).status_code == 200
        until(lambda: server.built.gate._bytes == 0)
        taken = 0
        try:
            while part := sleeper.recv(1 << 20):
                taken += len(part)
        except ConnectionError:
            pass
        assert taken < 12_000_000
        assert server.client.post("/v2/rerank", json=LARGE).json()["results"][0]["document"]["text"] == "x" * 12_000_000


def test_a_reply_that_is_taken_slowly_but_in_time_arrives_whole(cross_encoder_folder: Path) -> None:
    with serving(cross_encoder_folder, limits=Limits(reply_seconds=20)) as server, unread(server) as slow:
        until(lambda: server.built.gate._bytes > 24_000_000)
        time.sleep(0.3)
        answer = bytearray()
        while not answer.endswith(b"}}"):
            answer += slow.recv(1 << 16)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert len(json.loads(body)["results"][0]["document"]["text"]) == 12_000_000
        assert f"content-length: {len(body)}".encode() in head.lower()
        # The clock has stopped, so the connection goes on.
        slow.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert slow.recv(4096).startswith(b"HTTP/1.1 200")


@pytest.mark.alone
@pytest.mark.parametrize(("seconds", "status"), [(0.9, 200), (0.2, 503)], ids=["enough", "too short"])
def test_a_short_drain_drains_and_its_end_is_a_503(
    cross_encoder_folder: Path, caplog: pytest.LogCaptureFixture, seconds: float, status: int
) -> None:
    # A drain of less than a second was none, and its end a plain-text 500 and a traceback.
    documents = [f"bread number {n}" for n in range(100 if status == 200 else 2000)]
    with caplog.at_level(logging.INFO), serving(
        cross_encoder_folder, rate=4000, limits=Limits(drain_seconds=seconds)
    ) as server, ThreadPoolExecutor(1) as pool:  # fmt: skip
        sent = pool.submit(server.rerank, documents)
        until(lambda: server.backend.calls != [])
        server.listener.stop()
        reply = sent.result(30)
        assert reply.status_code == status
        if status == 503:
            assert reply.json()["error"]["type"] == "UnavailableError"
            assert reply.headers["retry-after"] == "1"
        # The server is stopped once more after this, which would cut its end short.
        until(lambda: not server.service.ready)
    assert "Traceback" not in caplog.text
    assert "never retrieved" not in caplog.text
    access = [json.loads(record.getMessage()) for record in caplog.records if record.name == "crossrank.server.access"]
    assert [line["status"] for line in access if line["path"] == "/v2/rerank"] == [status]


def test_a_body_has_no_more_time_than_its_request(cross_encoder_folder: Path) -> None:
    with serving(cross_encoder_folder) as server, server.socket() as stalled:
        began = time.monotonic()
        stalled.sendall(
            b"POST /rerank HTTP/1.1\r\nHost: x\r\nX-Crossrank-Deadline-Ms: 300\r\nContent-Length: 100\r\n\r\n{"
        )
        answer = stalled.recv(4096)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"connection: close" in answer.lower()
        assert time.monotonic() - began < 10
