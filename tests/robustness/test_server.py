"""The server on a real socket: overload, people who leave, slow and huge requests, keys, and how it ends."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

import apiserver
import crossrank
from crossrank.errors import InputError
from crossrank.server.guard import Door
from crossrank.server.keys import Keys, read_lines
from crossrank.server.limits import Limits
from crossrank.server.listening import Listener
from serving import request, serving, until

PROJECT = Path(__file__).resolve().parents[2]
KEY = "a-secret-of-tests"


@pytest.mark.alone
def test_a_reply_does_not_wait_for_an_acknowledgement(cross_encoder_folder: Path) -> None:
    # Without TCP_NODELAY each reply took 44 ms, the quickest too: the client's delayed acknowledgement.
    took = []
    with serving(cross_encoder_folder) as server:
        for _ in range(20):
            began = time.perf_counter()
            assert server.alive()
            took.append(time.perf_counter() - began)
    assert min(took) < 0.035


def test_many_clients_share_batches_and_agree_with_the_library(cross_encoder_folder: Path) -> None:
    lists = [[f"document {number} of {asked} is about paris" for number in range(20)] for asked in range(32)]
    scorer = crossrank.load(cross_encoder_folder, backend="fake")
    with serving(cross_encoder_folder, rate=200_000) as server, ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(server.rerank, lists))
        assert len(server.backend.calls) < 32 * 2
        for documents, reply in zip(lists, replies, strict=True):
            ranked = scorer.rank("what is the capital of france?", documents)
            assert [result["index"] for result in reply.json()["results"]] == list(ranked.positions)
        timing = replies[0].headers["server-timing"]
        assert [part.split(";")[0] for part in timing.split(", ")] == ["tokenize", "queue", "compute", "total"]
        numbers = server.client.get("/metrics").text
        model = f'model="{server.service.reranker.name}"'
        assert f'crossrank_requests_total{{dialect="cohere",{model},route="/v2/rerank",status="200"}} 32.0' in numbers
        assert f"crossrank_documents_total{{{model}}} 640.0" in numbers


@pytest.mark.alone
def test_a_full_server_refuses_at_once_and_says_when_to_come_back(cross_encoder_folder: Path) -> None:
    limits = Limits(requests=2)
    with serving(cross_encoder_folder, rate=2000, limits=limits) as server, ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(server.rerank, ["paris is a capital"] + [f"bread {n}" for n in range(60)]) for _ in "ab"]
        until(lambda: len(server.built.gate.tickets) == 2)
        began = time.monotonic()
        refused = server.rerank(["paris"])
        assert refused.status_code == 429
        assert time.monotonic() - began < 1.0
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["type"] == "OverloadedError"
        assert [future.result(60).status_code for future in waiting] == [200, 200]
        assert server.rerank(["paris"]).status_code == 200


def test_what_would_be_late_is_refused_before_it_is_computed(cross_encoder_folder: Path) -> None:
    with serving(cross_encoder_folder, rate=2000) as server, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(server.rerank, [f"bread {n}" for n in range(150)])
        until(lambda: server.backend.calls != [])
        server.service.reranker.speed.rate = 2000.0
        refused = server.rerank(["paris"], **{"X-Crossrank-Deadline-Ms": "100"})
        assert refused.status_code == 429
        assert "retry-after" in refused.headers
        assert waiting.result(60).status_code == 200
        # On its own it is too large for its deadline, whoever waits.
        server.service.reranker.speed.rate = 2000.0
        alone = server.rerank(["paris " * 100] * 20, **{"X-Crossrank-Deadline-Ms": "50"})
        assert alone.status_code == 413


def test_a_process_without_room_for_a_thread_is_a_429(
    cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit of the user or of the container: it was a 500, which no client sends again."""
    start = threading.Thread.start

    def refused(thread: threading.Thread) -> None:
        if thread.name == "crossrank-request":
            raise RuntimeError("can't start new thread")
        start(thread)

    with serving(cross_encoder_folder) as server:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refused)
            full = server.rerank(["paris"])
        assert (full.status_code, full.headers["retry-after"]) == (429, "1")
        assert full.json()["error"]["type"] == "OverloadedError"
        assert not server.built.gate.tickets
        assert server.rerank(["paris"]).status_code == 200


