"""The folder in which a tuning keeps what it has done, so that the same command finishes it after any interruption."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import InputError
from crossrank.writing import whole

MANIFEST = "tuning.json"


class Work:
    """A folder for one tuning, known by a key of everything that its result depends on.

    Args:
        folder: made when there is none.
        key: of data, model and settings.
        restart: throw away what another tuning left there.

    Raises:
        InputError: the folder holds another tuning, or something else.
    """

    def __init__(self, folder: Path, key: str, restart: bool = False) -> None:
        self.folder = folder
        manifest = folder / MANIFEST
        held = _key(manifest)
        if folder.exists() and held is None and any(folder.iterdir()):
            raise InputError(f"{folder} is not empty and holds no tuning; give another --to, or remove it")
        if held is not None and held != key:
            if not restart:
                raise InputError(
                    f"{folder} holds an unfinished tuning with other data, model or settings. Give those again to "
                    "finish it, or --restart to throw it away"
                )
            shutil.rmtree(folder)
        self.resumed = held == key and not restart
        if restart and folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        manifest.write_text(json.dumps({"key": key}) + "\n", encoding="utf-8")

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

    def close(self) -> None:
        """Remove the folder: the tuning is finished."""
        shutil.rmtree(self.folder)


def _key(manifest: Path) -> str | None:
    try:
        return str(json.loads(manifest.read_text(encoding="utf-8"))["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
