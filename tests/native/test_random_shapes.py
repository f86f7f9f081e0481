"""Random requests to the native engine: no crash, no number that is not finite, the same answer alone.

A few hundred here; CROSSRANK_REQUESTS=1000000 runs as many (hours). A request is decided by its number alone, so a
failure can be run again: the message names it, and CROSSRANK_FIRST=NUMBER CROSSRANK_REQUESTS=1 is that one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import tiny
from crossrank.backends.cpu import Native, library
from crossrank.checkpoint import read
from crossrank.types import Tokens

pytestmark = pytest.mark.skipif(library.obstacle() is not None, reason=f"no native library: {library.obstacle()}")

FIRST = int(os.environ.get("CROSSRANK_FIRST", "0"))
REQUESTS = int(os.environ.get("CROSSRANK_REQUESTS", "300"))
MOST = 500
# (heads, head size, inner size): whole and broken panels, one head and many, heads that fill tiles, several slices of
# the inner layer. Then the most tokens of a sequence and of a request.
BERT = [(2, 8, 32), (4, 16, 100), (1, 34, 7), (3, 10, 65), (2, 32, 64), (1, 64, 777)], 512, MOST * 512
MODERN = [(2, 8, 32), (3, 10, 33), (2, 32, 500)], 8192, 8192
# The others take several times as long: one request in eight is ModernBERT's, one in four is of the portable tier.
MODERN_SHARE, PORTABLE_SHARE = 1 / 8, 1 / 4


@dataclass(frozen=True)
class Asked:
    """An engine, how long its sequences may be, and how many tokens a request may have."""

    engine: Native
    longest: int
    most: int

    def answer(self, tokens: Tokens, output: str) -> NDArray[np.float32]:
        if output == "logits":
            return self.engine.forward(tokens)
        if output == "states":
            return self.engine.states(tokens, (tokens.lengths + 1) // 2)
        return self.engine.pool(tokens, "mean" if output == "mean" else "cls")


def request(rng: np.random.Generator, longest: int, most: int) -> Tokens:
    """1 to 500 sequences of 1 to `longest` tokens; small ones are as likely as large ones, by their logarithm."""
    if rng.random() < 0.0005:
        lengths = np.full(most // longest, longest)
    else:
        upper = np.exp(rng.uniform(0, np.log(longest + 0.99)))
        count = int(np.exp(rng.uniform(0, np.log(MOST + 0.99))))
        lengths = np.exp(rng.uniform(0, np.log(upper + 0.99), count)).astype(np.int64).clip(max=longest)
        lengths = lengths[: max(1, int(np.searchsorted(np.cumsum(lengths), most)))]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = rng.integers(0, len(tiny.VOCABULARY), offsets[-1], dtype=np.int32)
    return Tokens(ids, rng.integers(0, 2, offsets[-1], dtype=np.int32), offsets)


def engines(folder: Path) -> list[Asked]:
    """Every shape in every tier and dtype of this machine, on one, two and three threads."""
    kinds = [(tier, dtype) for tier in library.tiers() for dtype in library.dtypes(tier)]
    made = []
    for (shapes, longest, most), make in ((BERT, tiny.cross_encoder), (MODERN, tiny.modern)):
        for heads, size, inner in shapes:
            shape = {"hidden_size": heads * size, "num_attention_heads": heads, "intermediate_size": inner}
            at = make(folder / f"{longest}-{heads}-{size}", **shape, max_position_embeddings=longest)
            checkpoint = read(at)
            made += [
                Asked(Native(checkpoint, dtype, tier, n), longest, most) for tier, dtype in kinds for n in (1, 2, 3)
            ]
    return made


def shares(asked: list[Asked]) -> NDArray[np.float64]:
    """How often each engine is asked."""
    modern = np.array([one.longest == MODERN[1] for one in asked])
    portable = np.array([one.engine.tier == "portable" for one in asked])
    found = np.where(modern, MODERN_SHARE / modern.sum(), (1 - MODERN_SHARE) / (~modern).sum())
    if not portable.all():
        found *= np.where(portable, PORTABLE_SHARE / portable.mean(), (1 - PORTABLE_SHARE) / (~portable).mean())
    return found / found.sum()


@pytest.mark.timeout(0 if REQUESTS > 1000 else 300)
def test_random_requests(tmp_path: Path) -> None:
    asked = engines(tmp_path)
    often = shares(asked)
    for number in range(FIRST, FIRST + REQUESTS):
        rng = np.random.default_rng(number)
        one = asked[rng.choice(len(asked), p=often)]
        output = rng.choice(["logits", "logits", "mean", "cls", "states"])
        tokens = request(rng, one.longest, one.most)
        got = one.answer(tokens, output)
        assert np.isfinite(got).all(), f"request {number}: {one.engine.name}, {output}"
        if number % 10 == 0:
            alone = int(rng.integers(len(tokens)))
            rows = slice(alone, alone + 1)
            if output == "states":
                rows = slice(*tokens.offsets[alone : alone + 2])
            same = one.answer(tokens.take([alone]), output)
            assert np.array_equal(same, got[rows]), f"request {number}: {one.engine.name}, {output}"
