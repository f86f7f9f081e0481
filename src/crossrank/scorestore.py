"""Scores in a file: an SQLite database of hashed keys that many processes and threads read and write at once.

The file holds no text. It is a memory and not a record: whatever goes wrong with it costs time and never an answer, so
every failure is a note and not an exception, except for a file that is somebody else's.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakSet

from crossrank.asking import check_whole
from crossrank.errors import InputError

MOST = 1_000_000
"""Scores kept unless a caller says otherwise: about 65 bytes each, so about 65 MB (LOG.md)."""

# "crsc": how the file says whose it is (SQLite's PRAGMA application_id).
_OURS, _VERSION = 0x63727363, 1
_HEADER = b"SQLite format 3\0"
# How long a writer waits for another one, and for how long the file is left alone after it failed.
_WAIT_SECONDS, _PAUSE_SECONDS = 2.0, 30.0
# A score that is read is marked as used at most once in so many seconds: a read is seldom a write.
_TOUCH_SECONDS = 60
# When there are too many, this share goes beyond the limit, so that the next call need not evict again.
_SLACK = 20
_CUT = struct.Struct("<qqi?")
# SQLite allows at least 999 variables in one statement.
_PART = 500
_SCHEMA = f"""
CREATE TABLE score (key BLOB PRIMARY KEY, value REAL NOT NULL, used INTEGER NOT NULL, passage BLOB, query BLOB)
WITHOUT ROWID;
CREATE INDEX score_used ON score (used);
CREATE TABLE counted (rows INTEGER NOT NULL);
INSERT INTO counted VALUES (0);
PRAGMA application_id = {_OURS};
PRAGMA user_version = {_VERSION};
"""

# On POSIX a process that closes a file lets go of all locks that it has on it, SQLite's too. Another process that
# closes its connection then takes itself for the last one and removes the -wal file, and what this one goes on writing
# there is lost, or damages the file. So a file that connections of this process are at is opened by nothing else here.
_AT: defaultdict[tuple[int, int], WeakSet[_Connection]] = defaultdict(WeakSet)
_ALONE = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_ALONE.acquire, after_in_parent=_ALONE.release, after_in_child=_ALONE.release)


class _Connection(sqlite3.Connection):
    """One that can be known without being kept: a `Store` that nobody closes goes, and its connection with it."""


Cut = tuple[int, int, int, bool]
"""Tokens, tokens read, windows, and whether the count is exact: a `Truncation` without its position."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One score as it is kept.

    Attributes:
        score: raw.
        passage: what was cut of the passage, or that it was read in windows; None when it was read whole and at once.
        query: what was cut of the query; None when it was read whole.
    """

    score: float
    passage: Cut | None = None
    query: Cut | None = None


@dataclass(slots=True)
class _Opened:
    """A connection and the process that may use it: SQLite's must not be carried over a fork."""

    process: int
    lock: threading.Lock
    connection: _Connection | None = None
    file: tuple[int, int] = (0, 0)


