"""`crossrank eval FILE`: rows of query, document and label, which models order without a collection."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny
from commandline import run

for library in ("ir_measures", "bm25s"):
    pytest.importorskip(library, reason="needs the extra eval")
from crossrank.evaluation.lists import judged_lists  # noqa: E402
from crossrank.evaluation.words import Words  # noqa: E402

pytestmark = pytest.mark.usefixtures("command_line")

WORDS = ["paris", "france", "bread", "yeast", "cat", "planet"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models")
    return f"{tiny.cross_encoder(folder / 'first')},{tiny.cross_encoder(folder / 'second', num_hidden_layers=1)}"


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows(word: str) -> list[dict[str, Any]]:
    query = f"what is {word}?"
    return [
        {"query": query, "document": "the capital of a land and more of it", "label": 1},
        {"query": query, "document": f"the {word} is {word}", "label": 2},
        {"query": query, "document": f"of the capital {word} and of much else besides", "label": 0},
    ]


def test_models_are_measured_on_each_querys_own_documents(tmp_path: Path, models: str) -> None:
    judged = write(tmp_path / "judged.jsonl", [row for word in WORDS for row in rows(word)])

    found = json.loads(run("eval", judged, "--models", models, "--json").stdout)

    assert [system["name"] for system in found["systems"]] == ["BM25", "first", "second"]
    assert found["about"]["queries"] == len(WORDS)
    assert found["about"]["depth"] == 3
    by_words = found["systems"][0]["values"]["nDCG@10"]["mean"]
    # The document that repeats the word is first, the long one without it last: grades 2, 0, 1.
    assert by_words == pytest.approx((2 + 1 / 2) / (2 + 1 / np.log2(3)))
    assert any("a yardstick" in note for note in found["notes"])


def test_equal_scores_of_words_are_not_called_ordered_by_id(tmp_path: Path, models: str) -> None:
    """The ids are ours, and nothing is ordered by them: a digest of the texts decides."""
    made = [{"query": "what is bread?", "document": f"{word} alone", "label": int(word == "cat")} for word in WORDS[3:]]
    judged = write(tmp_path / "judged.jsonl", made)

    said = run("eval", judged, "--models", models.partition(",")[0]).stderr

    assert "BM25 has 2 equal scores; they stand by a digest of the texts, which is as good as chance." in said
    assert "trec_eval" not in said


def test_all_of_a_long_list_is_read_and_depth_reads_less(tmp_path: Path, models: str) -> None:
    many = [{"query": "what is bread?", "document": f"bread number {i}", "label": i % 2} for i in range(130)]
    judged, name = write(tmp_path / "judged.jsonl", many), models.partition(",")[0]

    whole = run("eval", judged, "--models", name).stderr
    part = run("eval", judged, "--models", name, "--depth", 20).stderr

    assert "first read all of 130 passages in one piece" in whole
    assert "first read all of 20 passages in one piece" in part
    # Also where the depth that is asked for is the one that other sources have without asking.
    assert "first read all of 100 passages" in run("eval", judged, "--models", name, "--depth", 100).stderr


def test_lists_of_different_lengths_are_read_whole(tmp_path: Path, models: str) -> None:
    made = rows("cat") + [{"query": "what is bread?", "document": f"bread {i}", "label": i % 2} for i in range(9)]
    judged = write(tmp_path / "judged.jsonl", made)

    assert "first read all of 12 passages in" in run("eval", judged, "--models", models.partition(",")[0]).stderr


def test_pairs_that_are_judged_both_ways_are_in_no_list(tmp_path: Path, models: str) -> None:
    made = [*rows("cat"), {**rows("cat")[0], "label": 0}, {**rows("cat")[1], "query": "What is CAT"}]

    said = run("eval", write(tmp_path / "judged.jsonl", made), "--models", models.partition(",")[0]).stderr

    assert "first read all of 2 passages in one piece" in said
    assert "1 of 3 pairs with different labels" in said
    # Which matters to folds of a training, and to nothing here.
    assert "fold" not in said


def test_a_cascade_a_mix_a_sample_and_run_files(tmp_path: Path, models: str) -> None:
    judged = write(tmp_path / "judged.jsonl", [row for word in WORDS for row in rows(word)])
    cascade = "second>first"

    result = run("eval", judged, "--models", models, "--cascade", cascade, "--mix", "0.5", "--sample", 4,
                 "--baseline", "first (mix 0.5)", "--write-runs", tmp_path / "runs")  # fmt: skip

    assert "4 of 6 judged queries were drawn (seed 0)." in result.stderr
    another = run("eval", judged, "--models", models, "--sample", 4, "--seed", 3).stderr
    assert "4 of 6 judged queries were drawn (seed 3)." in another
    assert "second > first (mix 0.5)" in result.stdout
    assert len(list((tmp_path / "runs").iterdir())) == 4


def test_a_table_is_read_and_what_is_wrong_with_it_is_told(tmp_path: Path, models: str) -> None:
    judged = tmp_path / "judged.csv"
    judged.write_text(
        "question,passage,rating\ntea?,Tea is hot.,1\ntea?,Bread.,0\ntea?,Bread.,0\ntea?,Rain.,0\ntea?,Rain.,1\n"
        "rain?,Rain.,1\n"
    )

    said = run("eval", judged, "--models", models).stderr

    assert "rows that repeat a pair with the same label: 1" in said
    assert "1 of 5 pairs with different labels" in said or "1 of 4 pairs with different labels" in said
    assert "1 of 2 queries has documents of one grade alone" in said


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ([{"query": "tea?", "document": "Tea."}], "holds relevant documents alone"),
        ([{"query": "tea?", "document": "Tea.", "clicked": 0}], "one of these columns says what is relevant: 'cl"),
        ([{"query": "tea?", "document": "Tea.", "score": 0.7}], "holds a teacher's scores"),
        ([{"query": "tea?", "document": "Tea.", "label": 3.5}], "holds labels with a fraction (1), so that all"),
        ([{"query": "tea?", "document": "Tea.", "label": 1}], "no query of judged.jsonl has documents of different"),
        ([{"query": "tea?", "documents": ["Tea."]}], "a row needs 'document'"),
    ],
)
def test_rows_that_judge_no_order_are_refused(tmp_path: Path, made: list[dict[str, Any]], message: str) -> None:
    assert message in run("eval", write(tmp_path / "judged.jsonl", made), code=1).stderr


@pytest.mark.parametrize("option", ["--queries", "--qrels", "--split", "--run", "--over", "--cache", "--embedder"])
def test_options_of_a_collection_are_refused(tmp_path: Path, option: str) -> None:
    judged = write(tmp_path / "judged.jsonl", rows("cat"))

    said = run("eval", judged, option, "x=y", code=2).stderr

    assert f"so {option} has no use beside it" in said
    assert "so --passage-tokens has no use beside it" in run("eval", judged, "--passage-tokens", 9, code=2).stderr


def test_the_order_of_the_rows_changes_nothing() -> None:
    labels = {"of the cat": 1, "a planet": 0, "the planets": 0, "no cat at all": 2}
    back = dict(reversed(labels.items()))

    one, other = (judged_lists("x", [("what is a cat?", each)]) for each in (labels, back))

    texts = [[judged.corpus[id_].text for id_ in run["1"].ids] for judged, run, _ in (one, other)]
    assert texts[0] == texts[1]


def test_half_of_a_surrogate_pair_ends_no_evaluation() -> None:
    """JSON can hold one, in a text that was cut there."""
    _, run, _ = judged_lists("x", [("what is a cat?", {"a planet": 0, "a cat \ud83d": 1})])

    assert run["1"].ids == ("2", "1")


def test_what_is_nearest_to_a_query_without_words_is_nothing() -> None:
    words = Words(["red apples", "green pears"])

    assert words.nearest(["the", "apples"], 9) == [[], ["red apples"]]
    # Nor does anything lie near a query where no text has words, or there is none.
    assert Words(["", "the"]).nearest(["apples", "the"], 9) == Words([]).nearest(["apples", "the"], 9) == [[], []]


def test_grades_are_whole_and_not_below_zero() -> None:
    judged, _, _ = judged_lists("x", [("a", {"b": -1.0, "c": 3.0}), ("d", {"c": -2.0, "b": 0.0})])

    assert judged.qrels == {"1": {"1": 0, "2": 3}}


def test_bm25_prefers_rare_words_and_short_texts() -> None:
    texts = Words(["a cat", "a cat and a dog and a bird", "a dog", "a cat sat", "", "a bird"])

    assert texts.scores("the cat", [0, 1, 2]).tolist() == sorted(texts.scores("cat", [0, 1, 2]).tolist(), reverse=True)
    assert texts.scores("cat", [2, 4]).tolist() == [0.0, 0.0]
    assert texts.scores("cat", [0, 3])[0] > texts.scores("cat", [0, 1])[1] > 0
    assert texts.scores("dog bird", [2, 0])[0] > texts.scores("cat dog", [0, 2])[0] > 0
    for nothing in ("planet", "the", ""):
        assert texts.scores(nothing, [1, 0]).tolist() == [0.0, 0.0]
    assert Words([""]).scores("cat", [0]).tolist() == [0.0]
