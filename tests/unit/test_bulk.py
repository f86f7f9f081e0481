"""Bulk reranking without Ray: parts, workers that die, inputs, what is refused, and scores equal to the bit."""

from __future__ import annotations

import errno
import json
import os
import signal
import sqlite3
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import crossrank
import tiny
from crossrank import extras
from crossrank.cli import root
from crossrank.distributed import RowSource, RunSource, Workers, database, parts, processes, rerank, scoring, workfolder
from crossrank.distributed.leading import lead
from crossrank.distributed.parts import Part
from crossrank.distributed.work import Do
from crossrank.distributed.workfolder import WorkFolder
from crossrank.errors import CrossrankError, IndexFileError, InputError, MissingExtraError, ReadError
from crossrank.evaluation import read_run

Row = dict[str, Any]
SMALL = {"part_tokens": 40}


def some_rows() -> list[Row]:
    """Three queries, in turns, so that every part holds pairs of all; one document is blank, two are equal."""
    texts = ["paris is the capital of france.", "bread, yeast", "", "bread, yeast", "the cat is in france", "planet"]
    return [
        {"query_id": f"q{query}", "document_id": f"d{place}", "query": f"what is {'abc'[query]}?", "text": text}
        for place, text in enumerate(texts)
        for query in range(3)
    ]


def write_rows(path: Path, rows: Sequence[Row]) -> RowSource:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return RowSource((path,))


