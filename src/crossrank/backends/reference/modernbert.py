"""ModernBERT (Warner et al. 2024): pre-norm, rotary positions, gated gelu, local attention in most layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossrank.backends.reference import ops
from crossrank.backends.reference.attention import Group, attend, attend_first
from crossrank.backends.reference.ops import Floats, Scratch
from crossrank.backends.reference.parameters import Parameters, number
from crossrank.errors import CheckpointError
from crossrank.types import Tokens

MAX_LAYERS = 1000
THETA = {"full_attention": ("global_rope_theta", 160_000.0), "sliding_attention": ("local_rope_theta", 10_000.0)}


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one block. Norms and biases that the config leaves out are None."""

    kind: str
    norm: tuple[Floats, Floats | None] | None
    qkv: Floats
    qkv_bias: Floats | None
    out: Floats
    out_bias: Floats | None
    mlp_norm: tuple[Floats, Floats | None]
    up: Floats
    up_bias: Floats | None
    down: Floats
    down_bias: Floats | None


def layer_kinds(config: Mapping[str, Any]) -> list[str]:
    """`full_attention` or `sliding_attention` for each layer, from the new field or the old one.

    Raises:
        CheckpointError: there is no layer, or the new field has another number of them than the config.
    """
    stated, count = config.get("layer_types"), config.get("num_hidden_layers")
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MAX_LAYERS:
        raise CheckpointError(f"config.json has num_hidden_layers = {count!r}, not a whole number of 1 to {MAX_LAYERS}")
    if isinstance(stated, list):
        if len(stated) != count:
            raise CheckpointError(
                f"config.json has {len(stated)} layer_types but num_hidden_layers = {count}. Copy the model again."
            )
        return [str(kind) for kind in stated]
    every = config.get("global_attn_every_n_layers", 3)
    return ["sliding_attention" if i % every else "full_attention" for i in range(count)]


def theta_of(config: Mapping[str, Any], kind: str) -> float:
    """The rotary base of a layer kind, from the new field or the old one."""
    key, default = THETA[kind]
    new = config.get("rope_parameters")
    stated = (new.get(kind) or {}).get("rope_theta") if isinstance(new, dict) else None
    value = stated if stated is not None else config.get(key)
    if value is None and key in config and kind == "sliding_attention":
        return theta_of(config, "full_attention")  # as transformers 4, whose configs may say null
    return default if value is None else float(value)


