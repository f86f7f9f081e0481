"""Passages in a table of PostgreSQL, by its full-text search and by pgvector."""

from __future__ import annotations

import math
import socket
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import CrossrankError, InputError, RemoteError
from crossrank.extras import require
from crossrank.forks import renew_in_children
from crossrank.retrieval.remote.store import (
    GRACE,
    TIMEOUT,
    Fields,
    Found,
    check_depth,
    check_timeout,
    in_order,
    numbers,
)
from crossrank.types import Passage
from crossrank.unicode import valid_text

require("psycopg", extra="postgres")

import psycopg  # noqa: E402
from psycopg import sql  # noqa: E402

Match = Literal["any", "web"]
# "any" joins the words by OR. plainto_tsquery writes words and " & " and nothing else, and no word holds a space.
_MATCHES = {
    "any": sql.SQL("replace(plainto_tsquery(%(language)s::regconfig, %(query)s)::text, ' & ', ' | ')::tsquery"),
    "web": sql.SQL("websearch_to_tsquery(%(language)s::regconfig, %(query)s)"),
}
# For this transaction only, so that nothing is left behind where connections are shared (PgBouncer). Unless it is told
# otherwise, pgvector gives 40 passages from an HNSW index, however many are asked for.
_SETTINGS = """SELECT set_config('transaction_read_only', 'on', true),
    set_config('statement_timeout', %(milliseconds)s, true),
    set_config('hnsw.ef_search', least(1000, greatest(%(depth)s::int,
        coalesce(nullif(current_setting('hnsw.ef_search', true), '')::int, 40)))::text, true)"""
# The cut is of the order of the distance alone, which is all that an index of pgvector gives; the ids come after it.
_BY_INDEX = sql.SQL(
    "SELECT id::text, distance FROM (SELECT {id} AS id, {vector} <=> %(vector)s AS distance FROM {table} "
    "WHERE {vector} IS NOT NULL ORDER BY 2 FETCH FIRST %(depth)s ROWS WITH TIES) AS near "
    "ORDER BY distance, near.id LIMIT %(depth)s"
)
# No index has an order of the distance + 0.
_EXACTLY = sql.SQL(
    "SELECT {id}::text, ({vector} <=> %(vector)s) + 0 FROM {table} AS rows WHERE {vector} IS NOT NULL "
    "ORDER BY 2, rows.{id} LIMIT %(depth)s"
)
_FEWER = "the query is too long for the server, which takes some 10,000 words: ask with fewer"
_IDS = "ids must be those that the table gave"
_COLUMNS = sql.SQL("SELECT attname FROM pg_attribute WHERE attrelid = %(table)s::regclass AND attnum > 0").format()
# What the caller can cure, by the server's code for it.
_CURES = {
    "42P01": "name the table, and its schema, as the database spells them",
    "3F000": "name the schema as the database spells it",
    "42703": "name the columns as the database spells them",
    "42883": "`vector` must name a column of pgvector (CREATE EXTENSION vector), and `words` one of type tsvector",
    "42704": "no such language: SELECT cfgname FROM pg_ts_config shows those of this server",
    "22000": "use the embedder that made the vectors of the table",
    "22P02": _IDS,
    "22003": _IDS,
    "54000": _FEWER,
    "54001": _FEWER,
}


