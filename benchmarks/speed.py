"""How fast is crossrank on a CPU, beside the libraries that people use?

    python benchmarks/speed.py [--contenders crossrank st/torch/float32 ...] [--tiers] [--python PYTHON ...]

The same model (exported to a folder), the same pairs, the same number of threads; every contender in a process of its
own, all alive, taking turns (A B A B), so that a busy minute of the machine meets all of them. Tokenization is included
everywhere. Medians. Workloads: short and long pairs as `crossrank bench` makes them, and one query with 50 short
passages. A few scores of each contender are compared with the reference backend: who is fast with other scores is no
contender.

A peer that is not installed is named and left out. Peers may live in other environments than crossrank: give their
interpreters with --python; each contender runs on the first that has it. Their names are in contenders.py.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import machine
from crossrank import checkpoint, load
from crossrank.agreement import kendall
from crossrank.cli import workload
from crossrank.cli.stopwatch import percentile
from crossrank.models import named
from processes import EndedError, Worker

HERE = Path(__file__).resolve().parent
PEERS = (
    "st/torch/float32", "st/torch/bfloat16", "st/onnx", "st/openvino", "openvino/bf16", "openvino/bf16/streams",
    "flashrank", "fastembed",
)  # fmt: skip
# What OpenVINO is held to beside each of our tiers. It obeys in its matrix products; a few of its small kernels do not.
LIMITS = {"avx2": "AVX2", "avx512": "AVX512_CORE", "amx_bf16": "AVX512_CORE_AMX"}
PASSAGES = 50
# Scores that are compared with the reference backend: from the short and the long pairs.
CHECKED = (100, 20)
# Fewer pairs than this in the same order means other scores. bfloat16 reorders near ties: about 0.99.
AGREEMENT = 0.95


@dataclass
class Run:
    """A contender at work, and what it took."""

    worker: Worker
    ready: dict[str, Any]
    tau: float
    seconds: dict[str, list[float]] = field(default_factory=dict)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="small")
    parser.add_argument("--contenders", nargs="+", default=["crossrank", "crossrank/reference", *PEERS])
    parser.add_argument("--tiers", action="store_true", help="also each instruction set, OpenVINO held to the same")
    parser.add_argument("--python", nargs="+", default=[], metavar="PYTHON", help="more interpreters to find peers in")
    parser.add_argument("--threads", type=int, default=machine.cores())
    parser.add_argument("--repeats", type=int, default=5, help="of the short and the long pairs")
    parser.add_argument("--queries", type=int, default=100, help="timed for each contender")
    parser.add_argument("--share", type=float, default=1.0, help="of the pairs, for a quick look")
    machine.out_option(parser)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    about = machine.describe(options.threads)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        model, work = prepared(Path(folder), options)
        runs, missing = started(model, work, options, stack)
        if not runs:
            sys.exit("no contender could be started")
        measured(runs, missing, options)
        tokens = {name: [len(pair) for pair in encoded(model, work[name])] for name in ("short", "long")}
    summary = {
        "benchmark": "speed",
        "date": date.today().isoformat(),
        "model": options.model if not Path(options.model).exists() else Path(options.model).name,
        "machine": about,
        "tokenization": "included",
        "repeats": options.repeats,
        "queries": options.queries,
        "workloads": {
            name: {"pairs": len(found), "tokens_mean": round(statistics.mean(found), 1), "tokens_longest": max(found)}
            for name, found in tokens.items()
        },
        "contenders": {name: result(run, tokens) for name, run in runs.items()},
        "missing": missing,
    }
    print(table(summary, machine.line(about)))
    if options.out:
        options.out.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    else:
        print(json.dumps(summary))


def prepared(folder: Path, options: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """The model as an ordinary folder, and everything that is scored."""
    read = named.read(options.model, default="small")
    checkpoint.export(read, folder / "model")
    work: dict[str, Any] = {}
    for shape in (workload.SHORT, workload.LONG):
        kept = replace(shape, pairs=max(PASSAGES, round(shape.pairs * options.share)))
        work[shape.name] = workload.pairs(read.tokenizer(), kept, read.max_length)
    writer = workload.Writer(read.tokenizer(), "queries")
    short = [passage for _, passage in work["short"]]
    work["query"] = [
        [(query, passage) for passage in writer.dice.sample(short, PASSAGES)]
        for query in (writer.query() for _ in range(options.queries))
    ]
    work["check"] = work["short"][: CHECKED[0]] + work["long"][: CHECKED[1]]
    work["expected"] = load(folder / "model", backend="reference").score(work["check"]).tolist()
    (folder / "work.json").write_text(json.dumps(work), encoding="utf-8")
    return folder / "model", work


def encoded(model: Path, pairs: list[tuple[str, str]]) -> Iterator[list[int]]:
    """Token ids of each pair, special tokens included."""
    tokenizer = checkpoint.read(model).tokenizer()
    return (row.ids for row in tokenizer.encode_batch(pairs))


def names(options: argparse.Namespace) -> list[str]:
    """The contenders asked for, and with --tiers ours and OpenVINO's at each instruction set and dtype."""
    found = list(options.contenders)
    if options.tiers:
        from crossrank.backends.cpu import library

        for tier in library.tiers():
            found.append(f"crossrank/cpu:{tier}/float32")
            limit = LIMITS.get(tier)
            if limit:
                found.append(f"openvino/f32/isa={limit}")
            if "int16" in library.dtypes(tier):
                found.append(f"crossrank/cpu:{tier}/int16")
            if "bfloat16" in library.dtypes(tier):
                # AVX512_CORE alone would emulate bfloat16, which takes ten times as long.
                limit = "AVX512_CORE_BF16" if limit == "AVX512_CORE" else limit
                found += [f"crossrank/cpu:{tier}/bfloat16", f"openvino/bf16/isa={limit}"]
    return list(dict.fromkeys(found))


