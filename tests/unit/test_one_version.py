"""A query reads one version of an index from beginning to end, whoever writes to it meanwhile."""

from __future__ import annotations

import asyncio
import contextvars
import pickle
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import crossrank
import serving
from crossrank.cascade import Stage
from crossrank.embedder import TextEmbedder
from crossrank.errors import IndexFileError, InputError
from crossrank.pipeline import Pipeline
from crossrank.types import Ranking, Retriever

pytest.importorskip("lance", reason="needs the search extra")

from crossrank.index import Document, Index, Progress, one_version, table
from crossrank.index.oneversion import held, kept, lost
from crossrank.retrieval.bm25 import BM25Retriever
from crossrank.retrieval.dense import DenseRetriever
from crossrank.server import searching
from crossrank.server.refusals import CancelledRequestError
from crossrank.server.searches import Search
from crossrank.server.tickets import Ticket

Change = Callable[[Index], object]

TEXTS = {
    "a": "bread is of yeast. A cat is a cat.",
    "b": "planet. The bread in France is what it is.",
    "c": "capital of bread: Paris. What is a capital?",
    "d": "bread.",
}


@pytest.fixture
def embedder(bi_encoder_folder: Path) -> TextEmbedder:
    return crossrank.load_embedder(bi_encoder_folder, backend="fake")


@pytest.fixture
def index(tmp_path: Path, embedder: TextEmbedder, bi_encoder_folder: Path) -> Index:
    """Three documents of one passage."""
    made = Index.create(tmp_path / "index", embedder, embedder.tokenizer, model=str(bi_encoder_folder), size=40)
    put(made, embedder, "old", "abc")
    return made


def put(index: Index, embedder: TextEmbedder, age: str, ids: str) -> None:
    index.add([Document(id_, f"{age} {TEXTS[id_]}") for id_ in ids], embedder, embedder.tokenizer)


class Between:
    """A first stage after which something happens, once or more often."""

    def __init__(self, retriever: Retriever, then: Callable[[], object], times: int = 1) -> None:
        self._retriever, self._then = retriever, then
        self.asked, self.times = 0, times

    def retrieve(self, queries: Sequence[str], depth: int) -> list[Ranking]:
        """As the retriever's."""
        found = self._retriever.retrieve(queries, depth)
        self.asked += 1
        if self.asked <= self.times:
            self._then()
        return found


def changes(embedder: TextEmbedder, monkeypatch: pytest.MonkeyPatch) -> dict[str, Change]:
    """What may happen to the documents that a query has found, before it reads their texts."""

    def another(index: Index) -> None:
        writer = Index.open(index._table.folder)
        writer.remove(["b", "c"])
        put(writer, embedder, "new", "a")

    def refreshed(index: Index) -> None:
        # As `crossrank mcp` does it for another search that begins.
        another(index)
        with ThreadPoolExecutor(1) as thread:
            thread.submit(index.refresh).result()

    def tidied(index: Index) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(table, "_READ_FOR", 0.0)
            another(index)

    return {
        "another process": another,
        "a refresh": refreshed,
        "a removal": lambda index: index.remove(["b", "c"]),
        "a replacement": lambda index: put(index, embedder, "new", "abc"),
        "tidied away": tidied,
    }


CHANGES = ["another process", "a refresh", "a removal", "a replacement", "tidied away"]


@pytest.fixture(params=CHANGES)
def change(request: pytest.FixtureRequest, embedder: TextEmbedder, monkeypatch: pytest.MonkeyPatch) -> Change:
    return changes(embedder, monkeypatch)[request.param]


@pytest.fixture
def tidied(embedder: TextEmbedder, monkeypatch: pytest.MonkeyPatch) -> Change:
    """An update of another process that leaves one document, and nothing of the version before."""
    return changes(embedder, monkeypatch)["tidied away"]


def whole(index: Index, between: Between, embedder: TextEmbedder, *stages: Stage) -> Pipeline:
    """A pipeline in which something happens when one of its retrievers has found its documents."""
    retrievers: dict[str, Retriever] = {"bm25": between, "dense": DenseRetriever(index, embedder)}
    return Pipeline(retrievers, index.passages, stages, store=index)


def ages(texts: Sequence[str]) -> list[str]:
    return sorted({text.split()[0] for text in texts})


