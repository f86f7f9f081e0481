"""Does the planner keep its promises? Predicted time and budgets, on this machine and on judged sets.

    python benchmarks/planner.py DATA --cache FOLDER --parts prepare
    python benchmarks/planner.py DATA --cache FOLDER --first hybrid --threads 1 2 --out hybrid.json
    python benchmarks/planner.py DATA --cache FOLDER --first bm25 --parts budgets --out bm25.json

prepare    Indexes the sets and scores all candidates of every query, into --cache, where the other parts find both. It
           may run beside other work, and an interrupted run goes on where it was. `--minutes` ends any part early.
accuracy   A cost model is calibrated, then lists that it has not seen are scored: predicted against measured seconds,
           without and with the running correction, for short, long and mixed pairs, for each of --threads.
budgets    Every query is searched within each budget, the budgets taking turns: share of answers in time (5 ms
           allowed), empty answers, nDCG@10; beside it the fixed depth that costs as much on average, and the one that
           would keep the budget for 99 of 100 queries.

What early stopping loses and saves is told by stop_early.py.

Run it on an idle machine. `--clock cpu` counts the processor time of this process instead, which other processes do not
lengthen: use it with one thread, where the two are the same on an idle machine. Needs the extras search and eval.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import machine

BUDGETS = (30, 50, 100, 200, 500)
ALLOWED = 0.005
# 1,000 questions: short and longer passages. Others can be named as SET=QUERIES.
QUERIES = ("wikiqa=243", "selqa=500", "hotpotqa_dev500=157", "clapnq=100")
PARTS = ("prepare", "accuracy", "budgets")
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
# Tokens of a pair: (mean of a log-normal or None for half short and half long, spread).
WORKLOADS = {"short": (83, 0.45), "long": (241, 0.45), "mixed": (None, 0.0)}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of judged sets, one folder each")
    parser.add_argument("--cache", type=Path, required=True, help="folder for indexes and scores")
    parser.add_argument("--parts", nargs="+", default=list(PARTS[1:]), choices=PARTS)
    parser.add_argument("--queries", nargs="+", default=list(QUERIES), metavar="SET=COUNT")
    parser.add_argument("--budgets", nargs="+", type=int, default=list(BUDGETS), metavar="MS")
    parser.add_argument("--first", nargs="+", default=["hybrid", "bm25"], choices=("hybrid", "bm25"))
    parser.add_argument("--threads", nargs="+", type=int, default=[machine.cores()], help="the last is for budgets")
    parser.add_argument("--lists", type=int, default=60, help="lists scored of each workload")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="of each first stage, then no query is begun"
    )
    parser.add_argument("--model", default=None)
    parser.add_argument("--seed", type=int, default=0)
    machine.out_option(parser)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    machine.limit_threads(max(options.threads))
    summary: dict[str, Any] = {"benchmark": "planner", "clock": options.clock, "seed": options.seed}
    summary["machine"] = machine.describe(options.threads[-1])
    summary["backend"] = machine.backend(options.model)
    if "accuracy" in options.parts:
        summary["accuracy"] = {str(threads): accuracy(options, threads) for threads in options.threads}
    if {"prepare", "budgets"} & set(options.parts):
        summary |= on_judged_sets(options)
    print(f"\n{machine.line(summary['machine'])}, {options.clock} clock")
    text = json.dumps(summary, indent=1, allow_nan=False)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


# --- accuracy ----------------------------------------------------------------------------------------------------


def accuracy(options: argparse.Namespace, threads: int) -> dict[str, Any]:
    """Relative errors of predictions for lists of 1 to 100 pairs."""
    import numpy as np

    import crossrank
    from crossrank.cost import Pace
    from crossrank.planner import measure
    from crossrank.types import Tokens

    clock, dice = CLOCKS[options.clock], np.random.default_rng(options.seed + 7)
    scorer = crossrank.load(options.model, threads=threads)
    began = clock()
    model = measure(scorer, clock=clock)
    found: dict[str, Any] = {"calibration_seconds": round(clock() - began, 2), "model": Pace(model).stated()}
    words = scorer.checkpoint.tokenizer().get_vocab_size()
    print(f"\n{scorer!r}, {threads} threads, calibrated in {found['calibration_seconds']} s\n")
    print("| workload | lists | median error | 95th percentile | corrected: median | 95th |\n|---|--:|--:|--:|--:|--:|")
    for name in WORKLOADS:
        plain, corrected, pace = [], [], Pace(model)
        for _ in range(options.lists):
            # As many short lists as long ones, because near a deadline they are short.
            sizes = pair_lengths(dice, name, int(np.exp(dice.uniform(0, np.log(60)))))
            passages = Tokens.of([dice.integers(words // 4, words, size).tolist() for size in sizes])
            query = f"a question about number {dice.integers(1000)}"
            lengths, _ = scorer.sequence_lengths(query, passages.lengths)
            began = clock()
            scorer.scored_tokens([query] * len(passages), passages)
            seconds = clock() - began
            plain.append(abs(model.seconds(lengths) / seconds - 1))
            corrected.append(abs(pace.seconds(lengths) / seconds - 1))
            pace.observe(lengths, seconds)
        row = {
            "median": percentile(plain, 50),
            "p95": percentile(plain, 95),
            "corrected_median": percentile(corrected, 50),
            "corrected_p95": percentile(corrected, 95),
        }
        found[name] = row
        print(f"| {name} | {len(plain)} | " + " | ".join(f"{100 * value:.1f} %" for value in row.values()) + " |")
    return found


def pair_lengths(dice: Any, workload: str, count: int) -> list[int]:
    """Passage tokens, about 12 fewer than the pair's."""
    import numpy as np

    mean, spread = WORKLOADS[workload]
    means = np.full(count, mean) if mean else dice.choice([60.0, 300.0], count)
    lengths = means * np.exp((spread or 0.4) * dice.standard_normal(count) - (spread or 0.4) ** 2 / 2)
    return np.clip(lengths - 12, 4, 480).astype(int).tolist()