def read_rows(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# Parts


@given(st.lists(st.integers(0, 20)), st.integers(1, 40))
def test_every_row_is_in_one_part_and_parts_end_where_the_budget_is_reached(costs: list[int], budget: int) -> None:
    made = list(parts.cut(costs, budget))
    assert [row for part in made for row in range(part.begin, part.end)] == list(range(len(costs)))
    for part in made:
        assert sum(costs[part.begin : part.end - 1]) < budget
    assert all(sum(costs[part.begin : part.end]) >= budget for part in made[:-1])


@given(st.binary(), st.data())
def test_a_sealed_file_shows_any_changed_byte_and_any_lost_end(body: bytes, data: st.DataObject) -> None:
    whole = parts.sealed(body, {"rows": 1})
    assert parts.unsealed(whole, Path("x")) == (body, {"rows": 1})
    at = data.draw(st.integers(0, len(body)))
    changed = bytearray(whole)
    changed[at] ^= 1
    for damaged in (bytes(changed), whole[: data.draw(st.integers(0, len(whole) - 2))]):
        with pytest.raises(ReadError, match="is damaged: delete it"):
            parts.unsealed(damaged, Path("x"))


# Workers


@dataclass(frozen=True)
class Killing:
    """A work whose worker dies at one part, as often as it says."""

    folder: WorkFolder
    at: int
    times: int

    def start(self) -> Do:
        return self.do

    def do(self, part: Part) -> bytes:
        died = len(list(self.folder.path.glob("died-*")))
        if part.begin == self.at and died < self.times:
            (self.folder.path / f"died-{died}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return parts.sealed(f"{part.name}".encode(), {})


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_worker_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    all_parts = list(parts.cut([1] * 6, 1))
    with workfolder.opened(tmp_path / "work", {}) as folder:
        assert lead(Killing(folder, at=2, times=2), all_parts, Workers(2), "", lambda *_: None) == (6, 0)
        assert len(list(folder.path.glob("died-*"))) == 2
        assert [parts.read(folder.file(part))[0] for part in all_parts] == [part.name.encode() for part in all_parts]
        assert folder.missing(all_parts) == []


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_part_that_ends_every_worker_is_an_error_and_the_others_are_kept(tmp_path: Path) -> None:
    all_parts = list(parts.cut([1] * 4, 1))
    with workfolder.opened(tmp_path / "work", {}) as folder:
        work = Killing(folder, at=1, times=9)
        with pytest.raises(InputError, match="rows 1 to 2 of the input ended 3 worker processes"):
            lead(work, all_parts, Workers(1), "", lambda *_: None)
        assert len(list(folder.path.glob("died-*"))) == workfolder.MOST_TRIES
        assert all_parts[0] not in folder.missing(all_parts)


class Unborn(Killing):
    """A work that ends each process that is to do it, before it is there."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (1,)


def test_workers_that_do_not_come_up_end_the_work(tmp_path: Path) -> None:
    """They were replaced for ever, as in a script that starts them wherever it is read: each worker reads it, too."""
    with (
        workfolder.opened(tmp_path / "work", {}) as folder,
        pytest.raises(InputError, match=r"end before they begin to work.*if __name__ == \"__main__\":"),
    ):
        lead(Unborn(folder, at=0, times=0), list(parts.cut([1] * 2, 1)), Workers(1), "", lambda *_: None)


def test_workers_are_counted() -> None:
    assert (Workers().engine_threads, Workers(2).engine_threads, Workers(2, 4).engine_threads) == (None, 1, 4)
    with pytest.raises(InputError, match="0 workers or more"):
        Workers(-1)


def test_a_cluster_without_ray_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "available", lambda module: module != "ray")
    with pytest.raises(MissingExtraError, match=r"pip install 'crossrank\[ray\]'"):
        Workers(2, ray="auto")


class Unreadable(Killing):
    """A work that cannot read its files."""

    def do(self, part: Part) -> bytes:
        raise OSError(errno.ESTALE, "Stale file handle", "/nfs/model.safetensors")


@pytest.mark.parametrize("count", [0, 1])
def test_a_worker_that_cannot_read_says_what(count: int, tmp_path: Path) -> None:
    """It was taken for a connection that had ended: the worker went without a word, and so did three after it."""
    with (
        workfolder.opened(tmp_path / "work", {}) as folder,
        pytest.raises(CrossrankError, match=r"could not do a part \(.*Stale file handle: '/nfs/model.safetensors'\)"),
    ):
        lead(Unreadable(folder, at=0, times=0), [Part(0, 1)], Workers(count), "", lambda *_: None)


def test_work_without_parts_starts_nothing(tmp_path: Path) -> None:
    with workfolder.opened(tmp_path / "work", {}) as folder:
        assert list(processes.run(Killing(folder, 0, 0), [], 2)) == []


# Reranking


def test_scores_are_those_of_one_call_to_the_bit(tmp_path: Path, cross_encoder_folder: Path) -> None:
    rows = some_rows()
    source = write_rows(tmp_path / "pairs.jsonl", rows)
    done = rerank(source, tmp_path / "work", cross_encoder_folder, **SMALL)
    assert (done.scored, done.kept, done.totals.pairs, done.totals.blank) == (18, 0, 18, 3)
    scorer = crossrank.load(cross_encoder_folder)
    expected = scorer.score([(row["query"], row["text"]) for row in rows])
    of = {(row["query_id"], row["document_id"]): score for row, score in zip(rows, expected.tolist(), strict=True)}
    ranked = read_rows(done.ranking)
    assert [row["query"] for row in ranked] == [f"q{query}" for query in range(3) for _ in range(6)]
    assert [row["rank"] for row in ranked] == [1, 2, 3, 4, 5, 6] * 3
    found = np.array([-np.inf if row["score"] is None else row["score"] for row in ranked])
    wanted = np.array([of[row["query"], row["document"]] for row in ranked])
    if scorer.backend.name.startswith("cpu"):
        assert found.tolist() == wanted.tolist()
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    for query in range(3):
        mine = [row for row in ranked if row["query"] == f"q{query}"]
        assert (np.diff([row["score"] for row in mine[:5]]) <= 0).all()
        assert (mine[5]["document"], mine[5]["score"]) == ("d2", None)
        # Equal texts have equal scores, and keep the order of the input.
        places = [row["document"] for row in mine]
        assert places.index("d3") == places.index("d1") + 1


def test_processes_give_the_bytes_of_one_process(tmp_path: Path, cross_encoder_folder: Path) -> None:
    source = write_rows(tmp_path / "pairs.jsonl", some_rows())
    alone, many = tmp_path / "alone", tmp_path / "many"
    rerank(source, alone, cross_encoder_folder, **SMALL)
    rerank(source, many, cross_encoder_folder, workers=Workers(2), **SMALL)
    names = sorted(file.name for file in (alone / "parts").iterdir())
    assert len(names) > 3
    for name in ("ranking.jsonl", *(f"parts/{name}" for name in names)):
        assert (alone / name).read_bytes() == (many / name).read_bytes()


def test_a_run_with_its_texts_gives_what_rows_give(tmp_path: Path, cross_encoder_folder: Path) -> None:
    rows = some_rows()
    corpus = {row["document_id"]: row["text"] for row in rows} | {"unasked": "the cat"}
    queries = {row["query_id"]: row["query"] for row in rows} | {"unasked": " "}
    # The one as BEIR names ids, the other as most other tools do.
    for name, key, texts in (("corpus", "_id", corpus), ("queries", "id", queries)):
        lines = [json.dumps({key: id_, "text": text}) + "\n" for id_, text in texts.items()]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    lines = [f"{row['query_id']} Q0 {row['document_id']} 1 0.5 first\n" for row in rows]
    (tmp_path / "first.run").write_text("".join(lines), encoding="utf-8")
    source = RunSource.of(tmp_path / "first.run", tmp_path)
    ran = rerank(source, tmp_path / "a", cross_encoder_folder, ranking=tmp_path / "out.run", k=2, **SMALL)
    given = rerank(write_rows(tmp_path / "pairs.jsonl", rows), tmp_path / "b", cross_encoder_folder, **SMALL)
    best = [row for row in read_rows(given.ranking) if row["rank"] <= 2]
    found = read_run(ran.ranking)
    assert [(query, *ranking.ids) for query, ranking in found.items()] == [
        (query, *(row["document"] for row in best if row["query"] == query)) for query in ("q0", "q1", "q2")
    ]
    connection = sqlite3.connect(tmp_path / "a" / "input.sqlite")
    assert connection.execute("SELECT count(*) FROM document").fetchone() == (6,)
    connection.close()


def test_a_row_may_hold_a_query_and_its_documents(tmp_path: Path, cross_encoder_folder: Path) -> None:
    texts = ["the cat", "paris is the capital of france.", ""]
    titled = {"id": 9, "title": "bread", "text": "yeast", "year": 2020}
    lists: list[Row] = [
        {"query": "what is paris?", "documents": [*texts, {"_id": "x", "text": "bread"}], "top_n": 3},
        {"query_id": "q", "query": "what is bread?", "documents": [{"text": "planet", "title": None}, titled]},
        {"query": "nothing?", "documents": []},
    ]
    rows = [
        *(("1", "what is paris?", f"1-{place}", text, "") for place, text in enumerate(texts)),
        ("1", "what is paris?", "x", "bread", ""),
        ("q", "what is bread?", "q-0", "planet", ""),
        ("q", "what is bread?", "9", "yeast", "bread"),
    ]
    apart = [dict(zip(("query_id", "query", "document_id", "text", "title"), row, strict=True)) for row in rows]

    whole = rerank(write_rows(tmp_path / "lists.jsonl", lists), tmp_path / "a", cross_encoder_folder, **SMALL)
    given = rerank(write_rows(tmp_path / "pairs.jsonl", apart), tmp_path / "b", cross_encoder_folder, **SMALL)

    assert read_rows(whole.ranking) == read_rows(given.ranking)
    assert len(read_rows(whole.ranking)) == 6


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"query": "a", "texts": ["b"]}, "a row needs query_id, document_id, query, text, or a query and a list of"),
        ({"query": "a", "documents": "b"}, "line 1: documents must be a list, found 'b'"),
        ({"query": "a", "documents": [None]}, "line 1: document 0 must be a text or an object with one, found None"),
        ({"query": "a", "documents": ["b", {"body": "c"}]}, "line 1: 'text' must be a string, found None"),
        ({"documents": ["b"]}, "line 1: 'query' must be a string, found None"),
    ],
)
def test_a_row_of_neither_kind_is_refused(tmp_path: Path, cross_encoder_folder: Path, row: Row, told: str) -> None:
    with pytest.raises(ReadError, match=told):
        rerank(write_rows(tmp_path / "rows.jsonl", [row]), tmp_path / "work", cross_encoder_folder)


def test_parquet_goes_in_and_comes_out(tmp_path: Path, cross_encoder_folder: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="needs the search extra")
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the search extra")
    rows = some_rows()
    for name in ("pairs.parquet", "pairs.PARQUET"):
        parquet.write_table(pa.Table.from_pylist(rows), tmp_path / name)
    source = RowSource((tmp_path / "pairs.parquet",))
    done = rerank(source, tmp_path / "a", cross_encoder_folder, ranking=tmp_path / "out.parquet", **SMALL)
    other = rerank(write_rows(tmp_path / "pairs.jsonl", rows), tmp_path / "b", cross_encoder_folder, **SMALL)
    assert parquet.read_table(done.ranking).to_pylist() == read_rows(other.ranking)
    loud = rerank(RowSource((tmp_path / "pairs.PARQUET",)), tmp_path / "d", cross_encoder_folder,
                  ranking=tmp_path / "out.Parquet", **SMALL)  # fmt: skip
    assert parquet.read_table(loud.ranking).to_pylist() == read_rows(other.ranking)
    (tmp_path / "pairs.jsonl").rename(tmp_path / "pairs.JSONL")
    rerank(RowSource((tmp_path / "pairs.JSONL",)), tmp_path / "e", cross_encoder_folder,
           ranking=tmp_path / "out.JSONL", **SMALL)  # fmt: skip
    assert read_rows(tmp_path / "out.JSONL") == read_rows(other.ranking)
    parquet.write_table(pa.table({"text": ["a"]}), tmp_path / "bad.parquet")
    with pytest.raises(ReadError, match="has no column query_id; it needs"):
        rerank(RowSource((tmp_path / "bad.parquet",)), tmp_path / "c", cross_encoder_folder)


def test_a_folder_whose_name_is_not_utf_8(tmp_path: Path, cross_encoder_folder: Path) -> None:
    """All was scored, and then the rankings could not be written: SQLite was given the name as text."""
    folder = tmp_path / os.fsdecode(b"d\xe9 %3f#?")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("no such names on this machine")
    done = rerank(write_rows(folder / "pairs.jsonl", some_rows()), folder / "work", cross_encoder_folder, **SMALL)
    other = rerank(RowSource((folder / "pairs.jsonl",)), tmp_path / "work", cross_encoder_folder, **SMALL)
    assert read_rows(done.ranking) == read_rows(other.ranking)


def test_what_was_not_read_is_counted(tmp_path: Path, cross_encoder_folder: Path) -> None:
    row = {"query_id": "q", "document_id": "d", "query": "what is " + "the " * 80, "text": "paris " * 5_000}
    done = rerank(write_rows(tmp_path / "pairs.jsonl", [row]), tmp_path / "work", cross_encoder_folder)
    assert (done.totals.unread, done.totals.queries_cut) == (1, 1)
    assert read_rows(done.ranking)[0]["unread"] > 0


# Going on


def test_going_on_scores_only_what_is_missing(
    tmp_path: Path, cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_rows(tmp_path / "pairs.jsonl", some_rows())
    first = rerank(source, tmp_path / "work", cross_encoder_folder, **SMALL)
    before = first.ranking.read_bytes()
    files = sorted((tmp_path / "work" / "parts").iterdir())
    files[1].unlink()
    first.ranking.unlink()
    # A process that was killed while it wrote leaves such files.
    (tmp_path / "work" / "parts" / "x.part").touch()
    (tmp_path / "work" / "ranked.sqlite.part").touch()
    for folder in ("work", "work/parts"):
        (tmp_path / folder / ".crossrank-1-0123abcd.part").touch()
    (tmp_path / "work" / ".crossrank-1-0123abcd.part-journal").touch()
    scored: list[Part] = []
    real = scoring._scored
    monkeypatch.setattr(
        scoring, "_scored", lambda folder, scorer, part: scored.append(part) or real(folder, scorer, part)
    )
    again = rerank(source, tmp_path / "work", cross_encoder_folder, **SMALL)
    assert [part.name for part in scored] == [files[1].name.rpartition("-")[0]]
    assert (again.scored, again.kept) == (len(scored[0]), 18 - len(scored[0]))
    assert again.ranking.read_bytes() == before
    assert not list((tmp_path / "work").rglob("*.part*"))


def test_a_database_that_is_not_finished_leaves_nothing(tmp_path: Path) -> None:
    for error, told in ((sqlite3.OperationalError("disk I/O error"), InputError), (ReadError("a part"), ReadError)):
        with pytest.raises(told), database.made(tmp_path / "ranked.sqlite", "CREATE TABLE ranked (score REAL)"):
            raise error
        assert not list(tmp_path.iterdir())


def test_a_damaged_part_names_its_cure_and_the_cure_works(tmp_path: Path, cross_encoder_folder: Path) -> None:
    source = write_rows(tmp_path / "pairs.jsonl", some_rows())
    before = rerank(source, tmp_path / "work", cross_encoder_folder, **SMALL).ranking.read_bytes()
    part = sorted((tmp_path / "work" / "parts").iterdir())[0]
    part.write_bytes(part.read_bytes()[:-40])
    with pytest.raises(ReadError, match=f"{part.name} is damaged: delete it"):
        rerank(source, tmp_path / "work", cross_encoder_folder, **SMALL)
    other = sorted((tmp_path / "work" / "parts").iterdir())[1]
    other.write_bytes(b"")
    # All at once, and not one a call.
    with pytest.raises(ReadError, match=f"2 parts are damaged .*{part.name}, .*{other.name}"):
        rerank(source, tmp_path / "work", cross_encoder_folder, **SMALL)
    part.unlink()
    other.unlink()
    assert rerank(source, tmp_path / "work", cross_encoder_folder, **SMALL).ranking.read_bytes() == before
    (tmp_path / "work" / "input.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(ReadError, match=r"input.sqlite is damaged \(.*\): delete it"):
        rerank(source, tmp_path / "work", cross_encoder_folder, **SMALL)
    (tmp_path / "work" / "input.sqlite").unlink()
    assert rerank(source, tmp_path / "work", cross_encoder_folder, **SMALL).kept == 18


@pytest.mark.parametrize("lost", ["pair WHERE number = 4", "document WHERE id = 'd1'", "query WHERE id = 'q1'"])
def test_an_input_that_lost_rows_costs_no_ranking_its_documents(
    tmp_path: Path, cross_encoder_folder: Path, lost: str
) -> None:
    source = write_rows(tmp_path / "pairs.jsonl", some_rows())
    rerank(source, tmp_path / "work", cross_encoder_folder, **SMALL)
    with sqlite3.connect(tmp_path / "work" / "input.sqlite") as connection:
        connection.execute(f"DELETE FROM {lost}")
    connection.close()
    with pytest.raises(ReadError, match=r"input.sqlite is damaged \(it lacks pairs of .*\): delete it"):
        rerank(source, tmp_path / "work", cross_encoder_folder, **SMALL)
    assert not (tmp_path / "work" / "ranked.sqlite").exists()


def test_an_input_that_is_damaged_when_all_is_scored_is_told(tmp_path: Path, cross_encoder_folder: Path) -> None:
    """It was a traceback, or a question whether the disk is full."""
    rows = some_rows() + [
        {"query_id": "q", "document_id": f"a document {n}", "query": "cat?", "text": f"bread {n} " * 40}
        for n in range(150)
    ]
    source, work = write_rows(tmp_path / "pairs.jsonl", rows), tmp_path / "work"
    before = rerank(source, work, cross_encoder_folder).ranking.read_bytes()
    whole = (work / "input.sqlite").read_bytes()
    told = []
    # Page by page, but for those of the schema.
    for begin in range(8 * 4096, len(whole), 4096):
        (work / "input.sqlite").write_bytes(whole[:begin] + b"\xff" * 4096 + whole[begin + 4096 :])
        try:
            assert rerank(source, work, cross_encoder_folder).ranking.read_bytes() == before
        except ReadError as error:
            told.append(str(error))
    assert told
    assert all("input.sqlite is damaged" in one for one in told)


@pytest.mark.parametrize("name", ["ranked.jsonl", "ranked.run", "ranked.parquet"])
def test_a_disk_that_is_full_names_the_file(
    tmp_path: Path, cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It said "No space left on device" and no more."""
    source, opened = write_rows(tmp_path / "pairs.jsonl", some_rows()), Path.open
    full = {tmp_path / "work" / "parts"}

    def no_room(path: Path, mode: str = "r", *args: Any, **more: Any) -> Any:
        if path.parent in full and "w" in mode:
            # As a write says it, without a name.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return opened(path, mode, *args, **more)

    monkeypatch.setattr(Path, "open", no_room)
    target = tmp_path / "rankings" / name
    target.parent.mkdir()
    for lacking in ("work/parts/0+-0+18-", f"rankings/{name}"):
        with pytest.raises(InputError, match=rf"{lacking}.* cannot be written \(No space left on device\): make room"):
            rerank(source, tmp_path / "work", cross_encoder_folder, ranking=target)
        assert not (tmp_path / "work" / "ranked.sqlite").exists()
        full = {target.parent}
    full = set()
    assert rerank(source, tmp_path / "work", cross_encoder_folder, ranking=target).kept == 18


def test_another_model_input_or_size_is_refused(tmp_path: Path, cross_encoder_folder: Path) -> None:
    source = write_rows(tmp_path / "pairs.jsonl", some_rows())
    rerank(source, tmp_path / "work", cross_encoder_folder, **SMALL)
    other = tiny.cross_encoder(tmp_path / "other", num_hidden_layers=1)
    with pytest.raises(
        InputError, match="was begun with another model than this: give the same as then, or name a new"
    ) as refused:
        rerank(source, tmp_path / "work", other, **SMALL)
    # By name, and not by the hashes that are compared.
    assert f"then: model {cross_encoder_folder} on cpu" in str(refused.value)
    assert f"now: model {other} on cpu" in str(refused.value)
    with pytest.raises(InputError, match="another part_tokens than this"):
        rerank(source, tmp_path / "work", cross_encoder_folder)
    write_rows(tmp_path / "pairs.jsonl", some_rows()[:-1])
    with pytest.raises(InputError, match="another input than this"):
        rerank(source, tmp_path / "work", cross_encoder_folder, **SMALL)
    (tmp_path / "work" / "work.json").write_text("{", encoding="utf-8")
    with pytest.raises(ReadError, match=r"work.json is damaged: name a new folder"):
        rerank(source, tmp_path / "work", cross_encoder_folder, **SMALL)


def test_one_process_leads(tmp_path: Path, cross_encoder_folder: Path) -> None:
    source = write_rows(tmp_path / "pairs.jsonl", some_rows())
    with (
        workfolder.opened(tmp_path / "work", {}),
        pytest.raises(IndexFileError, match="another process is writing to the folder"),
    ):
        rerank(source, tmp_path / "work", cross_encoder_folder)


def test_a_worker_that_would_score_otherwise_is_refused(tmp_path: Path, cross_encoder_folder: Path) -> None:
    with workfolder.opened(tmp_path / "work", {}) as folder:
        work = scoring.Scoring(folder, cross_encoder_folder, {}, ("elsewhere", "cpu", "", 0))
        with pytest.raises(InputError, match="would give other scores"):
            work.start()


def test_a_machine_that_does_not_see_the_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="choose a folder that all machines see"):
        WorkFolder(tmp_path / "elsewhere", "").begin(Part(0, 1))


# What is refused


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"document_id": "d0"}, "line 4: document d0 of query q0 comes twice"),
        ({"document_id": "d0", "query_id": "q9"}, "line 4: document d0 has another text here than before"),
        ({"query": "what else?"}, "line 4: query q0 has another text here than before"),
        ({"query_id": "q9", "query": " "}, "line 4: query q9 is blank"),
        ({"query_id": "q9", "query": "\u200b"}, "line 4: query q9 is blank"),
        ({"query_id": "q9", "query": "\ufe0f"}, "query q9 has no token that the model reads: give it a text"),
        ({"text": None}, "line 4: 'text' must be a string"),
    ],
)
def test_bad_rows_are_refused_before_anything_is_scored(
    tmp_path: Path, cross_encoder_folder: Path, change: Row, told: str
) -> None:
    rows = some_rows()
    rows[3] = {**rows[3], **change}
    with pytest.raises((InputError, ReadError), match=told):
        rerank(write_rows(tmp_path / "pairs.jsonl", rows), tmp_path / "work", cross_encoder_folder)
    assert not list((tmp_path / "work" / "parts").iterdir())
    # Put right, the input may go into the same folder.
    assert rerank(write_rows(tmp_path / "pairs.jsonl", some_rows()), tmp_path / "work", cross_encoder_folder).scored


