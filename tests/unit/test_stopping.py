"""The stopping rule errs as often as it says on data of its own kind, and waits where it knows too little."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from crossrank.errors import InputError
from crossrank.fusion import zscore
from crossrank.grouping import PerDocument
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


@pytest.mark.filterwarnings("error")
def test_documents_that_were_blank_before_are_not_among_the_best():
    """A stage that reads deeper than the one before it finds those that this left at -inf among its candidates."""
    dice, rule, told = np.random.default_rng(0), Stopping(k=8), set()
    for _ in range(100):
        before = np.float32(np.linspace(9, 1, 100))
        logits = np.float32(0.7 * np.linspace(1, -1, 60) + 0.7 * dice.standard_normal(60))
        blank = dice.choice(30, 6, replace=False)
        without = rule.settled(np.delete(logits, blank), np.delete(before, blank), 1.0)
        before[blank], logits[blank] = -np.inf, -np.inf
        assert rule.settled(logits, before, 1.0) == without
        told.add(without)
    assert told == {True, False}


@pytest.mark.parametrize("bad", [{"k": 0}, {"error": 0.0}, {"error": float("nan")}, {"least": 0}])
def test_impossible_rules(bad):
    with pytest.raises(InputError):
        Stopping(**bad)


def test_few_unread_documents_belong_among_the_best_of_each_document():
    """With one passage of each the k best lie deeper, and the plain rule leaves too many of them unread."""
    dice, wrong = np.random.default_rng(3), {True: [], False: []}
    before, limit = np.float32(np.linspace(3, -3, 100)), PerDocument(k=10, most=1)
    for _ in range(150):
        # One long document holds most of what the first stage likes.
        owners = [f"d{place}" if dice.random() < 0.15 + place / 150 else "guide" for place in range(100)]
        logits = np.float32(1.5 * zscore(before) + dice.standard_normal(100))
        whole = np.argsort(-(0.4 * zscore(logits) + 0.6 * zscore(before)), kind="stable")
        best = whole[limit.rows(owners[place] for place in whole)]
        for told in wrong:
            rule, read = Stopping(k=10, error=0.1, per_document=limit if told else None), 32
            while not rule.settled(logits[:read], before, 0.4, owners):
                read += 1
            wrong[told].append(sum(place >= read for place in best))
    assert np.mean(wrong[True]) <= 0.2, "twice what is promised, as without documents"
    assert np.mean(wrong[False]) > 1.0


def test_documents_of_one_passage_each_change_nothing_of_the_rule():
    dice, before = np.random.default_rng(1), np.float32(np.linspace(5, 1, 80))
    logits = np.float32(zscore(before) + dice.standard_normal(80))
    rules = [Stopping(k=5), Stopping(k=5, per_document=PerDocument(5, 1))]
    plain, grouped = (
        [rule.settled(logits[:read], before, 0.4, [str(place) for place in range(80)]) for read in range(81)]
        for rule in rules
    )
    assert plain == grouped
    assert any(plain[:80])


def test_nothing_is_settled_before_there_are_enough_documents():
    before, logits = np.float32(np.linspace(9, 1, 100)), np.float32(np.linspace(6, -6, 60))
    owners = ["guide"] * 58 + ["faq"] * 42
    assert Stopping(k=2).settled(logits, before, 0.1)
    assert not Stopping(k=3, per_document=PerDocument(3, 1)).settled(logits, before, 0.1, owners)
    assert Stopping(k=3, per_document=PerDocument(3, 2)).settled(logits[:40], before, 0.1, ["guide", "faq"] * 50)


def test_the_next_stage_reads_no_less_than_the_answer():
    assert (Stopping(k=80).leaving(50).k, Stopping(k=10).leaving(50).k) == (80, 50)


def test_what_the_next_stage_reads_is_settled_as_it_is():
    """Its passages may all be of one document: places of documents say nothing of who is among them."""
    dice, before = np.random.default_rng(0), np.float32(np.linspace(9, 1, 100))
    logits = np.float32(zscore(before) + dice.standard_normal(100))[:60]
    owners, limit = [str(place) for place in range(100)], PerDocument(1, 1)
    assert Stopping(k=1, per_document=limit).settled(logits, before, 0.4, owners)
    assert not Stopping(k=50).settled(logits, before, 0.4)
    assert not Stopping(k=50, per_document=limit).settled(logits, before, 0.4, owners)
