"""Rows packed end to end: where each begins, and where its entries lie."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from crossrank.packed import offsets_of, places

LENGTHS = st.lists(st.integers(0, 5), max_size=8)


@given(LENGTHS, st.data())
def test_entries_are_those_of_the_rows_in_the_order_asked_for(lengths: list[int], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=12)) if lengths else []
    offsets = offsets_of(lengths)
    want = [place for row in rows for place in range(sum(lengths[:row]), sum(lengths[: row + 1]))]
    assert places(offsets, rows).tolist() == want
    assert places(offsets, np.array(rows, dtype=np.int64)).tolist() == want


def test_more_entries_than_32_bits_count() -> None:
    """As many tokens as an index of some ten million passages holds."""
    offsets = offsets_of([2**31, 2**31, 2])
    assert offsets.tolist() == [0, 2**31, 2**32, 2**32 + 2]
    assert places(offsets, [2]).tolist() == [2**32, 2**32 + 1]


def test_what_is_kept_is_counted_as_lengths() -> None:
    assert offsets_of(np.array([True, False, True])).tolist() == [0, 1, 1, 2]
