"""Vectors of the tokens of texts: what late interaction compares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from crossrank.packed import offsets_of, places
from crossrank.types import Truncation


@dataclass(frozen=True, slots=True, eq=False)
class TokenVectors:
    """The token vectors of some texts, end to end.

    Attributes:
        vectors: of all texts, shape (total, width), float32 or float16.
        offsets: text i has `vectors[offsets[i]:offsets[i + 1]]`, shape (n + 1,), int64, first 0, never falling.

    >>> made = TokenVectors.of([np.ones((2, 3)), np.zeros((1, 3))])
    >>> len(made), made.row(1).tolist(), made.take([1, 0]).offsets.tolist()
    (2, [[0.0, 0.0, 0.0]], [0, 1, 3])
    """

    vectors: NDArray[np.floating[Any]]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Sequence[NDArray[Any]]) -> TokenVectors:
        """Pack one matrix a text; there must be one at least, and all of one width."""
        return cls(np.concatenate(rows), offsets_of([len(row) for row in rows]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, i: int) -> NDArray[np.floating[Any]]:
        """The vectors of text `i`, a view."""
        return self.vectors[self.offsets[i] : self.offsets[i + 1]]

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> TokenVectors:
        """The given texts, in the given order, packed anew."""
        return TokenVectors(self.vectors[places(self.offsets, rows)], offsets_of(np.diff(self.offsets)[rows]))


def joined(parts: Sequence[TokenVectors]) -> TokenVectors:
    """The texts of all parts, in their order; there must be one part at least."""
    counts = np.concatenate([np.diff(part.offsets) for part in parts])
    return TokenVectors(np.concatenate([part.vectors for part in parts]), offsets_of(counts))


class TokenEmbedder(Protocol):
    """Texts to token vectors: a late-interaction model."""

    @property
    def width(self) -> int:
        """Numbers in one vector."""
        ...

    @property
    def fingerprint(self) -> str:
        """Equal exactly for models that give equal vectors."""
        ...

    def encode(self, passages: Sequence[str]) -> tuple[TokenVectors, tuple[Truncation, ...]]:
        """Vectors of the passages' tokens, in the order of the passages, and what was cut."""
        ...


@runtime_checkable
class VectorStore(Protocol):
    """Where token vectors of passages lie ready, so that a query encodes only itself: an index."""

    @property
    def late(self) -> str:
        """Fingerprint of the late-interaction model that made them; "" where there are none."""
        ...

    def token_vectors(self, ids: Sequence[str]) -> TokenVectors:
        """Vectors of the passages' scored texts, in the order of the passages."""
        ...
