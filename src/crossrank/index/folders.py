"""The folder of an index: what lies in it, and which version that is."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from crossrank.errors import IndexFileError

TABLE = "passages.lance"
LOCK = "writer.lock"


def placed(folder: str | Path) -> Path:
    """Where a folder is, whatever the program's working directory will be."""
    return Path(os.path.abspath(Path(folder).expanduser()))


@contextmanager
def _reached(folder: Path) -> Iterator[None]:
    """Tell a folder that cannot be looked into from one in which nothing is."""
    try:
        yield
    except OSError as error:
        raise IndexFileError(f"{folder} cannot be reached ({error.strerror}): check its permissions") from error


def make_folder(path: Path) -> None:
    """A folder for an index; refused where something else is.

    Raises:
        IndexFileError: there is something else, or it cannot be reached or made.
    """
    with _reached(path):
        foreign = path.exists() and (not path.is_dir() or _is_foreign(path))
    if foreign:
        raise IndexFileError(f"{path} is neither empty nor an index: choose another folder for the index")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise IndexFileError(f"{path} cannot be made ({error.strerror}): choose another folder") from error


def _is_foreign(folder: Path) -> bool:
    """Whether a folder holds things but no index, nor the beginnings of one."""
    return any(True for _ in folder.iterdir()) and not any((folder / name).exists() for name in (TABLE, LOCK))


def has_table(folder: Path) -> bool:
    """Whether there is an index in a folder, or the beginning of one.

    Raises:
        IndexFileError: nobody can tell, as without permission.
    """
    with _reached(folder):
        try:
            return stat.S_ISDIR(os.stat(folder / TABLE).st_mode)
        except (FileNotFoundError, NotADirectoryError, ValueError):  # No file has such a name.
            return False


def has_version(folder: Path) -> bool:
    """Whether the index in a folder has any version: making one may have been cut short.

    Raises:
        IndexFileError: nobody can tell, as without permission.
    """
    with _reached(folder):
        try:
            return any(name.endswith(".manifest") for name in os.listdir(folder / TABLE / "_versions"))
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return False


def bytes_in(folder: Path) -> int:
    """Bytes of all files below a folder; what goes while they are counted is not."""
    total = 0
    for below, _, files in os.walk(folder):
        for name in files:
            with suppress(FileNotFoundError):
                total += os.stat(os.path.join(below, name)).st_size
    return total


def place_of(folder: Path) -> tuple[int, int]:
    """What another folder of this name would not have, while this one is there."""
    found = os.stat(folder / TABLE)
    return found.st_dev, found.st_ino


class _Seen(NamedTuple):
    """A manifest as it was found: what a look at the folder tells, and the digest of what stands in it."""

    looks: tuple[int, int]
    digest: bytes


class Mark:
    """A version of an index as it lies in the folder when this is made, told by the version's manifest.

    Its number alone would not do. The folder may be replaced by another index while it is read, by `mv`, by a link, or
    by `rm -r` and a new build; and two indexes that were made in as many steps have one number.

    Args:
        folder: of the index, as `placed`.
        version: its number.
    """

    def __init__(self, folder: Path, version: int) -> None:
        # Lance names a manifest by the version, or by what is left to the largest one.
        versions = folder / TABLE / "_versions"
        self._paths = (versions / f"{2**64 - 1 - version:020}.manifest", versions / f"{version}.manifest")
        self._seen = self._read()

    def there(self, surely: bool = False) -> bool:
        """Whether this version is still in the folder: neither tidied away nor replaced together with its index.

        A manifest is written once, so its time and size tell, at the cost of one look (0.01 ms). Where they are others,
        its content decides: a copy of an index is the same version, and some network disks mend a file's time after
        it was closed. Inodes are not compared: on some disks they change, and a new folder may get the one of the old.

        Args:
            surely: compare contents in any case. Where clocks of disks tick in seconds, two versions may look alike.
        """
        seen = self._seen
        if seen is not None and not surely and self._looks() == seen.looks:
            return True
        found = self._read()
        if seen is None or found is None:
            return seen is found  # Both None: Lance calls manifests otherwise one day.
        if found.digest == seen.digest:
            self._seen = found
        return found.digest == seen.digest

    def _looks(self) -> tuple[int, int] | None:
        for path in self._paths:
            try:
                return _looks_of(os.stat(path))
            except OSError:  # Whatever it is: Lance could not reach the file either.
                continue
        return None

    def _read(self) -> _Seen | None:
        for path in self._paths:
            try:
                with open(path, "rb") as file:
                    return _Seen(_looks_of(os.fstat(file.fileno())), sha256(file.read()).digest())
            except OSError:
                continue
        return None


def _looks_of(found: os.stat_result) -> tuple[int, int]:
    return found.st_mtime_ns, found.st_size
