"""GTE under the names and settings of the code that its models bring along, none of which is run here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra torch is not installed")
pytest.importorskip("transformers", reason="the extra torch is not installed")
import architectures
import torch
import transformers
from safetensors.numpy import load_file, save_file

import tiny
from crossrank import backends, load, load_embedder
from crossrank.backends.cpu import library
from crossrank.checkpoint import Checkpoint, export, read

pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(not architectures.GTE, reason="transformers knows GTE from 5.20 on"),
]

TOLERANCE = 1e-4
LENGTHS = [3, 40, 96, 17, 1]
BACKENDS = ("reference", "torch", *(f"cpu:{tier}" for tier in library.tiers()))
# Settings of that code's configuration, with what it makes of head size 8: the angles of a step.
STEPS = 1 / 20_000 ** (np.arange(0, 8, 2) / 8)
SCALED = 1 / (20_000 * 8) ** (np.arange(0, 8, 2) / 8) / 8 ** (2 / 8)
ROTARY: list[tuple[dict[str, Any], np.ndarray]] = [
    ({"rope_theta": 20_000}, STEPS),
    ({"rope_theta": 20_000, "rope_scaling": {"type": "ntk", "factor": 8.0}}, SCALED),
    ({"rope_theta": 20_000, "rope_scaling": {"type": "ntk", "factor": 8.0, "mixed_b": None}}, SCALED),
    ({"rope_theta": 20_000, "rope_scaling": {"type": "ntk", "factor": 1.0}}, STEPS),
    ({}, 1 / 10_000 ** (np.arange(0, 8, 2) / 8)),
]


def original(folder: Path, packed: bool = True, labels: int = 1, **changes: Any) -> Path:
    """A GTE as on the hub: `model_type` new, code of its own, "new." before names, queries, keys and values as one."""
    architectures.make("gte", folder, labels)
    found = load_file(folder / "model.safetensors")
    named = {name.replace("gte.", "new.", 1): tensor for name, tensor in found.items()}
    for name in [name for name in named if not packed and "qkv_proj" in name]:
        parts = np.split(named.pop(name), 3)
        named |= {name.replace("qkv", letter): part for letter, part in zip("qkv", parts, strict=True)}
    save_file(named, folder / "model.safetensors", metadata={"format": "pt"})
    stated = json.loads((folder / "config.json").read_text())
    del stated["rope_parameters"]
    theirs = {
        "architectures": ["NewForSequenceClassification" if labels else "NewModel"],
        "auto_map": {"AutoConfig": "owner/code--configuration.NewConfig"},
        "model_type": "new",
        **{"layer_norm_type": "layer_norm", "position_embedding_type": "rope", "logn_attention_scale": False},
        **{"pack_qkv": packed, "unpad_inputs": False, "use_memory_efficient_attention": False},
    }
    tiny.write_json(folder / "config.json", {**stated, **theirs, **changes})
    return folder


def expected(tmp_path: Path, steps: np.ndarray, tokens: Any) -> np.ndarray:
    """Logits of transformers for the same weights, turned by these angles."""
    folder = architectures.make("gte", tmp_path / "theirs")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval().float()
    with torch.inference_mode():
        model.gte.rotary_emb.inv_freq.copy_(torch.from_numpy(steps.astype(np.float32)))
        texts = [tokens.ids[a:b] for a, b in zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True)]
        found = [model(input_ids=torch.from_numpy(text.astype(np.int64))[None]).logits[0, 0].item() for text in texts]
    return np.array(found)


def some_tokens(checkpoint: Checkpoint) -> Any:
    return tiny.random_tokens(LENGTHS, checkpoint.config["vocab_size"], types=1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("rotary", "steps"), ROTARY)
def test_the_rotary_positions_of_the_original_code(
    rotary: dict[str, Any], steps: np.ndarray, backend: str, tmp_path: Path
) -> None:
    checkpoint = read(original(tmp_path / "ours", **rotary))
    tokens = some_tokens(checkpoint)
    want = expected(tmp_path, steps, tokens)
    assert np.abs(want - expected(tmp_path, steps * 0.9, tokens)).max() > 100 * TOLERANCE, "angles must matter"
    got = backends.open(checkpoint, backend, "cpu", "float32").forward(tokens)
    assert np.abs(got - want).max() < TOLERANCE


@pytest.mark.parametrize("packed", [True, False])
def test_queries_keys_and_values_together_or_apart(packed: bool, tmp_path: Path) -> None:
    checkpoint = read(original(tmp_path / "ours", packed, **ROTARY[1][0]))
    tokens = some_tokens(checkpoint)
    got = backends.open(checkpoint, "reference").forward(tokens)
    assert np.abs(got - expected(tmp_path, SCALED, tokens)).max() < TOLERANCE


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_token_types(backend: str, tmp_path: Path) -> None:
    """gte-base-en-v1.5 has no table of them."""
    folder = architectures.make("gte", tmp_path, labels=0, type_vocab_size=0)
    checkpoint = read(folder)
    assert not checkpoint.token_types
    tokens = some_tokens(checkpoint)
    model = transformers.AutoModel.from_pretrained(folder).eval().float()
    got = backends.open(checkpoint, backend, "cpu", "float32").pool(tokens, "cls")
    for i, (a, b) in enumerate(zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True)):
        with torch.inference_mode():
            want = model(input_ids=torch.from_numpy(tokens.ids[a:b].astype(np.int64))[None]).last_hidden_state[0, 0]
        assert np.abs(got[i] - want.numpy()).max() < TOLERANCE


def test_what_is_exported_needs_no_code(tmp_path: Path) -> None:
    """The hub's folder loads in transformers with trust_remote_code only; the exported one as it is."""
    folder = original(tmp_path / "ours", **ROTARY[1][0])
    checkpoint = read(folder)
    export(checkpoint, tmp_path / "exported")
    stated = json.loads((tmp_path / "exported" / "config.json").read_text())
    assert (stated["model_type"], stated["architectures"]) == ("gte", ["GteForSequenceClassification"])
    assert "auto_map" not in stated
    tokens = some_tokens(checkpoint)
    want = backends.open(checkpoint, "reference").forward(tokens)
    again = read(tmp_path / "exported")
    np.testing.assert_array_equal(backends.open(again, "reference").forward(tokens), want)
    model, info = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "exported", output_loading_info=True
    )
    assert not [name for kind in ("missing", "unexpected", "mismatched") for name in info[f"{kind}_keys"]]
    with torch.inference_mode():
        ids = torch.from_numpy(tokens.ids[tokens.offsets[1] : tokens.offsets[2]].astype(np.int64))[None]
        assert abs(model.eval().float()(input_ids=ids).logits.item() - want[1]) < TOLERANCE


