"""Stand-ins that note what they were asked for."""

from __future__ import annotations

from collections.abc import Sequence

from crossrank.textids import TextIds
from crossrank.types import Tokens


class Counting:
    """What gives a `PairEncoder` the ids of texts, and notes the texts."""

    def __init__(self, ids: TextIds) -> None:
        self.ids = ids
        self.texts: list[str] = []

    def of(self, texts: Sequence[str]) -> Tokens:
        """As that of the ids."""
        self.texts += texts
        return self.ids.of(texts)
