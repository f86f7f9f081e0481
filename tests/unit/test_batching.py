"""Plans are partitions within the budget, and so are slices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossrank.batching import BUDGET, budget_of, plan, slices
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


@given(st.lists(st.integers(0, 300), max_size=60), st.integers(1, 200), st.integers(0, 400))
def test_slices_are_consecutive_and_bounded(costs, first, more):
    costs, most = np.array(costs, dtype=np.int64), first + more
    parts = slices(costs, first, most)
    assert [i for part in parts for i in range(len(costs))[part]] == list(range(len(costs)))
    assert all(part.stop > part.start for part in parts)
    for number, part in enumerate(parts):
        limit = min(first * 2**number, most)
        assert costs[part].sum() <= limit + limit // 2 or part.stop == part.start + 1


def test_a_list_that_costs_little_more_than_one_slice_stays_whole():
    assert slices(np.full(15, 10), 100, 1000) == [slice(0, 15)]
    assert slices(np.full(16, 10), 100, 1000) == [slice(0, 10), slice(10, 16)]


@pytest.mark.parametrize(("first", "most"), [(0, 5), (5, 4)])
def test_slices_that_cannot_be(first, most):
    with pytest.raises(InputError, match="slices"):
        slices(np.array([3]), first, most)


def test_a_backend_that_cuts_batches_itself_is_given_more() -> None:
    class Large:
        budget = 100_000

    assert budget_of(Large()) == 100_000  # type: ignore[arg-type]
    assert budget_of(object()) == BUDGET  # type: ignore[arg-type]
