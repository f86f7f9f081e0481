"""Models that leave word embeddings, layers or the tokenizer to files that others have as well."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import tiny
from crossrank import backends
from crossrank.checkpoint import export, read
from crossrank.errors import CheckpointError


def test_word_embeddings_and_tokenizer_can_be_shared(tmp_path: Path) -> None:
    folder = tiny.cross_encoder(tmp_path / "model")
    tokens = tiny.random_tokens([7, 3])
    want = backends.open(read(folder), "reference").forward(tokens)
    tensors = tiny.weights(tiny.CONFIG, 1)
    words = tensors.pop("bert.embeddings.word_embeddings.weight")
    save_file(tensors, folder / "model.safetensors")
    save_file({"embeddings.word_embeddings.weight": words}, tmp_path / "words.safetensors")
    (tmp_path / "vocabulary").mkdir()
    for name in ("vocab.txt", "tokenizer_config.json"):
        shutil.move(folder / name, tmp_path / "vocabulary" / name)
    with pytest.raises(CheckpointError, match="as shared"):
        read(folder)
    shared = {"shared": [tmp_path / "words.safetensors"], "shared_tokenizer": tmp_path / "vocabulary"}
    checkpoint = read(folder, **shared)
    by_file = read(folder, **{**shared, "shared_tokenizer": tmp_path / "vocabulary" / "tokenizer.json"})
    assert checkpoint.max_length == by_file.max_length == 60
    assert checkpoint.fingerprint == by_file.fingerprint
    np.testing.assert_array_equal(backends.open(checkpoint, "reference").forward(tokens), want)
    assert checkpoint.tokenizer().get_vocab_size() == len(tiny.VOCABULARY)

    export(checkpoint, tmp_path / "out")
    whole = read(tmp_path / "out")
    np.testing.assert_array_equal(backends.open(whole, "reference").forward(tokens), want)
    assert (whole.max_length, whole.activation, whole.labels) == (60, "sigmoid", 1)


def test_layers_can_be_shared_with_another_model(tmp_path: Path) -> None:
    """A late-interaction model with a last layer of its own; the rest is a bi-encoder's, whose words are shared too."""
    words, last = "embeddings.word_embeddings.weight", "encoder.layer.1."
    tensors = tiny.weights(tiny.CONFIG, 0, "")
    own = {name: tensor * 2 for name, tensor in tensors.items() if name.startswith(last)}
    whole, part = tiny.late(tmp_path / "whole"), tiny.late(tmp_path / "part")
    for folder in (whole, part):
        tiny.write_json(folder / "config.json", {**tiny.CONFIG, "architectures": ["BertModel"]})
    save_file({**tensors, **own}, whole / "model.safetensors")
    save_file(own, part / "model.safetensors")
    save_file({words: tensors.pop(words)}, tmp_path / "words.safetensors")
    save_file({f"bert.{name}": tensor for name, tensor in tensors.items()}, tmp_path / "base.safetensors")
    with pytest.raises(CheckpointError, match="as shared"):
        read(part, shared=[tmp_path / "base.safetensors"])
    shared = [tmp_path / "base.safetensors", tmp_path / "words.safetensors"]
    found, want = read(part, shared=shared).tensors(), read(whole).tensors()
    assert found.keys() == want.keys()
    for name, tensor in want.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)
    assert read(part, shared=shared).fingerprint != read(part, shared=shared[1:]).fingerprint
    with pytest.raises(CheckpointError, match=r"no embeddings.position_embeddings"):
        backends.open(read(part, shared=shared[1:]), "reference")
    (tmp_path / "base.safetensors").write_bytes((tmp_path / "base.safetensors").read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="cut short"):
        read(part, shared=shared)