def test_a_pair_that_comes_twice_far_apart_is_found(tmp_path: Path, cross_encoder_folder: Path) -> None:
    rows = [{**some_rows()[0], "document_id": f"d{place}"} for place in range(1_500)]
    with pytest.raises(InputError, match="line 1501: document d7 of query q0 comes twice"):
        rerank(write_rows(tmp_path / "p.jsonl", [*rows, rows[7]]), tmp_path / "work", cross_encoder_folder)


def test_a_text_counts_past_its_first_nul(tmp_path: Path, cross_encoder_folder: Path) -> None:
    # Texts out of PDF files hold some, and all of them were one part, whatever its tokens.
    for name, begin in (("plain", "x"), ("nul", "\0")):
        rows = [{**row, "text": begin + "the cat " * 20} for row in some_rows()]
        rerank(write_rows(tmp_path / "p.jsonl", rows), tmp_path / name, cross_encoder_folder, **SMALL)
    plain, nul = (len(list((tmp_path / name / "parts").iterdir())) for name in ("plain", "nul"))
    assert nul == plain > 3


def test_missing_texts_and_no_pairs_are_refused(tmp_path: Path, cross_encoder_folder: Path) -> None:
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "what?"}\n', encoding="utf-8")
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d", "text": "the cat"}\n', encoding="utf-8")
    run = tmp_path / "first.run"
    run.write_text("".join(f"q Q0 d{n or ''} {n} {-n} first\n" for n in range(8)), encoding="utf-8")
    source = RunSource.of(run, tmp_path)
    with pytest.raises(InputError, match=r"7 of the document ids have no text \(d1, d2, d3, d4, d5, ...\): add them"):
        rerank(source, tmp_path / "work", cross_encoder_folder)
    run.write_text("q2 Q0 d 1 1 first\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"1 of the query ids have no text \(q2\)"):
        rerank(source, tmp_path / "other", cross_encoder_folder)
    run.write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="the input has no pairs"):
        rerank(source, tmp_path / "empty", cross_encoder_folder)


