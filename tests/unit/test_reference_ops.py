"""The arithmetic of the reference backend against plain formulas in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossrank.backends.reference import ops
from crossrank.backends.reference.attention import attend, attend_first, band_of, groups, softmax_times, tiles
from crossrank.backends.reference.ops import Scratch
from crossrank.types import Tokens

EXACT: dict[str, Callable[[float], float]] = {
    "gelu": lambda x: x * 0.5 * math.erfc(-x / math.sqrt(2)),
    "gelu_new": lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "quick_gelu": lambda x: x / (1 + math.exp(min(-1.702 * x, 700))),
    "silu": lambda x: x / (1 + math.exp(min(-x, 700))),
    "relu": lambda x: max(x, 0.0),
    "tanh": math.tanh,
}


@pytest.mark.parametrize("name", EXACT)
def test_activations(name: str) -> None:
    x = np.concatenate([np.linspace(-8, 8, 4001), [-1e4, -100, -20, 0, 20, 100, 1e4]]).astype(np.float32)
    want = np.array([EXACT[name](float(value)) for value in x])
    got = x.copy()
    with np.errstate(over="ignore"):
        ops.ACTIVATIONS[name](got, np.empty_like(x), np.empty_like(x))
    assert np.abs(got - want)[np.abs(x) <= 8].max() < 1.5e-6
    np.testing.assert_allclose(got[np.abs(x) > 8], want[np.abs(x) > 8], rtol=1e-6, atol=1e-6)


@settings(max_examples=30)
@given(st.integers(1, 300), st.sampled_from([1, 3, 32, 500]), st.booleans(), st.integers(0, 100))
def test_layer_norm_in_blocks(rows: int, width: int, biased: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((rows, width)) * 3 + 1).astype(np.float32)
    weight, bias = rng.standard_normal((2, width)).astype(np.float32)
    wide = x.astype(np.float64)
    want = (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + 1e-5) * weight
    want = want + bias if biased else want
    out = np.empty_like(x)
    ops.layer_norm(x, weight, bias if biased else None, 1e-5, out=out)
    # Of numbers that are nearly equal the mean takes away most digits.
    lost = np.abs(wide).max(1, keepdims=True) / np.sqrt(wide.var(1, keepdims=True) + 1e-5)
    assert (np.abs(out - want) <= 5e-6 + 3e-7 * lost).all()
    ops.layer_norm(x, weight, bias if biased else None, 1e-5)
    np.testing.assert_array_equal(x, out)


@pytest.mark.parametrize("size", [1.0, 50.0, 1000.0])
def test_softmax_of_small_and_huge_scores(size: float) -> None:
    rng = np.random.default_rng(0)
    scores = (rng.standard_normal((2, 3, 5, 7)) * size).astype(np.float32)
    values = rng.standard_normal((2, 3, 7, 4)).astype(np.float32)
    wide = scores.astype(np.float64)
    weights = np.exp(wide - wide.max(-1, keepdims=True))
    want = weights / weights.sum(-1, keepdims=True) @ values
    out = np.empty((2, 3, 5, 4), dtype=np.float32)
    softmax_times(scores, values, out, None)
    np.testing.assert_allclose(out, want, atol=2e-5)


@settings(max_examples=40)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.sampled_from([None, 3, 10]), st.integers(0, 9))
def test_attention_stays_within_its_sequence(lengths: list[int], window: int | None, seed: int) -> None:
    lengths = sorted(lengths)
    heads, size, total = 2, 4, sum(lengths)
    rng = np.random.default_rng(seed)
    q, k, v = rng.standard_normal((3, total, heads, size)).astype(np.float32)
    offsets = Tokens.of([[1] * length for length in lengths]).offsets
    parts = groups(np.array(lengths), heads)
    assert sum(part.count * part.length for part in parts) == total
    got = attend(q, k, v, parts, Scratch(), window).copy()
    first = attend_first(q[offsets[:-1]], k, v, parts, Scratch(), window)
    for i, length in enumerate(lengths):
        rows = slice(offsets[i], offsets[i + 1])
        band = band_of(slice(0, length), slice(0, length), window) if window is not None else None
        for head in range(heads):
            scores = q[rows, head].astype(np.float64) @ k[rows, head].T + (0 if band is None else band)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            want = weights / weights.sum(-1, keepdims=True) @ v[rows, head]
            columns = slice(head * size, (head + 1) * size)
            np.testing.assert_allclose(got[rows, columns], want, atol=1e-5)
            np.testing.assert_allclose(first[i, columns], want[0], atol=1e-5)


def test_a_group_is_cut_to_stay_in_cache() -> None:
    parts = groups(np.full(100, 128), heads=12)
    assert len(parts) > 1
    assert [part.first for part in parts] == np.cumsum([0, *(part.count for part in parts[:-1])]).tolist()
    assert groups(np.array([512, 512]), heads=16)[0].count == 1


@pytest.mark.parametrize("window", [None, 64, 1])
def test_a_long_sequence_is_cut_into_tiles(window: int | None) -> None:
    part = groups(np.array([8192]), heads=12)[0]
    seen = 0
    for queries, keys in tiles(part, 12, window):
        assert queries.start == seen
        assert 12 * (queries.stop - queries.start) * (keys.stop - keys.start) <= 1 << 19
        seen = queries.stop
    assert seen == 8192


def test_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = np.random.default_rng(0).standard_normal((3, 90, 2, 4)).astype(np.float32)
    parts = groups(np.array([30, 60]), heads=2)
    for window in (None, 2, 7):
        whole = attend(q, k, v, parts, Scratch(), window).copy()
        with monkeypatch.context() as patch:
            patch.setattr("crossrank.backends.reference.attention.SCORES", 300)
            np.testing.assert_allclose(attend(q, k, v, parts, Scratch(), window), whole, atol=1e-6)
