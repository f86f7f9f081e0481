"""Which queries are held out together. Groups hold one query each, so no query is on both sides."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import InputError
from crossrank.training.judgments import query_key


def assign(queries: Sequence[str], folds: int, seed: int) -> NDArray[np.int64]:
    """The fold of each query, shape (n,), sizes differing by one at most. It depends on the text, not on its place.

    Raises:
        InputError: fewer than two folds, or fewer queries than folds.

    >>> sorted(np.bincount(assign("abcdef", 3, seed=0)).tolist())
    [2, 2, 2]
    """
    if folds < 2 or len(queries) < folds:
        raise InputError(f"{len(queries)} queries cannot be dealt to {folds} folds; at least two folds are needed")
    place = np.empty(len(queries), dtype=np.int64)
    by_key = sorted(range(len(queries)), key=lambda i: query_key(queries[i]))
    order = np.random.default_rng(seed).permutation(len(queries))
    place[np.array(by_key)[order]] = np.arange(len(queries)) % folds
    return place
