"""One copy of a model's weights in a process: a backend that is open is given to all who ask for the same."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

from crossrank.checkpoint import Checkpoint
from crossrank.checkpoint.record import facts
from crossrank.forks import renew_in_children

Held = TypeVar("Held")


def identity(checkpoint: Checkpoint) -> Hashable | None:
    """What a backend reads of a checkpoint: equal as long as neither its settings nor its files have changed.

    Files are told by device, number, size and times, which takes no reading and is the same by every path to them. The
    time of the last change of a file's entry cannot be set back. None when a file is gone: opening the model says more.
    """
    try:
        files = tuple(tuple(map(facts, paths)) for paths in (checkpoint.weights, checkpoint.shared))
        modules = tuple((name, held, facts(path)) for name, (path, held) in sorted(checkpoint.modules.items()))
    except OSError:
        return None
    config = json.dumps(checkpoint.config, sort_keys=True, default=str)
    said = (checkpoint.architecture, checkpoint.kind, checkpoint.labels, checkpoint.token_types, checkpoint.answer)
    return (*said, config, files, modules)


class Table(Generic[Held]):
    """What somebody holds, by what it was opened for. Many threads may ask; one of them opens.

    >>> from crossrank.backends.fake import Fake
    >>> table = Table()
    >>> first = table.get("key", Fake)
    >>> table.get("key", Fake) is first, table.get("other", Fake) is first
    (True, False)
    """

    def __init__(self) -> None:
        self._held: WeakValueDictionary[Hashable, Held] = WeakValueDictionary()
        self.renew()
        # A child may be forked while another thread opens a model, and no thread of the child would ever end that.
        renew_in_children(self)

    def __len__(self) -> int:
        """How many are held."""
        return len(self._held)

    def renew(self) -> None:
        """Wait for no thread that is opening something now."""
        self._guard = threading.Lock()
        # One for each that is being opened, so that two models load at once.
        self._opening: WeakValueDictionary[Hashable, _Opening] = WeakValueDictionary()

    def get(self, key: Hashable, make: Callable[[], Held]) -> Held:
        """The one of this key that is open, else the one that `make` opens.

        Raises:
            Exception: what `make` raised, here or in the thread that was waited for. The next call tries again.
        """
        with self._guard:
            opening = self._opening.setdefault(key, _Opening())
        try:
            with opening.lock:
                if opening.failed is not None:
                    raise opening.failed
                found = self._held.get(key)
                if found is None:
                    found = self._held[key] = self._made(key, make, opening)
                return found
        finally:
            # An error knows this frame, which must not know the error: what failed to load would wait for gc.
            del opening

    def _made(self, key: Hashable, make: Callable[[], Held], opening: _Opening) -> Held:
        try:
            return make()
        except Exception as error:
            opening.failed = error
            with self._guard:
                self._opening.pop(key, None)
            raise
        finally:
            del opening


class _Opening:
    """Held by the thread that opens something, and waited for by those that want the same."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.failed: Exception | None = None
