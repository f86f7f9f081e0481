"""Which queries are held out together. Groups hold one query each, so no query is on both sides."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import InputError
from crossrank.training.judgments import Group, query_key


def assign(groups: Sequence[Group], folds: int, seed: int) -> NDArray[np.int64]:
    """The fold of each group, shape (n,), sizes differing by one at most. It depends on the query, not on its place.

    Raises:
        InputError: fewer than two folds, or fewer groups than folds.

    >>> groups = [Group(text, ("d",), (1.0,)) for text in "abcdef"]
    >>> sorted(np.bincount(assign(groups, 3, seed=0)).tolist())
    [2, 2, 2]
    """
    if folds < 2 or len(groups) < folds:
        raise InputError(f"{len(groups)} queries cannot be dealt to {folds} folds; at least two folds are needed")
    place = np.empty(len(groups), dtype=np.int64)
    by_key = sorted(range(len(groups)), key=lambda i: query_key(groups[i].query))
    order = np.random.default_rng(seed).permutation(len(groups))
    place[np.array(by_key)[order]] = np.arange(len(groups)) % folds
    return place
