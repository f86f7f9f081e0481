"""Does the server keep the engine's speed, is it fair, and what does it do when it is offered too much?

    python benchmarks/serve.py --parts throughput [--seconds 30] [--rounds 3] [--clients 64] [--documents 20]
    python benchmarks/serve.py --parts peers [--peers st st=bfloat16 fifo fifo=bfloat16 infinity@PYTHON]
    python benchmarks/serve.py --parts fair [--large 5000]
    python benchmarks/serve.py --parts overload
    python benchmarks/serve.py --parts restart [--index FOLDER]

throughput  so many clients, each asking again as soon as it is answered, against the bare engine on the same lists
peers       the same load on crossrank and on servers of others, in turn, with the same weights; see serve_peers.py
fair        the latency of one small client, alone and beside a client that sends 5,000 long documents
overload    requests arriving at twice the measured capacity, each due in two seconds: answered, refused, late, memory
restart     kill -9 under load, and the seconds until `/ready` again on the same port; with embedder, and index if named

The server runs in a process of its own. Engine, server and peers are measured in turn (A B A B). Passages are the
English of `latency.py`. The load comes from this process, on the same machine: on one with few cores it takes its
share from the server. Say so beside the figures, or give the server cores of its own with --server-cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import latency
import machine
from serve_load import Connection, Seen, arriving, body, closed, quantiles

PARTS = ("throughput", "peers", "fair", "overload", "restart")
PEERS = ("st", "st=bfloat16", "fifo", "fifo=bfloat16", "infinity")
DUE = 2.0
# A peer that does not answer by then is left out.
PATIENCE = 120.0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None, help="default: the model in the wheel")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--documents", type=int, default=20, help="of one request")
    parser.add_argument("--large", type=int, default=5000, help="documents of the large request in `fair`")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each measurement; `overload` takes twice that")
    parser.add_argument("--rounds", type=int, default=3, help="in turn, so often")
    parser.add_argument("--threads", type=int, default=machine.cores())
    parser.add_argument(
        "--server-cores", default=None, help="such as 0,1: only these for the server, the rest for load"
    )
    parser.add_argument("--index", type=Path, default=None, help="that the restarted server opens")
    parser.add_argument(
        "--peers", nargs="+", default=list(PEERS), help="NAME, NAME=DTYPE; NAME@PYTHON runs it on another Python"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    machine.out_option(parser)
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
    measures = {
        "throughput": throughput, "peers": peers, "fair": fair, "overload": overload, "restart": restart,
    }  # fmt: skip
    for part in [part for part in PARTS if part in options.parts]:
        found[part] = measures[part](options, pool)
        print(f"{part}: {json.dumps(found[part])}", flush=True)
    summary = {
        "benchmark": "serve", "model": Path(options.model).name if options.model else "small", "machine": about,
        "backend": machine.backend(options.model, options.backend),
        "clients": options.clients, "documents": options.documents, **found,
    }  # fmt: skip
    print("\n" + machine.line(about))
    if options.out:
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


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


class Server:
    """A server in a process of its own, on a port that it keeps over restarts.

    Args:
        command: its words, with {port} where the port goes.
        path: that takes a rerank.
        log: where its output goes.
    """

    def __init__(self, command: list[str], path: str = "/v2/rerank", log: Any = None) -> None:
        port = free_port()
        self.base = f"http://127.0.0.1:{port}"
        self.url = self.base + path
        self._command = [word.replace("{port}", str(port)) for word in command]
        self._log = log
        self._process = subprocess.Popen(["true"])

    @classmethod
    def ours(cls, options: argparse.Namespace, *more: str) -> Server:
        """`crossrank serve`."""
        command = [*pinned(options, True), sys.executable, "-m", "crossrank.cli", "serve", "--port", "{port}",
                   "--quiet", "--backend", options.backend, "--threads", str(options.threads), *more]  # fmt: skip
        return cls(command + (["--model", options.model] if options.model else []))

    def start(self, ready: Callable[[], bool] | None = None) -> float:
        """Start it; seconds until it is ready: until `/ready` says so, or what a peer has instead.

        Raises:
            RuntimeError: it ended, or was not ready in time.
        """
        began = time.perf_counter()
        # infinity phones home unless it is told not to.
        quiet = {**os.environ, "DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0", "HF_HUB_OFFLINE": "1"}
        self._process = subprocess.Popen(self._command, stdout=self._log, stderr=self._log, env=quiet)
        while not (ready or self._ready)():
            if self._process.poll() is not None:
                raise RuntimeError(f"it ended with code {self._process.returncode}")
            if time.perf_counter() - began > PATIENCE:
                raise RuntimeError(f"it was not ready after {PATIENCE:.0f} s")
            time.sleep(0.02)
        return time.perf_counter() - began

    def _ready(self) -> bool:
        try:
            return bool(json.load(urlopen(self.base + "/ready"))["ready"])
        except OSError:
            return False

    def answers(self) -> bool:
        """Whether it ranks."""
        content = json.dumps({"query": "tea", "documents": ["Tea.", "Bread."]}).encode()
        try:
            urlopen(Request(self.url, content, {"Content-Type": "application/json"}), timeout=PATIENCE)
        except HTTPError as error:
            raise RuntimeError(f"it answered {error.code}") from error
        except OSError:
            return False
        return True

    def memory(self) -> float | None:
        """Resident MB, where the system tells it."""
        try:
            text = Path(f"/proc/{self._process.pid}/status").read_text(encoding="utf-8")
        except OSError:
            return None
        return round(int(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024, 1)

    def alive(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def kill(self) -> None:
        """As the system does when memory is gone."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()


