"""What Lance and the system say of an index that cannot be read or written, as an error with a cure."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crossrank.errors import CrossrankError, IndexFileError
from crossrank.index.folders import TABLE

# How Rust ends what the system says.
_NUMBER = re.compile(r"\(os error (\d+)\)")
# In a path, what Lance takes for something else or cannot hand on: no index lies there.
_UNTAKEN = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_ROOM = "make room, then run `crossrank index` again; what was committed is kept"
_PERMISSIONS = "check the permissions of the folder"
_MEMORY = "memory is short: do less at once, and try again; the index is as it was"
_DISK = "the disk that it lies on does not answer: mend that, and try again; the index may be well"
# What is no damage, though nothing could be read. Whoever is told of damage makes an index anew that is well.
_CURES = {
    errno.ENOSPC: f"the disk is full: {_ROOM}",
    errno.EDQUOT: f"the disk is full for this user: {_ROOM}",
    errno.EFBIG: f"files may not be so large here (`ulimit -f`): {_ROOM}",
    errno.EACCES: _PERMISSIONS,
    errno.EPERM: _PERMISSIONS,
    errno.EROFS: "its disk can only be read from: use another folder",
    errno.EMFILE: "this process has too many files open: let it open more (`ulimit -n`), or search with fewer threads "
    "at once; the index is as it was",
    errno.ENFILE: "too many files are open on this machine: let it open more, and try again; the index is as it was",
    errno.ENOMEM: _MEMORY,
    errno.EAGAIN: "the system gives no more threads: let it give more (`ulimit -u`), and try again; the index is as it "
    "was",
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN), _DISK),
}


@contextmanager
def told(folder: Path, doing: str) -> Iterator[None]:
    """Turn what is raised by Lance into an error with a cure.

    Args:
        folder: of the index.
        doing: what is done to it, for the message.

    Raises:
        IndexFileError: so.

    >>> with told(Path("my.index"), "reading"):
    ...     raise OSError("Too many open files (os error 24)")
    Traceback (most recent call last):
    ...
    crossrank.errors.IndexFileError: reading the index my.index failed; this process has too many files open: let it ...
    """
    try:
        yield
    except (CrossrankError, KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:
        # Damaged files can make Rust panic, which arrives as a BaseException of its own.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        said = (str(error).splitlines() or [type(error).__name__])[0]
        cure = _CURES.get(_number_of(error)) or _damage(folder, doing)
        raise IndexFileError(f"{doing} the index {folder} failed; {cure} ({said[:300]})") from error


def _number_of(error: BaseException) -> int:
    """The system's number for what went wrong, 0 where none is told."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    text = str(error)
    # Windows counts its errors otherwise.
    if os.name == "posix" and (found := _NUMBER.search(text)):
        return int(found[1])
    # Some layers of Lance pass on the words alone.
    return errno.ENOSPC if "No space left" in text else errno.EACCES if "Permission denied" in text else 0


def _damage(folder: Path, doing: str) -> str:
    if _UNTAKEN.search(str(folder)):
        return "its name holds a line break, another control character or bytes that are no UTF-8: use another folder"
    if doing == "replacing":
        return f"its files are damaged or missing: delete {folder / TABLE}, then run this again"
    return "its files are damaged or missing: make it anew with `crossrank index PATHS --to DIR --rebuild`"