def test_an_id_that_a_run_cannot_hold_is_refused_before_scoring(tmp_path: Path, cross_encoder_folder: Path) -> None:
    source = write_rows(tmp_path / "pairs.jsonl", [{**row, "query_id": "a b"} for row in some_rows()[::3]])
    with pytest.raises(InputError, match="'a b' cannot stand in a TREC file"):
        rerank(source, tmp_path / "work", cross_encoder_folder, ranking=tmp_path / "out.run")
    assert not list((tmp_path / "work" / "parts").iterdir())
    assert rerank(source, tmp_path / "work", cross_encoder_folder).scored == 6


def test_wrong_arguments_are_refused(tmp_path: Path, cross_encoder_folder: Path) -> None:
    source = write_rows(tmp_path / "pairs.jsonl", some_rows())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(InputError, match="holds something else: name a new folder"):
        rerank(source, tmp_path / "mine", cross_encoder_folder)
    with pytest.raises(InputError, match="there is no folder"):
        rerank(source, tmp_path / "work", cross_encoder_folder, ranking=tmp_path / "no" / "out.run")
    with pytest.raises(InputError, match="k must be at least 1"):
        rerank(source, tmp_path / "work", cross_encoder_folder, k=0)
    with pytest.raises(InputError, match="at least 1 token"):
        rerank(source, tmp_path / "work", cross_encoder_folder, part_tokens=0)
    with pytest.raises(InputError, match=r"is neither .jsonl, .jsonl.gz nor .parquet; for a TREC run"):
        rerank(RowSource((Path(__file__),)), tmp_path / "work", cross_encoder_folder)
    with pytest.raises(ReadError, match="cannot be read"):
        rerank(RowSource((tmp_path / "none.jsonl",)), tmp_path / "work", cross_encoder_folder)