def throughput(options: argparse.Namespace, pool: list[str]) -> dict[str, Any]:
    """Documents a second, engine and server in turn."""
    rates: dict[str, list[float]] = {"engine": [], "server": []}
    seen = Seen()
    with Server.ours(options, "--no-embed") as server:
        server.start()
        for _ in range(options.rounds):
            command = [*pinned(options, True), sys.executable, __file__, "--engine", "--seconds", str(options.seconds),
                       "--documents", str(options.documents), "--backend", options.backend,
                       "--threads", str(options.threads)]  # fmt: skip
            command += ["--model", options.model] if options.model else []
            rates["engine"].append(float(subprocess.check_output(command, text=True)))
            rate, seen = under_load(options, server, pool)
            rates["server"].append(rate)
    middle = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "documents_a_second": {name: round(value, 1) for name, value in middle.items()},
        "all": {name: [round(value, 1) for value in values] for name, values in rates.items()},
        "share_of_engine": round(middle["server"] / middle["engine"], 3),
        "last_round": {**seen.quantiles(), "statuses": dict(seen.statuses)},
    }


def under_load(options: argparse.Namespace, server: Server, pool: list[str]) -> tuple[float, Seen]:
    """Documents a second for all clients together, and what they saw."""
    began = time.perf_counter()
    seen = asyncio.run(closed(server.url, pool, options.clients, options.documents, options.seconds))
    return len(seen.seconds) * options.documents / (time.perf_counter() - began), seen


def engine(options: argparse.Namespace) -> None:
    """In a process of its own: the bare engine on the same lists, one after another."""
    import crossrank

    scorer = crossrank.load(options.model, backend=options.backend, threads=options.threads)
    pool, dice, done = passages(options), random.Random(0), 0
    scorer.rank(latency.QUERY, pool[:50])
    end = time.perf_counter() + options.seconds
    began = time.perf_counter()
    while time.perf_counter() < end:
        scorer.rank(latency.QUERY, dice.choices(pool, k=options.documents))
        done += options.documents
    print(done / (time.perf_counter() - began))


