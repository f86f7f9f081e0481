"""A model's weights as the library packed them: one copy in a process for all who compute with them."""

from __future__ import annotations

import ctypes
import weakref

from crossrank.backends import reference, sharing
from crossrank.backends.cpu import library
from crossrank.backends.cpu.model import Description
from crossrank.checkpoint import Checkpoint
from crossrank.errors import CheckpointError


class Engine:
    """Packed weights for one instruction set and one format, freed with the last object that holds this.

    Args:
        checkpoint: the model.
        tier: an instruction set of this machine.
        dtype: one of `library.DTYPES`.

    Attributes:
        pointer: what the library's functions take.
        hidden: numbers in one vector.
    """

    def __init__(self, checkpoint: Checkpoint, tier: str, dtype: str) -> None:
        source = reference.model_of(checkpoint)
        described = Description(source, checkpoint.labels)
        message = ctypes.create_string_buffer(256)
        loaded = library.handle()
        self.hidden = source.hidden
        self.pointer = loaded.crossrank_create(
            ctypes.byref(described.model), library.TIERS.index(tier), library.DTYPES.index(dtype), message, len(message)
        )
        if not self.pointer:
            reason = message.value.decode("ascii", "replace")
            kind = MemoryError if reason.startswith("not enough memory") else CheckpointError
            raise kind(f"{checkpoint.folder}: {reason}")
        # The library reads the embedding tables in place: they must go after it.
        self._tables = described.tables
        destroyed = weakref.finalize(self, _destroy, loaded, self.pointer, self._tables)
        # A daemon thread may still be computing when the interpreter exits, and the process's end frees all memory.
        destroyed.atexit = False

    @property
    def bytes(self) -> int:
        """Of packed weights and embedding tables."""
        return int(library.handle().crossrank_bytes(self.pointer)) + sum(table.nbytes for table in self._tables)


_engines: sharing.Table[Engine] = sharing.Table()


def opened(checkpoint: Checkpoint, tier: str, dtype: str) -> Engine:
    """The engine of these weights that somebody holds, else a new one.

    By what was chosen and not by what was asked for: "cpu" and "cpu:" with the best tier are the same numbers, and so
    is any number of threads. `backends.open` tells these apart, because a pickle goes by what was asked for.

    Raises:
        CheckpointError: the model is damaged, or the library cannot run it.
    """
    model = sharing.identity(checkpoint)
    if model is None:
        return Engine(checkpoint, tier, dtype)
    return _engines.get((model, tier, dtype), lambda: Engine(checkpoint, tier, dtype))


def _destroy(native: object, engine: int, tables: object) -> None:
    """Free an engine. `tables` is held until then and dropped after."""
    native.crossrank_destroy(engine)  # type: ignore[attr-defined]
