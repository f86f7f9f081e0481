"""Windows cover the text, share what they promise, and fold back to one score a passage."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossrank.errors import InputError
from crossrank.windows import fold, spans


@given(st.integers(0, 5000), st.integers(1, 600), st.data())
def test_windows_cover_everything_in_order(length, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    found = spans(length, size, overlap)
    assert found[0][0] == 0
    assert found[-1][1] == length
    for (start, stop), (next_start, next_stop) in pairwise(found):
        assert start < next_start, "starts rise"
        assert stop - next_start >= overlap, "neighbours share at least the overlap"
        assert next_stop - next_start == stop - start == size, "no window is a stump"


@given(st.integers(0, 5000), st.integers(2, 600))
def test_no_more_windows_than_needed(length, size):
    overlap = size // 4
    count = len(spans(length, size, overlap))
    assert count <= 1 + -(-max(0, length - size) // (size - overlap))


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (10, 10), (10, 11), (10, -1)])
def test_impossible_windows_are_refused(size, overlap):
    with pytest.raises(InputError, match="overlap"):
        spans(100, size, overlap)


@given(st.lists(st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=5), max_size=8))
def test_fold_agrees_with_the_obvious(windows):
    values = np.array([v for row in windows for v in row], dtype=np.float32)
    owner = np.array([i for i, row in enumerate(windows) for _ in row], dtype=np.int64)
    assert fold(values, owner, len(windows), "max").tolist() == [max(row) for row in windows]
    assert fold(values, owner, len(windows), "first").tolist() == [row[0] for row in windows]
    np.testing.assert_allclose(
        fold(values, owner, len(windows), "mean"), [np.mean(row) for row in windows], rtol=1e-5, atol=1e-5
    )


def test_a_passage_without_windows_is_last():
    for how in ("max", "mean", "first"):
        assert fold(np.float32([1.0]), np.int64([1]), 2, how).tolist() == [-np.inf, 1.0]


def test_unknown_fold():
    with pytest.raises(InputError, match="'max', 'mean' or 'first'"):
        fold(np.float32([1.0]), np.int64([0]), 1, "median")
