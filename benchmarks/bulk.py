"""Bulk reranking: is the result that of one process, is nothing lost to kill -9, does it scale, what memory is held?

    python benchmarks/bulk.py --pairs 200000 --ways processes ray --workers 1 2 --kills leader worker

One process scores all pairs; the bytes of its parts and of its ranking are the standard. Then each way runs with each
number of workers undisturbed and, with the largest number, once for each kill: a worker, or the leading process, gets
SIGKILL when a third of the parts are done, and the same command is run again. Every run must end with the standard's
bytes: each pair once, no more and no less.

Prints one JSON object. `efficiency` is the speed of a worker divided by that of one worker alone in the same way (of
medians, where there are several --rounds): 1 is linear scaling. It means something only where each worker has a core of
its own. Needs Linux: processes are looked for in /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import machine

WORDS = ["the", "what", "is", "a", "of", "in", "capital", "france", "paris", "bread", "yeast", "cat", "planet", "river"]
DEADLINE = 3_600.0
# Pairs of one query.
DEPTH = 100


@dataclass(frozen=True)
class Asked:
    """What every run has in common."""

    rows: Path
    model: str
    part_tokens: int

    def start(self, to: Path, how: list[str], log: Path) -> subprocess.Popen[bytes]:
        """The command, its output in a file."""
        asked = ["bulk", "rerank", str(self.rows), "--to", str(to), "--model", self.model, "--json"]
        command = [sys.executable, "-m", "crossrank.cli", *asked, "--part-tokens", str(self.part_tokens), *how]
        with log.open("wb") as out:
            return subprocess.Popen(command, stdout=out, env={**os.environ, "HF_HUB_OFFLINE": "1"})

    def run(self, to: Path, how: list[str]) -> dict[str, Any]:
        """The command from beginning to end: what it prints, and the most memory that it held."""
        log = to.with_suffix(".log")
        process = self.start(to, how, log)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"the run {how} ended with code {process.returncode}")
        found: dict[str, Any] = json.loads(log.read_text(encoding="utf-8"))
        return {**found, "peak_mb": round(used.ru_maxrss / 1024)}


def write_rows(path: Path, pairs: int) -> None:
    """Pairs of random words, 5 to 60 a passage, `DEPTH` for each query; always the same ones."""
    dice = random.Random(0)
    with path.open("w", encoding="utf-8") as stream:
        for place in range(pairs):
            query, text = place // DEPTH, " ".join(dice.choices(WORDS, k=dice.randint(5, 60)))
            row = {"query_id": f"q{query}", "query": f"what is {WORDS[query % len(WORDS)]} {query}?"}
            stream.write(json.dumps({**row, "document_id": f"d{place}", "text": text}) + "\n")


def done(to: Path) -> int:
    """Parts that are on the disk."""
    return sum(file.suffix != ".part" for file in to.glob("parts/*"))


def until(there: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Wait for something that a run does."""
    deadline = time.monotonic() + DEADLINE
    while not there():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit("the run ended, or took too long, before it could be killed: give more --pairs")
        time.sleep(0.002)


def below(process: int) -> Iterator[int]:
    """The processes that a process started, and theirs."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")
        except OSError:
            continue
        if int(fields.split()[1]) == process:
            yield int(stat.parent.name)
            yield from below(int(stat.parent.name))


def workers(process: int) -> list[int]:
    """Those of them that score: spawned processes, or Ray's actors."""
    return [
        child for child in below(process) if any(mark in _command(child) for mark in (b"spawn_main", b"ray::Worker"))
    ]


def _command(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def killed(asked: Asked, to: Path, how: list[str], victim: str, parts: int) -> dict[str, Any]:
    """A run in which somebody is killed when a third of the parts are done, gone on with until it ends."""
    process = asked.start(to, how, to.with_suffix(".first.log"))
    until(lambda: done(to) >= max(1, parts // 3), process)
    scoring = workers(process.pid)
    if victim == "worker":
        os.kill(scoring[0], signal.SIGKILL)
    else:
        process.send_signal(signal.SIGKILL)
    if process.wait() and victim == "worker":
        raise SystemExit(f"the run {how} did not survive the death of a worker")
    deadline = time.monotonic() + DEADLINE
    while any(_command(child) for child in scoring) and time.monotonic() < deadline:
        time.sleep(0.05)
    before = done(to)
    again = asked.run(to, how)
    return {"parts_before": before, **again}


def same(to: Path, standard: Path) -> bool:
    """Every part once, and every byte as in the undisturbed run of one process."""

    def files(of: Path) -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in (*of.glob("parts/*"), of / "ranking.jsonl")}

    return files(to) == files(standard)


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All runs."""
    asked = Asked(folder / "pairs.jsonl", args.model, args.part_tokens)
    write_rows(asked.rows, args.pairs)
    standard = folder / "one"
    # Scores are the same to the bit on any number of threads, so the standard need not take the longest.
    threads = max(args.workers)
    one = asked.run(standard, ["--workers", "0", "--threads", str(threads)])
    parts = done(standard)
    runs = []

    def add(way: str, count: int, victim: str) -> None:
        to = folder / f"{way}-{count}-{victim}-{len(runs)}"
        how = ["--workers", str(count), *(["--ray", "local"] if way == "ray" else [])]
        found = asked.run(to, how) if victim == "nobody" else killed(asked, to, how, victim, parts)
        kept = ("scored", "kept", "seconds", "peak_mb", "parts_before")
        facts = {name: found[name] for name in kept if name in found}
        runs.append({"way": way, "workers": count, "killed": victim, **facts, "same": same(to, standard)})
        print(json.dumps(runs[-1]), file=sys.stderr, flush=True)

    for way in args.ways:
        for _ in range(args.rounds):
            for count in args.workers:
                add(way, count, "nobody")
        for victim in args.kills:
            add(way, max(args.workers), victim)
    _rate(runs, args.pairs)
    single = {name: one[name] for name in ("scored", "tokens", "seconds", "peak_mb")}
    return {"pairs": args.pairs, "parts": parts, "one_process": {**single, "threads": threads}, "runs": runs}


def _rate(runs: list[dict[str, Any]], pairs: int) -> None:
    """Speeds of undisturbed runs, and of several of a kind the median beside that of one worker of the same way."""
    free = [run for run in runs if run["killed"] == "nobody"]
    kinds: dict[tuple[str, int], list[float]] = {}
    for run in free:
        run["pairs_per_second"] = round(pairs / run["seconds"], 1)
        kinds.setdefault((run["way"], run["workers"]), []).append(pairs / run["seconds"])
    for run in free:
        if alone := kinds.get((run["way"], 1)):
            usual = median(kinds[run["way"], run["workers"]])
            run["efficiency"] = round(usual / median(alone) / run["workers"], 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--model", default="small", help="a name or a folder")
    parser.add_argument("--part-tokens", type=int, default=100_000)
    parser.add_argument("--ways", nargs="+", choices=["processes", "ray"], default=["processes"])
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=1, help="undisturbed runs of each kind, taking turns")
    parser.add_argument("--kills", nargs="*", choices=["leader", "worker"], default=["leader", "worker"])
    args = parser.parse_args()
    machine.limit_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(args, Path(folder))
    about = {"model": Path(args.model).name, "backend": machine.backend(args.model)}
    print(json.dumps({**found, **about, "machine": machine.describe(max(args.workers))}))
    if not all(run["same"] for run in found["runs"]):
        sys.exit("a run did not end with the bytes of one process")


if __name__ == "__main__":
    main()
