"""The folder of an index is replaced by another index while somebody reads it, of the same version number or not."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import crossrank
import serving
from crossrank.embedder import TextEmbedder
from crossrank.errors import IndexFileError
from crossrank.pipeline import Pipeline

pytest.importorskip("lance", reason="needs the search extra")

from crossrank.index import Document, Index, one_version, table
from crossrank.index.folders import Mark
from crossrank.retrieval.bm25 import BM25Retriever
from crossrank.retrieval.dense import DenseRetriever

Swap = Callable[[Path, Path], None]


def moved(old: Path, new: Path) -> None:
    """`mv docs.index old.index; mv stage.index docs.index`"""
    os.rename(old, old.with_name("away"))
    os.rename(new, old)


def linked(old: Path, new: Path) -> None:
    """`ln -sfn NEW current`, where `current` was a link before."""
    new.with_name("link").symlink_to(new)
    os.replace(new.with_name("link"), old)


def remade(old: Path, new: Path) -> None:
    """`rm -r docs.index`, and what was made there instead."""
    shutil.rmtree(old)
    shutil.copytree(new, old, copy_function=shutil.copyfile)


@pytest.fixture(params=[moved, linked, remade])
def swap(request: pytest.FixtureRequest) -> Swap:
    made: Swap = request.param
    return made


@pytest.fixture
def embedder(bi_encoder_folder: Path) -> TextEmbedder:
    return crossrank.load_embedder(bi_encoder_folder, backend="fake")


def build(folder: Path, embedder: TextEmbedder, age: str, **options: Any) -> Path:
    """A fresh index, always in as many steps."""
    made = Index.create(folder, embedder, embedder.tokenizer, **options)
    made.add([Document(id_, f"{age} bread {id_}") for id_ in "abc"], embedder, embedder.tokenizer)
    return folder


@pytest.fixture
def folder(tmp_path: Path, embedder: TextEmbedder, swap: Swap) -> Path:
    """What is served: an index, or a link to one."""
    made = build(tmp_path / "first", embedder, "old")
    if swap is linked:
        (tmp_path / "docs.index").symlink_to(made)
    else:
        os.rename(made, tmp_path / "docs.index")
    return tmp_path / "docs.index"


def test_readers(folder: Path, tmp_path: Path, embedder: TextEmbedder, swap: Swap) -> None:
    """A search failed as if the index were damaged, or found nothing though it had been refreshed."""
    refreshed, latest, reading = (Index.open(folder) for _ in range(3))
    other = build(tmp_path / "stage", embedder, "new")
    assert latest.latest() is latest
    swap(folder, other)
    refreshed.refresh()
    for index in (refreshed, latest.latest(), reading):
        assert index.bm25("old", 5).ids == ()
        assert index.bm25("new", 5).ids == ("a", "b", "c")
        assert [passage.text for passage in index.passages(["b"])] == ["new bread b"]
        assert index.info().version == Index.open(folder).info().version
    assert reading.latest() is reading


def test_a_pipeline_in_the_middle_of_a_query(folder: Path, tmp_path: Path, embedder: TextEmbedder, swap: Swap) -> None:
    index, other = Index.open(folder), build(tmp_path / "stage", embedder, "new")
    asked: list[int] = []

    class Between(BM25Retriever):
        def retrieve(self, queries: Any, depth: int) -> Any:
            found = super().retrieve(queries, depth)
            asked.append(1)
            if len(asked) == 1:
                swap(folder, other)
            return found

    pipeline = Pipeline({"bm25": Between(index), "dense": DenseRetriever(index, embedder)}, index.passages)
    assert {passage.text.split()[0] for passage in pipeline.search("bread")} == {"new"}
    assert len(asked) == 2
    pipeline.search("bread")
    assert len(asked) == 3


def test_agents(folder: Path, tmp_path: Path, embedder: TextEmbedder, swap: Swap) -> None:
    pytest.importorskip("mcp.server.mcpserver", reason="needs the mcp extra")
    from mcp import Client

    from crossrank.integrations.mcp import build as server_of

    index = Index.open(folder)
    pipeline = Pipeline({"bm25": BM25Retriever(index)}, index.passages)

    async def ask() -> list[str]:
        async with Client(server_of(None, pipeline, index.refresh)) as client:
            texts = []
            for turn in range(2):
                found = await client.call_tool("search", {"query": "bread"})
                assert not found.is_error, found
                texts.append(found.structured_content["result"][0]["text"][:3])
                if turn == 0:
                    swap(folder, build(tmp_path / "stage", embedder, "new"))
            return texts

    assert asyncio.run(ask()) == ["old", "new"]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Any]:
    with serving.searching(tmp_path, documents=3) as made:
        yield made


def readable(service: Any) -> str:
    """What `/metrics` says of the index."""
    import httpx

    from crossrank.server.app import build as app_of

    async def got() -> str:
        transport = httpx.ASGITransport(app=app_of(service).app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return (await client.get("/metrics")).text

    (line,) = (line for line in asyncio.run(got()).splitlines() if line.startswith("crossrank_index_readable "))
    return line.split()[-1]


@pytest.mark.parametrize("put", [moved, remade])
def test_the_server(tmp_path: Path, service: Any, put: Swap) -> None:
    """It answered 500 until it was started anew."""
    folder, body = service.index._table.folder, {"query": "bread"}
    assert serving.asked(service, "/search", body).status_code == 200
    put(folder, build(tmp_path / "stage", service.embedder, "new"))
    reply = serving.asked(service, "/search", body)
    assert reply.status_code == 200, reply.text
    assert {result["text"].split()[0] for result in reply.json()["results"]} == {"new"}
    assert len(service.index) == 3


def test_an_index_that_the_server_cannot_read(tmp_path: Path, service: Any, caplog: pytest.LogCaptureFixture) -> None:
    folder, body = service.index._table.folder, {"query": "paris"}
    assert readable(service) == "1.0"
    os.rename(folder, tmp_path / "away")
    reply = serving.asked(service, "/search", body)
    assert (reply.status_code, str(tmp_path) in reply.text) == (503, False)
    assert "index cannot be read" in reply.text
    assert f"no index in {folder}" in caplog.text
    assert readable(service) == "0.0"
    assert serving.asked(service, "/search", {"query": "paris", "documents": ["Paris."]}).status_code == 200
    assert readable(service) == "0.0", "what a request brings says nothing of the index"
    # One of another embedder appears.
    scratch = crossrank.load_embedder()
    build(folder, scratch, "other")
    assert serving.asked(service, "/search", body).status_code == 503
    assert re.search("made with another embedder|made anew with other models", caplog.text)
    shutil.rmtree(folder)
    os.rename(tmp_path / "away", folder)
    assert serving.asked(service, "/search", body).status_code == 200
    assert readable(service) == "1.0"


def test_other_models_are_told(tmp_path: Path, embedder: TextEmbedder) -> None:
    index, other = Index.open(build(tmp_path / "i", embedder, "old")), crossrank.load_embedder()
    moved(tmp_path / "i", build(tmp_path / "stage", other, "new"))
    for read in (index.refresh, index.ids, lambda: one_version(index.ids)):
        with pytest.raises(IndexFileError, match="made anew with other models: open it again"):
            read()


def test_other_settings_are_gone_by(tmp_path: Path, embedder: TextEmbedder) -> None:
    index = Index.open(build(tmp_path / "i", embedder, "old"))
    moved(tmp_path / "i", build(tmp_path / "stage", embedder, "résumé", language="any"))
    index.refresh()
    assert index.info().language == "any"


def test_copies_and_new_times_are_the_same_version(tmp_path: Path, embedder: TextEmbedder) -> None:
    """Whoever restores a copy, or keeps indexes on a disk that mends times, gets no query asked twice."""
    index = Index.open(build(tmp_path / "i", embedder, "old"))
    before = index._table
    for manifest in (tmp_path / "i" / "passages.lance" / "_versions").glob("*.manifest"):
        os.utime(manifest, (1, 1))
    shutil.copytree(tmp_path / "i", tmp_path / "copy")
    moved(tmp_path / "i", tmp_path / "copy")
    assert index.bm25("old", 5).ids == ("a", "b", "c")
    index.refresh()
    assert index._table is before


def test_clocks_that_tick_in_seconds(tmp_path: Path, embedder: TextEmbedder) -> None:
    """Manifests of one time and size: what cannot be read is opened once more before it is called damaged."""
    index, other = Index.open(build(tmp_path / "i", embedder, "old")), build(tmp_path / "stage", embedder, "new")
    moved(tmp_path / "i", other)
    mark: Any = index._table._mark
    mark._seen = mark._seen._replace(looks=mark._looks())
    assert mark.there()
    assert not mark.there(surely=True)
    assert [passage.text for passage in index.passages(["a"])] == ["new bread a"]


def test_a_writer_does_not_write_into_another_index(tmp_path: Path, embedder: TextEmbedder) -> None:
    """Rows of the one would be said to be in the other."""
    index, other = Index.open(build(tmp_path / "i", embedder, "old")), build(tmp_path / "stage", embedder, "new")

    def documents() -> Iterator[Document]:
        moved(tmp_path / "i", other)
        yield Document("d", "late bread")

    with pytest.raises(IndexFileError, match="replaced while it was updated: run this again"):
        index.add(documents(), embedder, embedder.tokenizer)
    assert index.ids() == ["a", "b", "c"]
    assert [passage.text[:3] for passage in index.passages(["a"])] == ["new"]
    index.add([Document("d", "late bread")], embedder, embedder.tokenizer)
    assert index.bm25("late", 5).ids == ("d",)


def test_a_folder_that_is_replaced_while_it_is_opened(
    tmp_path: Path, embedder: TextEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path / "i", embedder, "old")
    other, real, asked = build(tmp_path / "stage", embedder, "new"), table.lance.dataset, []

    def opened(path: str) -> Any:
        made = real(path)
        asked.append(path)
        if len(asked) == 1:
            moved(tmp_path / "i", other)
        return made

    monkeypatch.setattr(table.lance, "dataset", opened)
    index = Index.open(tmp_path / "i")
    assert len(asked) == 2
    assert [passage.text for passage in index.passages(["a"])] == ["new bread a"]


def test_a_look_needs_no_working_directory(
    tmp_path: Path, embedder: TextEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path / "i", embedder, "old")
    monkeypatch.chdir(tmp_path)
    index = Index.open("i")
    monkeypatch.chdir("/")
    assert index.bm25("old", 5).ids == ("a", "b", "c")


def test_manifests_of_another_name(tmp_path: Path) -> None:
    """As long as the folder says nothing, numbers decide alone."""
    assert Mark(tmp_path, 1).there()
    assert Mark(tmp_path, 1).there(surely=True)