class ModernBert:
    """The encoder and, for a cross-encoder, its head. Read-only after construction."""

    def __init__(
        self, parameters: Parameters, config: Mapping[str, Any], architecture: str, labels: int, where: str
    ) -> None:
        self.hidden = h = number(config, "hidden_size", where)
        self.heads = number(config, "num_attention_heads", where)
        if self.hidden % self.heads:
            raise CheckpointError(f"{where}: hidden_size {self.hidden} does not divide by {self.heads} heads")
        self.inner = number(config, "intermediate_size", where)
        self.biased = {part: config.get(f"{part}_bias", False) for part in ("norm", "attention", "mlp")}
        self.eps = float(config.get("norm_eps", 1e-5))
        self.activation = ops.ACTIVATIONS[config.get("hidden_activation", "gelu")]
        self.vocabulary = number(config, "vocab_size", where)
        self.positions = number(config, "max_position_embeddings", where)
        self.window = int(config.get("local_attention", 128)) // 2
        if self.window < 0:
            stated = config["local_attention"]
            raise CheckpointError(f"{where}: config.json has local_attention = {stated!r}. Copy the model again.")
        # No sequence is longer, and the native engine counts with 32 bits.
        self.window = min(self.window, self.positions)
        self.words = parameters.encoder("embeddings.tok_embeddings.weight", self.vocabulary, h)
        self.norm = self._norm(parameters, "embeddings.norm")
        kinds, size = layer_kinds(config), h // self.heads
        self.frequencies = {
            kind: (1.0 / theta_of(config, kind) ** (np.arange(0, size, 2) / size)).astype(np.float32)
            for kind in set(kinds)
        }
        self.layers = [self._layer(parameters, i, kind) for i, kind in enumerate(kinds)]
        self.final = self._norm(parameters, "final_norm")
        self.by_mean = config.get("classifier_pooling", "cls") == "mean"
        if labels:
            self.dense = parameters.head("head.dense.weight", h, h)
            self.dense_bias = parameters.head_bias("head.dense.bias", h, config.get("classifier_bias"))
            self.dense_activation = ops.ACTIVATIONS[config.get("classifier_activation", "gelu")]
            norm_bias = parameters.head_bias("head.norm.bias", h, self.biased["norm"])
            self.dense_norm = parameters.head("head.norm.weight", h), norm_bias
            self.classifier = (
                parameters.head("classifier.weight", labels, h),
                parameters.head("classifier.bias", labels),
            )

    @staticmethod
    def obstacle(config: Mapping[str, Any]) -> str | None:
        """Why this model cannot be computed here, as half a sentence; None when it can.

        Nothing reads position_embedding_type; models made from others keep it, such as the "sans_pos" of mmBERT.
        """
        unknown = set(layer_kinds(config)) - THETA.keys()
        if unknown:
            return f"it has no layers of kind {', '.join(sorted(unknown))}"
        size = config["hidden_size"] // config["num_attention_heads"]
        if size % 2:
            return f"its heads have {size} numbers, and rotary positions turn pairs of them"
        new = config.get("rope_parameters")
        for kind in THETA if isinstance(new, dict) else ():
            if ((new or {}).get(kind) or {}).get("rope_type", "default") != "default":
                return "it has only the default rotary positions (rope_type)"
        if config.get("rope_scaling"):
            return "it has no rope_scaling"
        if config.get("classifier_pooling", "cls") not in ("cls", "mean"):
            return f"it has no classifier_pooling {config['classifier_pooling']!r}"
        return None

    def _norm(self, parameters: Parameters, name: str) -> tuple[Floats, Floats | None]:
        bias = parameters.encoder_bias(f"{name}.bias", self.hidden, self.biased["norm"])
        return parameters.encoder(f"{name}.weight", self.hidden), bias

    def _layer(self, parameters: Parameters, i: int, kind: str) -> Layer:
        h, inner, at = self.hidden, self.inner, f"layers.{i}."
        get, bias, biased = parameters.encoder, parameters.encoder_bias, self.biased
        scale = np.ones(3 * h, dtype=np.float32)
        scale[:h] = (h // self.heads) ** -0.5  # of the queries; rotation is linear, so it may come before
        qkv_bias = bias(f"{at}attn.Wqkv.bias", 3 * h, biased["attention"])
        return Layer(
            kind=kind,
            norm=self._norm(parameters, f"{at}attn_norm") if i else None,
            qkv=get(f"{at}attn.Wqkv.weight", 3 * h, h) * scale[:, None],
            qkv_bias=None if qkv_bias is None else qkv_bias * scale,
            out=get(f"{at}attn.Wo.weight", h, h),
            out_bias=bias(f"{at}attn.Wo.bias", h, biased["attention"]),
            mlp_norm=self._norm(parameters, f"{at}mlp_norm"),
            up=get(f"{at}mlp.Wi.weight", 2 * inner, h),
            up_bias=bias(f"{at}mlp.Wi.bias", 2 * inner, biased["mlp"]),
            down=get(f"{at}mlp.Wo.weight", h, inner),
            down_bias=bias(f"{at}mlp.Wo.bias", h, biased["mlp"]),
        )

    def states(self, tokens: Tokens, parts: list[Group], scratch: Scratch) -> Floats:
        """The last hidden state of every token, shape (total, hidden)."""
        x, turns = self._enter(tokens)
        for layer in self.layers:
            self._block(x, layer, turns[layer.kind], parts, scratch)
        ops.layer_norm(x, *self.final, self.eps)
        return x

    def first_states(self, tokens: Tokens, parts: list[Group], scratch: Scratch) -> Floats:
        """The last hidden state of each sequence's first token, shape (n, hidden); exact, see `Bert.first_states`."""
        x, turns = self._enter(tokens)
        for layer in self.layers[:-1]:
            self._block(x, layer, turns[layer.kind], parts, scratch)
        layer, first = self.layers[-1], tokens.offsets[:-1]
        queries, keys, values = self._qkv(x, layer, turns[layer.kind], scratch)
        seen = attend_first(queries[first], keys, values, parts, scratch, self._window(layer))
        rows = x[first]
        self._rest(rows, seen, layer, scratch)
        ops.layer_norm(rows, *self.final, self.eps)
        return rows

    def logits(self, tokens: Tokens, parts: list[Group], scratch: Scratch) -> Floats:
        """Raw outputs of the head, shape (n, labels)."""
        if self.by_mean:
            rows = ops.mean_rows(self.states(tokens, parts, scratch), tokens.offsets)
        else:
            rows = self.first_states(tokens, parts, scratch)
        rows = rows @ self.dense.T
        ops.activate(rows, self.dense_bias, self.dense_activation, scratch)
        ops.layer_norm(rows, *self.dense_norm, self.eps)
        return np.asarray(rows @ self.classifier[0].T + self.classifier[1], dtype=np.float32)

    def _enter(self, tokens: Tokens) -> tuple[Floats, dict[str, tuple[Floats, Floats]]]:
        """Embeddings, and for each layer kind the cosine and sine of every token's angles, (total, size / 2) each."""
        x = np.take(self.words, tokens.ids, axis=0)
        ops.layer_norm(x, *self.norm, self.eps)
        place = np.arange(len(tokens.ids)) - np.repeat(tokens.offsets[:-1], tokens.lengths)
        angles = {kind: place.astype(np.float32)[:, None] * rate for kind, rate in self.frequencies.items()}
        return x, {kind: (np.cos(angle), np.sin(angle)) for kind, angle in angles.items()}

    def _window(self, layer: Layer) -> int | None:
        return self.window if layer.kind == "sliding_attention" else None

    def _qkv(
        self, x: Floats, layer: Layer, turn: tuple[Floats, Floats], scratch: Scratch
    ) -> tuple[Floats, Floats, Floats]:
        h = self.hidden
        source = x
        if layer.norm is not None:
            source = scratch.take("normed", len(x), h)
            ops.layer_norm(x, *layer.norm, self.eps, out=source)
        qkv = np.matmul(source, layer.qkv.T, out=scratch.take("wide", len(x), 3 * h))
        if layer.qkv_bias is not None:
            qkv += layer.qkv_bias
        shaped = qkv.reshape(len(x), 3, self.heads, h // self.heads)
        for part in ops.blocks(len(x), 2 * h):
            ops.rotate(shaped[part, :2], turn[0][part], turn[1][part])
        return shaped[:, 0], shaped[:, 1], shaped[:, 2]

    def _block(
        self, x: Floats, layer: Layer, turn: tuple[Floats, Floats], parts: list[Group], scratch: Scratch
    ) -> None:
        queries, keys, values = self._qkv(x, layer, turn, scratch)
        self._rest(x, attend(queries, keys, values, parts, scratch, self._window(layer)), layer, scratch)

    def _rest(self, x: Floats, seen: Floats, layer: Layer, scratch: Scratch) -> None:
        """Everything after attention, in place on `x`."""
        h, inner = self.hidden, self.inner
        x += ops.linear(seen, layer.out, layer.out_bias, scratch.take("narrow", len(x), h))
        normed = scratch.take("normed", len(x), h)
        ops.layer_norm(x, *layer.mlp_norm, self.eps, out=normed)
        wide = ops.linear(normed, layer.up, layer.up_bias, scratch.take("wide", len(x), 2 * inner))
        gated = ops.gate(wide, self.activation, scratch)
        x += ops.linear(gated, layer.down, layer.down_bias, scratch.take("narrow", len(x), h))
