"""The quality gate of the native engine: does a faster tier or dtype give the same answers on judged sets?

    python benchmarks/same_answers.py DATA_FOLDER --cache FOLDER [--sets trec_dl19 ...] [--queries 50] [--out FILE.json]

For every set the same candidates, the top of the fusion and the list that comes with the set, are scored in float32
and in every other tier and dtype that this machine has, its GPU included. A kind passes when, on every list, nDCG@10 is
within 0.001 of float32's, alone and mixed as the product mixes, and the mean of Kendall's tau over the queries is over
0.99. Exits with 1 when one does not, and when there is nothing to compare. What float32 itself is judged by is
transformers, in tests/parity.

Needs the extras search and eval. Indexes and scores are kept in --cache, which benchmarks/quality.py can share.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

import machine

CLOSE, ORDERED = 0.001, 0.99
EXACT = "float32"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    machine.judged_options(parser, queries=50)
    parser.add_argument("--model", default="small")
    parser.add_argument(
        "--kinds",
        nargs="+",
        default=None,
        metavar="TIER=DTYPE",
        help="default: all of this machine; cuda=bfloat16 is the GPU engine",
    )
    parser.add_argument("--depth", type=int, default=100)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    # NumPy reads this once, so nothing heavy may be imported before.
    machine.limit_threads(options.threads)
    from crossrank.backends import cuda
    from crossrank.backends.cpu import library

    on_card = ["cuda=bfloat16", "cuda=float16"] if cuda.unseen() is None else []
    native = [f"{tier}={dtype}" for tier in library.tiers() for dtype in library.dtypes(tier)]
    kinds = options.kinds or [*native, *on_card]
    # The fastest float32 judges; the other float32 tiers differ from it by the order of additions.
    exact = f"{library.tiers()[-1]}={EXACT}"
    if library.tiers()[-1] == "amx_bf16":
        exact = f"avx512={EXACT}"
    others = [kind for kind in kinds if kind != exact]
    if not others:
        sys.exit(f"nothing to compare: {exact} is what judges; name another tier or dtype with --kinds")
    rows = measured(options, exact, others)
    for row in rows:
        print(line(row))
    summary = {
        "benchmark": "same_answers",
        **machine.describe(options.threads),
        "exact": exact,
        "queries": options.queries,
        "depth": options.depth,
        "rows": rows,
        "passed": all(row["passed"] for row in rows),
    }
    if options.out:
        options.out.write_text(json.dumps(summary, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    sys.exit(0 if summary["passed"] else 1)


def line(row: Mapping[str, Any]) -> str:
    verdict = "passed" if row["passed"] else "FAILED"
    return (
        f"{verdict}  {row['kind']:<18} {row['set']:<16} over {row['over']:<24} {row['queries']:>3} queries, nDCG@10 "
        f"{row['ndcg_exact']:.4f}, {row['difference']:+.5f} alone, {row['difference_mixed']:+.5f} mixed, "
        f"tau {row['tau']:.4f} (least {row['least_tau']:.4f}), logits within {row['logits']:.4f}"
    )


def measured(options: argparse.Namespace, exact: str, kinds: list[str]) -> list[dict[str, Any]]:
    import crossrank
    import first_stage
    import sets
    from cached import CachedScorer

    def opened(kind: str) -> CachedScorer:
        tier, _, dtype = kind.partition("=")
        backend = tier if tier == "cuda" else f"cpu:{tier}"
        made = crossrank.load(options.model, backend=backend, dtype=dtype, threads=options.threads)
        return CachedScorer(made, options.cache, None)

    names = sets.names(options.data, options.sets)
    judge, others = opened(exact), {kind: opened(kind) for kind in kinds}
    embedder = crossrank.load_embedder(threads=options.threads)
    rows = []
    for name in names:
        judged = sets.read(options.data, name).sample(options.queries, options.seed)
        found = first_stage.search(judged, embedder, options.cache, options.depth, None, lambda _: None)
        lists = {"fusion": ({q: run.cut(options.depth) for q, run in found.runs["fused"].items()}, found.texts)}
        if own := sets.given(options.data, judged, options.depth):
            lists[sets.SETS[name].given_name] = (own, lambda ids, judged=judged: [judged.corpus[i] for i in ids])
        for over, (run, texts) in lists.items():
            passages = {i: p for listed in run.values() for i, p in zip(listed.ids, texts(listed.ids), strict=True)}
            for kind, scorer in others.items():
                rows.append({"kind": kind, "set": name, "over": over, **compared(judged, run, passages, judge, scorer)})
                print(line(rows[-1]), file=sys.stderr, flush=True)
    return rows


def compared(
    judged: Any, run: Mapping[str, Any], passages: Mapping[str, Any], judge: Any, scorer: Any
) -> dict[str, Any]:
    """One list scored twice: how far logits, orders and nDCG@10 are apart."""
    import numpy as np

    from crossrank.agreement import kendall
    from crossrank.cascade import mixed
    from crossrank.evaluation.folding import documents_of
    from crossrank.evaluation.measures import per_query
    from crossrank.pipeline import MIX

    taus, apart = [], 0.0
    systems: dict[str, dict[str, Any]] = {"exact": {}, "other": {}, "exact mixed": {}, "other mixed": {}}
    for query, listed in run.items():
        pairs = [(judged.queries[query], passages[i].scored_text) for i in listed.ids]
        exact, other = judge.score(pairs), scorer.score(pairs)
        read = np.isfinite(exact)
        if read.sum() > 1:
            taus.append(kendall(exact[read], other[read]))
            apart = max(apart, float(np.abs(exact[read] - other[read]).max()))
        for name, logits in (("exact", exact), ("other", other)):
            for suffix, weight in (("", 1.0), (" mixed", MIX)):
                order = mixed(listed, logits, weight)
                texts = [passages[i] for i in order.ids]
                systems[name + suffix][query] = documents_of(order, texts)
    means = {
        name: float(np.mean(list(per_query(judged.qrels, found, ["nDCG@10"])["nDCG@10"].values())))
        for name, found in systems.items()
    }
    alone, mix = means["other"] - means["exact"], means["other mixed"] - means["exact mixed"]
    return {
        "queries": len(run),
        "ndcg_exact": round(means["exact"], 5),
        "difference": round(alone, 6),
        "difference_mixed": round(mix, 6),
        "tau": round(float(np.mean(taus)), 5),
        "least_tau": round(float(np.min(taus)), 5),
        "logits": round(apart, 5),
        "passed": bool(abs(alone) <= CLOSE and abs(mix) <= CLOSE and np.mean(taus) > ORDERED),
    }


if __name__ == "__main__":
    main()
