"""Which checkpoint is better? nDCG@10 of scorers on lists of the dev sets, each model alone on each list.

    python recipes/choose.py DEV_FOLDER WORK_FOLDER MODEL [MODEL ...] [--near 0 10 15] [--over MODEL]

Lists are made once for each DEV_FOLDER and kept in WORK_FOLDER: trec_dl19's own BM25 top 100, the judged candidates of
sets that judge some for each question, and for the others the top of BM25 and the start model together. Models are
cross-encoders, late-interaction models, or bi-encoders such as `embed`. `--near` also measures each model's score plus
so many times the start model's cosine: the teacher of `distil.py`. `--over` compares with one row of the table, paired
by query: the mean of the sets and its 95 % interval.

The dev sets are for choosing. What is chosen here is measured by `benchmarks/quality.py`, which runs the whole product.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import bm25s
import numpy as np

import crossrank
import start
from crossrank.evaluation import JudgedSet, difference_over_sets, read_run, read_set
from crossrank.evaluation.measures import per_query
from crossrank.fusion import rrf
from crossrank.models import named
from crossrank.types import Ranking
from crossrank.writing import whole

QUERIES = 60
# Queries and candidates of each where lists are made here: a third of the product's depth, for a third of the time.
MADE, DEPTH = 30, 30
# Name: split, and where its lists come from.
SETS = {
    "trec_dl19": ("full", "runs/BM25.trec"),
    "noveleval": ("test", "judged"),
    "wikiqa": ("test", "judged"),
    "selqa": ("test", "judged"),
    "hotpotqa_dev500": ("test", "judged"),
    "clapnq": ("dev", "found"),
    "scifact": ("test", "found"),
    "cacm": ("test", "found"),
    "npl": ("test", "found"),
}
SEED = 0
# Tokens of a pair: the sets' passages mostly fit, and a choice needs no windows.
MAX_TOKENS = 256

# Of a row that is no model's.
START = "the start model's cosine"


@dataclass(frozen=True)
class List:
    """One query's candidates: texts, the start model's cosines, and all judgments of the query."""

    set: str
    query: str
    ids: list[str]
    texts: list[str]
    near: list[float]
    grades: dict[str, int]


def found(judged: JudgedSet, vectors: np.ndarray, asked: np.ndarray) -> dict[str, list[str]]:
    """The top DEPTH of BM25 and the start model, fused by rank."""
    ids = list(judged.corpus)
    retriever = bm25s.BM25(k1=0.9, b=0.4)
    texts = [judged.corpus[i].scored_text for i in ids]
    retriever.index(bm25s.tokenize(texts, show_progress=False), show_progress=False)
    words = bm25s.tokenize(list(judged.queries.values()), show_progress=False)
    lexical, values = retriever.retrieve(words, k=DEPTH, show_progress=False)
    lists = {}
    for n, query in enumerate(judged.queries):
        cosines = vectors @ asked[n]
        nearest = np.argsort(-cosines, kind="stable")[:DEPTH]
        both = [
            Ranking.sorted([ids[i] for i in lexical[n]], values[n]),
            Ranking.sorted([ids[i] for i in nearest], cosines[nearest]),
        ]
        lists[query] = list(rrf(both).cut(DEPTH).ids)
    return lists


def lists_of(dev: Path, name: str, embedder: crossrank.TextEmbedder) -> list[List]:
    split, source = SETS[name]
    judged = read_set(dev / name, split).sample(MADE if source == "found" else QUERIES, SEED)
    asked = embedder.embed(list(judged.queries.values()))
    if source == "found":
        ids = list(judged.corpus)
        candidates = found(judged, embedder.embed([judged.corpus[i].scored_text for i in ids]), asked)
    elif source == "judged":
        candidates = {query: list(grades) for query, grades in judged.qrels.items()}
    else:
        run = read_run(dev / name / source)
        candidates = {query: list(run[query].cut(100).ids) for query in judged.queries}
    rows = []
    for n, query in enumerate(judged.queries):
        texts = [judged.corpus[i].scored_text for i in candidates[query]]
        near = (embedder.embed(texts) @ asked[n]).tolist()
        rows.append(List(name, judged.queries[query], candidates[query], texts, near, dict(judged.qrels[query])))
    return rows


def kept_lists(dev: Path, work: Path) -> list[List]:
    made_of = [str(dev.resolve()), SETS, QUERIES, MADE, DEPTH, SEED]
    file = work / f"dev-{sha256(json.dumps(made_of).encode()).hexdigest()[:8]}.jsonl"
    if not file.exists():
        embedder = crossrank.load_embedder(start.FOLDER)
        rows = [row for name in SETS for row in lists_of(dev, name, embedder)]
        with whole(file) as part, part.open("w", encoding="utf-8") as out:
            out.writelines(json.dumps(asdict(row)) + "\n" for row in rows)
    return [List(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]


def scores_of(name: str, lists: list[List], threads: int | None) -> list[np.ndarray]:
    """What one model says of the texts of each list, in their order."""
    kind = named.read(name, default="small").kind
    if kind == "bi-encoder":
        embedder = crossrank.load_embedder(name, threads=threads)
        return [embedder.embed(row.texts) @ embedder.embed([row.query])[0] for row in lists]
    if kind == "late-interaction":
        scorer = crossrank.load_late(name, threads=threads)
    else:
        scorer = crossrank.load(name, max_length=MAX_TOKENS, max_windows=1, threads=threads)
    return [scorer.score([(row.query, text) for text in row.texts]) for row in lists]


def values(lists: list[List], scores: list[np.ndarray]) -> dict[str, dict[str, float]]:
    """nDCG@10 of each query by set; equal scores keep the incoming order."""
    found = {}
    for name in dict.fromkeys(row.set for row in lists):
        mine = [(str(n), row) for n, row in enumerate(lists) if row.set == name]
        run = {key: Ranking.sorted(row.ids, scores[int(key)]) for key, row in mine}
        found[name] = per_query({key: row.grades for key, row in mine}, run)["nDCG@10"]
    return found


def label_of(name: str, weight: float) -> str:
    """How a model's row is called."""
    return name if weight == 0 else f"{name} + {weight:g} cosine"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dev", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("models", nargs="+", help="names or folders")
    parser.add_argument("--near", type=float, nargs="+", default=[0.0], help="weights of the start model's cosine")
    parser.add_argument("--over", default=None, help="a row with which the others are compared, as the table calls it")
    parser.add_argument("--threads", type=int, default=0, help="cores to use (default: all)")
    args = parser.parse_args()
    labels = {(name, weight): label_of(name, weight) for name in args.models for weight in args.near}
    if args.over not in (None, START, *labels.values()):
        parser.error(f"--over is none of what is measured: {', '.join([START, *labels.values()])}")
    lists = kept_lists(args.dev, args.work)
    rows = [(START, values(lists, [np.float32(row.near) for row in lists]))]
    for name in args.models:
        scores = scores_of(name, lists, args.threads or None)
        for weight in args.near:
            mixed = [score + weight * np.float32(row.near) for score, row in zip(scores, lists, strict=True)]
            rows.append((labels[name, weight], values(lists, mixed)))
    names = list(rows[0][1])
    print("| model | " + " | ".join(names) + " | mean |")
    print("| --- |" + " --: |" * (len(names) + 1))
    for label, measured in rows:
        cells = [float(np.mean(list(measured[name].values()))) for name in names]
        print(f"| {label} | " + " | ".join(f"{value:.3f}" for value in [*cells, np.mean(cells)]) + " |")
    if base := dict(rows).get(args.over):
        for label, measured in rows:
            if label != args.over:
                told = difference_over_sets([(measured[name], base[name]) for name in names])
                print(f"{label} - {args.over}: {told.mean:+.3f} [{told.low:+.3f}, {told.high:+.3f}]")


if __name__ == "__main__":
    main()
