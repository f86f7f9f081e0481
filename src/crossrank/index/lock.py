"""One writer at a time: a lock that the system lets go of when its process ends, however it ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from crossrank.errors import IndexFileError


@contextmanager
def exclusive(file: Path, what: str = "the index") -> Iterator[None]:
    """Hold the lock of a folder's writer. The file stays; it is the lock on it that counts.

    Raises:
        IndexFileError: another process or thread holds it, or the folder cannot be written to.
    """
    try:
        handle = file.open("a+b")
    except OSError as error:
        raise IndexFileError(f"{file.parent} cannot be written to ({error.strerror}): check its permissions") from error
    with handle:
        try:
            _take(handle)
        except OSError as error:
            raise IndexFileError(
                f"another process is writing to {what} {file.parent}: wait until it is done, then run this again"
            ) from error
        yield


def _take(handle: IO[bytes]) -> None:
    if sys.platform == "win32":
        import msvcrt

        handle.seek(0)
        msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(handle.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
