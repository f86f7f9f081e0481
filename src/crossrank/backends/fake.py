"""A backend without a model: a deterministic function of the token ids, for tests of code that uses crossrank."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from crossrank.checkpoint import Checkpoint
from crossrank.errors import InputError
from crossrank.types import Pooling, Tokens

PRIME = np.uint64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio: Fibonacci hashing (Knuth, TAOCP 6.4)
WIDTH = 16


class Fake:
    """Scores that depend on nothing but a sequence's own ids, types and their order.

    >>> from crossrank.types import Tokens
    >>> scores = Fake().forward(Tokens.of([[101, 7, 102], [101, 8, 102], [101, 7, 102]]))
    >>> bool(scores[0] == scores[2]), bool(scores[0] == scores[1])
    (True, False)
    """

    name = "fake (hash of the ids)"
    padded = False

    def __init__(self, checkpoint: Checkpoint | None = None) -> None:
        """The checkpoint gives only the width of vectors; none is needed."""
        stated = None if checkpoint is None else checkpoint.config.get("hidden_size")
        self._width = stated if isinstance(stated, int) and stated > 0 else WIDTH

    def forward(self, tokens: Tokens) -> NDArray[np.float32]:
        """One number in [-8, 8) a sequence, shape (n,).

        Raises:
            InputError: a sequence is empty.
        """
        if len(tokens) and tokens.lengths.min() < 1:
            raise InputError("a sequence has no tokens; give at least its special tokens")
        seeds = [self._seed(tokens, i) for i in range(len(tokens))]
        return np.array([(seed >> 40) / 2.0**20 - 8.0 for seed in seeds], dtype=np.float32)

    def pool(self, tokens: Tokens, pooling: Pooling) -> NDArray[np.float32]:
        """One vector a sequence, shape (n, hidden), of normally distributed numbers drawn from a seed of its ids.

        Raises:
            InputError: a sequence is empty, or another pooling.
        """
        if pooling not in ("mean", "cls"):
            raise InputError(f"pooling must be 'mean' or 'cls', not {pooling!r}")
        if len(tokens) and tokens.lengths.min() < 1:
            raise InputError("a sequence has no tokens; give at least its special tokens")
        out = np.empty((len(tokens), self._width), dtype=np.float32)
        for i in range(len(tokens)):
            out[i] = np.random.default_rng(self._seed(tokens, i)).standard_normal(self._width)
        return out

    def states(self, tokens: Tokens, seen: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """One vector a token, shape (total, hidden), drawn from its id alone: equal tokens are equal everywhere."""
        made = {id_: np.random.default_rng(id_).standard_normal(self._width) for id_ in set(tokens.ids.tolist())}
        rows = [made[id_] for id_ in tokens.ids.tolist()]
        return np.array(rows, dtype=np.float32).reshape(-1, self._width)

    @staticmethod
    def _seed(tokens: Tokens, i: int) -> int:
        part = slice(int(tokens.offsets[i]), int(tokens.offsets[i + 1]))
        values = tokens.ids[part].astype(np.uint64) * np.uint64(2) + tokens.types[part].astype(np.uint64)
        place = np.arange(1, len(values) + 1, dtype=np.uint64)
        with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is what a hash wants
            mixed = (values + place * PRIME) * PRIME
            mixed ^= mixed >> np.uint64(29)
            mixed *= PRIME
            return int(np.bitwise_xor.reduce(mixed ^ (mixed >> np.uint64(32))) * PRIME)
