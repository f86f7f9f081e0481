"""How fast is the GPU engine beside sentence-transformers on one card?

    python benchmarks/gpu.py [--model small] [--contenders crossrank/bfloat16 st/sdpa/bfloat16/32 ...] [--pairs 10000]

The same weights (exported to a folder), the same pairs, the same card, the same run; every contender in a process of
its own, all alive, taking turns (A B A B). Medians. For each: pairs a second with text in, with passages as token ids,
as an index holds them, and with all tokens ready; the share of the bfloat16 rate that the card attains in a large
product, measured in turns with the rest; one query with 50, 100 and 500 short passages, the first time (cold) apart;
the most memory that torch held on the card over the short and long pairs, and what the card gave for it. Scores of
each contender are compared with the reference backend: who is fast with other scores is no contender.

A contender that is not installed, or that the card does not run, is named and left out. Names are explained in
gpu_contenders.py. With --device cpu the script itself can be tried without a card; its figures then mean nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

import machine
from crossrank import checkpoint, load
from crossrank.agreement import kendall
from crossrank.cli import workload
from crossrank.cli.operations import operations
from crossrank.cli.stopwatch import percentile
from crossrank.models import named
from processes import EndedError, Worker
from speed import AGREEMENT

HERE = Path(__file__).resolve().parent
OURS = (
    "crossrank/bfloat16",
    "crossrank/float16",
    *(f"crossrank/bfloat16/{part}" for part in ("direct", "plain", "padded")),
)
PEERS = tuple(
    f"{library}/{attention}/bfloat16/{batch}"
    for library in ("st", "transformers")
    for attention in ("sdpa", "flash_attention_2")
    for batch in (32, 256)
)
PASSAGES = (50, 100, 500)
CHECKED = 200
COLD = " cold"


@dataclass
class Run:
    """A contender at work, and what it took."""

    worker: Worker
    ready: dict[str, Any]
    tau: float
    torch_mib: float
    card_mib: float | None
    seconds: dict[str, list[float]] = field(default_factory=dict)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="small")
    parser.add_argument("--contenders", nargs="+", default=[*OURS, *PEERS])
    parser.add_argument("--pairs", type=int, default=10_000, help="short ones; a fifth as many long ones")
    parser.add_argument("--repeats", type=int, default=5, help="of the short and the long pairs")
    parser.add_argument("--queries", type=int, default=50, help="timed for each contender and number of passages")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    machine.out_option(parser)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    about = machine.describe(machine.cores()) | {"card": card()}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        model, work, counts = prepared(Path(folder), options)
        runs, missing = started(model, work, options, stack)
        if not runs:
            sys.exit("no contender could be started")
        peaks = measured(runs, missing, model, options, stack)
    peak = statistics.median(peaks)
    summary = {
        "benchmark": "gpu",
        "date": date.today().isoformat(),
        "model": options.model if not Path(options.model).exists() else Path(options.model).name,
        "machine": about,
        "repeats": options.repeats,
        "queries": options.queries,
        "peak_teraflops": round(peak / 1e12, 1),
        "workloads": counts,
        "contenders": {name: result(run, counts, peak) for name, run in runs.items()},
        "missing": missing,
    }
    print(table(summary))
    if options.out:
        options.out.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    else:
        print(json.dumps(summary))


def prepared(folder: Path, options: argparse.Namespace) -> tuple[Path, dict[str, Any], dict[str, dict[str, Any]]]:
    """The model as an ordinary folder, everything that is scored, and how much arithmetic that is."""
    read = named.read(options.model, default="small")
    checkpoint.export(read, folder / "model")
    work: dict[str, Any] = {}
    shapes = replace(workload.SHORT, pairs=options.pairs), replace(workload.LONG, pairs=max(1, options.pairs // 5))
    counts: dict[str, dict[str, Any]] = {}
    for shape in shapes:
        work[shape.name] = workload.pairs(read.tokenizer(), shape, read.max_length)
        lengths = np.array([len(row.ids) for row in read.tokenizer().encode_batch(work[shape.name])])
        counts[shape.name] = {
            "pairs": len(lengths),
            "tokens_mean": round(float(lengths.mean()), 1),
            "tokens_longest": int(lengths.max()),
            "operations": operations(read.config, read.architecture, read.labels, lengths),
        }
    writer = workload.Writer(read.tokenizer(), "queries")
    short = [passage for _, passage in work["short"]]
    for passages in PASSAGES:
        for turn in range(options.queries):
            query = writer.query()
            work[f"query{passages}-{turn}"] = [(query, writer.dice.choice(short)) for _ in range(passages)]
    work["check"] = work["short"][:CHECKED]
    work["expected"] = load(folder / "model", backend="reference").score(work["check"]).tolist()
    (folder / "work.json").write_text(json.dumps(work), encoding="utf-8")
    return folder / "model", work, counts


def command_of(name: str, model: Path, options: argparse.Namespace) -> list[str]:
    """The process of a contender."""
    script = str(HERE / "gpu_contenders.py")
    work = str(model.parent / "work.json")
    return [sys.executable, script, name, "--model", str(model), "--work", work, "--device", options.device]


def started(
    model: Path, work: dict[str, Any], options: argparse.Namespace, stack: ExitStack
) -> tuple[dict[str, Run], dict[str, str]]:
    """Contenders that are ready and give the right scores, and why the others do not run."""
    runs: dict[str, Run] = {}
    missing: dict[str, str] = {}
    for name in dict.fromkeys(options.contenders):
        try:
            runs[name] = one(name, model, work, options, stack)
            print(f"ready: {name}: {runs[name].ready['about']}", file=sys.stderr)
        except (EndedError, LookupError) as error:
            missing[name] = str(error)
            print(f"left out: {name}: {error}", file=sys.stderr)
    return runs, missing


def one(name: str, model: Path, work: dict[str, Any], options: argparse.Namespace, stack: ExitStack) -> Run:
    """Start a contender, check its scores, and see what the card gives for it.

    Raises:
        EndedError: its process died.
        LookupError: it is not installed, or it computes something else.
    """
    before = used_mib()
    worker = Worker(command_of(name, model, options), {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"})
    if "missing" in worker.ready:
        worker.close()
        raise LookupError(worker.ready["missing"])
    stack.callback(worker.close)
    found = kendall(work["expected"], worker.ask({"scores": "check"})["scores"])
    if not found >= AGREEMENT:  # NaN, too
        raise LookupError(f"it orders only {found:.3f} of the passages as the reference backend does")
    for name in ("short", "long"):
        for kind in worker.ready["kinds"]:
            worker.ask({"time": f"{name}/{kind}"})
    # Of the same work, and now: later, others are on the card, too.
    torch_mib, after = worker.ask({"memory": ""})["mib"], used_mib()
    return Run(worker, worker.ready, found, torch_mib, None if before is None or after is None else after - before)


def rounds(options: argparse.Namespace) -> list[tuple[str, str]]:
    """What everyone is asked for in turn, and under which name its seconds are kept; under none to warm up.

    Each query comes three times, and the last one counts: when a size of batch comes the second time, the GPU engine
    captures a graph for it, and lists have sizes that those before them had not.
    """
    found = [(name, kept) for name in ("short", "long") for kept in ("", *[name] * options.repeats)]
    for count in PASSAGES:
        queries = [f"query{count}-{turn}" for turn in range(options.queries)]
        found += [(query, kept) for kept in (f"query{count}{COLD}", "", f"query{count}") for query in queries]
    return found


def measured(
    runs: dict[str, Run], missing: dict[str, str], model: Path, options: argparse.Namespace, stack: ExitStack
) -> list[float]:
    """Time everyone in turns, after rounds to warm up; who dies is taken out. The attained peak of each round."""
    judge = Worker(command_of("peak", model, options))
    stack.callback(judge.close)
    side = {} if options.device == "cuda" else {"side": 256}
    peaks = []
    planned = rounds(options)
    for done, (work, kept) in enumerate(planned, start=1):
        print(f"\r{done} of {len(planned)} rounds", end="", file=sys.stderr, flush=True)
        if not work.startswith("query"):
            peaks.append(judge.ask(side)["rate"])
        for name, run in list(runs.items()):
            for kind in run.ready["kinds"]:
                try:
                    seconds = run.worker.ask({"time": f"{work}/{kind}"})["seconds"]
                except EndedError as error:
                    missing[name] = str(error)
                    del runs[name]
                    break
                # One kind of input warms the next one up: only the first is cold.
                if kept and (not kept.endswith(COLD) or kind == run.ready["kinds"][0]):
                    run.seconds.setdefault(f"{kept}/{kind}", []).append(seconds)
    print(file=sys.stderr)
    return peaks


def result(run: Run, counts: dict[str, dict[str, Any]], peak: float) -> dict[str, Any]:
    """What JSON holds of one contender."""
    found: dict[str, Any] = {**run.ready, "kendall_tau": round(run.tau, 4)}
    found["memory_mib"] = {"torch": round(run.torch_mib), "card": None if run.card_mib is None else round(run.card_mib)}
    for name, seconds in run.seconds.items():
        work, _, kind = name.partition("/")
        middle = statistics.median(seconds)
        if work in counts:
            found.setdefault(work, {})[kind] = {
                "pairs_a_second": round(counts[work]["pairs"] / middle, 1),
                "share_of_peak": round(counts[work]["operations"] / middle / peak, 4),
                "seconds": [round(value, 5) for value in seconds],
            }
        else:
            milliseconds = [1000 * value for value in seconds]
            # The cold times of a query's first kind of input are told beside the others.
            under = f"cold_{kind}" if work.endswith(COLD) else kind
            found.setdefault(work.removesuffix(COLD), {})[under] = {
                "median_ms": round(statistics.median(milliseconds), 3),
                "p99_ms": round(percentile(milliseconds, 99), 3),
            }
    return found


def latency(query: dict[str, Any], kind: str) -> str:
    """A cell of the table: the median, and the median of the first times where this kind of input was asked first."""
    cold = query.get(f"cold_{kind}")
    return f"{query[kind]['median_ms']:.2f} ms" + (f" ({cold['median_ms']:.2f} cold)" if cold else "")


def table(summary: dict[str, Any]) -> str:
    """Markdown: a row for each contender and kind of input."""
    lines = [
        "| | in | short pairs/s | of peak | long pairs/s | of peak | "
        + " | ".join(f"query, {count} passages" for count in PASSAGES)
        + " | memory: torch, card | tau |",
        "|---|---|--:|--:|--:|--:|" + "--:|" * len(PASSAGES) + "--:|--:|",
    ]
    for row in summary["contenders"].values():
        memory = row["memory_mib"]
        for kind in row["kinds"]:
            cells = [row["about"], kind]
            for work in ("short", "long"):
                cells += [f"{row[work][kind]['pairs_a_second']:,.0f}", f"{row[work][kind]['share_of_peak']:.1%}"]
            cells += [latency(row[f"query{count}"], kind) for count in PASSAGES]
            cells += [f"{memory['torch']} MiB, {memory['card']}", f"{row['kendall_tau']:.3f}"]
            lines.append(f"| {' | '.join(cells)} |")
    sizes = "; ".join(
        f"{name}: {work['pairs']:,} pairs of {work['tokens_mean']:g} tokens, {work['tokens_longest']} at most"
        for name, work in summary["workloads"].items()
    )
    foot = (
        f"Model {summary['model']} on {summary['machine']['card']}; medians of {summary['repeats']} interleaved "
        f"repeats and {summary['queries']} queries. Peak: {summary['peak_teraflops']:g} TFLOP/s in bfloat16, measured. "
        f"{sizes}. "
        "In: text; ids, passages tokenized before; tokens, everything tokenized before. Tau: agreement with the "
        "order of the reference backend."
    )
    left = [f"- {name}: {reason}" for name, reason in summary["missing"].items()]
    about = machine.line(summary["machine"])
    return "\n\n".join(["\n".join(lines), foot, about, *(["Left out:\n" + "\n".join(left)] if left else [])])


def card() -> str:
    """Name and driver of the first card."""
    return _nvidia("name,driver_version") or "no card"


def used_mib() -> float | None:
    """Memory that is in use on the first card, by anybody; None without one."""
    found = _nvidia("memory.used")
    return float(found) if found else None


def _nvidia(fields: str) -> str:
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits", "--id=0"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


if __name__ == "__main__":
    main()
