"""The command line: what it prints for programs and for people, its exit codes, and its page in the documentation."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from importlib.metadata import metadata
from operator import itemgetter
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import Result

import crossrank
import tiny
from commandline import run
from crossrank import backends
from crossrank.backends.cpu import library
from crossrank.cascade import Trace
from crossrank.cli import steps, terminal
from crossrank.cli.exits import MEANINGS, Exit
from crossrank.evaluation import read_run
from crossrank.models import catalog
from crossrank.pipeline import MIX
from crossrank.types import Truncation

PROJECT = Path(__file__).resolve().parents[2]
TEXTS = "Paris is the capital of France.\n\nBread needs yeast.\n"

pytestmark = pytest.mark.usefixtures("command_line")


@pytest.fixture
def ce(cross_encoder_folder: Path) -> str:
    return str(cross_encoder_folder)


@pytest.fixture
def be(bi_encoder_folder: Path) -> str:
    return str(bi_encoder_folder)


def rows(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def process(*args: str, module: str = "crossrank.cli", **options: Any) -> subprocess.Popen[bytes]:
    paths = [str(PROJECT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", module, *args], env=env, **options)


def test_python_m_crossrank_is_the_command_line() -> None:
    found = process("rerank", "--help", module="crossrank", stdout=subprocess.PIPE).communicate(timeout=60)[0]
    assert b"Usage: crossrank rerank" in found


# rerank


def test_rerank_prints_rank_score_and_text(ce: str) -> None:
    Path("texts.txt").write_text(TEXTS, encoding="utf-8")
    fields = [line.split("\t") for line in run("rerank", "capital", "texts.txt", "-m", ce).stdout.splitlines()]
    assert [row[0] for row in fields] == ["1", "2", "3"]
    assert float(fields[0][1]) >= float(fields[1][1])
    assert sorted(row[2] for row in fields[:2]) == ["Bread needs yeast.", "Paris is the capital of France."]
    assert fields[2][1:] == ["-", ""]


@pytest.mark.parametrize("files", [(), ("-",)])
def test_rerank_reads_stdin_and_json_agrees_with_the_library(ce: str, files: tuple[str, ...]) -> None:
    found = rows(run("rerank", "capital", *files, "-m", ce, "--json", stdin=TEXTS))
    ranked = crossrank.load(ce).rank("capital", TEXTS.removesuffix("\n").split("\n"))
    assert [row["position"] for row in found] == list(ranked.positions)
    assert [row["score"] for row in found[:2]] == pytest.approx(ranked.scores[:2].tolist())
    assert [row["rank"] for row in found] == [1, 2, 3]
    assert found[2] == {
        "rank": 3, "id": "stdin:2", "position": 1, "score": None, "probability": None, "text": "", "title": "",
        "truncation": None,
    }  # fmt: skip


def test_rerank_keeps_the_ids_of_jsonl(ce: str) -> None:
    Path("a.jsonl").write_text(
        '{"id": 7, "text": "Tea."}\n\n{"_id": "b", "text": "Bread.", "title": "On bread"}\n{"text": "c"}\n',
        encoding="utf-8",
    )
    found = {row["id"]: row for row in rows(run("rerank", "tea", "a.jsonl", "-m", ce, "--json"))}
    assert set(found) == {7, "b", "a.jsonl:4"}
    assert found["b"]["title"] == "On bread"
    lines = rows(run("rerank", "tea", "a.jsonl", "-m", ce, "--json", "--input", "lines"))
    assert len(lines) == 4


def test_rerank_gives_the_fields_of_a_row_back(ce: str) -> None:
    row = {"id": 1, "text": "Tea.", "score": 9, "year": 2020, "tags": ["a", {"b": None}], "meta": {"page": 3}}
    Path("a.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    (found,) = rows(run("rerank", "tea", "a.jsonl", "-m", ce, "--json"))
    assert {key: found[key] for key in row if key != "score"} == {key: row[key] for key in row if key != "score"}
    assert found["score"] != 9, "what rerank says of a passage is its own"
    Path("a.csv").write_text("id,Text,year\n1,Tea.,2020\n", encoding="utf-8")
    (found,) = rows(run("rerank", "tea", "a.csv", "-m", ce, "--json"))
    assert (found["id"], found["text"], found["year"]) == ("1", "Tea.", "2020")
    assert "Text" not in found
    # What Python reads, but JSON cannot hold.
    odd = '{"text": "Tea.", "a": [NaN, 1e999], "b": {"\\ud800": "\\ud800"}, "score": NaN}\n'
    (found,) = rows(run("rerank", "tea", "--input", "jsonl", "-m", ce, "--json", stdin=odd))
    assert (found["a"], found["b"]) == ([None, None], {"\ufffd": "\ufffd"})


def test_rerank_reads_no_number_as_no_title(ce: str) -> None:
    """Tables have NaN in place of None; an index had the title "nan", and here it was an error."""
    from crossrank.index.documents import Limits
    from crossrank.index.rows import Rows

    row = {"text": "Tea.", "title": float("nan")}
    (found,) = rows(run("rerank", "tea", "--input", "jsonl", "-m", ce, "--json", stdin=json.dumps(row)))
    assert found["title"] == ""
    document = Rows("a", "a", Limits(), pytest.fail).document(row, 1)
    assert document is not None
    assert document.title == ""
    wrong = json.dumps({"text": "Tea.", "title": 1.5})
    told = run("rerank", "tea", "--input", "jsonl", "-m", ce, stdin=wrong, code=1).stderr
    assert '"title" must be a string, not a number' in told


def test_rerank_reads_the_first_field_that_holds_something(ce: str) -> None:
    row = '{"text": "", "content": "Tea.", "_id": null, "id": "t", "body": "more"}\n'
    (found,) = rows(run("rerank", "tea", "--input", "jsonl", "-m", ce, "--json", stdin=row))
    assert (found["id"], found["text"], found["body"]) == ("t", "Tea.", "more")
    assert "content" not in found


def test_fields_of_a_row_never_stand_where_a_commands_own_do(ce: str) -> None:
    row = '{"text": "Tea.", "read": "mine", "evidence": "mine", "query_truncation": "mine", "rank": "mine"}\n'
    for more in ((), ("--explain",), ("--budget-ms", "10000")):
        assert "mine" not in run("rerank", "tea", "--input", "jsonl", "-m", ce, "--json", *more, stdin=row).stdout


def test_rows_are_kept_whole_only_for_json(ce: str) -> None:
    deep = '{"text": "Tea.", "a": ' + "[" * 700 + "]" * 700 + "}\n"
    assert run("rerank", "tea", "--input", "jsonl", "-m", ce, stdin=deep).stdout.endswith("Tea.\n")
    from crossrank.cli.rows import read

    Path("a.jsonl").write_text('{"text": "Tea.", "a": 1}\n', encoding="utf-8")
    assert read(["a.jsonl"], "utf-8", None)[0].fields == {}
    assert read(["a.jsonl"], "utf-8", None, fields=True)[0].fields == {"a": 1}


def test_rerank_gives_back_what_search_found(ce: str) -> None:
    found = {"rank": 1, "id": "a#0", "document": "a.md", "score": 0.5, "step": "fused", "title": "", "text": "Tea.",
             "metadata": {"year": 2020}}  # fmt: skip
    (again,) = rows(run("rerank", "tea", "--input", "jsonl", "-m", ce, "--json", stdin=json.dumps(found)))
    assert (again["id"], again["document"], again["metadata"]) == ("a#0", "a.md", {"year": 2020})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nothing", "not a JSON row"),
        ("[1]", "not a list"),
        ('{"text": null}', "its text is null, not a string"),
        ('{"content": {"a": 1}}', "its text is an object, not a string"),
        ('{"words": "x"}', "in one of text, content, contents, body, passage; this one holds words"),
        ('{"query": "x", "documents": ["y"]}', "holds query, documents. Rows of a query and its documents are for `cr"),
        ('{"text": "x", "title": 1}', "not a number"),
        ('{"text": "\\ud800"}', "surrogate"),
    ],
)
def test_rerank_names_the_bad_row(ce: str, line: str, said: str) -> None:
    error = run("rerank", "q", "-m", ce, "--input", "jsonl", stdin='{"text": "x"}\n' + line + "\n", code=1).stderr
    assert "stdin:2" in error
    assert said in error


@pytest.mark.parametrize("name", ["text", "content", "body", "passage", "Text"])
def test_rerank_reads_the_fields_that_an_index_reads(ce: str, name: str) -> None:
    Path("a.jsonl").write_text(json.dumps({name: "Tea.", "_id": "t"}) + "\n", encoding="utf-8")
    Path("a.csv").write_text(f"_id;{name}\nt;Tea.\n", encoding="utf-8")
    for file in ("a.jsonl", "a.csv"):
        (row,) = rows(run("rerank", "tea", file, "-m", ce, "--json"))
        assert (row["id"], row["text"]) == ("t", "Tea.")


def test_rerank_reads_tables_as_rows_and_not_their_headers(ce: str) -> None:
    table = 'id,title,content\n1,On tea,"Tea, and\nmilk."\n,,Bread.\n'
    Path("a.csv").write_text(table, encoding="utf-8")
    with gzip.open("b.csv.gz", "wt", encoding="utf-8") as file:
        file.write(table)
    for files, stdin in ((("a.csv",), None), (("b.csv.gz",), None), (("--input", "csv"), table)):
        found = sorted(rows(run("rerank", "tea", *files, "-m", ce, "--json", stdin=stdin)), key=itemgetter("position"))
        assert [row["text"] for row in found] == ["Tea, and\nmilk.", "Bread."]
        assert [row["title"] for row in found] == ["On tea", ""]
        # The second row begins on the fourth line.
        assert [row["id"] for row in found] == ["1", f"{'stdin' if stdin else files[0]}:4"]
    assert len(rows(run("rerank", "tea", "a.csv", "--input", "lines", "-m", ce, "--json"))) == 4
    Path("a.csv").write_text("\n \ntext\nTea.\n", encoding="utf-8")
    assert [row["id"] for row in rows(run("rerank", "tea", "a.csv", "-m", ce, "--json"))] == ["a.csv:4"]


def test_rerank_reads_coarse_to_fine(ce: str, tmp_path: Path) -> None:
    """5,000 lines took a minute, of which the model that is asked about the best need not read the most."""
    coarse = str(tiny.late(tmp_path / "late"))
    texts = [
        f"the cat is in france {word}" for word in ("paris", "bread", "yeast", "planet", "capital", "of", "what", "a")
    ]
    lines = "\n".join(texts)
    found = rows(run("rerank", "paris", "-m", ce, "--coarse", coarse, "-k", "8", "--json", stdin=lines))
    first = [row["position"] for row in rows(run("rerank", "paris", "-m", coarse, "--json", stdin=lines))]
    # As many as are wanted are read by the last; without -k the best half.
    assert [row["read"] for row in found] == [True] * 8
    found = rows(run("rerank", "paris", "-m", ce, "--coarse", coarse, "--json", stdin=lines))
    assert [row["read"] for row in found] == [True] * 4 + [False] * 4
    assert {row["position"] for row in found[:4]} == set(first[:4])
    assert [row["position"] for row in found[4:]] == first[4:]
    alone = {row["text"]: row["score"] for row in rows(run("rerank", "paris", "-m", ce, "--json", stdin=lines))}
    assert [row["score"] for row in found[:4]] == pytest.approx([alone[row["text"]] for row in found[:4]], abs=1e-5)
    assert [row["score"] for row in found[4:]] == [None] * 4
    assert [alone[row["text"]] for row in found[:4]] == sorted((alone[row["text"]] for row in found[:4]), reverse=True)
    assert run("rerank", "paris", "-m", ce, "--coarse", coarse, stdin=lines).stdout.count("\n") == 8
    # What is cut is told of the right passage, whose place the first model changed.
    long = "\n".join([*texts, "paris " * 5000])
    told = run(
        "rerank", "paris", "-m", ce, "--coarse", coarse, "-k", "9", "--window", "20", "--overlap", "5", stdin=long
    )
    assert "1 passage was not read whole" in told.stderr
    assert "stdin:9 (" in told.stderr
    budget = rows(run("rerank", "paris", "-m", ce, "--coarse", coarse, "--budget-ms", "60000", "--json", stdin=lines))
    assert [row["position"] for row in budget] == [row["position"] for row in found]
    assert rows(run("rerank", "q", "-m", ce, "--coarse", coarse, "--json", stdin="")) == []


def test_rerank_reads_paragraphs(ce: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a sentence a line is no passage, and every second line of a text file was ranked by itself."""
    text = "\n\nTea is\nhot.\n \t\r\nBread needs\r\n  yeast.\n\n\nCats"
    Path("a.txt").write_bytes(text.encode())
    for files, stdin in (("a.txt",), None), ((), text):
        found = rows(run("rerank", "tea", *files, "--input", "paragraphs", "-m", ce, "--json", stdin=stdin))
        name = files[0] if files else "stdin"
        assert sorted((row["position"], row["id"], row["text"]) for row in found) == [
            (0, f"{name}:3", "Tea is\nhot."), (1, f"{name}:6", "Bread needs\n  yeast."), (2, f"{name}:10", "Cats"),
        ]  # fmt: skip
    assert "No passages were given" in run("rerank", "q", "--input", "paragraphs", "-m", ce, stdin="\n \n").stderr
    monkeypatch.setattr("crossrank.cli.rows.MOST_BYTES", 18)
    error = run(
        "rerank", "q", "--input", "paragraphs", "-m", ce, stdin="short\n\nlonger line\nand more\n", code=1
    ).stderr
    assert "ends at line 4 is longer than" in error
    assert "blank lines" in error


