"""Bulk indexing gives the index that `Index.update` gives, and goes on after it stopped anywhere."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

pytest.importorskip("lance", reason="needs the search extra")

import crossrank
import tiny
from crossrank.cli import root
from crossrank.distributed import Workers, documents, embedding, indexing, workfolder
from crossrank.distributed.parts import Part
from crossrank.errors import CheckpointError, IndexFileError, InputError
from crossrank.index import Index, readers
from crossrank.index.lock import exclusive
from crossrank.lateinteraction import load_late

SMALL: dict[str, Any] = {"part_tokens": 60, "size": 16}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Files of three kinds; one row is bad, one document is blank, one text comes twice."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "guide.md").write_text("# The cat\n\n" + "the cat is in france. " * 9, encoding="utf-8")
    rows = [{"_id": f"r{n}", "title": "bread", "text": f"yeast is bread {n % 5}", "year": 2000 + n} for n in range(12)]
    lines = [*map(json.dumps, rows), "no row", json.dumps({"_id": "blank", "text": " "})]
    (folder / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def content(folder: Path) -> list[dict[str, Any]]:
    """All that the table of an index holds."""
    import lance

    return sorted(lance.dataset(folder / "passages.lance").to_table().to_pylist(), key=lambda row: row["id"])


def usual(corpus: Path, to: Path, model: Path) -> Path:
    embedder = crossrank.load_embedder(model)
    made = Index.create(to, embedder, embedder.tokenizer, size=16)
    made.update([corpus], embedder, embedder.tokenizer)
    return to


@pytest.mark.parametrize("name", ["embedder", "embedder/model.safetensors"])
def test_the_index_keeps_a_name_that_holds_in_every_folder(
    name: str, corpus: Path, tmp_path: Path, bi_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(bi_encoder_folder, tmp_path / "embedder")
    monkeypatch.chdir(tmp_path)
    indexing.index([corpus], "bulk.index", name, **SMALL)
    assert Index.open(tmp_path / "bulk.index").settings.model == str((tmp_path / name).resolve())


def test_paths_are_read_once(tmp_path: Path, bi_encoder_folder: Path) -> None:
    (tmp_path / "a.md").write_text("the cat", encoding="utf-8")
    done = indexing.index(tmp_path.glob("*.md"), tmp_path / "bulk.index", bi_encoder_folder, **SMALL)
    assert done.changes.added == 1


@pytest.mark.parametrize("count", [0, 2])
def test_the_index_is_the_one_that_an_update_makes(
    count: int, corpus: Path, tmp_path: Path, bi_encoder_folder: Path
) -> None:
    done = indexing.index([corpus], tmp_path / "bulk.index", bi_encoder_folder, workers=Workers(count), **SMALL)
    assert (done.changes.added, done.embedded, done.kept) == (13, 14, 0)
    assert [failure.source for failure in done.changes.failed] == [
        f"{corpus / 'rows.jsonl'}, line 13",
        f"{corpus / 'rows.jsonl'}, line 14",
    ]
    assert content(tmp_path / "bulk.index") == content(usual(corpus, tmp_path / "usual.index", bi_encoder_folder))
    assert not (tmp_path / "bulk.index.bulk").exists()


def test_documents_of_one_content_have_ids_of_their_own(tmp_path: Path, bi_encoder_folder: Path) -> None:
    """The second took the passages of the first, ids included, and was refused for them."""
    texts = {"a": "yeast is bread", "b": "yeast is bread", "c": "the cat is in france. " * 9, "d": "paris"}
    texts["e"] = texts["c"]
    rows = [json.dumps({"_id": id_, "text": text}) for id_, text in texts.items()]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    to = tmp_path / "my.index"
    done = indexing.index([tmp_path / "rows.jsonl"], to, bi_encoder_folder, **SMALL)
    assert (done.changes.added, done.changes.failed) == (5, ())
    assert {"a", "b", "c#1", "d", "e#1"} <= {row["id"] for row in content(to)}
    assert content(to) == content(usual(tmp_path / "rows.jsonl", tmp_path / "usual.index", bi_encoder_folder))


def test_files_whose_names_are_not_utf_8(corpus: Path, tmp_path: Path, bi_encoder_folder: Path) -> None:
    """SQLite was given them as text, and refused."""
    try:
        (corpus / os.fsdecode(b"caf\xe9.txt")).write_text("paris", encoding="utf-8")
    except OSError:
        pytest.skip("no such names on this machine")
    done = indexing.index([corpus], tmp_path / "my.index", bi_encoder_folder, **SMALL)
    assert done.changes.added == 14
    assert content(tmp_path / "my.index") == content(usual(corpus, tmp_path / "usual.index", bi_encoder_folder))


def test_an_update_embeds_only_what_changed(corpus: Path, tmp_path: Path, bi_encoder_folder: Path) -> None:
    to = tmp_path / "my.index"
    indexing.index([corpus], to, bi_encoder_folder, **SMALL)
    (corpus / "new.txt").write_text("paris", encoding="utf-8")
    (corpus / "guide.md").unlink()
    done = indexing.index([corpus], to, bi_encoder_folder, **SMALL)
    assert (done.changes.added, done.changes.deleted, done.changes.unchanged) == (1, 1, 12)
    # The blank row is read each time, and each time it is nothing.
    assert done.embedded == 2
    assert content(to) == content(usual(corpus, tmp_path / "usual.index", bi_encoder_folder))


def test_going_on_embeds_only_what_is_missing(
    corpus: Path, tmp_path: Path, bi_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = tmp_path / "my.index"
    real, made = embedding._made, []

    def dying(work: embedding.Embedding, embedder: crossrank.TextEmbedder, part: Part) -> bytes:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(part)
        return real(work, embedder, part)

    monkeypatch.setattr(embedding, "_made", dying)
    with pytest.raises(KeyboardInterrupt):
        indexing.index([corpus], to, bi_encoder_folder, **SMALL)
    monkeypatch.setattr(embedding, "_made", real)
    done = indexing.index([corpus], to, bi_encoder_folder, **SMALL)
    assert done.kept == sum(map(len, made))
    assert done.kept + done.embedded == 14
    assert content(to) == content(usual(corpus, tmp_path / "usual.index", bi_encoder_folder))


def killed(monkeypatch: pytest.MonkeyPatch, corpus: Path, to: Path, model: Path, **settings: Any) -> None:
    """An indexing that ends when all parts are done."""

    def dying(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(indexing, "Prepared", dying)
        with pytest.raises(KeyboardInterrupt):
            indexing.index([corpus], to, model, **settings)


@pytest.mark.parametrize("change", ["text", "part_tokens"])
def test_what_was_begun_with_another_input_is_begun_anew(
    change: str, corpus: Path, tmp_path: Path, bi_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is named by the index: a refusal could not be followed, and no update would come through."""
    to = tmp_path / "my.index"
    settings = dict(SMALL)
    killed(monkeypatch, corpus, to, bi_encoder_folder, **settings)
    work = tmp_path / "my.index.bulk"
    begun = {file.name for file in (work / "parts").iterdir()}
    (work / "notes.txt").touch()
    if change == "text":
        (corpus / "guide.md").write_text("paris is the capital", encoding="utf-8")
    else:
        settings["part_tokens"] = 90
    with exclusive(work / "lock"), pytest.raises(IndexFileError, match="another process"):
        indexing.index([corpus], to, bi_encoder_folder, **settings)
    assert {file.name for file in (work / "parts").iterdir()} == begun
    killed(monkeypatch, corpus, to, bi_encoder_folder, **settings)
    assert begun.isdisjoint(file.name for file in (work / "parts").iterdir())
    assert (work / "notes.txt").exists()
    assert indexing.index([corpus], to, bi_encoder_folder, **settings).kept == 14
    assert content(to) == content(usual(corpus, tmp_path / "usual.index", bi_encoder_folder))


