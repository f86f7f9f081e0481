"""What the models in the wheel are worth: against BM25, fusion and each other, in a cascade, and when nothing answers.

    python benchmarks/family.py DATA_FOLDER --cache FOLDER [--models small fast tiny] [--queries 60] [--out FILE.json]

    given       each model alone over trec_dl19's BM25 top 100
    mixed       each model in the product's mix over the fused top 100, and its gain over reciprocal rank fusion
    alone       each model alone over the same candidates, and the share of the first model's mean that it keeps
    cascade     --coarse over the top 500, then the first model over the best --handed of them, against the first model
                over all 500
    calibrated  expected calibration error over those candidates
    abstaining  how often "nothing here is relevant" is right and wrong: each query once with its candidates and once
                without its relevant ones; the answer is "nothing" where the best probability is under a threshold

Differences are paired by query, intervals are bootstrapped over queries, p-values come from the randomization test.
Indexes and pair scores are kept in --cache, which the other scripts share. Needs the extras search and eval.
"""

from __future__ import annotations

import argparse

import machine


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    machine.judged_options(parser, queries=60)
    parser.add_argument("--models", nargs="+", default=["small", "fast", "tiny"], help="the accurate one first")
    parser.add_argument("--embedder", default="embed")
    parser.add_argument("--mix", type=float, default=None, help="weight of the cross-encoder; default: the product's")
    parser.add_argument("--coarse", help="model of the cascade's first stage; default: the last of --models")
    parser.add_argument("--coarse-mix", type=float, default=None, help="its weight; default: that of the others")
    parser.add_argument("--handed", type=int, default=100, help="of its 500, what it hands to the first model")
    parser.add_argument("--deep-queries", type=int, default=15, help="of these, so many for the cascade; 0 for none")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    # NumPy reads this once, so nothing heavy may be imported before.
    machine.limit_threads(options.threads)
    import members
    import sets

    names = sets.names(options.data, options.sets)
    family = members.Family.of(options)
    found = {"benchmark": "family", "measure": members.MEASURE, "mix": family.mix, "queries": options.queries}
    found |= {"seed": options.seed, "machine": machine.describe(options.threads), **family.about()}
    measured = []
    for name in names:
        measured.append(family.measured(options.data, name, machine.note))
        means = (f"{system} {sum(of.values()) / len(of):.3f}" for system, of in measured[-1].values.items())
        machine.note(f"{name}: {', '.join(means)}")
    members.publish(list(family.tables(measured)), found, options.out)


if __name__ == "__main__":
    main()
