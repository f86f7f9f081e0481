"""BM25, dense and their fusions over a judged set, by the product's own index and pipeline."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import crossrank
from crossrank.evaluation import JudgedSet
from crossrank.fusion import rrf
from crossrank.index import Document, Index
from crossrank.pipeline import Pipeline
from crossrank.retrieval.first import first_stage, usual_fusion
from crossrank.types import Passage, Ranking

# No document is longer: judged documents stay whole, as the sets' published figures have them.
WHOLE = 10_000_000


@dataclass(frozen=True)
class Found:
    """What the first stage gave.

    Attributes:
        runs: rankings of passages by query, by system: "bm25", "dense", "rrf", and "fused", which the product reranks.
        seconds: time of each query, by system.
        texts: passages by id.
    """

    runs: dict[str, dict[str, Ranking]]
    seconds: dict[str, list[float]]
    texts: Callable[[Sequence[str]], Sequence[Passage]]


def search(
    judged: JudgedSet,
    embedder: crossrank.TextEmbedder,
    cache: Path,
    depth: int,
    size: int | None,
    note: Callable[[str], None],
) -> Found:
    """Search for every query of the set in an index that is made once, for each embedder, and kept in `cache`."""
    index = index_of(judged, embedder, cache, size or WHOLE, note)
    pipeline = Pipeline(first_stage(index, embedder), index.passages, depth=depth, fusion=usual_fusion(index))
    # The first search opens files; it would be the slowest.
    pipeline.search("warm up")
    runs: dict[str, dict[str, Ranking]] = {"bm25": {}, "dense": {}, "rrf": {}, "fused": {}}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for query, text in judged.queries.items():
        for trace in pipeline.search(text).traces:
            runs[trace.name][query] = trace.ranking
            seconds[trace.name].append(trace.seconds)
        began = time.perf_counter()
        runs["rrf"][query] = rrf([runs["bm25"][query], runs["dense"][query]])
        seconds["rrf"].append(time.perf_counter() - began)
    return Found(runs, seconds, index.passages)


def index_of(
    judged: JudgedSet, embedder: crossrank.TextEmbedder, cache: Path, size: int, note: Callable[[str], None]
) -> Index:
    # Backends agree closely but not to the bit, and the fake one not at all.
    how = hashlib.sha256(f"{embedder.fingerprint}|{embedder.backend.name}".encode()).hexdigest()[:16]
    folder = cache / f"index-{judged.name}-{how}-{'whole' if size == WHOLE else size}"
    index = Index.open_or_create(folder, embedder, embedder.tokenizer, size=size)
    documents = (Document(passage.id, passage.text, passage.title) for passage in judged.corpus.values())

    def progress(step: object) -> None:
        if getattr(step, "stage", "") == "committed":
            note(f"  indexed {getattr(step, 'passages', 0)} passages")

    # Unchanged documents cost nothing, so an interrupted run goes on where it was.
    changes = index.add(documents, embedder, embedder.tokenizer, progress)
    if changes.failed:
        raise SystemExit(f"{judged.name}: {len(changes.failed)} documents failed, the first: {changes.failed[0]}")
    return index
