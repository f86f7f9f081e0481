"""The usual pipeline over a store that others run: its words and its vectors, fused, then one scorer."""

from __future__ import annotations

from pathlib import Path

from crossrank.cascade import Stage
from crossrank.fusion import RRF, Fusion
from crossrank.pipeline import MIX, Pipeline
from crossrank.retrieval.remote.function import FunctionRetriever, VectorRetriever
from crossrank.retrieval.remote.store import Store
from crossrank.scorers import name_of, scorer_of, share_of
from crossrank.types import Embedder, Scorer


def hybrid(
    store: Store,
    embedder: Embedder,
    model: str | Path | Scorer | None = None,
    *,
    depth: int = 100,
    mix: float | None = None,
    fusion: Fusion | None = None,
) -> Pipeline:
    """What `open_pipeline` makes of an index, of a store: retrievers "words" and "vectors", fusion, one stage.

    Args:
        store: such as `crossrank.retrieval.remote.postgres.PostgresTable`.
        embedder: the one that made the store's vectors.
        model: the cross-encoder or late-interaction model, by name or loaded, or any object with `score(pairs)`;
            "small" when absent.
        depth: passages each retriever returns, and the model reads.
        mix: share of the model's score in the final order, as of `open_pipeline`.
        fusion: reciprocal rank fusion when absent, because stores' scores differ in kind. Where `words` is BM25 and
            `nearest` a cosine, `crossrank.fusion.Scores({"words": 0.4, "vectors": 0.6})` is what an index gets, without
            the deduction for short passages.

    Raises:
        CheckpointError: the model cannot be loaded.
        InputError: a depth under 1, or a model that is neither a name nor a scorer.

    >>> import crossrank
    >>> from crossrank.types import Passage
    >>> class Two:
    ...     def words(self, query, depth):
    ...         return [("b", 2.0), ("a", 1.0)]
    ...     def nearest(self, vector, depth):
    ...         return [("a", 0.5)]
    ...     def passages(self, ids):
    ...         return [Passage(id_, {"a": "Cats purr.", "b": "Dogs bark."}[id_]) for id_ in ids]
    >>> pipeline = hybrid(Two(), crossrank.load_embedder(), mix=1.0)
    >>> pipeline.search("what do dogs do?").ranking.ids
    ('b', 'a')
    """
    scorer = scorer_of(model)
    return Pipeline(
        {"words": FunctionRetriever(store.words), "vectors": VectorRetriever(store.nearest, embedder)},
        store.passages,
        (Stage(scorer, depth=depth, weight=share_of(scorer, mix, MIX), name=name_of(scorer)),),
        depth,
        RRF() if fusion is None else fusion,
    )
