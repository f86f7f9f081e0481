"""What are stages worth in the whole search? A late-interaction model and a cross-encoder after it, by their weights.

    python benchmarks/stages.py DATA_FOLDER --cache FOLDER [--queries 50] [--out FILE.json]

Every set is searched by the product's own first stage; then each pair of weights makes its stages, 0 leaving one out:
`--late` over the top 100 and `--model` over the top `--depths` of what that left. Differences are to the product's
default stage alone, paired by query, each set counting the same. Sets that come with a list of their own are left out:
theirs is no fusion. Indexes and pair scores are kept in --cache. Needs the extras search and eval.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys

import machine


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    machine.judged_options(parser, queries=50)
    parser.add_argument("--late", default="late", help="the model of the first stage")
    parser.add_argument("--model", default="small", help="the model of the second")
    parser.add_argument("--embedder", default="embed")
    parser.add_argument("--late-weights", nargs="+", type=float, default=[0.0, 0.2, 0.3, 0.4, 0.5, 0.6])
    parser.add_argument("--weights", nargs="+", type=float, default=[0.0, 0.2, 0.3, 0.4, 0.5])
    parser.add_argument("--depths", nargs="+", type=int, default=[100], help="of the second stage")
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
    from crossrank.evaluation import difference_over_sets, mean_over_sets
    from crossrank.pipeline import MIX
    from crossrank.scorers import load_scorer
    from members import DEPTH, MEASURE, Gain, Table, reranked, values

    models = [load_scorer(name, threads=options.threads) for name in (options.late, options.model)]
    late, model = (CachedScorer(one, options.cache, None) for one in models)
    embedder = crossrank.load_embedder(options.embedder, threads=options.threads)

    def stages(late_weight: float, weight: float, depth: int) -> list[Stage]:
        both = ((late, DEPTH, late_weight), (model, depth, weight))
        return [Stage(*one) for one in both if one[2]]

    chosen = dict.fromkeys(
        (late_weight, weight, depth if weight else DEPTH)
        for late_weight, weight, depth in itertools.product(options.late_weights, options.weights, options.depths)
    )
    usual = (0.0, MIX, DEPTH)
    found: dict[tuple[float, float, int], list[dict[str, float]]] = {how: [] for how in (usual, *chosen)}
    names = [name for name in sets.names(options.data, options.sets) if not sets.SETS[name].given.startswith("runs/")]
    if not names:
        sys.exit("all of these sets come with a list of their own; name another with --sets")
    for name in names:
        judged = sets.read(options.data, name).sample(options.queries, options.seed)
        first = first_stage.search(judged, embedder, options.cache, DEPTH, None, machine.note)
        base = {query: ranking.cut(DEPTH) for query, ranking in first.runs["fused"].items()}
        for how, measured in found.items():
            measured.append(dict(values(judged, reranked(judged, base, stages(*how), first.texts), first.texts)))
        machine.note(f"{name}: {len(base)} queries")
    rows = [
        (
            *how,
            mean_over_sets([list(one.values()) for one in measured]),
            Gain(difference_over_sets(list(zip(measured, found[usual], strict=True)))),
        )
        for how, measured in found.items()
    ]
    heads = (f"{options.late} weight", f"{options.model} weight", "its depth", MEASURE, "over the default")
    table = Table(f"{len(names)} sets, {sum(map(len, found[usual]))} queries", heads, rows)
    print(table.markdown(), end="\n\n")
    about = machine.describe(options.threads)
    print(machine.line(about))
    if options.out:
        facts = {"benchmark": "stages", "measure": MEASURE, "sets": names, "queries": options.queries}
        facts |= {"seed": options.seed, "models": {one.checkpoint.name: one.fingerprint for one in models}}
        facts["backend"] = models[-1].backend.name
        text = json.dumps({**facts, "machine": about, "tables": [table.as_json()]}, indent=1, allow_nan=False)
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
