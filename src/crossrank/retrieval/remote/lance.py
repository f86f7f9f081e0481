"""Passages in a dataset of Lance, on object storage or on disk, by its full-text index and by its vectors."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import CrossrankError, InputError, RemoteError
from crossrank.extras import require
from crossrank.index.filters import literal
from crossrank.index.ties import through_ties
from crossrank.retrieval.remote.store import TIMEOUT, Fields, Found, check_depth, check_timeout, in_order, numbers
from crossrank.types import Passage
from crossrank.unicode import valid_text

require("lance", extra="search")

import lance  # noqa: E402
import lance.query  # noqa: E402

_NUMBER = re.compile(r"-?[0-9]+")
_AT_ONCE = 1_000
"""Passages of one request for texts."""


class LanceTable:
    """Passages of one dataset, such as a table of LanceDB, at the version that is the newest at the first question.

    Args:
        uri: `s3://bucket/notes.lance`, `gs://...`, `az://...`, or a path.
        fields: its columns of texts; a full-text index (INVERTED) on that of the text makes `words` fast.
        id: column of the ids, text or whole numbers, each once; they come out as text.
        vector: column of the vectors; "" has none.
        where: a condition in Lance's SQL that every passage must meet, such as "lang = 'en'". It is run as it is: never
            make it of what a user wrote.
        storage_options: keys, region and the like, as Lance takes them.
        timeout: seconds for one request to the storage, and for its repetitions; an answer may take several.

    Raises:
        InputError: a timeout that is no time over 0.

    >>> LanceTable("s3://bucket/notes.lance", vector="embedding", storage_options={"region": "eu-central-1"})
    LanceTable('s3://bucket/notes.lance')
    """

    def __init__(
        self,
        uri: str,
        fields: Fields | None = None,
        *,
        id: str = "id",
        vector: str = "",
        where: str = "",
        storage_options: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        seconds = f"{max(1, round(check_timeout(timeout)))}"
        self._uri = uri
        self._fields = fields or Fields()
        self._id = id
        self._vector = vector
        self._where = where or None
        self._options = {"timeout": f"{seconds}s", "client_retry_timeout": seconds, **(storage_options or {})}
        self._lock = threading.Lock()
        self._opened: Any = None

    def __repr__(self) -> str:
        return f"LanceTable({self._uri!r})"

    def refresh(self) -> None:
        """Go on to the newest version with the next question."""
        with self._lock:
            self._opened = None

    def words(self, query: str, depth: int) -> Found:
        """At most `depth` passages by Lance's BM25, best first; equal scores in the order of the ids.

        Any word counts, as the full-text index reads it, and no character has a meaning.

        Raises:
            InputError: a depth under 1 or over `DEEPEST`.
            RemoteError: the dataset cannot be read, or has no such columns.
        """
        check_depth(depth)
        asked = lance.query.MatchQuery(valid_text(query), self._fields.text)
        found = self._search(depth, "_score", lambda limit: {"full_text_query": asked, "limit": limit})
        return _best([(id_, float(score)) for id_, score in found], depth)

    def nearest(self, vector: NDArray[np.float32], depth: int) -> Found:
        """At most `depth` passages by the cosine with `vector`, best first; equal ones in the order of the ids.

        A vector index of the dataset is used where there is one; else all vectors are compared.

        Args:
            vector: shape (width,).
            depth: passages, at most.

        Raises:
            InputError: no column of vectors, no row of finite numbers, or a depth under 1 or over `DEEPEST`.
            RemoteError: the dataset cannot be read, or has no such columns, or vectors of another width.
        """
        check_depth(depth)
        if not self._vector:
            raise InputError(f"{self!r} has no vectors: say vector=, the name of their column")
        asked = {"column": self._vector, "q": np.asarray(numbers(vector), np.float32), "metric": "cosine"}
        found = self._search(depth, "_distance", lambda limit: {"nearest": {**asked, "k": limit}})
        return _best([(id_, 1.0 - float(distance)) for id_, distance in found if distance is not None], depth)

    def passages(self, ids: Sequence[str]) -> list[Passage]:
        """Passages by id, in the order of the ids.

        Raises:
            InputError: an id is not in the dataset.
            RemoteError: the dataset cannot be read, or has no such columns.
        """
        wanted = list(dict.fromkeys(ids))
        found: dict[str, Passage] = {}
        with self._reading() as data:
            number = str(data.schema.field(self._id).type).startswith(("int", "uint"))
            for at in range(0, len(wanted), _AT_ONCE):
                part = wanted[at : at + _AT_ONCE]
                values = [id_ if number and _NUMBER.fullmatch(id_) else literal(valid_text(id_)) for id_ in part]
                rows = data.to_table(
                    columns=[self._id, *self._fields.names], filter=f"`{self._id}` IN ({', '.join(values)})"
                )
                for row in rows.to_pylist():
                    found[str(row[self._id])] = self._fields.passage(str(row[self._id]), row)
        return in_order(ids, found, self)

    def _search(self, depth: int, score: str, asked: Any) -> list[tuple[Any, Any]]:
        """Ids as the column holds them and scores of at least the best `depth` rows, and of those that tie with the
        last."""
        with self._reading() as data:
            found = through_ties(
                lambda limit: data.to_table(
                    columns=[self._id, score], filter=self._where, prefilter=self._where is not None, **asked(limit)
                ),
                depth,
                score,
            )
            return list(zip(*(found[name].to_pylist() for name in (self._id, score)), strict=True))

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        """The dataset, opened when it is first asked for; what Lance raises becomes an error with a cure."""
        try:
            with self._lock:
                if self._opened is None:
                    self._opened = lance.dataset(self._uri, storage_options=self._options)
                data = self._opened
            yield data
        except CrossrankError:
            raise
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            said = (str(error).splitlines() or [""])[0][:300]
            raise RemoteError(
                f"{self!r} cannot be searched: {said}; check its address, its storage_options, the names of its "
                "columns, and that the vectors are lists of a fixed size, the width of the embedder"
            ) from error


def _best(found: Sequence[tuple[Any, float]], depth: int) -> list[tuple[str, float]]:
    # Numbers in their own order, as in PostgreSQL, and not in that of their text. A null has no order: it comes last.
    order = sorted(found, key=lambda entry: (-entry[1], entry[0] is None, entry[0]))
    return [(str(id_), score) for id_, score in order[:depth]]
