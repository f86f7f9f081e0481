from __future__ import annotations

import gzip
import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossrank.errors import InputError, ReadError
from crossrank.evaluation import files as files_module
from crossrank.evaluation import read_corpus, read_qrels, read_queries, read_run, read_set, write_run
from crossrank.evaluation.setting import tie_notes
from crossrank.evaluation.trec import Ties
from crossrank.types import Ranking


def write(path: Path, text: str | bytes) -> Path:
    data = text.encode() if isinstance(text, str) else text
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def make_set(folder: Path, ending: str = "") -> Path:
    corpus = [{"_id": f"d{i}", "title": "T" if i else "", "text": f"text {i}"} for i in range(3)]
    queries = [{"_id": f"q{i}", "text": f"question {i}", "metadata": {}} for i in range(4)]
    write(folder / f"corpus.jsonl{ending}", "\n".join(map(json.dumps, corpus)))
    write(folder / f"queries.jsonl{ending}", "\n".join(map(json.dumps, queries)) + "\n")
    qrels = "query-id\tcorpus-id\tscore\nq2\td1\t2\nq0\td0\t0\nq0\td2\t1\n"
    write(folder / "qrels" / f"test.tsv{ending}", qrels)
    write(folder / "qrels" / f"full.txt{ending}", "q2 0 d1 3\nq2 0 elsewhere 1\n")
    return folder


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_folder_is_read(tmp_path: Path, ending: str) -> None:
    judged = read_set(make_set(tmp_path / "tiny", ending))
    assert (judged.name, judged.split) == ("tiny", "test")
    assert judged.queries == {"q0": "question 0", "q2": "question 2"}
    assert judged.qrels == {"q0": {"d0": 0, "d2": 1}, "q2": {"d1": 2}}
    assert [passage.scored_text for passage in judged.corpus.values()] == ["text 0", "T. text 1", "T. text 2"]
    assert judged.corpus["d1"].document == "d1"
    assert read_set(tmp_path / "tiny", "full").qrels == {"q2": {"d1": 3, "elsewhere": 1}}


def test_a_sample_is_fixed_by_its_seed(tmp_path: Path) -> None:
    qrels = {f"q{i}": {"d": 1} for i in range(50)}
    write(tmp_path / "corpus.jsonl", '{"_id": "d", "text": "t"}')
    write(tmp_path / "queries.jsonl", "\n".join(json.dumps({"_id": q, "text": q}) for q in qrels))
    write(tmp_path / "qrels" / "dev.tsv", "".join(f"{q}\td\t1\n" for q in qrels))
    judged = read_set(tmp_path, "dev")
    drawn = judged.sample(10, seed=1)
    assert list(drawn.queries) == list(judged.sample(10, seed=1).queries)
    assert list(drawn.queries) != list(judged.sample(10, seed=2).queries)
    assert list(drawn.queries) == [query for query in judged.queries if query in drawn.queries]
    assert drawn.qrels.keys() == drawn.queries.keys()
    assert len(drawn.queries) == 10
    assert judged.sample(50) is judged
    with pytest.raises(InputError, match="at least 1"):
        judged.sample(0)


def test_a_missing_split_names_those_there(tmp_path: Path) -> None:
    make_set(tmp_path)
    with pytest.raises(ReadError, match=r"no dev\.tsv or dev\.txt .*full\.txt, test\.tsv"):
        read_set(tmp_path, "dev")
    with pytest.raises(ReadError, match="not a folder"):
        read_set(tmp_path / "nowhere")


def test_a_judged_query_without_text_is_an_error(tmp_path: Path) -> None:
    make_set(tmp_path)
    write(tmp_path / "qrels" / "test.tsv", "q9\td1\t1\n")
    with pytest.raises(ReadError, match="query q9"):
        read_set(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["q1\twhat is tea?\n2\twho?\n", "qid\tquery\nq1\twhat is tea?\n\n2\twho?\n",
     '{"id": "q1", "text": "what is tea?"}\n{"id": 2, "text": "who?"}\n',
     '{"_id": "q1", "id": 7, "text": "what is tea?"}\n{"_id": 2, "text": "who?"}\n'],
)  # fmt: skip
def test_queries_as_objects_and_as_topics_between_tabs(tmp_path: Path, text: str) -> None:
    """Those of Pyserini and MS MARCO were "not JSON"."""
    assert read_queries(write(tmp_path / "topics.txt.gz", text)) == {"q1": "what is tea?", "2": "who?"}


def test_topics_of_a_spreadsheet_are_read_without_its_quotes(tmp_path: Path) -> None:
    """Models were asked for `"what is ""tea""?"`, and `crossrank index` read the same cell without them."""
    text = '1\t"what is ""tea""?"\n2\t"tea" or "bread"\n3\twhat is 5"\n'
    assert list(read_queries(write(tmp_path / "topics.tsv", text)).values()) == [
        'what is "tea"?', '"tea" or "bread"', 'what is 5"',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [("q1\ta\nq1\tb", "line 2: the id q1 comes twice"), ("q1\ta\nq2", "line 2: expected an id, one tab"),
     ("q1\ta\tb", "line 1: expected an id, one tab"), ("q1 what is tea?", "line 1: not JSON"),
     ('qid,query\n1,"what, tea?"', "line 1: not JSON, nor an id, a tab and the query, but 'qid,query'")],
)  # fmt: skip
def test_topics_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ReadError, match=message):
        read_queries(write(tmp_path / "topics.tsv", text))


