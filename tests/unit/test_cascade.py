"""Stages cut, score and place; the mix is the formula; failures are clear."""

from __future__ import annotations

import numpy as np
import pytest

import crossrank
from clocks import Clock, Slow
from crossrank.cascade import Stage, mixed, rerank
from crossrank.cost import CostModel
from crossrank.errors import InputError, ScoreError
from crossrank.fusion import zscore
from crossrank.types import Passage, Ranking


class Table:
    """Scores by passage text; counts its calls."""

    def __init__(self, scores):
        self.scores, self.pairs = scores, []

    def score(self, pairs):
        self.pairs += pairs
        return np.array([self.scores[text] for _, text in pairs], dtype=np.float32)


def texts(ids):
    return [Passage(i, f"text of {i}") for i in ids]


START = Ranking.sorted(list("abcdef"), [6, 5, 4, 3, 2, 1])


def test_each_stage_reads_the_top_of_the_one_before():
    coarse = Table({f"text of {i}": s for i, s in zip("abcd", [0, 3, 2, 1], strict=True)})
    fine = Table({"text of b": 0.0, "text of c": 1.0})
    final, traces = rerank("q", START, [Stage(coarse, 4, name="coarse"), Stage(fine, 2, name="fine")], texts)
    assert final.ids == ("c", "b", "d", "a", "e", "f")
    assert final.head == 2
    assert [trace.name for trace in traces] == ["coarse", "fine"]
    assert traces[0].ranking.ids == ("b", "c", "d", "a", "e", "f")
    assert traces[1].scores == {"b": 0.0, "c": 1.0}
    assert len(coarse.pairs) == 4
    assert len(fine.pairs) == 2


def test_tail_keeps_its_order_and_scores():
    table = Table({"text of a": 0.0, "text of b": 1.0})
    final, _ = rerank("q", START, [Stage(table, 2)], texts)
    assert final.ids == ("b", "a", "c", "d", "e", "f")
    assert final.scores[2:].tolist() == [4, 3, 2, 1]


def test_no_stage_and_no_candidate():
    assert rerank("q", START, [], texts) == (START, ())
    empty = Ranking((), np.zeros(0, dtype=np.float32), 0)
    assert len(rerank("q", empty, [Stage(Table({}))], texts)[0]) == 0


def test_mix_is_the_formula():
    logits = np.float32([0.5, -1.0, 2.0])
    head = START.cut(3)
    got = mixed(head, logits, 0.3)
    expected = dict(zip(head.ids, 0.3 * zscore(logits) + 0.7 * zscore(head.scores), strict=True))
    assert got.ids == tuple(sorted(expected, key=lambda i: -expected[i]))
    np.testing.assert_allclose(got.scores, sorted(expected.values(), reverse=True), rtol=1e-6)


def test_blank_documents_end_the_head_in_their_old_order():
    for weight in (1.0, 0.4):
        got = mixed(START.cut(4), np.float32([-np.inf, 1.0, -np.inf, 2.0]), weight)
        assert got.ids[2:] == ("a", "c")


def test_nan_is_an_error():
    with pytest.raises(ScoreError, match="NaN"):
        rerank("q", START, [Stage(Table({"text of a": float("nan")}), 1)], texts)


@pytest.mark.parametrize("weight", [1.0, 0.3])
@pytest.mark.parametrize(("bad", "word"), [(float("nan"), "NaN"), (float("inf"), r"\+inf")])
def test_only_a_blank_document_may_have_no_finite_score(weight, bad, word):
    """With a share below 1 they went last in silence, as if they were blank."""
    table = Table({"text of a": 1.0, "text of b": bad, "text of c": -np.inf})
    with pytest.raises(ScoreError, match=f"gives {word} for document 'b'"):
        rerank("q", START, [Stage(table, 3, weight)], texts)
    final, (trace,) = rerank("q", START, [Stage(table, 3, weight)], texts, on_error="keep")
    assert (final.ids, trace.stopped) == (START.ids, "error")


THIRTY = Ranking.sorted([f"d{i:02}" for i in range(30)], [1 / (60 + i) for i in range(30)])
FALLING = Table({f"text of {id_}": -5 - 0.1 * place for place, id_ in enumerate(THIRTY.ids)})


@pytest.mark.parametrize("weight", [1.0, 0.3, 0.01])
def test_a_stage_that_reads_deeper_keeps_an_order_that_it_agrees_with(weight):
    """The tail's scores are of another scale: 0.016 of a fusion stood over -5 of a scorer, and the tail came first."""
    final, _ = rerank("q", THIRTY, [Stage(FALLING, 10), Stage(FALLING, 30, weight)], texts)
    assert final.ids == THIRTY.ids
    # Also where a tail has two scales, and where what was read ended early.
    final, _ = rerank("q", THIRTY, [Stage(FALLING, 10), Stage(FALLING, 5, 0.5), Stage(FALLING, 30, weight)], texts)
    assert final.ids == THIRTY.ids


def test_a_better_document_of_the_tail_still_rises():
    best = Table({**FALLING.scores, "text of d15": 9.0})
    final, _ = rerank("q", THIRTY, [Stage(FALLING, 10), Stage(best, 30, 0.5)], texts)
    assert final.ids[0] == "d15"
    assert final.ids[1:] == tuple(id_ for id_ in THIRTY.ids if id_ != "d15")