@pytest.mark.parametrize("name", ["a.tsv", "a.tsv.gz"])
def test_rerank_reads_tsv_as_an_index_does(ce: str, name: str) -> None:
    """More commas than tabs stand in the first line, and a cell that begins with a quote is not quoted for that."""
    table = '\nid\tname, first, last\ttext\n1\tx\t"Tea," he said.\n\ty\t"Bread\tand ""jam""."\n'
    with gzip.open(name, "wt") if name.endswith(".gz") else open(name, "w") as file:
        file.write(table)
    found = sorted(rows(run("rerank", "tea", name, "-m", ce, "--json")), key=itemgetter("position"))
    assert [(row["id"], row["text"]) for row in found] == [
        ("1", '"Tea," he said.'),
        (f"{name}:4", 'Bread\tand "jam".'),
    ]
    assert len(rows(run("rerank", "tea", name, "--input", "lines", "-m", ce, "--json"))) == 4


def test_rerank_reads_no_title_and_no_id_from_a_column_without_a_name(ce: str) -> None:
    Path("a.csv").write_text(",text\n7,Tea.\n", encoding="utf-8")  # As df.to_csv() of pandas writes.
    (row,) = rows(run("rerank", "tea", "a.csv", "-m", ce, "--json"))
    assert (row["id"], row["title"], row[""]) == ("a.csv:2", "", "7")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("a,b\n1,2\n", "name it one of text, content, contents, body, passage (its columns: a, b)"),
        ("text,Text\na,b\n", "two columns of the same name"),
        ("text\none, two\n", "x.csv:2 has 2 cells, but the first line names 1 column: put quotes"),
        ('text\n"never closed\n', "x.csv:2 is not a row of a table"),
    ],
)
def test_rerank_names_what_is_wrong_with_a_table(ce: str, table: str, said: str) -> None:
    Path("x.csv").write_text(table, encoding="utf-8")
    error = run("rerank", "q", "x.csv", "-m", ce, code=1).stderr
    assert said in error
    if "same name" not in said:
        assert "--input lines" in error


def test_rerank_decompresses_and_names_the_cure(ce: str) -> None:
    packed = gzip.compress(b'{"text": "Tea."}\n')
    Path("a.jsonl.gz").write_bytes(packed)
    assert rows(run("rerank", "tea", "a.jsonl.gz", "-m", ce, "--json"))[0]["text"] == "Tea."
    Path("cut.jsonl.gz").write_bytes(packed[:-9])
    Path("none.gz").write_bytes(b"plain text\n")
    for file in ("cut.jsonl.gz", "none.gz"):
        assert f"{file} is not whole gzip data" in run("rerank", "tea", file, "-m", ce, code=1).stderr
    said = run("rerank", "tea", "-m", ce, stdin=packed, code=1).stderr
    assert "gunzip -c" in said
    assert "latin-1" not in said


def test_rerank_asks_what_a_json_file_is(ce: str) -> None:
    Path("a.json").write_text('{"text": "Tea."}\n', encoding="utf-8")
    assert "jq -c '.[]' a.json" in run("rerank", "tea", "a.json", "-m", ce, code=1).stderr
    assert rows(run("rerank", "tea", "a.json", "--input", "jsonl", "-m", ce, "--json"))[0]["text"] == "Tea."


def test_rerank_warns_of_json_that_it_ranks_as_text(ce: str) -> None:
    lines = '{"rank": 1, "id": "t", "text": "Tea."}\n'
    told = run("rerank", "tea", "-m", ce, "--json", stdin=lines)
    assert "add --input jsonl" in told.stderr
    assert rows(told)[0]["text"] == lines.strip()
    row = run("rerank", "tea", "-m", ce, "--json", "--input", "jsonl", stdin=lines)
    assert (rows(row)[0]["id"], row.stderr) == ("t", "")
    for silent in ("{not JSON}\n", '{"words": "x"}\n', "tea\n" + lines):
        assert run("rerank", "tea", "-m", ce, stdin=silent).stderr == ""
    assert run("rerank", "tea", "-m", ce, "--input", "lines", stdin=lines).stderr == ""


def test_rerank_with_a_late_interaction_model(ce: str, tmp_path: Path) -> None:
    late = str(tiny.late(tmp_path / "late"))
    args = ("rerank", "capital", "-m", late)
    found = rows(run(*args, "--json", stdin=TEXTS))
    ranked = crossrank.load_late(late).rank("capital", TEXTS.removesuffix("\n").split("\n"))
    assert [row["position"] for row in found] == list(ranked.positions)
    assert [row["score"] for row in found[:2]] == pytest.approx(ranked.scores[:2].tolist())
    assert {row["probability"] for row in found} == {None}
    assert rows(run(*args, "--json", "--explain", stdin=TEXTS))[0]["evidence"]["sentences"] == 1
    assert "leave out --probability" in run(*args, "--probability", stdin=TEXTS, code=1).stderr
    assert (
        "leave --max-length, --fold out" in run(*args, "--fold", "max", "--max-length", "9", stdin="x", code=1).stderr
    )
    assert "leave the cache out" in run(*args, "--cache", "scores", stdin=TEXTS, code=1).stderr
    # A variable is for every command, and this one failed by it.
    same = rows(run(*args, "--json", stdin=TEXTS, env={"CROSSRANK_CACHE": "scores"}))
    assert same == found
    assert not Path("scores").exists()


def test_what_a_late_interaction_model_is_for_is_said_in_words_of_the_command_line(tmp_path: Path) -> None:
    late = str(tiny.late(tmp_path / "late"))
    Path("p.jsonl").write_text('{"query_id": "q", "document_id": "d", "query": "q", "text": "x"}\n', encoding="utf-8")
    commands = [("bulk", "rerank", "p.jsonl", "--to", "s", "--workers", "0")]
    if importlib.util.find_spec("starlette"):
        commands.append(("serve",))
    for command in commands:
        said = run(*command, "-m", late, code=1).stderr
        assert "is a late-interaction model" in said
        assert "crossrank search and rerank take it as --model" in said


def test_the_least_length_that_works_is_the_least_that_is_taken(ce: str) -> None:
    for command in (("rerank", "cat"), ("bulk", "rerank", "p.jsonl", "--to", "s")):
        Path("p.jsonl").touch()
        assert "x>=5" in run(*command, "--max-length", "4", "-m", ce, stdin=TEXTS, code=2).stderr
    assert len(run("rerank", "cat", "--max-length", "5", "-m", ce, stdin=TEXTS).stdout.splitlines()) == 3
    with pytest.raises(crossrank.CrossrankError, match="from 5 to"):
        crossrank.load(ce, max_length=4)


