"""`crossrank check`: does every way to run a model here give the same scores and the same order?"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from crossrank.cli import options, terminal
from crossrank.cli.exits import Exit
from crossrank.errors import CheckpointError, CrossrankError, ScoreError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from crossrank.checkpoint import Checkpoint
    from crossrank.cli.checkdata import Asked
    from crossrank.parity import Agreement, Way

# Swaps that are named; all are counted.
_NAMED = 5
SERVER = "HTTP server"


@click.command(
    "check",
    short_help="Test that all ways to run a model agree.",
    epilog="""\b
Examples:
  crossrank check small
  crossrank check ./my-model --data lists.jsonl
  crossrank check small --json | jq .ok
""",
)
@click.argument("model", type=options.ModelName())
@click.option(
    "--data", type=options.Given(dir_okay=False, allow_dash=True), metavar="FILE",
    help='JSON lines: {"query": "...", "documents": ["...", "..."]}.  [default: a built-in sample]',
)  # fmt: skip
@click.option(
    "--pairs", type=options.Count(min=1), metavar="N", default=1000, show_default=True,
    help="Read whole queries of the data until they have so many pairs.",
)  # fmt: skip
@click.option("--no-server", is_flag=True, help="Leave out the HTTP server.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
@options.threads
@click.pass_context
def command(
    context: click.Context,
    model: str,
    data: str | None,
    pairs: int,
    no_server: bool,
    as_json: bool,
    threads: int | None,
) -> None:
    """Compare every way to run cross-encoder MODEL on this machine, on your data: the NumPy reference, torch, each
    instruction set and number format of the native engine, and the HTTP server on a loopback address.

    The reference is the judge, or torch in float32 where the reference cannot run the model. Scores must be as near to
    the judge's as their number format allows, and only documents that the judge holds as good as tied may change
    places. The table tells the largest difference of a score and what is allowed, Kendall's tau, and the pairs that
    changed places. What is not installed is not compared, which is said. The exit code is 1 when a way disagrees.
    """
    from crossrank.cli import checkdata

    given = checkdata.read(data) if data is not None else list(checkdata.SAMPLE)
    asked = _within(given, pairs)
    if len(asked) < len(given):
        read = sum(len(one.documents) for one in asked)
        terminal.note(f"Compared on the first {len(asked):,} of {len(given):,} queries, {read:,} pairs; see --pairs.")
    report = _compared(model, asked, threads, no_server)
    if as_json:
        terminal.json_line(report)
    else:
        _print(report, asked)
    if not report["ok"]:
        context.exit(Exit.ERROR)


def _within(asked: Sequence[Asked], pairs: int) -> list[Asked]:
    """The first queries that have so many pairs together; one at least."""
    kept: list[Asked] = []
    total = 0
    for one in asked:
        total += len(one.documents)
        if kept and total > pairs:
            break
        kept.append(one)
    return kept


def _compared(model: str, asked: Sequence[Asked], threads: int | None, no_server: bool) -> dict[str, Any]:
    """The whole report, as JSON has it."""
    from crossrank.models import named
    from crossrank.parity import compare, spread

    read = named.read(model, default="small")
    if read.kind != "cross-encoder":
        raise CheckpointError(
            f"{read.name} is a {read.kind} model, and check compares the scores of cross-encoders, such as small"
        )
    pairs = [(one.query, document) for one in asked for document in one.documents]
    sizes = [len(one.documents) for one in asked]
    judge: NDArray[np.float32] | None = None
    report: dict[str, Any] = {"model": read.name, "queries": len(asked), "pairs": len(pairs), "judge": None}
    ways: list[dict[str, Any]] = []
    skipped: dict[str, str] = {}
    failed: dict[str, str] = {}
    known: dict[str, NDArray[np.float32]] = {}
    for label, opened in _ways(read, threads, no_server):
        try:
            with opened as way:
                began = time.perf_counter()
                scores = way.score(pairs)
                seconds = time.perf_counter() - began
        except (ScoreError, OSError) as error:  # It runs, and gives NaN or a refusal over HTTP: that is no agreement.
            failed[label] = str(error)
            continue
        except CrossrankError as error:
            skipped[label] = str(error)
            continue
        known[way.name] = scores
        if judge is None:
            judge = scores
            report |= {"judge": way.name, "spread": spread(scores), "judge_seconds": seconds}
        else:
            ways.append({**_fields(compare(way, scores, judge, sizes)), "seconds": seconds})
            _hold_to_library(ways[-1], scores, known)
    if not ways and not (failed and judge is not None):
        reasons = "; ".join(f"{name}: {why}" for name, why in {**skipped, **failed}.items())
        raise CrossrankError(f"there are no two ways to run {read.name} here, so nothing can be compared. {reasons}")
    ok = all(way["ok"] for way in ways) and not failed
    return {**report, "ok": ok, "ways": ways, "skipped": skipped, "failed": failed}


def _fields(agreement: Agreement) -> dict[str, Any]:
    named = [{**asdict(swap), "gap": terminal.finite(swap.gap)} for swap in agreement.swaps[:_NAMED]]
    swaps = {"swaps": len(agreement.swaps), "furthest_swaps": named}
    finite = {"largest": terminal.finite(agreement.largest)}
    return {**asdict(agreement), **finite, **swaps, "ok": agreement.ok}


def _hold_to_library(way: dict[str, Any], scores: NDArray[np.float32], known: dict[str, NDArray[np.float32]]) -> None:
    """A server must also give what its backend gives without HTTP: to the bit, where batches change nothing."""
    import numpy as np

    from crossrank.parity import moves

    server, _, backend = way["name"].partition(": ")
    if server != SERVER or backend not in known:
        return
    finite = np.isfinite(scores)
    same = bool((finite == np.isfinite(known[backend])).all())
    apart = float(np.abs(scores[finite] - known[backend][finite]).max(initial=0.0)) if same else float("inf")
    way["from_library"] = terminal.finite(apart)
    way["ok"] = way["ok"] and apart <= moves(backend)


def _ways(read: Checkpoint, threads: int | None, no_server: bool) -> Iterator[tuple[str, Any]]:
    """Every way to run the model, the judge first, each to be opened when it is its turn."""
    from crossrank.backends import cuda
    from crossrank.backends.cpu import library

    yield "reference", _library(read, "reference", "float32", threads)
    for dtype in ("float32", "bfloat16"):
        yield f"torch ({dtype})", _library(read, "torch", dtype, threads)
    if cuda.unseen() is None:
        yield "cuda (auto)", _library(read, "cuda", "auto", threads, "cuda")
    reason = library.obstacle()
    if reason is not None:
        yield "cpu", _refused(f"the native engine is not there: {reason}")
    for tier in library.tiers():
        for dtype in library.dtypes(tier):
            yield f"cpu ({tier}, {dtype})", _library(read, f"cpu:{tier}", dtype, threads)
    if not no_server:
        yield SERVER, _server(read, threads)


@contextmanager
def _library(read: Checkpoint, backend: str, dtype: str, threads: int | None, device: str = "cpu") -> Iterator[Way]:
    from crossrank import backends
    from crossrank.crossencoder import CrossEncoder
    from crossrank.parity import Way, near

    scorer = CrossEncoder(read, backends.open(read, backend, device, dtype, threads))
    yield Way(scorer.backend.name, scorer.score, near(scorer.backend.name))


@contextmanager
def _server(read: Checkpoint, threads: int | None) -> Iterator[Way]:
    from crossrank import backends
    from crossrank.cli import loopback
    from crossrank.crossencoder import CrossEncoder
    from crossrank.parity import Way, near

    scorer = CrossEncoder(read, backends.open(read, threads=threads))
    with loopback.serving(scorer) as score:
        yield Way(f"{SERVER}: {scorer.backend.name}", score, near(scorer.backend.name))


@contextmanager
def _refused(reason: str) -> Iterator[Way]:
    raise CrossrankError(reason)
    yield


def _print(report: dict[str, Any], asked: Sequence[Asked]) -> None:
    if terminal.on_terminal():
        queries, pairs = terminal.count(report["queries"], "query", "queries"), terminal.count(report["pairs"], "pair")
        click.echo(f"{report['model']}: {queries}, {pairs}; judge: {report['judge']}\n")
        _print_table(report["ways"])
    else:
        for way in report["ways"]:
            terminal.tab_line(
                way["name"], "ok" if way["ok"] else "differs", f"{_shown(way['largest'])}", f"{way['limit']:.2g}",
                f"{way['tau']:.6f}", way["swaps"], way["ties"],
            )  # fmt: skip
    for way in report["ways"]:
        for swap in way["furthest_swaps"] if not way["ok"] else way["furthest_swaps"][:1]:
            terminal.note(_told(way, swap, asked))
    for way in report["ways"]:
        if "from_library" in way:
            exact = way["from_library"] == 0
            apart = "the scores of" if exact else f"scores up to {_shown(way['from_library'])} away from those of"
            terminal.note(f"{way['name']} gives {apart} the same backend without HTTP.")
    for name, why in report["failed"].items():
        terminal.warn(f"{name} failed: {why}")
    for name, why in report["skipped"].items():
        terminal.note(f"Not compared: {name}: {why}")
    if not report["ok"]:
        terminal.warn("not all ways agree. `crossrank doctor MODEL` tests each alone; please report this with --json.")


def _print_table(ways: Sequence[dict[str, Any]]) -> None:
    right = {"justify": "right", "no_wrap": True}
    table = terminal.table(
        ("way", {"overflow": "fold"}), ("", {}), ("largest", right), ("allowed", right), ("tau", right),
        ("same first", right), ("same order", right), ("swapped", right),
    )  # fmt: skip
    for way in ways:
        swapped = f"{way['swaps']}" + (f" ({way['ties']} ties)" if way["swaps"] else "")
        table.add_row(
            way["name"], "ok" if way["ok"] else "DIFFERS", _shown(way["largest"]), f"{way['limit']:.2g}",
            f"{way['tau']:.4f}", f"{way['same_first']} of {way['queries']}", f"{way['same_order']} of {way['queries']}",
            swapped,
        )  # fmt: skip
    terminal.console().print(table)


def _shown(largest: float | None) -> str:
    return "infinite" if largest is None else f"{largest:.2g}"


def _told(way: dict[str, Any], swap: dict[str, Any], asked: Sequence[Asked]) -> str:
    one = asked[swap["query"]]
    tie = "as good as tied" if swap["gap"] is not None and swap["gap"] <= 2 * way["limit"] else "not a tie"
    return (
        f"{way['name']}: query {swap['query'] + 1} ({terminal.shown(one.query, 40)}) has documents {swap['first'] + 1} "
        f"and {swap['second'] + 1} the other way round; the judge's scores differ by {_shown(swap['gap'])}, {tie}."
    )