def test_head_and_tail_are_standardized_apart():
    head = Ranking(("a", "b", "c", "d"), np.float32([-1, -3, 9, 8]), 2)
    # Of each part z is 1 and -1; the tail begins where the head ends.
    expected = 0.5 * zscore(np.float32([0, 0, 0, 4])) + 0.5 * zscore(np.float32([1, -1, -1, -3]))
    scores = dict(zip(head.ids, expected.tolist(), strict=True))
    got = mixed(head, np.float32([0, 0, 0, 4]), 0.5)
    assert dict(zip(got.ids, got.scores.tolist(), strict=True)) == pytest.approx(scores)
    assert got.ids == ("a", "d", "b", "c")
    blank = Ranking(("a", "b", "c", "d"), np.float32([-1, -np.inf, 9, -np.inf]), 2)
    assert mixed(blank, np.float32([3, 2, 1, 0]), 0.5).ids == ("a", "c", "b", "d")


def test_after_a_failed_stage_only_what_is_sorted_is_read():
    class Broken:
        def score(self, pairs):
            raise RuntimeError

    clock = Clock()
    slow = Slow(clock, CostModel(0.0, 0.0, 0.001, 0.0), FALLING.scores)
    stages = [Stage(slow, 30, name="slow", pace=slow.pace()), Stage(Broken(), 10, 0.5), Stage(FALLING, 30, 0.3)]
    final, traces = rerank("q", THIRTY, stages, texts, deadline=clock.now + 0.05, on_error="keep", clock=clock)
    assert [trace.stopped for trace in traces] == ["deadline", "error", ""]
    assert list(traces[2].scores) == list(traces[0].scores)
    assert final.ids == THIRTY.ids


def test_passages_are_told_apart_by_their_ids():
    """A passage that was left out moved the scores of all after it to other documents."""
    table = Table({f"text of {i}": score for i, score in zip("abcdef", [0, 1, 2, 3, 4, 5], strict=True)})
    final, _ = rerank("q", START, [Stage(table, 4)], lambda ids: texts(ids)[::-1])
    assert final.ids == rerank("q", START, [Stage(table, 4)], texts)[0].ids == tuple("dcbaef")
    for bad in (lambda ids: texts(ids)[1:], lambda ids: texts(["x", *ids[1:]]), lambda ids: []):
        with pytest.raises(InputError, match=r"no passage for .* of 4 documents, the first of which is 'a'"):
            rerank("q", START, [Stage(table, 4)], bad)


@pytest.mark.parametrize("deadline", [float("nan"), "1"])
def test_a_deadline_that_is_no_number_is_no_deadline_of_never(deadline):
    with pytest.raises(InputError, match="deadline must be a number"):
        rerank("q", START, [Stage(Table({}))], texts, deadline=deadline)


def test_what_is_no_ranking_is_refused_with_the_cure():
    with pytest.raises(InputError, match=r"not list; make one with Ranking.sorted\(ids, scores\)"):
        rerank("q", [("doc_1", 1.0)], [Stage(Table({}), 3)], texts)


@pytest.mark.parametrize(
    ("stages", "given", "said"),
    [
        (Stage(Table({}), 3), texts, r"not one stage; put it into one: \[stage\]"),
        ([Table({})], texts, r"not Table; make one with Stage\(scorer, depth=100\)"),
        (Table({}), texts, "a list of crossrank.Stage, not Table"),
        ("small", texts, "a list of crossrank.Stage, not str"),
        ([Stage(Table({}), 3)], {"a": "text of a"}, "gives the passages of a list of ids, not dict"),
        ([Stage(Table({}), 3)], lambda ids: [f"text of {i}" for i in ids], "Passage for each id, not str"),
    ],
)
def test_likely_mistakes_are_told_with_the_cure(stages, given, said):
    with pytest.raises(InputError, match=said):
        rerank("q", START, stages, given)


@pytest.mark.parametrize("more", [{}, {"k": 1}, {"top_k": 1}, {"top_n": 1}])
def test_who_has_texts_to_order_is_led_to_rank(more):
    with pytest.raises(InputError, match=r"crossrank\.load\(\)\.rank\(query, documents, k=5\)"):
        crossrank.rerank("tea?", ["Bread.", "Tea is hot."], **more)


def test_any_iterable_of_stages_is_a_list():
    table = Table({f"text of {i}": 0.0 for i in "abcdef"})
    _, traces = rerank("q", START, (Stage(table, depth) for depth in (3, 2)), texts)
    assert len(traces) == 2


@pytest.mark.parametrize("scorer", ["small", None, 3])
def test_a_stage_takes_what_scores(scorer):
    with pytest.raises(InputError, match=r"such as crossrank\.load\("):
        Stage(scorer)


def test_a_scorer_of_the_wrong_shape():
    class Wrong:
        def score(self, pairs):
            return np.zeros(1, dtype=np.float32)

    with pytest.raises(InputError, match="shape"):
        rerank("q", START, [Stage(Wrong(), 3)], texts)


def test_a_scorer_that_is_no_cross_encoder_reads_texts():
    class Store:
        tokenizer = "any"

        def tokens(self, ids):
            raise AssertionError("nobody can read these")

    table = Table({"text of a": 0.0, "text of b": 1.0})
    _, (trace,) = rerank("q", START, [Stage(table, 2)], texts, Store())
    assert [text for _, text in table.pairs] == ["text of a", "text of b"]
    assert trace.note == ""


@pytest.mark.parametrize(
    "bad", [{"depth": 0}, {"weight": 0.0}, {"weight": 1.5}, {"weight": float("nan")}, {"weight": "1"}]
)
def test_impossible_stages(bad):
    with pytest.raises(InputError):
        Stage(Table({}), **bad)
