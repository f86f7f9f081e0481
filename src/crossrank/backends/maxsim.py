"""MaxSim, the score of late interaction: its formula in NumPy, and the native engine where it is there."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from crossrank.backends import cpu
from crossrank.tokenvectors import TokenVectors

Floats = NDArray[np.float32]


def formula(query: Floats, document: Floats) -> float:
    """The sum over query tokens i of the maximum over document tokens j of q_i . d_j.

    Khattab and Zaharia 2020, "ColBERT", section 3.3, word for word: the specification of `maxsim`.

    Args:
        query: vectors, shape (tokens, width).
        document: vectors, shape (tokens, width), at least one.

    >>> formula(np.float32([[1, 0], [0, 1]]), np.float32([[1, 0], [0.5, 0.5]]))
    1.5
    """
    return float(sum(max(float(q @ d) for d in document) for q in query))


def maxsim(query: Floats, documents: TokenVectors, threads: int | None = None) -> Floats:
    """The score of one query with each document, shape (n,), in their order; -inf for one without vectors.

    NaN for a document with a number that is not finite: a maximum would pass over it.

    Args:
        query: vectors, shape (tokens, width).
        documents: vectors of the same width. Float16 is compared as float32.
        threads: cores that the native engine may use; all when absent.

    >>> query = np.float32([[1, 0], [0, 1]])
    >>> maxsim(query, TokenVectors.of([np.float32([[1, 0], [0.5, 0.5]]), np.float32([[0, 1]])])).tolist()
    [1.5, 1.0]
    """
    if cpu.tiers():
        return cpu.maxsim(query, documents.vectors, documents.offsets, threads=threads)
    scores = np.full(len(documents), -np.inf, dtype=np.float32)
    filled = np.flatnonzero(np.diff(documents.offsets))
    if len(filled):
        # reduceat takes the first of an empty stretch's neighbours, so only filled ones are named.
        with np.errstate(invalid="ignore"):
            near = documents.vectors.astype(np.float32) @ query.T
            near += 0.0 * near  # NaN from infinity, which would outdo all others
            scores[filled] = np.maximum.reduceat(near, documents.offsets[filled], axis=0).sum(axis=1)
    return scores
