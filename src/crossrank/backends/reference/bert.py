"""BERT, ELECTRA, RoBERTa and XLM-R: one post-norm block (Devlin et al. 2018), three front ends, three heads.

`gte` has the same block with rotary positions and a gated inner layer, and only its weights are read elsewhere.
"""

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

Turn = tuple[Floats, Floats]


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one block; the query part of `qkv` carries the factor 1 / sqrt(head size).

    Of a gated inner layer `up` has twice as many rows, those that are activated first, and no bias.
    """

    qkv: Floats
    qkv_bias: Floats
    out: Floats
    out_bias: Floats
    out_norm: tuple[Floats, Floats]
    up: Floats
    up_bias: Floats | None
    down: Floats
    down_bias: Floats
    down_norm: tuple[Floats, Floats]


class Bert:
    """The encoder and, for a cross-encoder, its head. Read-only after construction.

    Attributes:
        places, types: tables of positions and of token types; None where there are none.
        frequencies: of rotary positions, the angle of a step, shape (head size / 2,); None where there are none.
        gated: is the inner layer gated?
    """

    places: Floats | None
    types: Floats | None
    frequencies: Floats | None = None
    gated = False

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
    def obstacle(config: Mapping[str, Any]) -> str | None:
        """Why this model cannot be computed here, as half a sentence; None when it can."""
        kind = config.get("position_embedding_type", "absolute")
        return None if kind == "absolute" else f"it has no {kind!r} position embeddings"

    @staticmethod
    def _linear(parameters: Parameters, name: str, rows: int, columns: int) -> tuple[Floats, Floats]:
        return parameters.encoder(f"{name}.weight", rows, columns), parameters.encoder(f"{name}.bias", rows)

    @staticmethod
    def _norm(parameters: Parameters, name: str, width: int) -> tuple[Floats, Floats]:
        return parameters.encoder(f"{name}.weight", width), parameters.encoder(f"{name}.bias", width)

    def _layer(self, parameters: Parameters, at: str) -> Layer:
        h, inner = self.hidden, self.inner
        three = [self._linear(parameters, f"{at}attention.self.{part}", h, h) for part in ("query", "key", "value")]
        qkv, qkv_bias = self._joined(three)
        out, out_bias = self._linear(parameters, f"{at}attention.output.dense", h, h)
        up, up_bias = self._linear(parameters, f"{at}intermediate.dense", inner, h)
        down, down_bias = self._linear(parameters, f"{at}output.dense", h, inner)
        return Layer(
            qkv=qkv,
            qkv_bias=qkv_bias,
            out=out,
            out_bias=out_bias,
            out_norm=self._norm(parameters, f"{at}attention.output.LayerNorm", h),
            up=up,
            up_bias=up_bias,
            down=down,
            down_bias=down_bias,
            down_norm=self._norm(parameters, f"{at}output.LayerNorm", h),
        )

    def _joined(self, three: list[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
        """Queries, keys and values as one linear map, the queries times 1 / sqrt(head size)."""
        scale = np.float32((self.hidden // self.heads) ** -0.5)
        scaled = [(three[0][0] * scale, three[0][1] * scale), *three[1:]]
        return np.concatenate([weight for weight, _ in scaled]), np.concatenate([bias for _, bias in scaled])

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
        if self.places is not None:
            x += np.take(self.places, self._place(tokens), axis=0)
        if self.types is not None:
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
        x, turn = self.embed(tokens, scratch), self._turn(tokens)
        for layer in self.layers:
            self._block(x, layer, turn, parts, scratch)
        return x

    def first_states(self, tokens: Tokens, parts: list[Group], scratch: Scratch) -> Floats:
        """The last hidden state of each sequence's first token, shape (n, hidden).

        Exact and cheaper than `states`: after its keys and values, the last block computes those rows alone.
        """
        x, turn = self.embed(tokens, scratch), self._turn(tokens)
        for layer in self.layers[:-1]:
            self._block(x, layer, turn, parts, scratch)
        layer, h = self.layers[-1], self.hidden
        rows = x[tokens.offsets[:-1]]
        kv = ops.linear(x, layer.qkv[h:], layer.qkv_bias[h:], scratch.take("wide", len(x), 2 * h))
        keys, values = self._split(kv, 2)
        self._rotate(kv, 1, turn)  # not the queries: the first token's angle is 0
        query = rows @ layer.qkv[:h].T
        query += layer.qkv_bias[:h]
        seen = attend_first(self._split(query, 1)[0], keys, values, parts, scratch)
        self._rest(rows, seen, layer, scratch)
        return rows

    def _split(self, x: Floats, parts: int) -> list[Floats]:
        shaped = x.reshape(len(x), parts, self.heads, self.hidden // self.heads)
        return [shaped[:, i] for i in range(parts)]

    def _turn(self, tokens: Tokens) -> Turn | None:
        """Cosine and sine of every token's angles, shape (total, size / 2) each."""
        if self.frequencies is None:
            return None
        angle = self._place(tokens).astype(np.float32)[:, None] * self.frequencies
        return np.cos(angle), np.sin(angle)

    def _rotate(self, x: Floats, parts: int, turn: Turn | None) -> None:
        """Turn the first `parts` of queries, keys and values by their positions, in place."""
        if turn is None:
            return
        shaped = x.reshape(len(x), -1, self.heads, self.hidden // self.heads)
        for part in ops.blocks(len(x), parts * self.hidden):
            ops.rotate(shaped[part, :parts], turn[0][part], turn[1][part])

    def _block(self, x: Floats, layer: Layer, turn: Turn | None, parts: list[Group], scratch: Scratch) -> None:
        qkv = ops.linear(x, layer.qkv, layer.qkv_bias, scratch.take("wide", len(x), 3 * self.hidden))
        self._rotate(qkv, 2, turn)
        queries, keys, values = self._split(qkv, 3)
        self._rest(x, attend(queries, keys, values, parts, scratch), layer, scratch)

    def _rest(self, x: Floats, seen: Floats, layer: Layer, scratch: Scratch) -> None:
        """Everything after attention, in place on `x`."""
        mixed = np.matmul(seen, layer.out.T, out=scratch.take("narrow", len(x), self.hidden))
        ops.add_norm(x, mixed, layer.out_bias, *layer.out_norm, self.eps)
        inner = np.matmul(x, layer.up.T, out=scratch.take("wide", len(x), len(layer.up)))
        if self.gated:
            inner = ops.gate(inner, self.activation, scratch)
        else:
            ops.activate(inner, layer.up_bias, self.activation, scratch)
        mixed = np.matmul(inner, layer.down.T, out=scratch.take("narrow", len(x), self.hidden))
        ops.add_norm(x, mixed, layer.down_bias, *layer.down_norm, self.eps)

    def logits(self, tokens: Tokens, parts: list[Group], scratch: Scratch) -> Floats:
        """Raw outputs of the head, shape (n, labels)."""
        rows = self.first_states(tokens, parts, scratch) @ self.dense[0].T
        ops.activate(rows, self.dense[1], self.dense_activation, scratch)
        return np.asarray(rows @ self.classifier[0].T + self.classifier[1], dtype=np.float32)
