"""The usual first stage over an index: its words and its vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crossrank.fusion import Fusion, LengthPrior, fusion_of
from crossrank.index.filters import once
from crossrank.retrieval.bm25 import BM25Retriever
from crossrank.retrieval.dense import DenseRetriever
from crossrank.retrieval.where import Where
from crossrank.types import Embedder, Retriever

if TYPE_CHECKING:
    from crossrank.index import Index


def usual_fusion(index: Index, wanted: Fusion | str = "scores") -> Fusion:
    """How BM25 and dense over an index are joined: `fusion_of`, where scores go by the lengths of passages, too.

    Raises:
        InputError: there is no fusion of this name.
    """
    return fusion_of(wanted, LengthPrior(index.lengths))


def first_stage(index: Index, embedder: Embedder, where: Where = None) -> dict[str, Retriever]:
    """BM25 and dense over an index, under the names that `crossrank.fusion.SHARES` has shares for.

    Args:
        index: what is searched.
        embedder: the one the index was made with.
        where: conditions on metadata, such as "year>=2020"; several must all hold.

    Raises:
        IndexFileError: the index was made with another embedder.
        InputError: `where` is neither a condition nor several.
    """
    # Read once: a generator would be empty for the second of the two.
    kept = once(where)
    return {"bm25": BM25Retriever(index, kept), "dense": DenseRetriever(index, embedder, kept)}
