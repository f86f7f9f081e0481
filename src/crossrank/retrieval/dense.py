"""Nearest vectors of an index, as a retriever."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import InputError
from crossrank.index.filters import once
from crossrank.retrieval.where import Kept, Where, both, mistake
from crossrank.types import Embedder, Ranking, ReportingEmbedder, Retrieved, Truncation, check_k
from crossrank.unicode import is_blank


class Vectors(Protocol):
    """What finds passages by their vectors: an index."""

    def dense(self, vector: NDArray[np.float32], depth: int, where: Kept = None) -> Ranking:
        """At most `depth` passages, best first."""
        ...

    def check_embedder(self, embedder: Embedder) -> None:
        """Raise when the embedder's vectors cannot be compared with those of the index."""
        ...


@runtime_checkable
class AskingEmbedder(Protocol):
    """An embedder that reads queries otherwise than documents. One that is not reads both alike."""

    @property
    def queries(self) -> Embedder:
        """What makes the vectors of queries."""
        ...


class DenseRetriever:
    """Passages of an index by the dot product of unit vectors.

    Args:
        index: what is searched.
        embedder: the one the index was made with.
        where: conditions on metadata, such as "year>=2020"; several must all hold.

    Raises:
        IndexFileError: the index was made with another embedder.
    """

    def __init__(self, index: Vectors, embedder: Embedder, where: Where = None) -> None:
        index.check_embedder(embedder)
        self._index = index
        self.embedder = embedder
        self._where = once(where)

    def __repr__(self) -> str:
        return f"DenseRetriever({self._index!r}, {self.embedder!r}, where={self._where!r})"

    def filtered(self, where: Where) -> DenseRetriever:
        """The same, over passages that meet these conditions, too."""
        return DenseRetriever(self._index, self.embedder, both(self._where, where))

    def mistake(self) -> str | None:
        """What is likely wrong with a filter of which nothing was found; None when nothing stands out."""
        return mistake(self._index, self._where)

    def retrieve(self, queries: Sequence[str], depth: int) -> list[Ranking]:
        """One ranking of at most `depth` passages a query, in the order of the queries; blank queries find nothing.

        Raises:
            InputError: one string instead of a list, a depth under 1, or a filter that cannot be understood.
            IndexFileError: the index is of another embedder now.
        """
        return [found.ranking for found in self.retrieved(queries, depth)]

    def retrieved(self, queries: Sequence[str], depth: int) -> list[Retrieved]:
        """Like `retrieve`, with a report of queries that the embedder did not read to their end."""
        check_k(depth, "depth")
        return by_vector(queries, self.embedder, lambda vector: self._nearest(vector, depth))

    def _nearest(self, vector: NDArray[np.float32], depth: int) -> Ranking:
        # An update through the same `Index` may have gone on to one that was made anew with another embedder.
        self._index.check_embedder(self.embedder)
        return self._index.dense(vector, depth, self._where)


def by_vector(
    queries: Sequence[str], embedder: Embedder, find: Callable[[NDArray[np.float32]], Ranking]
) -> list[Retrieved]:
    """What `find` gives for the vector of each query, in the order of the queries; blank queries find nothing.

    Raises:
        InputError: one string instead of a list.
    """
    if isinstance(queries, str):
        raise InputError("retrieve takes a list of queries, not one string")
    asked = [row for row, query in enumerate(queries) if not is_blank(query)]
    found = [Retrieved(Ranking((), np.zeros(0, dtype=np.float32), 0), ()) for _ in queries]
    if asked:
        vectors, cut = _embed(embedder, [queries[row] for row in asked])
        for place, row in enumerate(asked):
            found[row] = Retrieved(find(vectors[place]), (replace(cut[place], position=-1),) if place in cut else ())
    return found


def _embed(embedder: Embedder, queries: list[str]) -> tuple[NDArray[np.float32], dict[int, Truncation]]:
    """Vectors, and what was cut by position, where the embedder says so."""
    if isinstance(embedder, AskingEmbedder):
        embedder = embedder.queries
    if not isinstance(embedder, ReportingEmbedder):
        return embedder.embed(queries), {}
    made = embedder.embedded(queries)
    return made.vectors, {cut.position: cut for cut in made.truncations}
