"""Does tuning on a few hundred judged pairs help on queries of a test part that nothing has seen?

    python benchmarks/tune.py FOLDER --sets scifact wikiqa selqa --pairs 100 200 500 --seeds 0 1 2 3 4 --work DIR

FOLDER holds judged sets in BEIR layout. Whole queries of the train part are drawn until the pairs are reached, `tune`
runs as a user's would, and both models rank the test part: its own judged candidates where it has judged negatives,
else the BM25 top documents. Of a set with a test part only, half of the queries are for training. Where the gate keeps
the base model, the difference is 0; `ungated_difference` is that of what it refused. One JSON line a run, then means.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import machine
from crossrank import CrossEncoder, load
from crossrank.evaluation import JudgedSet, mean, read_set
from crossrank.evaluation.words import Words
from crossrank.models import named
from crossrank.training import measuring, negatives, reading
from crossrank.training.card import facts
from crossrank.training.general import of_set
from crossrank.training.judgments import Group, Judgments
from crossrank.training.outcome import Engine, Progress
from crossrank.training.settings import Settings
from crossrank.training.tuning import tune

# selqa has no train part here; its dev part is as far from its test part.
TRAIN = {"selqa": "dev"}


def parts(folder: Path) -> tuple[Judgments, JudgedSet]:
    """What may be trained on and what is tested; of a set with one part, half of the queries, drawn, are tested."""
    judged, split = read_set(folder), TRAIN.get(folder.name, "train")
    if (folder / "qrels" / f"{split}.tsv").exists():
        return reading.read(folder, split=split), judged
    tested = judged.sample(len(judged.queries) // 2, seed=0)
    whole, never = reading.read(folder, split="test"), set(tested.queries.values())
    return replace(whole, rows=tuple(row for row in whole.rows if row.query not in never)), tested


def drawn(judgments: Judgments, pairs: int, seed: int, each: int = 0, whole: bool = False) -> Judgments:
    """Whole queries, drawn, until one more would exceed the pairs; with `each`, so many documents of a query: what is
    relevant first, the rest drawn. With `whole`, negatives are looked for in all documents, as with an index."""
    by_query: dict[str, list] = {}
    for row in judgments.rows:
        by_query.setdefault(row.query, []).append(row)
    queries = sorted(by_query)
    dice = random.Random(seed)
    dice.shuffle(queries)
    if each:
        for query, rows in by_query.items():
            dice.shuffle(rows)
            by_query[query] = sorted(rows, key=lambda row: -row.label)[:each]
    rows: list = []
    for query in queries:
        if rows and len(rows) + len(by_query[query]) > pairs:
            break
        rows += by_query[query]
    # Labelled rows bring their own negatives, as a user's file would; clicks need documents to look for them in.
    if judgments.scale == "clicks":
        return replace(judgments, rows=tuple(rows))
    pool = tuple(dict.fromkeys(row.document for row in judgments.rows)) if whole else ()
    return replace(judgments, rows=tuple(rows), pool=pool)


def test_groups(judged: JudgedSet, queries: int, depth: int) -> list[Group]:
    """What is ranked: judged candidates, or the BM25 top `depth` and what is relevant."""
    if any(grade <= 0 for grades in judged.qrels.values() for grade in grades.values()):
        sample = judged.sample(queries, seed=0)
        groups = [
            Group(text, tuple(judged.corpus[d].scored_text for d in sample.qrels[query]),
                  tuple(float(grade) for grade in sample.qrels[query].values()))
            for query, text in sample.queries.items()
        ]  # fmt: skip
        return [group for group in groups if max(group.labels) > 0 >= min(group.labels)]
    words = Words([passage.scored_text for passage in judged.corpus.values()])
    return of_set(judged, lambda texts, _: words.nearest(texts, depth), queries)


def made_of(data: Judgments, settings: Settings, groups: Sequence[Group] = ()) -> str:
    """A digest of all that decides a run: what is judged, how it is trained, the base model, and what is tested."""
    known = [asdict(replace(data, source="")), asdict(settings), named.read(None, default="small").fingerprint]
    return sha256(json.dumps([*known, *map(asdict, groups)]).encode()).hexdigest()[:16]


def values(scorer: CrossEncoder, groups: list[Group]) -> NDArray[np.float64]:
    """nDCG@10 a query."""
    shown = negatives.mine(groups, lambda texts, _: [[] for _ in texts], (), 0.0, seed=0, wanted=0)
    high = max(max(group.labels) for group in groups)
    return measuring.values(shown, negatives.score(shown, scorer), "labels", 0.0, high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="+", default=["scifact", "wikiqa", "selqa"])
    parser.add_argument("--pairs", nargs="+", type=int, default=[100, 200, 500])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--queries", type=int, default=300, help="of the test part, at most, drawn with seed 0")
    parser.add_argument("--depth", type=int, default=30, help="BM25 documents a test query where none are judged")
    parser.add_argument("--each", type=int, default=0, help="judged documents of a train query, at most (default: all)")
    parser.add_argument("--whole", action="store_true", help="mine in all documents there are, as with --index")
    parser.add_argument("--effort", type=float, default=1.0, help="as of `crossrank tune`")
    parser.add_argument("--threads", type=int, default=machine.cores())
    parser.add_argument(
        "--work", type=Path, required=True, help="where tuned models go; finished runs are not repeated"
    )
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    print(json.dumps(machine.describe(args.threads)))
    usual = Settings()
    base = load(threads=args.threads)
    for name in args.sets:
        judgments, tested = parts(args.folder / name)
        groups = test_groups(tested, args.queries, args.depth)
        before = values(base, groups)
        for pairs in args.pairs:
            gained = [
                one_run(args, name, pairs, seed, data, groups, before, usual)
                for seed in args.seeds
                for data in [drawn(judgments, pairs, seed, args.each, args.whole)]
            ]
            total = mean(np.mean(gained, axis=0))
            relative = total.mean / before.mean()
            print(
                f"{name}, {pairs} pairs, {len(gained)} seeds: base {mean(before)}, difference {total} ({relative:+.1%})"
            )


def one_run(
    args: argparse.Namespace,
    name: str,
    pairs: int,
    seed: int,
    data: Judgments,
    groups: list[Group],
    before: NDArray[np.float64],
    usual: Settings,
) -> NDArray[np.float64]:
    """Tune once, print what came of it, and give the difference of each test query."""
    ways = [*([f"{args.each}each"] if args.each else []), *(["whole"] if args.whole else [])]
    folder = args.work / "-".join(map(str, [name, pairs, *ways, seed]))
    settings = replace(usual, seed=seed, tokens=round(usual.tokens * args.effort),
                       measured_tokens=round(usual.measured_tokens * args.effort))  # fmt: skip
    # A run of other options, data or model is another run, which must not stand for this one.
    kept = folder.with_suffix(f".{made_of(data, settings, groups)}.npy")
    if kept.exists():
        return np.load(kept)
    began, busy = time.monotonic(), time.process_time()

    def told(now: Progress) -> None:
        if now.value is not None or now.stage != "training":
            print(f"  {time.monotonic() - began:.0f} s {now}", flush=True)

    outcome = tune(data, folder, refused=folder.with_suffix(".refused"), settings=settings,
                   engine=Engine(threads=args.threads), report=told, overwrite=True)  # fmt: skip
    seconds, processor = time.monotonic() - began, time.process_time() - busy
    made = outcome.folder or outcome.refused
    ungated = values(load(made, threads=args.threads), groups) - before if made else np.zeros(len(before))
    gained = ungated if outcome.folder else np.zeros(len(before))
    line = {"set": name, "pairs": len(data.rows), "each": args.each, "whole": args.whole, "seed": seed,
            "seconds": round(seconds, 1), "processor_seconds": round(processor, 1),
            "test": str(mean(before)), "test_difference": str(mean(gained)), "ungated_difference": str(mean(ungated)),
            "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, **facts(outcome)}  # fmt: skip
    line["folder"] = None if outcome.folder is None else outcome.folder.name
    line["refused"] = None if outcome.refused is None else outcome.refused.name
    print(json.dumps(line), flush=True)
    np.save(kept, gained)
    return gained


if __name__ == "__main__":
    main()
