"""The measurements of `crossrank bench`: how fast this install scores on this machine, as a JSON object."""

from __future__ import annotations

import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from crossrank.cli import workload
from crossrank.cli.operations import operations

if TYPE_CHECKING:
    from crossrank.crossencoder import CrossEncoder
    from crossrank.types import Tokens

# Passages of one query, as users have them: one, and what a first stage hands over.
PASSAGES = (1, 10, 50, 100)
# One size of a query is timed this often for each repeat, and for no longer than so many seconds altogether.
_QUERIES_A_REPEAT = 40
_SECONDS = 5.0
_PEAK_SECONDS = 0.3
# Of the pairs and of the seconds of each query size, for a quick look.
QUICK = 0.1

Say = Callable[[str], None]


@contextmanager
def held_to(threads: int | None) -> Iterator[None]:
    """Let this process run on so many cores only, which every library's choice of threads follows.

    Raises:
        click.UsageError: this process has fewer, or the system cannot do it.
    """
    if threads is None:
        yield
        return
    if not hasattr(os, "sched_setaffinity"):
        raise click.UsageError("this system cannot hold a process to some of its cores; leave out --threads")
    allowed = os.sched_getaffinity(0)
    if threads > len(allowed):
        raise click.UsageError(f"this process may use {len(allowed)} cores, not {threads}")
    os.sched_setaffinity(0, sorted(allowed)[:threads])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def measure(load: Callable[[], CrossEncoder], repeats: int, say: Say, share: float = 1.0) -> dict[str, Any]:
    """Load a scorer and time it; seconds are medians. `from_tokens` and `forward` leave tokenization out.

    Args:
        load: makes the scorer, in this process for the first time.
        repeats: how often each workload is scored.
        say: is told what is going on.
        share: of the pairs, at least 100 of the short and 40 of the long ones, and of the time for single queries.
    """
    began = time.perf_counter()
    scorer = load()
    loaded = time.perf_counter() - began
    memory_loaded = peak_memory()
    read = scorer.checkpoint
    shapes = (_part(workload.SHORT, share, 100), _part(workload.LONG, share, 40))
    work = {shape.name: workload.pairs(read.tokenizer(), shape, read.max_length) for shape in shapes}
    say(f"{scorer!r}: loaded in {loaded:.2f} s; scoring {' and '.join(work)} pairs, {repeats} times each.")
    tokens = {name: _tokens(scorer, pairs) for name, pairs in work.items()}
    texts, ids, forward = _throughput(scorer, work, tokens, repeats)
    say("One query at a time.")
    latency = {
        str(count): _latency(scorer, [passage for _, passage in work["short"]], count, repeats, _SECONDS * share)
        for count in PASSAGES
    }
    return {
        "model": read.name,
        "backend": scorer.backend.name,
        "repeats": repeats,
        "load_seconds": round(loaded, 4),
        "throughput": {name: _rates(tokens[name], texts[name], ids[name]) for name in work},
        "latency_ms": latency,
        "forward": forward,
        "memory_mib": {"loaded": memory_loaded, "peak": peak_memory()},
    }


def _part(shape: workload.Shape, share: float, least: int) -> workload.Shape:
    return replace(shape, pairs=min(shape.pairs, max(least, round(shape.pairs * share))))


def _tokens(scorer: CrossEncoder, pairs: Sequence[tuple[str, str]]) -> Tokens:
    from crossrank.encoder import PairEncoder

    return PairEncoder.of(scorer.checkpoint, scorer.checkpoint.max_length).encode(pairs, scorer.windows).tokens


def _throughput(
    scorer: CrossEncoder, work: dict[str, list[tuple[str, str]]], tokens: dict[str, Tokens], repeats: int
) -> tuple[dict[str, list[float]], dict[str, list[float]], dict[str, Any] | None]:
    """Seconds of each workload from texts and from token ids, in turns, and the forward pass beside the peak."""
    known = {name: _known(scorer, pairs) for name, pairs in work.items()}
    scorer.score(work["short"][:100])
    native = _Native.of(scorer)
    texts: dict[str, list[float]] = {name: [] for name in work}
    ids: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats):
        for name, pairs in work.items():
            texts[name].append(_seconds(partial(scorer.score, pairs)))
            ids[name].append(_seconds(partial(scorer.scored_tokens, *known[name])))
            if native is not None:
                native.turn(name, tokens[name])
    return texts, ids, native.report() if native is not None else None