@pytest.mark.parametrize("where", ["terminal", "pipe"])
def test_rerank_shows_how_far_it_is_on_a_terminal_alone(ce: str, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich import progress

    seen: list[Any] = []
    update = progress.Progress.update

    def spy(self: Any, *args: Any, **now: Any) -> None:
        seen.append((now["completed"], now["total"]))
        update(self, *args, **now)

    monkeypatch.setattr(progress.Progress, "update", spy)
    if where == "terminal":
        monkeypatch.setattr(terminal, "on_terminal", lambda *, err=False: err)
    told = run("rerank", "capital", "-m", ce, stdin=TEXTS)
    assert len(told.stdout.splitlines()) == 3
    assert (seen[-1:] == [(2, 2)]) == (where == "terminal")
    assert where == "terminal" or (not seen and not told.stderr)


def test_rerank_k(ce: str) -> None:
    assert len(run("rerank", "q", "-m", ce, "-k", "1", stdin=TEXTS).stdout.splitlines()) == 1
    assert len(run("rerank", "q", "-m", ce, "-k", "99", stdin=TEXTS).stdout.splitlines()) == 3
    assert "-k" in run("rerank", "q", "-m", ce, "-k", "0", stdin=TEXTS, code=2).stderr


def test_rerank_without_passages_says_so(ce: str) -> None:
    result = run("rerank", "q", "-m", ce, stdin="")
    assert result.stdout == ""
    assert "No passages" in result.stderr


def test_rerank_gives_probabilities(ce: str) -> None:
    result = run("rerank", "q", "-m", ce, "--probability", "--json", stdin=TEXTS, code=0)
    chances = [row["probability"] for row in rows(result)]
    assert all(0 <= chance <= 1 for chance in chances[:2])
    assert chances[2] is None


def test_rerank_warns_of_what_was_not_read(ce: str) -> None:
    result = run("rerank", "cat " * 100, "-m", ce, "--json", stdin="a cat\n")
    assert "the query was cut" in result.stderr
    assert rows(result)[0]["query_truncation"]["lost"] is True


@pytest.mark.parametrize("query", ["", "  "])
def test_an_empty_query_is_refused_before_anything_is_read(query: str) -> None:
    for args in (("rerank", query, "-m", "./no-such-model"), ("search", "no.index", query)):
        assert "the query is empty" in run(*args, stdin=b"\xff", code=1).stderr


def test_rerank_usage_errors(ce: str) -> None:
    assert "QUERY" in run("rerank", code=2).stderr
    assert "not text" in run("rerank", "caf\udce9", "-m", ce, stdin=TEXTS, code=2).stderr
    assert "unknown encoding" in run("rerank", "q", "-m", ce, "--encoding", "nope", stdin=TEXTS, code=2).stderr


def test_what_is_missing_is_an_error_in_the_input(ce: str, index: str) -> None:
    """Some commands ended with 2, as if the command line was wrong, and others with 1."""
    Path("p.txt").write_text(TEXTS, encoding="utf-8")
    said = run("rerank", "capital of france", "nowhere.txt", "-m", ce, code=1).stderr
    assert "there is no file 'nowhere.txt'\n" in said
    swapped = run("rerank", "p.txt", "capital of france", "-m", ce, code=1).stderr
    assert "there is no file 'capital of france', and QUERY is the name of one: QUERY comes first" in swapped
    for args in (
        ("index", "nowhere", "--to", index), ("search", "nowhere", "cat"), ("tune", "nowhere", "--to", "tuned"),
        ("eval", "nowhere"), ("frontier", "nowhere"), ("calibrate", ce, "nowhere", "--to", "m"),
        ("label", "nowhere", "--to", "g.jsonl", "--url", "http://localhost:9", "--grader", "g"),
        ("bulk", "rerank", "nowhere", "--to", "made"), ("serve", "--keys", "nowhere"),
        ("check", ce, "--data", "nowhere"),
    ):  # fmt: skip
        assert "nowhere" in run(*args, code=1).stderr


def test_names_that_other_tools_have_for_k(ce: str, index: str) -> None:
    for name in ("-k", "--top-k", "--top-n"):
        assert len(run("rerank", "capital", "-m", ce, name, "2", stdin=TEXTS).stdout.splitlines()) == 2
        assert len(run("search", index, "cat", "--no-rerank", name, "1").stdout.splitlines()) == 1
        assert "-k" in run("rerank", "q", "-m", ce, name, "0", stdin=TEXTS, code=2).stderr
    for command in (("rerank",), ("search",), ("bulk", "rerank")):
        assert "--top" not in run(*command, "--help").stdout


def test_rerank_reads_the_encoding_it_is_told(ce: str) -> None:
    assert "not utf-8 text (byte 4: 0xe9)" in run("rerank", "q", "-m", ce, stdin=b"x\ncaf\xe9\n", code=1).stderr
    args = ("rerank", "q", "-m", ce, "--json", "--encoding")
    assert rows(run(*args, "latin-1", stdin=b"caf\xe9\n"))[0]["text"] == "café"
    texts = {row["text"] for row in rows(run(*args, "utf-16", stdin="é\nb\n".encode("utf-16")))}
    assert texts == {"é", "b"}
    for alias, written in (("utf16", "utf-16"), ("utf-16-le", "utf-16"), ("U32", "utf-32")):
        found = rows(run(*args, alias, stdin="é\r\nb\r\n".encode(written)))
        assert {row["text"] for row in found} == {"é", "b"}
    # Letters whose bytes look like a newline's, and the order of bytes that the system has where no mark says it.
    odd = ["", "\u0a0a\u0a41", "\u4100\u0a00", "\u0041\u0a41", "😀"]
    for codec in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"):
        found = rows(run(*args, codec, stdin="\n".join(odd).encode(codec)))
        assert sorted(row["text"] for row in found) == sorted(odd)
    for mark in ("utf-16-be", "utf-32-be"):
        found = rows(run(*args, mark[:6], stdin="\ufeffa\nb\n".encode(mark)))
        assert sorted(row["text"] for row in found) == ["a", "b"]
    assert run(*args, "utf-16", stdin=b"").stdout == ""
    assert "line 2 is not utf-16-le text" in run(*args, "utf-16", stdin=b"a\0\n\0b", code=1).stderr
    assert "NUL" in run("rerank", "q", "-m", ce, stdin=b"a\0b\n", code=1).stderr
    assert rows(run(*args, "utf-8", stdin=b"\xef\xbb\xbfa\r\n"))[0]["text"] == "a"


def test_a_limit_of_lines_is_none_of_files(ce: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole file of UTF-16 was held to the limit of one line, and said to be one."""
    monkeypatch.setattr("crossrank.cli.rows.MOST_BYTES", 2**20)
    args = ("rerank", "q", "-m", ce, "--backend", "fake", "-k", "1", "--encoding")
    for codec in ("utf-8", "utf-16", "utf-32-be"):
        run(*args, codec, stdin=f"{'tea ' * 25_000}\n".encode(codec) * 12)
        error = run(*args, codec, stdin=f"tea\n{'tea ' * 300_000}\n".encode(codec), code=1).stderr
        assert "line 2 is longer than 1 MiB" in error


def test_model_and_backend_come_from_the_environment(ce: str) -> None:
    env = {"CROSSRANK_MODEL": ce, "CROSSRANK_BACKEND": "fake"}
    fake = rows(run("rerank", "q", "--json", stdin=TEXTS, env=env))
    assert (
        fake[0]["score"] == rows(run("rerank", "q", "-m", ce, "--backend", "fake", "--json", stdin=TEXTS))[0]["score"]
    )
    assert "no-such-backend" in run("rerank", "q", "-m", ce, "--backend", "no-such-backend", stdin="x", code=1).stderr


def test_a_missing_model_is_an_error(tmp_path: Path) -> None:
    assert run("rerank", "q", "-m", str(tmp_path / "none"), stdin="x\n", code=1).stderr.startswith("Error: ")


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (KeyboardInterrupt(), Exit.INTERRUPTED, "interrupted"),
        (MemoryError(), Exit.ERROR, "out of memory"),
        (PermissionError(13, "Permission denied", "x"), Exit.ERROR, "Permission denied: x"),
        (BrokenPipeError(32, "Broken pipe"), Exit.OK, ""),
    ],
)
def test_what_ends_a_command(monkeypatch: pytest.MonkeyPatch, raised: BaseException, code: Exit, said: str) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise raised

    monkeypatch.setattr(crossrank, "load", load, raising=False)
    assert said in run("rerank", "q", stdin="x\n", code=code).stderr


def test_tables_show_text_as_it_is_but_no_control_codes(ce: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "on_terminal", lambda *, err=False: True)
    shown = run("rerank", "q", "-m", ce, stdin="[red]a[/red] \x1b[2J :smile:\n\n").stdout
    assert "[red]a[/red]" in shown
    assert ":smile:" in shown
    assert "\x1b[2J" not in shown
    assert "(no text)" in shown
    assert "%" in run("rerank", "q", "-m", ce, "--probability", stdin="a\n").stdout


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
def test_a_reader_that_leaves_is_no_error(ce: str) -> None:
    writer = process(
        "rerank", "q", "-m", ce, "--backend", "fake",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert writer.stdin is not None
    assert writer.stdout is not None
    writer.stdout.close()
    writer.stdin.write(b"bread\n" * 500)
    writer.stdin.close()
    assert writer.stderr is not None
    errors = writer.stderr.read()
    writer.stderr.close()
    assert (writer.wait(60), errors) == (0, b"")


# index and search


@pytest.fixture
def documents() -> Path:
    pytest.importorskip("lance", reason="needs the search extra")
    folder = Path("documents")
    folder.mkdir()
    (folder / "paris.txt").write_text("Paris is the capital of France.\n", encoding="utf-8")
    row = {"id": "bread", "title": "Baking", "text": "Bread needs yeast.", "year": 2021}
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def index(documents: Path, be: str) -> str:
    run("index", str(documents), "--to", "my.index", "-m", be)
    return "my.index"


def test_index_reads_only_what_changed(documents: Path, be: str) -> None:
    args = ("index", str(documents), "--to", "i", "--json")
    first = rows(run(*args, "-m", be))[0]
    assert (first["passages"], first["added"], first["unchanged"], first["failed"]) == (2, 2, 0, [])
    # The index knows its embedder.
    second = rows(run(*args))[0]
    assert (second["added"], second["changed"], second["deleted"], second["unchanged"]) == (0, 0, 0, 2)
    (documents / "paris.txt").unlink()
    third = rows(run(*args))[0]
    assert (third["passages"], third["deleted"], third["unchanged"]) == (1, 1, 1)
    rebuilt = rows(run(*args, "-m", be, "--rebuild"))[0]
    assert (rebuilt["passages"], rebuilt["added"]) == (1, 1)
    assert "0 added, 0 changed, 0 deleted, 1 unchanged, 0 failed" in run(*args[:-1]).stdout


def test_index_keeps_token_vectors(documents: Path, be: str, ce: str, tmp_path: Path) -> None:
    late = str(tiny.late(tmp_path / "late"))
    run("index", str(documents), "--to", "i", "-m", be, "--late", late)
    # The index knows its late-interaction model, as it knows its embedder.
    (documents / "new.txt").write_text("a new cat", encoding="utf-8")
    assert rows(run("index", str(documents), "--to", "i", "--json"))[0]["added"] == 1
    found = rows(run("search", "i", "a new cat", "-m", late, "--json", "--explain"))
    assert found[0]["steps"][late]["raw_score"] is not None
    env = {"CROSSRANK_CACHE": "scores"}
    assert rows(run("search", "i", "a new cat", "-m", late, "--json", env=env))[0]["id"] == found[0]["id"]
    assert not Path("scores").exists()
    assert "scores came from the cache" in run("search", "i", "cat", "-m", late, "--coarse", ce, env=env).stderr
    assert "leave the cache out" in run("search", "i", "cat", "-m", late, "--cache", "scores", code=1).stderr
    assert found[-1]["explain"]["steps"][-1]["note"] == ""


def test_a_rebuilt_index_keeps_what_is_not_named(
    documents: Path, be: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from crossrank.index import Index
    from crossrank.index.passages import LEAST

    late = str(tiny.late(tmp_path / "late"))
    args = ("index", str(documents), "--to", "i")
    run(*args, "-m", be, "--late", late, "--language", "German", "--passage-tokens", "20")
    before = Index.open("i").info()
    run(*args, "--rebuild")
    after = Index.open("i").info()
    names = ("model", "size", "overlap", "language", "late")
    assert [getattr(after, name) for name in names] == [getattr(before, name) for name in names]
    assert after.version > before.version
    run(*args, "--rebuild", "--language", "any", "--passage-tokens", str(LEAST), "--late", "none")
    after = Index.open("i").info()
    assert (after.model, after.size, after.language, after.late) == (before.model, LEAST, "any", None)
    assert f"x>={LEAST}" in run(*args, "--passage-tokens", str(LEAST - 1), code=2).stderr
    with monkeypatch.context() as patch:
        patch.setattr("crossrank.cli.index.made_with", lambda folder: None)
        assert "The settings of i cannot be read" in run(*args, "--rebuild", "-m", be).stderr
    run(*args, "-m", be, "--late", late, "--language", "german", "--rebuild")
    assert Index.open("i").info().language == "German"
    run(*args, "--language", "GERMAN")
    for manifest in Path("i/passages.lance/_versions").iterdir():
        manifest.write_bytes(b"damaged")
    error = run(*args, "--rebuild", "-m", be, code=1).stderr
    assert f"delete {Path('i/passages.lance').absolute()}, then run this again" in error
    shutil.rmtree("i/passages.lance")
    run(*args, "--rebuild", "-m", be)


def test_an_index_keeps_the_prompts_of_its_embedder(documents: Path, be: str) -> None:
    from crossrank.index import Index

    args = ("index", str(documents), "--to", "i")
    both = {"query_prompt": "what is ", "document_prompt": "the "}
    run(*args, "-m", be, "--query-prompt", "what is ", "--document-prompt", "the ")
    assert Index.open("i").settings.prompts == both
    run(*args)
    run(*args, "--query-prompt", "what is ")
    told = run(*args, "--query-prompt", "which ", code=1).stderr
    assert "leave --query-prompt and --document-prompt out, or make it anew with `crossrank index --rebuild`" in told
    assert "capital" in run("search", "i", "capital", "--no-rerank").stdout
    run(*args, "--rebuild")
    assert Index.open("i").settings.prompts == both
    run(*args, "--rebuild", "-m", be, "--document-prompt", "")
    assert Index.open("i").settings.prompts == {"query_prompt": "what is ", "document_prompt": ""}
    run("models", "export", "embed", "other")
    run(*args, "--rebuild", "-m", "./other")
    assert Index.open("i").settings.prompts == {}
    run("bulk", "index", str(documents), "--to", "b", "-m", be, "--query-prompt", "what is ", "--workers", "0")
    assert Index.open("b").settings.prompts == {"query_prompt": "what is ", "document_prompt": ""}
    run("bulk", "index", str(documents), "--to", "b", "--workers", "0")
    assert "made with" in run("bulk", "index", str(documents), "--to", "b", "--query-prompt", "x", code=1).stderr
    # The same command goes on, also where the prompts that it names are the model's own, or none.
    for own in (("--query-prompt", ""), ("--query-prompt", "", "--document-prompt", "")):
        for command in (("index",), ("bulk", "index", "--workers", "0")):
            for _ in range(2):
                run(*command, str(documents), "--to", f"own{len(own)}{len(command)}", "-m", be, *own)


def test_an_index_whose_models_are_gone_says_how_to_name_others(
    documents: Path, bi_encoder_folder: Path, be: str, tmp_path: Path
) -> None:
    shutil.copytree(bi_encoder_folder, "embedder")
    late = tiny.late(tmp_path / "late")
    args = ("index", str(documents), "--to", "i")
    run(*args, "-m", "embedder", "--late", str(late))
    late.rename(tmp_path / "later")
    error = run(*args, "--rebuild", code=1).stderr
    assert "the index was made with it: name where it is now, or with --rebuild another, as --late NAME" in error
    shutil.rmtree("embedder")
    assert "as --model NAME" in run(*args, "--rebuild", code=1).stderr
    assert "the index was made with it" not in run(*args, "--rebuild", "-m", "./none", code=1).stderr
    run(*args, "--rebuild", "-m", be, "--late", "none")


def test_a_rebuilt_index_keeps_its_overlap_and_what_another_embedder_reads(
    documents: Path, be: str, tmp_path: Path
) -> None:
    from crossrank.index import Index

    embedder = crossrank.load_embedder(be)
    args = ("index", str(documents), "--to", "i", "--rebuild")
    made = {"model": be, "size": 60, "overlap": 12}  # More than it reads, as a program may want it.
    Index.create("i", embedder, embedder.tokenizer, **made)  # type: ignore[arg-type]
    run(*args)
    assert (Index.open("i").info().size, Index.open("i").info().overlap) == (60, 12)
    other = str(tiny.bi_encoder(tmp_path / "other", pooling="cls"))
    run(*args, "-m", other)
    assert (Index.open("i").info().size, Index.open("i").info().overlap) == (46, 11)


def test_index_tells_what_is_left_out_and_what_stays(documents: Path, be: str) -> None:
    row = {"id": "v", "text": "A vector.", "vector": [0.5] * 999}
    (documents / "v.jsonl").write_text(json.dumps(row), encoding="utf-8")
    files = [str(file) for file in sorted(documents.iterdir())]
    told = run("index", *files, "--to", "i", "-m", be).stderr
    assert "longer than 1,000 characters as JSON, beyond the 128,000 characters of a document, or in" in told
    assert "has another value: vector (of 1)" in told
    Path(files[0]).unlink()
    told = run("index", *files[1:], "--to", "i").stderr
    assert "Elsewhere than in PATHS 1 indexed file is gone" in told
    assert "vector (of" not in told
    done = rows(run("index", *files[1:], "--to", "i", "--json"))[0]
    assert (done["missing"], done["omitted"]) == ([str(Path(files[0]).resolve())], {})
    assert rows(run("index", *files, "--to", "i", "--json"))[0]["deleted"] == 1


def test_index_names_the_kinds_of_files_that_it_passes_over(documents: Path, be: str) -> None:
    for name in ("a.docx", "b.docx", "c.png", ".hidden.gif"):
        (documents / name).write_bytes(b"x")
    told = run("index", str(documents), "--to", "i", "-m", be).stderr
    assert "such files or folders are not read: 2 .docx, 1 .png." in told
    # Also its own index, when it lies among the documents.
    (documents / "node_modules").mkdir()
    run("index", str(documents), "--to", str(documents / "own"), "-m", be)
    told = run("index", str(documents), "--to", str(documents / "own"), "-m", be).stderr
    assert "not read: 1 index or Lance table, 1 node_modules folder, 2 .docx, 1 .png." in told
    shutil.rmtree(documents / "own")
    (documents / "node_modules").rmdir()
    assert rows(run("index", str(documents), "--to", "i", "--json"))[0]["passed_over"] == {".docx": 2, ".png": 1}
    assert "of a kind that cannot be indexed" in run("index", str(documents / "c.png"), "--to", "i", code=1).stderr


def test_index_names_the_files_that_fail(documents: Path, be: str) -> None:
    (documents / "bad.txt").write_bytes(b"caf\xe9 au lait\n" * 9)
    result = run("index", str(documents), "--to", "i", "-m", be, code=3)
    assert "1 failed" in result.stdout
    assert result.stderr.count("bad.txt") == 1
    failed = rows(run("index", str(documents), "--to", "i", "--json", code=3))[0]["failed"]
    assert [Path(failure["source"]).name for failure in failed] == ["bad.txt"]
    assert failed[0]["reason"]
    assert len(rows(run("search", "i", "bread", "--no-rerank", "--json"))) == 2


def test_index_reports_what_vectors_do_not_tell_of(documents: Path, be: str) -> None:
    row = {"id": "titled", "title": "cat " * 60, "text": "Bread."}
    (documents / "more.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    result = run("index", str(documents), "--to", "i", "-m", be)
    assert "1 passage is longer than what a vector tells of" in result.stderr
    assert "titled (46 of " in result.stderr
    done = rows(run("index", str(documents), "--to", "i", "--rebuild", "-m", be, "--json"))[0]
    assert [(unread["passage"], unread["read"]) for unread in done["unread"]] == [("titled", 46)]
    assert "a vector tells of" not in run("index", str(documents), "--to", "i").stderr


def test_index_refuses_passages_that_the_embedder_would_cut(documents: Path, be: str) -> None:
    args = ("index", str(documents), "--to", "i", "-m", be, "--passage-tokens")
    assert "use --passage-tokens 46 or fewer" in run(*args, "47", code=1).stderr
    assert not Path("i").exists()
    run(*args, "46")


def test_index_of_an_empty_folder_says_that_it_is_empty(documents: Path, be: str) -> None:
    Path("empty").mkdir()
    result = run("index", "empty", "--to", "i", "-m", be)
    assert "0 passages" in result.stdout
    assert "Nothing to index" in result.stderr
    found = run("search", "i", "bread", "--no-rerank")
    assert found.stdout == ""
    assert "Nothing was found" in found.stderr


def test_index_errors(documents: Path, be: str) -> None:
    assert "nowhere" in run("index", "nowhere", "--to", "i", "-m", be, code=1).stderr
    assert "--to" in run("index", str(documents), code=2).stderr
    assert run("index", str(documents), "--to", "i", "-m", "./none", code=1).stderr.startswith("Error: ")
    Path("other").mkdir()
    Path("other/mine.txt").write_text("precious", encoding="utf-8")
    run("index", str(documents), "--to", "other", "-m", be, "--rebuild", code=1)
    assert Path("other/mine.txt").read_text(encoding="utf-8") == "precious"


@pytest.mark.parametrize("wrong", ["nowhere", "letter.docx"])
def test_index_checks_its_paths_before_it_makes_or_empties_an_index(documents: Path, be: str, wrong: str) -> None:
    Path("letter.docx").write_bytes(b"x")
    run("index", str(documents), wrong, "--to", "i", "-m", be, code=1)
    assert not Path("i").exists()
    # Nothing was made with the usual language, so another may be named.
    run("index", str(documents), "--to", "i", "-m", be, "--language", "German")
    assert wrong in run("index", str(documents), wrong, "--to", "i", "-m", be, "--rebuild", code=1).stderr
    assert len(rows(run("search", "i", "bread", "--no-rerank", "--json"))) == 2


def test_index_takes_a_path_that_is_gone_as_a_deletion(documents: Path, be: str) -> None:
    run("index", str(documents), "--to", "i", "-m", be)
    shutil.rmtree(documents)
    assert "nowhere" in run("index", "nowhere", "--to", "i", code=1).stderr
    assert rows(run("index", str(documents), "--to", "i", "--json"))[0]["deleted"] == 2


@pytest.mark.parametrize("name", ["embedder", "embedder/model.safetensors"])
def test_an_index_finds_its_embedder_from_another_folder(
    name: str, documents: Path, bi_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(bi_encoder_folder, "embedder")
    run("index", str(documents), "--to", "i", "-m", name)
    place = Path("i").resolve()
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert len(rows(run("search", str(place), "bread", "--no-rerank", "--json"))) == 2


def test_index_interrupted(documents: Path, be: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from crossrank.index import Index

    def update(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Index, "update", update)
    args = ("index", str(documents), "--to", "i", "-m", be)
    assert "Stopped. i holds 0 passages; the same command finishes the work" in run(*args, code=130).stderr
    assert "the same command without --rebuild finishes the work" in run(*args, "--rebuild", code=130).stderr


def test_index_and_search_on_a_terminal(documents: Path, ce: str, be: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "on_terminal", lambda *, err=False: True)
    assert "2 passages" in run("index", str(documents), "--to", "i", "-m", be).stdout
    shown = run("search", "i", "bread", "-m", ce, "--explain")
    assert "Baking" in shown.stdout
    assert "bm25" in shown.stdout
    assert "all steps" in shown.stderr


def test_search_json(index: str, ce: str) -> None:
    found = rows(run("search", index, "bread", "-m", ce, "--json"))
    assert [row["rank"] for row in found] == [1, 2]
    assert found[0]["score"] >= found[1]["score"]
    bread = next(row for row in found if row["document"] == "bread")
    assert (bread["title"], bread["metadata"]["year"], bread["step"]) == (
        "Baking",
        2021,
        crossrank.load(ce).checkpoint.name,
    )
    assert "steps" not in bread
    assert {(row["probability"], row["read"]) for row in found} == {(None, True)}
    left = rows(run("search", index, "bread", "--no-rerank", "--json"))
    assert {(row["probability"], row["read"]) for row in left} == {(None, False)}


@pytest.fixture
def calibrated(tmp_path: Path) -> str:
    """A cross-encoder whose probabilities are near 0 or near 1."""
    folder = tiny.cross_encoder(tmp_path / "calibrated")
    scorer = crossrank.load(folder)
    baking = crossrank.Passage("bread", "Bread needs yeast.", "Baking").scored_text
    raw = scorer.score([("bread", "Paris is the capital of France."), ("bread", baking)])
    # The mean of the two is a probability of 1/2, and an e-fold of odds is a fiftieth of what lies between them.
    slope = 50.0 / abs(float(raw[0] - raw[1]))
    stated = {"calibration": {"slope": slope, "intercept": -slope * float(raw.mean())}, "threshold": 0.5}
    tiny.write_json(folder / "crossrank.json", stated)
    return str(folder)


def test_search_tells_probabilities(index: str, calibrated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = rows(run("search", index, "bread", "-m", calibrated, "--json"))
    scorer = crossrank.load(calibrated)
    for row in found:
        raw = scorer.score([("bread", crossrank.Passage("", row["text"], row["title"]).scored_text)])
        assert row["probability"] == pytest.approx(float(scorer.probability(raw)[0]), abs=1e-3)
    monkeypatch.setattr(terminal, "on_terminal", lambda *, err=False: True)
    assert "100.0%" in run("search", index, "bread", "-m", calibrated, env={"COLUMNS": "100"}).stdout


@pytest.mark.parametrize("threshold", ["0.5", "model"])
def test_a_threshold_leaves_out_what_is_not_relevant(index: str, calibrated: str, threshold: str) -> None:
    args = ("search", index, "bread", "-m", calibrated, "--json")
    both = rows(run(*args))
    result = run(*args, "--threshold", threshold)
    (kept,) = rows(result)
    assert kept["rank"] == 1
    assert kept["id"] == max(both, key=itemgetter("probability"))["id"]
    assert "Left out: 1 passage under the threshold of 0.5." in result.stderr
    # With --explain what is left is explained.
    *found, last = rows(run(*args, "--threshold", threshold, "--explain"))
    assert [row["id"] for row in found] == [kept["id"]]
    assert "explain" in last


def test_a_threshold_says_that_nothing_reaches_it(index: str, plain_folder: Path, calibrated: str) -> None:
    stated = {"calibration": {"slope": 1.0, "intercept": -100.0}}
    tiny.write_json(Path(calibrated) / "crossrank.json", stated)
    result = run("search", index, "bread", "-m", calibrated, "--threshold", "0.5")
    assert result.stdout == ""
    assert "Nothing reaches the threshold: the best passage has a probability of 0.000, under 0.5." in result.stderr
    assert "eft out" not in result.stderr
    # A threshold that was passed over, with code 0, would let everything through.
    for model, threshold, said in (
        (str(plain_folder), "0.5", "uncalibrated logits"),
        ("late", "0.5", "no probabilities"),
        (calibrated, "model", "no threshold"),
    ):
        for more in ((), ("--context", "100"), ("--json",)):
            refused = run("search", index, "bread", "-m", model, "--threshold", threshold, *more, code=1)
            assert said in refused.stderr
            assert refused.stdout == ""
    assert "--no-rerank" in run("search", index, "bread", "--no-rerank", "--threshold", "0.5", code=2).stderr


def test_a_threshold_of_a_plain_list(tmp_path: Path, plain_folder: Path, calibrated: str) -> None:
    passages = tmp_path / "passages.txt"
    passages.write_text("Paris is the capital of France.\nBaking. Bread needs yeast.\n\n", encoding="utf-8")
    whole = rows(run("rerank", "bread", str(passages), "-m", calibrated, "--json"))
    result = run("rerank", "bread", str(passages), "-m", calibrated, "--threshold", "model", "--json", "--explain")
    (left,) = rows(result)
    assert left["position"] == whole[0]["position"]
    assert left["evidence"] is not None
    assert "under the threshold of 0.5" in result.stderr
    tiny.write_json(Path(calibrated) / "crossrank.json", {"calibration": {"slope": 1.0, "intercept": -100.0}})
    nothing = run("rerank", "bread", str(passages), "-m", calibrated, "--threshold", "0.5")
    assert nothing.stdout == ""
    assert "Nothing reaches the threshold: the best passage has a probability of 0.000, under 0.5" in nothing.stderr
    for model, threshold, said in (
        (str(plain_folder), "0.5", "uncalibrated logits"),
        ("late", "0.5", "no probabilities"),
        (calibrated, "model", "no threshold"),
        ("http://localhost:9/v1#m", "0.5", "knows no --threshold"),
    ):
        assert said in run("rerank", "bread", str(passages), "-m", model, "--threshold", threshold, code=1).stderr


def test_search_explains_every_step(index: str, ce: str) -> None:
    *found, last = rows(run("search", index, "bread", "-m", ce, "--json", "--explain"))
    bread = next(row for row in found if row["document"] == "bread")
    scorer = crossrank.load(ce)
    assert list(bread["steps"]) == ["bm25", "dense", "fused", scorer.checkpoint.name]
    raw = bread["steps"][scorer.checkpoint.name]["raw_score"]
    text = crossrank.Passage("x", bread["text"], bread["title"]).scored_text
    assert raw == pytest.approx(float(scorer.score([("bread", text)])[0]), abs=1e-4)
    assert [step["name"] for step in last["explain"]["steps"]] == list(bread["steps"])
    how = [
        "0.4 bm25 + 0.6 dense, standardized; less 0.3 ln(200 / tokens) standard deviations under 200 tokens",
        "0.4 of its score, 0.6 of the one before",
    ]
    assert [step["how"] for step in last["explain"]["steps"]] == [None, None, *how]
    lines = run("search", index, "bread", "-m", ce, "--explain")
    assert all(re.search(r"\tdense #\d -?\d", line) for line in lines.stdout.splitlines())
    assert "opening" in lines.stderr
    assert all(f"passages: {said}\n" in lines.stderr for said in how)


def test_search_may_stop_early(index: str, ce: str) -> None:
    plain, early = (rows(run("search", index, "bread", "-m", ce, "--json", *more)) for more in ((), ("--stop-early",)))
    assert early == plain, "three passages are fewer than are read in any case"


def test_search_gives_so_many_passages_of_a_document(documents: Path, be: str, ce: str) -> None:
    guide = " ".join(f"Bread needs yeast, says part {n}." for n in range(30))
    (documents / "a_guide.txt").write_text(guide, encoding="utf-8")
    run("index", str(documents), "--to", "my.index", "-m", be, "--passage-tokens", "16")
    search = ("search", "my.index", "bread", "-m", ce)
    crowd = [row["document"] for row in rows(run(*search, "--json", "-k", "50"))]
    assert len(crowd) > len(set(crowd)) == 3
    left = len(crowd) - 3
    made = run(*search, "--json", "--per-document", "1", "--explain", "-k", "50")
    *found, last = rows(made)
    assert sorted(row["document"] for row in found) == sorted(set(crowd))
    assert last["explain"]["left_out"] == {next(name for name in crowd if "guide" in name): left}
    assert f"Left out: {left} passages of documents that have 1 here: " in made.stderr
    assert "so there are 3 of 50: a larger depth may find more." in made.stderr
    assert len(run(*search, "--per-document", "1", "-k", "2").stdout.splitlines()) == 2
    context = run(*search, "--per-document", "1", "--context", "500")
    assert re.findall(r"^\[(\d)\]", context.stdout, re.M) == ["1", "2", "3"]
    assert "Left out: " in context.stderr
    assert "left_out" not in rows(run(*search, "--json", "--explain"))[-1]["explain"]
    # A run holds each document once, so that one passage of each is what it has anyhow, and two cannot be.
    Path("topics.tsv").write_text("1\tbread\n", encoding="utf-8")
    many = ("search", "my.index", "-m", ce, "--queries", "topics.tsv", "--to")
    run(*many, "plain.trec")
    run(*many, "one.trec", "--per-document", "1")
    assert Path("one.trec").read_bytes() == Path("plain.trec").read_bytes()
    assert "each document once" in run(*many, "two.trec", "--per-document", "2", code=2).stderr


def test_search_shows_the_sentence_and_remembers(index: str, ce: str) -> None:
    args = ("search", index, "bread", "-m", ce, "--explain", "--cache", "scores")
    first = run(*args)
    assert "0 of " in first.stderr
    *found, last = rows(again := run(*args, "--json"))
    known, asked = re.findall(r"(\d+) of (\d+) scores came from the cache", again.stderr)[0]
    assert known == asked
    assert last["explain"]["evidence_seconds"] >= 0
    for line, row in zip(first.stdout.splitlines(), found, strict=True):
        evidence = row["evidence"]
        assert row["text"][evidence["start"] : evidence["stop"]] == evidence["text"]
        assert line.split("\t")[-1] == " ".join(evidence["text"].split())
    assert "evidence" not in rows(run("search", index, "bread", "-m", ce, "--json"))[0]
    told = run("search", index, "bread", "-m", ce, "--context", "50", "--cache", "scores").stderr
    assert "scores came from the cache" in told
    # Without a reranker nothing reads sentences.
    assert rows(run("search", index, "bread", "--no-rerank", "--json", "--explain"))[0]["evidence"] is None


def test_rerank_shows_the_sentence_and_remembers(ce: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("p.jsonl").write_text(
        json.dumps({"id": "a", "title": "Paris", "text": "The cat is here. Paris is a capital.  Bread!"})
        + '\n{"id": "b", "text": ""}\n',
        encoding="utf-8",
    )
    args = ("rerank", "what is the capital?", "p.jsonl", "-m", ce, "--explain", "--cache", "scores")
    found = rows(run(*args, "--json"))
    evidence = found[0]["evidence"]
    assert evidence["text"] == found[0]["text"][evidence["start"] : evidence["stop"]]
    assert (evidence["sentences"], evidence["compared"], found[1]["evidence"]) == (3, 3, None)
    lines = run(*args)
    assert lines.stdout.splitlines()[0].endswith("\t" + evidence["text"])
    assert "5 of 5 scores came from the cache" in lines.stderr
    monkeypatch.setattr(terminal, "on_terminal", lambda *, err=False: True)
    assert evidence["text"] in run(*args).stdout
    Path("scores").write_bytes(b"dear diary")
    assert "something else" in run(*args, code=1).stderr


@pytest.mark.parametrize("before", [0, 3, 400])
@pytest.mark.parametrize("after", [0, 3, 400])
def test_the_marked_sentence_is_shown_wherever_it_lies(before: int, after: int) -> None:
    from crossrank.evidence import Evidence

    text = "word " * before + "The answer is here." + " other" * after
    start = 5 * before
    shown = terminal.passage(crossrank.Passage("a", text), 80, evidence=Evidence(start, start + 19, 1.0, 1.0, 3, 3))
    assert "The answer is here." in shown.plain
    assert len(shown.plain) <= 3 * 60 + 4
    assert [shown.plain[span.start : span.end] for span in shown.spans if "bold" in str(span.style)] == [
        "The answer is here."
    ]


def test_a_model_called_as_a_retriever_is_hides_no_step(
    index: str, cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(cross_encoder_folder, "dense")
    args = ("search", index, "bread", "-m", "dense", "--explain")
    *found, last = rows(run(*args, "--json"))
    names = ["bm25", "dense", "fused", "dense (2)"]
    assert [step["name"] for step in last["explain"]["steps"]] == names
    bread = next(row for row in found if row["document"] == "bread")
    assert ["raw_score" in step for step in bread["steps"].values()] == [False, False, False, True]
    for line in run(*args).stdout.splitlines():
        assert [re.sub(r" (#.*|-)$", "", field) for field in line.split("\t")[4:-1]] == names
    monkeypatch.setattr(terminal, "on_terminal", lambda *, err=False: True)
    assert "dense (2)" in run(*args).stdout


def test_search_without_rerank_and_with_k(index: str) -> None:
    found = rows(run("search", index, "bread", "--no-rerank", "--json", "-k", "1"))
    assert [(row["document"], row["step"]) for row in found] == [("bread", "fused")]
    assert run("search", index, "bread", "--no-rerank", "-k", "1").stdout.startswith("1\t")
    run("search", index, "bread", "--no-rerank", "-k", "0", code=2)


def test_help_states_the_usual_mix() -> None:
    assert f"[default: {MIX:g}, or what a tuned model brings]" in " ".join(run("search", "--help").stdout.split())


def test_search_reads_queries_from_a_pipe(index: str) -> None:
    args = ("search", index, "--queries", "-", "--to", "-", "--no-rerank")
    # A socket, as Node.js gives its children, cannot be opened by the name of stdin.
    ours, theirs = socket.socketpair()
    with ours, theirs, process(*args, stdin=theirs, stdout=subprocess.PIPE) as running:
        theirs.close()
        ours.sendall(b"q1\tthe cat\n")
        ours.shutdown(socket.SHUT_WR)
        found, _ = running.communicate()
    assert (running.returncode, found.split()[:2]) == (0, [b"q1", b"Q0"])
    assert "stdin, line 1" in run(*args, stdin="q1\n", code=1).stderr


@pytest.mark.parametrize("engine", [["--no-rerank"], ["--model"]])
def test_search_of_many_queries_is_a_run(index: str, ce: str, engine: list[str]) -> None:
    """A run could be made with qrels only, by `eval --write-runs`."""
    how = [*engine, ce] if engine == ["--model"] else engine
    Path("topics.tsv").write_text("q1\tthe cat\n2\tcapital of france\n", encoding="utf-8")
    result = run("search", index, "--queries", "topics.tsv", "--to", "run.trec", *how, "--backend", "fake")
    assert result.stdout == ""
    assert "Wrote the rankings of 2 queries to run.trec." in result.stderr
    assert "Wrote" not in run("search", index, "--queries", "topics.tsv", "--to", "-", *how, "--backend", "fake").stderr
    made = read_run("run.trec")
    for query, text in (("q1", "the cat"), ("2", "capital of france")):
        found = rows(run("search", index, text, *how, "--backend", "fake", "-k", "100", "--json"))
        assert list(made[query].ids) == list(dict.fromkeys(row["document"] for row in found))
    run("search", index, "--queries", "topics.tsv", "--to", "short.trec", "-k", "1", *how, "--backend", "fake")
    assert {query: ranking.ids for query, ranking in read_run("short.trec").items()} == {
        query: ranking.ids[:1] for query, ranking in made.items()
    }


def test_a_run_on_stdout_is_utf_8_as_in_a_file(documents: Path, be: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another encoding made another id of a document."""
    monkeypatch.setenv("PYTHONIOENCODING", "cp1252")
    (documents / "rows.jsonl").write_text(json.dumps({"id": "e\U0001f600", "text": "Bread."}), encoding="utf-8")
    run("index", str(documents), "--to", "my.index", "-m", be)
    Path("topics.tsv").write_text("q1\tbread\n", encoding="utf-8")
    many = ["search", "my.index", "--queries", "topics.tsv", "--no-rerank", "--backend", "fake", "--to"]
    run(*many, "run.trec")
    with process(*many, "-", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as writer:
        assert writer.stdout is not None
        assert writer.stdout.read() == Path("run.trec").read_bytes()
    assert "e\U0001f600" in Path("run.trec").read_text(encoding="utf-8")


def test_queries_in_a_script_that_the_model_has_no_words_in_are_told(index: str, ce: str) -> None:
    said = "has no words in the query's script"
    assert said in run("search", index, "где хлеб", "-m", ce).stderr
    Path("topics.tsv").write_text("1\tгде хлеб\n2\tbread\n", encoding="utf-8")
    many = run("search", index, "--queries", "topics.tsv", "--to", "run.trec", "-m", ce)
    assert f"for 1 query a model {said}, so its scores say little." in many.stderr


def test_search_of_many_queries_sums_up_what_went_wrong(index: str) -> None:
    Path("topics.tsv").write_text("q1\tthe cat\nq2\tfrance\n", encoding="utf-8")
    many = ["--queries", "topics.tsv", "--to", "run.trec", "--filter", "year>=2020"]
    result = run("search", index, *many, "-m", "./nowhere", "--on-error", "keep", code=Exit.SOME_FAILED)
    assert "for 2 queries a stage failed, and the order before it was kept: " in result.stderr
    assert result.stderr.count("Warning") == 1
    assert [ranking.ids for ranking in read_run("run.trec").values()] == [("bread",)] * 2


def test_search_of_many_queries_refuses_what_it_cannot_do(index: str) -> None:
    write = Path("topics.tsv").write_text
    write("q1\tthe cat\nq2\t \n", encoding="utf-8")
    many = ["--queries", "topics.tsv", "--to", "run.trec", "--no-rerank", "--backend", "fake"]
    assert "query 'q2' (1 in all) has no text" in run("search", index, *many, code=1).stderr
    write("a b\tthe cat\n", encoding="utf-8")
    assert "cannot stand in a TREC file" in run("search", index, *many, code=1).stderr
    assert "name one QUERY" in run("search", index, code=2).stderr
    assert "name one QUERY" in run("search", index, "cat", *many, code=2).stderr
    assert "go together" in run("search", index, *many[:2], code=2).stderr
    assert "go together" in run("search", index, "cat", *many[2:4], code=2).stderr
    assert "--json is of one query" in run("search", index, *many, "--json", code=2).stderr
    assert "there is no folder" in run("search", index, *many[:3], "no/run.trec", code=2).stderr
    assert not Path("run.trec").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
def test_search_of_many_queries_writes_to_pipes_and_devices(index: str) -> None:
    """A file took their place: a pipe's reader waited for ever, and /dev/null was gone."""
    Path("topics.tsv").write_text("q1\tthe cat\n", encoding="utf-8")
    many = ["search", index, "--queries", "topics.tsv", "--no-rerank", "--backend", "fake", "--to"]
    run(*many, "run.trec")
    found = Path("run.trec").read_bytes()
    os.mkfifo("pipe")
    with process(*many, "pipe") as writer, Path("pipe").open("rb") as reader:
        assert reader.read() == found
    assert writer.returncode == 0
    assert Path("pipe").is_fifo()
    # As /dev/stdout is, which may be a file.
    link = Path("stdout")
    link.symlink_to("/dev/fd/1")
    Path("kept").write_bytes(b"before\n")
    with Path("kept").open("ab") as kept, process(*many, "stdout", stdout=kept) as writer:
        assert writer.wait(60) == 0
    assert Path("kept").read_bytes() == b"before\n" + found
    assert link.is_symlink()
    null = Path("null")
    null.symlink_to(os.devnull)
    run(*many, "null")
    assert null.is_symlink()


def test_search_of_many_queries_fails_before_the_first_one(
    index: str, be: str, documents: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from crossrank.pipeline import Pipeline

    Path("topics.tsv").write_text("q1\tthe cat\n", encoding="utf-8")
    many = ["--queries", "topics.tsv", "--no-rerank", "--backend", "fake", "--to"]
    assert (
        "-k 1,000 is more than the 200 passages that are found at most: raise --depth"
        in run("search", index, *many, "run.trec", "-k", "1000").stderr
    )
    found = Path("run.trec").read_text(encoding="utf-8")
    assert run("search", index, *many, "-").stdout == found
    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "search", None)
        run("search", index, *many, f"{'x' * 251}.trec", code=1)  # more than a file system takes
    (documents / "my notes.txt").write_text("A cat.", encoding="utf-8")
    run("index", str(documents), "--to", "spaced", "-m", be)
    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "search", None)
        error = run("search", "spaced", *many, "other.trec", code=1).stderr
    assert "my notes.txt' cannot stand in a TREC file" in error
    assert "Rename the file" in error
    assert not Path("other.trec").exists()
    run("search", "spaced", *many, "other.trec", "--filter", "year>=2020")


def test_search_filters(index: str) -> None:
    args = ("search", index, "bread", "--no-rerank", "--json", "--filter")
    assert [row["document"] for row in rows(run(*args, "year>=2021"))] == ["bread"]
    none = run(*args, "year>2021")
    assert none.stdout == ""
    assert "without --filter" in none.stderr
    told = run(*args, "year>2000", "--filter", "yaer>2000").stderr
    assert told.count("no passage has a value in the field 'yaer'") == 1
    assert "not understood" in run(*args, "year", code=1).stderr
    Path("documents/rows.jsonl").write_text('{"id": "bread", "text": "Bread.", "date": "2021-03-01"}', encoding="utf-8")
    run("index", "documents", "--to", index)
    assert 'compare dates as text, date>="2021"' in run(*args, "date>=2021").stderr
    assert [row["document"] for row in rows(run(*args, 'date>="2021"'))] == ["bread"]


def test_index_and_search_take_the_engine_options(documents: Path, index: str, ce: str, be: str) -> None:
    for args in (("index", str(documents), "--to", "i", "-m", be), ("search", index, "bread", "-m", ce)):
        assert (
            "use backend='cpu' or 'torch'" in run(*args, "--backend", "reference", "--dtype", "bfloat16", code=1).stderr
        )
        assert "use backend='cuda' or 'torch'" in run(*args, "--backend", "fake", "--device", "cuda", code=1).stderr


@pytest.mark.skipif(library.obstacle() is not None, reason=f"no native library: {library.obstacle()}")
def test_every_command_hands_threads_to_the_engine(
    documents: Path, index: str, ce: str, be: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int | None] = []
    native = backends.cpu.Native

    def spy(read: Any, dtype: str, tier: str | None, threads: int | None) -> Any:
        asked.append(threads)
        return native(read, dtype, tier, threads)

    monkeypatch.setattr(backends.cpu, "Native", spy)
    # A model that another test's garbage still holds open would not be opened again, and its threads not be seen here.
    monkeypatch.setattr(backends.sharing, "identity", lambda _: None)
    run("rerank", "q", "-m", ce, "--threads", "1", stdin=TEXTS)
    run("rerank", "q", "-m", ce, stdin=TEXTS, env={"CROSSRANK_THREADS": "2"})
    run("rerank", "q", "-m", ce, stdin=TEXTS)
    run("index", str(documents), "--to", "threads-index", "-m", be, "--threads", "3")
    run("doctor", ce, "--threads", "4")
    run("doctor", be, "--threads", "5")
    assert asked == [1, 2, None, 3, 4, 5]
    del asked[:]
    run("search", index, "bread", "-m", ce, "--threads", "6")
    assert asked == [6, 6]
    assert "--threads" in run("rerank", "q", "-m", ce, "--threads", "0", stdin="x", code=2).stderr


def test_serve_hands_threads_to_both_models(ce: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("starlette", reason="needs the server extra")
    from crossrank.cli import serve
    from crossrank.server.limits import Limits

    asked: list[int | None] = []
    real = backends.open

    def spy(read: Any, name: str, device: str, dtype: str, threads: int | None) -> Any:
        asked.append(threads)
        return real(read, name, device, dtype, threads)

    monkeypatch.setattr(backends, "open", spy)
    serve._service(None, (ce,), None, ("fake", "auto", "auto", 3), False, Limits(), None)
    assert asked == [3, 3]


def test_serve_takes_an_embedder_that_was_moved(documents: Path, index: str, ce: str, be: str, tmp_path: Path) -> None:
    pytest.importorskip("starlette", reason="needs the server extra")
    pytest.importorskip("mcp", reason="needs the mcp extra")
    from crossrank.cli import serve
    from crossrank.server.limits import Limits

    engine, moved = ("fake", "auto", "auto", None), shutil.copytree(be, tmp_path / "moved")
    made = serve._service(Path(index), (ce,), str(moved), engine, False, Limits(), 1024)
    assert made.embedding_model == "moved"
    other = tiny.bi_encoder(tmp_path / "other", pooling="cls")
    with pytest.raises(crossrank.CrossrankError, match="made with another embedder"):
        serve._service(Path(index), (ce,), str(other), engine, False, Limits(), 1024)
    assert "leave one out" in run("serve", "--no-embed", "--embedder", be, code=2).stderr
    mine = shutil.copytree(be, tmp_path / "mine")
    run("index", str(documents), "--to", "mine.index", "-m", str(mine))
    mine.rename(tmp_path / "elsewhere")
    for command in (("serve",), ("mcp",), ("search", "bread")):
        said = run(command[0], "mine.index", *command[1:], "-m", ce, code=1).stderr
        assert f"{mine}, and nothing is there" in said
        assert "--embedder FOLDER" in said


def test_serve_loads_a_folder_once_whatever_it_is_called(ce: str, tmp_path: Path) -> None:
    pytest.importorskip("starlette", reason="needs the server extra")
    from crossrank.cli import serve
    from crossrank.server.limits import Limits

    def service(*models: str) -> Any:
        return serve._service(None, models, None, ("fake", "auto", "auto", None), True, Limits(), 1024)

    here, name = os.path.relpath(ce), Path(ce).name
    made = service(ce, here, f"rerank-english-v3.0={ce}", f"a/b={here}", f"{name}={ce}")
    assert made.names == (name, "rerank-english-v3.0", "a/b")
    assert len(made.loaded) == len(made.speeds) == 1
    other = shutil.copytree(ce, tmp_path / "other" / name)
    made = service(ce, f"second={other}")
    assert (made.names, len(made.loaded)) == ((name, "second"), 2)
    # A sign in the name of a folder is no other name for it.
    odd = shutil.copytree(ce, tmp_path / "a=b")
    assert service(str(odd)).names == ("a=b",)
    with pytest.raises(click.UsageError, match=rf"two of --model are called '{name}': give one another name"):
        service(ce, str(other))
    with pytest.raises(crossrank.CrossrankError, match="bi-encoder"):
        service(ce, "embed")


def test_serve_takes_one_model_from_the_environment(tmp_path: Path) -> None:
    # Several names would be parted by spaces, which a folder may have.
    from crossrank.cli.serve import Served

    assert Served().split_envvar_value("/models/my model") == ["/models/my model"]


def test_serve_refuses_no_embed_for_an_index(index: str, ce: str) -> None:
    # It was ignored, and the embedder loaded.
    said = run("serve", index, "--no-embed", "-m", ce, "--port", "0", code=2).stderr
    assert "--no-embed does not go with INDEX" in said
    assert "leave one out" in said


def test_search_warns_of_a_query_that_no_model_reads_whole(index: str, ce: str) -> None:
    warned = run("search", index, "the cat " * 40, "-m", ce).stderr
    assert warned.count("the query was cut: dense read its first 46 of 80 tokens.") == 1
    assert "read its first 28 of 80 tokens" in warned


def test_explain_says_where_a_count_of_tokens_is_a_lower_bound() -> None:
    # "read 25,000 of 31,000 tokens": the count had stopped there, and the text was longer.
    before = crossrank.Ranking.sorted(["a", "b"], [2, 1])
    cut = (Truncation(0, 31_000, 25_000, 64, exact=False), Truncation(-1, 90, 46, 1))
    traces = [Trace("bm25", before, 0.1, {}), Trace("small", before, 0.1, {"a": 2.0}, cut)]
    passage = crossrank.Passage("a", "bread")
    assert steps.cuts(traces, 1, {"a": passage}) == ["a: read 25,000 of more than 31,000 tokens in 64 windows"]


def test_search_explains_why_passages_were_tokenized(index: str, tmp_path: Path) -> None:
    other = tiny.cross_encoder(tmp_path / "other")
    (other / "vocab.txt").write_text("\n".join([*tiny.VOCABULARY[:5], *reversed(tiny.VOCABULARY[5:])]) + "\n")
    said = "tokenized 2 passages: the index holds ids of another tokenizer"
    assert f"{other}: {said}\n" in run("search", index, "bread", "-m", str(other)).stderr
    assert said in run("search", index, "bread", "-m", str(other), "--explain").stderr
    steps = rows(run("search", index, "bread", "-m", str(other), "--explain", "--json"))[-1]["explain"]["steps"]
    assert [step["note"] for step in steps] == ["", "", "", said]


def test_search_errors(index: str, ce: str) -> None:
    assert "crossrank index" in run("search", "none.index", "q", "-m", ce, code=1).stderr
    assert "the query is empty" in run("search", index, " ", "-m", ce, code=1).stderr
    run("search", index, "q", "--mix", "0", code=2)
    assert "--stop-early" in run("search", index, "q", "--stop-early", "--no-rerank", code=2).stderr
    Path("topics.tsv").write_text("1\tbread\n", encoding="utf-8")
    many = ("--queries", "topics.tsv", "--to", "run.trec")
    assert "--stop-early" in run("search", index, *many, "--stop-early", code=2).stderr
    Path("file").touch()
    run("search", "file", "q", code=2)


# models, doctor, completion, the command itself


def test_models_lists_the_catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = rows(run("models", "--json"))
    assert [row["name"] for row in listed] == [entry.name for entry in catalog.CATALOG]
    assert listed[0]["source"] == "wheel"
    # It was 22.7 without a unit.
    assert listed[0]["parameters"] == round(1e6 * catalog.CATALOG[0].parameters) > 1_000_000
    assert (listed[0]["max_length"], listed[0]["score_space"]) == (512, "logits, calibrated")
    lines = [line.split("\t") for line in run("models").stdout.splitlines()]
    assert [(line[0], line[6]) for line in lines] == [(row["name"], row["score_space"]) for row in listed]
    assert {len(line) for line in lines} == {8}
    monkeypatch.setattr(terminal, "on_terminal", lambda *, err=False: True)
    assert "this install" in run("models").stdout


@pytest.mark.parametrize("columns", ["20", "80", "103", "104", "200"])
def test_a_narrow_terminal_shows_names_of_models_whole(monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    # On 20 columns they were gone, and the column of kinds was kept.
    monkeypatch.setattr(terminal, "on_terminal", lambda *, err=False: True)
    shown = run("models", env={"COLUMNS": columns}).stdout
    assert all(word in shown for word in ("small", "this install", "22.7M"))
    assert max(map(len, shown.splitlines())) <= int(columns)
    # On 80 they stood in three lines, so that nobody could copy them.
    whole = [entry.name in shown for entry in catalog.CATALOG]
    assert all(whole) == (columns != "20")


def test_a_narrow_terminal_shows_ranks_and_passages(index: str, ce: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The steps of --explain took their place.
    monkeypatch.setattr(terminal, "on_terminal", lambda *, err=False: True)
    for columns, shown in (("20", False), ("77", False), ("78", True)):
        args = ("search", index, "bread", "-m", ce, "--explain")
        found = run(*args, env={"COLUMNS": columns})
        lines = [line.split() for line in found.stdout.splitlines()]
        assert any(line[:1] == ["1"] for line in lines), found.stdout
        assert "Bread" in found.stdout
        assert ("dense" in lines[0], "no room here" in found.stderr) == (shown, not shown)


def test_an_exported_model_scores_the_same(ce: str) -> None:
    assert "cross-encoder" in run("models", "export", ce, "exported").stderr
    once, again = (rows(run("rerank", "q", "-m", model, "--json", stdin=TEXTS)) for model in (ce, "exported"))
    assert [row["score"] for row in once] == pytest.approx([row["score"] for row in again])
    Path("file").touch()
    run("models", "export", ce, "file", code=2)
    run("models", "export", "./none", "out", code=1)
    assert "not empty" in run("models", "export", ce, "exported", code=1).stderr
    run("models", "export", ce, "exported", "--force")


def test_doctor_tests_a_model(ce: str, be: str) -> None:
    for model, kind in ((ce, "cross-encoder"), (be, "bi-encoder")):
        report = rows(run("doctor", model, "--json"))[0]
        assert report["model"]["kind"] == kind
        assert report["model"]["problem"] is None
        assert all(check["ok"] is not False for check in report["model"]["checks"])
        assert report["crossrank"]["version"] == crossrank.__version__
        # Only the native engine packs weights: how much memory a model takes is no other number's copy.
        native = report["model"]["backend"].startswith("cpu (")
        assert (report["model"].get("weights", "").endswith(" MiB in memory")) == native
    shown = run("doctor", ce).stdout
    assert "self test" in shown
    assert "alone equals in a batch" in shown


def test_doctor_without_a_model(ce: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "locate", lambda name, default: catalog.Located("small", ce))
    result = run("doctor", env={"HF_TOKEN": "hf_secret", "HTTPS_PROXY": "http://me:secret@host"})
    assert "HF_TOKEN" in result.stdout
    assert "secret" not in result.stdout
    assert "self test" not in result.stdout


def test_doctor_knows_every_extra_of_the_package(ce: str) -> None:
    from crossrank.cli import machine

    stated = set(metadata("crossrank").get_all("Provides-Extra") or ())
    if "search" not in stated:
        pytest.skip("crossrank is not installed here")
    assert set(machine.facts()["extras"]) == stated - {"test", "server-test", "lint", "recipes"}
    # Each has words of its own.
    assert set(machine._USES) == stated - machine._INTERNAL


def test_doctor_reads_the_extras_of_the_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    from crossrank.cli import machine

    stated = [
        "numpy>=1.26",
        'nosuchlibrary[fast]>=3.2; extra == "new"',
        'numpy>=1; python_version >= "3.10" and extra == "old"',
        'pytest>=8; extra == "test"',
    ]
    monkeypatch.setattr(machine, "requires", lambda name: stated)
    found = machine.facts()["extras"]
    assert set(found) == {"new", "old"}
    assert (found["old"]["installed"], found["old"]["cure"]) == (True, None)
    assert found["new"]["missing"] == ["nosuchlibrary"]
    assert "pip install 'crossrank[new]'" in found["new"]["cure"]


def test_doctor_refuses_what_does_not_exist(ce: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "locate", lambda name, default: catalog.Located("small", ce))
    for wrong in (("--backend", "nonsense"), ("--device", "tpu"), ("--dtype", "int8")):
        assert "must be one of" in rows(run("doctor", *wrong, "--json", code=1))[0]["model"]["problem"]
    assert "not 'nonsense'" in run("doctor", env={"CROSSRANK_BACKEND": "nonsense"}, code=1).stdout
    clash = ("--backend", "reference", "--device", "cuda")
    assert "computes on the CPU" in rows(run("doctor", *clash, "--json", code=1))[0]["model"]["problem"]


def test_doctor_says_why_what_was_asked_for_runs(ce: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "locate", lambda name, default: catalog.Located("small", ce))
    why = rows(run("doctor", "--dtype", "float16", "--json"))[0]["model"]["why"]
    assert why.startswith("auto picks torch: float16 was asked for")
    assert rows(run("doctor", "--backend", "reference", "--json"))[0]["model"]["why"] == "reference was asked for."


def test_doctor_tests_the_model_that_the_environment_names(ce: str, be: str) -> None:
    tested = rows(run("doctor", "--json", env={"CROSSRANK_MODEL": ce}))[0]["model"]
    assert tested["name"] == ce
    assert tested["checks"]
    assert rows(run("doctor", be, "--json", env={"CROSSRANK_MODEL": ce}))[0]["model"]["name"] == be


def test_doctor_reports_a_model_that_fails() -> None:
    assert rows(run("doctor", "./none", "--json", code=1))[0]["model"]["problem"]
    assert "problem" in run("doctor", "./none", code=1).stdout


@pytest.mark.skipif(not (Path(catalog.__file__).parent / "weights" / "small").is_dir(), reason="no model in this tree")
def test_without_any_option_the_model_of_the_wheel_answers() -> None:
    passages = "Bread needs yeast.\nParis is the capital of France.\n"
    best = rows(run("rerank", "what is the capital of France?", "--json", stdin=passages))[0]
    assert best["position"] == 1
    assert 0.5 < best["probability"] <= 1
    assert rows(run("doctor", "small", "--json"))[0]["model"]["problem"] is None


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    if shell == "bash" and shutil.which("bash") is None:
        pytest.skip("click asks bash for its version")
    assert "_CROSSRANK_COMPLETE" in run("completion", shell).stdout


def test_completion_completes() -> None:
    def completed(words: str, at: int) -> list[str]:
        env = {"_CROSSRANK_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(at)}
        return run(env=env).stdout.splitlines()

    assert completed("crossrank re", 1) == ["plain,rerank"]
    assert completed("crossrank rerank -m sma", 3) == ["plain,small"]
    assert completed("crossrank rerank -m ./x", 3) == ["dir,./x"]


def test_the_command_itself() -> None:
    assert run("--version").stdout == f"crossrank {crossrank.__version__}\n"
    assert run("-V").stdout == run("--version").stdout
    assert run("help").stdout == run("--help").stdout
    assert run("help", "bulk", "rerank").stdout == run("bulk", "help", "rerank").stdout
    assert run("help", "search").stdout == run("search", "--help").stdout
    wrong = run("rank", code=2).stderr
    assert "no command 'rank'" in wrong
    assert "rerank, index, search" in wrong
    assert "--nope" in run("--nope", code=2).stderr
    assert run("completion", "tcsh", code=2).stdout == ""
    shown = run("--help").stdout
    assert all(meaning in shown for meaning in MEANINGS.values())


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from crossrank.cli import root\n"
        "root.main(['rerank', '--help'], 'crossrank', standalone_mode=False)\n"
        "print('HEAVY', sorted({'numpy', 'torch', 'lance', 'pyarrow', 'rich', 'tokenizers'} & set(sys.modules)))"
    )
    env = {**os.environ, "PYTHONPATH": str(PROJECT / "src")}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=60, check=True)
    assert "HEAVY []" in ran.stdout


def test_the_documentation_is_what_help_says() -> None:
    script = PROJECT / "scripts" / "cli_docs.py"
    if not script.exists():
        pytest.skip("not in a checkout")
    spec = importlib.util.spec_from_file_location("cli_docs", script)
    assert spec is not None
    assert spec.loader is not None
    cli_docs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(cli_docs)
    written = cli_docs.PAGE.read_text(encoding="utf-8")
    if f"with click {cli_docs.click_version()};" not in written:
        pytest.skip("docs/cli.md was made with another click, which lays out help differently")
    assert written == cli_docs.page(), "docs/cli.md is stale: run python scripts/cli_docs.py"