def test_a_passed_deadline_is_a_503(cross_encoder_folder: Path) -> None:
    with serving(cross_encoder_folder, rate=2000) as server:
        server.service.reranker.speed.rate = 0.0  # Without a measurement nothing is refused beforehand.
        late = server.rerank([f"bread number {n}" for n in range(200)], **{"X-Crossrank-Deadline-Ms": "150"})
        assert late.status_code == 503
        assert server.service.scheduler.queued_tokens == 0
        assert server.rerank(["paris"], **{"X-Crossrank-Deadline-Ms": "soon"}).status_code == 400


def test_a_request_whose_client_left_is_not_computed_further(cross_encoder_folder: Path) -> None:
    with serving(cross_encoder_folder, rate=5000) as server:
        documents = [f"bread number {n} is not of france" for n in range(400)]
        body = {"query": "what is the capital of france?", "documents": documents}
        with server.socket() as leaver:
            leaver.sendall(request("/v2/rerank", body))
            until(lambda: server.backend.calls != [])
        until(lambda: not server.built.gate.tickets)
        computed = sum(server.backend.calls)
        whole = sum(crossrank.load(cross_encoder_folder, backend="fake").scored(
            [(body["query"], document) for document in documents]
        ).tokens for _ in "a")  # fmt: skip
        assert computed < whole / 2
        assert server.rerank(["paris"]).status_code == 200


def test_bodies_are_bounded_before_they_are_read(cross_encoder_folder: Path) -> None:
    limits = Limits(body=4096)
    with serving(cross_encoder_folder, limits=limits) as server:
        with server.socket() as big:
            # Nothing of the body is sent: the answer rests on what the headers state.
            big.sendall(b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n")
            assert big.recv(4096).startswith(b"HTTP/1.1 413")
        with server.socket() as chunked:
            chunked.sendall(b"POST /rerank HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            chunked.sendall(b"1000\r\n" + b" " * 4096 + b"\r\n10\r\n" + b" " * 16 + b"\r\n")
            assert chunked.recv(4096).startswith(b"HTTP/1.1 413")
        assert server.rerank(["x" * 5000]).status_code == 413
        assert server.rerank(["paris"]).status_code == 200


def test_bodies_under_way_have_bounded_memory(cross_encoder_folder: Path) -> None:
    limits = Limits(bytes=3000)
    with serving(cross_encoder_folder, limits=limits) as server:
        body = request("/v2/rerank", {"query": "paris", "documents": ["x" * 2000]})
        with server.socket() as slow:
            slow.sendall(body[:-10])
            until(lambda: server.built.gate._bytes > 1500)
            assert server.rerank(["y" * 2000]).status_code == 429
            slow.sendall(body[-10:])
            assert slow.recv(4096).startswith(b"HTTP/1.1 200")
        until(lambda: server.built.gate._bytes == 0)


@pytest.mark.parametrize(
    ("limits", "documents"),
    [
        (Limits(documents=3), ["paris"] * 4),
        (Limits(tokens=50), ["paris is the capital " * 20]),
        (Limits(tokens=200), ["a-" * 150]),
    ],
    ids=["documents", "words", "tokens"],
)
def test_requests_are_bounded(cross_encoder_folder: Path, limits: Limits, documents: list[str]) -> None:
    with serving(cross_encoder_folder, limits=limits) as server:
        refused = server.rerank(documents)
        assert refused.status_code == 413
        assert refused.json()["error"]["type"] == "RequestTooLargeError"


def test_slow_clients_are_let_go(cross_encoder_folder: Path) -> None:
    limits = Limits(head_seconds=0.3, body_seconds=0.3)
    with serving(cross_encoder_folder, limits=limits) as server:
        with server.socket() as head, server.socket() as silent:
            head.sendall(b"POST /rerank HTTP/1.1\r\nHost: x\r\nX-A: ")
            assert head.recv(100) == b""
            assert silent.recv(100) == b""
        with server.socket() as body:
            body.sendall(b'POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"query"')
            assert body.recv(4096).startswith(b"HTTP/1.1 408")
        with server.socket() as later:
            # A connection that has been answered once has no more patience for the next head.
            later.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b"}"):
                answer += later.recv(4096)
            assert answer.startswith(b"HTTP/1.1 200")
            later.sendall(b"GET /hea")
            assert later.recv(100) == b""
        assert server.alive()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X-A: b\r\n" * 20_000,
        b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"A" * 100_000,
    ],
)
def test_garbage_gets_an_error_or_nothing(cross_encoder_folder: Path, garbage: bytes) -> None:
    with serving(cross_encoder_folder) as server:
        with server.socket() as sender:
            try:
                sender.sendall(garbage)
                told = sender.recv(4096)
            except ConnectionError:
                told = b""
            assert told == b"" or told.startswith(b"HTTP/1.1 4")
        assert server.alive()


