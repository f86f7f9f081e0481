"""`GET /info`: what it says of an index that changes, is lost, or does not answer."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from crossrank.server.about import About
from crossrank.server.app import build
from crossrank.server.service import Service
from serving import searching

PROJECT = Path(__file__).resolve().parents[2]
HANGING = """
import asyncio, time
from crossrank.server import about

class Service:
    index = True
    def latest(self):
        time.sleep(60)

about._info = lambda service: {}
print(asyncio.run(about.About(Service(), patience=0.05).told()))
"""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    pytest.importorskip("lance", reason="the index needs the search extra")
    with searching(tmp_path, documents=3) as made:
        yield made


def info(service: Service) -> dict[str, Any]:
    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app=build(service).app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get("/info")

    reply = asyncio.run(asked())
    assert reply.status_code == 200
    made: dict[str, Any] = reply.json()
    return made


def test_it_counts_the_last_commit(service: Service, tmp_path: Path) -> None:
    # It told the old number until somebody searched.
    from crossrank.index import Document, Index

    assert info(service)["index"] == {"passages": 3}
    assert service.embedder is not None
    Index.open(tmp_path / "index").add([Document("new", "Tea is hot.")], service.embedder, service.embedder.tokenizer)
    assert info(service)["index"] == {"passages": 4}
    assert "index_error" not in info(service)


def test_an_index_that_cannot_be_read_is_said_to_be_so(
    service: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # It was a 500 in plain text, and a traceback in the log.
    (tmp_path / "index").rename(tmp_path / "gone")
    told = info(service)
    assert (told["index"], str(tmp_path) in told["index_error"]) == (None, False)
    assert told["model"]["name"] == service.reranker.name
    assert [str(tmp_path) in record.getMessage() for record in caplog.records] == [True]
    assert not any(record.exc_info for record in caplog.records)


def test_a_folder_that_does_not_answer_holds_up_nothing(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []

    def hang() -> Any:
        looks.append(time.monotonic())
        time.sleep(0.5)

    monkeypatch.setattr(service, "latest", hang)

    async def asked() -> list[dict[str, Any]]:
        about = About(service, patience=0.05)
        return list(await asyncio.gather(*(about.told() for _ in range(20))))

    assert {told["index_error"] for told in asyncio.run(asked())} == {"the index did not answer within 0.05 s"}
    assert len(looks) == 1


def test_a_moment_without_a_thread_is_not_told_for_good(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """From then on every reply waited for a thread that had never begun."""

    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def asked() -> dict[str, Any]:
        about = About(service)
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refused)
            with pytest.raises(RuntimeError, match="new thread"):
                await about.told()
        return await about.told()

    assert asyncio.run(asked())["index"] == {"passages": 3}


def test_a_folder_that_does_not_answer_does_not_hold_up_the_end() -> None:
    # The interpreter waited for the thread.
    environment = {**os.environ, "PYTHONPATH": str(PROJECT / "src")}
    done = subprocess.run([sys.executable, "-c", HANGING], env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "did not answer" in done.stdout


def test_an_index_that_fails_again_is_logged_again(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    well = service.latest

    def fail() -> Any:
        raise OSError("the disk is away")

    async def asked() -> None:
        about = About(service)
        for look in (fail, fail, well, fail, fail):
            monkeypatch.setattr(service, "latest", look)
            assert ("index_error" in await about.told()) == (look is fail)

    asyncio.run(asked())
    assert len(caplog.records) == 2
