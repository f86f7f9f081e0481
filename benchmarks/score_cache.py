"""What does a remembered score cost beside a computed one, and what does remembering cost?

    python benchmarks/score_cache.py [--pairs 100] [--rows 100000] [--threads 1] [--out FILE.json]

One list of short pairs with a new query each time: scored without a cache, with one (scored and kept), and again from
it; interleaved, median. Then a file is filled to --rows for its bytes a score, the time of a read of --pairs from it,
and the time of an eviction.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--threads", type=int, default=machine.cores())
    machine.out_option(parser)
    return parser.parse_args()


def timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main() -> None:
    options = arguments()
    machine.limit_threads(options.threads)
    import numpy as np

    import crossrank
    from crossrank.scorestore import Entry, Store

    words = [
        "river",
        "capital",
        "bread",
        "engine",
        "planet",
        "teacher",
        "upload",
        "music",
        "winter",
        "market",
        "letter",
    ]
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(words, 68)) for _ in range(options.pairs)]
    scorer = crossrank.load(backend=options.backend, threads=options.threads)
    times: dict[str, list[float]] = {"scored": [], "scored and kept": [], "remembered": []}
    with tempfile.TemporaryDirectory() as folder:
        opening = timed(lambda: crossrank.CachedScorer(scorer, Path(folder) / "scores"))
        cached = crossrank.CachedScorer(scorer, Path(folder) / "scores")
        cached.score([("warm", text) for text in texts])
        for repeat in range(options.repeats):
            pairs = [(f"which letter is number {repeat}?", text) for text in texts]
            times["scored"].append(timed(lambda pairs=pairs: scorer.score(pairs)))
            times["scored and kept"].append(timed(lambda pairs=pairs: cached.score(pairs)))
            times["remembered"].append(timed(lambda pairs=pairs: cached.score(pairs)))
        cached.close()
        store = Store(Path(folder) / "large", most=options.rows)
        for begin in range(0, options.rows, 1000):
            store.put({random.bytes(16): Entry(1.0) for _ in range(begin, min(begin + 1000, options.rows))})
        keys = [random.bytes(16) for _ in range(options.pairs)]
        kept = {key: Entry(2.0) for key in keys}
        evicting = timed(lambda: store.put(kept))
        reading = statistics.median(timed(lambda: store.get(keys)) for _ in range(options.repeats))
        store.close()
        size = (Path(folder) / "large").stat().st_size
    report = {
        "machine": machine.describe(options.threads), "backend": scorer.backend.name, "pairs": options.pairs,
        "milliseconds": {name: round(1000 * statistics.median(values), 3) for name, values in times.items()},
        "milliseconds_to_open": round(1000 * opening, 1), "rows": options.rows,
        "bytes_a_score": round(size / options.rows, 1), "milliseconds_to_read_from_rows": round(1000 * reading, 3),
        "milliseconds_to_evict_a_twentieth": round(1000 * evicting, 1),
    }  # fmt: skip
    print("| | milliseconds |\n| --- | --: |")
    for name, value in report["milliseconds"].items():
        print(f"| {options.pairs} pairs {name} | {value:,.2f} |")
    print(f"\nOpening a cache (hashing the model): {report['milliseconds_to_open']} ms. Of {options.rows:,} scores: ")
    print(
        f"{report['bytes_a_score']} bytes each, {options.pairs} read in {report['milliseconds_to_read_from_rows']} ms, "
    )
    print(f"a twentieth evicted in {report['milliseconds_to_evict_a_twentieth']} ms.")
    print(f"\n{machine.line(report['machine'])}, {report['backend']}")
    if options.out is not None:
        options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
