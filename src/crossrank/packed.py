"""Where rows lie that are packed end to end. Tokens, their vectors and a passage's windows are all packed so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def offsets_of(lengths: Sequence[int] | NDArray[np.integer[Any] | np.bool_]) -> NDArray[np.int64]:
    """Where each row begins, and behind them where the last ends; shape (n + 1,), from 0.

    >>> offsets_of([3, 0, 2]).tolist()
    [0, 3, 3, 5]
    """
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def places(offsets: NDArray[np.int64], rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the entries of packed rows lie: of row i, `offsets[i]` to `offsets[i + 1]`, rows in the given order.

    >>> places(offsets_of([3, 0, 2]), [2, 0]).tolist()
    [3, 4, 0, 1, 2]
    """
    picked = np.asarray(rows, dtype=np.int64)
    lengths = offsets[picked + 1] - offsets[picked]
    # Of every entry its row's start there, less where the row begins here, plus its place here.
    begins = np.cumsum(lengths) - lengths
    return np.repeat(offsets[picked] - begins, lengths) + np.arange(lengths.sum(), dtype=np.int64)
