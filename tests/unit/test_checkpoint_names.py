"""Weights under the names of a model's own code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import tiny
from crossrank import backends
from crossrank.checkpoint import names, read
from crossrank.errors import CheckpointError

# Of Jina's code, by transformers' names.
JINA = {
    "embeddings.LayerNorm": "emb_ln",
    "attention.output.dense": "mixer.out_proj",
    "attention.output.LayerNorm": "norm1",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "output.LayerNorm": "norm2",
    "encoder.layer.": "encoder.layers.",
}


def xlm_roberta(folder: Path) -> Path:
    """A cross-encoder with XLM-R's head. Returns the folder."""
    config = {**tiny.CONFIG, "model_type": "xlm-roberta", "architectures": ["XLMRobertaForSequenceClassification"]}
    config |= {"pad_token_id": 1, "type_vocab_size": 1}
    tiny.write_json(folder / "config.json", config)
    tiny.tokenizer(folder)
    made = tiny.weights(config, 0, "roberta.")
    rng = np.random.default_rng(1)
    for part, rows in (("dense", 32), ("out_proj", 1)):
        made[f"classifier.{part}.weight"] = rng.standard_normal((rows, 32)).astype(np.float32)
        made[f"classifier.{part}.bias"] = rng.standard_normal(rows).astype(np.float32)
    save_file(made, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def as_jina_names_them(folder: Path) -> None:
    """Write the weights again: queries, keys and values as one, every part under Jina's name."""
    found = load_file(folder / "model.safetensors")
    theirs = {}
    for name, tensor in found.items():
        if ".attention.self." in name:
            continue
        for ours, other in JINA.items():
            name = name.replace(ours, other)
        theirs[name] = tensor
    for layer in range(tiny.CONFIG["num_hidden_layers"]):
        for kind in ("weight", "bias"):
            at = f"roberta.encoder.layer.{layer}.attention.self"
            parts = [found[f"{at}.{part}.{kind}"] for part in ("query", "key", "value")]
            theirs[f"roberta.encoder.layers.{layer}.mixer.Wqkv.{kind}"] = np.concatenate(parts)
    assert not theirs.keys() & {name for name in found if "layer" in name.lower()}
    save_file(theirs, folder / "model.safetensors", metadata={"format": "pt"})


def test_an_xlm_roberta_under_the_names_of_jinas_code_scores_the_same(tmp_path: Path) -> None:
    folder = xlm_roberta(tmp_path)
    tokens = tiny.random_tokens([5, 40, 1], types=1)
    before = read(folder)
    want = {name: backends.open(before, name).forward(tokens) for name in ("reference", "auto")}
    held = before.tensors()
    as_jina_names_them(folder)
    after = read(folder)
    assert after.tensors().keys() == held.keys()
    for name, scores in want.items():
        np.testing.assert_array_equal(backends.open(after, name).forward(tokens), scores)


@pytest.mark.torch
def test_torch_reads_them_as_well(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="the extra torch is not installed")
    folder = xlm_roberta(tmp_path)
    as_jina_names_them(folder)
    checkpoint = read(folder)
    tokens = tiny.random_tokens([5, 40, 1], types=1)
    want = backends.open(checkpoint, "reference").forward(tokens)
    assert np.abs(backends.open(checkpoint, "torch", "cpu", "float32").forward(tokens) - want).max() < 1e-4


def test_weights_of_another_model_are_refused_before_torch_makes_room_for_them(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="the extra torch is not installed")
    folder = xlm_roberta(tmp_path)
    as_jina_names_them(folder)
    stated = {**read(folder).config, "intermediate_size": 1 << 30}
    tiny.write_json(folder / "config.json", stated)
    with pytest.raises(CheckpointError, match=r"intermediate.dense.weight has \[64, 32\] numbers"):
        backends.open(read(folder), "torch", "cpu")


def test_matrices_that_cannot_be_told_apart_are_refused() -> None:
    marked = {"new.encoder.layer.0.attn_ln.bias": np.zeros(2, np.float32)}
    with pytest.raises(CheckpointError, match=r"qkv_proj.weight has shape \[7, 2\], which are not 3 matrices"):
        names.renamed(
            "gte", {**marked, "new.encoder.layer.0.attention.qkv_proj.weight": np.zeros((7, 2), np.float32)}, "here"
        )
    with pytest.raises(CheckpointError, match="not 2 matrices"):
        names.renamed(
            "gte", {**marked, "new.encoder.layer.0.mlp.up_gate_proj.weight": np.float32(1).reshape(())}, "here"
        )


def test_adapters_within_weights_are_refused() -> None:
    held = {
        "roberta.encoder.layers.0.mixer.Wqkv.parametrizations.weight.0.lora_A": np.zeros((5, 4, 3), np.float32),
        "roberta.encoder.layers.0.mixer.Wqkv.bias": np.zeros(9, np.float32),
    }
    with pytest.raises(CheckpointError, match="adapters within weights"):
        names.renamed("xlm-roberta", held, "here")


def test_names_that_are_transformers_own_stay() -> None:
    held = {"roberta.encoder.layer.0.attention.self.query.weight": np.zeros((2, 2), np.float32)}
    assert names.renamed("xlm-roberta", held, "here") == held
    assert names.renamed("bert", held, "here") == held
    assert names.given("bert", "encoder.layers.0.norm1.bias") == "encoder.layers.0.norm1.bias"
