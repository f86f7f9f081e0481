"""Which document an id of a passage belongs to, while an update gives ids up and takes others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from crossrank.index.records import Known


class Claims:
    """The passages of an index by the documents that have them.

    A document that is cut into passages called `a#1`, `a#2` and so on may meet another that is called `a#2`.

    >>> claims = Claims({"a": Known("", "", 0, 0, ("a#1", "a#2"))})
    >>> claims.taken("a#2", ["a#2"])
    ('a#2', 'a')
    >>> claims.take("a", ["a"])
    >>> claims.taken("a#2", ["a#2"])
    """

    def __init__(self, known: Mapping[str, Known]) -> None:
        self._known = known
        self._owner = {passage: id_ for id_, found in known.items() for passage in found.passages}

    def __len__(self) -> int:
        return len(self._owner)

    def taken(self, document: str, passages: Sequence[str]) -> tuple[str, str] | None:
        """The first of these ids that belongs to another document, and which that is; None when all can be had."""
        found = ((id_, self._owner.get(id_, document)) for id_ in passages)
        return next(((id_, owner) for id_, owner in found if owner != document), None)

    def give_up(self, document: str) -> None:
        """A document of before has left, or is about to be replaced: others may have the ids of its passages."""
        if known := self._known.get(document):
            for id_ in known.passages:
                if self._owner.get(id_) == document:
                    del self._owner[id_]

    def take(self, document: str, passages: Sequence[str]) -> None:
        """A document has these passages, in place of those of before."""
        self.give_up(document)
        self._owner.update(dict.fromkeys(passages, document))
