"""The stopping rule errs as often as it says on data of its own kind, and waits where it knows too little."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from crossrank.errors import InputError
from crossrank.fusion import zscore
from crossrank.stopping import Stopping


def until_settled(rule, logits, before, weight):
    read = 0
    while read < len(before) and not rule.settled(logits[:read], before, weight):
        read += 1
    return read


@pytest.mark.parametrize("weight", [0.1, 0.3, 0.6])
def test_few_unread_documents_belong_among_the_best(weight):
    """Logits that follow the scores before, with normal noise: what the rule takes them to be."""
    dice, rule, wrong, read = np.random.default_rng(0), Stopping(k=10, error=0.1), [], []
    before = np.float32(1 / (60 + np.arange(1, 101)))
    for _ in range(150):
        logits = np.float32(1.5 * zscore(before) + dice.standard_normal(100))
        count = until_settled(rule, logits, before, weight)
        whole = np.argsort(-(weight * zscore(logits) + (1 - weight) * zscore(before)), kind="stable")
        wrong.append(sum(place >= count for place in whole[:10]))
        read.append(count)
    # Twice what is promised is allowed: the spread is estimated from few.
    assert np.mean(wrong) <= 0.2
    assert np.mean(read) < 90
    assert min(read) >= rule.least


def expected(logits, before, weight, k):
    """Unread documents among the `k` best, as the rule's description says, with a line that NumPy fits."""
    own, fused, read = zscore(logits).astype(float), zscore(before).astype(float), len(logits)
    slope, level = np.polyfit(fused[:read], own, 1)
    if slope < 0:
        slope, level = 0.0, own.mean()
    spread = np.sqrt(((own - slope * fused[:read] - level) ** 2).sum() / (read - 2))
    bar = sorted(weight * own + (1 - weight) * fused[:read])[-k]
    return sum(
        1 - NormalDist(level + slope * one, spread).cdf((bar - (1 - weight) * one) / weight) for one in fused[read:]
    )


@pytest.mark.parametrize("weight", [0.6, 1.0])
@pytest.mark.parametrize("follows", [1.0, -1.0])
def test_it_stops_when_fewer_are_expected_than_may_be(weight, follows):
    dice, before = np.random.default_rng(1), np.float32(np.linspace(5, 1, 80))
    logits = np.float32(follows * zscore(before) + dice.standard_normal(80))[:40]
    want = expected(logits, before, weight, 5)
    assert want > 1e-6
    for error, settled in ((0.99 * want, False), (1.01 * want, True)):
        assert Stopping(k=5, error=error).settled(logits, before, weight) == settled


def test_how_many_are_read_before_it_is_asked():
    assert (Stopping().k, Stopping().error, Stopping().first) == (10, 0.05, 32)
    assert Stopping(k=50).first == 52, "a spread about a line needs more than the places that matter"


def test_it_reads_on_while_it_knows_too_little():
    before = np.float32(np.linspace(5, 1, 60))
    rule = Stopping(k=3, least=8)
    assert not rule.settled(np.float32([9, 8, 7]), before, 0.1)
    assert not rule.settled(np.full(20, -np.inf, dtype=np.float32), before, 0.1)  # blank texts say nothing
    assert not rule.settled(np.full(20, 2.0, dtype=np.float32), before, 0.1)  # nor do equal scores
    few = np.float32([9, 8.9, 8.8, 8.7, *[-np.inf] * 16])
    assert not rule.settled(few, before, 0.1)  # nor do few between blank ones
    assert rule.settled(np.float32(np.linspace(9, 1, 60)), before, 1.0)  # all are read
    assert Stopping().settled(np.float32(np.linspace(6, -6, 20)), before[:20], 0.5)  # so are all of few


def test_a_logit_that_is_the_mean_of_all_keeps_nothing_from_being_settled():
    logits = np.float32(np.linspace(6, -6, 51))
    assert not logits[25]
    assert Stopping().settled(logits, np.float32(np.linspace(9, 1, 100)), 0.5)


def test_blank_documents_do_not_disturb_it():
    before = np.float32(1 / (60 + np.arange(1, 101)))
    logits = np.float32(np.linspace(6, -6, 50))
    logits[[3, 17]] = -np.inf
    assert Stopping().settled(logits, before, 0.1)


@pytest.mark.parametrize("weight", [0.1, 1.0])
def test_unread_documents_that_are_blank_do_not_disturb_it(weight):
    before = np.float32([*np.linspace(9, 1, 99), -np.inf])
    assert Stopping(k=5).settled(np.float32(np.linspace(6, -6, 60)), before, weight)


@pytest.mark.parametrize("bad", [{"k": 0}, {"error": 0.0}, {"error": float("nan")}, {"least": 0}])
def test_impossible_rules(bad):
    with pytest.raises(InputError):
        Stopping(**bad)