def test_parts_that_are_thrown_away_are_counted(
    corpus: Path, tmp_path: Path, bi_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = tmp_path / "my.index"
    killed(monkeypatch, corpus, to, bi_encoder_folder, **SMALL)
    made = len(list((tmp_path / "my.index.bulk" / "parts").iterdir()))
    done = indexing.index([corpus], to, bi_encoder_folder, **{**SMALL, "part_tokens": 90})
    assert (done.discarded, done.kept) == (made, 0)
    assert indexing.index([corpus], to, bi_encoder_folder, **SMALL).discarded == 0


def test_a_folder_of_something_else_is_left_alone(corpus: Path, tmp_path: Path, bi_encoder_folder: Path) -> None:
    work = tmp_path / "my.index.bulk"
    with workfolder.opened(work, {"work": "rerank"}) as folder:
        folder.input.touch()
    with pytest.raises(InputError, match=r"was begun with another .*work than this"):
        indexing.index([corpus], tmp_path / "my.index", bi_encoder_folder, **SMALL)
    (work / "lock").unlink()
    with pytest.raises(InputError, match="holds something else"):
        indexing.index([corpus], tmp_path / "my.index", bi_encoder_folder, **SMALL)
    assert (work / "input.sqlite").exists()


def test_a_kill_while_the_work_is_put_away_ends_nothing(
    corpus: Path, tmp_path: Path, bi_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dying(folder: Path) -> None:
        (folder / "lock").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", dying)
        with pytest.raises(KeyboardInterrupt):
            indexing.index([corpus], tmp_path / "my.index", bi_encoder_folder, **SMALL)
    done = indexing.index([corpus], tmp_path / "my.index", bi_encoder_folder, **SMALL)
    assert (done.changes.unchanged, (tmp_path / "my.index.bulk").exists()) == (13, False)


def test_what_workers_did_not_see_is_made_on_the_spot(
    corpus: Path, tmp_path: Path, bi_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lead = indexing.lead

    def changing(*arguments: Any) -> tuple[int, int]:
        done = lead(*arguments)
        (corpus / "guide.md").write_text("# Another\n\nparis is the capital", encoding="utf-8")
        return done

    monkeypatch.setattr(indexing, "lead", changing)
    indexing.index([corpus], tmp_path / "my.index", bi_encoder_folder, **SMALL)
    assert content(tmp_path / "my.index") == content(usual(corpus, tmp_path / "usual.index", bi_encoder_folder))


def test_what_vectors_ignore_is_reported(corpus: Path, tmp_path: Path, bi_encoder_folder: Path) -> None:
    done = indexing.index([corpus], tmp_path / "my.index", bi_encoder_folder, part_tokens=60, size=200)
    assert [(unread.passage, unread.read < unread.tokens) for unread in done.changes.unread] == [
        ("corpus/guide.md", True)
    ]


def test_other_embedders_are_refused(corpus: Path, tmp_path: Path, bi_encoder_folder: Path) -> None:
    work = embedding.Embedding(None, bi_encoder_folder, {}, ("elsewhere", "cpu"), 16, 0)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="would give other vectors"):
        work.start()
    # Schemes have no case.
    for scheme in ("http", "HTTP"):
        with pytest.raises(CheckpointError, match="is an address"):
            indexing.index([corpus], tmp_path / "my.index", f"{scheme}://localhost:9/v1#model")


def test_other_settings_are_refused_with_a_cure_that_there_is(
    corpus: Path, tmp_path: Path, bi_encoder_folder: Path
) -> None:
    """`crossrank bulk index` has no --rebuild, which was the only cure that was named."""
    indexing.index([corpus], tmp_path / "my.index", bi_encoder_folder)
    with pytest.raises(IndexFileError, match=r"`crossrank index --rebuild` .*, or delete the folder first"):
        indexing.index([corpus], tmp_path / "my.index", bi_encoder_folder, language="german")


def test_an_index_with_token_vectors_is_left_to_an_update(
    corpus: Path, tmp_path: Path, bi_encoder_folder: Path
) -> None:
    embedder = crossrank.load_embedder(bi_encoder_folder)
    late = load_late(tiny.late(tmp_path / "late"))
    to = tmp_path / "my.index"
    made = Index.create(to, embedder, embedder.tokenizer, late=late)
    with pytest.raises(IndexFileError, match="does not make: use `crossrank index` for this one"):
        indexing.index([corpus], to, bi_encoder_folder, **SMALL)
    assert made.update([corpus], embedder, embedder.tokenizer, late=late).added == 13


def test_paths_are_checked_before_an_index_is_made(corpus: Path, tmp_path: Path, bi_encoder_folder: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        indexing.index([corpus, tmp_path / "nowhere"], tmp_path / "my.index", bi_encoder_folder, **SMALL)
    assert list(tmp_path.iterdir()) == [corpus]


def test_a_path_that_is_gone_is_a_deletion(corpus: Path, tmp_path: Path, bi_encoder_folder: Path) -> None:
    indexing.index([corpus], tmp_path / "my.index", bi_encoder_folder, **SMALL)
    (corpus / "guide.md").unlink()
    done = indexing.index([corpus / "guide.md"], tmp_path / "my.index", bi_encoder_folder, **SMALL)
    assert (done.changes.deleted, done.embedded) == (1, 0)
    with pytest.raises(InputError, match="no such file or folder"):
        indexing.index([corpus / "guide.md"], tmp_path / "my.index", bi_encoder_folder, **SMALL)


def test_the_command_says_what_changed(
    corpus: Path, tmp_path: Path, bi_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ["bulk", "index", "corpus", "--to", "my.index", "-m", str(bi_encoder_folder), "--workers", "0"]
    told = CliRunner().invoke(root, asked)
    assert told.exit_code == 3, told.output
    assert "13 added, 0 changed" in told.output
    again = CliRunner().invoke(root, ["bulk", "index", "corpus", "--to", "my.index", "--workers", "0", "--json"])
    assert (json.loads(again.stdout)["unchanged"], Index.open("my.index").info().model) == (13, str(bi_encoder_folder))
    wide = CliRunner().invoke(root, [*asked, "--passage-tokens", "999"])
    assert "use --passage-tokens" in wide.output


def test_metadata_that_nest_deep_are_staged(tmp_path: Path) -> None:
    """They were text before, and a copy of what they are ended with a RecursionError."""
    deep = json.loads("[" * 490 + "]" * 490)
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "tea", "deep": deep}), encoding="utf-8")
    documents.stage(tmp_path / "staged.sqlite", readers.find([tmp_path / "a.jsonl"]).sources, (), 100)
    ((_, document),) = documents.read(tmp_path / "staged.sqlite", Part(0, 9))
    assert document.metadata == {"deep": deep}