class PostgresTable:
    """Passages of one table, or of a view where only some rows may be found. Only reads, and never waits for ever.

    There is one connection, opened when the first question comes and again when the server has closed it or in a forked
    process; threads use it in turn, so make several where many ask at once. What the address leaves out is taken from
    the environment, as libpq does: `PGPASSWORD`, `~/.pgpass`, certificates.

    Args:
        address: `postgresql://user@host/database`, or libpq's `host=... dbname=...`.
        table: name of the table or view.
        fields: its columns of texts; `meta.title` is the column of that name or, in a table without one, `title` in its
            column `meta` of type json or jsonb.
        schema: of the table; "" looks along the search path.
        id: column of the ids, a key; they come out as text.
        vector: column of pgvector; "" has none.
        words: column of type tsvector; "" takes the words of the text column, which is fast where there is a GIN index
            on `to_tsvector('english', text)`, and must be a column of its own then.
        language: text search configuration that the words were made with.
        match: "any" finds what has any word of the query, which suits questions; "web" what has all of them, and reads
            "quoted words", `or` and `-` as web searches do.
        timeout: seconds for one answer, and for a connection; `nearest` may need two answers.

    Raises:
        InputError: a timeout that is no time over 0, or an unknown `match`.

    >>> PostgresTable("postgresql://localhost/wiki", "passages", vector="embedding")
    PostgresTable('passages')
    """

    def __init__(
        self,
        address: str,
        table: str,
        fields: Fields | None = None,
        *,
        schema: str = "",
        id: str = "id",
        vector: str = "",
        words: str = "",
        language: str = "english",
        match: Match = "any",
        timeout: float = TIMEOUT,
    ) -> None:
        if match not in _MATCHES:
            raise InputError(f"unknown match {match!r}; use 'any' or 'web'")
        self._address = address
        self._name = ".".join(filter(None, [schema, table]))
        names = (schema, table) if schema else (table,)
        self._table = _named(*names)
        self._as_value = sql.Identifier(*names).as_string(None)
        self._fields = fields or Fields()
        self._id = _named(id)
        self._vector = vector
        self._words = (
            _named(words)
            if words
            else sql.SQL("to_tsvector(%(language)s::regconfig, {})").format(_named(self._fields.text))
        )
        self._language = language
        self._match = _MATCHES[match]
        self._timeout = check_timeout(timeout)
        self._lock = threading.Lock()
        self._connection: psycopg.Connection | None = None
        self._closing: weakref.finalize[..., Any] | None = None
        self._inherited: list[psycopg.Connection] = []
        renew_in_children(self)

    def renew(self) -> None:
        """In a forked child: over the parent's connection each of them would get the other's rows."""
        self._lock = threading.Lock()
        if self._closing is not None and self._connection is not None:
            # To close it would tell the server that the parent is done.
            self._closing.detach()
            self._inherited.append(self._connection)
        self._connection = self._closing = None

    def __repr__(self) -> str:
        return f"PostgresTable({self._name!r})"

    def close(self) -> None:
        """Close the connection; the next question opens a new one."""
        with self._lock:
            self._drop()

    def words(self, query: str, depth: int) -> Found:
        """At most `depth` passages by `ts_rank`, best first; equal scores in the order of the ids.

        `ts_rank` counts how often the words of the query occur, and does not know which words are rare, as BM25 does;
        it was better than `ts_rank_cd` on five judged sets (docs/first-stages.md). A query without any word that
        counts finds nothing, and no character of it is SQL.

        Raises:
            InputError: a depth under 1 or over `DEEPEST`, more words than the server takes (some 10,000), or the table
                has no such columns.
            RemoteError: the server refuses or does not answer.
        """
        check_depth(depth)
        asked = sql.SQL(
            "SELECT {id}::text, ts_rank({words}, {query}) FROM {table} AS rows WHERE {words} @@ {query} "
            "ORDER BY 2 DESC, rows.{id} LIMIT %(depth)s"
        ).format(id=self._id, words=self._words, query=self._match, table=self._table)
        # PostgreSQL's texts hold no NUL.
        values = {"query": valid_text(query).replace("\0", " "), "language": self._language, "depth": depth}
        return [(str(id_), float(score)) for id_, score in self._ask(asked, values)]

    def nearest(self, vector: NDArray[np.float32], depth: int) -> Found:
        """At most `depth` passages by the cosine with `vector`, best first; equal ones in the order of the ids.

        Without an index all rows are compared. With one the answer is approximate: it may miss near passages. Where
        fewer than `depth` come back, all rows are compared after all: pgvector gives at most 1,000 from an HNSW index,
        and a view leaves out what it gave. Rows whose vector is null or zero are not found.

        Args:
            vector: shape (width,).
            depth: passages, at most.

        Raises:
            InputError: a vector of another width, a depth under 1 or over `DEEPEST`, or the table has no such columns.
            RemoteError: the server refuses or does not answer.
        """
        check_depth(depth)
        if not self._vector:
            raise InputError(f"{self!r} has no vectors: say vector=, the name of their column")
        names = {"id": self._id, "vector": _named(self._vector), "table": self._table}
        written = ",".join(f"{number:.9g}" for number in numbers(vector))
        values = {"vector": f"[{written}]", "depth": depth}
        rows = self._ask(_BY_INDEX.format(**names), values)
        if len(rows) < depth:
            rows = self._ask(_EXACTLY.format(**names), values)
        # The distance of a zero vector is NaN, which PostgreSQL sorts last.
        return [(str(id_), 1.0 - float(distance)) for id_, distance in rows if not math.isnan(distance)]

    def passages(self, ids: Sequence[str]) -> list[Passage]:
        """Passages by id, in the order of the ids.

        Raises:
            InputError: an id is not in the table, or the table has no such columns.
            RemoteError: the server refuses or does not answer.
        """
        if not ids:
            return []
        names = self._columns()
        columns = sql.SQL(", ").join([sql.SQL("{}::text").format(self._id), *map(_named, names)])
        asked = sql.SQL("SELECT {columns} FROM {table} WHERE {id} = ANY(%(ids)s)").format(
            columns=columns, table=self._table, id=self._id
        )
        # What PostgreSQL's texts cannot hold is in no table: nothing is found for it.
        wanted = list(dict.fromkeys(valid_text(id_).replace("\0", "\ufffd") for id_ in ids))
        rows = self._ask(asked, {"ids": wanted})
        found = {str(id_): self._fields.passage(str(id_), dict(zip(names, row, strict=True))) for id_, *row in rows}
        return in_order(ids, found, self)

    def _columns(self) -> list[str]:
        """The columns that hold the fields; asked for only where the name of one leads into an object."""
        names = self._fields.names
        if not any("." in name for name in names):
            return names
        known = {str(name) for (name,) in self._ask(_COLUMNS, {"table": self._as_value})}
        columns: list[str] = []
        for name in names:
            outer = [name[:at] for at, sign in enumerate(name) if sign == "." and name[:at] in known]
            # A name that is nowhere stays as it is, and the server says that there is no such column.
            columns += [name] if name in known or not outer else outer
        return list(dict.fromkeys(columns))

    def _ask(self, asked: sql.Composed, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """The rows of one query, on the connection there is; on a new one where the server has closed that."""
        if not self._lock.acquire(timeout=self._timeout):
            raise RemoteError(f"{self!r} is asked by too many threads at once: make one for each, or raise its timeout")
        try:
            if self._connection is not None:
                try:
                    return self._rows(self._connection, asked, values)
                except psycopg.OperationalError:
                    if not self._connection.closed:
                        raise
            return self._rows(self._connect(), asked, values)
        except psycopg.Error as error:
            raise self._told(error) from error
        finally:
            self._lock.release()

    def _rows(
        self, connection: psycopg.Connection, asked: sql.Composed, values: Mapping[str, Any]
    ) -> list[tuple[Any, ...]]:
        settings = {"milliseconds": str(max(1, int(self._timeout * 1000))), "depth": values.get("depth", 1)}
        with self._watched(connection), connection.transaction():
            connection.execute(_SETTINGS, settings)
            rows: list[tuple[Any, ...]] = connection.execute(asked, values).fetchall()
        return rows

    @contextmanager
    def _watched(self, connection: psycopg.Connection) -> Iterator[None]:
        """End the connection when no answer comes: the server's limit is no use where the server or the network stands
        still, and PostgreSQL's client would wait for ever."""
        silent = threading.Event()

        def end() -> None:
            silent.set()
            try:
                with socket.fromfd(connection.fileno(), socket.AF_INET, socket.SOCK_STREAM) as line:
                    line.shutdown(socket.SHUT_RDWR)
            except (OSError, psycopg.Error):
                pass  # It has ended by itself.

        timer = threading.Timer(self._timeout + GRACE, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        except psycopg.Error as error:
            if silent.is_set():
                raise RemoteError(
                    f"{self!r} did not answer in {self._timeout + GRACE:g} s: is its server up?"
                ) from error
            raise
        finally:
            timer.cancel()

    def _connect(self) -> psycopg.Connection:
        self._drop()
        connection = psycopg.connect(
            self._address,
            autocommit=True,
            prepare_threshold=None,  # Prepared statements do not go through PgBouncer.
            connect_timeout=max(2, math.ceil(self._timeout)),
            client_encoding="utf8",
        )
        self._connection = connection
        self._closing = weakref.finalize(self, connection.close)
        return connection

    def _drop(self) -> None:
        if self._closing is not None:
            self._closing()
        self._connection = self._closing = None

    def _told(self, error: psycopg.Error) -> CrossrankError:
        """What the server said, with a cure."""
        said = " ".join((error.diag.message_primary or str(error)).split())[:300]
        if error.sqlstate in _CURES:
            return InputError(f"{self!r}: {said}; {_CURES[error.sqlstate]}")
        if error.sqlstate == "57014":
            return RemoteError(
                f"{self!r} did not answer in {self._timeout:g} s: give it an index (GIN for words; HNSW for vectors, "
                "and ask it for at most 1,000 passages), or raise its timeout"
            )
        if error.sqlstate is None and isinstance(error, psycopg.DataError):
            return InputError(f"{self!r} was not asked: {said}")
        if error.sqlstate is None:
            return RemoteError(f"{self!r} cannot be reached: {said}; check its address, and that the server is up")
        return RemoteError(f"{self!r} was refused by the server: {said} ({error.sqlstate})")


def _named(*names: str) -> sql.Identifier:
    """A name in a command that takes values, where psycopg reads % as the beginning of one, also in quotes."""
    return sql.Identifier(*(name.replace("%", "%%") for name in names))
