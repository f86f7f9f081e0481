"""SQLite files of a large work: written once by one process, then read by many."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from crossrank.distributed import parts
from crossrank.distributed.parts import Part
from crossrank.errors import InputError, ReadError
from crossrank.writing import whole

_PARTS = "CREATE TABLE part (begin INTEGER PRIMARY KEY, end INTEGER NOT NULL)"


@contextmanager
def made(path: Path, schema: str) -> Iterator[sqlite3.Connection]:
    """A new database that gets its name when the block ends without an exception.

    Raises:
        InputError: the disk is full or fails.
    """
    try:
        # A file is named by an address (`uri`) in every place, so that what is attached may be, too.
        with whole(path) as part, closing(sqlite3.connect(part.as_uri(), isolation_level=None, uri=True)) as connection:
            # One transaction, no journal: a file that is not finished is thrown away.
            connection.executescript(f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; BEGIN; {_PARTS}; {schema}")
            yield connection
            connection.execute("COMMIT")
    except sqlite3.DatabaseError as error:
        raise InputError(f"{path} cannot be written ({error}): is the disk full?") from error


def opened(path: Path) -> sqlite3.Connection:
    """A finished database, for reading: no locks, so that it may lie on a network drive.

    Raises:
        ReadError: it is missing.
    """
    with damage_told(path):
        return sqlite3.connect(for_reading(path), uri=True)


def for_reading(path: Path) -> str:
    """The address of a finished database, to open or to attach. Unlike its path it is UTF-8 whatever its name is."""
    return f"{path.as_uri()}?mode=ro&immutable=1"


def parts_of(path: Path) -> list[Part]:
    """The parts that the input was cut into, in order."""
    with closing(opened(path)) as connection, damage_told(path):
        return [Part(*row) for row in connection.execute("SELECT begin, end FROM part ORDER BY begin")]


@contextmanager
def damage_told(path: Path, beside: bool = False) -> Iterator[None]:
    """Turn what SQLite finds wrong with a file into an error with its cure.

    Args:
        path: of the file.
        beside: another database is written meanwhile, which may be what a disk has no room for.

    Raises:
        ReadError: the file is missing or damaged.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        # Damage is the one that is none of its kinds.
        if beside and type(error) is not sqlite3.DatabaseError:
            raise
        raise damaged(path, str(error)) from error


def damaged(path: Path, why: str) -> ReadError:
    """What is told of a database that is not as it was written."""
    return ReadError(f"{path} is damaged ({why}): delete it, and run the same command again, which makes it anew")


def keep_parts(connection: sqlite3.Connection, costs: Iterator[int], budget: int) -> None:
    """Cut the input and write down where."""
    rows = ((part.begin, part.end) for part in parts.cut(costs, budget))
    connection.executemany("INSERT INTO part VALUES (?, ?)", rows)
