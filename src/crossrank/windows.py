"""Long passages in overlapping windows: where the windows lie, and how their scores become one. Pure functions."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import InputError

Fold = Literal["max", "mean", "first"]


def spans(length: int, size: int, overlap: int) -> list[tuple[int, int]]:
    """Cover `length` tokens with windows of at most `size` tokens, neighbours sharing at least `overlap`.

    Every window but a lone short one is exactly `size` long: the last is moved back to end with the text, so that no
    window is a stump that the model would judge without context.

    Returns:
        (start, stop) pairs, starts rising; one (0, length) when it fits, also for length 0.

    Raises:
        InputError: unless 0 <= overlap < size.

    >>> spans(1000, size=400, overlap=100)
    [(0, 400), (300, 700), (600, 1000)]
    >>> spans(450, size=400, overlap=100)
    [(0, 400), (50, 450)]
    """
    if not 0 <= overlap < size:
        raise InputError(f"window overlap must be at least 0 and less than the window size, not {overlap} of {size}")
    if length <= size:
        return [(0, length)]
    starts = list(range(0, length - size, size - overlap))
    return [(start, start + size) for start in (*starts, length - size)]


def fold(values: NDArray[np.float32], owner: NDArray[np.int64], n: int, how: Fold = "max") -> NDArray[np.float32]:
    """One score for each of `n` passages from the scores of their windows.

    The maximum is the default: a passage answers when any part of it does (Dai and Callan 2019, "MaxP").

    Args:
        values: window scores, shape (windows,).
        owner: the passage of each window, 0..n-1, never falling, shape (windows,).
        n: passages; one without any window gets -inf.
        how: "max", "mean", or "first" window.

    >>> fold(np.float32([1, 3, 2]), np.int64([0, 0, 1]), 2).tolist()
    [3.0, 2.0]
    """
    if how == "max":
        out = np.full(n, -np.inf, dtype=np.float32)
        np.maximum.at(out, owner, values)
    elif how == "mean":
        counts = np.bincount(owner, minlength=n)
        sums = np.bincount(owner, weights=values, minlength=n)
        out = np.where(counts > 0, sums / np.maximum(counts, 1), -np.inf).astype(np.float32)
    elif how == "first":
        out = np.full(n, -np.inf, dtype=np.float32)
        owners, first = np.unique(owner, return_index=True)
        out[owners] = values[first]
    else:
        raise InputError(f"unknown fold {how!r}; use 'max', 'mean' or 'first'")
    return out
