"""What does `crossrank search --stop-early` lose and save? nDCG@10, passages read and seconds, with it and without.

    python benchmarks/stop_early.py DATA_FOLDER --cache FOLDER [--weights 0.3 0.4] [--timed 12] [--out FILE.json]

The rule of `crossrank.stopping` over the fused top 100 of BM25 and dense search, without a budget, paired by query with
the same stage that reads all. "One of the ten unread" is the share of queries in which a passage that would be among
the first ten was not read. Pair scores are kept in --cache, which the other scripts share. The timed searches compute
all anew, both ways in turns, at the usual mix: run them on an idle machine. Needs the extras search and eval.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import machine

if TYPE_CHECKING:
    from crossrank.cascade import Stage
    from crossrank.evaluation import JudgedSet
    from crossrank.pipeline import Pipeline
    from crossrank.types import Ranking

DEPTH = 100


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    machine.judged_options(parser, queries=50)
    parser.add_argument("--model", default="small")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--weights", nargs="+", type=float, default=None, help="of the model; default: the product's")
    parser.add_argument("--timed", type=int, default=12, help="of these queries, so many are also timed; 0 for none")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    # NumPy reads this once, so nothing heavy may be imported before.
    machine.limit_threads(options.threads)
    import crossrank
    import first_stage
    import sets
    from cached import CachedScorer
    from crossrank.cascade import Stage
    from crossrank.pipeline import MIX, Pipeline
    from crossrank.retrieval.first import first_stage as retrievers_of
    from crossrank.retrieval.first import usual_fusion
    from members import MEASURE, Table, publish

    model = crossrank.load(options.model, dtype=options.dtype, threads=options.threads)
    embedder = crossrank.load_embedder(dtype=options.dtype, threads=options.threads)
    remembered = CachedScorer(model, options.cache, None)
    weights = options.weights or [MIX]
    # By weight and set: the measure by query of both, shares read, and whether one of the ten was not read.
    found: dict[float, dict[str, Outcome]] = {weight: {} for weight in weights}
    timed: list[tuple[object, ...]] = []
    for name in sets.names(options.data, options.sets):
        judged = sets.read(options.data, name).sample(options.queries, options.seed)
        index = first_stage.index_of(judged, embedder, options.cache, first_stage.WHOLE, machine.note)
        fusion = usual_fusion(index)
        first = Pipeline(retrievers_of(index, embedder), index.passages, depth=DEPTH, fusion=fusion, store=index)
        fused = {query: first.search(text).traces[-1].ranking for query, text in judged.queries.items()}
        for weight in weights:
            found[weight][name] = measured(judged, fused, Stage(remembered, DEPTH, weight), index.passages)
        if options.timed:
            some = list(judged.sample(options.timed, options.seed).queries.values())
            timed.append((name, len(some), *seconds(first, Stage(model, DEPTH, MIX), some)))
        machine.note(f"{name}: {len(fused)} queries")
    count = sum(len(outcome[0]) for outcome in found[weights[0]].values())
    rows = [row(weight, outcomes) for weight, outcomes in found.items()]
    heads = ("weight", "all read", "stopped", "difference", "read", "one of the ten unread")
    tables = [Table(f"{count} queries, {MEASURE}, mean of sets", heads, rows)]
    if timed:
        title = f"A whole search, medians, both in turns, mix {MIX:g}"
        tables.append(Table(title, ("set", "queries", "all read, ms", "stopped, ms", "times faster", "read"), timed))
    facts = {"benchmark": "stop_early", "measure": MEASURE, "queries": options.queries, "seed": options.seed}
    facts |= {"model": model.fingerprint, "embedder": embedder.fingerprint, "backend": model.backend.name}
    publish(tables, {**facts, "machine": machine.describe(options.threads)}, options.out)


# The measure by query with all read, then stopped; of each query the share read, and whether one of the ten was not.
Outcome = tuple[Mapping[str, float], Mapping[str, float], Sequence[float], Sequence[bool]]


def measured(judged: JudgedSet, fused: Mapping[str, Ranking], stage: Stage, texts: Any) -> Outcome:
    """The stage over each query's candidates, whole and until the rule ends it."""
    from dataclasses import replace

    from crossrank.cascade import rerank
    from crossrank.stopping import Stopping
    from members import values

    early = replace(stage, stopping=Stopping())
    whole: dict[str, Ranking] = {}
    stopped: dict[str, Ranking] = {}
    read, missed = [], []
    for query, ranking in fused.items():
        text = judged.queries[query]
        whole[query], traces = rerank(text, ranking, [stage], texts)
        stopped[query], ended = rerank(text, ranking, [early], texts)
        if traces:  # else the first stage found nothing
            read.append(len(ended[0].scores) / len(traces[0].scores))
            missed.append(not ended[0].scores.keys() >= set(whole[query].ids[:10]))
    return values(judged, whole, texts), values(judged, stopped, texts), read, missed


def row(weight: float, outcomes: Mapping[str, Outcome]) -> tuple[object, ...]:
    """One line of the table: sets count the same in nDCG, queries in what was read."""
    import numpy as np

    from crossrank.evaluation import difference_over_sets
    from members import Gain

    whole, stopped = (
        float(np.mean([np.mean(list(outcome[which].values())) for outcome in outcomes.values()])) for which in (0, 1)
    )
    gain = difference_over_sets([(outcome[1], outcome[0]) for outcome in outcomes.values()])
    read, missed = (
        float(np.mean([value for outcome in outcomes.values() for value in outcome[which]])) for which in (2, 3)
    )
    return f"{weight:g}", whole, stopped, Gain(gain), f"{read:.1%}", f"{missed:.1%}"


def seconds(first: Pipeline, stage: Stage, queries: Sequence[str]) -> tuple[object, ...]:
    """Medians in milliseconds of both, of their ratio, and passages read when stopped."""
    from dataclasses import replace

    import numpy as np

    from crossrank.stopping import Stopping

    whole = replace(first, stages=(stage,))
    early = replace(first, stages=(replace(stage, stopping=Stopping()),))
    for pipeline in (whole, early):  # the first search opens files
        pipeline.search(queries[0])
    taken, read = np.zeros((len(queries), 2)), []
    for number, query in enumerate(queries):
        turns = ((0, whole), (1, early)) if number % 2 else ((1, early), (0, whole))
        for which, pipeline in turns:
            answer = pipeline.search(query)
            taken[number, which] = answer.seconds
            if which:
                read.append(len(answer.traces[-1].scores))
    medians = np.median(taken * 1000, axis=0)
    ratio = float(np.median(taken[:, 0] / taken[:, 1]))
    return *(round(float(median)) for median in medians), f"{ratio:.2f}", round(float(np.mean(read)))


if __name__ == "__main__":
    main()
