"""What OpenSearch and Elasticsearch have in common: a search is JSON, and its answer holds hits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import InputError, RemoteError
from crossrank.retrieval.remote.store import TIMEOUT, Fields, Found, check_depth, check_timeout, in_order, numbers
from crossrank.types import Passage
from crossrank.unicode import valid_text

T = TypeVar("T")
_AT_ONCE = 1_000
"""Passages of one request for texts."""


class SearchIndex(ABC):
    """Passages of one index, by BM25 and by vectors; see `opensearch` and `elasticsearch`.

    Args:
        index: its name or alias.
        fields: where in a document the texts are; words are looked for in text and title.
        vector: field of the vectors; "" has none.
        where: clauses of the query language that every passage must meet, such as `{"term": {"lang": "en"}}`.
        timeout: seconds for one answer. An answer that the server cut short for it is an error.

    Raises:
        InputError: a timeout that is no time over 0.
    """

    def __init__(
        self,
        index: str,
        fields: Fields | None = None,
        *,
        vector: str = "",
        where: Sequence[Mapping[str, Any]] = (),
        timeout: float = TIMEOUT,
    ) -> None:
        self._index = index
        self._fields = fields or Fields()
        self._vector = vector
        self._where = [dict(clause) for clause in where]
        self._timeout = check_timeout(timeout)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._index!r})"

    @abstractmethod
    def _search(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """The server's answer to a search in the index."""

    @abstractmethod
    def _near(self, vector: list[float], depth: int) -> dict[str, Any]:
        """The part of a search that asks for nearest vectors."""

    def words(self, query: str, depth: int) -> Found:
        """At most `depth` passages by BM25 as the index is set up, best first; ties in the server's order.

        A `multi_match` query: any word counts, the better of text and title, and no character has a meaning.

        Raises:
            InputError: a depth under 1 or over `DEEPEST`, or an alias of indices whose documents share ids.
            RemoteError: the server refuses, does not answer, or answers for a part of the index only.
        """
        check_depth(depth)
        fields = [name for name in (self._fields.text, self._fields.title) if name]
        match = {"multi_match": {"query": valid_text(query), "fields": fields}}
        return self._found({"query": {"bool": {"must": [match], "filter": self._where}}}, depth)

    def nearest(self, vector: NDArray[np.float32], depth: int) -> Found:
        """At most `depth` passages by their vectors, best first; ties in the server's order.

        Scores are the server's, larger is nearer; for cosine they are (1 + cosine) / 2.

        Args:
            vector: shape (width,).
            depth: passages, at most.

        Raises:
            InputError: no field of vectors, no row of finite numbers, a depth under 1 or over `DEEPEST`, or an alias of
                indices whose documents share ids.
            RemoteError: the server refuses, does not answer, or answers for a part of the index only.
        """
        check_depth(depth)
        if not self._vector:
            raise InputError(f"{self!r} has no vectors: say vector=, the name of their field")
        return self._found(self._near(numbers(vector), depth), depth)

    def passages(self, ids: Sequence[str]) -> list[Passage]:
        """Passages by id, in the order of the ids.

        Raises:
            InputError: an id is not in the index, or its document has no such text.
            RemoteError: the server refuses, does not answer, or answers for a part of the index only.
        """
        wanted = list(dict.fromkeys(ids))
        found: dict[str, Passage] = {}
        for at in range(0, len(wanted), _AT_ONCE):
            part = wanted[at : at + _AT_ONCE]
            asked = {"query": {"ids": {"values": part}}, "size": len(part), "_source": self._fields.names}
            for id_, row in self._read(asked, lambda hit: (_id(hit), dict(hit.get("_source") or {}))):
                found[id_] = self._fields.passage(id_, row)
        return in_order(ids, found, self)

    def _found(self, asked: Mapping[str, Any], depth: int) -> list[tuple[str, float]]:
        return self._read({**asked, "size": depth, "_source": False}, lambda hit: (_id(hit), float(hit["_score"])))

    def _read(self, asked: Mapping[str, Any], read: Callable[[Mapping[str, Any]], T]) -> list[T]:
        """What `read` makes of each hit of an answer for the whole index."""
        answer = self._search({**asked, "timeout": f"{max(1, int(self._timeout * 1000))}ms"})
        try:
            failed = (answer.get("_shards") or {}).get("failed", 0)
            if answer.get("timed_out") or failed:
                why = f"{failed} of its shards failed" if failed else f"its server gave up after {self._timeout:g} s"
                raise RemoteError(f"{self!r} answered in part: {why}. Look at the server's log, or raise timeout", 200)
            hits = answer["hits"]["hits"]
            ids, made = [_id(hit) for hit in hits], [read(hit) for hit in hits]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RemoteError(
                f"{self!r} gave no hits that can be read: is the client's address a search server?"
            ) from error
        self._check_ids(ids)
        return made

    def _check_ids(self, ids: Sequence[str]) -> None:
        """Raise where two documents have one id, which in one index cannot be: nobody could tell which was found."""
        if len(set(ids)) < len(ids):
            twice = next(id_ for place, id_ in enumerate(ids) if id_ in ids[:place])
            raise InputError(
                f"{self!r} is a name of several indices, and more than one has a document with the _id {twice!r}: name "
                "one index, or give their documents ids that differ"
            )

    def _refused(self, status: int, said: object) -> RemoteError:
        cures = {
            400: "; check the names of its fields, and that the vector field has the width of the embedder",
            401: "; the client's key or password is missing or wrong",
            403: "; the client's key does not allow this",
            404: "; check the name of the index",
        }
        return RemoteError(f"{self!r} was refused ({status}): {str(said)[:300]}{cures.get(status, '')}", status)

    def _silent(self, error: Exception) -> RemoteError:
        return RemoteError(
            f"{self!r} did not answer ({type(error).__name__}: {str(error)[:200]}): check the client's address, that "
            "the server is up, or raise timeout"
        )


def _id(hit: Mapping[str, Any]) -> str:
    if not isinstance(hit["_id"], str):
        raise TypeError("the id of a hit is no text")
    return hit["_id"]
