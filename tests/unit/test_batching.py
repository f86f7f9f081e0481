"""Plans are partitions within the budget."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossrank.batching import plan
from crossrank.errors import InputError


@given(st.lists(st.integers(1, 600), max_size=60), st.integers(1, 4000), st.booleans())
def test_plans_are_partitions_within_budget(lengths, budget, padded):
    lengths = np.array(lengths, dtype=np.int64)
    batches = plan(lengths, budget, padded)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        cost = lengths[batch].max() * len(batch) if padded else lengths[batch].sum()
        assert cost <= budget or len(batch) == 1


@given(st.lists(st.integers(1, 600), min_size=1, max_size=60), st.integers(1, 4000), st.booleans())
def test_longest_come_first(lengths, budget, padded):
    lengths = np.array(lengths, dtype=np.int64)
    order = np.concatenate(plan(lengths, budget, padded))
    assert (np.diff(lengths[order]) <= 0).all()


def test_no_sequences_no_batches():
    assert plan(np.zeros(0, dtype=np.int64), 100, padded=True) == []


def test_no_budget_is_refused():
    with pytest.raises(InputError, match="budget"):
        plan(np.array([3]), 0, padded=True)