@pytest.mark.skipif(os.name == "nt", reason="pipes have no names there")
@pytest.mark.parametrize("line", ['{{"_id": "q{n}", "text": "what is tea?"}}\n', "q{n}\twhat is tea?\n"])
def test_queries_are_read_from_a_pipe(line: str) -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as file:
        file.write("".join(line.format(n=n) for n in range(1_000)))  # More than one buffer of 8 KiB.
    assert list(read_queries(f"/dev/fd/{reader}")) == [f"q{n}" for n in range(1_000)]
    os.close(reader)


def test_a_run_of_scores_is_written(tmp_path: Path) -> None:
    write_run(tmp_path / "run.trec", {"q": {"a": 1.0, "b": 2.0}})
    assert read_run(tmp_path / "run.trec")["q"].ids == ("b", "a")


def test_qrels_in_both_formats(tmp_path: Path) -> None:
    beir = write(tmp_path / "a.tsv", "query-id\tcorpus-id\tscore\r\nq 1\td\t-1\r\n\r\n")
    assert read_qrels(beir) == {"q 1": {"d": -1}}
    loose = write(tmp_path / "e.tsv", " q 1\t d \t1 \nq 1\td\t1\n")
    assert read_qrels(loose) == {"q 1": {"d": 1}}
    trec = write(tmp_path / "b.txt", "q1 0 d 1\nq1\t0\te\t2\nq1 0 d 1\n")
    assert read_qrels(trec) == {"q1": {"d": 1, "e": 2}}
    spaced = write(tmp_path / "d.txt", "q 1\t0\tmy file.md\t2\nq 1\t 0\t e \t3.0\n")
    assert read_qrels(spaced) == {"q 1": {"my file.md": 2, "e": 3}}
    marked = write(tmp_path / "c.tsv", b"\xef\xbb\xbfq1\td\t1\n")
    assert read_qrels(marked) == {"q1": {"d": 1}}


@pytest.mark.parametrize(
    "heading", ["query_id\tdoc_id\trelevance", "Query-ID\tCorpus-ID\tScore", "qid iteration docno rel"]
)
def test_a_first_line_that_names_the_columns_is_no_judgment(tmp_path: Path, heading: str) -> None:
    """The grade 'relevance' was not a whole number; topics could have such a line, and judgments BEIR's alone."""
    assert read_qrels(write(tmp_path / "qrels", f"\n{heading}\nq1\td\t1\n")) == {"q1": {"d": 1}}
    # A query may be called so.
    assert read_qrels(write(tmp_path / "qrels", "query\td\t1\n")) == {"query": {"d": 1}}


def test_ranks_of_tables_of_floating_point_numbers_are_read(tmp_path: Path) -> None:
    """A rank of 2.0 was "not a number", in a run that trec_eval orders by its scores alone."""
    run = read_run(write(tmp_path / "run", "q Q0 a 2.0 1.5 t\nq Q0 b 1.0 1.5 t\n"))
    assert run["q"].ids == ("b", "a")


