"""A plain function as a retriever: of a query's words, or of its vector."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import InputError
from crossrank.retrieval.dense import by_vector
from crossrank.types import Embedder, Ranking, Retrieved, check_k
from crossrank.unicode import is_blank

# As a store's `Found`, and from functions of others also what is read once, such as zip(ids, scores).
_Given = Iterable[tuple[str, float]]


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

    def __init__(self, find: Callable[[str, int], _Given]) -> None:
        self._find = find

    def __repr__(self) -> str:
        return f"FunctionRetriever({self._find!r})"

    def retrieve(self, queries: Sequence[str], depth: int) -> list[Ranking]:
        """One ranking of at most `depth` documents a query, in the order of the queries; blank queries find nothing.

        Raises:
            InputError: one string instead of a list, a depth under 1, or the function gives something else than pairs,
                an id twice or one that is no string, or a score that is no number.
        """
        if isinstance(queries, str):
            raise InputError("retrieve takes a list of queries, not one string")
        check_k(depth, "depth")
        return [_ranking(self._find(query, depth) if not is_blank(query) else (), depth) for query in queries]


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

    def __init__(self, find: Callable[[NDArray[np.float32], int], _Given], embedder: Embedder) -> None:
        self._find = find
        self.embedder = embedder

    def __repr__(self) -> str:
        return f"VectorRetriever({self._find!r}, {self.embedder!r})"

    def retrieve(self, queries: Sequence[str], depth: int) -> list[Ranking]:
        """As `FunctionRetriever.retrieve`."""
        return [found.ranking for found in self.retrieved(queries, depth)]

    def retrieved(self, queries: Sequence[str], depth: int) -> list[Retrieved]:
        """Like `retrieve`, with a report of queries that the embedder did not read to their end."""
        check_k(depth, "depth")
        return by_vector(queries, self.embedder, lambda vector: _ranking(self._find(vector, depth), depth))


def _ranking(found: _Given, depth: int) -> Ranking:
    told = "a retriever's function gives a list of (id, score) pairs"
    if isinstance(found, (str, bytes, Mapping)) or not isinstance(found, Iterable):
        cure = ": give its items()" if isinstance(found, Mapping) else ""
        raise InputError(f"{told}, not {type(found).__name__}{cure}")
    ids: list[str] = []
    scores: list[float] = []
    for pair in found:
        try:
            id_, score = pair
        except (TypeError, ValueError):
            raise InputError(f"{told}; in its list is {pair!r}") from None
        if not isinstance(id_, str):
            raise InputError(
                f"a retriever's ids are strings, not {type(id_).__name__} ({id_!r}): turn them into strings"
            )
        ids.append(id_)
        scores.append(_number(id_, score))
    return Ranking.sorted(ids, scores).cut(depth)


def _number(id_: str, score: float) -> float:
    """The score, whole numbers exactly; told here, because NaN in a ranking is otherwise a model's.

    +inf is no score: nothing that a reranker says could move its document. -inf is what a blank document has.
    """
    try:
        number = float(score)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if math.isnan(number) or number == math.inf:
        told = "no other can reach: give a finite one" if number > 0 else "is no number: leave out what has none"
        raise InputError(f"a retriever gives {id_!r} the score {score!r}, which {told}")
    return int(score) if isinstance(score, Integral) else number
