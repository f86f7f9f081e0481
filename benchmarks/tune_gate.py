"""Does the gate keep the base model when the data is worthless? And is a good tuning let through?

    python benchmarks/tune_gate.py FOLDER --set wikiqa --seeds 0 1 2 3 4 --work DIR

FOLDER holds judged sets in BEIR layout. Four kinds of worthless data are made of the train part, once a seed: labels
shuffled over all pairs, every pair again with the other label, every label 1, and ten pairs. The right verdict is
always "base". Finished runs are not repeated, and refused where data, settings or model are now others. With `--search`
the set's documents are indexed, and held-out queries are ranked as that index answers them.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

import machine
from crossrank.evaluation import read_set
from crossrank.training import reading
from crossrank.training.card import facts
from crossrank.training.judgments import Judged, Judgments
from crossrank.training.outcome import Engine
from crossrank.training.settings import Settings
from crossrank.training.tuning import tune
from tune import TRAIN, Whole, drawn, made_of

KINDS = ("ten pairs", "contradictory", "all positive", "shuffled")


def spoiled(judgments: Judgments, kind: str, seed: int) -> Judgments:
    """Worthless data of one kind."""
    rows = judgments.rows
    if kind == "ten pairs":
        return replace(judgments, rows=rows[:10])
    if kind == "contradictory":
        return replace(judgments, rows=(*rows, *(replace(row, label=1.0 - row.label) for row in rows)))
    if kind == "all positive":
        return replace(judgments, rows=tuple(replace(row, label=1.0) for row in rows))
    labels = np.random.default_rng(seed).permutation([row.label for row in rows]).tolist()
    return replace(judgments, rows=tuple(Judged(r.query, r.document, v) for r, v in zip(rows, labels, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--set", default="wikiqa")
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--search", action="store_true", help="decide by searches of the set's index")
    parser.add_argument("--threads", type=int, default=machine.cores())
    parser.add_argument("--work", type=Path, required=True)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    print(json.dumps(machine.describe(args.threads)))
    judgments = reading.read(args.folder / args.set, split=TRAIN.get(args.set, "train"))
    nearest = None
    if args.search:
        some = read_set(args.folder / args.set).sample(1, seed=0)
        nearest = Whole(args.folder / args.set, some, args.work, args.threads).nearest
    right = 0
    for kind in args.kinds:
        for seed in args.seeds:
            name = f"{args.set}-{kind.replace(' ', '-')}-{args.pairs}-{seed}{'-search' * args.search}"
            done = args.work / f"{name}.json"
            data, settings = spoiled(drawn(judgments, args.pairs, seed), kind, seed), Settings(seed=seed)
            which = made_of(data, settings)
            if not done.exists():
                began, busy = time.monotonic(), time.process_time()
                engine = Engine(threads=args.threads)
                folder = args.work / name
                outcome = tune(data, folder, nearest=nearest, settings=settings, engine=engine, overwrite=True)
                times = {"wall": time.monotonic() - began, "processor": time.process_time() - busy}
                line = {"kind": kind, "seed": seed, "made_of": which, **times, **facts(outcome), "folder": None}
                done.write_text(json.dumps(line) + "\n", encoding="utf-8")
            line = json.loads(done.read_text(encoding="utf-8"))
            if line.get("made_of") != which:
                raise SystemExit(f"{done} is of other data, settings or model: delete it, or name another --work")
            right += line["kept"] == "base"
            print(json.dumps({key: line[key] for key in ("kind", "seed", "kept", "reasons", "processor")}), flush=True)
    print(f"{right} of {len(args.kinds) * len(args.seeds)} verdicts are right")


if __name__ == "__main__":
    main()
