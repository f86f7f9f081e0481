"""GTE (Zhang et al. 2024): BERT's block with rotary positions, a gated inner layer, and no table of positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from crossrank.backends.reference import ops
from crossrank.backends.reference.bert import Bert, Layer
from crossrank.backends.reference.ops import Floats
from crossrank.backends.reference.parameters import Parameters, number
from crossrank.errors import CheckpointError

ROTARY = ("default", "linear")


def frequencies(config: Mapping[str, Any], size: int) -> Floats:
    """The angle of a step, theta^(-2i / size), divided by the factor of "linear" positions. Shape (size / 2,)."""
    stated = config["rope_parameters"]
    theta, factor = float(stated["rope_theta"]), float(stated.get("factor") or 1)
    if not (theta > 0 and factor > 0):
        raise ValueError(f"rope_theta = {theta} and factor = {factor} are no rotary positions")
    found: Floats = (1.0 / (theta ** (np.arange(0, size, 2) / size) * factor)).astype(np.float32)
    return found


class Gte(Bert):
    """The encoder and, for a cross-encoder, BERT's head. Read-only after construction."""

    gated = True

    def __init__(
        self, parameters: Parameters, config: Mapping[str, Any], architecture: str, labels: int, where: str
    ) -> None:
        self.hidden = h = number(config, "hidden_size", where)
        self.heads = number(config, "num_attention_heads", where)
        if h % self.heads:
            raise CheckpointError(f"{where}: hidden_size {h} does not divide by {self.heads} heads")
        self.inner = number(config, "intermediate_size", where)
        self.eps = float(config.get("layer_norm_eps", 1e-12))
        self.activation = ops.ACTIVATIONS[config.get("hidden_act", "gelu")]
        self.vocabulary = number(config, "vocab_size", where)
        self.positions = number(config, "max_position_embeddings", where)
        self.offset = self.places = self.project = None
        self.frequencies = frequencies(config, h // self.heads)
        self.kinds = number(config, "type_vocab_size", where) if config["type_vocab_size"] else 0
        self.words = parameters.encoder("embeddings.word_embeddings.weight", self.vocabulary, h)
        types = "embeddings.token_type_embeddings.weight"
        self.types = parameters.encoder(types, self.kinds, h) if self.kinds else None
        self.norm = self._norm(parameters, "embeddings.LayerNorm", h)
        count = number(config, "num_hidden_layers", where)
        self.layers = [self._layer(parameters, f"layers.{i}.") for i in range(count)]
        self._load_head(parameters, "bert", labels)

    @staticmethod
    def obstacle(config: Mapping[str, Any]) -> str | None:
        """Why this model cannot be computed here, as half a sentence; None when it can."""
        kind = config["rope_parameters"].get("rope_type", "default")
        if kind not in ROTARY:
            return f"it has only {' and '.join(ROTARY)} rotary positions, not {kind!r} (rope_type)"
        size = config["hidden_size"] // config["num_attention_heads"]
        if size % 2:
            return f"its heads have {size} numbers, and rotary positions turn pairs of them"
        return None

    def _layer(self, parameters: Parameters, at: str) -> Layer:
        h, inner, get = self.hidden, self.inner, parameters.encoder
        three = [self._linear(parameters, f"{at}self_attn.{part}_proj", h, h) for part in "qkv"]
        out, out_bias = self._linear(parameters, f"{at}self_attn.o_proj", h, h)
        down, down_bias = self._linear(parameters, f"{at}mlp.down_proj", h, inner)
        qkv, qkv_bias = self._joined(three)
        return Layer(
            qkv=qkv,
            qkv_bias=qkv_bias,
            out=out,
            out_bias=out_bias,
            out_norm=self._norm(parameters, f"{at}post_attention_layernorm", h),
            up=np.concatenate([get(f"{at}mlp.{part}_proj.weight", inner, h) for part in ("gate", "up")]),
            up_bias=None,
            down=down,
            down_bias=down_bias,
            down_norm=self._norm(parameters, f"{at}post_mlp_layernorm", h),
        )
