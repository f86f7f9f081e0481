"""Whose turn it is, where several processes run tests at once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path


@contextmanager
def turn(alone: bool, door: Path, room: Path) -> Iterator[None]:
    """Wait until a test may begin, and let nobody in who may not be here until it ends.

    Any number of tests may be in the room, or one that is alone. Who wants to be alone keeps the door closed while the
    others leave; else the next ones would come in before it, and it would wait for long.

    Args:
        alone: whether nobody else may be in the room.
        door: a file that may be read; nothing is written.
        room: another.
    """
    with ExitStack() as inside:
        with _locked(door, exclusive=True):
            inside.enter_context(_locked(room, exclusive=alone))
        yield


@contextmanager
def _locked(file: Path, *, exclusive: bool) -> Iterator[None]:
    if sys.platform == "win32":  # it has no such locks
        yield
        return
    import fcntl

    with file.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        try:
            yield
        finally:
            fcntl.flock(held, fcntl.LOCK_UN)  # closing is not enough: a child that was forked may hold it open, too
