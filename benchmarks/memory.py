"""How much memory does scoring take over the weights, and does it grow with the pairs?

    python benchmarks/memory.py [--models small fast] [--pairs 1000 10000] [--tokens 512] [--out FILE.json]

Each row is a process of its own: it loads the model, makes the pairs, forgets its peak, scores them, and reads how far
resident memory went above what was there before. Words are drawn, one token each; texts are there before. Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import machine

QUERY_TOKENS = 8


def resident(field: str) -> float:
    """A field of /proc/self/status in MB: VmRSS is now, VmHWM the most since it was forgotten."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":")) / 1024


def measured(model: str, pairs: int, tokens: int, threads: int) -> dict[str, Any]:
    """Score once and tell what it took; see the file's head."""
    machine.limit_threads(threads)
    import numpy as np

    import crossrank
    from crossrank.models import named

    tokenizer = named.read(model, default="small").tokenizer()
    words = [word for word in tokenizer.get_vocab() if word.isascii() and word.isalpha() and word.islower()]
    words = sorted(word for word in words if len(tokenizer.encode(word, add_special_tokens=False).ids) == 1)
    rng = np.random.default_rng(0)
    query = " ".join(rng.choice(words, QUERY_TOKENS))
    room = tokens - QUERY_TOKENS - 3  # [CLS] query [SEP] passage [SEP]
    asked = [(query, " ".join(rng.choice(words, room))) for _ in range(pairs)]
    scorer = crossrank.load(model, threads=threads)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    began = time.perf_counter()
    scores = scorer.score(asked)
    return {
        "model": model,
        "pairs": pairs,
        "tokens": tokens,
        "scorer": repr(scorer),
        "before_mb": round(before, 1),
        "over_mb": round(resident("VmHWM") - before, 1),
        "seconds": round(time.perf_counter() - began, 1),
        "finite": bool(np.isfinite(scores).all()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["small"])
    parser.add_argument("--pairs", nargs="+", type=int, default=[1000, 10_000])
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--threads", type=int, default=machine.cores())
    machine.out_option(parser)
    parser.add_argument("--one", help=argparse.SUPPRESS)  # what a row's own process is asked
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(**json.loads(options.one))))
        return
    rows = []
    print("| model | pairs | tokens | before, MB | over it at most, MB | seconds |\n|---|--:|--:|--:|--:|--:|")
    for model in options.models:
        for pairs in options.pairs:
            asked = {"model": model, "pairs": pairs, "tokens": options.tokens, "threads": options.threads}
            command = [sys.executable, __file__, "--one", json.dumps(asked)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            if done.returncode:
                sys.exit(f"{model} over {pairs} pairs ended with {done.returncode}; what it said is above")
            row = json.loads(done.stdout)
            rows.append(row)
            print("| {model} | {pairs:,} | {tokens} | {before_mb} | {over_mb} | {seconds} |".format(**row), flush=True)
    found = {"benchmark": "memory", "machine": machine.describe(options.threads), "rows": rows}
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
