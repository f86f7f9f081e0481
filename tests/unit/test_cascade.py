"""Stages cut, score and place; the mix is the formula; failures are clear."""

from __future__ import annotations

import numpy as np
import pytest

from crossrank.cascade import Stage, mixed, rerank
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


@pytest.mark.parametrize("bad", [{"depth": 0}, {"weight": 0.0}, {"weight": 1.5}, {"weight": float("nan")}])
def test_impossible_stages(bad):
    with pytest.raises(InputError):
        Stage(Table({}), **bad)
