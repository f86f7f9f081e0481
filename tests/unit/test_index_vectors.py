"""Token vectors in an index: stored with the passages, used where the model is the same, left alone elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import crossrank
import tiny
from crossrank.errors import IndexFileError, InputError

pytest.importorskip("lance", reason="needs the search extra")

from crossrank.index import Document, Index, commits

QUERY = "what is the capital of france?"
TEXTS = {
    "paris": "Paris is the capital of France.",
    "bread": "Bread needs yeast.",
    "cat": "The cat is a planet, or not. " * 5,
    "planet": "A planet!",
}


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> crossrank.LateInteraction:
    return crossrank.load_late(tiny.late(tmp_path_factory.mktemp("late")), dtype="float32")


@pytest.fixture
def embedder(bi_encoder_folder: Path) -> crossrank.TextEmbedder:
    return crossrank.load_embedder(bi_encoder_folder)


def documents(**more: str) -> list[Document]:
    return [Document(id_, text) for id_, text in {**TEXTS, **more}.items()]


def made(folder: Path, embedder: crossrank.TextEmbedder, late: crossrank.LateInteraction) -> Index:
    name, cut = str(embedder.checkpoint.folder), embedder.tokenizer
    index = Index.create(folder, embedder, cut, model=name, size=40, late=late, late_model="tiny")
    index.add(documents(), embedder, cut, late=late)
    return index


def check(index: Index, late: crossrank.LateInteraction) -> None:
    """Every passage has the vectors that the model gives its text, in float16."""
    ids = index.ids()[::-1]
    stored = index.token_vectors(ids)
    fresh, _ = late.encode([passage.scored_text for passage in index.passages(ids)])
    assert stored.vectors.dtype == np.float16
    np.testing.assert_array_equal(stored.offsets, fresh.offsets)
    np.testing.assert_allclose(stored.vectors, fresh.vectors, atol=1e-3)


def test_vectors_come_back_as_they_went_in(tmp_path, embedder, late, monkeypatch):
    monkeypatch.setattr(commits, "_FIRST_CALL", 2)
    index = made(tmp_path / "index", embedder, late)
    assert index.late == late.fingerprint
    assert index.info().late == "tiny"
    assert len(index) > len(TEXTS)
    check(index, late)
    # Changed, added and removed documents, small files joined, and another process.
    index.add(
        documents(bread="Bread, yeast; a cat.", france="France is in France."), embedder, embedder.tokenizer, late=late
    )
    index.remove(["planet"])
    check(Index.open(tmp_path / "index"), late)


def test_a_search_encodes_only_the_query(tmp_path, embedder, late, monkeypatch):
    made(tmp_path / "index", embedder, late)
    plain = Index.create(tmp_path / "plain", embedder, embedder.tokenizer, size=40)
    plain.add(documents(), embedder, embedder.tokenizer)
    folder = late.checkpoint.folder
    pipelines = [
        crossrank.open_pipeline(tmp_path / name, folder, embedder=embedder, dtype="float32", mix=1.0)
        for name in ("index", "plain")
    ]
    expected = pipelines[1].search(QUERY).traces[-1]

    def encoded(*_: object) -> None:
        raise AssertionError("vectors lie ready")

    monkeypatch.setattr("crossrank.lateencoder.LateEncoder.documents", encoded)
    monkeypatch.setattr("crossrank.lateencoder.LateEncoder.document_tokens", encoded)
    found = pipelines[0].search(QUERY).traces[-1]
    assert found.scores == pytest.approx(expected.scores, abs=1e-2)
    assert found.ranking.ids == expected.ranking.ids


def test_another_model_reads_the_texts(tmp_path, embedder, late):
    made(tmp_path / "index", embedder, late)
    other = tiny.late(tmp_path / "other", width=4)
    [stage] = crossrank.open_pipeline(tmp_path / "index", other, embedder=embedder, dtype="float32").stages
    answer = crossrank.open_pipeline(tmp_path / "index", other, embedder=embedder, dtype="float32").search(QUERY)
    pairs = [(QUERY, answer.passages[0].scored_text)]
    assert answer.traces[-1].scores[answer.ranking.ids[0]] == pytest.approx(stage.scorer.score(pairs)[0], abs=1e-4)


def test_updates_need_the_model_that_made_the_vectors(tmp_path, embedder, late):
    index = made(tmp_path / "index", embedder, late)
    cut = embedder.tokenizer
    other = crossrank.load_late(tiny.late(tmp_path / "other", width=4))
    for wrong in (None, other):
        with pytest.raises(IndexFileError, match=r"holds token vectors .*tiny.*--late"):
            index.add(documents(), embedder, cut, late=wrong)
        with pytest.raises(IndexFileError, match="--rebuild"):
            Index.open_or_create(tmp_path / "index", embedder, cut, late=wrong)
    plain = Index.create(tmp_path / "plain", embedder, cut)
    with pytest.raises(IndexFileError, match=r"made without token vectors, so leave --late .* out, or .* --rebuild"):
        plain.add(documents(), embedder, cut, late=late)
    with pytest.raises(InputError, match="no token vectors"):
        plain.token_vectors([])
    assert plain.late == ""
    plain.add(documents(), embedder, cut)


def test_what_the_late_model_cuts_is_reported(tmp_path, embedder, late):
    index = Index.create(tmp_path / "index", embedder, embedder.tokenizer, size=40, late=late)
    changes = index.add([Document("long", "cat " * 35)], embedder, embedder.tokenizer, late=late)
    assert [(one.tokens, one.read) for one in changes.unread] == [(35, late._encoder.document_room)]
