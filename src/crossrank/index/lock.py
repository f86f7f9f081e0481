"""One writer at a time: a lock that the system lets go of when its process ends, however it ends."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from crossrank.errors import IndexFileError

_HELD = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES)
"""What systems say of a lock that another has."""


@contextmanager
def exclusive(file: Path, what: str = "the index", of: Path | None = None) -> Iterator[IO[bytes]]:
    """Hold the lock of a folder's writer, the open file. The file stays; it is the lock on it that counts.

    Args:
        file: what the lock lies on; made when there is none, and never changed.
        what: kind of thing that is written, for messages.
        of: the thing itself; the file's folder when absent. The file may be that thing.

    Raises:
        IndexFileError: another process or thread holds it, it cannot be written to, or its disk has no locks.
    """
    of = of or file.parent
    try:
        handle = file.open("a+b")
    except OSError as error:
        raise IndexFileError(f"{of} cannot be written to ({error.strerror}): check its permissions") from error
    with handle:
        try:
            _take(handle)
        except OSError as error:
            if error.errno in _HELD:
                told = f"another process is writing to {what} {of}: wait until it is done, then run this again"
            else:
                told = f"{what} {of} cannot be locked ({error.strerror}): use a folder on a disk that has locks"
            raise IndexFileError(told) from error
        yield handle


def _take(handle: IO[bytes]) -> None:
    if sys.platform == "win32":
        import msvcrt

        # Far behind the end: a byte that is locked there can be neither read nor written.
        handle.seek(1 << 30)
        msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(handle.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
