"""BERT, ELECTRA, RoBERTa and XLM-R: one post-norm block (Devlin et al. 2018), three front ends, three heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.backends.reference import ops
from crossrank.backends.reference.attention import Group, attend, attend_first
from crossrank.backends.reference.ops import Floats, Scratch
from crossrank.backends.reference.parameters import Parameters, number
from crossrank.checkpoint.settings import OFFSET_POSITIONS, TYPES, padding
from crossrank.errors import CheckpointError
from crossrank.types import Tokens


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one block; the query part of `qkv` carries the factor 1 / sqrt(head size)."""

    qkv: Floats
    qkv_bias: Floats
    out: Floats
    out_bias: Floats
    out_norm: tuple[Floats, Floats]
    up: Floats
    up_bias: Floats
    down: Floats
    down_bias: Floats
    down_norm: tuple[Floats, Floats]


class Bert:
    """The encoder and, for a cross-encoder, its head. Read-only after construction."""

    def __init__(
        self, parameters: Parameters, config: Mapping[str, Any], architecture: str, labels: int, where: str
    ) -> None:
        self.hidden = number(config, "hidden_size", where)
        self.heads = number(config, "num_attention_heads", where)
        if self.hidden % self.heads:
            raise CheckpointError(f"{where}: hidden_size {self.hidden} does not divide by {self.heads} heads")
        self.inner = number(config, "intermediate_size", where)
        self.eps = float(config.get("layer_norm_eps", 1e-12))
        self.activation = ops.ACTIVATIONS[config.get("hidden_act", "gelu")]
        self.offset = padding(config, architecture, where) + 1 if architecture in OFFSET_POSITIONS else None
        width = config.get("embedding_size", self.hidden) if architecture == "electra" else self.hidden
        self.vocabulary = number(config, "vocab_size", where)
        self.positions = number(config, "max_position_embeddings", where)
        self.kinds = number({"type_vocab_size": TYPES, **config}, "type_vocab_size", where)
        get = parameters.encoder
        self.words = get("embeddings.word_embeddings.weight", self.vocabulary, width)
        self.places = get("embeddings.position_embeddings.weight", self.positions, width)
        self.types = get("embeddings.token_type_embeddings.weight", self.kinds, width)
        self.norm = self._norm(parameters, "embeddings.LayerNorm", width)
        self.project: tuple[Floats, Floats] | None = None
        if width != self.hidden:
            self.project = self._linear(parameters, "embeddings_project", self.hidden, width)
        count = number(config, "num_hidden_layers", where)
        self.layers = [self._layer(parameters, f"encoder.layer.{i}.") for i in range(count)]
        self._load_head(parameters, architecture, labels)

    @staticmethod
    def _linear(parameters: Parameters, name: str, rows: int, columns: int) -> tuple[Floats, Floats]:
        return parameters.encoder(f"{name}.weight", rows, columns), parameters.encoder(f"{name}.bias", rows)

    @staticmethod
    def _norm(parameters: Parameters, name: str, width: int) -> tuple[Floats, Floats]:
        return parameters.encoder(f"{name}.weight", width), parameters.encoder(f"{name}.bias", width)

    def _layer(self, parameters: Parameters, at: str) -> Layer:
        h, inner = self.hidden, self.inner
        three = [self._linear(parameters, f"{at}attention.self.{part}", h, h) for part in ("query", "key", "value")]
        scale = np.float32((h // self.heads) ** -0.5)
        three[0] = (three[0][0] * scale, three[0][1] * scale)
        out, out_bias = self._linear(parameters, f"{at}attention.output.dense", h, h)
        up, up_bias = self._linear(parameters, f"{at}intermediate.dense", inner, h)
        down, down_bias = self._linear(parameters, f"{at}output.dense", h, inner)
        return Layer(
            qkv=np.concatenate([weight for weight, _ in three]),
            qkv_bias=np.concatenate([bias for _, bias in three]),
            out=out,
            out_bias=out_bias,
            out_norm=self._norm(parameters, f"{at}attention.output.LayerNorm", h),
            up=up,
            up_bias=up_bias,
            down=down,
            down_bias=down_bias,
            down_norm=self._norm(parameters, f"{at}output.LayerNorm", h),
        )

    def _load_head(self, parameters: Parameters, architecture: str, labels: int) -> None:
        if not labels:
            return
        h = self.hidden
        if architecture == "bert":
            self.dense = self._linear(parameters, "pooler.dense", h, h)
            last = "classifier"
        else:
            self.dense = parameters.head("classifier.dense.weight", h, h), parameters.head("classifier.dense.bias", h)
            last = "classifier.out_proj"
        # ELECTRA's head has a gelu of its own, whatever hidden_act says; the others a tanh.
        self.dense_activation = ops.gelu if architecture == "electra" else ops.tanh
        self.classifier = parameters.head(f"{last}.weight", labels, h), parameters.head(f"{last}.bias", labels)

    def embed(self, tokens: Tokens, scratch: Scratch) -> Floats:
        """The input of the first block, shape (total, hidden)."""
        x = np.take(self.words, tokens.ids, axis=0)
        x += np.take(self.places, self._place(tokens), axis=0)
        x += np.take(self.types, tokens.types, axis=0)
        ops.layer_norm(x, *self.norm, self.eps)
        if self.project is not None:
            x = x @ self.project[0].T
            x += self.project[1]
        return x

    def _place(self, tokens: Tokens) -> NDArray[np.int64]:
        if self.offset is None:
            return np.arange(len(tokens.ids)) - np.repeat(tokens.offsets[:-1], tokens.lengths)
        # RoBERTa counts from padding + 1 and skips padding tokens, which keep the padding position.
        real = tokens.ids != self.offset - 1
        count = np.concatenate([[0], np.cumsum(real)])
        since = count[1:] - np.repeat(count[tokens.offsets[:-1]], tokens.lengths)
        return np.asarray(np.where(real, since, 0) + self.offset - 1, dtype=np.int64)

    def states(self, tokens: Tokens, parts: list[Group], scratch: Scratch) -> Floats:
        """The last hidden state of every token, shape (total, hidden)."""
        x = self.embed(tokens, scratch)
        for layer in self.layers:
            self._block(x, layer, parts, scratch)
        return x

    def first_states(self, tokens: Tokens, parts: list[Group], scratch: Scratch) -> Floats:
        """The last hidden state of each sequence's first token, shape (n, hidden).

        Exact and cheaper than `states`: after its keys and values, the last block computes those rows alone.
        """
        x = self.embed(tokens, scratch)
        for layer in self.layers[:-1]:
            self._block(x, layer, parts, scratch)
        layer, h = self.layers[-1], self.hidden
        rows = x[tokens.offsets[:-1]]
        kv = ops.linear(x, layer.qkv[h:], layer.qkv_bias[h:], scratch.take("wide", len(x), 2 * h))
        keys, values = self._split(kv, 2)
        query = rows @ layer.qkv[:h].T
        query += layer.qkv_bias[:h]
        seen = attend_first(self._split(query, 1)[0], keys, values, parts, scratch)
        self._rest(rows, seen, layer, scratch)
        return rows

    def _split(self, x: Floats, parts: int) -> list[Floats]:
        shaped = x.reshape(len(x), parts, self.heads, self.hidden // self.heads)
        return [shaped[:, i] for i in range(parts)]

    def _block(self, x: Floats, layer: Layer, parts: list[Group], scratch: Scratch) -> None:
        qkv = ops.linear(x, layer.qkv, layer.qkv_bias, scratch.take("wide", len(x), 3 * self.hidden))
        queries, keys, values = self._split(qkv, 3)
        self._rest(x, attend(queries, keys, values, parts, scratch), layer, scratch)

    def _rest(self, x: Floats, seen: Floats, layer: Layer, scratch: Scratch) -> None:
        """Everything after attention, in place on `x`."""
        mixed = np.matmul(seen, layer.out.T, out=scratch.take("narrow", len(x), self.hidden))
        ops.add_norm(x, mixed, layer.out_bias, *layer.out_norm, self.eps)
        inner = np.matmul(x, layer.up.T, out=scratch.take("wide", len(x), self.inner))
        ops.activate(inner, layer.up_bias, self.activation, scratch)
        mixed = np.matmul(inner, layer.down.T, out=scratch.take("narrow", len(x), self.hidden))
        ops.add_norm(x, mixed, layer.down_bias, *layer.down_norm, self.eps)

    def logits(self, tokens: Tokens, parts: list[Group], scratch: Scratch) -> Floats:
        """Raw outputs of the head, shape (n, labels)."""
        rows = self.first_states(tokens, parts, scratch) @ self.dense[0].T
        ops.activate(rows, self.dense[1], self.dense_activation, scratch)
        return np.asarray(rows @ self.classifier[0].T + self.classifier[1], dtype=np.float32)
