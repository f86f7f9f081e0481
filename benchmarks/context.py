"""Does a context keep its promises on real queries, and what does its threshold cost?

    python benchmarks/context.py FOLDER [--splits train test] [--budgets 250 500 2000] [--out FILE.json]
    python benchmarks/context.py FOLDER --splits dev --thresholds 0.01 0.05 0.2 --queries 150 [--out FILE.json]

FOLDER is a judged set in BEIR layout. Every document is written to a file and indexed in overlapping passages. The
first form searches with BM25 alone and counts: contexts over the budget, counted again from their text; judged
documents that the ranking's top k has and the context has not; markers whose file does not hold the text there. The
second form reranks with the model in the wheel and counts which queries a threshold leaves without any context: of
those whose judged document was found, and of the same when it was taken out of what was found.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import crossrank
import machine
from crossrank.context import Context, assemble
from crossrank.evaluation.beir import JudgedSet, read_set
from crossrank.index import Index
from crossrank.models import named
from crossrank.pipeline import Answer, Pipeline
from crossrank.retrieval.bm25 import BM25Retriever
from crossrank.types import Passage


class Constant:
    """Vectors for an index that only BM25 searches."""

    width = 8
    fingerprint = "constant"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The same unit vector for every text."""
        return np.eye(1, self.width, dtype=np.float32).repeat(len(texts), axis=0)


def main() -> None:
    options = arguments()
    sets = [read_set(options.folder, split) for split in options.splits]
    queries = {id_: text for judged in sets for id_, text in judged.queries.items()}
    qrels = {id_: grades for judged in sets for id_, grades in judged.qrels.items()}
    judged = replace(sets[0], queries=queries, qrels=qrels)
    if options.queries:
        judged = judged.sample(options.queries)
    with tempfile.TemporaryDirectory() as folder:
        measure = thresholds if options.thresholds else promises
        found = {"set": judged.name, "splits": options.splits, **measure(judged, Path(folder), options)}
    found["machine"] = machine.describe(machine.cores())
    print(json.dumps(found, indent=1))
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--splits", nargs="+", default=["test"])
    parser.add_argument("--budgets", nargs="+", type=int, default=[250, 500, 2000])
    parser.add_argument("--thresholds", nargs="+", type=float, default=None)
    parser.add_argument("--queries", type=int, default=None, help="default: all")
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--depth", type=int, default=20, help="passages that the model reads, with --thresholds")
    parser.add_argument("--size", type=int, default=80, help="tokens of a passage")
    parser.add_argument("--overlap", type=int, default=20)
    machine.out_option(parser)
    return parser.parse_args()


def indexed(judged: JudgedSet, folder: Path, embedder: Any, options: argparse.Namespace) -> Index:
    """An index of one file for each document; documents are called `files/ID.txt`."""
    files = folder / "files"
    files.mkdir()
    for id_, passage in judged.corpus.items():
        (files / f"{id_}.txt").write_text(f"{passage.title}\n\n{passage.text}\n", encoding="utf-8")
    tokenizer = named.read(None, default="embed").tokenizer()
    index = Index.create(folder / "index", embedder, tokenizer, size=options.size, overlap=options.overlap)
    index.update([files], embedder, tokenizer)
    return index


def relevant(judged: JudgedSet, query: str) -> set[str]:
    """Documents of the index that answer a query."""
    return {f"files/{document}.txt" for document, grade in judged.qrels[query].items() if grade > 0}


def promises(judged: JudgedSet, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Budget, judged documents and markers, for every budget and both orders."""
    index = indexed(judged, folder, Constant(), options)
    pipeline = Pipeline({"bm25": BM25Retriever(index)}, index.passages)
    counter = crossrank.load(backend="reference").count
    rows = []
    answers = {query: pipeline.search(text, options.k) for query, text in judged.queries.items()}
    for budget in options.budgets:
        began = time.perf_counter()
        contexts = {query: assemble(answer.passages, budget, counter) for query, answer in answers.items()}
        seconds = time.perf_counter() - began
        rows.append({"budget": budget, **tally(judged, answers, contexts, budget, counter), "seconds": seconds})
    return {"queries": len(answers), "k": options.k, "size": options.size, "overlap": options.overlap, "rows": rows}


def tally(
    judged: JudgedSet, answers: dict[str, Answer], contexts: dict[str, Context], budget: int, count: Any
) -> dict[str, Any]:
    """What a set of contexts kept and what it broke."""
    over = joined = sources = astray = had = kept = twins = crowded = 0
    for query, context in contexts.items():
        over += count(context.text) > budget
        sources += len(context.sources)
        joined += sum(len(source.passages) > 1 for source in context.sources)
        astray += sum(not leads_back(source.text, source.place) for source in context.sources)
        by_id = {passage.id: passage.document for passage in answers[query].passages}
        inside = {source.document for source in context.sources}
        reasons: dict[str, set[str]] = {}
        for left in context.left_out:
            reasons.setdefault(by_id[left.passage], set()).add(left.reason.split(" of ")[0])
        for document in relevant(judged, query) & set(by_id.values()):
            had += 1
            kept += document in inside
            twins += document not in inside and "near-duplicate" in reasons[document]
            crowded += document not in inside and reasons[document] == {"over the budget"}
    return {
        "over_budget": over, "sources": sources, "joined_sources": joined, "markers_astray": astray,
        "judged_in_top_k": had, "judged_kept": kept, "judged_left_for_a_twin": twins, "judged_over_budget": crowded,
    }  # fmt: skip


def leads_back(text: str, place: crossrank.Place | None) -> bool:
    """Whether the file holds the text at the place, but for white space."""
    if place is None:
        return False
    there = Path(place.file).read_text(encoding="utf-8")
    same = "".join(there[place.start :].split()).startswith("".join(text.split()))
    return same and there.count("\n", 0, place.start) == place.line - 1


def thresholds(judged: JudgedSet, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The highest probability among the k best, with the judged documents and without them."""
    index = indexed(judged, folder, Constant(), options)
    scorer = crossrank.load()
    best: dict[str, list[float]] = {"with": [], "without": []}
    pipeline = Pipeline({"bm25": BM25Retriever(index)}, index.passages, depth=options.depth)
    for query, text in judged.queries.items():
        passages = pipeline.search(text, options.depth).passages
        answering = relevant(judged, query)
        if not any(passage.document in answering for passage in passages[: options.k]):
            continue
        logits = scorer.score([(text, passage.scored_text) for passage in passages])
        for name, some in (("with", passages), ("without", [p for p in passages if p.document not in answering])):
            best[name].append(_best(scorer, logits, passages, some, options.k))
    about = {"backend": scorer.backend.name}
    rows = [
        {
            "threshold": limit,
            **{f"empty_{name}": float(np.mean(np.array(found) < limit)) for name, found in best.items()},
        }
        for limit in options.thresholds
    ]
    return {"queries": len(best["with"]), "k": options.k, "depth": options.depth, "rows": rows, **about}


def _best(
    scorer: crossrank.CrossEncoder, logits: Any, passages: Sequence[Passage], some: Sequence[Passage], k: int
) -> float:
    kept = {passage.id for passage in some[:k]}
    chosen = [logit for logit, passage in zip(logits, passages, strict=True) if passage.id in kept]
    return float(scorer.probability(np.array(chosen, dtype=np.float32)).max()) if chosen else 0.0


if __name__ == "__main__":
    main()