HOSTILE: list[Any] = [
    b"", b"{", b"null", b"[]", b'"x"', b"\xff\xfe", b'{"query": NaN}', b"[" * 50_000, b'{"a":' * 20_000,
    b'{"query": "a", "documents": ' + b"9" * 5000 + b"}",
    b'{"query": "a", "documents": [{"text": "b", "x": -1e999}], "return_documents": true}',
    {"query": "a" * 100_000, "documents": ["b"] * 10}, {"query": "a", "documents": ["\ud800", "\x00", "\u202e"]},
    {"query": "a", "documents": [["b"]]}, {"query": ["a"], "documents": ["b"]}, {"query": "a", "documents": {"0": "b"}},
    {"query": "a", "documents": ["b"], "top_n": -1}, {"query": "a", "documents": ["b"], "top_n": 1e99},
    {"query": "a", "documents": ["b"], "top_n": True}, {"query": "a", "documents": ["b"], "max_tokens_per_doc": 0},
    {"query": "a", "documents": [{"text": None}]}, {"query": "a", "texts": None},
    {"query": {"text": 1}, "texts": ["b"]},
    {"query": "a", "documents": ["b"], "rank_fields": [1]}, {"query": "a", "documents": ["b"], "model": {"$ne": 1}},
    {"query": "a", "documents": ["b"], "truncate_prompt_tokens": 1}, {"query": "a", "where": ["x>>1"]},
]  # fmt: skip


def test_no_body_makes_the_server_fail(cross_encoder_folder: Path) -> None:
    paths = [
        "/rerank",
        "/v1/rerank",
        "/v2/rerank",
        "/tei/rerank",
        "/vllm/rerank",
        "/score",
        "/v1/embeddings",
        "/embed",
        "/",
        "/search",
    ]
    with serving(cross_encoder_folder) as server:
        for hostile in HOSTILE:
            content = hostile if isinstance(hostile, bytes) else json.dumps(hostile).encode()
            for path in paths:
                reply = server.client.post(path, content=content)
                assert reply.status_code in (200, 400, 404, 413, 422), (path, content[:80], reply.text[:200])
                reply.json()


def test_keys_are_needed_but_for_health_and_the_page(cross_encoder_folder: Path) -> None:
    door = Door.at("127.0.0.1", Keys([KEY, "another-secret"]))
    with serving(cross_encoder_folder, door=door) as server:
        for headers in (
            {},
            {"Authorization": f"Basic {KEY}"},
            {"Authorization": f"Bearer {KEY}x"},
            {"X-API-Key": KEY[1:]},
        ):
            refused = server.rerank(["paris"], **headers)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Bearer"
            assert refused.json()["message"]
        for headers in ({"Authorization": f"Bearer {KEY}"}, {"X-API-Key": "another-secret"}):
            assert server.rerank(["paris"], **headers).status_code == 200
        assert {
            path: server.client.get(path).status_code for path in ("/", "/docs", "/health", "/ready")
        } == dict.fromkeys(("/", "/docs", "/health", "/ready"), 200)
        assert {server.client.get(path).status_code for path in ("/info", "/metrics", "/v1/models")} == {401}


