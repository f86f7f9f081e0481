"""A whole query: retrievers, reciprocal rank fusion, a cascade of rerankers. Its repr is its source."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from crossrank.cascade import Stage, Trace, rerank
from crossrank.crossencoder import load
from crossrank.embedder import load_embedder
from crossrank.errors import InputError
from crossrank.fusion import rrf
from crossrank.types import Passage, Ranking, ReportingRetriever, Retrieved, Retriever, TokenStore, check_k, check_query

if TYPE_CHECKING:
    from crossrank.index import Index

# Share of the cross-encoder's score when a hybrid first stage is reranked. Chosen on four dev sets (see LOG.md):
# the mean was 0.746 for fusion alone, 0.756 at 0.1, 0.747 at 0.2 and 0.648 for this cross-encoder alone.
MIX = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What one query found.

    Attributes:
        query: as asked.
        ranking: the k best, best first; `ranking.head` of them were read by the last stage.
        passages: their texts, in the same order.
        traces: every step, in order: each retriever, "fused" when there are several, each stage.
        seconds: wall-clock time of the whole query.
    """

    query: str
    ranking: Ranking
    passages: tuple[Passage, ...]
    traces: tuple[Trace, ...]
    seconds: float


@dataclass(frozen=True)
class Pipeline:
    """Retrieve, fuse, rerank: a fixed shape, so a frozen value.

    Attributes:
        retrievers: first stages by name. One is used as it is; several are joined by reciprocal rank fusion.
        texts: passages of the given ids, in their order.
        stages: rerankers, in order; none leaves the fused order.
        depth: documents each retriever returns.
        rrf_k: the constant of reciprocal rank fusion.
        store: where the passages' token ids lie ready, if anywhere; see `crossrank.cascade.rerank`.
    """

    retrievers: Mapping[str, Retriever]
    texts: Callable[[Sequence[str]], Sequence[Passage]] = field(repr=False)
    stages: tuple[Stage, ...] = ()
    depth: int = 100
    rrf_k: int = 60
    store: TokenStore | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_k(self.depth)
        if not self.retrievers:
            raise InputError("a pipeline needs at least one retriever")

    def search(self, query: str, k: int = 10) -> Answer:
        """The `k` best documents for `query`.

        Raises:
            InputError: a blank query, or a `k` under 1.
        """
        check_k(k)
        check_query(query)
        began = time.perf_counter()
        traces = []
        for name, retriever in self.retrievers.items():
            started = time.perf_counter()
            found = _retrieved(retriever, query, self.depth)
            traces.append(Trace(name, found.ranking, time.perf_counter() - started, {}, found.truncations))
        ranking = traces[0].ranking
        if len(traces) > 1:
            started = time.perf_counter()
            ranking = rrf([trace.ranking for trace in traces], self.rrf_k)
            traces.append(Trace("fused", ranking, time.perf_counter() - started, {}))
        ranking, reranked = rerank(query, ranking, self.stages, self.texts, self.store)
        final = ranking.cut(k)
        passages = tuple(self.texts(final.ids)) if len(final) else ()
        return Answer(query, final, passages, (*traces, *reranked), time.perf_counter() - began)


def _retrieved(retriever: Retriever, query: str, depth: int) -> Retrieved:
    if isinstance(retriever, ReportingRetriever):
        return retriever.retrieved([query], depth)[0]
    return Retrieved(retriever.retrieve([query], depth)[0], ())


def open_pipeline(
    folder: str | Path,
    model: str | Path | None = None,
    *,
    embedder: str | Path | None = None,
    depth: int = 100,
    where: Sequence[str] = (),
    mix: float = MIX,
    rerank: bool = True,
    backend: str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    threads: int | None = None,
) -> Pipeline:
    """The usual pipeline over an index: BM25 and dense, reciprocal rank fusion, one cross-encoder.

    Args:
        folder: made by `crossrank index`.
        model: the cross-encoder; "small" when absent.
        embedder: must be the one the index was made with, which is the default.
        depth: documents each retriever returns, and the cross-encoder reads.
        where: filters on metadata, such as "year>=2020"; all must hold.
        mix: share of the cross-encoder's score in the final order, see `Stage.weight`.
        rerank: false leaves the fused order.
        backend: what computes both models; see `crossrank.backends.open`, also for the next two.
        device: "auto", "cpu" or "cuda".
        dtype: "auto", "float32", "bfloat16" or "float16". It need not be the one the index was made in: cosines of 200
            texts differed by 0.0033 at most between float32 and bfloat16 (`embed`, torch).
        threads: cores that one call of the native engine may use; all when absent.

    Raises:
        IndexFileError: no index there, or it was made with another embedder.
        CheckpointError: a model cannot be loaded.
        MissingExtraError: the search extra is not installed.
    """
    from crossrank.index import Index
    from crossrank.retrieval.bm25 import BM25Retriever
    from crossrank.retrieval.dense import DenseRetriever

    index: Index = Index.open(folder)
    made = load_embedder(embedder or index.info().model, backend=backend, device=device, dtype=dtype, threads=threads)
    retrievers: dict[str, Retriever] = {
        "bm25": BM25Retriever(index, where),
        "dense": DenseRetriever(index, made, where),
    }
    stages: tuple[Stage, ...] = ()
    if rerank:
        scorer = load(model, backend=backend, device=device, dtype=dtype, threads=threads)
        stages = (Stage(scorer, depth=depth, weight=mix, name=scorer.checkpoint.name),)
    return Pipeline(retrievers, index.passages, stages, depth, store=index)
