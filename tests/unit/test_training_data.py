"""Judgments for tuning: how they are read, what is wrong with them, what else a query is shown, and the gate."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossrank import extras
from crossrank.calibration import Platt
from crossrank.errors import IndexFileError, InputError, ReadError
from crossrank.evaluation import JudgedSet, mean
from crossrank.training import checks, folds, gate, general, measuring, negatives, reading
from crossrank.training import work as work_module
from crossrank.training.judgments import Group, Judged, Judgments, query_key
from crossrank.training.material import gathered
from crossrank.training.outcome import Outcome
from crossrank.training.searched import searched_by
from crossrank.training.settings import Settings, fitting, planned
from crossrank.training.work import Work, ended
from crossrank.types import Passage, Ranking

needs_eval = pytest.mark.skipif(not extras.available("ir_measures"), reason="needs the extra eval")


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def judged(count: int, relevant: int = 1, others: int = 3) -> list[Judged]:
    return [
        Judged(f"question {q}", f"document {q}.{d}", float(d < relevant))
        for q in range(count)
        for d in range(relevant + others)
    ]


# Reading


def test_rows_with_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"query": "q", "document": "d", "label": 1},
                 {"question": "q", "passage": "e", "title": "T", "label": "0"})  # fmt: skip
    found = reading.read(path.rename(tmp_path / "b.jsonl"))
    assert found.scale == "labels"
    assert found.rows[0] == Judged("q", "d", 1.0)


def test_rows_of_a_program_are_those_of_a_file(tmp_path: Path) -> None:
    """`tune("train.jsonl", ...)` was an AttributeError, and lists had no documented way in."""
    made = [("q", "d", 1), ("q", "e", np.int64(0)), ("r", "d", True)]
    found = reading.rows(made, source="mine")
    path = write(tmp_path / "a.jsonl", *({"sentence1": q, "sentence2": d, "label": int(n)} for q, d, n in made))
    assert (found.rows, found.scale, found.source) == (reading.read(path).rows, "labels", "mine")
    assert reading.rows(iter([("q", "d"), ["r", "e"]])).scale == "clicks"
    assert reading.rows([("q", "d", 0.5), ("q", "e", 3.5)]).scale == "scores"
    triple = {"anchor": "q", "positive": "d", "negative": ["e", "f"]}
    assert [row.label for row in reading.rows([triple]).rows] == [1.0, 0.0, 0.0]
    assert [row.label for row in reading.rows(made, clicks=True).rows] == [1.0, 1.0]
    wrong: list[tuple[Any, str]] = [
        ([], "holds no rows"), (["q"], "row 1: a row is"), ([("q",)], "row 1: a row is"), ("qde", "row 1: a row is"),
        ([("q", 3, 1)], "row 1: a row needs 'document', a text"), ([("q", "d", "x")], "row 1: label must be a number"),
        ([("q", "d", 1), ("q", "e")], "row 2: 'label' is missing here"),
    ]  # fmt: skip
    for given_rows, message in wrong:
        with pytest.raises(ReadError, match=message):
            reading.rows(given_rows)


@pytest.mark.parametrize(
    ("row", "scale", "rows"),
    [
        ({"query": "q", "document": "d", "grade": 3}, "labels", [("d", 3.0)]),
        ({"query": "q", "document": "d", "label": True}, "labels", [("d", 1.0)]),
        ({"query": "q", "document": "d"}, "clicks", [("d", 1.0)]),
        ({"query": "q", "document": "d", "score": -2.5}, "scores", [("d", -2.5)]),
        ({"query": "q", "document": "d", "label": 0.95}, "labels", [("d", 1.0)]),
        ({"query": "q", "document": "d", "label": 0.25}, "labels", [("d", 0.0)]),
        ({"query": "q", "document": "d", "label": 2.5}, "scores", [("d", 2.5)]),
        ({"query": "q", "document": "d", "title": "T", "label": 1}, "labels", [("T. d", 1.0)]),
        ({"query": "q", "positive": "d", "negative": "e"}, "labels", [("d", 1.0), ("e", 0.0)]),
        ({"query": "q", "pos": ["d"], "neg": ["e", "f"]}, "labels", [("d", 1.0), ("e", 0.0), ("f", 0.0)]),
        ({"query": "q", "pos": ["d"], "neg": ["e"], "pos_scores": [7], "neg_scores": [2]}, "scores",
         [("d", 7.0), ("e", 2.0)]),
        ({"query": "q", "positive": "d"}, "clicks", [("d", 1.0)]),
        ({"Query": "q", " DOCUMENT ": "d", "Label": 0}, "labels", [("d", 0.0)]),
        ({"query": "q", "document": "d", "rating": 0}, "labels", [("d", 0.0)]),
        ({"query": "q", "document": "d", "labels": 0}, "labels", [("d", 0.0)]),
        ({"query": "q", "document": "d", "scores": 0.5}, "scores", [("d", 0.5)]),
        ({"query": "q", "positive": ["d"], "negatives": ["e"]}, "labels", [("d", 1.0), ("e", 0.0)]),
        ({"query": "q", "positives": ["d"], "Hard_Negatives": ["e"]}, "labels", [("d", 1.0), ("e", 0.0)]),
    ],
)  # fmt: skip
def test_forms_of_rows(tmp_path: Path, row: dict, scale: str, rows: list) -> None:
    found = reading.read(write(tmp_path / "a.jsonl", row))
    assert (found.scale, [(one.document, one.label) for one in found.rows]) == (scale, rows)


def test_csv_with_commas_and_line_ends(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('query,document,label\nq,"one, two\nthree",1\nq,d,0\n', encoding="utf-8")
    assert reading.read(tmp_path / "a.csv").rows == (Judged("q", "one, two\nthree", 1.0), Judged("q", "d", 0.0))


@pytest.mark.parametrize("heading", ["query,document,Label", "QUERY;document;label", " query\tdocument\tlabel "])
def test_names_and_separators_of_columns(tmp_path: Path, heading: str) -> None:
    separator = next(one for one in ",;\t" if one in heading)
    rows = [separator.join(row) for row in (("q", "d", "1"), ("q", "e", "0"))]
    (tmp_path / "a.csv").write_text("\n".join([heading, *rows]) + "\n", encoding="utf-8-sig")
    found = reading.read(tmp_path / "a.csv")
    assert (found.scale, found.rows) == ("labels", (Judged("q", "d", 1.0), Judged("q", "e", 0.0)))


def test_tsv_is_read_as_an_index_reads_it(tmp_path: Path) -> None:
    rows = ['"Tea," he said\td, e, f\t1', "", 'q\t"two\nlines"\t0', '"q\td\t0']
    (tmp_path / "a.TSV").write_text("\n".join(["query\tdocument\tlabel", *rows]), encoding="utf-8")
    assert reading.read(tmp_path / "a.TSV").rows == (
        Judged('"Tea," he said', "d, e, f", 1.0),
        Judged("q", "two\nlines", 0.0),
        Judged('"q', "d", 0.0),
    )


@pytest.mark.parametrize("name", ["a.jsonl.gz", "A.JSONL.GZ"])
def test_packed_rows(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b'{"query": "q", "document": "d", "label": 1}\n'))
    assert reading.read(tmp_path / name).rows == (Judged("q", "d", 1.0),)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_a_table_whose_rows_lack_their_labels_holds_no_clicks(tmp_path: Path, name: str) -> None:
    """All of its rows were read as relevant."""
    between = "," if name == "a.csv" else "\t"
    path = tmp_path / name
    path.write_text("\n".join(map(between.join, [("query", "document", "label"), ("q", "d"), ("q", "e")])))
    with pytest.raises(ReadError, match="line 2: label must be a number, not None"):
        reading.read(path)
    # What need not be there may be left out at the end.
    path.write_text(
        "\n".join(map(between.join, [("query", "document", "label", "by"), ("q", "d", "1"), ("q", "e", "0")]))
    )
    assert [row.label for row in reading.read(path).rows] == [1.0, 0.0]


def test_csv_with_blank_lines_and_long_texts(tmp_path: Path) -> None:
    text = f"one\n\n\ntwo {'x' * 200_000}"
    (tmp_path / "a.csv").write_text(f'\nquery,document,label\n\nq,"{text}",1\nq,d,0\nq,e,f,0\n', encoding="utf-8")
    with pytest.raises(ReadError, match="line 9: more fields"):
        reading.read(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text(f'query,document,label\nq,"{text}",1\n', encoding="utf-8")
    assert reading.read(tmp_path / "a.csv").rows == (Judged("q", text, 1.0),)
    (tmp_path / "a.csv").write_text('query,document,label\n\nq,d,1\nq,"d" e,1\n', encoding="utf-8")
    with pytest.raises(ReadError, match="line 4: not CSV"):
        reading.read(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("row", "unread"),
    [
        ({"query": "q", "document": "d", "Relevanz": 0}, ("relevanz",)),
        ({"query": "q", "positive": "d", "negative_1": "e", "score": 2}, ("negative_1", "score")),
        ({"query": "q", "document": "d", "negative": "e"}, ("negative",)),
        ({"query": "q", "document": "d", "title": "T", "_id": 7, "text": "more", "by": "me", "": 0}, ()),
        ({"query": "q", "positive": "d", "negatives": []}, ()),
        ({"query": "q", "document": "d", "label": 0, "comment": "no"}, ()),
    ],
)
def test_clicks_with_columns_that_nobody_reads_end_it(tmp_path: Path, row: dict, unread: tuple[str, ...]) -> None:
    path = write(tmp_path / "a.jsonl", row)
    found = reading.read(path)
    assert found.unread == unread
    fatal = {one.name: one.message for one in checks.check(found).fatal}
    assert ("unread columns" in fatal) == bool(unread)
    assert all(repr(name) in fatal["unread columns"] for name in unread)
    # Who says that they are clicks is believed.
    assert reading.read(path, clicks=True).unread == ()


@pytest.mark.parametrize(
    ("row", "held"),
    [
        ({"query": "q", "document": "d", "score": 0.3, "rating": 4}, "'rating', 'score'"),
        ({"query": "q", "positive": "d", "negative": "e", "hard_negatives": ["f"]}, "'negative', 'hard_negatives'"),
        ({"query": "q", "document": "d", "label": 1, "grade": 0}, "'label', 'grade'"),
    ],
)
def test_two_columns_that_say_the_same_are_refused(tmp_path: Path, row: dict, held: str) -> None:
    """A shop's stars were taken for labels, and a teacher's scores left out."""
    with pytest.raises(ReadError, match=f"which of {held} counts"):
        reading.read(write(tmp_path / "a.jsonl", row))


def test_rows_of_a_search_are_judged_by_their_texts(tmp_path: Path) -> None:
    """Their `document` is the name of a file, which was taken for the text once they had a query and a label."""
    line = {"rank": 1, "id": "a.md#1", "document": "docs/a.md", "score": 0.4, "title": "Tea", "text": "It is hot."}
    other = {"document": "Bread needs yeast.", "text": ""}
    found = reading.read(write(tmp_path / "a.jsonl", *({**one, "query": "tea?", "label": 1} for one in (line, other))))
    assert [row.document for row in found.rows] == ["Tea. It is hot.", "Bread needs yeast."]
    assert found.scale == "labels"
    (tmp_path / "b.csv").write_text('query,document,text,label\ntea?,docs/a.md,"It is hot.",1\n')
    assert reading.read(tmp_path / "b.csv").rows[0].document == "It is hot."


def test_labels_that_are_true_or_false_are_read_from_tables_too(tmp_path: Path) -> None:
    """JSON's were read, and pandas' True was no number."""
    (tmp_path / "a.csv").write_text("query,document,label\ntea?,Tea.,True\ntea?,Bread.,FALSE\n")
    write(
        tmp_path / "b.jsonl",
        *({"query": "tea?", "document": d, "label": v} for d, v in (("Tea.", True), ("Bread.", False))),
    )
    for name in ("a.csv", "b.jsonl"):
        assert [row.label for row in reading.read(tmp_path / name).rows] == [1.0, 0.0]


def test_a_label_counts_beside_a_score(tmp_path: Path) -> None:
    row = {"query": "q", "document": "d", "label": 1, "score": 0.3, "neg": "x", "negative": "y"}
    assert reading.read(write(tmp_path / "a.jsonl", row)).scale == "labels"
    row = {"query": "q", "document": "d", "relevance": 1, "score": None}
    assert reading.read(write(tmp_path / "a.jsonl", row)).scale == "labels"


@pytest.mark.parametrize(
    "more", [{"score": 0.3}, {"label": 1}, {"relevance": 0, "pos_scores": 1, "neg_scores": 0}], ids=str
)
def test_a_score_of_a_whole_triple_is_refused(tmp_path: Path, more: dict) -> None:
    """It was dropped, and the model trained on 1 and 0."""
    row = {"query": "q", "positive": "d", "negative": "e", **more}
    with pytest.raises(ReadError, match=rf"line 1: which .* this {next(iter(more))!r}\? .* pos_scores and neg_score"):
        reading.read(write(tmp_path / "a.jsonl", row))
    rows = [{"query": "q", "positive": "d", "negative": "e", "score": None}]
    assert reading.read(write(tmp_path / "a.jsonl", *rows)).scale == "labels"


def test_a_triple_that_shares_its_positive_is_no_duplicate(tmp_path: Path) -> None:
    rows = [{"query": "q", "positive": "d", "negative": other} for other in ("e", "f")]
    assert len(reading.read(write(tmp_path / "a.jsonl", *rows)).rows) == 3


def test_clicks_keep_the_rest_as_a_place_for_negatives(tmp_path: Path) -> None:
    rows = [{"query": "q", "document": name, "label": label} for name, label in (("d", 1), ("e", 0))]
    found = reading.read(write(tmp_path / "a.jsonl", *rows), clicks=True)
    assert (found.scale, len(found.rows), set(found.pool)) == ("clicks", 1, {"d", "e"})


def test_a_beir_folder_of_positives_is_clicks(tmp_path: Path) -> None:
    write(tmp_path / "corpus.jsonl", {"_id": "1", "title": "T", "text": "d"}, {"_id": "2", "text": "e"})
    write(tmp_path / "queries.jsonl", {"_id": "a", "text": "q"})
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\na\t1\t1\n", encoding="utf-8")
    found = reading.read(tmp_path)
    assert (found.scale, found.rows, found.pool) == ("clicks", (Judged("q", "T. d", 1.0),), ("T. d", "e"))
    assert names(checks.check(found)) == {"few queries": 1}


def test_judged_documents_that_a_corpus_does_not_hold_are_told(tmp_path: Path) -> None:
    write(tmp_path / "corpus.jsonl", {"_id": "1", "text": "d"})
    write(tmp_path / "queries.jsonl", {"_id": "a", "text": "q"}, {"_id": "b", "text": "r"})
    (tmp_path / "qrels").mkdir()
    judged = "query-id\tcorpus-id\tscore\na\t1\t1\na\t2\t1\nb\t2\t0\nb\t3\t0\n"
    (tmp_path / "qrels" / "train.tsv").write_text(judged, encoding="utf-8")
    for clicks in (False, True):
        found = checks.check(reading.read(tmp_path, clicks=clicks)).findings
        one = next(finding for finding in found if finding.name == "missing documents")
        assert (one.count, one.examples, one.fatal) == (2, ("2", "3"), False)
    (tmp_path / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\na\t1\t99999\n", encoding="utf-8")
    with pytest.raises(ReadError, match="line 2: the grade 99999 is over 1,000"):
        reading.read(tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no rows"),
        ("{", "line 1: not JSON"),
        ("[1]", "expected an object"),
        ('{"query": "q"}', "needs 'document'"),
        ('{"query": "q", "document": "d", "label": "good"}', "label must be a number"),
        ('{"query": "q", "document": "d", "label": "1_0"}', "label must be a number, not '1_0'"),
        ('{"query": "q", "document": "d", "label": NaN}', "finite"),
        ('{"query": "q", "pos": ["d"], "neg": ["e"], "pos_scores": []}', "pos_scores must hold 1 numbers"),
        (f'{{"query": "q", "document": "d", "label": {"1" * 400}}}', "label must be a number"),
        ('{"query": "q", "document": "d", "label": 1e20}', r"line 1: the label 1e\+20 is no grade"),
        ('{"query": "q", "document": "d", "label": 1001}', "as counts and times are none"),
        ('{"query": "q", "Label": 1, "label": 0, "document": "d"}', "line 1: two columns are called 'label'"),
        (f'{{"query": "q", "pos": ["d"], "pos_scores": [{"1" * 400}]}}', "pos_scores must hold 1 numbers"),
    ],
)
def test_what_is_no_judgment_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "a.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(ReadError, match=says):
        reading.read(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"document": "d"}, {"document": "e"}, {"document": "f", "label": 0}], "line 3: 'label' is here"),
        ([{"document": "d", "grade": 1}, {"document": "e"}], "line 2: 'grade' is missing"),
        ([{"document": "d"}, {"document": "e", "score": 0.5}], "line 2: 'score' is here"),
        ([{"document": "d", "score": 0.5}, {"document": "e", "label": 1}], "line 2: 'label' is here"),
        ([{"document": "d", "label": 1}, {"positive": "e"}], "line 2: 'positive' is here"),
        ([{"pos": "d"}, {"pos": "e", "pos_scores": 7}], "line 2: 'pos_scores' is here"),
        ([{"pos": "d", "neg": "e"}, {"pos": "f", "neg": "g", "neg_scores": 2}], "line 2: 'neg_scores' is here"),
    ],
)
def test_rows_of_different_kinds_are_refused(tmp_path: Path, rows: list[dict], says: str) -> None:
    # The first row alone would decide: a label 0 below it was read as a click.
    with pytest.raises(ReadError, match=says):
        reading.read(write(tmp_path / "a.jsonl", *({"query": "q", **row} for row in rows)))


def test_rows_may_hold_more_than_what_is_read(tmp_path: Path) -> None:
    rows = [{"query": "q", "document": "d", "label": 1}, {"query": "q", "document": "e", "grade": 0, "score": 0.5}]
    found = reading.read(write(tmp_path / "a.jsonl", *rows))
    assert (found.scale, [row.label for row in found.rows]) == ("labels", [1.0, 0.0])


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"not \.xlsx"):
        reading.read(tmp_path / "a.xlsx")


# Checks


def names(found: checks.Checked) -> dict[str, int]:
    return {finding.name: finding.count for finding in found.findings}


def test_clean_data_has_no_findings() -> None:
    found = checks.check(Judgments(tuple(judged(30)), "labels"))
    assert (names(found), len(found.groups), len(found.groups[0])) == ({}, 30, 4)


def test_duplicates_count_once_and_contradictions_not_at_all() -> None:
    rows = judged(30)
    twice = [rows[0], Judged(" Question  0?", "document 0.1", 0.0), Judged("question 1", "document 1.1", 1.0)]
    found = checks.check(Judgments((*rows, *twice), "labels"))
    assert names(found) == {"contradictions": 1, "duplicates": 2, "spelling": 1}
    assert not found.fatal
    assert "document 1.1" not in found.groups[1].documents
    assert found.dropped == {"question 1": ("document 1.1",)}
    assert "'question 1' and 'document 1.1': labels 0, 1" in found.findings[0].examples


def test_many_contradictions_are_fatal() -> None:
    rows = judged(30)
    found = checks.check(Judgments((*rows, *(Judged(r.query, r.document, 1 - r.label) for r in rows)), "labels"))
    assert names(found)["contradictions"] == len(rows)
    assert {finding.name for finding in found.fatal} >= {"contradictions"}


@pytest.mark.parametrize(("against", "fatal"), [(6, False), (7, True)])
def test_contradictions_are_slips_up_to_one_pair_in_twenty(against: int, fatal: bool) -> None:
    rows = judged(30)
    more = [replace(row, label=1 - row.label) for row in rows[1::4][:against]]
    found, again = checks.check(Judgments((*rows, *more, *more, *more), "labels")).findings
    assert (found.name, found.count, found.fatal) == ("contradictions", against, fatal)
    assert again.name == "duplicates", "pairs count, however many rows they have"
    assert f"of {len(rows)} pairs" in found.message
    assert ("cannot be trusted" in found.message) == fatal


def test_examples_are_three_and_short_and_differ() -> None:
    long = "q" * 300
    rows = judged(30)
    again = [row for row in rows if row.query in ("question 3", "question 4", "question 5", "question 6")]
    (found,) = checks.check(Judgments((*rows, *again), "labels")).findings
    assert (found.name, found.count) == ("duplicates", 16)
    assert found.examples == ("question 3", "question 4", "question 5")
    (found,) = checks.check(Judgments((*rows, Judged(long, "d", 0.0)), "labels")).findings
    assert (found.name, found.examples) == ("nothing relevant", (long[:140],))
    columns = tuple(f"column {n}" for n in range(12))
    found, *_ = checks.check(Judgments(tuple(rows), "clicks", unread=columns)).findings
    assert (found.count, "'column 7'" in found.message, "'column 8'" in found.message) == (12, True, False)


def test_contradictions_of_several_models_are_told_from_others() -> None:
    rows = [*judged(30), Judged("question 3", "document 3.0", 0.0, "small")]
    assert "by several" not in checks.check(Judgments(tuple(rows), "labels")).findings[0].message
    said = [(5, 1.0, "one"), (5, 0.0, "two"), (6, 1.0, "one"), (6, 1.0, "two")]
    graded = [Judged(f"question {n}", f"document {n}.0", label, by) for n, label, by in said]
    found = checks.check(Judgments((*rows, *graded), "labels")).findings[0]
    assert (found.name, found.count) == ("contradictions", 2)
    assert "; 1 of them by several: one, two. Keep the rows of one" in found.message


def test_who_judges_a_pair_twice_does_not_contradict_himself() -> None:
    # As two `crossrank label` runs on one file left it.
    first = [replace(row, label=float(n % 2), by="m") for n, row in enumerate(judged(30))]
    second = [replace(row, label=float((n + 1) % 2), by="m") for n, row in enumerate(judged(30))]
    found = checks.check(Judgments((*first, *second), "labels"))
    assert (names(found), found.fatal) == ({"judged again": 120}, ())
    alone = checks.check(Judgments(tuple(second), "labels"))
    assert [group.labels for group in found.groups] == [group.labels for group in alone.groups]
    spelled = [replace(row, query=f"{row.query.upper()}?", document=f" {row.document}") for row in second]
    assert names(checks.check(Judgments((*first, *spelled), "labels"))) == {"judged again": 120}
    others = [replace(row, by="n") for row in first]
    told = names(checks.check(Judgments((*first, *second, *others), "labels")))
    assert (told["judged again"], told["contradictions"]) == (120, 120)


def test_documents_in_which_nothing_shows_are_blank() -> None:
    found = checks.check(
        Judgments((*judged(30), Judged("question 1", "\u200b", 1.0), Judged("\u200b", "d", 1.0)), "labels")
    )
    assert names(found) == {"blank": 2}
    assert found.findings[0].examples == ("question 1", "d"), "what shows of such a row"
    found = checks.check(Judgments((*judged(30), Judged("?!", "d", 1.0)), "labels"))
    assert (names(found), len(found.groups)) == ({"blank": 1}, 30), "a query of punctuation alone is none"


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_is_fatal(label: float) -> None:
    found = checks.check(Judgments(tuple(Judged(r.query, r.document, label) for r in judged(30)), "labels"))
    assert "one class" in {finding.name for finding in found.fatal}
    assert ("--clicks" in found.fatal[0].message) == bool(label)


def test_ten_pairs_are_too_few() -> None:
    found = checks.check(Judgments(tuple(judged(5, 1, 1)), "labels"))
    assert [finding.name for finding in found.fatal] == ["few queries"]
    for queries in (19, 20):
        assert bool(checks.check(Judgments(tuple(judged(queries)), "labels")).fatal) == (queries < 20)


def test_one_class_queries_and_few_negatives_are_told() -> None:
    rows = [*judged(30, 2, 1), Judged("only right", "x", 1.0), Judged("only wrong", "y", 0.0)]
    found = checks.check(Judgments(tuple(rows), "labels"))
    assert names(found) == {"nothing relevant": 1, "one-class queries": 1, "few negatives": 31}
    assert len(found.groups) == 31


@pytest.mark.parametrize(
    ("labels", "says"),
    [((0.95, 0.1), "from 0.5 on"), ((3.5, 0.0), "a teacher's scores. Grades are whole numbers")],
)
def test_labels_with_fractions_are_told(tmp_path: Path, labels: tuple[float, ...], says: str) -> None:
    rows = [{"query": f"q {n}", "document": f"d {n} {label}", "label": label} for n in range(30) for label in labels]
    checked = checks.check(reading.read(write(tmp_path / "a.jsonl", *rows)))
    found = next(one for one in checked.findings if one.name == "fractions")
    assert says in found.message
    assert len(checked.groups) == 30


def test_queries_of_one_score_are_told() -> None:
    rows = (*judged(30), Judged("alone", "only", 0.5), Judged("even", "a", 0.5), Judged("even", "b", 0.5))
    found = checks.check(Judgments(rows, "scores"))
    assert names(found) == {"one-score queries": 2}
    assert not {"alone", "even"} & {group.query for group in found.groups}


def test_queries_that_are_held_out_too_are_not_trained_on() -> None:
    groups = [Group(text, ("d",), (1.0,)) for text in ("a?", "b")]
    kept, findings = checks.overlap(groups, [Group("A", ("d",), (1.0,))])
    assert ([group.query for group in kept], findings[0].name, findings[0].count) == (["b"], "leaks", 1)


def test_what_is_wrong_with_a_held_out_part_is_told_as_its_own() -> None:
    ours, theirs = judged(50)[:100], judged(50)[100:]
    blank = Judged("blank", " ", 0.0)
    groups, held_out, found, _ = checks.together(
        Judgments((*ours, blank), "labels"), Judgments((*theirs, blank, blank), "labels")
    )
    assert (len(groups), len(held_out)) == (25, 25)
    assert [(one.name, one.count) for one in found] == [("blank", 1), ("held-out: blank", 2)]
    with pytest.raises(InputError, match="the held-out part has clicks and the rest labels"):
        checks.together(Judgments(tuple(ours), "labels"), Judgments(tuple(theirs), "clicks"))


@pytest.mark.parametrize("left", [0, checks.FEWEST_QUERIES - 1, checks.FEWEST_QUERIES])
def test_too_few_queries_left_by_a_held_out_part_are_fatal(left: int) -> None:
    groups = [Group(f"q{n}", ("d",), (1.0,)) for n in range(left + 20)]
    kept, findings = checks.overlap(groups, [*groups[left:], Group("other", ("d",), (1.0,))])
    assert len(kept) == left
    few = [] if left >= checks.FEWEST_QUERIES else [("few queries", left, True)]
    assert [(one.name, one.count, one.fatal) for one in findings] == [*few, ("leaks", 20, False)]


@given(st.lists(st.text("ab ?", min_size=1), min_size=4, max_size=40), st.integers(2, 4), st.integers(0, 9))
@settings(max_examples=50)
def test_folds_are_even_and_do_not_depend_on_the_order(texts: list[str], count: int, seed: int) -> None:
    queries = list({query_key(text): text for text in texts}.values())
    if len(queries) < count:
        with pytest.raises(InputError):
            folds.assign(queries, count, seed)
        return
    found = folds.assign(queries, count, seed)
    sizes = np.bincount(found, minlength=count)
    assert sizes.max() - sizes.min() <= 1
    assert folds.assign(queries[::-1], count, seed).tolist() == found[::-1].tolist()


# Negatives


def test_folds_differ_by_seed_and_are_two_at_least() -> None:
    queries = [f"question {n}" for n in range(20)]
    assert len({tuple(folds.assign(queries, 2, seed).tolist()) for seed in range(5)}) == 5
    with pytest.raises(InputError, match="20 queries cannot be dealt to 1 folds"):
        folds.assign(queries, 1, 0)


def nearest(queries: list[str], depth: int) -> list[list[str]]:
    return [[f"near {n}" for n in range(depth)] for _ in queries]


def test_hard_and_easy_negatives_and_nothing_twice() -> None:
    pool = [f"far {n}" for n in range(50)] + ["right "]
    one = negatives.mine([Group("q", ("right",), (2.0,))], nearest, pool, 0.0, seed=1)[0]
    assert len(one) == 1 + negatives.WANTED
    assert sum(text.startswith("near") for text in one.documents) == 6
    assert sum(text.startswith("far") for text in one.documents) == 2
    assert one.labels[one.documents.index("right")] == 2
    assert one.labels.sum() == 2
    assert one.judged.sum() == 1


def test_judged_negatives_do_not_spare_mining() -> None:
    """A model that had seen those of one list alone ranked what a search finds worse than the base model."""
    group = Group("q", tuple("abcdefghij"), (1.0, *[0.0] * 9))
    one = negatives.mine([group], nearest, [f"far {n}" for n in range(50)], 0.0, seed=0)[0]
    mined = [text[:4] for text, judged in zip(one.documents, one.judged.tolist(), strict=True) if not judged]
    assert sorted(mined) == ["far "] + ["near"] * 3
    assert len(one.trained) == len(group.documents) + negatives.WANTED // 2


def test_distractors_are_the_next_hardest_and_not_trained_on() -> None:
    group = Group("q", tuple("abcdefghij"), (1.0, *[0.0] * 9))
    one = negatives.mine([group], nearest, [f"far {n}" for n in range(9)], 0.0, seed=0, wanted=0, measured=12)[0]
    assert {text: rank for text, rank in zip(one.documents, one.distractor.tolist(), strict=True) if rank} == {
        "near 0": 1,
        "near 1": 2,
        "near 2": 3,
    }
    assert sorted(one.documents[i] for i in one.trained) == list(group.documents)
    assert one.labels.sum() == one.labels[one.documents.index("a")] == 1
    fewer = one.hardest(1)
    assert sorted(fewer.documents) == [*group.documents, "near 0"]
    assert [fewer.documents[i] for i in np.flatnonzero(fewer.distractor)] == ["near 0"]
    assert len(one.hardest(0)) == len(group.documents)

    one = negatives.mine([Group("q", ("right",), (1.0,))], nearest, (), 0.0, seed=0, wanted=4, measured=12)[0]
    assert len(one) == 13
    assert sorted(one.documents[i] for i in one.trained) == ["near 0", "near 1", "near 2", "right"]


LONG = "A failed upload is retried three times before it is given up."


@pytest.mark.parametrize(
    ("relevant", "found"),
    [
        (LONG, Passage("1", LONG, "Uploads")),
        (LONG, Passage("1", f"More of it. {LONG}  And more.", "Uploads")),
        (f"# Uploads\n\n{LONG} And more.", Passage("1", LONG, "Guide > Uploads")),
        (f"Before. {LONG}", LONG),
        ("three", Passage("1", "three", "How often?")),
    ],
)
def test_a_passage_of_a_relevant_document_is_no_negative(relevant: str, found: str | Passage) -> None:
    other = Passage("2", "A failed login is not retried.", "Logins")
    for never in (None, {"q": (relevant,)}):
        group = Group("Q?", ("judged",) if never else (relevant,), (1.0,))
        shown = negatives.mine([group], lambda q, d: [[found, other]], [LONG], 0.0, seed=0, wanted=2, never=never)[0]
        mined = {text for text, judged in zip(shown.documents, shown.judged, strict=True) if not judged}
        assert mined - {LONG} == {other.scored_text}
        assert (LONG in mined) == (relevant == "three")


def test_short_texts_stand_in_others_without_meaning_anything() -> None:
    shown = negatives.mine([Group("q", ("no", "yes"), (0.0, 1.0))], lambda q, d: [["yes or no"]], (), 0.0, 0)[0]
    assert "yes or no" in shown.documents


def test_a_passage_of_a_judged_negative_may_be_shown_besides() -> None:
    group = Group("q", ("right", LONG), (1.0, 0.0))
    shown = negatives.mine([group], lambda q, d: [[f"{LONG} And more."]], (), 0.0, seed=0)[0]
    assert f"{LONG} And more." in shown.documents


@pytest.mark.parametrize(("length", "mined"), [(31, True), (32, False)])
def test_32_characters_in_common_make_a_passage_a_part_of_another(length: int, mined: bool) -> None:
    group = Group("q", ("r" * length,), (1.0,))
    shown = negatives.mine([group], lambda q, d: [["a " + "r" * length]], (), 0.0, seed=0)[0]
    assert (len(shown) == 2) == mined


def test_as_many_are_asked_for_as_leave_enough_when_half_are_passed_over() -> None:
    def half(queries: list[str], depth: int) -> list[list[str]]:
        return [[("right", f"near {n}")[n % 2] for n in range(depth)] for _ in queries]

    group = Group("q", ("right",), (1.0,))
    assert len(negatives.mine([group], half, (), 0.0, seed=0, measured=30)[0]) == 31
    material = gathered([Group(f"q{n}", ("right",), (1.0,)) for n in range(9)], (), "labels", nearest, (), Settings())
    assert {len(one) for one in material.shown} == {31}, "a held-out query is ranked with 30"
    pool = [*["right"] * 30, "far 0", "far 1"]
    one = negatives.mine([group], lambda q, d: [[]], pool, 0.0, seed=0)[0]
    assert sorted(one.documents) == ["far 0", "far 1", "right"]


def test_a_search_is_asked_for_what_is_missing_only() -> None:
    asked: list[tuple[str, int]] = []

    class Found:
        passages = (Passage("1", "near"),)
        ranking = Ranking.sorted(["1"], [2.0])

    class Own:
        def search(self, query: str, k: int = 10) -> Found:
            asked.append((query, k))
            return Found()

    groups = [Group("full", tuple("abcdefghij"), (1.0, *[0.0] * 9)), Group("short", ("a",), (1.0,))]
    shown = negatives.mine(groups, searched_by(Own()), (), 0.0, seed=0, wanted=0, measured=9)
    assert asked == [("short", negatives.DEPTH)]
    assert [len(one) for one in shown] == [10, 2]


def test_nothing_is_shown_twice_and_nothing_blank() -> None:
    found = ["near", " near\n", "", " \n", "other"]
    one = negatives.mine([Group("q", ("right",), (1.0,))], lambda q, d: [found], ["far", "near"], 0.0, seed=0)[0]
    assert sorted(one.documents) == ["far", "near", "other", "right"]


def test_the_draw_and_the_order_differ_by_query_and_seed() -> None:
    pool = [f"far {n}" for n in range(500)]
    groups = [Group(f"q{n}", ("right",), (1.0,)) for n in range(12)]

    def mined(seed: int) -> list[tuple[str, ...]]:
        return [one.documents for one in negatives.mine(groups, lambda q, d: [()] * len(q), pool, 0.0, seed)]

    first = mined(0)
    assert first == mined(0)
    assert len({frozenset(one) for one in (*first, *mined(1))}) == 24
    assert len({one.index("right") for one in first}) > 3, "the order says nothing of labels"


def test_contradictory_pairs_do_not_come_back_as_negatives() -> None:
    rows = [*judged(30), Judged("Question 3?", "document 3.0", 0.0), Judged("question 3", "document 3", 1.0)]
    found = checks.check(Judgments(tuple(rows), "labels"))
    material = gathered(found.groups, (), "labels", lambda queries, depth: [["document 3.0"] for _ in queries],
                        ["document 3.0"], Settings(), found.dropped)  # fmt: skip
    with_it = [one.query for one in material.shown if "document 3.0" in one.documents]
    assert len(with_it) == 29
    assert "question 3" not in with_it


def groups_of(*labels: tuple[float, ...]) -> list[Group]:
    """A query for each of these, with documents of these labels."""
    return [
        Group(f"question {place}", tuple(f"document {place}.{n}" for n in range(len(some))), some)
        for place, some in enumerate(labels)
    ]


def found_none(queries: Sequence[str], depth: int) -> list[list[str]]:
    return [[] for _ in queries]


def test_queries_are_measured_as_far_as_the_tokens_reach() -> None:
    groups = groups_of(*[(1.0, 0.0)] * 8, (1.0, 1.0), (1.0, 0.0))
    material = gathered(groups[:2], groups[2:], "labels", found_none, (), Settings())
    lengths = np.arange(10, 20)
    assert material.parts == [0]
    assert material.telling.tolist() == [True] * 8 + [False, True]
    every = material.measured(lengths, 10**6, seed=1).tolist()
    assert every == [2, 3, 4, 5, 6, 7, 9], "held out, and with an order that can be better"
    for count in range(1, 8):
        most = material.needed(lengths, count, seed=1)
        some = material.measured(lengths, most, seed=1).tolist()
        assert (len(some), some) == (count, sorted(some))
        assert most == sum(lengths[some])
        assert len(material.measured(lengths, most - 1, seed=1)) == count - 1
    assert len({tuple(material.measured(lengths, 50, seed).tolist()) for seed in range(5)}) > 1


def test_what_is_held_out_is_dealt_to_three_blocks() -> None:
    groups = groups_of(*[(1.0, 0.0)] * 12)
    material = gathered(groups[:5], groups[5:], "labels", found_none, (), Settings())
    assert material.fold.tolist() == [-1] * 5 + [0] * 7
    assert material.block[:5].tolist() == [-1] * 5
    assert sorted(np.bincount(material.block[5:]).tolist()) == [2, 2, 3]
    few = gathered(groups[:5], groups[5:7], "labels", found_none, (), Settings())
    assert few.block.tolist() == [-1] * 5 + [0, 1]
    three = gathered(groups[:5], groups[5:8], "labels", found_none, (), Settings())
    assert sorted(three.block[5:].tolist()) == [0, 1, 2]
    alone = gathered(groups, (), "labels", found_none, (), Settings(folds=4))
    assert (alone.parts, np.bincount(alone.fold).tolist()) == ([0, 1, 2, 3], [3, 3, 3, 3])
    again = alone.holding_out(np.array([1, 3, 5, 7]), seed=0)
    assert np.flatnonzero(again.fold == 0).tolist() == np.flatnonzero(again.block >= 0).tolist() == [1, 3, 5, 7]
    assert set(again.fold.tolist()) == {-1, 0}


def test_distractors_are_shown_where_a_query_is_measured() -> None:
    groups = groups_of((1.0, 0.0), (1.0, 0.0), (1.0, 0.0))
    material = gathered(groups[:2], groups[2:], "labels", nearest, (), Settings())
    few = material.with_distractors(np.array([2]), 3)
    assert [int((one.distractor > 0).sum()) for one in few.shown] == [0, 0, 3]
    assert few.with_distractors(np.array([2]), 0).with_distractors(np.array([2]), 3).shown[2].distractor.sum() == 0


def test_labels_become_targets() -> None:
    groups = groups_of((3.0, -1.0, 1.0), (0.0, 2.0))
    material = gathered(groups[:1], groups[1:], "labels", found_none, (), Settings())
    assert (material.low, material.high) == (-1.0, 3.0)
    targets = dict(zip(material.shown[0].documents, material.targets(0, 9.0).tolist(), strict=True))
    assert targets == pytest.approx({"document 0.0": 1, "document 0.1": 0, "document 0.2": 1 / 3})
    relevant = dict(zip(material.shown[0].documents, material.relevant(0).tolist(), strict=True))
    assert relevant == {"document 0.0": True, "document 0.1": False, "document 0.2": True}
    assert not material.relevant(1)[material.shown[1].documents.index("document 1.0")], "0 is not relevant"
    worthless = gathered(groups_of((0.0, 0.0), (0.0, -1.0)), (), "labels", found_none, (), Settings(folds=2))
    assert worthless.targets(0, 1.0).tolist() == [0, 0]


def test_scores_of_a_teacher_are_spread_like_the_base_models() -> None:
    groups = groups_of((1.0, 5.0), (3.0, 7.0))
    material = gathered(groups[:1], groups[1:], "scores", nearest, ("drawn",), Settings())
    assert [len(one) for one in material.shown] == [2, 2], "nobody has scored what could be mined"
    targets = np.concatenate([material.targets(row, 3.0) for row in range(2)])
    assert (targets.mean(), targets.std()) == pytest.approx((0, 3), abs=1e-6)
    assert sorted(targets) == pytest.approx(sorted((np.array([1, 5, 3, 7]) - 4) / np.sqrt(5) * 3))
    same = gathered(groups_of((2.0, 2.0)), groups_of((2.0, 2.0)), "scores", found_none, (), Settings())
    assert same.targets(0, 3.0).tolist() == [0, 0]


def test_nothing_to_score_has_no_scores() -> None:
    assert negatives.score([], lambda pairs: pytest.fail("asked")) == []


def test_a_mined_document_above_every_relevant_one_is_doubtful() -> None:
    group = Group("q", ("right",), (1.0,))
    shown = negatives.mine([group], lambda q, d: [["near", "far"]], (), 0.0, seed=0, wanted=2)
    order = shown[0].documents
    scores = np.array([{"right": 1.0, "near": 2.0, "far": 0.0}[text] for text in order], np.float32)
    found = negatives.scored(shown, [scores], 0.0)[0]
    assert [text for text, bad in zip(order, found.doubtful, strict=True) if bad] == ["near"]
    assert "near" not in [order[i] for i in found.trained]


def test_a_doubtful_document_lies_above_its_own_best_and_above_what_is_usual() -> None:
    def shown(query: str, *labels: float) -> negatives.Shown:
        return replace(shown_(list(labels)), query=query, judged=np.array([True, True, *[False] * (len(labels) - 2)]))

    some = [shown("low", 1, 0, 0, 0, 0), shown("high", 1, 0, 0, 0, 0), shown("even", 1, 0, 0)]
    # Relevant ones have 1, 5 and 3: what is usual is 3.
    base = [np.float32(scores) for scores in ([1, 9, 2, 3, 4], [5, 9, 4, 5, 6], [3, 9, 3])]
    found = negatives.scored(some, base, 0.0)
    assert [np.flatnonzero(one.doubtful).tolist() for one in found] == [[4], [4], []]
    unknown = [shown("none", 0, 0, 0)]
    assert not negatives.scored(unknown, [np.float32([1, 2, 3])], 0.0)[0].doubtful.any(), "nothing to compare with"


def test_each_query_gets_the_scores_of_all_that_it_is_shown() -> None:
    class Lengths:
        def score(self, pairs: list[tuple[str, str]]) -> np.ndarray:
            return np.float32([len(query) + 10 * len(document) for query, document in pairs])

    groups = [Group("q", ("aa",), (1.0,)), Group("qq", ("bbb",), (1.0,))]
    shown = negatives.mine(groups, lambda q, d: [["c" * 5], ["d" * 6]], (), 0.0, seed=0, wanted=0, measured=2)
    for one, scores in zip(shown, negatives.score(shown, Lengths()), strict=True):
        assert len(one) == 2
        assert scores.tolist() == [len(one.query) + 10 * len(text) for text in one.documents]


# What held-out queries are worth


def shown_(labels: list[float]) -> negatives.Shown:
    n = len(labels)
    return negatives.Shown("q", tuple(map(str, range(n))), np.array(labels), np.ones(n, bool), np.zeros(n, int),
                           np.zeros(n, bool), np.zeros(0, np.float32))  # fmt: skip


ranked_labels = st.lists(st.integers(-1, 3).map(float), min_size=2, max_size=14)


@needs_eval
@given(ranked_labels, st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_expected_values_without_noise_are_those_of_the_ranking(labels: list[float], dice: random.Random) -> None:
    scores = np.array(dice.sample(range(100), len(labels)), np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "NOISE", 1e-9)
        found = measuring.expected([shown_(labels)], [scores], "labels", min(labels), max(labels))
    plain = measuring.values([shown_(labels)], [scores], "labels", min(labels), max(labels))
    assert found == pytest.approx(plain, abs=1e-9)


@given(ranked_labels, st.integers(0, 1000))
@settings(max_examples=50)
def test_expected_values_know_no_units(labels: list[float], seed: int) -> None:
    scores = np.random.default_rng(seed).normal(size=len(labels)).astype(np.float32)
    found, moved = (measuring.expected([shown_(labels)], [s], "labels", -1, 3) for s in (scores, 8 * scores - 4))
    assert found == pytest.approx(moved, abs=1e-4)
    assert 0 <= found[0] <= 1 + 1e-9


def test_two_documents_are_compared_exactly() -> None:
    scores = np.float32([1.0, 0.0])
    noise = measuring.NOISE * 0.5
    drawn = np.random.default_rng(0).normal(scores, noise, (200_000, 2))
    above = float((drawn[:, 0] > drawn[:, 1]).mean())
    found = measuring.expected([shown_([1.0, 0.0])], [scores], "labels", 0, 1)[0]
    assert found == pytest.approx(above + (1 - above) / np.log2(3), abs=0.002)


def test_blank_documents_come_last_and_no_score_is_no_news() -> None:
    blank = np.float32([2.0, -np.inf, 1.0, -np.inf])
    found = measuring.expected([shown_([0.0, 1.0, 0.0, 0.0])], [blank], "labels", 0, 1)[0]
    # Third or fourth, equally likely.
    assert found == pytest.approx((1 / np.log2(4) + 1 / np.log2(5)) / 2)
    nothing = measuring.expected([shown_([0.0, 1.0])], [np.float32([-np.inf, -np.inf])], "labels", 0, 1)[0]
    assert nothing == pytest.approx((1 + 1 / np.log2(3)) / 2)
    assert measuring.expected([shown_([0.0, -1.0])], [np.float32([1, 2])], "labels", -1, 1).tolist() == [0.0]
    assert measuring.expected([], [], "labels", 0, 1).tolist() == []


def test_orders_with_ties_agree_with_themselves() -> None:
    blank = np.float32([2.0, -np.inf, 1.0, -np.inf])
    assert measuring.agreement([blank, np.float32([0])], [blank, np.float32([1])]) == pytest.approx(1.0)


@pytest.mark.skipif(not extras.available("bm25s"), reason="needs the extra train")
def test_words_find_nothing_for_unknown_words_and_no_texts() -> None:
    from crossrank.evaluation.words import Words

    texts = ["the cat sat", "the dog ran", "a bird sang"]
    assert Words(texts).nearest(["dog", "cat", "", "zebra"], 3) == [["the dog ran"], ["the cat sat"], [], []]
    assert Words([]).nearest(["dog"], 3) == [[]]
    assert Words(["the", "of"]).nearest(["the"], 3) == [[]]


def test_general_questions_of_two_parts_differ(tmp_path: Path) -> None:
    strings = [
        f'def f{n}():\n    """Return thing number {n} of them all.\n\n    {"word " * 20}{n}\n    """\n'
        for n in range(30)
    ]
    (tmp_path / "os.py").write_text("\n".join(strings), encoding="utf-8")
    parts = [general.questions(9, part, library=tmp_path) for part in (0, 1)]
    assert [len(part) for part in parts] == [9, 9]
    assert not {group.query for group in parts[0]} & {group.query for group in parts[1]}
    assert all(sum(group.labels) == 1 and len(set(group.documents)) == len(group) for part in parts for group in part)
    assert general.questions(9, 0, library=tmp_path / "none") == []


def test_of_documents_with_one_text_the_best_grade_counts() -> None:
    """The last one counted, so that a question lost its answer."""
    grades = {"1": 2, "2": 0, "3": 0}
    corpus = {name: Passage(name, "tea" if name in "12" else "bread") for name in grades}
    judged = JudgedSet("set", "test", corpus, {"a": "hot?"}, {"a": grades})
    (group,) = general.of_set(judged, lambda queries, depth: [[] for _ in queries], 5)
    assert dict(zip(group.documents, group.labels, strict=True)) == {"tea": 2.0, "bread": 0.0}


# The gate


def test_what_is_chosen_on_a_query_never_counts_for_it() -> None:
    # Each point is good on one block only: picked on the others it gains nothing there.
    gains = {(1, 0.5): np.array([1.0, 1.0, -0.1, -0.1]), (1, 1.0): np.array([-0.1, -0.1, 1.0, 1.0])}
    blocks = np.array([0, 0, 1, 1])
    assert gate.crossed(gains, blocks).tolist() == [-0.1] * 4


def test_models_that_are_no_better_seldom_pass() -> None:
    alone = both = 0
    blocks = np.arange(60) % 3
    for seed in range(150):
        rng = np.random.default_rng(seed)
        gains = {(e, s): rng.normal(0, 0.2, 60) for e in (1, 2) for s in (0.5, 1.0)}
        surely = mean(gate.crossed(gains, blocks), 2 * gate.CONFIDENCE - 1, resamples=1000).low > 0
        alone += surely
        both += surely and gate.chance(gains, blocks, trials=400) <= 1 - gate.CONFIDENCE
    # 5 % of 150 are 7 or 8. The bootstrap alone does not see that folds chose on each other.
    assert both <= 12
    assert alone > both


def general_(loss: float) -> gate.General:
    return gate.General("set", 0.8, 0.8 - loss, 0.9, 100)


@pytest.mark.parametrize(
    ("gains", "loss", "kept", "says"),
    [
        (np.full(40, 0.05), 0.0, "tuned", None),
        (np.full(40, 0.05), 0.03, "base", "forgets 0.030"),
        (np.full(40, 0.001), 0.0, "base", "too small"),
        (np.full(40, -0.05), 0.0, "base", "no gain"),
        (np.tile([0.5, -0.45], 20), 0.0, "base", "may be chance"),
        (np.full(19, 0.5), 0.0, "base", "19 held-out queries"),
        (np.full(20, 0.5), 0.0, "tuned", None),
        # Above 0 with 95 % one-sided: an interval of two-sided 95 % would begin under 0.
        (np.repeat([0.3, -0.3], [31, 19]), 0.0, "tuned", None),
        (np.repeat([0.3, -0.3], [30, 20]), 0.0, "base", "may be chance"),
    ],
)
def test_verdicts(gains: np.ndarray, loss: float, kept: str, says: str | None) -> None:
    verdict = gate.decide(np.full(len(gains), 0.5), gains, [general_(loss)], chosen=True)
    assert verdict.kept == kept
    if says is None:
        assert verdict.reasons == ()
    else:
        assert [says in reason for reason in verdict.reasons] == [True]


def test_a_gain_counts_only_if_it_was_chosen_and_is_seldom_by_chance() -> None:
    base, gains = np.full(50, 0.5), np.full(50, 0.1)
    assert gate.decide(base, gains, [], chosen=True, by_chance=0.04).kept == "tuned"
    for refused, says in (
        (gate.decide(base, gains, [], chosen=True, by_chance=0.06), "may be chance"),
        (gate.decide(base, gains, [], chosen=False), "no gain"),
    ):
        assert (refused.kept, len(refused.reasons)) == ("base", 1)
        assert says in refused.reasons[0]


def test_the_earliest_of_equal_points_is_picked_and_none_that_gains_nothing() -> None:
    everywhere = np.full(2, True)
    equal = {point: np.full(2, 0.1) for point in ((2, 0.5), (1, 1.0), (1, 0.5))}
    assert gate.pick(equal, everywhere) == (1, 0.5)
    assert gate.pick({(1, 1.0): np.zeros(2)}, everywhere) is None


def test_what_is_expected_decides_whether_a_gain_is_chance_and_nothing_else() -> None:
    base, general_set = np.full(50, 0.5), [general_(0.0)]
    jumps = np.tile([0.4, -0.3], 25)
    steady, doubtful = np.full(50, 0.04), np.tile([0.4, -0.38], 25)
    assert gate.decide(base, jumps, general_set, chosen=True).kept == "base"
    verdict = gate.decide(base, jumps, general_set, chosen=True, expected=steady)
    assert verdict.kept == "tuned"
    assert verdict.expected is not None
    assert verdict.gain is not None
    assert verdict.expected.low > 0 > verdict.gain.low
    # A gain that no ranking shows is none.
    for plain, says in ((np.full(50, -0.01), "no gain"), (np.full(50, 0.002), "too small")):
        refused = gate.decide(base, plain, general_set, chosen=True, expected=steady)
        assert says in refused.reasons[0]
    assert "chance" in gate.decide(base, steady, general_set, chosen=True, expected=doubtful).reasons[0]


def test_points_are_picked_by_one_measure_and_valued_by_another() -> None:
    picked = {(1, 1.0): np.full(4, 0.1), (2, 1.0): np.full(4, 0.2)}
    valued = {(1, 1.0): np.arange(4.0), (2, 1.0): -np.arange(4.0)}
    assert gate.crossed(picked, np.array([0, 0, 1, 1]), of=valued).tolist() == [0.0, -1.0, -2.0, -3.0]


# Settings and work


@given(st.lists(st.integers(3, 2000), min_size=1, max_size=50), st.integers(8, 512))
@settings(max_examples=50)
def test_sequences_in_training_hold_most_pairs_as_far_as_they_may(lengths: list[int], most: int) -> None:
    found = fitting(np.array(lengths), most)
    assert found <= min(most, 320)
    held = np.mean(np.array(lengths) <= found)
    assert held >= 0.9 or found == min(most, 320)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "wrong",
    [
        {"folds": 1}, {"loss": "hinge"}, {"confidence": 0.4}, {"rate": 0}, {"epochs": 0}, {"epochs": True},
        {"most_loss": NAN}, {"least_gain": NAN}, {"remember": NAN}, {"confidence": NAN}, {"rate": NAN},
        {"most_loss": 1.5}, {"least_gain": -0.1}, {"remember": -1}, {"remember": INF}, {"most_loss": "0.1"},
        {"candidates": 2.5}, {"tokens": 0}, {"tokens": 1e6}, {"measured_tokens": -1}, {"seed": -1}, {"seed": None},
        {"shares": ()}, {"shares": (0.5, NAN)}, {"shares": (0.0,)}, {"shares": ("1",)},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_settings_are_refused(wrong: dict) -> None:
    """With a loss of NaN allowed, whatever a model forgot was no loss too many."""
    with pytest.raises(InputError, match=next(iter(wrong))):
        Settings(**wrong)


def test_a_loss_that_is_no_number_is_one_too_many() -> None:
    found = gate.decide(np.full(50, 0.5), np.full(50, 0.1), [general_(NAN)], chosen=True)
    assert found.kept == "base"
    as_allowed = gate.General("set", 0.02, 0.0, 0.9, 100)
    assert gate.decide(np.full(50, 0.5), np.full(50, 0.1), [as_allowed], chosen=True).kept == "tuned"


@given(st.integers(1, 5000), st.floats(1, 5e6), st.sampled_from(["labels", "clicks", "scores"]))
@settings(max_examples=50)
def test_plans_keep_to_their_budget(queries: int, tokens: float, scale: str) -> None:
    plan = planned(Settings(), scale, 1.0, queries, tokens, 6)
    each = tokens * plan.queries / queries
    assert plan.repeats * 3 * plan.epochs * each <= max(Settings().tokens, 3 * tokens / queries) * 1.001
    assert plan.loss == ("distil" if scale == "scores" else "listwise")


@pytest.mark.parametrize("loss", ["bce", "listwise", "lambda"])
def test_a_loss_for_labels_needs_labels(loss: str) -> None:
    # Targets made of a teacher's scores are below 0 and above 1.
    with pytest.raises(InputError, match="take margin-mse or distil"):
        planned(Settings(loss=loss), "scores", 1.0, 100, 1000, 6)


def test_a_loss_for_teachers_needs_scores() -> None:
    with pytest.raises(InputError, match="teacher"):
        planned(Settings(loss="distil"), "labels", 1.0, 100, 1000, 6)


def test_work_is_gone_on_with_only_when_nothing_changed(tmp_path: Path) -> None:
    arrays = [np.float32([1, 2]), np.float32([]), np.float32([3])]
    with Work(tmp_path / "w", "key") as work:
        assert not work.resumed
        work.once("a", lambda: arrays)
    with Work(tmp_path / "w", "key") as again:
        assert again.resumed
        assert [a.tolist() for a in again.once("a", lambda: pytest.fail("made twice"))] == [[1, 2], [], [3]]
    with pytest.raises(InputError, match="--restart"):
        Work(tmp_path / "w", "other")
    with Work(tmp_path / "w", "other", restart=True) as other:
        assert not other.resumed
        assert {path.name for path in other.folder.iterdir()} == {"lock", "tuning.json"}
        other.close()
    assert not (tmp_path / "w").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(InputError, match="holds no tuning"):
        Work(tmp_path / "mine", "key")


def test_two_tunings_in_one_folder_do_not_share_it(tmp_path: Path) -> None:
    with Work(tmp_path / "w", "key") as first:
        first.once("a", lambda: [np.float32([1])])
        for restart in (False, True):
            with pytest.raises(IndexFileError, match="another process is writing to the tuning"):
                Work(tmp_path / "w", "key", restart)
        assert (tmp_path / "w" / "a.npz").exists()
    # What was refused holds no lock.
    with pytest.raises(InputError, match="--restart"):
        Work(tmp_path / "w", "other")
    with Work(tmp_path / "w", "key") as again:
        assert again.resumed


def test_a_lock_on_a_file_that_is_gone_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "w"
    first = Work(folder, "key")
    others: list[Work] = []

    @contextmanager
    def late(file: Path, *args: Any) -> Iterator[Any]:
        """Opened while the first held it, locked when it was done and a third had made the folder anew."""
        with file.open("a+b") as handle:
            first.close()
            monkeypatch.undo()
            others.append(Work(folder, "third"))
            yield handle

    monkeypatch.setattr(work_module, "exclusive", late)
    with pytest.raises(IndexFileError, match=r"ended its tuning in .* just now"):
        Work(folder, "third")
    with others.pop() as third:
        third.close()


def test_a_folder_that_is_removed_while_it_is_listed_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "w"
    folder.mkdir()
    listed = Path.iterdir

    def gone(path: Path) -> Iterator[Path]:
        monkeypatch.undo()
        path.rmdir()
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", gone)
    with Work(folder, "key") as work:
        assert not work.resumed


def test_work_that_came_to_its_end_says_to_what(tmp_path: Path) -> None:
    gain = gate.Interval(0.1, 0.05, 0.2, 30)
    verdict = gate.Verdict("tuned", (), gain, expected=gain, general=(general_(0.01),))
    outcome = Outcome(verdict, (), tmp_path / "m", planned(Settings(), "labels", 1.0, 40, 15_000, 6), (2, 0.5),
                      Platt(1.0, -2.0), counts={"queries": 40})  # fmt: skip
    with Work(tmp_path / "w", "key") as work:
        assert (work.outcome, ended(work.folder)) == (None, False)
        work.end(outcome.record())
    assert ended(tmp_path / "w")
    with Work(tmp_path / "w", "key") as again:
        assert again.outcome is not None
        found = Outcome.of(again.outcome)
    for name in ("verdict", "plan", "point", "calibration", "folder", "refused", "counts"):
        assert getattr(found, name) == getattr(outcome, name)
    with Work(tmp_path / "w", "other", restart=True) as other:
        assert (other.outcome, ended(other.folder)) == (None, False)
    assert not ended(tmp_path / "none")


def test_a_tuning_killed_while_it_began_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "lock").touch()
    (tmp_path / "w" / "tuning.json.part").write_text('{"ke')
    with Work(tmp_path / "w", "key") as work:
        assert not work.resumed
    with Work(tmp_path / "w", "key") as work:
        assert work.resumed
