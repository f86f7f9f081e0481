"""How long does one rerank take, and a cold start?

    python benchmarks/latency.py [--backends reference torch] [--passages 10 50 100] [--repeats 15] [--out FILE.json]

`crossrank.load().rank(query, passages)`, tokenization included, by backend and number of passages; `import crossrank`;
and `crossrank rerank` from a cold start on 10 passages. Every backend runs in its own process, and the measurements are
interleaved (A B A B), so a busy minute of the machine meets all of them. Medians, with the 10th and 90th percentile.

Passages are real English, the help texts that every Python carries, cut so that pair lengths follow a log-normal with
mean 83 tokens. Each repeat takes other passages.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine
from processes import Worker, serve

QUERY = "how are default values of function arguments evaluated?"
MEAN_TOKENS, SPREAD, SHORTEST, LONGEST = 83, 0.45, 24, 400


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None, help="default: the model in the wheel")
    parser.add_argument("--backends", nargs="+", default=["reference", "torch"], help="NAME, NAME=DTYPE, NAME@THREADS")
    parser.add_argument("--passages", nargs="+", type=int, default=[10, 50, 100])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=machine.cores())
    machine.out_option(parser)
    parser.add_argument("--worker", default=None, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    machine.limit_threads(options.threads)
    if options.worker:
        serve(lambda: start(options))
        return
    about = machine.describe(options.threads)
    workers = {backend: Backend(options, backend) for backend in options.backends}
    try:
        found = measured(workers, options)
    finally:
        for worker in workers.values():
            worker.close()
    summary = {
        "benchmark": "latency",
        "model": Path(options.model).name if options.model else "small",
        "machine": about,
        "repeats": options.repeats,
        "tokens_a_pair": {name: worker.tokens for name, worker in workers.items()},
        "seconds": {name: spread(values) for name, values in found.items()},
    }
    print(table(summary, machine.line(about)))
    if options.out:
        options.out.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    else:
        print(json.dumps(summary))


def measured(workers: dict[str, Backend], options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds by what was timed: one of each in turn, `repeats` times, after one round to warm up."""
    tasks: dict[str, Callable[[int], float]] = {}
    for worker in workers.values():
        for count in options.passages:
            tasks[f"{worker.name}, {count} passages"] = lambda turn, w=worker, n=count: w.time(n, turn)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "passages.txt"
        file.write_text("\n".join(" ".join(text.split()) for text in english()[:10]), encoding="utf-8")
        model = ["--model", options.model] if options.model else []
        cold = [sys.executable, "-m", "crossrank.cli", "rerank", QUERY, str(file), *model]
        # What the interpreter itself takes is shown beside the import, not subtracted.
        tasks["python, empty"] = lambda turn: process([sys.executable, "-c", "pass"])
        tasks["python, import crossrank"] = lambda turn: process([sys.executable, "-c", "import crossrank"])
        tasks["crossrank rerank, cold, 10 passages"] = lambda turn: process(cold)
        found: dict[str, list[float]] = {name: [] for name in tasks}
        for turn in range(-1, options.repeats):
            for name, task in tasks.items():
                seconds = task(turn)
                if turn >= 0:
                    found[name].append(seconds)
    return found


class Backend:
    """A process with one backend. It times on its own clock, so the pipe between us is not in the figures."""

    def __init__(self, options: argparse.Namespace, backend: str) -> None:
        backend, _, own = backend.partition("@")
        command = [sys.executable, __file__, "--worker", backend, "--threads", own or str(options.threads)]
        command += ["--model", options.model] if options.model else []
        self._worker = Worker(command)
        self.name: str = self._worker.ready["backend"] + (f" with threads={own}" if own else "")
        self.tokens: dict[str, Any] = self._worker.ready["tokens"]
        self.close = self._worker.close

    def time(self, count: int, turn: int) -> float:
        """Seconds to rank `count` passages, which ones `turn` decides."""
        return float(self._worker.ask({"count": count, "turn": turn})["seconds"])


def start(options: argparse.Namespace) -> tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]:
    """The process's side: load the backend, then time what it is asked."""
    import crossrank

    backend, _, dtype = options.worker.partition("=")
    scorer = crossrank.load(options.model, backend=backend, dtype=dtype or "auto", threads=options.threads)
    tokenizer = scorer.checkpoint.tokenizer()
    pool = cut(english(), tokenizer, QUERY)
    lengths = [len(tokenizer.encode(QUERY, text).ids) for text in pool]
    tokens = {"mean": round(statistics.mean(lengths), 1), "max": max(lengths), "pool": len(pool)}

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        passages = random.Random(1000 * request["count"] + request["turn"]).sample(pool, request["count"])
        began = time.perf_counter()
        scorer.rank(QUERY, passages)
        return {"seconds": time.perf_counter() - began}

    return {"backend": scorer.backend.name, "tokens": tokens}, answer


def english() -> list[str]:
    """Paragraphs of the language reference that `help()` shows."""
    from pydoc_data.topics import topics

    paragraphs = (part.strip() for topic in sorted(topics) for part in topics[topic].split("\n\n"))
    return [" ".join(part.split()) for part in dict.fromkeys(paragraphs) if len(part.split()) >= 30]


def cut(texts: list[str], tokenizer: Any, query: str) -> list[str]:
    """The texts end to end, cut into passages whose pairs with the query have log-normal lengths."""
    dice = random.Random(0)
    # Median of a log-normal from its mean.
    middle = MEAN_TOKENS / 2.718281828 ** (SPREAD**2 / 2)
    used = len(tokenizer.encode(query, "").ids)
    whole = " ".join(texts)
    offsets = tokenizer.encode(whole, add_special_tokens=False).offsets
    pool, start = [], 0
    while True:
        length = int(min(max(dice.lognormvariate(0, SPREAD) * middle, SHORTEST), LONGEST)) - used
        end = start + max(length, 1)
        if end >= len(offsets):
            return pool
        pool.append(whole[offsets[start][0] : offsets[end - 1][1]])
        start = end


def process(command: list[str]) -> float:
    """Seconds of a whole process."""
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command[:5])} failed:\n{done.stderr}")
    return time.perf_counter() - began


def spread(values: list[float]) -> dict[str, float]:
    """Median, 10th and 90th percentile, in seconds."""
    deciles = statistics.quantiles(values, n=10, method="inclusive") if len(values) > 1 else [values[0]] * 9
    return {"median": round(statistics.median(values), 5), "p10": round(deciles[0], 5), "p90": round(deciles[-1], 5)}


def table(summary: dict[str, Any], about: str) -> str:
    lines = ["| | median ms | 10th-90th percentile |", "|---|--:|--:|"]
    for name, found in summary["seconds"].items():
        low, middle, high = (1e3 * found[key] for key in ("p10", "median", "p90"))
        lines.append(f"| {name} | {middle:.1f} | {low:.1f}-{high:.1f} |")
    lengths = next(iter(summary["tokens_a_pair"].values()), {})
    foot = (
        f"Model {summary['model']}, {summary['repeats']} interleaved repeats, tokenization included; pairs of "
        f"{lengths.get('mean')} tokens on average, {lengths.get('max')} at most."
    )
    return "\n".join([*lines, "", foot, "", about])


if __name__ == "__main__":
    main()
