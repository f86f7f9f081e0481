"""Rankings never repeat an id and have one tie rule; packed tokens come back as they went in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossrank.answer import Answer
from crossrank.asking import check_list, check_pairs, check_query
from crossrank.errors import InputError, ScoreError
from crossrank.ranked import Ranked
from crossrank.types import Passage, Ranking, Tokens, Truncation, check_k, order_of

names = st.lists(st.text("abcdefgh", min_size=1, max_size=3), unique=True, max_size=10)
rows = st.lists(st.lists(st.integers(0, 30000), max_size=12), max_size=10)


@given(rows, st.data())
def test_tokens_take_is_indexing(rows, data):
    types = [[i % 2 for i in range(len(row))] for row in rows]
    tokens = Tokens.of(rows, types)
    picked = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=12)) if rows else []
    taken = tokens.take(picked)
    assert [taken.row(i).tolist() for i in range(len(taken))] == [rows[i] for i in picked]
    assert taken.types.tolist() == [t for i in picked for t in types[i]]
    assert taken.lengths.tolist() == [len(rows[i]) for i in picked]


def test_types_must_match_ids():
    with pytest.raises(InputError, match="lengths"):
        Tokens.of([[1, 2]], [[0]])


@given(names, st.data())
def test_one_tie_rule(names, data):
    scores = data.draw(st.lists(st.integers(0, 3), min_size=len(names), max_size=len(names)))
    ranking = Ranking.sorted(names, [float(s) for s in scores])
    expected = [names[i] for i in sorted(range(len(names)), key=lambda i: -scores[i])]
    assert list(ranking.ids) == expected


@given(names, names)
def test_over_never_repeats_and_keeps_both_orders(first, second):
    head = Ranking.sorted(first, np.arange(len(first), 0, -1))
    tail = Ranking.sorted(second, np.arange(len(second), 0, -1))
    joined = head.over(tail)
    assert len(set(joined.ids)) == len(joined.ids) == len(joined.scores)
    assert joined.ids[: joined.head] == head.ids
    assert joined.ids[joined.head :] == tuple(i for i in tail.ids if i not in set(head.ids))


def test_cut():
    ranking = Ranking.sorted(["a", "b", "c"], [3, 2, 1])
    assert ranking.cut(2).ids == ("a", "b")
    assert [ranking.cut(k).head for k in (2, 3, 9)] == [2, 3, 3]
    assert ranking.cut(9).ids == ranking.ids
    for bad in (0, -1, 1.5, True):
        with pytest.raises(InputError, match=r"^k must"):
            ranking.cut(bad)


def test_a_number_under_1_is_called_as_the_caller_calls_it():
    with pytest.raises(InputError, match=r"^top_n must be at least 1, not 0$"):
        check_k(0, "top_n")
    with pytest.raises(InputError, match=r"^top_n must be a whole number, not 1\.5$"):
        check_k(1.5, "top_n")
    with pytest.raises(InputError, match=r"^k must be at least 1, not 0; leave it out to keep everything$"):
        check_list("query", ["text"], 0)


def test_what_is_taken_of_a_ranking_keeps_what_its_head_is():
    ranking = Ranking(("a", "b", "c", "d"), np.array([2, 1, 9, 8], np.float32), head=2)
    taken = [ranking.take(rows) for rows in ([1, 2], [2, 3], [])]
    assert [list(one) for one in taken] == [[("b", 1.0), ("c", 9.0)], [("c", 9.0), ("d", 8.0)], []]
    assert [one.head for one in taken] == [1, 0, 0]


def test_a_text_is_lost_where_its_end_was_not_read_or_is_not_known():
    assert [Truncation(0, 5, read, 1, exact).lost for read, exact in ((5, True), (4, True), (5, False))] == [
        False, True, True,
    ]  # fmt: skip


def test_what_has_no_positions_is_no_list_of_documents():
    class Frame(list[str]):
        columns = ("text",)

    with pytest.raises(InputError, match="not a set, whose order means nothing"):
        check_list("query", {"a", "b"}, None)
    with pytest.raises(InputError, match=r"not Frame: pass a column, such as df\['text'\].tolist\(\)"):
        check_list("query", Frame(["text"]), None)
    with pytest.raises(InputError, match=r"not Frame: pass two columns, such as zip\(df\['query'\], df\['text'\]\)"):
        check_pairs(Frame(["query", "text"]))
    with pytest.raises(InputError, match=r"pair; of an array pass \.tolist\(\)$"):
        check_pairs(np.array([["query", "text"]]))


def test_a_threshold_leaves_documents_with_their_own_scores():
    ranked = Ranked((2, 0, 1), np.array([4.5, 1.0, -1.0], np.float32), ())
    left, _ = ranked.above(np.array([0.9, 0.2, 0.7], np.float32), 0.5)
    assert list(left) == [(2, 4.5), (1, -1.0)]
    # One that was not read has no probability and goes, unless that is so of all.
    some, _ = ranked.above(np.array([0.9, 0.8, 0.7], np.float32), 0.5, read=1)
    none, said = ranked.above(np.zeros(3, np.float32), 0.5, read=0)
    assert (some.positions, none.positions) == ((2,), (2, 0, 1))
    assert "the threshold was not used" in said


def test_what_is_shown_in_a_notebook_is_short_and_has_places():
    ranked = Ranked(tuple(range(100)), 99 - np.arange(100, dtype=np.float32), (), (), 0, "x" * 500)
    assert (len(ranked), ranked[0], ranked[-1], ranked[1:3]) == (100, (0, 99.0), (99, 0.0), [(1, 98.0), (2, 97.0)])
    assert repr(ranked).startswith("Ranked([(0, 99.0), (1, 98.0), ")
    assert "...], documents=100, note='xx" in repr(ranked)
    assert len(repr(ranked)) < 400
    passages = tuple(Passage(f"p{number}", "text " * 500) for number in range(20))
    ranking = Ranking.sorted([passage.id for passage in passages], -np.arange(20))
    answer = Answer("why? " * 100, ranking, passages, (), 0.25)
    assert (len(answer), answer[0], answer[:2], list(answer)) == (20, passages[0], passages[:2], list(passages))
    assert "['p0', 'p1', 'p2', 'p3', 'p4', ...], passages=20" in repr(answer)
    assert len(repr(answer)) < 250
    assert repr(Ranked((), np.zeros(0, dtype=np.float32), ())) == "Ranked([])"


def test_a_mapping_is_no_ranking_yet_and_the_cure_works():
    d = {"a": 1.0, "b": 2.0}
    for wrong in ((d,), (d, d.values()), (["a", "b"],)):
        with pytest.raises(InputError, match=r"Ranking\.sorted\(list\(d\), list\(d\.values\(\)\)\)"):
            Ranking.sorted(*wrong)
    assert Ranking.sorted(list(d), list(d.values())).ids == ("b", "a")


def test_pairs_of_id_and_text_are_no_documents():
    with pytest.raises(InputError, match=r"0 is tuple, not a string: pass \[text for _, text in documents\]"):
        check_pairs([("tea?", ("id", "Tea is hot."))])


def test_the_largest_scores_keep_their_order():
    found = Ranking.sorted(["a", "b"], [1e299, 1e300])
    assert (found.ids, found.scores.tolist()) == (("b", "a"), [np.inf, np.inf])


def test_nan_and_repeats_are_refused():
    # The caller's own numbers: no model is to blame.
    for bad in (float("nan"), None):
        with pytest.raises(InputError, match=r"^the score of 'b' is NaN or None"):
            Ranking.sorted(["a", "b"], [1.0, bad])
    with pytest.raises(ScoreError, match="The model's weights"):
        order_of(np.float32([1.0, np.nan]))
    with pytest.raises(InputError, match="twice"):
        Ranking.sorted(["a", "a"], [1.0, 2.0])
    with pytest.raises(InputError, match="shape"):
        Ranking.sorted(["a"], [1.0, 2.0])


@pytest.mark.parametrize("blank", ["", " \n", "\u200b", "\ufeff", "\0", "\u00ad \u2060", "\x07", "\u2028"])
def test_a_query_that_shows_nothing_is_refused(blank):
    with pytest.raises(InputError, match="the query is empty"):
        check_query(blank)
    check_query(f"{blank}a")


def test_whole_numbers_are_ordered_exactly():
    times = [1764302693000000001, 1764302693000000002]
    for scores in (times, np.int64(times), np.uint64(times), iter(times), dict(enumerate(times)).values()):
        assert Ranking.sorted(iter(["older", "newer"]), scores).ids == ("newer", "older")
    assert Ranking.sorted(["a", "b"], np.int64([-(2**63), 0])).ids == ("b", "a")


@pytest.mark.parametrize(("text", "title"), [(None, "T"), (float("nan"), ""), ("text", float("nan")), ("text", 0)])
def test_a_passage_has_a_text(text, title):
    with pytest.raises(InputError, match=r"the \w+ of passage 'p7' is .*, not a string: leave the passage out"):
        Passage("p7", text, title)
    assert Passage("p7", "text", None).scored_text == "text"


def test_scored_text_joins_title():
    assert Passage("1", "text", "Title").scored_text == "Title. text"
    assert Passage("1", "text").scored_text == "text"