def peers(options: argparse.Namespace, pool: list[str]) -> dict[str, Any]:
    """Documents a second under the same load, crossrank and the others in turn; who does not start, and why."""
    from crossrank import checkpoint
    from crossrank.models import named

    rates: dict[str, list[float]] = {}
    seen: dict[str, Seen] = {}
    missing: dict[str, str] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        checkpoint.export(named.read(options.model, default="small"), folder / "model")
        running: dict[str, Server] = {}
        for named_peer in ["crossrank", *options.peers]:
            # The interpreter is nobody's business but this machine's.
            name = named_peer.partition("@")[0]
            log = stack.enter_context((folder / f"{name.replace('/', '_')}.log").open("w+b"))
            ours = name == "crossrank"
            server = Server.ours(options, "--no-embed") if ours else peer(options, named_peer, folder / "model", log)
            stack.enter_context(server)
            try:
                server.start(None if ours else server.answers)
                running[name] = server
            except (RuntimeError, OSError) as error:
                log.seek(0)
                lines = log.read().decode("utf-8", "replace").strip().splitlines()
                missing[name] = f"{error}: {lines[-1] if lines else 'it said nothing'}"[:300]
        for _ in range(options.rounds):
            for name, server in running.items():
                rate, seen[name] = under_load(options, server, pool)
                rates.setdefault(name, []).append(round(rate, 1))
    return {
        "documents_a_second": {name: statistics.median(values) for name, values in rates.items()},
        "all": rates,
        "last_round": {name: {**one.quantiles(), "statuses": dict(one.statuses)} for name, one in seen.items()},
        "missing": missing,
    }


def peer(options: argparse.Namespace, name: str, folder: Path, log: Any) -> Server:
    """A server of somebody else's."""
    spelled, _, python = name.partition("@")
    kind, _, dtype = spelled.partition("=")
    begin = [*pinned(options, True), python or sys.executable]
    if kind == "infinity":
        # Its warm-up measures batches of many sizes, which takes minutes on two cores; ours is a request.
        command = [*begin, "-m", "infinity_emb.cli", "v2", "--model-id", str(folder), "--port", "{port}", "--engine",
                   "torch", "--device", "cpu", "--dtype", dtype or "float32", "--no-bettertransformer",
                   "--no-model-warmup"]  # fmt: skip
        return Server(command, "/rerank", log)
    program = Path(__file__).with_name("serve_peers.py")
    command = [*begin, str(program), kind, "--model", str(folder), "--port", "{port}", "--threads",
               str(options.threads), "--dtype", dtype or "float32"]  # fmt: skip
    return Server(command, log=log)


def fair(options: argparse.Namespace, pool: list[str]) -> dict[str, Any]:
    """One small client alone, then beside a large request."""
    long = [" ".join(pool[at : at + 8]) for at in range(0, len(pool) - 8, 8)]
    with Server.ours(options, "--no-embed") as server:
        server.start()
        quiet = asyncio.run(closed(server.url, pool, 1, options.documents, options.seconds))

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
        "statuses": dict(small.statuses),
    }


def overload(options: argparse.Namespace, pool: list[str]) -> dict[str, Any]:
    """Requests arriving at random at twice the capacity, each due in `DUE` seconds."""
    with Server.ours(options, "--no-embed") as server:
        server.start()
        calm = asyncio.run(closed(server.url, pool, 8, options.documents, options.seconds / 2))
        capacity = len(calm.seconds) / (options.seconds / 2)
        memory = [server.memory()]
        seen = asyncio.run(
            arriving(server.url, pool, 2 * capacity, options.documents, 2 * options.seconds, DUE,
                     options.seconds / 5, lambda: memory.append(server.memory()))
        )  # fmt: skip
        return {
            "capacity_a_second": round(capacity, 1),
            "statuses": dict(seen.statuses),
            "answered": seen.quantiles(),
            "answered_after_deadline": sum(took > DUE + 0.1 for took in seen.seconds),
            "refused": quantiles(seen.refusals),
            "memory_mb": memory,
            "alive": server.alive(),
        }


def restart(options: argparse.Namespace, pool: list[str]) -> dict[str, Any]:
    """Kill the server under load and start it again on its port, with the embedder and the index."""
    taken, seen = [], Seen()
    with Server.ours(options, *([str(options.index)] if options.index else [])) as server:
        first = server.start()

        async def killed() -> Seen:
            load = asyncio.create_task(closed(server.url, pool, 8, options.documents, 1.0))
            await asyncio.sleep(0.5)
            server.kill()
            return await load

        for _ in range(options.rounds):
            seen = asyncio.run(killed())
            taken.append(round(server.start(), 2))
    return {"first_start": round(first, 2), "seconds_to_ready": taken, "answered_before_the_kill": len(seen.seconds)}


if __name__ == "__main__":
    main()
