"""Does tuning on a few hundred judged pairs help on queries of a test part that nothing has seen?

    python benchmarks/tune.py FOLDER --sets scifact wikiqa selqa --pairs 100 200 500 --seeds 0 1 2 3 4 --work DIR
    python benchmarks/tune.py FOLDER --sets wikiqa --pairs 500 --search --work DIR

FOLDER holds judged sets in BEIR layout. Whole queries of the train part are drawn until the pairs are reached, `tune`
runs as a user's would, and both models rank the test part: its own judged candidates where it has judged negatives,
else the BM25 top documents. Of a set with a test part only, half of the queries are for training. Where the gate keeps
the base model, the difference is 0; `ungated_difference` is that of what it refused. One JSON line a run, then means.

With `--search` the set's documents are indexed, `tune` is given the index, and both models rank what a whole search
finds for the test part: the tuned one with the share of the mix that `tune` chose, the base model with the usual one.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import time
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import machine
from crossrank import CrossEncoder, load, load_embedder
from crossrank.cascade import mixed
from crossrank.evaluation import JudgedSet, indexing, mean, measures, read_set
from crossrank.evaluation.words import Words
from crossrank.models import named
from crossrank.pipeline import MIX, Pipeline
from crossrank.retrieval.first import first_stage, usual_fusion
from crossrank.training import measuring, negatives, reading
from crossrank.training.card import facts
from crossrank.training.general import of_set
from crossrank.training.judgments import Group, Judgments
from crossrank.training.outcome import Engine, Progress
from crossrank.training.searched import searched_by
from crossrank.training.settings import Settings
from crossrank.training.tuning import tune
from crossrank.types import Ranking

# Candidates of a whole search.
DEPTH = 100
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


def made_of(data: Judgments, settings: Settings, tested: Lists | Whole | None = None) -> str:
    """A digest of all that decides a run: what is judged, how it is trained, the base model, and what is tested."""
    known = [asdict(replace(data, source="")), asdict(settings), named.read(None, default="small").fingerprint]
    asked = list(map(asdict, tested.groups)) if isinstance(tested, Lists) else tested and tested.judged.queries
    return sha256(json.dumps([*known, asked]).encode()).hexdigest()[:16]


class Whole:
    """A set's test queries as a whole search answers them."""

    def __init__(self, folder: Path, judged: JudgedSet, cache: Path, threads: int) -> None:
        embedder = load_embedder(threads=threads)
        index = indexing.kept(judged, folder, embedder, cache)
        first = first_stage(index, embedder)
        self.pipeline = Pipeline(first, index.passages, (), DEPTH, usual_fusion(index), store=index)
        self.judged, self.nearest = judged, searched_by(self.pipeline)
        self.answers = {query: self.pipeline.search(text, DEPTH) for query, text in judged.queries.items()}

    def values(self, scorer: CrossEncoder) -> dict[float, NDArray[np.float64]]:
        """nDCG@10 a query, by share of the mix; a document counts by its best passage."""
        mixes = Settings().mixes
        runs: dict[float, dict[str, Ranking]] = {mix: {} for mix in mixes}
        for query, answer in self.answers.items():
            pairs = [(self.judged.queries[query], one.scored_text) for one in answer.passages]
            scores = scorer.score(pairs) if pairs else np.zeros(0, np.float32)
            of = {one.id: one.document for one in answer.passages}
            for mix in mixes:
                best: dict[str, float] = {}
                for id_, score in mixed(answer.ranking, scores, mix):
                    best.setdefault(of[id_], score)
                runs[mix][query] = Ranking.sorted(list(best), list(best.values()))
        qrels = {query: self.judged.qrels[query] for query in self.answers}
        return {
            mix: np.array(list(measures.per_query(qrels, run, ["nDCG@10"])["nDCG@10"].values()))
            for mix, run in runs.items()
        }


