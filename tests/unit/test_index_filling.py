"""An index filled by a program: what it takes of the embedder alone, so that every command opens it again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

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
    assert index.remove(["paris"], embedder).deleted == 1
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
        import numpy as np

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
        lambda: index.remove(["paris"], embedder),
    ):
        with pytest.raises(InputError, match=cure):
            attempt()
    assert index.add(TEXTS, embedder, cuts).added == 2
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
