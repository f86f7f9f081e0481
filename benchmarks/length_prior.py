"""What is it worth that short passages lose in fused scores? nDCG@10 of the fused order by strength and full length.

    python benchmarks/length_prior.py DATA_FOLDER --cache FOLDER [--queries 50] [--out FILE.json]

`crossrank.fusion.LengthPrior` over BM25 and dense search, paired by query with the same fusion without it, each set
counting the same in the mean. The queries that quality.py draws with the same --queries and --seed, by which settings
are chosen, are told apart from all others, which say what a choice is worth. Sets with fewer than 5 others are left
out there. Indexes are kept in --cache. Needs the extras search and eval.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

import machine

DEPTH = 100
STRENGTHS, FULL = (0.1, 0.2, 0.3, 0.4, 0.5), (100, 200, 400)
LEAST = 5


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    machine.judged_options(parser, queries=50)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    # NumPy reads this once, so nothing heavy may be imported before.
    machine.limit_threads(options.threads)
    import numpy as np

    import crossrank
    import first_stage
    import sets
    from crossrank.evaluation import difference, difference_over_sets
    from crossrank.fusion import LengthPrior, Scores, shifted
    from crossrank.pipeline import Pipeline
    from crossrank.retrieval.first import first_stage as retrievers_of
    from members import MEASURE, Gain, Table, publish, values

    embedder = crossrank.load_embedder(threads=options.threads)
    settings = [(strength, full) for full in FULL for strength in STRENGTHS]
    # By set: whether each query is one to choose by, then by setting the measure of each query.
    found: dict[str, tuple[set[str], Mapping[object, Mapping[str, float]]]] = {}
    for name in sets.names(options.data, options.sets):
        judged = sets.read(options.data, name)
        index = first_stage.index_of(judged, embedder, options.cache, first_stage.WHOLE, machine.note)
        pipeline = Pipeline(retrievers_of(index, embedder), index.passages, depth=DEPTH, fusion=Scores())
        fused = {query: pipeline.search(text).traces[-1].ranking for query, text in judged.queries.items()}
        # Every passage is a whole document, so ten of them are all that the measure reads.
        plain = {query: ranking.cut(10) for query, ranking in fused.items()}
        runs: dict[object, Mapping[str, float]] = {"plain": values(judged, plain, index.passages)}
        ids = index.ids()
        known = dict(zip(ids, index.lengths(ids), strict=True))
        for strength, full in settings:
            prior = LengthPrior(lambda ids, known=known: np.array([known[id_] for id_ in ids]), strength, full)
            run = {query: shifted(ranking, prior).cut(10) for query, ranking in fused.items()}
            runs[strength, full] = values(judged, run, index.passages)
        found[name] = set(judged.sample(options.queries, options.seed).queries), runs
        machine.note(f"{name}: {len(fused)} queries")
    tables = []
    for chosen, called in ((True, "queries that settings are chosen by"), (False, "all other queries")):
        kept = {
            name: [query for query in runs["plain"] if (query in drawn) == chosen]
            for name, (drawn, runs) in found.items()
        }
        names = [name for name, queries in kept.items() if len(queries) >= LEAST]
        if not names:
            machine.note(f"{called}: no set has {LEAST}")
            continue
        rows: list[tuple[object, ...]] = []
        for setting in settings:
            pairs = [
                tuple({query: found[name][1][key][query] for query in kept[name]} for key in (setting, "plain"))
                for name in names
            ]
            gains = [difference(*pair) for pair in pairs]
            mean = Gain(difference_over_sets([(with_it, without) for with_it, without in pairs]))
            rows.append((f"{setting[0]:g}, {setting[1]} tokens", mean, *(f"{gain.mean:+.3f}" for gain in gains)))
        count = sum(len(kept[name]) for name in names)
        tables.append(Table(f"{count} {called}, {MEASURE}", ("strength, full", "mean of sets", *names), rows))
    facts = {"benchmark": "length_prior", "measure": MEASURE, "queries": options.queries, "seed": options.seed}
    facts |= {"embedder": embedder.fingerprint, "backend": embedder.backend.name}
    publish(tables, {**facts, "machine": machine.describe(options.threads)}, options.out)


if __name__ == "__main__":
    main()