def started(
    model: Path, work: dict[str, Any], options: argparse.Namespace, stack: ExitStack
) -> tuple[dict[str, Run], dict[str, str]]:
    """Contenders that are ready and give the right scores, and why the others do not run."""
    runs: dict[str, Run] = {}
    missing: dict[str, str] = {}
    for name in names(options):
        reasons = []
        for python in [sys.executable, *options.python]:
            try:
                runs[name] = one(name, python, model, work, options, stack)
                break
            except (EndedError, LookupError) as error:
                reasons.append(str(error))
        else:
            missing[name] = "; ".join(dict.fromkeys(reasons))
            print(f"left out: {name}: {missing[name]}", file=sys.stderr)
    return runs, missing


def one(
    name: str, python: str, model: Path, work: dict[str, Any], options: argparse.Namespace, stack: ExitStack
) -> Run:
    """Start a contender and check its scores.

    Raises:
        EndedError: its process died.
        LookupError: it is not installed there, or it computes something else.
    """
    command = [python, str(HERE / "contenders.py"), name, "--model", str(model), "--threads", str(options.threads)]
    limit = name.rpartition("isa=")[2] if "isa=" in name else ""
    environment = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"} | (
        {"ONEDNN_MAX_CPU_ISA": limit} if limit else {}
    )
    worker = Worker([*command, "--work", str(model.parent / "work.json")], environment)
    if "missing" in worker.ready:
        worker.close()
        raise LookupError(worker.ready["missing"])
    stack.callback(worker.close)
    found = kendall(work["expected"], worker.ask({"scores": "check"})["scores"])
    if not found >= AGREEMENT:  # NaN, too
        raise LookupError(f"it orders only {found:.3f} of the passages as the reference backend does")
    print(f"ready: {name}: {worker.ready['about']}", file=sys.stderr)
    return Run(worker, worker.ready, found)


def measured(runs: dict[str, Run], missing: dict[str, str], options: argparse.Namespace) -> None:
    """Time everyone in turns, after one round to warm up; who dies is taken out."""
    requests: list[dict[str, Any]] = []
    for turn in range(-1, options.repeats):
        requests += [{"time": name, "keep": turn >= 0} for name in ("short", "long")]
    requests += [{"time": "query", "turn": turn, "keep": turn >= 0} for turn in range(-1, options.queries)]
    for done, request in enumerate(requests, start=1):
        print(f"\r{done} of {len(requests)} rounds", end="", file=sys.stderr, flush=True)
        for name, run in list(runs.items()):
            with taken_out(name, runs, missing):
                seconds = run.worker.ask(request)["seconds"]
                if request["keep"]:
                    run.seconds.setdefault(request["time"], []).append(seconds)
    print(file=sys.stderr)


@contextmanager
def taken_out(name: str, runs: dict[str, Run], missing: dict[str, str]) -> Iterator[None]:
    """A contender whose process ends is missing from then on."""
    try:
        yield
    except EndedError as error:
        missing[name] = str(error)
        del runs[name]
        print(f"\nleft out: {name}: {error}", file=sys.stderr)


def result(run: Run, tokens: dict[str, list[int]]) -> dict[str, Any]:
    """What JSON holds of one contender."""
    found: dict[str, Any] = {**run.ready, "kendall_tau": round(run.tau, 4)}
    for name, lengths in tokens.items():
        seconds = run.seconds[name]
        middle = statistics.median(seconds)
        found[name] = {
            "pairs_a_second": round(len(lengths) / middle, 1),
            "tokens_a_second": round(sum(lengths) / middle),
            "seconds": [round(value, 4) for value in seconds],
        }
    milliseconds = [1000 * value for value in run.seconds["query"]]
    found["query_ms"] = {
        "median": round(statistics.median(milliseconds), 2),
        "p99": round(percentile(milliseconds, 99), 2),
    }
    return found


def table(summary: dict[str, Any], about: str) -> str:
    """Markdown: rates, and how many times as fast the first contender is."""
    found = summary["contenders"]
    first = next(iter(found.values()))
    lines = [
        f"| | short pairs/s | ratio | long pairs/s | ratio | one query, {PASSAGES} passages | 99th percentile | tau |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in found.values():
        cells = [row["about"]]
        for name in ("short", "long"):
            rate = row[name]["pairs_a_second"]
            cells += [f"{rate:,.0f}", f"{first[name]['pairs_a_second'] / rate:.2f}"]
        cells += [f"{row['query_ms']['median']:,.1f} ms", f"{row['query_ms']['p99']:,.1f} ms"]
        lines.append(f"| {' | '.join([*cells, format(row['kendall_tau'], '.3f')])} |")
    sizes = "; ".join(
        f"{name}: {work['pairs']:,} pairs of {work['tokens_mean']:g} tokens, {work['tokens_longest']} at most"
        for name, work in summary["workloads"].items()
    )
    foot = (
        f"Model {summary['model']}, {summary['machine']['threads']} threads, tokenization included; medians of "
        f"{summary['repeats']} interleaved repeats and {summary['queries']} queries. {sizes}. Ratio: times as fast as "
        f"this the first row is. Tau: agreement with the order of the reference backend."
    )
    left = [f"- {name}: {reason}" for name, reason in summary["missing"].items()]
    parts = ["\n".join(lines), foot, about, *(["Left out:\n" + "\n".join(left)] if left else [])]
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