@pytest.mark.parametrize(
    ("reader", "text", "message"),
    [
        (read_qrels, "q1 d 1", "line 1: expected"),
        (read_qrels, "q1\td\t1\n\td\t0", "line 2: the id of a query or document is empty"),
        (read_qrels, "q1\t \t1", "line 1: the id of a query or document is empty"),
        (read_qrels, "q1 0 d 1\nq1 0 d 2", "line 2: .*two different grades"),
        (read_qrels, "q1\td\t0.5", "'0.5' is not a whole number"),
        (read_qrels, "q1\td\tnan", "'nan' is not a whole number"),
        (read_qrels, "q1 0 d 1000\nq1 0 e 1700000000", "line 2: the grade 1700000000 is over 1,000; timestamps"),
        (read_qrels, "q1\td\t1e23", "the grade 1e23 is over 1,000"),
        (read_qrels, "q1\td\t-1e999", "the grade -1e999 is over 1,000"),
        (read_qrels, b"q1\t\xff\t1", "not UTF-8"),
        (read_run, "q1 Q0 d 1 2.0", "line 1: expected"),
        (read_run, "q1 Q0 d one 2.0 tag", "'one'"),
        (read_run, "q1 Q0 d 1 nan tag", "NaN"),
        # Python reads 1_0 as 10.
        (read_qrels, "q1\td\t1_0", "'1_0' is not a whole number"),
        (read_run, "q1 Q0 d 1 1_0 tag", "score '1_0' is no number"),
        (read_run, "q1 Q0 d 1_0 2.0 tag", "rank '1_0' is no whole number"),
        (read_run, "q1 Q0 d 1.5 2.0 tag", "rank '1.5' is no whole number"),
        (read_run, "q1 Q0 d inf 2.0 tag", "rank 'inf' is no whole number"),
        (read_qrels, "q1\td\t1\nqid\tdoc\trel", "line 2: the grade 'rel' is not a whole number"),
        (read_qrels, "q1\td\trel", "line 1: the grade 'rel' is not a whole number"),
        (read_run, "q1 Q0 d 1 2 tag\nq1 Q0 d 2 1 tag", "comes twice in the ranking of query q1"),
        (read_corpus, "{", "line 1: not JSON"),
        (read_corpus, "[" * 100_000, "line 1: not JSON"),
        (read_corpus, "[1]", "expected an object"),
        (read_corpus, '{"text": "t"}', "'_id' must be a string, found None"),
        (read_corpus, '{"_id": "a"}', "'text' must be a string, found None"),
        (read_corpus, '{"_id": "a", "text": "t", "title": 3}', "'title' must be a string"),
        (read_corpus, '{"_id": "1", "text": "t"}\n{"_id": 1, "text": "u"}', "line 2: the id 1 comes twice"),
        (read_queries, '{"_id": "1", "text": "t"}\n{"_id": "1", "text": "u"}', "line 2: the id 1 comes twice"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, reader: Callable, text: str | bytes, message: str) -> None:
    with pytest.raises(ReadError, match=message):
        reader(write(tmp_path / "file", text))


def test_damaged_gzip_long_lines_and_missing_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = gzip.compress(b"q1 0 d 1\n" * 1000)
    (tmp_path / "cut.gz").write_bytes(whole[:-12])
    (tmp_path / "not.gz").write_bytes(b"q1 0 d 1\n")
    (tmp_path / "flipped.gz").write_bytes(whole[:12] + bytes([whole[12] ^ 255]) + whole[13:])
    for name in ("cut.gz", "not.gz", "flipped.gz"):
        with pytest.raises(ReadError, match="cannot be read"):
            read_qrels(tmp_path / name)
    with pytest.raises(ReadError, match="does not exist"):
        read_qrels(tmp_path / "absent")
    monkeypatch.setattr(files_module, "LINE_BYTES", 20)
    with pytest.raises(ReadError, match="line 2: over 20 bytes"):
        read_qrels(write(tmp_path / "long.gz", "q1 0 d 1\n" + "x" * 21))


def test_runs_are_ordered_by_score_then_rank(tmp_path: Path) -> None:
    path = write(tmp_path / "run", "q2 Q0 c 3 1.5 t\nq2 Q0 b 2 1.5 t\nq1 Q0 x 1 -3 t\nq2 Q0 a 9 7e0 t\n")
    run = read_run(path)
    assert list(run) == ["q2", "q1"]
    assert run["q2"].ids == ("a", "b", "c")
    assert run["q2"].scores.tolist() == [7.0, 1.5, 1.5]
    assert run["q2"].head == 3


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("ties", ["rank", "trec_eval"])
def test_scores_beyond_float32_are_infinite(tmp_path: Path, ties: Ties) -> None:
    path = write(tmp_path / "run", "q Q0 a 1 inf t\nq Q0 b 2 1e300 t\nq Q0 c 3 1 t\nq Q0 d 4 -1e300 t\n")
    ranking = read_run(path, ties)["q"]
    assert ranking.scores.tolist() == [math.inf, math.inf, 1.0, -math.inf]
    assert ranking.ids == (("a", "b") if ties == "rank" else ("b", "a")) + ("c", "d")
    assert tie_notes("old", {"q": ranking})[0].startswith("old has 1 equal scores")


ids = st.text(st.characters(codec="utf-8", exclude_categories=("Z", "C")), min_size=1, max_size=6)


@given(st.dictionaries(ids, st.lists(ids, min_size=1, max_size=8, unique=True), max_size=4), st.randoms())
def test_written_runs_keep_every_order(tmp_path_factory: pytest.TempPathFactory, orders: dict, random) -> None:
    path = tmp_path_factory.getbasetemp() / "round.trec"
    run = {}
    for query, order in orders.items():
        scores = [random.choice([0.0, 1.0, -np.inf, 30.0]) for _ in order]
        run[query] = Ranking(tuple(order), np.array(scores, dtype=np.float32), random.randint(0, len(order)))
    write_run(path, run)
    assert {query: ranking.ids for query, ranking in read_run(path).items()} == {q: r.ids for q, r in run.items()}


def test_ids_that_the_format_cannot_hold(tmp_path: Path) -> None:
    def one(*names: str) -> Ranking:
        return Ranking.sorted(names, [1.0] * len(names))

    for run, tag in (({"a b": one("d")}, "t"), ({"q": one("d\t")}, "t"), ({"q": one("")}, "t"), ({}, "a tag")):
        with pytest.raises(InputError, match="cannot stand in a TREC file"):
            write_run(tmp_path / "run", run, tag)
    assert not list(tmp_path.iterdir())
