"""What a scorer makes of one list of documents: their order, as positions in the list."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossrank.evidence import Evidence
from crossrank.types import Truncation


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """Documents of one query, best first, as positions in the caller's list. Iterates as (position, score).

    Attributes:
        positions: best first; equal scores keep their incoming order, blank documents come last.
        scores: raw logits in that order, shape (n,); -inf for blank documents.
        truncations: what was cut or read in windows; positions are the caller's, -1 is the query.
        evidence: of each document here, in the same order, the sentence that answers best; empty unless asked for.
        cached: documents whose scores were remembered by a cache.
        note: what a cache could not do; empty when there is nothing to say.

    >>> ranked = Ranked((2, 0), np.array([4.5, -1.0], dtype=np.float32), ())
    >>> [(position, score) for position, score in ranked]
    [(2, 4.5), (0, -1.0)]
    """

    positions: tuple[int, ...]
    scores: NDArray[np.float32]
    truncations: tuple[Truncation, ...]
    evidence: tuple[Evidence | None, ...] = ()
    cached: int = 0
    note: str = ""

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[tuple[int, float]]:
        return zip(self.positions, self.scores.tolist(), strict=True)
