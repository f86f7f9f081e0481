"""Does reranking help, and where not? nDCG@10 with 95 % confidence intervals on judged sets.

    python benchmarks/quality.py DATA_FOLDER --cache FOLDER [--sets scifact trec_dl19] [--sweep] [--out FILE.json]

For every set: BM25, dense, their reciprocal rank fusion, the cross-encoder alone over the top of the fusion, and the
mix of both; where a set comes with a list of its own (trec_dl19's BM25 top-100, noveleval's judged candidates), the
cross-encoder over that list. Differences are paired by query, against fusion or against the list as it came.

Indexes and pair scores are kept in --cache, so a second run, a sweep of the mix, or an interrupted run costs seconds.
Needs the extras search and eval.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import machine


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    machine.judged_options(parser, queries=200)
    parser.add_argument("--model", default="small")
    parser.add_argument("--embedder", default="embed")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--depth", type=int, default=100, help="candidates that are reranked")
    parser.add_argument("--max-length", type=int, default=None, help="tokens of a pair; default: the model's")
    parser.add_argument("--passage-tokens", type=int, default=None, help="split documents; default: one passage each")
    parser.add_argument("--mix", type=float, default=None, help="weight of the cross-encoder; default: the product's")
    parser.add_argument("--sweep", action="store_true", help="also nDCG@10 for weights 0, 0.1, ..., 1")
    parser.add_argument("--only", choices=("fusion", "given"), default=None, help="one kind of list instead of both")
    parser.add_argument("--runs", type=Path, default=None, help="write every run here as a TREC file")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    # NumPy and torch read these once, so nothing heavy may be imported before.
    machine.limit_threads(options.threads)
    import experiment
    import report
    import sets

    names = sets.names(options.data, options.sets)
    plan = experiment.Plan.of(options)
    about = machine.describe(options.threads)
    results = []
    for name in names:
        found = plan.run(options.data, name, machine.note)
        results += found
        # Figures that can be read while the rest runs.
        machine.note("\n".join(map(report.row, found)))
    if not results:
        sys.exit("none of these sets comes with a list of its own; leave --only out")
    summary = report.summary(plan.about(), about, results)
    print(report.markdown(summary, results, machine.line(about)))
    line = json.dumps(summary, allow_nan=False)
    if options.out:
        options.out.write_text(json.dumps(summary, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    else:
        print(line)


if __name__ == "__main__":
    main()