def test_an_update_between_ids_and_texts(
    index: Index, embedder: TextEmbedder, change: Change, cross_encoder_folder: Path, request: pytest.FixtureRequest
) -> None:
    """It was an InputError, "the index has no passage", or the texts of one version in the order of another."""
    gone = request.node.callspec.params["change"] == "tidied away"
    reader = Index.open(index._table.folder)
    between = Between(BM25Retriever(reader), lambda: change(reader))
    stage = Stage(crossrank.load(cross_encoder_folder, backend="fake"))
    made = whole(reader, between, embedder, stage)
    answer = made.search("bread")
    assert ages([passage.text for passage in answer]) == ["new" if gone else "old"]
    assert sorted(answer.ranking.ids) == (["a"] if gone else ["a", "b", "c"])
    assert {id_ for trace in answer.traces for id_ in trace.ranking.ids} == set(answer.ranking.ids)
    assert between.asked == (2 if gone else 1), "the whole query again, and only where its version is gone"
    # A pipeline lives long, and the next query sees what this index has seen.
    reader.refresh()
    assert "new" in ages([passage.text for passage in made.search("bread")]) or len(reader) == 1


def test_the_same_through_a_context(index: Index, embedder: TextEmbedder, change: Change) -> None:
    made = whole(index, Between(BM25Retriever(index), lambda: change(index)), embedder)
    context = made.context("bread", 200, count=lambda text: len(text.split()))
    assert len(ages([source.text for source in context.sources])) == 1
    assert not context.left_out


def test_an_answer_outlives_its_documents(
    index: Index, embedder: TextEmbedder, tidied: Change, cross_encoder_folder: Path
) -> None:
    """What is asked of an answer afterwards, on another machine if need be, is told from the answer alone."""
    stage = Stage(crossrank.load(cross_encoder_folder, backend="fake"))
    made = whole(index, Between(BM25Retriever(index), lambda: None), embedder, stage)
    answer = made.search("bread")

    def told() -> tuple[Any, ...]:
        kept = pickle.loads(pickle.dumps(answer))
        return made.context(kept, 200), made.evidence(kept), made.relevance(kept), [one.text for one in kept]

    before = told()
    tidied(index)
    index.refresh()
    assert index.ids() == ["a"]
    assert told() == before
    assert [len(before[0].sources), len(before[1]), len(before[2].probabilities)] == [3, 3, 3]


def test_a_stage_that_may_fail_is_asked_again(
    index: Index, embedder: TextEmbedder, tidied: Change, cross_encoder_folder: Path
) -> None:
    """It fails for want of texts that only this version lacks, and its failure would be the answer."""
    stages = (Stage(crossrank.load(cross_encoder_folder, backend="fake")),)
    between = Between(BM25Retriever(index), lambda: None)
    asked: list[int] = []

    class Harmless(Between):
        """What is read first is lost, all else seems to be there: versions go file by file."""

        def retrieve(self, queries: Sequence[str], depth: int) -> list[Ranking]:
            """As the retriever's."""
            found = super().retrieve(queries, depth)
            if self.asked == 1:
                tidied(index)
                with pytest.raises(IndexFileError, match="ask again"):
                    index.passages(found[0].ids)
                asked.append(len(found[0]))
            return found

    made = replace(whole(index, Harmless(between, lambda: None), embedder, *stages), on_error="keep")
    made = replace(made, texts=lambda ids: [crossrank.Passage(id_, "kept elsewhere") for id_ in ids], store=None)
    made = replace(made, retrievers={"bm25": made.retrievers["bm25"]})
    answer = made.search("bread")
    assert (asked, answer.ranking.ids, answer.failed) == ([3], ("a",), ())


def test_a_budget_counts_from_the_first_try(index: Index, embedder: TextEmbedder, tidied: Change) -> None:
    now = [0.0]

    def later() -> None:
        now[0] += 5.0
        tidied(index)

    made = replace(whole(index, Between(BM25Retriever(index), later), embedder), clock=lambda: now[0])
    answer = made.search("bread")
    assert (answer.seconds, ages([passage.text for passage in answer])) == (5.0, ["new"])


