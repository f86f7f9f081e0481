"""Attention over packed sequences: groups of equal length become one stacked matrix product, so nothing is padded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossrank.backends.reference.ops import Floats, Scratch

# exp of anything in here neither overflows nor makes a whole row vanish, so the row maximum need not be subtracted.
SAFE = np.float32(60)
LEAST = np.finfo(np.float32).min  # minus infinity less itself would be no number
SCORES = 1 << 19  # attention scores held at once: 2 MB


@dataclass(frozen=True, slots=True)
class Group:
    """`count` sequences of `length` tokens that lie one after another from row `start`; `first` counts sequences.

    Of each, attention sees the first `seen` tokens.
    """

    start: int
    first: int
    count: int
    length: int
    seen: int


def groups(lengths: NDArray[np.int64], heads: int, seen: NDArray[np.int64] | None = None) -> list[Group]:
    """Runs of equal length, cut so that the scores of one group stay in cache.

    Args:
        lengths: of the sequences.
        heads: of the model.
        seen: how many of a sequence's tokens attention sees, equal within a run; all when absent.
    """
    seen = lengths if seen is None else seen
    found: list[Group] = []
    start = first = 0
    while first < len(lengths):
        length = int(lengths[first])
        most = max(1, SCORES // (heads * length * length))
        count = 1
        same = (lengths == length) & (seen == seen[first])
        while count < most and first + count < len(lengths) and same[first + count]:
            count += 1
        found.append(Group(start, first, count, length, int(seen[first])))
        start += count * length
        first += count
    return found


def softmax_times(scores: Floats, values: Floats, out: Floats, band: Floats | None) -> None:
    """`out = softmax(scores + band) @ values` over the last axis; `scores` is used up.

    A row whose band hides all is zeros, as torch's attention gives: a token that sees no other takes nothing from them.
    """
    if band is not None:
        scores += band
    if band is not None or scores.max() > SAFE or scores.min() < -SAFE:
        scores -= np.maximum(scores.max(axis=-1, keepdims=True), LEAST)
    np.exp(scores, out=scores)
    total = scores @ np.ones(scores.shape[-1], dtype=np.float32)
    if band is not None:
        total[total == 0] = 1
    np.matmul(scores, values, out=out)
    out /= total[..., None]


def tiles(part: Group, heads: int, window: int | None) -> Iterator[tuple[slice, slice]]:
    """Queries to compute together and the keys they can see. Bounds memory for long sequences, and work for windows."""
    length = part.length
    step = length if part.count > 1 else max(1, SCORES // (heads * length))
    if window is not None and length > 4 * window:
        step = max(1, min(step, 2 * window))
    for start in range(0, length, step):
        stop = min(start + step, length)
        near = (0, part.seen) if window is None else (max(0, start - window), min(part.seen, stop + window))
        yield slice(start, stop), slice(min(near[0], part.seen - 1), near[1])  # one key at least, hidden by the band


def attend(
    queries: Floats, keys: Floats, values: Floats, parts: Sequence[Group], scratch: Scratch, window: int | None = None
) -> Floats:
    """Attention of every token to its own sequence.

    Args:
        queries: already scaled, shape (total, heads, size).
        keys: shape (total, heads, size).
        values: shape (total, heads, size).
        parts: the sequences, in row order.
        scratch: buffers of this call.
        window: tokens further apart than this do not see each other; None for no limit.

    Returns:
        Shape (total, heads * size).
    """
    total, heads, size = queries.shape
    out = scratch.take("attention", total, heads, size)
    for part in parts:
        rows = slice(part.start, part.start + part.count * part.length)
        shape = (part.count, part.length, heads, size)
        q, k, v, o = (x[rows].reshape(shape).transpose(0, 2, 1, 3) for x in (queries, keys, values, out))
        for mine, seen in tiles(part, heads, window):
            scores = scratch.take("scores", part.count, heads, mine.stop - mine.start, seen.stop - seen.start)
            np.matmul(q[:, :, mine], k[:, :, seen].swapaxes(-1, -2), out=scores)
            softmax_times(scores, v[:, :, seen], o[:, :, mine], None if window is None else band_of(mine, seen, window))
    return out.reshape(total, heads * size)


def attend_first(
    queries: Floats, keys: Floats, values: Floats, parts: Sequence[Group], scratch: Scratch, window: int | None = None
) -> Floats:
    """Attention of each sequence's first token alone. `queries` has one row a sequence: shape (n, heads, size)."""
    n, heads, size = queries.shape
    out = scratch.take("attention", n, heads, size)
    for part in parts:
        rows = slice(part.start, part.start + part.count * part.length)
        mine = slice(part.first, part.first + part.count)
        shape = (part.count, part.length, heads, size)
        k, v = (x[rows].reshape(shape).transpose(0, 2, 1, 3) for x in (keys, values))
        reach = part.seen if window is None else min(part.seen, window + 1)
        k, v = k[:, :, :reach], v[:, :, :reach]
        q, o = queries[mine][:, :, None, :], out[mine][:, :, None, :]
        softmax_times(q @ k.swapaxes(-1, -2), v, o, None)
    return out.reshape(n, heads * size)


def band_of(queries: slice, keys: slice, window: int) -> Floats | None:
    """0 where two positions are at most `window` apart, minus infinity elsewhere; None when all are."""
    if max(queries.stop - keys.start, keys.stop - queries.start) <= window + 1:
        return None
    far = np.abs(np.arange(queries.start, queries.stop)[:, None] - np.arange(keys.start, keys.stop)) > window
    return np.asarray(np.where(far, -np.inf, 0), dtype=np.float32)
