"""An index filled by a program: what it takes of the embedder alone, so that every command opens it again."""

from __future__ import annotations

import json
import math
import shutil
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import crossrank
import tiny
from crossrank.checkpoint import hub
from crossrank.cli import root
from crossrank.errors import IndexFileError, InputError
from crossrank.models import catalog, named

pytest.importorskip("lance", reason="needs the search extra")

from crossrank.index import Document, Index

TEXTS = [Document("paris", "Paris is the capital of France."), Document("bread", "Bread needs yeast.")]

wheel = pytest.mark.skipif(
    not (Path(catalog.__file__).parent / "weights" / "embed").is_dir(), reason="no model in this tree"
)


def run(*arguments: object) -> str:
    done = CliRunner().invoke(root, [str(one) for one in arguments])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ("mine", "mine"),
        ("./mine", "mine"),
        (Path("mine"), "mine"),
        ("../work/mine", "mine"),
        # Not the model in the wheel, which is called so.
        (Path("embed"), "embed"),
        ("./embed", "embed"),
        ("mine/model.safetensors", "mine/model.safetensors"),
    ],
)
def test_an_index_made_of_an_embedder_alone_opens_from_anywhere(
    asked: str | Path, kept: str, tmp_path: Path, bi_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    for name in ("mine", "embed"):
        shutil.copytree(bi_encoder_folder, work / name)
    monkeypatch.chdir(work)
    embedder = crossrank.load_embedder(asked)
    # Where the program is by now says nothing of where the model is.
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    index = Index.create(tmp_path / "index", embedder, size=40)
    assert index.add(TEXTS, embedder).added == 2
    assert index.settings.model == str((work / kept).resolve())
    found = crossrank.open_pipeline(tmp_path / "index", rerank=False).search("yeast")
    assert {passage.document for passage in found} == {"paris", "bread"}
    note = tmp_path / "note.txt"
    note.write_text("A cat.", encoding="utf-8")
    run("index", note, "--to", tmp_path / "index")
    assert "note.txt" in run("search", tmp_path / "index", "cat", "--no-rerank", "--json")
    assert index.remove(["paris"]).deleted == 1
    assert index.update([note], embedder).unchanged == 1
    again = Index.open_or_create(tmp_path / "index", embedder)
    assert again.documents() == ["bread", "note.txt"]


def test_an_embedder_by_its_path_that_is_gone_is_told(tmp_path: Path, bi_encoder_folder: Path) -> None:
    shutil.copytree(bi_encoder_folder, tmp_path / "mine")
    embedder = crossrank.load_embedder(tmp_path / "mine" / "model.safetensors")
    Index.create(tmp_path / "index", embedder)
    (tmp_path / "mine").rename(tmp_path / "moved")
    with pytest.raises(IndexFileError, match=r"model\.safetensors, and nothing is there"):
        crossrank.open_pipeline(tmp_path / "index", rerank=False)


@wheel
def test_the_model_of_the_wheel_keeps_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "embed").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in (None, "embed", "EMBED"):
        assert Index.create(f"{name}.index", crossrank.load_embedder(name)).settings.model == "embed"