def test_getting_ready_for_a_budget_is_a_query_too(index: Index, embedder: TextEmbedder, change: Change) -> None:
    hurried = whole(index, Between(BM25Retriever(index), lambda: change(index)), embedder).within(10_000)
    assert len(ages([passage.text for passage in hurried.search("bread")])) == 1


def test_whoever_loses_two_versions_is_told(index: Index, embedder: TextEmbedder, tidied: Change) -> None:
    def again() -> None:
        tidied(index)
        put(Index.open(index._table.folder), embedder, "old", "bc")

    between = Between(BM25Retriever(index), again, times=9)
    with pytest.raises(IndexFileError, match=r"updated during this query.*ask again"):
        whole(index, between, embedder).search("bread")
    assert between.asked == 2


def test_other_errors_are_not_asked_again() -> None:
    asked: list[int] = []

    def ask() -> None:
        asked.append(1)
        raise InputError("no")

    with pytest.raises(InputError, match="no"):
        one_version(ask)
    assert len(asked) == 1


def test_a_query_within_a_query_is_a_part_of_it(index: Index, embedder: TextEmbedder) -> None:
    def ask() -> list[list[str]]:
        before = index.ids()
        put(index, embedder, "new", "d")
        with ThreadPoolExecutor(1) as thread:
            other = thread.submit(index.ids).result()
        return [before, one_version(index.ids), asyncio.run(asyncio.to_thread(index.ids)), other]

    first, inner, same, other = one_version(ask)
    assert first == inner == same == ["a", "b", "c"]
    assert sorted(other) == sorted(index.ids()) == ["a", "b", "c", "d"]
    assert held(index, "now") == "now", "nothing is kept when a query is over"


def test_what_has_nothing_to_do_with_the_loss_is_not_asked_again(index: Index, tidied: Change) -> None:
    """An answer may cost money, and a client that has left wants none."""
    asked: list[int] = []

    def ask() -> None:
        asked.append(1)
        ids = index.ids()
        tidied(index)
        with suppress(IndexFileError):
            index.passages(ids)
        raise ValueError("the client left")

    with pytest.raises(ValueError, match="the client left"):
        one_version(ask)
    assert len(asked) == 1


def test_a_consequence_of_the_loss_is_asked_again(index: Index, tidied: Change) -> None:
    asked: list[int] = []

    def ask() -> list[str]:
        asked.append(1)
        ids = index.ids()
        if len(asked) == 1:
            tidied(index)
        try:
            return [passage.text.split()[0] for passage in index.passages(ids)]
        except IndexFileError as error:
            raise RuntimeError("a library's own") from error

    assert (one_version(ask), len(asked)) == (["new"], 2)


def test_a_version_that_was_gone_before_the_first_read_is_no_loss(index: Index, tidied: Change) -> None:
    """The whole query was asked twice, though nothing had been read."""
    asked: list[int] = []
    tidied(Index.open(index._table.folder))

    def ask() -> list[str]:
        asked.append(1)
        index.check_embedder(crossrank.load_embedder(index.info().model or "", backend="fake"))
        return [passage.text.split()[0] for passage in index.passages(index.ids())]

    assert (one_version(ask), len(asked)) == (["new"], 1)


def test_a_thread_that_reads_late_goes_where_the_query_has_gone() -> None:
    """Else what it had read of the old version would stand beside the newer."""

    def ask() -> tuple[bool, bool, str]:
        assert held("index", "old") == "old"
        lost("index", "old", "new", Path("x"))
        lost("index", "old", "newer", Path("x"))
        return kept("index", "old"), kept("index", "new"), held("index", "newest")

    assert one_version(ask) == (False, True, "new")


def test_a_copied_context_is_of_no_query_that_is_over(index: Index, embedder: TextEmbedder, tidied: Change) -> None:
    """A task that a query started saw the old version for ever, and failed for good when that was removed."""
    made: list[contextvars.Context] = []

    def ask() -> list[str]:
        made.append(contextvars.copy_context())
        return index.ids()

    one_version(ask)
    put(index, embedder, "new", "d")
    assert sorted(made[0].run(index.ids)) == sorted(made[0].run(one_version, index.ids)) == list("abcd")
    tidied(index)
    index.refresh()
    assert made[0].run(index.ids) == made[0].run(one_version, index.ids) == ["a", "d"]


