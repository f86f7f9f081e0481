"""`crossrank bench`: how fast this install scores on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import click

from crossrank import cores
from crossrank.cli import machine, options, stopwatch, terminal


@click.command(
    "bench",
    short_help="Measure how fast a cross-encoder runs here.",
    epilog="""\b
Examples:
  crossrank bench
  crossrank bench --quick
  crossrank bench --backend reference --threads 1 --repeats 3
  crossrank bench cross-encoder/ms-marco-MiniLM-L-6-v2 --json | jq .throughput.short.pairs_a_second
""",
)
@click.argument("model", required=False, type=options.ModelName())
@options.engine
@click.option(
    "--repeats",
    type=click.IntRange(1, 1000),
    help="How often each workload is scored.  [default: 5, or 1 with --quick]",
)
@click.option("--quick", is_flag=True, help="A tenth of the pairs: a first look in seconds, not a figure to quote.")
@click.option("--json", "as_json", is_flag=True, help="Print the measurements as one JSON object.")
def command(
    model: str | None,
    backend: str,
    device: str,
    dtype: str,
    threads: int | None,
    repeats: int | None,
    quick: bool,
    as_json: bool,
) -> None:
    """Measure pairs a second, the time of one query, and memory, with made-up texts of realistic lengths.

    Short pairs have 83 tokens on average, as web passages do, long ones 241. Times are medians with tokenization, and
    without it where a line says so. Of the native engine it also tells how much of the processor's attainable matrix
    product the forward pass reaches. --threads holds everything to so many cores, tokenization and the other backends
    too. Close other programs first: they change every figure.
    """
    import crossrank

    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    available = cores.available()
    report: dict[str, Any] = {"crossrank": crossrank.__version__, "load_before": busy, "quick": quick}
    if busy is not None and busy > available / 2:
        terminal.warn(f"other programs keep {busy:.1f} cores busy, so these times say little.")
    with stopwatch.held_to(threads):
        report["threads"] = threads or available
        report |= stopwatch.measure(
            lambda: crossrank.load(model, backend=backend, device=device, dtype=dtype, threads=threads),
            repeats or (1 if quick else 5),
            terminal.note,
            stopwatch.QUICK if quick else 1.0,
        )
    # Only now: it imports NumPy, whose threads would not have been held.
    report["machine"] = machine.facts()["machine"]
    if as_json:
        terminal.json_line(report)
    elif terminal.on_terminal():
        _print_table(report)
    else:
        for name, value, detail in _lines(report):
            terminal.tab_line(name, value, detail)


def _lines(report: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What was measured, its value, and how."""
    for name, found in report["throughput"].items():
        tokens = found["tokens"]
        yield (
            f"{name} pairs",
            f"{found['pairs_a_second']:,.0f} pairs/s",
            f"{found['pairs']:,} pairs of {tokens['mean']:g} tokens on average, {tokens['longest']} at most: "
            f"{terminal.duration(found['seconds'])}",
        )
    for name, found in report["throughput"].items():
        known = found["from_tokens"]
        yield (
            f"{name} pairs, from token ids",
            f"{known['pairs_a_second']:,.0f} pairs/s",
            f"only queries are tokenized, as in a search: {terminal.duration(known['seconds'])}",
        )
    for count, found in report["latency_ms"].items():
        name = "one pair" if count == "1" else f"one query, {count} passages"
        detail = f"99th percentile {found['p99']:,.1f} ms of {terminal.count(found['times'], 'time')}"
        yield name, f"{found['median']:,.1f} ms", detail
    yield "load", terminal.duration(report["load_seconds"]), report["model"]
    forward = report["forward"]
    if forward is not None:
        for name in report["throughput"]:
            found = forward[name]
            yield (
                f"{name} pairs, forward pass",
                f"{found['share_of_peak']:.0%} of the peak",
                f"{found['gflops']:,.0f} of {forward['peak_gflops']:,.0f} GFLOP/s, without tokenization",
            )
    memory = report["memory_mib"]
    if memory["peak"] is not None:
        yield "peak memory", f"{memory['peak']:,.0f} MiB", f"{memory['loaded']:,.0f} MiB after loading"


def _print_table(report: dict[str, Any]) -> None:
    table = terminal.table(("what", {"no_wrap": True}), ("measured", {"justify": "right", "no_wrap": True}), ("", {}))
    for row in _lines(report):
        table.add_row(*row)
    terminal.console().print(table)
    facts = report["machine"]
    terminal.note(
        f"{report['backend']}; {report['threads']} of {terminal.count(facts['cores'], 'core')} of {facts['cpu']} "
        f"({facts['isa']}); medians of {terminal.count(report['repeats'], 'repeat')}; "
        f"tokenization included unless said; crossrank {report['crossrank']}"
    )