class Store:
    """Scores by key, in a file that is readable by its owner only. Safe between threads, processes and over forks.

    Args:
        path: the file; made when absent, with its folder.
        most: scores kept; the least recently used go first. "Used" is told to a minute.
        clock: seconds, for tests.

    Raises:
        InputError: the file is there and is something else, or `most` is under 1.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = Store(Path(folder) / "scores")
    ...     _ = store.put({b"key": Entry(1.5)})
    ...     found, note = store.get([b"key", b"other"])
    ...     store.close()
    >>> found[b"key"].score, len(found), note
    (1.5, 1, '')
    """

    def __init__(self, path: str | Path, most: int = MOST, clock: Callable[[], float] = time.time) -> None:
        check_whole("most", most)
        if most < 1:
            raise InputError(f"a cache must keep at least 1 score, not {most}")
        self.path = Path(path).expanduser()
        self.most = most
        self._clock = clock
        self._paused_until = 0.0
        self._why = ""
        self._here = _Opened(os.getpid(), threading.Lock())
        # Connections of the process that this one was forked from: to close them here could take that one's locks.
        self._inherited: list[_Opened] = []
        _refuse_strangers(self.path)

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r}, most={self.most})"

    def __len__(self) -> int:
        with self._connected() as connection:
            return int(connection.execute("SELECT rows FROM counted").fetchone()[0])

    def get(self, keys: Sequence[bytes]) -> tuple[dict[bytes, Entry], str]:
        """The entries that are there, and a note on what the file could not do; empty when all went well."""
        found: dict[bytes, Entry] = {}
        stale: list[bytes] = []
        now = int(self._clock())

        def read(connection: sqlite3.Connection) -> None:
            for part in _parts(keys):
                marks = ",".join("?" * len(part))
                rows = connection.execute(
                    f"SELECT key, value, used, passage, query FROM score WHERE key IN ({marks})", part
                )
                for key, value, used, passage, query in rows:
                    found[key] = _entry(value, passage, query)
                    if used <= now - _TOUCH_SECONDS:
                        stale.append(key)

        note = self._tried("read", read)
        if stale and not note:
            note = self._tried("written", lambda connection: _touch(connection, stale, now))
        return found, note

    def put(self, entries: Mapping[bytes, Entry]) -> str:
        """Keep entries; returns a note on what the file could not do, empty when all went well.

        Of two entries of one key the first stays.
        """
        now = int(self._clock())
        rows = [(key, one.score, now, _packed(one.passage), _packed(one.query)) for key, one in entries.items()]
        rows = rows[-self.most :]
        return self._tried("written", lambda connection: _add(connection, rows, self.most)) if rows else ""

    def close(self) -> None:
        """Close the file, which the next use opens again."""
        here = self._current()
        with here.lock:
            _closed(here)

    # The file ------------------------------------------------------------------------------------------------------

    def _tried(self, what: str, use: Callable[[sqlite3.Connection], None]) -> str:
        """Do something with the file; a note instead of an exception."""
        if time.monotonic() < self._paused_until:
            return self._why
        try:
            with self._connected() as connection:
                use(connection)
            return ""
        except sqlite3.Error as error:
            if _damaged(error):
                return self._set_aside(error)
            return self._paused(f"the score cache {self.path} could not be {what} ({error}), so it is left alone")
        except OSError as error:
            reason = error.strerror or error
            return self._paused(f"the score cache {self.path} could not be {what} ({reason}), so it is left alone")

    def _paused(self, why: str) -> str:
        self._why, self._paused_until = why, time.monotonic() + _PAUSE_SECONDS
        return why

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        here = self._current()
        with here.lock:
            if here.connection is None or not _is(self.path, here.file):
                _closed(here)
                here.connection, here.file = _open(self.path)
            yield here.connection

    def _current(self) -> _Opened:
        here = self._here
        if here.process != os.getpid():
            self._inherited.append(here)
            here = self._here = _Opened(os.getpid(), threading.Lock())
        return here

    def _set_aside(self, error: sqlite3.Error) -> str:
        """Rename a damaged file, so that the next use makes a new one; nothing is deleted."""
        here = self._current()
        with here.lock:
            damaged = here.file
            _closed(here)
            aside = _free(self.path)
            try:
                # Another process may have set it aside already: then the file here is a new one.
                if _is(self.path, damaged) or damaged == (0, 0):
                    for ending in ("-wal", "-shm", ""):
                        with suppress(FileNotFoundError):
                            os.replace(f"{self.path}{ending}", f"{aside}{ending}")
            except OSError as failed:
                return self._paused(
                    f"the score cache {self.path} is damaged ({error}) and stays so ({failed.strerror})"
                )
        return (
            f"the score cache {self.path} was damaged ({error}); it was set aside as {aside.name}, and a new one begun"
        )


