"""The folder of an index: what lies in it, and which version that is."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from crossrank.errors import IndexFileError

TABLE = "passages.lance"
LOCK = "writer.lock"


def make_folder(path: Path) -> None:
    """A folder for an index; refused where something else is."""
    if path.exists() and (not path.is_dir() or _is_foreign(path)):
        raise IndexFileError(f"{path} is neither empty nor an index: choose another folder for the index")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise IndexFileError(f"{path} cannot be made ({error.strerror}): choose another folder") from error


def _is_foreign(folder: Path) -> bool:
    """Whether a folder holds things but no index, nor the beginnings of one."""
    return any(True for _ in folder.iterdir()) and not any((folder / name).exists() for name in (TABLE, LOCK))


def has_version(folder: Path) -> bool:
    """Whether the index in a folder has any version: making one may have been cut short."""
    return any((folder / TABLE / "_versions").glob("*.manifest"))


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
        folder: of the index.
        version: its number.
    """

    def __init__(self, folder: Path, version: int) -> None:
        # The program may change its working directory. Lance names a manifest by the version, or by what is left to the
        # largest one.
        versions = Path(os.path.abspath(folder / TABLE / "_versions"))
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
