"""The token ids that were read last: a search asks for the lengths of its candidates, then for the ids of the best."""

from __future__ import annotations

from collections.abc import Sequence

from crossrank.types import Tokens

_MOST = 500_000  # Passages (100 bytes) and tokens (8 bytes) together: reading all of an index must not stay in memory.


class Recent:
    """One answer of a table at one version; safe from many threads, of which the last one wins.

    >>> recent = Recent()
    >>> recent.keep(1, ["a", "b"], Tokens.of([[7, 8], [9]])).of(1, ["a"]).ids.tolist()
    [7, 8]
    >>> recent.of(1, ["b"]).ids.tolist(), recent.of(2, ["b"]), recent.of(1, ["b", "c"])
    ([9], None, None)
    """

    def __init__(self) -> None:
        self._held: tuple[int, dict[str, int], Tokens] | None = None

    def keep(self, version: int, ids: Sequence[str], tokens: Tokens) -> Recent:
        """Remember these in place of those before, unless they are too many."""
        if len(ids) + len(tokens.ids) <= _MOST:
            self._held = version, {id_: row for row, id_ in enumerate(ids)}, tokens
        return self

    def of(self, version: int, ids: Sequence[str]) -> Tokens | None:
        """The tokens of these passages, if all of them were among the last."""
        held = self._held
        if held is None or held[0] != version:
            return None
        rows = [held[1].get(id_, -1) for id_ in ids]
        return None if -1 in rows else held[2].take(rows)
