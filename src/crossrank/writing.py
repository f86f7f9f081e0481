"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

UNFINISHED = ".part"
"""How the name of a file ends that is being written, or that a process left which was killed meanwhile."""

_OURS = ".crossrank-"
"""How it begins. The name is as long for every target: one of 255 bytes has no room for more beside it."""
_ABANDONED = 86_400.0
"""Seconds since anything was written to a file after which nobody goes on with it, unless its process still runs."""
_DESCRIPTORS = re.compile(r"/dev/fd|/proc/\d+/(?:task/\d+/)?fd")
"""Folders whose names stand for what a process has open: that of stdout may lead to a regular file."""
_UNABLE = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
"""What file systems say that cannot put a file on the disk when they are told to."""
_tidied: set[Path] = set()
"""Folders in which this process has looked for leftovers: one may hold a hundred thousand files, each made here."""


@contextmanager
def whole(path: Path, usual: bool = False) -> Iterator[Path]:
    """A name beside `path` for the block to write a file under; at the block's end that file takes the place of `path`.

    So whoever reads `path` finds what was there before or all of the new file, whatever dies meanwhile: the file is on
    the disk before it gets its name, and the name before this returns, where the system can promise that. After an
    exception nothing is left. No two writers ever share a name, so that the last to finish has the file. A file that
    is replaced hands on its permissions, and nobody else can read the new one before; the block finds it there, empty.
    A link at `path` is replaced, and not what it points to, unless it leads to what `is_stream` says, which is refused:
    as root a file took the place of /dev/null.

    A process that is killed leaves what it wrote. The first `whole` of a process in the same folder removes what has
    lain there for a day, unless the process that wrote it still runs.

    Args:
        path: the file's.
        usual: give a new file the permissions that the system gives to new files, whatever the block gave it.
            safetensors 0.8 leaves its files to their owner alone, and a model that root had tuned could not be served
            by another user.

    Raises:
        OSError: the block wrote no file where none was before, or `path` cannot be replaced, as a pipe or device.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with whole(Path(folder, "note.txt")) as part:
    ...         _ = part.write_text("Cats purr.")
    ...     [(file.name, file.read_text()) for file in Path(folder).iterdir()]
    [('note.txt', 'Cats purr.')]
    """
    mode = _permissions(path)
    _tidy(path.parent)
    part = beside(path)
    try:
        if mode is not None:
            part.touch(0o600, exist_ok=False)
        elif usual:
            mode = _of_new_files(part)
        yield part
        with part.open("rb+") as stream:
            _to_disk(stream.fileno())
        if mode is not None:
            part.chmod(mode)
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
    with suppress(OSError):  # Windows does not open folders.
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def check(path: Path) -> None:
    """Try that `whole` can make its file there, and leave nothing behind.

    Raises:
        OSError: it cannot.
    """
    if path.is_dir() and not path.is_symlink():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    _permissions(path)
    part = beside(path)
    part.touch(exist_ok=False)
    part.unlink()


def is_stream(path: Path) -> bool:
    """Whether a pipe, a device or what a process has open is there, also behind links: /dev/null, /dev/stdout.

    Such a thing is written to as it is; no file can take its place.

    >>> is_stream(Path(os.devnull)), is_stream(Path("no such file"))
    (True, False)
    """
    try:
        mode = path.stat().st_mode
    except OSError:  # Nothing is there, or who writes there is told why it cannot be reached.
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) or _is_descriptor(path)


def _is_descriptor(path: Path) -> bool:
    """Whether links, which end somewhere, lead through a name of something open: where it leads is not its name."""
    while True:
        folder = os.path.realpath(path.parent)
        if _DESCRIPTORS.fullmatch(folder):
            return True
        if not path.is_symlink():
            return False
        path = Path(folder, os.readlink(path))


def beside(path: Path) -> Path:
    """A name in the same folder, for what is to have the path's name when it is whole; see `abandoned`."""
    return path.parent / f"{_OURS}{os.getpid()}-{secrets.token_hex(4)}{UNFINISHED}"


def _permissions(path: Path) -> int | None:
    """Those of a file that is there, None where there is none; a name that is too long is found before the work.

    Raises:
        OSError: so, or a pipe or device is there.
    """
    if is_stream(path):
        raise OSError(errno.EINVAL, "a pipe or a device, whose place no file can take: name a file", str(path))
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return stat.S_IMODE(found.st_mode) & 0o777 if stat.S_ISREG(found.st_mode) else None


def _of_new_files(path: Path) -> int:
    """The permissions that a file gets where there is none yet; only to make one tells, without changing the umask."""
    path.touch(exist_ok=False)
    mode = stat.S_IMODE(path.stat().st_mode)
    path.unlink()
    return mode


def _to_disk(number: int) -> None:
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in _UNABLE:
            raise


def abandoned(folder: Path) -> set[Path]:
    """What killed processes left. The age decides, because a process may be of another machine or container."""
    before = time.time() - _ABANDONED
    found = set()
    for path in folder.glob(f"{_OURS}*{UNFINISHED}*"):
        with suppress(OSError):
            if path.lstat().st_mtime < before and not _runs(path.name[len(_OURS) :].partition("-")[0]):
                found.add(path)
    return found


def _tidy(folder: Path) -> None:
    with suppress(OSError):
        folder = folder.resolve()
        if folder in _tidied:
            return
        _tidied.add(folder)
        for file in abandoned(folder):
            with suppress(OSError):
                file.unlink()


def _runs(process: str) -> bool:
    """Whether there is a process of this number here, as of a writer that slept with its machine."""
    if os.name == "nt" or not process.isascii() or not process.isdigit():
        return False  # On Windows `os.kill` would end it, and an open file cannot be removed anyway.
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
