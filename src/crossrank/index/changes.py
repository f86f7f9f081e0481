"""What an update of an index did, and how far it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from crossrank.index.documents import Failure
from crossrank.index.records import Unread


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an update is.

    Attributes:
        stage: "reading", "embedding", "committed" (a commit has just succeeded), "tidying" or "done".
        documents: dealt with so far, unchanged ones included.
        expected: documents in all, about.
        passages: committed passages in the index.
        source: what is being read.
    """

    stage: Literal["reading", "embedding", "committed", "tidying", "done"]
    documents: int
    expected: int
    passages: int
    source: str


Callback = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Changes:
    """What an update did, in documents.

    Attributes:
        added: that were not in the index.
        changed: whose content differed.
        deleted: that are gone, or became blank.
        unchanged: that were left as they are.
        failed: what could not be read; documents known from an earlier run stay in the index.
        unread: passages of this update whose vectors do not tell of their ends, because they have more tokens than the
            embedder reads.
        passed_over: how many files of kinds that are not read lay in the folders, by suffix.
        omitted: fields that were left out of the metadata of new and changed documents, as `documents.plain_metadata`
            says, or as `metadata.year` of a row that has another `year` itself, and of how many documents each.
        missing: indexed files outside the given paths that no longer exist. Their documents stay until an update is
            given these paths.
    """

    added: int
    changed: int
    deleted: int
    unchanged: int
    failed: tuple[Failure, ...]
    unread: tuple[Unread, ...] = ()
    passed_over: Mapping[str, int] = field(default_factory=dict)
    omitted: Mapping[str, int] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
