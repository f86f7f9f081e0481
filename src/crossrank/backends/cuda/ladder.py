"""The few sizes that batches are rounded up to, so that a CUDA graph that was captured once serves many batches.

Pure functions: they know no torch. A graph has fixed sizes. Tokens and sequences that fill a batch up to its size are
computed and never read: linear layers act on rows, and attention is told where each sequence ends.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossrank.types import Tokens

SMALLEST = 256  # tokens: below, launching takes longer than computing
STEPS = 4  # sizes from one power of two to the next: a batch is filled up by a ninth on average, a fifth at most
FEWEST = 16  # sequences
SHORTEST = 128  # tokens of the longest sequence: the rows that one block of flash attention takes
# From one number of sequences, or one longest sequence, to the next. They only say how many blocks attention starts,
# and those without tokens end at once. Of 3,000 mixed calls, steps of 2 made 218 shapes at 512 positions and 343 at
# 8,192, steps of 4 make 111 and 170. What the idle blocks cost was not measured: there was no card.
STRIDE = 4


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a batch as it is computed.

    Attributes:
        tokens: rows of the packed matrix.
        sequences: sequences, empty ones at the end included.
        longest: no sequence has more tokens.

    >>> Shape(tokens=512, sequences=8, longest=128).numbers
    1041
    """

    tokens: int
    sequences: int
    longest: int

    @property
    def numbers(self) -> int:
        """How many int32 carry a batch to the card: ids, types, offsets, and how many tokens attention sees."""
        return 2 * self.tokens + 2 * self.sequences + 1


@dataclass(frozen=True, slots=True)
class Ladder:
    """The sizes up to a most. `positions` is the longest sequence that the model reads, None for no limit."""

    tokens: int
    sequences: int
    positions: int | None = None

    def fit(self, tokens: Tokens) -> Shape | None:
        """The smallest size that holds the sequences; None when they are more than the largest holds.

        >>> from crossrank.types import Tokens
        >>> Ladder(tokens=32768, sequences=4096, positions=512).fit(Tokens.of([[1] * 300, [1] * 20]))
        Shape(tokens=320, sequences=16, longest=512)
        """
        total, count, longest = exact_sizes(tokens)
        size = _rung(total)
        if size > self.tokens or count > self.sequences:
            return None
        reach = _stride(longest, SHORTEST)
        return Shape(size, _stride(count, FEWEST), reach if self.positions is None else min(reach, self.positions))

    @property
    def numbers(self) -> int:
        """The most int32 that a shape of this ladder takes."""
        return Shape(self.tokens, self.sequences, 0).numbers


def exact(tokens: Tokens) -> Shape:
    """The sizes as they are, for a batch that no graph computes."""
    return Shape(*exact_sizes(tokens))


def exact_sizes(tokens: Tokens) -> tuple[int, int, int]:
    """Tokens, sequences, and tokens of the longest sequence."""
    return int(tokens.offsets[-1]), len(tokens), int(tokens.lengths.max())


def fill(numbers: NDArray[np.int32], tokens: Tokens, seen: NDArray[np.int64] | None, shape: Shape) -> None:
    """Write a batch into `numbers`, shape (shape.numbers,): ids, types, offsets, seen, each filled up to its size.

    Filled up are ids and types with 0, offsets with the number of tokens (empty sequences), seen with 0.
    """
    total, count = int(tokens.offsets[-1]), len(tokens)
    ids, types, offsets, reach = parts(numbers, shape)
    ids[:total], ids[total:] = tokens.ids, 0
    types[:total], types[total:] = tokens.types, 0
    offsets[: count + 1], offsets[count + 1 :] = tokens.offsets, total
    reach[:count], reach[count:] = tokens.lengths if seen is None else seen, 0


def parts(numbers: NDArray[np.int32], shape: Shape) -> list[NDArray[np.int32]]:
    """Views of the four parts of `fill`."""
    ends = np.cumsum([shape.tokens, shape.tokens, shape.sequences + 1]).tolist()
    return np.split(numbers, ends)


def _rung(total: int) -> int:
    """The next of 256, 320, 384, 448, 512, 640, ..."""
    if total <= SMALLEST:
        return SMALLEST
    step = (1 << (total - 1).bit_length() - 1) // STEPS
    return -(-total // step) * step


def _stride(number: int, least: int) -> int:
    """The next of `least`, STRIDE times that, and so on."""
    found = least
    while found < number:
        found *= STRIDE
    return found
