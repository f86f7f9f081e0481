"""Tuning with a search: judged documents as its passages, its candidates as a model will order them, and the share."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from crossrank import extras
from crossrank.cascade import mixed
from crossrank.training import gate, measuring, negatives
from crossrank.training.judgments import Group
from crossrank.training.material import Material, gathered
from crossrank.training.outcome import InSearch, Outcome
from crossrank.training.searched import MOST_PASSAGES, Answered, Searched, answered, as_found, searched_by
from crossrank.training.settings import Settings
from crossrank.types import Passage, Ranking

needs_eval = pytest.mark.skipif(not extras.available("ir_measures"), reason="needs the extra eval")

FIRST = "Assam is a state of India where much of the world's black tea is grown."
SECOND = "Darjeeling tea is light, and its leaves are picked four times a year."


def found(*passages: Passage, scores: Sequence[float] | None = None) -> Searched:
    ids = [one.id for one in passages]
    ranking = Ranking.sorted(ids, scores if scores is not None else list(range(len(ids), 0, -1)))
    return Searched.of(SimpleNamespace(passages=passages, ranking=ranking))


def nearest(**seen: Searched) -> negatives.Nearest:
    return lambda queries, depth: [seen[query] for query in queries]


# Judged documents as passages


def test_a_judged_document_is_shown_as_the_passages_that_were_found_of_it() -> None:
    group = Group("q", (f"{FIRST} {SECOND}", "Rye needs no sun at all."), (1.0, 0.0))
    seen = found(Passage("1", SECOND, title="Tea"), Passage("2", "Coffee."), Passage("3", FIRST, title="Tea"))
    listed = as_found(group, seen)
    assert listed.texts == (f"Tea. {SECOND}", f"Tea. {FIRST}", "Rye needs no sun at all.")
    assert listed.labels == (1.0, 1.0, 0.0)
    assert listed.owners == (0, 0, 1)


def test_a_passage_that_holds_a_judged_sentence_is_judged_as_it_is() -> None:
    group = Group("q", (FIRST, SECOND), (0.0, 2.0))
    both = Passage("1", f"{FIRST} {SECOND}")
    assert as_found(group, found(both)).labels == (0.0, 2.0)  # the better one's passage; the other stays as it is
    assert as_found(group, found(both)).texts == (FIRST, both.text)
    assert answered(group, found(both), 0.0).labels.tolist() == [2.0]
    assert answered(group, found(both), 0.0).unfound == (0.0,)


def test_an_equal_document_comes_before_one_that_holds_the_passage() -> None:
    group = Group("q", (f"{FIRST} {SECOND}", FIRST), (1.0, 0.0))
    assert as_found(group, found(Passage("1", FIRST))).owners == (0, 1)
    assert answered(group, found(Passage("1", FIRST)), 0.0).owner.tolist() == [1]


def test_few_passages_of_a_long_document_are_shown_and_the_others_are_not_mined_as_negatives() -> None:
    parts = [f"Part {n} of a long report about the growing of tea, in so many words." for n in range(9)]
    group = Group("q", (" ".join(parts),), (1.0,))
    seen = found(*(Passage(str(n), part) for n, part in enumerate(parts)), Passage("x", "Rye."))
    one = negatives.mine([group], nearest(q=seen), ["far"], 0.0, seed=0, measured=30)[0]
    assert sorted(one.documents) == sorted([*parts[:MOST_PASSAGES], "Rye.", "far"])
    assert sorted(one.labels.tolist()) == [0.0, 0.0, *[1.0] * MOST_PASSAGES]
    assert one.judged.sum() == MOST_PASSAGES
    assert len(set(one.owner[one.judged].tolist())) == 1


def test_of_a_relevant_document_the_passage_is_trained_on_that_the_base_model_finds_best() -> None:
    group = Group("q", (f"{FIRST} {SECOND}",), (1.0,))
    seen = found(Passage("1", FIRST), Passage("2", SECOND), Passage("3", "Rye."), Passage("4", "Oats."))
    shown = negatives.mine([group], nearest(q=seen), (), 0.0, seed=0)
    scores = {FIRST: 1.0, SECOND: 2.0, "Rye.": -1.0, "Oats.": 3.0}
    made = negatives.scored(shown, [np.float32([scores[text] for text in shown[0].documents])], 0.0)[0]
    # "Oats." stands above the best relevant one: likely relevant, and not trained on either.
    assert {made.documents[i] for i in made.trained.tolist()} == {SECOND, "Rye."}


@needs_eval
def test_a_document_of_several_passages_counts_once() -> None:
    group = Group("q", (f"{FIRST} {SECOND}", "Rye needs no sun at all."), (1.0, 0.0))
    shown = negatives.mine([group], nearest(q=found(Passage("1", FIRST), Passage("2", SECOND))), (), 0.0, seed=0)
    scores = {FIRST: 3.0, SECOND: 1.0, "Rye needs no sun at all.": 2.0}
    given_ = [np.float32([scores[text] for text in shown[0].documents])]
    assert measuring.values(shown, given_, "labels", 0.0, 1.0).tolist() == [1.0]
    assert measuring.expected(shown, given_, "labels", 0.0, 1.0)[0] < 1.0


# What a search answers


@given(st.integers(2, 30), st.integers(0, 10_000), st.sampled_from([0.2, 0.4, 0.8, 1.0]))
@settings(max_examples=60)
def test_candidates_are_ordered_as_a_search_orders_them(count: int, seed: int, mix: float) -> None:
    dice = np.random.default_rng(seed)
    passages = [Passage(str(n), f"text {n}") for n in range(count)]
    ranking = Ranking.sorted([one.id for one in passages], np.sort(dice.normal(size=count))[::-1])
    logits = dice.normal(size=count).astype(np.float32)
    made = answered(Group("q", ("other",), (1.0,)), found(*passages, scores=ranking.scores.tolist()), 0.0)
    ours = Ranking.sorted([one.id for one in passages], made.mixed(logits, mix))
    theirs = mixed(ranking, logits, mix)
    assert ours.ids == theirs.ids
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-5)


@needs_eval
def test_what_was_not_found_is_missed_and_a_document_counts_by_its_best_passage() -> None:
    first = np.zeros(3, np.float32)
    one = Answered("q", ("a", "b", "c"), first, np.array([0, 0, 5]), np.array([1.0, 1.0, 0.0]), (1.0,))
    ideal = 1 + 1 / np.log2(3)
    for scores, rank in (([1, 3, 2], 1), ([0, 1, 2], 2)):
        value = measuring.values([one], [np.float32(scores)], "labels", 0.0, 1.0)
        assert value.tolist() == pytest.approx([1 / np.log2(rank + 1) / ideal])


@needs_eval
def test_blank_passages_stand_last_and_no_answer_is_worth_nothing() -> None:
    one = Answered("q", ("a", " "), np.float32([-1, 1]), np.arange(2), np.array([1.0, 0.0]), ())
    assert measuring.values([one], [np.float32([0, -np.inf])], "labels", 0.0, 1.0, 0.2).tolist() == [1.0]
    none = Answered("q", (), np.zeros(0, np.float32), np.zeros(0, np.int64), np.zeros(0), (1.0,))
    assert measuring.values([none], [np.zeros(0, np.float32)], "labels", 0.0, 1.0, 0.4).tolist() == [0.0]


def test_passages_of_one_document_that_nobody_judged_are_one_document() -> None:
    passages = [Passage("1", "a", document="d"), Passage("2", "b", document="e"), Passage("3", "c", document="d")]
    owner = answered(Group("q", ("other",), (1.0,)), found(*passages), 0.0).owner.tolist()
    assert owner[0] == owner[2] != owner[1]


def material(queries: int, lost: int = 0) -> Material:
    """Of `queries` the first `lost` have no relevant document among what is found."""
    groups = [Group(f"q{n}", (f"right {n}", f"wrong {n}"), (1.0, 0.0)) for n in range(queries)]
    seen = {
        f"q{n}": found(Passage("w", f"wrong {n}"), *([Passage("r", f"right {n}")] if n >= lost else []))
        for n in range(queries)
    }
    return gathered(groups, [], "labels", nearest(**seen), ["far", "off"], Settings())


def test_queries_of_which_nothing_is_found_are_not_held_out() -> None:
    whole = material(40, lost=5)
    assert whole.searched
    assert whole.unfound == tuple(f"q{n}" for n in range(5))
    assert whole.telling.tolist() == [False] * 5 + [True] * 35
    assert whole.lists([7]) == [whole.answers[7]]
    assert whole.mixes == Settings().mixes


def test_where_a_search_finds_too_little_lists_are_ranked() -> None:
    few = material(40, lost=21)
    assert not few.searched
    assert few.telling.all()
    assert few.lists([7]) == [few.shown[7]]
    assert few.mixes == (1.0,)


def test_without_a_search_lists_are_ranked() -> None:
    groups = [Group(f"q{n}", ("right", "wrong"), (1.0, 0.0)) for n in range(30)]
    plain = gathered(groups, [], "labels", lambda queries, depth: [["near"]] * len(queries), ["far"], Settings())
    assert plain.answers == plain.unfound == ()
    assert not plain.searched


@needs_eval
def test_values_in_a_search_are_means_over_the_shares() -> None:
    whole = material(40)
    scores = [np.float32([-1, 3])]  # the first stage has the wrong one before
    each = [whole.values([7], scores, mix)[0] for mix in whole.mixes]
    assert len(set(each)) > 1
    assert whole.values([7], scores).tolist() == pytest.approx([np.mean(each)])
    one = whole.answers[7]
    noisy = [measuring.expected([one], scores, "labels", 0.0, 1.0, mix)[0] for mix in whole.mixes]
    assert whole.expected([7], scores).tolist() == pytest.approx([np.mean(noisy)])


def test_what_stands_too_low_counts_as_not_found() -> None:
    labels, owner = np.array([0.0, 1.0, 0.0, 2.0]), np.array([7, 0, 8, 1])
    one = Answered("q", ("a", "b", "c", "d"), np.float32([2, 1, 0, -3]), owner, labels, (3.0,))
    cut = one.cut(2)
    assert (cut.documents, cut.first.tolist(), cut.owner.tolist()) == (("a", "b"), [2, 1], [7, 0])
    assert sorted(cut.unfound) == [0.0, 2.0, 3.0]
    assert one.cut(4) is one
    # A document of which a better passage is kept is not lost.
    twice = Answered("q", ("a", "b"), np.float32([1, -1]), np.array([0, 0]), np.array([1.0, 1.0]), ())
    assert twice.cut(1).unfound == ()
    deep = material(40).as_deep(1)
    assert not deep.telling.any()


def test_a_search_is_asked_once_a_query() -> None:
    asked: list[str] = []

    class Own:
        def search(self, query: str, k: int = 10) -> SimpleNamespace:
            asked.append(query)
            return SimpleNamespace(passages=[Passage("1", "near")], ranking=Ranking.sorted(["1"], [0.5]))

    groups = [Group(f"q{n}", ("right", "wrong"), (1.0, 0.0)) for n in range(9)]
    made = gathered(groups, [], "labels", searched_by(Own()), ["far"], Settings())
    assert asked == [group.query for group in groups]
    assert [one.query for one in made.answers] == asked


# Shares and the verdict


def by_mix(*values: float, noise: float = 0.0) -> dict[float, NDArray[np.float64]]:
    dice = np.random.default_rng(0)
    mixes = Settings().mixes
    return {mix: value + noise * dice.normal(size=50) for mix, value in zip(mixes, values, strict=True)}


@pytest.mark.parametrize(
    ("values", "noise", "share"),
    [
        ((0.70, 0.70, 0.70, 0.70), 0.0, 0.6),
        ((0.60, 0.65, 0.75, 0.80), 0.1, 0.8),
        ((0.60, 0.65, 0.75, 0.76), 0.1, 0.6),  # not surely
        ((0.80, 0.79, 0.70, 0.60), 0.1, 0.2),
    ],
)
def test_the_share_is_the_usual_one_of_tuned_models_unless_another_is_surely_better(
    values: tuple[float, ...], noise: float, share: float
) -> None:
    tuned = by_mix(*values, noise=noise)
    made = InSearch.of(by_mix(0.6, 0.6, 0.6, 0.6), tuned, 0.95)
    assert made.mix == share
    assert made.tuned == pytest.approx([each.mean() for each in tuned.values()])
    outcome = Outcome(gate.Verdict("tuned", ()), (), in_search=made)
    assert Outcome.of(outcome.record()).in_search == made


def test_where_the_usual_share_was_not_measured_the_nearest_stands_for_it() -> None:
    flat = {mix: np.full(30, 0.5) for mix in (0.1, 0.5, 1.0)}
    assert InSearch.of(flat, flat, 0.95).mix == 0.5