class Lists:
    """A set's test queries, each with documents of its own."""

    nearest = None

    def __init__(self, judged: JudgedSet, queries: int, depth: int) -> None:
        self.groups = test_groups(judged, queries, depth)

    def values(self, scorer: CrossEncoder) -> dict[float, NDArray[np.float64]]:
        """nDCG@10 a query, of the model alone."""
        shown = negatives.mine(self.groups, lambda texts, _: [[] for _ in texts], (), 0.0, seed=0, wanted=0)
        high = max(max(group.labels) for group in self.groups)
        return {1.0: measuring.values(shown, negatives.score(shown, scorer), "labels", 0.0, high)}


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
    parser.add_argument("--search", action="store_true", help="tune with an index, and test whole searches of it")
    parser.add_argument("--threads", type=int, default=machine.cores())
    parser.add_argument(
        "--work", type=Path, required=True, help="where tuned models go; finished runs are not repeated"
    )
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    print(json.dumps(machine.describe(args.threads)))
    base = load(threads=args.threads)
    for name in args.sets:
        judgments, judged = parts(args.folder / name)
        if args.search:
            some = judged.sample(args.queries, seed=0)
            tested: Lists | Whole = Whole(args.folder / name, some, args.work, args.threads)
        else:
            tested = Lists(judged, args.queries, args.depth)
        before = tested.values(base)
        usual = before[MIX if args.search else 1.0]
        for pairs in args.pairs:
            gained = [
                one_run(args, name, pairs, seed, data, tested, before)
                for seed in args.seeds
                for data in [drawn(judgments, pairs, seed, args.each, args.whole)]
            ]
            total = mean(np.mean(gained, axis=0))
            relative = total.mean / usual.mean()
            print(
                f"{name}, {pairs} pairs, {len(gained)} seeds: base {mean(usual)}, difference {total} ({relative:+.1%})"
            )


def one_run(
    args: argparse.Namespace,
    name: str,
    pairs: int,
    seed: int,
    data: Judgments,
    tested: Lists | Whole,
    before: dict[float, NDArray[np.float64]],
) -> NDArray[np.float64]:
    """Tune once, print what came of it, and give the difference of each test query."""
    ways = [*([f"{args.each}each"] if args.each else []), *(["whole"] if args.whole else []),
            *(["search"] if args.search else [])]  # fmt: skip
    folder = args.work / "-".join(map(str, [name, pairs, *ways, seed]))
    usual = Settings()
    settings = replace(usual, seed=seed, tokens=round(usual.tokens * args.effort),
                       measured_tokens=round(usual.measured_tokens * args.effort))  # fmt: skip
    # A run of other options, data or model is another run, which must not stand for this one.
    kept = folder.with_suffix(f".{made_of(data, settings, tested)}.npy")
    if kept.exists():
        return np.load(kept)
    began, busy = time.monotonic(), time.process_time()

    def told(now: Progress) -> None:
        if now.value is not None or now.stage != "training":
            print(f"  {time.monotonic() - began:.0f} s {now}", flush=True)

    outcome = tune(data, folder, refused=folder.with_suffix(".refused"), nearest=tested.nearest, settings=settings,
                   engine=Engine(threads=args.threads), report=told, overwrite=True)  # fmt: skip
    seconds, processor = time.monotonic() - began, time.process_time() - busy
    made = outcome.folder or outcome.refused
    plain = before[MIX if args.search else 1.0]
    after = tested.values(load(made, threads=args.threads)) if made else before
    chosen = outcome.in_search.mix if outcome.in_search else MIX if args.search else 1.0
    ungated = after[chosen] - plain
    gained = ungated if outcome.folder else np.zeros(len(plain))
    line = {"set": name, "pairs": len(data.rows), "each": args.each, "whole": args.whole, "seed": seed,
            "seconds": round(seconds, 1), "processor_seconds": round(processor, 1),
            "test_by_mix": {mix: [round(float(each[mix].mean()), 4) for each in (before, after)] for mix in before},
            "test": str(mean(plain)), "test_difference": str(mean(gained)), "ungated_difference": str(mean(ungated)),
            "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, **facts(outcome)}  # fmt: skip
    line["folder"] = None if outcome.folder is None else outcome.folder.name
    line["refused"] = None if outcome.refused is None else outcome.refused.name
    print(json.dumps(line), flush=True)
    np.save(kept, gained)
    return gained


if __name__ == "__main__":
    main()
