"""What must not go over a fork: a lock that another thread holds, and a connection that two processes would read."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Renewed(Protocol):
    """An object that a forked child gets a copy of."""

    def renew(self) -> None:
        """In the child, before anything else runs there: give up what is the parent's. Nothing else may hold it."""


_owners: WeakSet[Renewed] = WeakSet()


def renew_in_children(owner: Renewed) -> None:
    """Have `owner.renew()` called in every process that is forked from now on, as long as `owner` lives."""
    _owners.add(owner)


def _renew() -> None:
    for owner in list(_owners):
        owner.renew()


# Where there is no such function nothing forks.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
