"""The load of serve.py: the least HTTP client that can be, because it shares the machine with the server."""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import latency


@dataclass
class Seen:
    """What a load saw: seconds of answered requests and of others, and how many got each status.

    A status of 0 is a connection that broke or that was refused.
    """

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    refusals: list[float] = field(default_factory=list)

    def quantiles(self) -> dict[str, float]:
        """Median and 99th percentile of the answered requests, in milliseconds."""
        return quantiles(self.seconds)


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 99th percentile in milliseconds; 0 for none."""
    if len(seconds) < 2:
        return {"median_ms": round(1000 * sum(seconds), 1), "p99_ms": round(1000 * sum(seconds), 1)}
    parts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {"median_ms": round(1000 * parts[49], 1), "p99_ms": round(1000 * parts[98], 1)}


class Connection:
    """One connection, kept open between requests."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._path = parts.path
        self._address = (parts.hostname, parts.port)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, content: bytes, seen: Seen, headers: str = "") -> int:
        """Send one request and read its answer; 0 when the connection broke."""
        began = time.perf_counter()
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(*self._address)
            reader, writer = self._streams
            head = f"POST {self._path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}"
            writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
            answer = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(answer.split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            status = int(answer[9:12])
            if b"connection: close" in answer:
                self.close()
        except (OSError, asyncio.IncompleteReadError, IndexError):
            self._streams, status = None, 0
        took = time.perf_counter() - began
        seen.statuses[status] += 1
        (seen.seconds if status == 200 else seen.refusals).append(took)
        return status

    def close(self) -> None:
        """End the connection; the next request opens another."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def body(dice: random.Random, pool: Sequence[str], count: int) -> bytes:
    """A request for `count` passages drawn from the pool."""
    return json.dumps({"query": latency.QUERY, "documents": dice.choices(pool, k=count)}).encode()


async def closed(url: str, pool: Sequence[str], clients: int, documents: int, seconds: float) -> Seen:
    """So many clients, each asking again when it is answered."""
    seen, end = Seen(), time.perf_counter() + seconds

    async def client(number: int) -> None:
        dice, connection = random.Random(number), Connection(url)
        while time.perf_counter() < end:
            if not await connection.post(body(dice, pool, documents), seen):
                # A server that is gone is not asked a thousand times a second.
                await asyncio.sleep(0.01)
        connection.close()

    await asyncio.gather(*map(client, range(clients)))
    return seen


async def arriving(
    url: str,
    pool: Sequence[str],
    rate: float,
    documents: int,
    seconds: float,
    due: float,
    every: float,
    note: Callable[[], object],
) -> Seen:
    """Requests that arrive at random, `rate` a second, whatever happens to those before them.

    Args:
        url: where they go.
        pool: passages.
        rate: requests a second.
        documents: of each request.
        seconds: for so long.
        due: the deadline that each names, in seconds.
        every: so often `note` is called.
        note: looks at the server meanwhile.
    """
    seen, dice = Seen(), random.Random(2)
    free: list[Connection] = []
    tasks: set[asyncio.Task[None]] = set()

    async def one(content: bytes) -> None:
        connection = free.pop() if free else Connection(url)
        await connection.post(content, seen, f"X-Crossrank-Deadline-Ms: {1000 * due:.0f}\r\n")
        free.append(connection)

    began = noted = moment = time.perf_counter()
    while moment < began + seconds:
        moment += dice.expovariate(rate)
        await asyncio.sleep(max(0.0, moment - time.perf_counter()))
        tasks.add(asyncio.create_task(one(body(dice, pool, documents))))
        tasks = {task for task in tasks if not task.done()}
        if time.perf_counter() - noted > every:
            noted = time.perf_counter()
            note()
    await asyncio.gather(*tasks)
    for connection in free:
        connection.close()
    return seen
