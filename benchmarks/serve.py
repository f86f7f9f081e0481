"""Does the server keep the engine's speed, is it fair, and what does it do when it is offered too much?

    python benchmarks/serve.py [--clients 64] [--documents 20] [--seconds 30] [--parts throughput fair overload restart]

throughput  so many clients, each asking again as soon as it is answered, against the bare engine on the same lists
fair        the latency of one small client, alone and beside a client that sends 5,000 long documents
overload    requests arriving at twice the measured capacity, each due in two seconds: answered, refused, late, memory
restart     kill -9 under load, and the seconds until `/ready` again

The server runs in a process of its own, and so does the load. Engine and server are measured in turn (A B A B).
Passages are the English of `latency.py`. On a machine with few cores the load takes its share from the server: say so
beside the figures, or give the server cores of its own with --server-cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import latency
import machine

PARTS = ("throughput", "fair", "overload", "restart")
DUE = 2.0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None, help="default: the model in the wheel")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--documents", type=int, default=20, help="of one request")
    parser.add_argument("--large", type=int, default=5000, help="documents of the large request in `fair`")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each measurement; `overload` takes twice that")
    parser.add_argument("--rounds", type=int, default=3, help="engine and server in turn, so often")
    parser.add_argument("--threads", type=int, default=machine.cores())
    parser.add_argument(
        "--server-cores", default=None, help="such as 0,1: only these for the server, the rest for load"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--engine", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    machine.limit_threads(options.threads)
    if options.engine:
        engine(options)
        return
    about = machine.describe(options.threads)
    pool = passages(options)
    found: dict[str, Any] = {}
    with Server(options) as server:
        measures = {"throughput": throughput, "fair": fair, "overload": overload, "restart": restart}
        for part in [part for part in PARTS if part in options.parts]:
            found[part] = measures[part](options, server, pool)
            print(f"{part}: {json.dumps(found[part])}", flush=True)
    summary = {
        "benchmark": "serve", "model": Path(options.model).name if options.model else "small", "machine": about,
        "clients": options.clients, "documents": options.documents, **found,
    }  # fmt: skip
    print("\n" + machine.line(about))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    else:
        print(json.dumps(summary))


def passages(options: argparse.Namespace) -> list[str]:
    import crossrank

    tokenizer = crossrank.load(options.model, backend="fake").checkpoint.tokenizer()
    return latency.cut(latency.english(), tokenizer, latency.QUERY)


def pinned(options: argparse.Namespace, server: bool) -> list[str]:
    """The words in front of a command that keep the server, or the load, to its cores."""
    if options.server_cores is None:
        return []
    mine = {int(core) for core in options.server_cores.split(",")}
    cores = mine if server else set(os.sched_getaffinity(0)) - mine
    return ["taskset", "-c", ",".join(map(str, sorted(cores)))] if cores else []


class Server:
    """`crossrank serve` in a process of its own."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._process: subprocess.Popen[str] | None = None
        self.url = ""
        self.start()

    def start(self) -> float:
        """Start it; seconds until it is ready."""
        options = self._options
        command = [*pinned(options, True), sys.executable, "-m", "crossrank.cli", "serve", "--port", "0", "--quiet",
                   "--no-embed", "--backend", options.backend]  # fmt: skip
        command += ["--model", options.model] if options.model else []
        began = time.perf_counter()
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        line = self._process.stderr.readline()
        if " on http" not in line:
            sys.exit(f"the server did not start: {line}")
        self.url = line.split(" on ")[1].split(". Ctrl")[0]
        while not self._ready():
            time.sleep(0.02)
        return time.perf_counter() - began

    def _ready(self) -> bool:
        try:
            return bool(json.load(urlopen(self.url + "/ready"))["ready"])
        except OSError:
            return False

    def memory(self) -> float | None:
        """Resident MB, where the system tells it."""
        assert self._process is not None
        try:
            text = Path(f"/proc/{self._process.pid}/status").read_text(encoding="utf-8")
        except OSError:
            return None
        return int(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024

    def kill(self) -> None:
        """As the system does when memory is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()


@dataclass
class Seen:
    """What a load saw: seconds of answered requests, and how many got each status."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    refusals: list[float] = field(default_factory=list)

    def quantiles(self) -> dict[str, float]:
        """Median and 99th percentile in milliseconds."""
        if len(self.seconds) < 2:
            return {"median_ms": round(1000 * sum(self.seconds), 1), "p99_ms": round(1000 * sum(self.seconds), 1)}
        parts = statistics.quantiles(self.seconds, n=100, method="inclusive")
        return {"median_ms": round(1000 * parts[49], 1), "p99_ms": round(1000 * parts[98], 1)}


class Connection:
    """The least HTTP client that can be: one that costs little beside the server on the same machine."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname, parts.port)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, content: bytes, seen: Seen, headers: str = "") -> int:
        """Send one request and read its answer; 0 when the connection broke."""
        began = time.perf_counter()
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(*self._address)
            reader, writer = self._streams
            head = f"POST /v2/rerank HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {len(content)}\r\n\r\n"
            writer.write(head.encode() + content)
            answer = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(answer.split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            status = int(answer[9:12])
        except (OSError, asyncio.IncompleteReadError, IndexError):
            self._streams, status = None, 0
        took = time.perf_counter() - began
        seen.statuses[status] += 1
        (seen.seconds if status == 200 else seen.refusals).append(took)
        return status

    def close(self) -> None:
        """End the connection."""
        if self._streams is not None:
            self._streams[1].close()


def body(dice: random.Random, pool: Sequence[str], count: int) -> bytes:
    return json.dumps({"query": latency.QUERY, "documents": dice.choices(pool, k=count)}).encode()


async def closed(url: str, pool: Sequence[str], clients: int, documents: int, seconds: float) -> Seen:
    """So many clients, each asking again when it is answered."""
    seen, end = Seen(), time.perf_counter() + seconds

    async def client(number: int) -> None:
        dice, connection = random.Random(number), Connection(url)
        while time.perf_counter() < end:
            await connection.post(body(dice, pool, documents), seen)
        connection.close()

    await asyncio.gather(*map(client, range(clients)))
    return seen


def throughput(options: argparse.Namespace, server: Server, pool: list[str]) -> dict[str, Any]:
    """Documents a second, engine and server in turn."""
    rates: dict[str, list[float]] = {"engine": [], "server": []}
    seen = Seen()
    for _ in range(options.rounds):
        command = [*pinned(options, True), sys.executable, __file__, "--engine", "--seconds", str(options.seconds),
                   "--documents", str(options.documents), "--backend", options.backend,
                   "--threads", str(options.threads)]  # fmt: skip
        command += ["--model", options.model] if options.model else []
        rates["engine"].append(float(subprocess.check_output(command, text=True)))
        began = time.perf_counter()
        seen = asyncio.run(closed(server.url, pool, options.clients, options.documents, options.seconds))
        rates["server"].append(len(seen.seconds) * options.documents / (time.perf_counter() - began))
    middle = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "documents_a_second": {name: round(value, 1) for name, value in middle.items()},
        "share_of_engine": round(middle["server"] / middle["engine"], 3),
        "last_round": {**seen.quantiles(), "statuses": dict(seen.statuses)},
    }


def engine(options: argparse.Namespace) -> None:
    """In a process of its own: the bare engine on the same lists, one after another."""
    import crossrank

    scorer, pool = crossrank.load(options.model, backend=options.backend), passages(options)
    dice, done = random.Random(0), 0
    scorer.rank(latency.QUERY, pool[:50])
    end = time.perf_counter() + options.seconds
    began = time.perf_counter()
    while time.perf_counter() < end:
        scorer.rank(latency.QUERY, dice.choices(pool, k=options.documents))
        done += options.documents
    print(done / (time.perf_counter() - began))


def fair(options: argparse.Namespace, server: Server, pool: list[str]) -> dict[str, Any]:
    """One small client alone, then beside a large request."""
    quiet = asyncio.run(closed(server.url, pool, 1, options.documents, options.seconds))
    long = [" ".join(pool[at : at + 8]) for at in range(0, len(pool) - 8, 8)]

    async def beside() -> tuple[Seen, Seen]:
        large, content = Seen(), body(random.Random(1), long, options.large)
        connection = Connection(server.url)
        sending = asyncio.create_task(connection.post(content, large, "X-Crossrank-Deadline-Ms: 900000\r\n"))
        await asyncio.sleep(2.0)
        small = await closed(server.url, pool, 1, options.documents, options.seconds)
        assert not sending.done() or large.statuses[200], f"the large request got {dict(large.statuses)}"
        sending.cancel()
        connection.close()
        return small, large

    small, large = asyncio.run(beside())
    return {
        "quiet": quiet.quantiles(),
        "beside": small.quantiles(),
        "times_the_quiet_median": round(small.quantiles()["median_ms"] / quiet.quantiles()["median_ms"], 2),
        "large_finished_meanwhile": bool(large.seconds),
    }


def overload(options: argparse.Namespace, server: Server, pool: list[str]) -> dict[str, Any]:
    """Requests arriving at random at twice the capacity, each due in `DUE` seconds."""
    calm = asyncio.run(closed(server.url, pool, 8, options.documents, options.seconds / 2))
    capacity = len(calm.seconds) / (options.seconds / 2)
    dice, seen, memory = random.Random(2), Seen(), [server.memory()]

    async def offered() -> None:
        free: list[Connection] = []
        tasks: set[asyncio.Task[None]] = set()

        async def one(content: bytes) -> None:
            connection = free.pop() if free else Connection(server.url)
            await connection.post(content, seen, f"X-Crossrank-Deadline-Ms: {1000 * DUE:.0f}\r\n")
            free.append(connection)

        end = time.perf_counter() + 2 * options.seconds
        noted = due = time.perf_counter()
        while due < end:
            due += dice.expovariate(2 * capacity)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.add(asyncio.create_task(one(body(dice, pool, options.documents))))
            tasks = {task for task in tasks if not task.done()}
            if time.perf_counter() - noted > options.seconds / 5:
                noted = time.perf_counter()
                memory.append(server.memory())
        await asyncio.gather(*tasks)
        for connection in free:
            connection.close()

    asyncio.run(offered())
    refused = statistics.median(seen.refusals) if seen.refusals else 0.0
    return {
        "capacity_a_second": round(capacity, 1),
        "statuses": dict(seen.statuses),
        "answered": seen.quantiles(),
        "answered_after_deadline": sum(took > DUE + 0.1 for took in seen.seconds),
        "refused_median_ms": round(1000 * refused, 1),
        "memory_mb": [None if one is None else round(one, 1) for one in memory],
    }


def restart(options: argparse.Namespace, server: Server, pool: list[str]) -> dict[str, Any]:
    """Kill the server under load and start it again."""

    async def killed() -> None:
        load = asyncio.create_task(closed(server.url, pool, 8, options.documents, 1.0))
        await asyncio.sleep(0.5)
        server.kill()
        await load

    taken = []
    for _ in range(options.rounds):
        asyncio.run(killed())
        taken.append(round(server.start(), 2))
    return {"seconds_to_ready": taken}


if __name__ == "__main__":
    main()