@pytest.mark.parametrize(
    ("ranking", "told"),
    [
        ("first.run", "would take the place of .*first.run, which is read"),
        ("other/../first.run", "would take the place of .*first.run"),
        ("linked.run", "would take the place of .*first.run"),
        ("beir/queries.jsonl", "would take the place of .*queries.jsonl"),
        ("beir/corpus.jsonl", "would take the place of .*corpus.jsonl"),
        *((f"work/{name}", "is a file of the work itself") for name in ("input.sqlite", "work.json", "lock")),
        ("work/ranked.sqlite", "is a file of the work itself"),
        ("work/my.part.run", "is a file of the work itself"),
        ("other/../work/parts/out.run", "is a file of the work itself"),
        ("work", "is a folder"),
        ("other/out.jsonl.gz", "are not compressed: name out.jsonl"),
        (f"other/{'x' * 300}.run", "cannot be written"),
    ],
)
def test_rankings_take_no_place_of_what_is_read_or_of_the_work(
    tmp_path: Path, cross_encoder_folder: Path, ranking: str, told: str
) -> None:
    for folder in ("beir", "other", "work/parts"):
        (tmp_path / folder).mkdir(parents=True)
    contents = {
        "beir/queries.jsonl": '{"_id": "q", "text": "what?"}\n',
        "beir/corpus.jsonl": '{"_id": "d", "text": "the cat"}\n',
        "first.run": "q Q0 d 1 1 first\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    os.link(tmp_path / "first.run", tmp_path / "linked.run")
    source = RunSource.of(tmp_path / "first.run", tmp_path / "beir")
    with pytest.raises(InputError, match=told):
        rerank(source, tmp_path / "work", cross_encoder_folder, ranking=tmp_path / ranking)
    assert {name: (tmp_path / name).read_text(encoding="utf-8") for name in contents} == contents
    done = rerank(source, tmp_path / "work", cross_encoder_folder, ranking=tmp_path / "work" / "out.run")
    assert list(read_run(done.ranking)) == ["q"]
    done = rerank(source, tmp_path / "work", cross_encoder_folder, ranking=tmp_path / "work" / "out.ndjson")
    assert json.loads(done.ranking.read_text(encoding="utf-8"))["document"] == "d"


def test_an_input_that_can_be_read_once_only_is_refused(tmp_path: Path, cross_encoder_folder: Path) -> None:
    # A named pipe was waited for without end, and what stood in it was read for its digest and lost.
    os.mkfifo(tmp_path / "pairs.jsonl")
    with pytest.raises(ReadError, match="is a pipe, device or folder, and bulk work reads its input twice"):
        rerank(RowSource((tmp_path / "pairs.jsonl",)), tmp_path / "work", cross_encoder_folder)


def test_a_full_disk_is_no_question_of_where_the_folder_is(
    tmp_path: Path, cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_rows(tmp_path / "pairs.jsonl", some_rows())
    opened = Path.open

    def full(path: Path, mode: str = "r", *args: Any, **more: Any) -> Any:
        if path.parent.name == "tries":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return opened(path, mode, *args, **more)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(InputError, match=r"No space left on device\): make room, and run the same command again"):
        rerank(source, tmp_path / "work", cross_encoder_folder)


def test_a_folder_that_rankings_cannot_be_written_to_is_found_before_scoring(
    tmp_path: Path, cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was found when all was scored."""
    source = write_rows(tmp_path / "pairs.jsonl", some_rows())
    (tmp_path / "read-only").mkdir()
    touch = Path.touch

    def refused(path: Path, *args: Any, **more: Any) -> None:
        if path.parent.name == "read-only":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        touch(path, *args, **more)

    monkeypatch.setattr(Path, "touch", refused)
    with pytest.raises(InputError, match=r"ranked\.run cannot be written \(Permission denied\): name another file"):
        rerank(source, tmp_path / "work", cross_encoder_folder, ranking=tmp_path / "read-only" / "ranked.run")
    assert not (tmp_path / "work").exists()


# The command


def test_the_command_prints_what_was_done(
    tmp_path: Path, cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(Path("pairs.jsonl"), some_rows())
    asked = ["bulk", "rerank", "pairs.jsonl", "--to", "work", "-m", str(cross_encoder_folder), "--workers", "0"]
    told = CliRunner().invoke(root, asked)
    assert told.exit_code == 0, told.output
    assert "18 pairs, 18 scored now, 0 before" in told.output
    assert "3 pairs have a document without text and came last" in told.output
    again = json.loads(CliRunner().invoke(root, [*asked, "--json"]).stdout)
    assert (again["kept"], again["scored"], again["ranking"]) == (18, 0, str(Path("work/ranking.jsonl").absolute()))
    wrong = CliRunner().invoke(root, [*asked, "pairs.jsonl", "--data", "."])
    assert wrong.exit_code == 2