def test_web_pages_from_elsewhere_are_kept_out(cross_encoder_folder: Path) -> None:
    door = Door.at("127.0.0.1", Keys([]), (), ("https://shop.example",))
    with serving(cross_encoder_folder, door=door) as server:
        assert server.rerank(["paris"], Host="evil.example").status_code == 421
        assert server.rerank(["paris"], Origin="https://evil.example").status_code == 403
        assert server.rerank(["paris"], Origin="null").status_code == 403
        assert server.rerank(["paris"], Origin=server.listener.url).status_code == 200
        allowed = server.rerank(["paris"], Origin="https://shop.example")
        assert allowed.headers["access-control-allow-origin"] == "https://shop.example"
        assert "access-control-allow-origin" not in server.rerank(["paris"]).headers


def test_the_access_log_has_no_texts(cross_encoder_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "crossrank.server"), serving(cross_encoder_folder) as server:
        server.rerank(["paris-in-a-document"], **{"X-Request-Id": "mine"})
        server.client.get("/secret-path?secret-query")
        server.client.post("/v2/rerank", content=b'{"secret-key": "secret-text"')
    lines = [record.getMessage() for record in caplog.records if record.name == "crossrank.server.access"]
    told = [json.loads(line) for line in lines]
    mine = next(line for line in told if line["id"] == "mine")
    assert (mine["status"], mine["path"], mine["dialect"], mine["documents"]) == (200, "/v2/rerank", "cohere", 1)
    assert mine["compute_ms"] >= 0
    assert any(line["path"] == "other" and line["status"] == 404 for line in told)
    assert not any("secret" in line or 'document"' in line or "france" in line for line in lines)