def _open(path: Path) -> tuple[_Connection, tuple[int, int]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with _ALONE:
        with suppress(FileExistsError):
            # SQLite gives its other files the permissions of this one. Behind a link the file itself is made.
            os.close(os.open(os.path.realpath(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        if not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        facts = path.stat()
        file = (facts.st_dev, facts.st_ino)
        connection = sqlite3.connect(
            path, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False, factory=_Connection
        )
        _AT[file].add(connection)
    try:
        if connection.execute("PRAGMA application_id").fetchone()[0] != _OURS:
            with _writing(connection):
                # Two processes may come here at once: the second finds the tables of the first.
                if connection.execute("PRAGMA application_id").fetchone()[0] != _OURS:
                    for statement in filter(str.strip, _SCHEMA.split(";")):
                        connection.execute(statement)
        connection.execute("PRAGMA journal_mode=WAL")
        # A crash of the machine may lose the last scores and never the file.
        connection.execute("PRAGMA synchronous=NORMAL")
        return connection, file
    except BaseException:
        _left(connection, file)
        raise


def _left(connection: _Connection, file: tuple[int, int]) -> None:
    """Close a connection of this process."""
    with suppress(sqlite3.Error):
        connection.close()
    with _ALONE:
        _AT[file].discard(connection)


def _closed(here: _Opened) -> None:
    if here.connection is not None:
        _left(here.connection, here.file)
    here.connection = None


@contextmanager
def _writing(connection: sqlite3.Connection) -> Iterator[None]:
    """A transaction that takes the writer's place at once: one that reads first could not become a writer."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _add(
    connection: sqlite3.Connection, rows: Sequence[tuple[bytes, float, int, bytes | None, bytes | None]], most: int
) -> None:
    with _writing(connection):
        added = connection.executemany("INSERT OR IGNORE INTO score VALUES (?, ?, ?, ?, ?)", rows).rowcount
        count = connection.execute("SELECT rows FROM counted").fetchone()[0] + added
        if count > most:
            # What this call brought has the newest mark; among equals the key decides, which is as good as chance.
            out = min(count - most + most // _SLACK, count - added) if count > added else count - most
            oldest = "SELECT key FROM score ORDER BY used, key LIMIT ?"
            count -= connection.execute(f"DELETE FROM score WHERE key IN ({oldest})", [out]).rowcount
        connection.execute("UPDATE counted SET rows = ?", [count])


def _touch(connection: sqlite3.Connection, keys: Sequence[bytes], now: int) -> None:
    with _writing(connection):
        for part in _parts(keys):
            connection.execute(f"UPDATE score SET used = ? WHERE key IN ({','.join('?' * len(part))})", [now, *part])


def _parts(keys: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    return (keys[begin : begin + _PART] for begin in range(0, len(keys), _PART))


def _packed(cut: Cut | None) -> bytes | None:
    return None if cut is None else _CUT.pack(*cut)


def _unpacked(cut: bytes | None) -> Cut | None:
    if cut is None:
        return None
    tokens, read, windows, exact = _CUT.unpack(cut)
    return tokens, read, windows, exact


def _entry(value: float, passage: bytes | None, query: bytes | None) -> Entry:
    try:
        return Entry(float(value), _unpacked(passage), _unpacked(query))
    except (struct.error, TypeError, ValueError):
        raise sqlite3.DatabaseError("a row is not as it was written") from None


def _damaged(error: sqlite3.Error) -> bool:
    """Does the error speak of the file's content? SQLite's own damage is a `DatabaseError` and none of its kinds."""
    told = ("malformed", "no such table", "no such column", "not a database")
    return type(error) is sqlite3.DatabaseError or any(words in str(error) for words in told)


def _is(path: Path, file: tuple[int, int]) -> bool:
    """Is the file of that name still the one that was opened?"""
    try:
        facts = path.stat()
    except OSError:
        return False
    return (facts.st_dev, facts.st_ino) == file


def _free(path: Path) -> Path:
    """A name beside the file that is not taken."""
    number = 1
    while (found := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    return found


def _refuse_strangers(path: Path) -> None:
    """Refuse a file that was there before and is no score cache: it may be dear to somebody.

    Raises:
        InputError: it is something else.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder, and a score cache is a file; name a file in it")
    try:
        # To open a pipe would wait for whoever writes into it.
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path} is a pipe or a device, and a score cache is a file; name another")
        with _ALONE:
            facts = path.stat()
            if _AT.get((facts.st_dev, facts.st_ino)):
                return
            with path.open("rb") as stream:
                head = stream.read(100)
    except OSError:
        return  # It is not there, or cannot be read: the first use says so.
    # A file of zeros is what a crash of the machine leaves of one that was being made.
    ours = not head.strip(b"\0") or (head.startswith(_HEADER) and head[68:72] in (_OURS.to_bytes(4, "big"), bytes(4)))
    if ours and head[68:72] == bytes(4) and head.strip(b"\0") and _has_tables(path):
        ours = False
    if not ours:
        raise InputError(f"{path} holds something else and no scores; name another file for the score cache")
    version = int.from_bytes(head[60:64], "big")
    if version > _VERSION:
        raise InputError(f"{path} was made by a newer crossrank (version {version} of the file); name another file")


def _has_tables(path: Path) -> bool:
    """Whether an SQLite file without our mark holds anything; an empty one may have been made for us."""
    try:
        connection = sqlite3.connect(path, timeout=_WAIT_SECONDS)
        try:
            return bool(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
        finally:
            connection.close()
    except sqlite3.Error:
        return True
