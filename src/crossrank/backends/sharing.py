"""One copy of a model's weights in a process: a backend that is open is given to all who ask for the same."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Hashable
from pathlib import Path
from weakref import WeakValueDictionary

from crossrank.checkpoint import Checkpoint
from crossrank.types import Backend


def identity(checkpoint: Checkpoint) -> Hashable | None:
    """What a backend reads of a checkpoint: equal as long as neither its settings nor its files have changed.

    Files are told by where they are, their size and their times, which takes no reading; the time of the last change of
    a file's entry cannot be set back. None when a file is gone, about which opening the model has more to say.
    """
    modules = {path for path, _ in checkpoint.modules.values()}
    paths = [*checkpoint.weights, *checkpoint.shared, *sorted(modules)]
    try:
        files = tuple(_facts(path) for path in paths)
    except OSError:
        return None
    config = json.dumps(checkpoint.config, sort_keys=True, default=str)
    said = (checkpoint.folder, checkpoint.architecture, checkpoint.kind, checkpoint.labels, checkpoint.token_types)
    return (*said, config, tuple(sorted((name, *held) for name, held in checkpoint.modules.items())), files)


def _facts(path: Path) -> tuple[str, int, int, int, int, int]:
    found = path.stat()
    return str(path), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class Table:
    """Backends that somebody holds, by what they were opened for. Many threads may ask; one of them opens.

    >>> from crossrank.backends.fake import Fake
    >>> table = Table()
    >>> first = table.get("key", Fake)
    >>> table.get("key", Fake) is first, table.get("other", Fake) is first
    (True, False)
    """

    def __init__(self) -> None:
        self._held: WeakValueDictionary[Hashable, Backend] = WeakValueDictionary()
        self._unlock()
        # A child may be forked while another thread opens a model, and no thread of the child would ever end that.
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._unlock)

    def _unlock(self) -> None:
        self._guard = threading.Lock()
        # One for each that is being opened, so that two models load at once.
        self._opening: WeakValueDictionary[Hashable, Lock] = WeakValueDictionary()

    def get(self, key: Hashable, make: Callable[[], Backend]) -> Backend:
        """The backend of this key: the one that is open, else the one that `make` opens."""
        with self._guard:
            lock = self._opening.setdefault(key, Lock())
        with lock.held:
            found = self._held.get(key)
            if found is None:
                found = self._held[key] = make()
            return found


class Lock:
    """A lock that a weak reference can point to on every Python."""

    def __init__(self) -> None:
        self.held = threading.Lock()