def test_a_model_of_the_hub_keeps_its_name(
    tmp_path: Path, bi_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "models--owner--model" / "snapshots" / "0123456789abcdef"
    shutil.copytree(bi_encoder_folder, snapshot)
    monkeypatch.setattr(hub, "folder", lambda name, **options: snapshot)
    for name in ("owner/model", "model"):
        assert named.lasting(crossrank.load_embedder(name).checkpoint) == name


def test_a_name_that_is_given_is_kept(tmp_path: Path, bi_encoder_folder: Path) -> None:
    embedder = crossrank.load_embedder(bi_encoder_folder)
    made = Index.create(tmp_path / "index", embedder, embedder.tokenizer, model="mine")
    assert made.settings.model == "mine"
    other = tiny.bi_encoder(tmp_path / "other", pooling="cls")
    with pytest.raises(IndexFileError, match="another embedder"):
        made.add(TEXTS, crossrank.load_embedder(other))


class Stranger:
    """An embedder of the user's own, with a name that is nobody's but theirs."""

    name, width, fingerprint = "sentence-transformers/all-MiniLM-L6-v2", 4, "stranger"
    tokenizer: Any = "words"  # None of the tokenizers library.

    def embed(self, texts: list[str]) -> Any:
        return np.full((len(texts), self.width), 0.5, dtype=np.float32)


def test_an_embedder_without_a_tokenizer_is_told_the_cure(tmp_path: Path, bi_encoder_folder: Path) -> None:
    embedder, cuts = Stranger(), crossrank.load_embedder(bi_encoder_folder).tokenizer
    cure = r"Stranger has no tokenizer .* tokenizer=crossrank\.load_embedder\(\)\.tokenizer"
    with pytest.raises(InputError, match=cure):
        Index.create(tmp_path / "index", embedder)
    assert not (tmp_path / "index").exists()
    index = Index.create(tmp_path / "index", embedder, tokenizer=cuts)
    # Their name is none that crossrank could load.
    assert index.settings.model is None
    for attempt in (
        lambda: index.add(TEXTS, embedder),
        lambda: index.update([tmp_path], embedder),
    ):
        with pytest.raises(InputError, match=cure):
            attempt()
    assert index.add(TEXTS, embedder, cuts).added == 2
    removed = index.remove(["paris", "nobody", "paris"])  # Without any model.
    assert (removed.deleted, removed.unchanged) == (1, 1)
    assert index.add(TEXTS, embedder, cuts).added == 1
    embedder.tokenizer = cuts
    assert index.add(TEXTS, embedder).unchanged == 2


def test_an_embedder_behind_an_address_names_itself(tmp_path: Path, bi_encoder_folder: Path) -> None:
    pytest.importorskip("httpx", reason="needs the llm extra")
    from crossrank.remoteembedder import RemoteEmbedder

    remote = RemoteEmbedder("http://user:secret@localhost:1/v1", "m", key="secret", dimensions=4)
    with pytest.raises(InputError, match="RemoteEmbedder has no tokenizer"):
        Index.create(tmp_path / "index", remote)
    index = Index.create(tmp_path / "index", remote, crossrank.load_embedder(bi_encoder_folder).tokenizer)
    assert index.settings.model == remote.name
    assert "secret" not in remote.name
    with pytest.raises(IndexFileError, match="behind an address"):
        crossrank.open_pipeline(tmp_path / "index", rerank=False)


def test_a_late_model_names_itself_too(tmp_path: Path, bi_encoder_folder: Path) -> None:
    embedder = crossrank.load_embedder(bi_encoder_folder)
    late = crossrank.load_late(tiny.late(tmp_path / "late"))
    index = Index.create(tmp_path / "index", embedder, late=late, size=40)
    assert index.add(TEXTS, embedder, late=late).added == 2
    assert index.settings.late_model == str((tmp_path / "late").resolve())
    note = tmp_path / "note.txt"
    note.write_text("A cat.", encoding="utf-8")
    run("index", note, "--to", tmp_path / "index")
    assert index.latest().documents() == ["paris", "bread", "note.txt"]


@wheel
def test_rows_are_documents_as_those_of_a_file(tmp_path: Path) -> None:
    """A list of a program's rows and a .jsonl file that holds the same give the same passages."""
    rows: list[dict[str, Any]] = [
        {"id": 7, "title": "Uploads", "text": "May have 5 MB.", "year": 2020, "tags": ["a", "b"]},
        {"_id": "b", "id": 3, "Content": "Bread needs yeast.", "metadata": {"lang": "en", "year": 1}, "year": 2},
        {"id": "c", "body": "Cats purr.", "text": "", "title": None, "raw": "x" * 99_999},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    embedder = crossrank.load_embedder()
    given, read = (Index.create(tmp_path / name, embedder) for name in ("given", "read"))
    changes, of_file = given.add(iter(rows), embedder), read.update([path], embedder)
    assert given.passages(given.ids()) == read.passages(read.ids())
    assert given.documents() == ["7", "b", "c"]
    assert changes.omitted == of_file.omitted == {"raw": 1, "metadata.year": 1}
    assert given.bm25("bread", 5, where="year=2").ids == ("b",)
    # Beside documents, and again: what is the same is left.
    more = given.add([*rows[:2], Document("c", "Dogs bark."), {"id": "d", "text": " "}], embedder)
    assert (more.unchanged, more.changed, more.added) == (2, 1, 0)
    assert [one.reason for one in more.failed] == ["document 'd' is blank: nothing to index"]
    assert more.failed[0].source == "document 'd'"


def test_a_row_may_hold_what_a_program_holds(tmp_path: Path, bi_encoder_folder: Path) -> None:
    embedder = crossrank.load_embedder(bi_encoder_folder)
    index = Index.create(tmp_path / "index", embedder)
    vector, when = np.arange(3), date(2020, 5, 1)
    row = {"id": np.int64(0), "text": np.str_("A cat."), "vector": vector, "when": when, 5: MappingProxyType({"a": 1})}
    meta = MappingProxyType({"lang": "en"})
    index.add([MappingProxyType(row | {"metadata": meta, "title": math.nan})], embedder)
    (passage,) = index.passages(index.ids())
    assert (passage.document, passage.text, passage.title) == ("0", "A cat.", "")
    kept = {name: value for name, value in passage.metadata.items() if name != "5"}
    assert kept == {"vector": [0, 1, 2], "when": "2020-05-01", "lang": "en"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "x"}], r"document 0 has no id: name its field id or _id \(its fields: text\)"),
        ([{"id": "a", "text": "x"}, {"id": None, "text": "x"}], "document 1 has no id"),
        ([{"id": math.nan, "text": "x"}], "document 0 has no id"),
        ([{}], r"document 0 has no id: .* \(its fields: none\)"),
        ([{"id": "a", "texts": "x"}], r"document 0: no text: name the field one of .* \(its fields: id, texts\)"),
        ([{"id": "a", "text": ["x"]}], "document 0: its 'text' is a list, not a string"),
        ([{"id": "a", "text": "x", "title": {}}], "document 0: its 'title' is a dict"),
        ([{"id": "a", "text": "x", "f": [object()]}], "document 0: the metadata field 'f' cannot be kept"),
        ({"id": "a", "text": "x"}, "a list of documents, not one dict"),
        ("x", "a list of documents, not one str"),
        (
            type("DataFrame", (list,), {"columns": ["id"]})(["id"]),
            r"not DataFrame: pass its rows, df.to_dict\('records'\)",
        ),
        (["x"], "expected a Document or a mapping such as .*, not str"),
    ],
)
def test_rows_that_are_no_documents_are_told(rows: Any, message: str, tmp_path: Path, bi_encoder_folder: Path) -> None:
    embedder = crossrank.load_embedder(bi_encoder_folder)
    index = Index.create(tmp_path / "index", embedder)
    with pytest.raises(InputError, match=message):
        index.add(rows, embedder)
