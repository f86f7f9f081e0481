"""Random requests to the native engine: no crash, no number that is not finite, the same answer alone.

A few hundred here; CROSSRANK_REQUESTS=1000000 runs as many (hours). A request is decided by its number alone, so a
failure can be run again: the message names it, and CROSSRANK_FIRST=NUMBER CROSSRANK_REQUESTS=1 is that one.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import tiny
from crossrank.backends.cpu import Native, library
from crossrank.checkpoint import read
from crossrank.types import Tokens

pytestmark = pytest.mark.skipif(library.obstacle() is not None, reason=f"no native library: {library.obstacle()}")

FIRST = int(os.environ.get("CROSSRANK_FIRST", "0"))
REQUESTS = int(os.environ.get("CROSSRANK_REQUESTS", "300"))
LONGEST, MOST = 512, 500
# (heads, head size, inner size): whole and broken panels, one head and many.
SHAPES = [(2, 8, 32), (4, 16, 100), (1, 34, 7), (3, 10, 65)]


def request(rng: np.random.Generator, vocabulary: int) -> Tokens:
    """1 to 500 sequences of 1 to 512 tokens; small ones are as likely as large ones, by their logarithm."""
    if rng.random() < 0.0005:
        lengths = np.full(MOST, LONGEST)
    else:
        longest = np.exp(rng.uniform(0, np.log(LONGEST + 0.99)))
        count = int(np.exp(rng.uniform(0, np.log(MOST + 0.99))))
        lengths = np.exp(rng.uniform(0, np.log(longest + 0.99), count)).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = rng.integers(0, vocabulary, offsets[-1], dtype=np.int32)
    return Tokens(ids, rng.integers(0, 2, offsets[-1], dtype=np.int32), offsets)


@pytest.mark.timeout(0 if REQUESTS > 1000 else 300)
def test_random_requests(tmp_path: Path) -> None:
    kinds = [
        (tier, dtype)
        for tier in library.tiers()
        for dtype in ("float32", "bfloat16")
        if dtype == "float32" or library.has_bfloat16(tier)
    ]
    engines = []
    for heads, size, inner in SHAPES:
        shape = {"hidden_size": heads * size, "num_attention_heads": heads, "intermediate_size": inner}
        folder = tiny.cross_encoder(tmp_path / f"{heads}-{size}", **shape, max_position_embeddings=LONGEST)
        checkpoint = read(folder)
        engines += [Native(checkpoint, dtype, tier, threads) for tier, dtype in kinds for threads in (1, 2, 3)]
    for number in range(FIRST, FIRST + REQUESTS):
        rng = np.random.default_rng(number)
        engine = engines[rng.integers(len(engines))]
        tokens = request(rng, len(tiny.VOCABULARY))
        logits = engine.forward(tokens)
        assert np.isfinite(logits).all(), f"request {number}: {engine.name}"
        if number % 10 == 0:
            one = int(rng.integers(len(tokens)))
            assert engine.forward(tokens.take([one]))[0] == logits[one], f"request {number}: {engine.name}"