def percentile(values: Sequence[float], q: float) -> float:
    import numpy as np

    return round(float(np.percentile(values, q)), 4)


# --- budgets ---------------------------------------------------------------------------------------------------


@dataclass
class Asked:
    """One query: what it read whole, and what it answered within each budget.

    Attributes:
        set: of the query.
        qrels: its judgments.
        head: the candidates that a whole reading reads, in fused order.
        logits: theirs.
        documents: of passages.
        answers: by budget: the ranking, seconds and passages read.
        costs: predicted seconds of reading the first 0, 1, 2, ... candidates.
    """

    set: str
    qrels: Mapping[str, int]
    head: Any
    logits: Any
    documents: dict[str, str]
    answers: dict[int, tuple[list[str], float, int]]
    costs: Any


def on_judged_sets(options: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for first in options.first:
        asked, weight = searched(options, first)
        found.setdefault("queries", {})[first] = len(asked)
        if "budgets" in options.parts:
            found.setdefault("budgets", {})[first] = budgets(asked, weight, options, first)
    return found


def searched(options: argparse.Namespace, first: str) -> tuple[list[Asked], float]:
    """All queries in random order, so that a part of them is a fair sample: within each budget in turns, and whole."""
    import numpy as np

    import crossrank
    from crossrank.cascade import Stage
    from crossrank.cost import Pace
    from crossrank.pipeline import MIX
    from crossrank.planner import measure

    threads, clock = options.threads[-1], CLOCKS[options.clock]
    model, embedder = crossrank.load(options.model, threads=threads), crossrank.load_embedder(threads=threads)
    pace = Pace(measure(model, clock=clock))
    stage = Stage(model, 100, MIX if first == "hybrid" else 1.0, pace=pace)
    places = [place for entry in options.queries for place in opened(options, first, entry, stage, embedder)]
    order = np.random.default_rng(options.seed).permutation(len(places))
    end, every = time.monotonic() + 60 * options.minutes, []
    for number, row in enumerate(order.tolist()):
        if time.monotonic() > end:
            machine.note(f"{first}: time is up after {number} of {len(places)} queries")
            break
        if (asked := ask(*places[row], model, pace)) is not None:
            every.append(asked)
    return every, stage.weight


def opened(options: argparse.Namespace, first: str, entry: str, stage: Any, embedder: Any) -> list[tuple[Any, ...]]:
    """The queries of one set, each with its text, judgments, and the pipelines that it goes through."""
    import crossrank
    import first_stage
    import sets
    from crossrank.pipeline import Pipeline
    from crossrank.retrieval.bm25 import BM25Retriever
    from crossrank.retrieval.dense import DenseRetriever
    from crossrank.retrieval.first import usual_fusion

    name, _, count = entry.partition("=")
    judged = sets.read(options.data, name).sample(int(count or 100), options.seed)
    index = first_stage.index_of(judged, embedder, options.cache, first_stage.WHOLE, machine.note)
    retrievers = {"bm25": BM25Retriever(index)}
    if first == "hybrid":
        retrievers["dense"] = DenseRetriever(index, embedder)
    # Scores of the native engine are the same in every batch, so remembered ones are what a whole reading would give.
    reader = crossrank.CachedScorer(stage.scorer, options.cache / "planner.scores")
    once = replace(stage, scorer=reader, pace=None)
    fusion, clock = usual_fusion(index), CLOCKS[options.clock]
    whole = Pipeline(retrievers, index.passages, (once,), fusion=fusion, store=index, clock=clock)
    timed = options.budgets if "budgets" in options.parts else []
    held = {ms: replace(whole, stages=(stage,)).within(ms) for ms in timed}
    machine.note(f"{name}: {len(judged.queries)} queries over {first}")
    return [(name, text, judged.qrels[query], whole, held) for query, text in judged.queries.items()]


def ask(
    name: str, text: str, qrels: Mapping[str, int], whole: Any, held: Mapping[int, Any], model: Any, pace: Any
) -> Asked | None:
    """One query through all pipelines of its set; None where the first stage finds nothing."""
    import numpy as np

    full = whole.search(text)
    if not len(full.traces[-1].ranking):
        return None
    answers = {}
    for ms, pipeline in held.items():
        answer = pipeline.search(text)
        answers[ms] = (list(answer.ranking.ids), answer.seconds, len(answer.traces[-1].scores))
    before = full.traces[-2].ranking.cut(whole.stages[0].depth)
    logits = np.array([full.traces[-1].scores[i] for i in before.ids], dtype=np.float32)
    ids = {i for ids, _, _ in answers.values() for i in ids} | set(before.ids)
    documents = {passage.id: passage.document or passage.id for passage in whole.texts(sorted(ids))}
    lengths, counts = model.sequence_lengths(text, whole.store.tokens(before.ids).lengths)
    first_of = np.concatenate([[0], np.cumsum(counts)])
    shares = pace.model.shares(lengths, first_of, np.zeros(len(before), dtype=np.int64))
    return Asked(name, qrels, before, logits, documents, answers, np.concatenate([[0.0], np.cumsum(shares)]))


def value(asked: Asked, ids: Sequence[str]) -> float:
    """nDCG@10 as trec_eval has it: gains are grades."""
    import numpy as np

    documents = list(dict.fromkeys(asked.documents[i] for i in ids))[:10]
    discounts = 1 / np.log2(np.arange(2, 12))
    gains = np.array([max(asked.qrels.get(document, 0), 0) for document in documents], dtype=float)
    ideal = np.sort([max(grade, 0) for grade in asked.qrels.values()])[::-1][:10].astype(float)
    best = float(ideal @ discounts[: len(ideal)])
    return float(gains @ discounts[: len(gains)]) / best if best else 0.0


def fixed(asked: Asked, depth: int, weight: float) -> list[str]:
    """The order that a fixed depth gives."""
    from crossrank.cascade import mixed

    if depth < 1:
        return list(asked.head.ids)
    head = asked.head.cut(depth)
    return list(mixed(head, asked.logits[: len(head)], weight).over(asked.head).ids)


def depths(asked: list[Asked], ms: int) -> tuple[int, int]:
    """The fixed depth of equal mean cost, and the one that keeps the budget for 99 of 100 queries."""
    import numpy as np

    used = np.array([one.costs[one.answers[ms][2]] for one in asked])
    # What an answer takes besides reading.
    rest = float(np.median([one.answers[ms][1] for one in asked] - used))
    equal = safe = 0
    for depth in range(1, 101):
        costs = np.array([one.costs[min(depth, len(one.costs) - 1)] for one in asked])
        equal = depth if costs.mean() <= used.mean() else equal
        safe = depth if (costs + rest <= ms / 1000 + ALLOWED).mean() >= 0.99 else safe
    return equal, safe


def budgets(asked: list[Asked], weight: float, options: argparse.Namespace, first: str) -> list[dict[str, Any]]:
    import numpy as np

    from crossrank.evaluation.bootstrap import difference

    rows = []
    print(f"\n{first}, {len(asked)} queries\n")
    print("| budget | in time | 99th percentile | empty | read | nDCG@10 | equal cost | nDCG@10 | difference | safe |")
    print("|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for ms in options.budgets:
        seconds = np.array([one.answers[ms][1] for one in asked])
        got = {str(number): value(one, one.answers[ms][0]) for number, one in enumerate(asked)}
        equal, safe = depths(asked, ms)
        beside, kept = (
            {str(number): value(one, fixed(one, depth, weight)[:20]) for number, one in enumerate(asked)}
            for depth in (equal, safe)
        )
        gain = difference(got, beside)
        row = {
            "budget_ms": ms,
            "in_time": float((seconds <= ms / 1000 + ALLOWED).mean()),
            "p99_ms": percentile(1000 * seconds, 99),
            "median_ms": percentile(1000 * seconds, 50),
            "empty": sum(not one.answers[ms][0] for one in asked),
            "read": float(np.mean([one.answers[ms][2] for one in asked])),
            "ndcg": float(np.mean(list(got.values()))),
            "equal_depth": equal,
            "equal_ndcg": float(np.mean(list(beside.values()))),
            "difference": str(gain),
            "safe_depth": safe,
            "safe_ndcg": float(np.mean(list(kept.values()))),
        }
        rows.append({key: round(v, 4) if isinstance(v, float) else v for key, v in row.items()})
        print(
            f"| {ms} ms | {row['in_time']:.1%} | {row['p99_ms']:.0f} ms | {row['empty']} | {row['read']:.0f} "
            f"| {row['ndcg']:.4f} | {equal} | {row['equal_ndcg']:.4f} | {gain} "
            f"| {safe}: {row['safe_ndcg']:.4f} |"
        )
    whole = np.array([value(one, fixed(one, 100, weight)) for one in asked])
    print(f"| none | | | | 100 | {whole.mean():.4f} | | | | |")
    return rows


if __name__ == "__main__":
    main()