def test_it_ranks_and_embeds(tmp_path: Path) -> None:
    scorer = load(original(tmp_path / "reranker"))
    ranking = scorer.rank("What is the capital of France?", architectures.TEXTS)
    assert len(ranking) == len(architectures.TEXTS)
    encoder = original(tmp_path / "encoder", labels=0)
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate([("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")])
    ]
    tiny.write_json(encoder / "modules.json", listed)
    tiny.write_json(
        encoder / "1_Pooling" / "config.json", {"word_embedding_dimension": 32, "pooling_mode_cls_token": True}
    )
    vectors = load_embedder(encoder).embed(architectures.TEXTS)
    assert vectors.shape == (len(architectures.TEXTS), 32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_it_can_be_trained_and_is_then_read_without_code(tmp_path: Path) -> None:
    from crossrank.training.network import Network

    checkpoint = read(original(tmp_path / "ours", **ROTARY[1][0]))
    tokens = some_tokens(checkpoint)
    network = Network(checkpoint, layers=1, device="cpu")
    want = network.logits(tokens).detach().numpy()
    network.write(network.weights(), tmp_path / "tuned")
    got = backends.open(read(tmp_path / "tuned"), "reference").forward(tokens)
    assert np.abs(got - want).max() < 0.05 * max(1.0, float(np.abs(want).max()))  # bfloat16 where AVX-512 is
    assert any("layers.2" in name for name in network.trained)
    assert not any("layers.1" in name for name in network.trained)
