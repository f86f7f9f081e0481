"""The documents of a large indexing in one database, as their readers gave them, in the order of reading."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any

from crossrank.crossencoder import CHARACTERS
from crossrank.distributed import database
from crossrank.distributed.parts import Part
from crossrank.errors import ReadError
from crossrank.index import readers
from crossrank.index.build import digest_of
from crossrank.index.documents import Document

_SCHEMA = "CREATE TABLE document (number INTEGER PRIMARY KEY, path TEXT NOT NULL, body TEXT NOT NULL)"


def stage(path: Path, sources: Sequence[readers.Source], known: Collection[str], tokens: int) -> None:
    """Read all documents, except those with known digests, and cut them into parts of about so many tokens.

    What cannot be read is passed over here: the update of the index reads again, and reports it.
    """
    with database.made(path, _SCHEMA) as connection:
        found = ((readers.written(source.path), document) for source in sources for document in _documents(source))
        fresh = (
            (where, json.dumps(_as_mapping(document), ensure_ascii=False))
            for where, document in found
            if digest_of(document) not in known
        )
        connection.executemany("INSERT INTO document (number, path, body) VALUES (?, ?, ?)", _numbered(fresh))
        lengths = connection.execute("SELECT length(body) FROM document ORDER BY number")
        database.keep_parts(connection, (length for (length,) in lengths), tokens * CHARACTERS)


def _as_mapping(document: Document) -> dict[str, Any]:
    """`dataclasses.asdict` would copy metadata two calls deeper for each level of a list, and end at 490 of them."""
    return {field.name: getattr(document, field.name) for field in fields(document)}


def read(path: Path, part: Part) -> list[tuple[str, Document]]:
    """File and document of each row of a part, in order.

    Raises:
        ReadError: the database is missing or damaged.
    """
    rows = "SELECT path, body FROM document WHERE number >= ? AND number < ? ORDER BY number"
    with closing(database.opened(path)) as connection, database.damage_told(path):
        return [
            (where, Document(**json.loads(body))) for where, body in connection.execute(rows, (part.begin, part.end))
        ]


def _documents(source: readers.Source) -> Iterator[Document]:
    try:
        yield from readers.read(source, report=lambda failure: None)
    except (ReadError, OSError):
        return


def _numbered(rows: Iterator[tuple[str, str]]) -> Iterator[tuple[int, str, str]]:
    return ((number, *row) for number, row in enumerate(rows))