def test_a_failure_of_the_backend_is_a_500_without_texts(
    cross_encoder_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(cross_encoder_folder) as server:

        def fail(tokens: Any) -> Any:
            raise RuntimeError("secret-text in an error")

        lane = server.service.reranker.scorer.backend._forward
        server.service.reranker.scorer.backend._forward = replace(lane, compute=fail)
        reply = server.rerank(["paris"])
        assert reply.status_code == 500
        assert "secret" not in reply.text + caplog.text
        server.service.reranker.scorer.backend._forward = lane
        assert server.rerank(["paris"]).status_code == 200


def test_a_taken_port_is_told(cross_encoder_folder: Path) -> None:
    with serving(cross_encoder_folder) as server, pytest.raises(InputError, match="--port"):
        Listener(None, "127.0.0.1", server.listener.port, Limits())


def test_keys_that_are_none() -> None:
    assert read_lines("# a\n\n one-secret \n") == ["one-secret"]
    # The name of a scheme has no case (RFC 9110, 11.1).
    assert Keys(["8letters"]).admit("bearer 8letters", None)
    for bad in ("7letter", "with a space in it", "schlüsselwort"):
        with pytest.raises(InputError, match="API key 1"):
            Keys([bad])


def test_a_request_for_a_websocket_is_answered_without_advice(
    cross_encoder_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(cross_encoder_folder) as server:
        reply = server.client.get("/health", headers={"Connection": "upgrade", "Upgrade": "websocket"})
        assert reply.status_code == 200
    assert "WebSocket" not in caplog.text


def test_a_second_signal_ends_it_soon_and_in_order(
    cross_encoder_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # The application was cancelled, and the log ended with its traceback.
    with serving(cross_encoder_folder, rate=1000.0) as server, ThreadPoolExecutor(1) as pool:
        # All different: equal ones cost once, and were computed before the end.
        sent = pool.submit(server.rerank, [f"{n} " + "paris " * 100 for n in range(30)])
        until(lambda: len(server.backend.calls) > 0)
        server.listener.stop()
        server.listener.stop()
        assert sent.result(20).status_code == 503
    assert not [record for record in caplog.records if record.exc_info]


def test_ready_is_not_what_can_compute_nothing(cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(cross_encoder_folder) as server, monkeypatch.context() as patch:
        patch.setattr(type(server.service.scheduler), "alive", False)
        assert server.client.get("/ready").status_code == server.rerank(["paris"]).status_code == 503


def test_two_lengths_of_one_body_are_refused(cross_encoder_folder: Path) -> None:
    # A proxy in front may go by the other one, and take what follows for a request that it has let in.
    content = b'{"query": "paris", "documents": ["paris"]}'
    head = "POST /v1/rerank HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n"
    with serving(cross_encoder_folder) as server, server.socket() as connection:
        connection.sendall(head.encode() + b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content))
        reply = b"".join(iter(lambda: connection.recv(65536), b""))
    assert reply.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in reply.lower()


def test_an_embedder_that_hangs_holds_up_no_end(
    cross_encoder_folder: Path, bi_encoder_folder: Path, tmp_path: Path
) -> None:
    # It was waited for after the drain, 10 s, and for an index in a folder that hangs for ever.
    pytest.importorskip("lance", reason="the index needs the search extra")
    from crossrank.index import Document, Index
    from crossrank.remoteembedder import RemoteEmbedder

    free, asked = threading.Event(), threading.Event()

    def answer(path: str, body: dict[str, Any]) -> Any:
        if body["input"] == ["which?"]:
            asked.set()
            free.wait(60)
        return {"data": [{"index": place, "embedding": [1.0, 2.0]} for place in range(len(body["input"]))]}

    with apiserver.serving(answer) as api:
        embedder = RemoteEmbedder(api.url, "m")
        tokenizer = crossrank.load_embedder(bi_encoder_folder, backend="fake").tokenizer
        index = Index.create(tmp_path / "index", embedder, tokenizer, model=embedder.name)
        index.add([Document("1", "paris")], embedder, tokenizer)
        options = ["-m", str(cross_encoder_folder), "--embedder", embedder.name, "--drain", "1"]
        with (
            started("serve", str(tmp_path / "index"), "--port", "0", *options) as (process, url),
            ThreadPoolExecutor(1) as pool,
        ):
            with httpx.Client(base_url=url, timeout=60) as client:
                until(lambda: client.get("/ready").status_code == 200, 60)
                sent = pool.submit(client.post, "/search", json={"query": "which?"})
                assert asked.wait(30)
                began = time.monotonic()
                process.send_signal(signal.SIGTERM)
                assert sent.result(30).status_code == 503
            assert process.wait(30) == 0
            assert time.monotonic() - began < 8
            free.set()


@pytest.mark.skipif(os.name == "nt", reason="SIGTERM cannot be sent to a process group there")
def test_sigterm_drains_and_leaves_with_code_0(cross_encoder_folder: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text(KEY + "\n", encoding="utf-8")
    arguments = ["serve", "--port", "0", "-m", str(cross_encoder_folder), "--no-embed", "--keys", str(keys)]
    with started(*arguments) as (process, url), ThreadPoolExecutor(4) as pool:
        headers = {"Authorization": f"Bearer {KEY}"}
        with httpx.Client(base_url=url, timeout=60, headers=headers) as client:
            # It said that it serves seconds before it did.
            assert process.stderr is not None
            while process.stderr.readline() != "Ready.\n":
                assert process.poll() is None
            assert client.get("/ready").status_code == 200
            body = {"query": "paris", "documents": [f"document {n} " + "of france " * 30 for n in range(200)]}
            sent = [pool.submit(client.post, "/v2/rerank", json=body) for _ in range(3)]
            numbers = "crossrank_requests_under_way 3.0"
            until(lambda: numbers in client.get("/metrics").text)
            process.send_signal(signal.SIGTERM)
            assert [len(future.result(60).json()["results"]) for future in sent] == [200] * 3
        assert process.wait(30) == 0
        lines = [json.loads(line) for line in process.stderr or () if line.startswith("{")]
        assert sum(line["status"] == 200 and line["path"] == "/v2/rerank" for line in lines) == 3


@contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process of the command line that serves, and its address."""
    # A single core computes the reference backend for long enough to be interrupted.
    environment = {**os.environ, "PYTHONPATH": str(PROJECT / "src"), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "crossrank.cli", *arguments]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            yield process, process.stderr.readline().removeprefix("Listening on ").partition(",")[0]
        finally:
            process.kill()
