"""Passages in a collection of Qdrant, by dense and by sparse vectors."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import InputError, RemoteError
from crossrank.extras import require
from crossrank.retrieval.remote.store import TIMEOUT, Fields, Found, check_depth, check_timeout, in_order, numbers
from crossrank.types import Passage

require("qdrant_client", extra="qdrant")
require("grpc", extra="qdrant")

from grpc import RpcError  # noqa: E402
from qdrant_client import QdrantClient, models  # noqa: E402
from qdrant_client.common.client_exceptions import QdrantException  # noqa: E402
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse  # noqa: E402

_AT_ONCE = 1_000
"""Passages of one request for texts."""
_PLAIN = re.compile(r"[\w-]+(\[\d*\])?")
"""A part of a path that needs no quotes: letters, digits, _ and -, and after them a place in a list."""
_NEAR_IS_SMALL = (models.Distance.EUCLID, models.Distance.MANHATTAN)


class QdrantCollection:
    """Passages of one collection.

    Args:
        client: of the official library; it knows address, key and certificates.
        collection: its name.
        fields: payload keys of the texts.
        vector: name of the dense vector; "" for the one without a name.
        sparse: name of the sparse vector; "" has none.
        terms: from a query to its sparse vector, number of the term to weight, as the passages' were made; needed for
            `words`. With the modifier IDF of the collection and counts as weights this is BM25's idea.
        where: a filter that all passages must meet, applied by the server.
        timeout: seconds for one answer, rounded up.

    Raises:
        InputError: a timeout that is no time over 0, or a payload key with a quotation mark, for which Qdrant has no
            writing.

    >>> client = QdrantClient(":memory:")
    >>> cosine = models.VectorParams(size=2, distance=models.Distance.COSINE)
    >>> _ = client.create_collection("notes", vectors_config=cosine)
    >>> client.upload_points("notes", [models.PointStruct(id=7, vector=[1.0, 0.0], payload={"text": "Cats purr."})])
    >>> collection = QdrantCollection(client, "notes")
    >>> collection.nearest(np.float32([1, 0]), 10), collection.passages(["7"])[0].text
    ([('7', 1.0)], 'Cats purr.')
    """

    def __init__(
        self,
        client: QdrantClient,
        collection: str,
        fields: Fields | None = None,
        *,
        vector: str = "",
        sparse: str = "",
        terms: Callable[[str], Mapping[int, float]] | None = None,
        where: models.Filter | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        self._client = client
        self._collection = collection
        self._fields = fields or Fields()
        self._keys = [key for name in self._fields.names for key in _paths(name)]
        self._vector = vector
        self._sparse = sparse
        self._terms = terms
        self._where = where
        self._timeout = math.ceil(check_timeout(timeout))
        self._sign = 0

    def __repr__(self) -> str:
        return f"QdrantCollection({self._collection!r})"

    def words(self, query: str, depth: int) -> Found:
        """At most `depth` passages by the dot product of sparse vectors, best first; ties in the server's order.

        A query without terms finds nothing.

        Raises:
            InputError: no sparse vector or `terms`, or a depth under 1 or over `DEEPEST`.
            RemoteError: the server refuses or does not answer.
        """
        check_depth(depth)
        if not self._sparse or self._terms is None:
            raise InputError(f"{self!r} finds no words: say sparse=, the name of its sparse vector, and terms=")
        weights = self._terms(query)
        if not weights:
            return []
        asked = models.SparseVector(indices=list(weights), values=[float(weight) for weight in weights.values()])
        return self._query(asked, self._sparse, depth)

    def nearest(self, vector: NDArray[np.float32], depth: int) -> Found:
        """At most `depth` passages by the collection's distance, best first; ties in the server's order.

        Scores are cosines or dot products; of a Euclidean or Manhattan collection the negative distances.

        Args:
            vector: shape (width,).
            depth: passages, at most.

        Raises:
            InputError: no row of finite numbers, a depth under 1 or over `DEEPEST`, the collection has no such vector.
            RemoteError: the server refuses, also a vector of another width, or does not answer.
        """
        check_depth(depth)
        asked = numbers(vector)
        self._sign = self._sign or self._direction()
        return [(id_, self._sign * score) for id_, score in self._query(asked, self._vector, depth)]

    def passages(self, ids: Sequence[str]) -> list[Passage]:
        """Passages by id, in the order of the ids.

        Raises:
            InputError: an id is not in the collection, or its payload has no such text.
            RemoteError: the server refuses or does not answer.
        """
        # Ids of points are numbers or UUIDs.
        wanted: list[int | str] = [int(id_) if id_.isdecimal() else id_ for id_ in dict.fromkeys(ids)]
        found: dict[str, Passage] = {}
        for at in range(0, len(wanted), _AT_ONCE):
            with self._asking():
                points = self._client.retrieve(
                    self._collection, wanted[at : at + _AT_ONCE], self._keys, timeout=self._timeout
                )
            for point in points:
                found[str(point.id)] = self._fields.passage(str(point.id), point.payload or {})
        return in_order(ids, found, self)

    def _query(self, asked: list[float] | models.SparseVector, name: str, depth: int) -> list[tuple[str, float]]:
        with self._asking():
            answer = self._client.query_points(
                self._collection,
                query=asked,
                using=name or None,
                query_filter=self._where,
                limit=depth,
                with_payload=False,
                timeout=self._timeout,
            )
        return [(str(point.id), float(point.score)) for point in answer.points]

    def _direction(self) -> int:
        """1 where larger scores are nearer, -1 where smaller ones are."""
        with self._asking():
            params: Any = self._client.get_collection(self._collection).config.params.vectors
        if isinstance(params, dict):
            params = params.get(self._vector)
        elif self._vector:
            params = None
        if params is None:
            raise InputError(f"{self!r} has no dense vector {self._vector!r}: say vector=, its name in the collection")
        return -1 if params.distance in _NEAR_IS_SMALL else 1

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Turn what the client raises into an error with a cure."""
        try:
            yield
        except UnexpectedResponse as error:
            said = error.content.decode("utf-8", "replace")[:300]
            cure = "; check the name of the collection" if error.status_code == 404 else ""
            raise RemoteError(f"{self!r} was refused by its server: {said}{cure}", error.status_code or 0) from error
        except (ApiException, QdrantException, RpcError, OSError) as error:
            why = getattr(error, "source", error)
            raise RemoteError(
                f"{self!r} did not answer ({type(why).__name__}: {why}): check the client's address, that the server "
                "is up, or raise timeout"
            ) from error
        except ValueError as error:
            # The client's local mode refuses with these, and the client itself what it will not send.
            raise RemoteError(f"{self!r} was refused by its client: {error}") from error


def _paths(name: str) -> list[str]:
    """What to ask for to get the field of a name, as a path and as a key: Qdrant reads dots as a path; in quotes they,
    spaces and other signs are part of a key.

    Raises:
        InputError: there is a quotation mark in it.
    """
    if '"' in name:
        raise InputError(f"the payload key {name!r} cannot be asked for: Qdrant takes no quotation marks in keys")
    parts = name.split(".")
    path = ".".join(part if _PLAIN.fullmatch(part) else f'"{part}"' for part in parts)
    if len(parts) == 1:
        return [path]
    return [path, f'"{name}"'] if all(parts) else [f'"{name}"']
