"""What must not go over a fork: a lock that another thread holds, a connection that two processes would read, and the
threads of a library."""

from __future__ import annotations

import os
import sys
from typing import Protocol
from weakref import WeakSet


class Renewed(Protocol):
    """An object that a forked child gets a copy of."""

    def renew(self) -> None:
        """In the child, before anything else runs there: give up what is the parent's. Nothing else may hold it."""


_owners: WeakSet[Renewed] = WeakSet()
_loaded: frozenset[str] = frozenset()


def renew_in_children(owner: Renewed) -> None:
    """Have `owner.renew()` called in every process that is forked from now on, as long as `owner` lives."""
    _owners.add(owner)


def inherited(library: str) -> bool:
    """Whether this process was forked from one that had loaded a library, whose threads stayed there.

    >>> inherited("numpy")
    False
    """
    return library in _loaded


def _renew() -> None:
    global _loaded
    _loaded = frozenset(name for name in sys.modules if "." not in name)
    for owner in list(_owners):
        owner.renew()


# Where there is no such function nothing forks.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
