"""GTE's settings and names as its own code has them, read without running that code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import tiny
from crossrank import backends
from crossrank.checkpoint import gte, read
from crossrank.cli.operations import operations
from crossrank.errors import CheckpointError
from crossrank.types import Tokens

STATED: dict[str, Any] = {
    **{key: value for key, value in tiny.CONFIG.items() if key not in ("type_vocab_size", "position_embedding_type")},
    "model_type": "new",
    "architectures": ["NewForSequenceClassification"],
    "auto_map": {"AutoConfig": "owner/code--configuration.NewConfig"},
    "rope_theta": 20_000,
}


def folder(place: Path, **changes: Any) -> Path:
    """A cross-encoder as on the hub; a change to None leaves the setting out."""
    config = {key: value for key, value in {**STATED, **changes}.items() if value is not None}
    tiny.write_json(place / "config.json", config)
    tiny.tokenizer(place)
    save_file(weights(), place / "model.safetensors", metadata={"format": "pt"})
    return place


def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    h, inner, words = STATED["hidden_size"], STATED["intermediate_size"], STATED["vocab_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "new.embeddings.word_embeddings.weight": (words, h),
        "new.embeddings.token_type_embeddings.weight": (1, h),
    }
    norms = ["new.embeddings.LayerNorm"]
    for i in range(STATED["num_hidden_layers"]):
        at = f"new.encoder.layer.{i}"
        for name, rows, columns in (("attention.qkv_proj", 3 * h, h), ("attention.o_proj", h, h)):
            shapes |= {f"{at}.{name}.weight": (rows, columns), f"{at}.{name}.bias": (rows,)}
        shapes |= {f"{at}.mlp.up_gate_proj.weight": (2 * inner, h)}
        shapes |= {f"{at}.mlp.down_proj.weight": (h, inner), f"{at}.mlp.down_proj.bias": (h,)}
        norms += [f"{at}.attn_ln", f"{at}.mlp_ln"]
    for name, rows in (("new.pooler.dense", h), ("classifier", 1)):
        shapes |= {f"{name}.weight": (rows, h), f"{name}.bias": (rows,)}
    made = {name: (rng.standard_normal(shape) * 0.3).astype(np.float32) for name, shape in shapes.items()}
    for norm in norms:
        made |= {f"{norm}.weight": np.ones(h, np.float32), f"{norm}.bias": np.zeros(h, np.float32)}
    return made


def test_it_is_read_as_transformers_would_write_it(tmp_path: Path) -> None:
    checkpoint = read(folder(tmp_path))
    assert (checkpoint.architecture, checkpoint.kind, checkpoint.labels) == ("gte", "cross-encoder", 1)
    assert checkpoint.config["architectures"] == ["GteForSequenceClassification"]
    assert checkpoint.config["rope_parameters"] == {"rope_type": "default", "rope_theta": 20_000.0}
    assert not {"auto_map", "rope_theta"} & checkpoint.config.keys()
    assert not checkpoint.token_types
    found, theirs = checkpoint.tensors(), weights()
    packed = theirs["new.encoder.layer.1.attention.qkv_proj.weight"]
    np.testing.assert_array_equal(found["gte.layers.1.self_attn.k_proj.weight"], packed[32:64])
    wide = theirs["new.encoder.layer.0.mlp.up_gate_proj.weight"]
    np.testing.assert_array_equal(found["gte.layers.0.mlp.up_proj.weight"], wide[:64])
    np.testing.assert_array_equal(found["gte.layers.0.mlp.gate_proj.weight"], wide[64:])
    assert "gte.layers.0.post_attention_layernorm.weight" in found
    assert "gte.layers.0.post_mlp_layernorm.bias" in found
    np.testing.assert_array_equal(found["classifier.weight"], theirs["classifier.weight"])


def test_both_backends_of_the_base_install_score_alike(tmp_path: Path) -> None:
    checkpoint = read(folder(tmp_path))
    tokens = tiny.random_tokens([5, 40, 1], types=1)
    want = backends.open(checkpoint, "reference").forward(tokens)
    assert want.std() > 0.01
    opened = backends.open(checkpoint, dtype="float32")  # by itself it is bfloat16 where the processor has it
    assert np.abs(opened.forward(tokens) - want).max() < 1e-4
    # Words in another order are another text: positions are read, though there is no table of them.
    one, other = Tokens.of([[2, 50, 60, 3]]), Tokens.of([[2, 60, 50, 3]])
    assert abs(opened.forward(one)[0] - opened.forward(other)[0]) > 1e-3


def test_rotary_positions_that_are_not_scaled() -> None:
    stated = {"model_type": "new", "rope_scaling": {"rope_type": "default"}}
    assert gte.config(stated, "here")["rope_parameters"] == {"rope_type": "default", "rope_theta": 10_000.0}
    with pytest.raises(CheckpointError) as refused:
        gte.config({"model_type": "new", "rope_scaling": {"type": "linear", "factor": 2.0}}, "here")
    assert "Copy the model again" not in str(refused.value), "to copy it would not help"


def test_what_a_config_leaves_out_is_what_its_own_code_says() -> None:
    new, own = ({"model_type": name} for name in ("new", "gte"))
    assert gte.config(new, "here")["max_position_embeddings"] == 2048
    assert gte.config(new, "here")["rope_parameters"]["rope_theta"] == 10_000
    assert gte.config(own, "here")["max_position_embeddings"] == 8192
    assert gte.config(own, "here")["rope_parameters"]["rope_theta"] == 160_000


def test_the_settings_of_transformers_are_taken_as_they_are() -> None:
    stated = {"rope_type": "yarn", "rope_theta": 7.0, "factor": 2.0}
    assert gte.config({"model_type": "gte", "rope_parameters": stated}, "here")["rope_parameters"] == stated


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"position_embedding_type": "absolute"}, "position_embedding_type = 'absolute', and crossrank computes GTE"),
        ({"layer_norm_type": "rms_norm"}, "layer_norm_type = 'rms_norm', and crossrank computes GTE with 'layer_norm'"),
        ({"logn_attention_scale": True}, "logn_attention_scale = True"),
        ({"rope_scaling": {"type": "ntk", "factor": 2.0, "mixed_b": 0.5}}, "with type 'ntk' without mixed_b"),
        (
            {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
            "without mixed_b. Use the model through its own code, or",
        ),
        ({"rope_scaling": {"type": "ntk"}}, "make no sense"),
        ({"rope_scaling": "ntk"}, "make no sense"),
        ({"rope_theta": "large"}, "rope_theta = 'large'"),
        ({"num_attention_heads": 0, "rope_scaling": {"type": "ntk", "factor": 2.0}}, "make no sense"),
    ],
)
def test_what_is_not_computed_is_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=said):
        read(folder(tmp_path, **changes))


def test_other_rotary_positions_are_left_to_torch(tmp_path: Path) -> None:
    changed = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    checkpoint = read(folder(tmp_path, model_type="gte", rope_parameters=changed))
    assert "it has only default and linear rotary positions, not 'dynamic'" in backends.why(checkpoint)


def test_heads_of_an_odd_size_are_left_to_torch(tmp_path: Path) -> None:
    checkpoint = read(folder(tmp_path, hidden_size=36))
    assert "rotary positions turn pairs" in backends.why(checkpoint)


@pytest.mark.parametrize(
    "changes", [{"rope_theta": 0}, {"rope_theta": -1}, {"rope_parameters": {"rope_type": "linear"}}]
)
def test_angles_that_are_no_numbers_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="makes no sense"):
        backends.open(read(folder(tmp_path, **changes)))


def test_too_many_positions_for_the_engine_are_left_to_numpy(tmp_path: Path) -> None:
    checkpoint = read(folder(tmp_path, max_position_embeddings=1 << 18))
    assert "it makes rotary tables for at most" in backends.why(checkpoint)


def test_its_inner_layer_counts_as_gated() -> None:
    config = {"hidden_size": 4, "intermediate_size": 8, "num_hidden_layers": 2}
    lengths = np.array([3])
    difference = operations(config, "gte", 1, lengths) - operations(config, "bert", 1, lengths)
    assert difference == 2 * 4 * 8 * (3 + 1)  # three tokens in the first layer, one in the last
