"""The folder in which a tuning keeps what it has done, so that the same command finishes it after any interruption."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import IndexFileError, InputError
from crossrank.index.lock import exclusive
from crossrank.writing import whole

MANIFEST, LOCK = "tuning.json", "lock"
_UNFINISHED = f"{MANIFEST}.part"
# What a tuning that died before it began may leave.
_OWN = {LOCK, _UNFINISHED}


class Work:
    """A folder for one tuning, known by a key of everything that its result depends on.

    It is locked until the context ends: of two tunings in one folder, the first to end would delete the other's.

    Attributes:
        folder: as given.
        resumed: whether an interrupted tuning is gone on with.
        outcome: what `end` was told, by a process that was killed before `close` was done; else None.

    Args:
        folder: made when there is none.
        key: of data, model and settings.
        restart: throw away what another tuning left there.

    Raises:
        InputError: the folder holds another tuning, or something else.
        IndexFileError: another process works in it.
    """

    def __init__(self, folder: Path, key: str, restart: bool = False) -> None:
        self.folder = folder
        manifest = folder / MANIFEST
        # Nothing is made in a folder that is somebody's own. A process that died early leaves a lock, and nothing else.
        if not _told(manifest) and _names(folder) - _OWN:
            raise InputError(f"{folder} is not empty and holds no tuning; give another --to, or remove it")
        folder.mkdir(parents=True, exist_ok=True)
        self._open = ExitStack()
        handle = self._open.enter_context(exclusive(folder / LOCK, "the tuning", folder))
        try:
            # Whoever held it was done and removed the folder, and a third process may have made it anew: a lock on the
            # file that is gone is none.
            if not _same(handle, folder / LOCK):
                raise IndexFileError(f"another process ended its tuning in {folder} just now: run this again")
            told = _told(manifest)
            held = told.get("key")
            if held is not None and held != key and not restart:
                raise InputError(
                    f"{folder} holds an unfinished tuning with other data, model, settings or backend, or of another "
                    "version of crossrank. Give those again to finish it, or --restart to throw it away"
                )
            self.resumed = held == key and not restart
            self.outcome: dict[str, Any] | None = told.get("outcome") if self.resumed else None
            if not self.resumed:
                _empty(folder)
                self._tell({"key": key})
        except BaseException:
            self._open.close()
            raise

    def __enter__(self) -> Work:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def once(self, name: str, made: Callable[[], Sequence[NDArray[np.float32]]]) -> list[NDArray[np.float32]]:
        """The arrays that were kept under a name, or those that `made` gives, which are kept then."""
        path = self.folder / f"{name}.npz"
        if path.exists():
            with np.load(path, allow_pickle=False) as held:
                return list(np.split(held["flat"], held["ends"][:-1])) if len(held["ends"]) else []
        arrays = [np.asarray(array, np.float32) for array in made()]
        path.parent.mkdir(parents=True, exist_ok=True)
        flat = np.concatenate(arrays) if arrays else np.zeros(0, np.float32)
        ends = np.cumsum([len(array) for array in arrays], dtype=np.int64)
        # A stream, because NumPy gives a name that it is told another ending.
        with whole(path) as part, part.open("wb") as stream:
            np.savez(stream, flat=flat, ends=ends)
        return arrays

    def end(self, outcome: dict[str, Any]) -> None:
        """Keep what the tuning came to. From here on nothing else in the folder is needed, and some may be missing."""
        self._tell({**_told(self.folder / MANIFEST), "outcome": outcome})

    def _tell(self, manifest: dict[str, Any]) -> None:
        part = self.folder / _UNFINISHED
        part.write_text(json.dumps(manifest) + "\n", encoding="utf-8")
        part.replace(self.folder / MANIFEST)

    def close(self) -> None:
        """Remove the folder: the tuning is finished. The lock goes last, so that nobody else begins before."""
        _empty(self.folder)
        if sys.platform == "win32":  # which removes no file that is open
            self._open.close()
        shutil.rmtree(self.folder)
        self._open.close()


def _empty(folder: Path) -> None:
    """Remove everything but the lock, which is held. The manifest goes last: until then it tells whose the rest is."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == MANIFEST):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def _names(folder: Path) -> set[str]:
    """Of the files in a folder; none where it is not there, or is removed just now by the tuning that ended in it."""
    try:
        return {file.name for file in folder.iterdir()}
    except FileNotFoundError:
        return set()


def _same(handle: IO[bytes], path: Path) -> bool:
    """Whether a path still leads to the file that is open."""
    try:
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    except FileNotFoundError:
        return False


def ended(folder: Path) -> bool:
    """Whether the tuning in a folder has come to its end, and was killed before the folder was removed."""
    return "outcome" in _told(folder / MANIFEST)


def _told(manifest: Path) -> dict[str, Any]:
    """What a manifest says; nothing where it is none."""
    try:
        told = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) and isinstance(told.get("key"), str) else {}
