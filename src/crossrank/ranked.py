"""What a scorer makes of one list of documents: their order, as positions in the list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from reprlib import Repr
from typing import overload

import numpy as np
from numpy.typing import NDArray

from crossrank.calibration import above
from crossrank.evidence import Evidence, Scores, find
from crossrank.scored import Scored
from crossrank.types import Passage, Truncation, order_of

_SHORT = Repr()
_SHORT.maxlist, _SHORT.maxstring = 10, 80


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """Documents of one query, best first, as positions in the caller's list. Iterates as (position, score), and has
    these pairs by their rank: `ranked[0]` is the best, `ranked[:3]` a list of three.

    Attributes:
        positions: best first; equal scores keep their incoming order, blank documents come last.
        scores: raw logits in that order, shape (n,); -inf for blank documents.
        truncations: what was cut or read in windows; positions are the caller's, -1 is the query.
        evidence: of each document here, in the same order, the sentence that answers best; empty unless asked for.
        cached: documents whose scores were remembered by a cache.
        note: that the model has no words in the query's script, what a cache could not do, and what a threshold left
            out; empty when there is nothing to say.

    >>> ranked = Ranked((2, 0), np.array([4.5, -1.0], dtype=np.float32), ())
    >>> [(position, score) for position, score in ranked]
    [(2, 4.5), (0, -1.0)]
    >>> ranked[0], ranked
    ((2, 4.5), Ranked([(2, 4.5), (0, -1.0)]))
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

    @overload
    def __getitem__(self, at: int) -> tuple[int, float]: ...

    @overload
    def __getitem__(self, at: slice) -> list[tuple[int, float]]: ...

    def __getitem__(self, at: int | slice) -> tuple[int, float] | list[tuple[int, float]]:
        return list(self)[at]

    def __repr__(self) -> str:
        pairs = _SHORT.repr([(position, round(score, 4)) for position, score in self])
        told = {
            "documents": len(self) if len(self) > _SHORT.maxlist else 0,
            "truncations": len(self.truncations),
            "evidence": len(self.evidence),
            "cached": self.cached,
            "note": self.note,
        }
        return f"Ranked({pairs}{''.join(f', {name}={_SHORT.repr(value)}' for name, value in told.items() if value)})"

    @classmethod
    def of(cls, scored: Scored, k: int | None, said: str = "") -> Ranked:
        """The `k` best of scored documents, or all; with what else is to be noted."""
        order = order_of(scored.scores)[:k]
        note = "; ".join(filter(None, [said, scored.note]))
        return cls(tuple(order.tolist()), scored.scores[order], scored.truncations, (), scored.cached, note)

    def above(self, chances: NDArray[np.float32], least: float, read: int | None = None) -> tuple[Ranked, str]:
        """The documents that are at least so probable, and what is to be said of the others.

        Args:
            chances: probabilities of these documents, in their order; before evidence is sought.
            least: of them.
            read: how many of them were read, all when absent. The others have no probability and are left out, unless
                none was read: then all stay, see `crossrank.calibration.above`.

        >>> ranked = Ranked((2, 0), np.array([4.5, -1.0], dtype=np.float32), ())
        >>> left, said = ranked.above(np.array([0.9, 0.2], dtype=np.float32), 0.5)
        >>> left.positions, said
        ((2,), 'left out: 1 passage under the threshold of 0.5')
        """
        told = chances[:read].tolist()
        rows, said = above([*told, *[None] * (len(chances) - len(told))], least)
        left = replace(self, positions=tuple(self.positions[row] for row in rows), scores=self.scores[rows])
        return left, "; ".join(said)

    def explained(self, query: str, documents: Sequence[str | Passage], score: Scores) -> Ranked:
        """With the sentence of each that answers best: of a passage in its text, without its title."""
        given = [(str(position), documents[position]) for position in self.positions]
        best = [replace(one, id=at) if isinstance(one, Passage) else Passage(at, one) for at, one in given]
        return replace(self, evidence=tuple(find(query, best, score, known=self.scores.tolist())))
