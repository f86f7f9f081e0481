"""A plain function as a retriever: of a query's words, or of its vector."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import InputError
from crossrank.retrieval.dense import by_vector
from crossrank.retrieval.remote.store import Found
from crossrank.types import Embedder, Ranking, Retrieved, check_k


class FunctionRetriever:
    """Whatever a function finds for the text of a query: a store's `words`, or any search of your own.

    Args:
        find: from a query and a depth to ids with scores, larger is better. What it gives beyond the depth is left out;
            equal scores keep its order. An error that it raises is the caller's to see.

    >>> texts = {"a": "Cats purr.", "b": "Dogs bark."}
    >>> def find(query, depth):
    ...     return [(id_, sum(word in text for word in query.split())) for id_, text in texts.items()]
    >>> FunctionRetriever(find).retrieve(["Dogs that bark", " "], 1)[0].ids
    ('b',)
    """

    def __init__(self, find: Callable[[str, int], Found]) -> None:
        self._find = find

    def __repr__(self) -> str:
        return f"FunctionRetriever({self._find!r})"

    def retrieve(self, queries: Sequence[str], depth: int) -> list[Ranking]:
        """One ranking of at most `depth` documents a query, in the order of the queries; blank queries find nothing.

        Raises:
            InputError: one string instead of a list, a depth under 1, or the function gives an id twice, or one that is
                no string.
            ScoreError: it gives NaN.
        """
        if isinstance(queries, str):
            raise InputError("retrieve takes a list of queries, not one string")
        check_k(depth)
        return [_ranking(self._find(query, depth) if query.strip() else (), depth) for query in queries]


class VectorRetriever:
    """Whatever a function finds for the vector of a query: a store's `nearest`, or any search of your own.

    Args:
        find: from a vector and a depth to ids with scores; otherwise as in `FunctionRetriever`.
        embedder: the one that made the vectors it compares with. Nothing checks that it is: a store keeps numbers, and
            not what made them.

    >>> class Lengths:
    ...     def embed(self, texts):
    ...         return np.float32([[len(text), 1] for text in texts])
    >>> VectorRetriever(lambda vector, depth: [("a", vector[0])], Lengths()).retrieve(["four"], 10)[0].scores.tolist()
    [4.0]
    """

    def __init__(self, find: Callable[[NDArray[np.float32], int], Found], embedder: Embedder) -> None:
        self._find = find
        self._embedder = embedder

    def __repr__(self) -> str:
        return f"VectorRetriever({self._find!r}, {self._embedder!r})"

    def retrieve(self, queries: Sequence[str], depth: int) -> list[Ranking]:
        """As `FunctionRetriever.retrieve`."""
        return [found.ranking for found in self.retrieved(queries, depth)]

    def retrieved(self, queries: Sequence[str], depth: int) -> list[Retrieved]:
        """Like `retrieve`, with a report of queries that the embedder did not read to their end."""
        check_k(depth)
        return by_vector(queries, self._embedder, lambda vector: _ranking(self._find(vector, depth), depth))


def _ranking(found: Found, depth: int) -> Ranking:
    ids = [id_ for id_, _ in found]
    for id_ in ids:
        if not isinstance(id_, str):
            raise InputError(
                f"a retriever's ids are strings, not {type(id_).__name__} ({id_!r}): turn them into strings"
            )
    return Ranking.sorted(ids, [score for _, score in found]).cut(depth)