def _known(scorer: CrossEncoder, pairs: Sequence[tuple[str, str]]) -> tuple[list[str], Tokens]:
    """Queries, and passages as an index holds them: without special tokens."""
    from crossrank.types import Tokens

    rows = scorer.checkpoint.tokenizer().encode_batch([passage for _, passage in pairs], add_special_tokens=False)
    return [query for query, _ in pairs], Tokens.of([row.ids for row in rows])


class _Native:
    """The native engine's forward pass without tokenization, and the attainable peak, measured in turns with it."""

    def __init__(self, scorer: CrossEncoder) -> None:
        self._read, self._backend = scorer.checkpoint, scorer.backend
        self._peaks: list[float] = []
        self._rates: dict[str, list[float]] = {}
        self._seconds: dict[str, list[float]] = {}

    @classmethod
    def of(cls, scorer: CrossEncoder) -> _Native | None:
        """None for another backend."""
        from crossrank.backends import cpu

        return cls(scorer) if isinstance(scorer.backend, cpu.Native) else None

    def turn(self, name: str, tokens: Tokens) -> None:
        """Time one forward pass and one peak."""
        self._peaks.append(self._peak())
        seconds = _seconds(partial(self._forward, _batches(tokens)))
        done = operations(self._read.config, self._read.architecture, self._read.labels, tokens.lengths)
        self._seconds.setdefault(name, []).append(seconds)
        self._rates.setdefault(name, []).append(done / seconds / 1e9)

    def _forward(self, batches: list[Tokens]) -> None:
        for batch in batches:
            self._backend.forward(batch)

    def _peak(self) -> float:
        """Billions of operations a second of all threads together: side by side they may run slower than one alone."""
        from crossrank.backends import cpu

        assert isinstance(self._backend, cpu.Native)
        tier, dtype, threads = self._backend.tier, self._backend.dtype, self._backend.threads
        with ThreadPoolExecutor(threads) as pool:
            return sum(pool.map(lambda _: cpu.peak(tier, dtype, _PEAK_SECONDS), range(threads)))

    def report(self) -> dict[str, Any]:
        """Medians of both, and how much of the peak is reached."""
        peak = statistics.median(self._peaks)
        found: dict[str, Any] = {"peak_gflops": round(peak, 1)}
        for name, rates in self._rates.items():
            rate = statistics.median(rates)
            found[name] = {
                "seconds": round(statistics.median(self._seconds[name]), 5),
                "gflops": round(rate, 1),
                "share_of_peak": round(rate / peak, 3),
            }
        return found


def _batches(tokens: Tokens) -> list[Tokens]:
    """As a scorer hands them to the native engine."""
    from crossrank.batching import BUDGET, plan

    return [tokens.take(batch) for batch in plan(tokens.lengths, BUDGET, padded=False)]


def _latency(scorer: CrossEncoder, pool: list[str], passages: int, repeats: int, limit: float) -> dict[str, Any]:
    """Milliseconds of one query with so many passages of the pool, each time another query and other passages."""
    writer = workload.Writer(scorer.checkpoint.tokenizer(), f"query {passages}")
    found: list[float] = []
    began = time.perf_counter()
    for turn in range(-2, _QUERIES_A_REPEAT * repeats):
        query, texts = writer.query(), random.Random(f"{passages} {turn}").sample(pool, passages)
        seconds = _seconds(partial(scorer.rank, query, texts))
        if turn >= 0:
            found.append(1000 * seconds)
        if found and time.perf_counter() - began > limit:
            break
    return {"median": round(statistics.median(found), 3), "p99": round(percentile(found, 99), 3), "times": len(found)}


def _rates(tokens: Tokens, seconds: list[float], from_tokens: list[float]) -> dict[str, Any]:
    pairs, middle, known = len(tokens), statistics.median(seconds), statistics.median(from_tokens)
    return {
        "pairs": pairs,
        "tokens": {"mean": round(float(tokens.lengths.mean()), 1), "longest": int(tokens.lengths.max())},
        "seconds": round(middle, 5),
        "pairs_a_second": round(pairs / middle, 1),
        "tokens_a_second": round(len(tokens.ids) / middle),
        "from_tokens": {"seconds": round(known, 5), "pairs_a_second": round(pairs / known, 1)},
        "runs": [round(value, 5) for value in seconds],
    }


def percentile(values: Sequence[float], q: float) -> float:
    """The q-th percentile, by linear interpolation between the two values beside it.

    >>> percentile([4.0, 1.0, 2.0, 3.0], 50)
    2.5
    """
    ordered = sorted(values)
    place = (len(ordered) - 1) * q / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def peak_memory() -> float | None:
    """Most MiB of memory that this process has held so far; None where the system does not tell."""
    if sys.platform == "win32":
        return None
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts KiB, macOS bytes.
    return round(most / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