def test_a_task_that_outlives_its_query(index: Index, embedder: TextEmbedder) -> None:
    async def later() -> list[str]:
        await asyncio.sleep(0)
        return await asyncio.to_thread(one_version, index.ids)

    async def main() -> list[str]:
        tasks: list[asyncio.Task[list[str]]] = []
        one_version(lambda: (index.ids(), tasks.append(asyncio.create_task(later()))))
        put(index, embedder, "new", "d")
        return await tasks[0]

    assert sorted(asyncio.run(main())) == list("abcd")


def test_what_reads_only_later_is_refused(index: Index) -> None:
    """Its reads came after the query, each at the version of its moment, and nothing said so."""

    async def later() -> list[str]:
        return index.ids()

    def some() -> Iterator[str]:
        yield from index.ids()

    async def both() -> AsyncIterator[str]:
        yield index.ids()[0]

    for ask in (later, some, both, lambda: later(), lambda: one_version(some)):
        with pytest.raises(InputError, match="plain function"):
            one_version(ask)


def test_an_index_that_cannot_be_seen_again_takes_no_place_of_what_an_update_says(
    index: Index, embedder: TextEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Index) -> None:
        raise IndexFileError("damaged")

    def documents() -> Iterator[Document]:
        yield Document("d", "bread")
        raise RuntimeError("the real cause")

    monkeypatch.setattr(Index, "refresh", broken)
    with pytest.raises(RuntimeError, match="the real cause"):
        index.add(documents(), embedder, embedder.tokenizer)
    assert index.add([Document("e", "bread")], embedder, embedder.tokenizer).added == 1


def test_an_update_within_a_query_is_of_the_newest_version(
    index: Index, embedder: TextEmbedder, bi_encoder_folder: Path
) -> None:
    """What is asked of models goes by the version that the query reads, what an update checks by the one it changes."""

    class Another(TextEmbedder):
        fingerprint = "another"

    other = crossrank.load_embedder(bi_encoder_folder, backend="fake")
    other.__class__ = Another

    def ask() -> int:
        index.ids()
        Index.create(index._table.folder, other, other.tokenizer, size=40, rebuild=True)
        index.check_embedder(embedder)
        with pytest.raises(IndexFileError, match="another embedder"):
            index.check_embedder(other)
        with pytest.raises(IndexFileError, match="another embedder"):
            index.add([Document("d", "bread")], embedder, embedder.tokenizer)
        return index.add([Document("d", "bread")], other, other.tokenizer).added

    assert one_version(ask) == 1


def test_opening_an_index_within_a_query_holds_no_version(index: Index, embedder: TextEmbedder) -> None:
    def ask() -> list[str]:
        made = Index.open_or_create(index._table.folder, embedder, embedder.tokenizer)
        put(made, embedder, "new", "d")
        return made.ids()

    assert sorted(one_version(ask)) == list("abcd")


