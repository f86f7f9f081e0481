"""What is on disk: documents become passages in one Lance table that answers BM25 and vector queries with filters.

`Index` and what belongs to it need the `search` extra and load when they are first named; reading files and splitting
texts do not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from crossrank.index.documents import Document, Failure, Limits
from crossrank.index.oneversion import one_version

if TYPE_CHECKING:
    from crossrank.index.changes import Changes, Progress
    from crossrank.index.index import Index
    from crossrank.index.records import Info

__all__ = ["Changes", "Document", "Failure", "Index", "Info", "Limits", "Progress", "one_version"]

_LAZY = {"Index": "index", "Info": "records", "Changes": "changes", "Progress": "changes"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"crossrank.index.{_LAZY[name]}"), name)
