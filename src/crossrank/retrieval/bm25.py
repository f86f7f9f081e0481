"""BM25 over an index, as a retriever."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from crossrank.errors import InputError
from crossrank.index.filters import once
from crossrank.retrieval.where import Kept, Where, both, mistake
from crossrank.types import Ranking


class Words(Protocol):
    """What finds passages by their words: an index."""

    def bm25(self, query: str, depth: int, where: Kept = None) -> Ranking:
        """At most `depth` passages, best first."""
        ...


class BM25Retriever:
    """Passages of an index by BM25.

    Args:
        index: what is searched.
        where: conditions on metadata, such as "year>=2020"; several must all hold.

    >>> class Fixed:
    ...     def bm25(self, query, depth, where=None):
    ...         return Ranking.sorted(["a", "b"], [1.0, 2.0]).cut(depth)
    >>> BM25Retriever(Fixed()).retrieve(["anything"], 1)[0].ids
    ('b',)
    """

    def __init__(self, index: Words, where: Where = None) -> None:
        self._index = index
        self._where = once(where)

    def __repr__(self) -> str:
        return f"BM25Retriever({self._index!r}, where={self._where!r})"

    def filtered(self, where: Where) -> BM25Retriever:
        """The same, over passages that meet these conditions, too."""
        return BM25Retriever(self._index, both(self._where, where))

    def mistake(self) -> str | None:
        """What is likely wrong with a filter of which nothing was found; None when nothing stands out."""
        return mistake(self._index, self._where)

    def retrieve(self, queries: Sequence[str], depth: int) -> list[Ranking]:
        """One ranking of at most `depth` passages a query, in the order of the queries; blank queries find nothing.

        Raises:
            InputError: one string instead of a list, a depth under 1, or a filter that cannot be understood.
        """
        if isinstance(queries, str):
            raise InputError("retrieve takes a list of queries, not one string")
        return [self._index.bm25(query, depth, self._where) for query in queries]
