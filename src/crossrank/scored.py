"""Scores of pairs with what was read of them, and how those of distinct pairs become those of a caller's list."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import InputError
from crossrank.types import Passage, Truncation

# (query, passage): texts, or a passage whose title is read before its text.
Pairs = Iterable[Sequence[str | Passage]]
# Called with how many distinct pairs are scored, and how many there are; blank passages count for none.
Progress = Callable[[int, int], None]
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Scores of pairs, with what was read of them.

    Attributes:
        scores: raw logits in the order of the pairs, shape (n,); -inf for a blank passage. One is blank that holds
            nothing but white space, or no token that the model reads, such as a lone U+200B.
        truncations: passages that were cut or read in windows, and queries that were cut (position -1).
        tokens: tokens the model read.
        cached: pairs whose scores were not computed but remembered (`crossrank.CachedScorer`).
        note: what a cache could not do; empty when there is nothing to say.
    """

    scores: NDArray[np.float32]
    truncations: tuple[Truncation, ...]
    tokens: int
    cached: int = 0
    note: str = ""


def scored_by(score: Callable[..., Scored], pairs: Pairs, progress: Progress | None) -> Scored:
    """What a scorer's `scored` gives; a class of the user's may know nothing of progress, when nobody asks for it."""
    return score(pairs) if progress is None else score(pairs, progress=progress)


def as_scores(given: Any, pairs: int) -> NDArray[np.float32]:
    """What a scorer of anybody's gave for so many pairs, as an array, shape (pairs,).

    Raises:
        InputError: these are no numbers, or not so many.

    >>> as_scores([0.5, 2], pairs=2)
    array([0.5, 2. ], dtype=float32)
    """
    try:
        found = np.asarray(given, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"the scorer gave no list of numbers, one a pair: {error}") from error
    if found.shape != (pairs,):
        raise InputError(f"the scorer gave scores of shape {found.shape} for {pairs} pairs")
    return found


def firsts(keys: Iterable[Key]) -> dict[Key, int]:
    """Each key with the place where it comes first, these rising.

    >>> firsts(["tea", "bread", "tea"])
    {'tea': 0, 'bread': 1}
    """
    first: dict[Key, int] = {}
    for row, key in enumerate(keys):
        first.setdefault(key, row)
    return first


def spread(found: Scored, rows: Sequence[int]) -> Scored:
    """What was found of distinct pairs, for the caller's list: the distinct pair of each position, -1 for a blank."""
    of = np.array(rows, dtype=np.int64)
    scores = np.full(len(of), -np.inf, dtype=np.float32)
    scores[of >= 0] = found.scores[of[of >= 0]]
    if not found.truncations:
        return Scored(scores, (), found.tokens)
    by_row = {cut.position: cut for cut in found.truncations if cut.position >= 0}
    passages = [replace(by_row[row], position=position) for position, row in enumerate(rows) if row in by_row]
    return Scored(scores, (*(cut for cut in found.truncations if cut.position < 0), *passages), found.tokens)
