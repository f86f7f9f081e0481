"""A server on a real socket of this machine, for tests."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

import crossrank
import tiny
from crossrank.backends.fake import Fake
from crossrank.server.app import Built, build
from crossrank.server.guard import Door
from crossrank.server.limits import Limits
from crossrank.server.listening import Listener
from crossrank.server.service import Service
from crossrank.types import Pooling, Tokens


class Slow(Fake):
    """The fake backend at so many tokens a second; `calls` are the sizes of its batches."""

    def __init__(self, rate: float = 1e9) -> None:
        super().__init__()
        self.rate = rate
        self.calls: list[int] = []

    def forward(self, tokens: Tokens) -> NDArray[np.float32]:
        self.calls.append(len(tokens.ids))
        time.sleep(len(tokens.ids) / self.rate)
        return super().forward(tokens)

    def pool(self, tokens: Tokens, pooling: Pooling) -> NDArray[np.float32]:
        return super().pool(tokens, pooling)


@contextmanager
def searching(folder: Path, documents: int, **config: Any) -> Iterator[Service]:
    """A service with an index of so many documents; `config` as for `tiny.cross_encoder`."""
    from crossrank.index import Document, Index

    embedder = crossrank.load_embedder(tiny.bi_encoder(folder / "embedder"), backend="fake")
    index = Index.create(folder / "index", embedder, embedder.tokenizer)
    made = [Document(f"{n}", f"paris is a city. Bread is number {n}.", metadata={"n": n}) for n in range(documents)]
    index.add(made, embedder, embedder.tokenizer)
    scorer = crossrank.load(tiny.cross_encoder(folder / "reranker", **config), backend="fake")
    service = Service(scorer, embedder, index, batch_tokens=1024)
    service.start()
    yield service
    service.stop()


class Serving:
    """A running server."""

    def __init__(self, service: Service, built: Built, listener: Listener, backend: Slow) -> None:
        self.service, self.built, self.listener, self.backend = service, built, listener, backend
        self.client = httpx.Client(base_url=listener.url, timeout=60)

    def rerank(self, documents: list[str], client: httpx.Client | None = None, **headers: str) -> httpx.Response:
        body = {"query": "what is the capital of france?", "documents": documents}
        return (client or self.client).post("/v2/rerank", json=body, headers=headers)

    def socket(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.listener.port), timeout=30)

    def alive(self) -> bool:
        return self.client.get("/health").status_code == 200


@contextmanager
def serving(
    reranker: Path | Mapping[str, crossrank.CrossEncoder],
    *,
    rate: float = 1e9,
    limits: Limits | None = None,
    door: Door | None = None,
    traces: Any = None,
    **options: Any,
) -> Iterator[Serving]:
    """Start a server on a free port and wait until it is ready; several models bring their own backends."""
    backend = Slow()
    scorers = (
        crossrank.CrossEncoder(crossrank.load(reranker, backend="fake").checkpoint, backend)
        if isinstance(reranker, Path)
        else reranker
    )
    service = Service(scorers, limits=limits, batch_tokens=1024, **options)
    built = build(service, door, traces)
    listener = Listener(built.app, "127.0.0.1", 0, service.limits)
    thread = threading.Thread(target=listener.run)
    thread.start()
    made = Serving(service, built, listener, backend)
    try:
        end = time.monotonic() + 30
        while made.client.get("/ready").status_code != 200:
            assert time.monotonic() < end, "not ready in 30 s"
            time.sleep(0.02)
        backend.calls.clear()
        # What is measured meanwhile is what the test asks for.
        service.scheduler.measures = {}
        # Only now, so that the warm-up is quick.
        backend.rate = rate
        yield made
    finally:
        made.client.close()
        listener.stop()
        thread.join(30)
        assert not thread.is_alive(), "the server did not stop"


def asked(service: Service, path: str, body: Any) -> httpx.Response:
    """The reply of a service that was started, without a socket."""

    async def posted() -> httpx.Response:
        transport = httpx.ASGITransport(app=build(service).app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.post(path, json=body)

    return asyncio.run(posted())


def request(path: str, body: Any, *more: str) -> bytes:
    """A request as it goes over the wire."""
    content = json.dumps(body).encode()
    head = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(content)}", *more, "", ""]
    return "\r\n".join(head).encode() + content


def until(true: Any, seconds: float = 20.0) -> None:
    """Wait for something."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"it did not happen in {seconds} s"
        time.sleep(0.005)
