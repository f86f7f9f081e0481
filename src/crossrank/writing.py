"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

UNFINISHED = ".part"
"""How the name of a file ends that is being written, or that a process left which was killed meanwhile."""


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A name beside `path` for the block to write a file under; at the block's end that file takes the place of `path`.

    So whoever reads `path` finds what was there before or all of the new file, whatever dies meanwhile: the file is on
    the disk before it gets its name, and the name before this returns, where the system can promise that. After an
    exception nothing is left. No two writers ever share a name, so that the last to finish has the file. A link at
    `path` is replaced, and not what it points to.

    Raises:
        OSError: the block wrote no file, or `path` cannot be replaced.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with whole(Path(folder, "note.txt")) as part:
    ...         _ = part.write_text("Cats purr.")
    ...     [(file.name, file.read_text()) for file in Path(folder).iterdir()]
    [('note.txt', 'Cats purr.')]
    """
    part = _beside(path)
    try:
        yield part
        with part.open("rb+") as stream:
            os.fsync(stream.fileno())
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
    part = _beside(path)
    part.touch(exist_ok=False)
    part.unlink()


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
