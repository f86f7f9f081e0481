"""The pairs of a large reranking in one database: each query and document once, and every pair by its place."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Literal

from crossrank.crossencoder import CHARACTERS
from crossrank.distributed import database
from crossrank.distributed.parts import Part
from crossrank.errors import InputError
from crossrank.unicode import is_blank, valid_text

Kind = Literal["query", "document"]
_SCHEMA = """
CREATE TABLE query (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, text TEXT);
CREATE TABLE document (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, text TEXT);
CREATE TABLE pair (number INTEGER PRIMARY KEY, query INTEGER NOT NULL, document INTEGER NOT NULL,
    UNIQUE (query, document));
"""
_JOINED = """
FROM pair CROSS JOIN query ON query.number = pair.query CROSS JOIN document ON document.number = pair.document
WHERE pair.number >= ? AND pair.number < ? ORDER BY pair.number
"""
_GIVE_IT_A_TEXT = "give it a text, or take its pairs out"
# Rows that go to the database together, and characters that a pair costs besides its texts.
_AT_ONCE, _A_PAIR = 1_000, 16


class Filling:
    """The database while it is made. Used by one thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._pairs = 0

    def pairs(self, rows: Iterable[tuple[str, str, str]]) -> None:
        """Add pairs: query id, document id, and where they stand, for messages.

        Raises:
            InputError: a pair comes twice.
        """
        connection, rows = self._connection, iter(rows)
        while some := [
            (valid_text(query), valid_text(document), where) for query, document, where in islice(rows, _AT_ONCE)
        ]:
            ids = [(query, document) for query, document, _ in some]
            connection.executemany("INSERT OR IGNORE INTO query (id) VALUES (?)", [(query,) for query, _ in ids])
            connection.executemany(
                "INSERT OR IGNORE INTO document (id) VALUES (?)", [(document,) for _, document in ids]
            )
            added = connection.executemany(
                "INSERT OR IGNORE INTO pair SELECT ?, query.number, document.number FROM query, document "
                "WHERE query.id = ? AND document.id = ?",
                [(self._pairs + place, *pair) for place, pair in enumerate(ids)],
            ).rowcount
            if added < len(some):
                raise InputError(self._twice(some))
            self._pairs += added

    def _twice(self, some: Sequence[tuple[str, str, str]]) -> str:
        """Which pair of these was there before, or stands among them twice."""
        earlier = "SELECT count(*) FROM pair JOIN query ON query.number = pair.query JOIN document ON " \
            "document.number = pair.document WHERE query.id = ? AND document.id = ? AND pair.number < ?"  # fmt: skip
        seen = set()
        for query, document, where in some:
            known = self._connection.execute(earlier, (query, document, self._pairs)).fetchone()[0]
            if known or (query, document) in seen:
                return f"{where}: document {document} of query {query} comes twice: take one of the two out"
            seen.add((query, document))
        raise AssertionError("a pair was not taken, and none comes twice")

    def text(self, kind: Kind, id_: str, text: str, where: str) -> None:
        """Give a query or document its text. One of which no pair speaks is passed over.

        Raises:
            InputError: it has another text already, or a query is blank.
        """
        text, id_ = valid_text(text), valid_text(id_)
        found = self._connection.execute(f"SELECT text FROM {kind} WHERE id = ?", (id_,)).fetchone()
        if found is None:
            return
        if kind == "query" and is_blank(text):
            raise InputError(f"{where}: query {id_} is blank: {_GIVE_IT_A_TEXT}")
        if found[0] is None:
            self._connection.execute(f"UPDATE {kind} SET text = ? WHERE id = ?", (text, id_))
        elif found[0] != text:
            raise InputError(
                f"{where}: {kind} {id_} has another text here than before: give each text an id of its own"
            )

    def check_whole(self, cure: str) -> None:
        """Refuse an input with no pair, or one whose queries or documents lack texts.

        Raises:
            InputError: with the number of them and the first ids.
        """
        if not self._pairs:
            raise InputError("the input has no pairs, so there is nothing to rerank: check the files' names")
        for kind in ("query", "document"):
            count = self._connection.execute(f"SELECT count(*) FROM {kind} WHERE text IS NULL").fetchone()[0]
            if count:
                first = self._connection.execute(
                    f"SELECT id FROM {kind} WHERE text IS NULL ORDER BY number LIMIT 5"
                ).fetchall()
                named = ", ".join(id_ for (id_,) in first)
                raise InputError(
                    f"{count:,} of the {kind} ids have no text ({named}{', ...' if count > 5 else ''}): {cure}"
                )

    def check_queries(self, count: Callable[[str], int]) -> None:
        """Refuse a query in which the model reads nothing, now and by its name: the scorer would, after hours.

        Args:
            count: tokens of a text.

        Raises:
            InputError: with the id of the first such query.
        """
        for id_, text in self._connection.execute("SELECT id, text FROM query ORDER BY number"):
            if not count(text):
                raise InputError(f"query {id_} has no token that the model reads: {_GIVE_IT_A_TEXT}")

    def cut(self, tokens: int) -> None:
        """Cut the pairs into parts of about so many tokens."""
        # SQLite counts the characters of a text up to its first NUL, and the bytes of a blob to its end.
        sizes = " + ".join(f"length(CAST({table}.text AS BLOB))" for table in ("query", "document"))
        costs = f"SELECT {_A_PAIR} + {sizes} {_JOINED}"
        rows = self._connection.execute(costs, (0, self._pairs))
        database.keep_parts(self._connection, (cost for (cost,) in rows), tokens * CHARACTERS)


@contextmanager
def filling(path: Path) -> Iterator[Filling]:
    """A new database of pairs, which gets its name when the block ends without an exception."""
    with database.made(path, _SCHEMA) as connection:
        yield Filling(connection)


def read(path: Path, part: Part) -> list[tuple[str, str, str, str]]:
    """Query id, document id, query text and document text of each pair of a part, in order.

    Raises:
        ReadError: the database is missing or damaged.
    """
    columns = "SELECT query.id, document.id, query.text, document.text"
    with closing(database.opened(path)) as connection, database.damage_told(path):
        return connection.execute(f"{columns} {_JOINED}", (part.begin, part.end)).fetchall()


def names(path: Path) -> Iterator[str]:
    """The ids of all queries and documents.

    Raises:
        ReadError: the database is missing or damaged.
    """
    with closing(database.opened(path)) as connection, database.damage_told(path):
        for kind in ("query", "document"):
            yield from (id_ for (id_,) in connection.execute(f"SELECT id FROM {kind}"))
