"""Is one bi-encoder as good as another in the first stage? nDCG@10 of whole sets, alone and fused with BM25.

    python benchmarks/embedders.py DATA_FOLDER --cache FOLDER --against FOLDER [--embedder embed] [--out FILE.json]

`--against` is what is compared with, such as a folder of all-MiniLM-L6-v2. All judged queries of a set search its whole
corpus with both, by the product's own index and fusions; differences are paired by query, and in the mean each set
counts the same. trec_dl19 is searched in the passages that come with it, not in all of MS MARCO. Indexes are kept in
--cache. Needs the extras search and eval.
"""

from __future__ import annotations

import argparse

import machine

DEPTH = 100
# By the names of first_stage.py: alone, by reciprocal ranks with BM25, by scores with it.
SYSTEMS = {"dense": "Alone", "rrf": "With BM25, by reciprocal rank fusion", "fused": "With BM25, by fused scores"}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    machine.judged_options(parser, queries=100_000)
    parser.add_argument("--embedder", default="embed")
    parser.add_argument("--against", required=True, help="the other one: a name or a folder")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    # NumPy reads this once, so nothing heavy may be imported before.
    machine.limit_threads(options.threads)
    import crossrank
    import first_stage
    import sets
    from crossrank.evaluation import difference, difference_over_sets, mean, mean_over_sets
    from members import MEASURE, Gain, Table, publish, values

    both = [crossrank.load_embedder(one, threads=options.threads) for one in (options.embedder, options.against)]
    names = sets.names(options.data, options.sets)
    # By system and set: the values of `--embedder` and of `--against`.
    found: dict[str, list[list[dict[str, float]]]] = {system: [] for system in SYSTEMS}
    for name in names:
        judged = sets.read(options.data, name).sample(options.queries, options.seed)
        runs = [first_stage.search(judged, one, options.cache, DEPTH, None, machine.note) for one in both]
        for system, measured in found.items():
            measured.append([dict(values(judged, run.runs[system], run.texts)) for run in runs])
            ours, theirs = (sum(one.values()) / len(one) for one in measured[-1])
            machine.note(f"{name}, {system}: {ours:.3f} and {theirs:.3f}")
    tables = []
    for system, measured in found.items():
        rows: list[tuple[object, ...]] = [
            (name, len(ours), mean(list(ours.values())), mean(list(theirs.values())), Gain(difference(ours, theirs)))
            for name, (ours, theirs) in zip(names, measured, strict=True)
        ]
        over = [mean_over_sets([list(one[place].values()) for one in measured]) for place in (0, 1)]
        gain = Gain(difference_over_sets([(ours, theirs) for ours, theirs in measured]))
        rows.append(("mean of sets", sum(len(one[0]) for one in measured), *over, gain))
        heads = ("set", "queries", options.embedder, "other", "difference")
        tables.append(Table(f"{SYSTEMS[system]}, {MEASURE}", heads, rows))
    facts = {"benchmark": "embedders", "measure": MEASURE, "queries": options.queries, "seed": options.seed}
    facts |= {"models": {"embedder": both[0].fingerprint, "other": both[1].fingerprint}}
    facts |= {"backend": both[0].backend.name, "machine": machine.describe(options.threads)}
    publish(tables, facts, options.out)


if __name__ == "__main__":
    main()