def test_a_running_update_does_not_move_its_readers(
    index: Index, embedder: TextEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table of an index that was updated moved with every commit, and a query in another thread with it."""
    monkeypatch.setattr("crossrank.index.commits.COMMIT_SECONDS", 0.0)
    seen: list[list[str]] = []

    def progress(told: Progress) -> None:
        seen.append(index.ids())

    documents = [Document(id_, "more bread") for id_ in "defg"]
    index.add(documents, embedder, embedder.tokenizer, progress)
    assert seen
    assert all(ids == ["a", "b", "c"] for ids in seen)
    assert sorted(index.ids()) == list("abcdefg")


# Servers.


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Any]:
    with serving.searching(tmp_path, documents=3) as made:
        yield made


def shrink(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process leaves document 0 alone, with another text, and nothing of the version before."""
    with monkeypatch.context() as patch:
        patch.setattr(table, "_READ_FOR", 0.0)
        writer, embedder = Index.open(service.index._table.folder), service.embedder
        writer.remove(["1", "2"])
        writer.add([Document("0", "New paris.", metadata={"m": 1})], embedder, embedder.tokenizer)


@pytest.mark.parametrize("step", ["dense", "read", "_probable"])
def test_a_search_of_the_server(service: Any, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Each of its steps reads texts; the reply was 400, "the index has no passage"."""
    asked: list[int] = []
    place, name = (DenseRetriever, "retrieved") if step == "dense" else (searching, step)
    real = getattr(place, name)

    def first(*given: Any) -> Any:
        made = real(*given) if step == "dense" else None
        asked.append(1)
        if len(asked) == 1:
            shrink(service, monkeypatch)
        return made if step == "dense" else real(*given)

    monkeypatch.setattr(place, name, first)
    body = {"query": "paris", "columns": 5, "evidence": True, "threshold": 0.0}
    reply = serving.asked(service, "/search", body)
    assert reply.status_code == 200, reply.text
    assert [result["text"] for result in reply.json()["results"]] == ["New paris."]
    assert len(asked) == 2


def test_a_client_that_left_is_not_searched_for_again(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search began again, and embedded the query for nobody."""
    ticket, asked = Ticket.lasting(60.0), list[int]()
    real = BM25Retriever.retrieve

    def left(self: BM25Retriever, queries: Sequence[str], depth: int) -> list[Ranking]:
        asked.append(1)
        found = real(self, queries, depth)
        shrink(service, monkeypatch)
        ticket.cancelled = True
        return found

    monkeypatch.setattr(BM25Retriever, "retrieve", left)
    with pytest.raises(CancelledRequestError):
        searching.search(service, service.reranker, Search("paris"), ticket)
    assert len(asked) == 1


def test_why_a_search_of_the_server_found_nothing(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The field was looked for in the version of another search."""
    real = DenseRetriever.retrieved

    def updated(self: DenseRetriever, queries: Sequence[str], depth: int) -> Any:
        found = real(self, queries, depth)
        service.index.add([Document("9", "paris", metadata={"m": 1})], service.embedder, service.embedder.tokenizer)
        return found

    monkeypatch.setattr(DenseRetriever, "retrieved", updated)
    reply = serving.asked(service, "/search", {"query": "paris", "where": ["m>=1"]})
    assert reply.json()["warnings"] == ["no passage has a value in the field 'm'"]


# Under load.

SENTENCE = "bread yeast paris france planet cat. "


def generation(number: int) -> list[Document]:
    """Documents whose passages all begin with the number of their version, and are more in one than in the next."""
    return [Document(f"d{n}", f"{number}" * 3, f"g{number}") for n in range(2)] + [
        Document("long", SENTENCE * (2 if number % 2 else 12), f"g{number}")
    ]


class Lengths:
    """A scorer that reads texts."""

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """The characters of the text."""
        return np.array([len(text) for _, text in pairs], dtype=np.float32)


def test_queries_while_others_write(tmp_path: Path, embedder: TextEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    """100 queries by two threads, while one thread commits through the same index, one moves it on, and versions that
    were replaced live for a second only. No query fails, and none has texts of two versions."""
    monkeypatch.setattr(table, "_READ_FOR", 1.0)
    index = Index.create(tmp_path / "index", embedder, embedder.tokenizer, size=16)
    index.add(generation(0), embedder, embedder.tokenizer)
    done = threading.Event()

    def write() -> int:
        number = 0
        while not done.is_set():
            number += 1
            index.add(generation(number), embedder, embedder.tokenizer)
        return number

    def move() -> None:
        while not done.wait(0.002):
            index.refresh()

    # One is moved on all the time, the other only when its version is gone.
    pipelines = [
        Pipeline(
            {"bm25": BM25Retriever(own), "dense": DenseRetriever(own, embedder)},
            own.passages,
            (Stage(Lengths()),),
            store=own,
        )
        for own in (index, Index.open(tmp_path / "index"))
    ]

    def ask(number: int) -> tuple[int, list[str]]:
        answer = pipelines[number % 2].search(f"bread {number}", k=50)
        return len(answer.passages), sorted({passage.title for passage in answer})

    with ThreadPoolExecutor(4) as threads:
        writer, mover = threads.submit(write), threads.submit(move)
        try:
            answers = [future.result() for future in [threads.submit(ask, number) for number in range(100)]]
        finally:
            done.set()
        assert writer.result() > 1
        mover.result()
    assert all(count > 2 and len(versions) == 1 for count, versions in answers), answers
    assert len({versions[0] for _, versions in answers}) > 1, "the pipeline sees updates"
