"""ModernBERT on the card; `reference.modernbert` says what is computed. Needs the extra `gpu`."""

from __future__ import annotations

from dataclasses import dataclass

from crossrank import extras
from crossrank.backends.cuda.attention import Attention
from crossrank.backends.cuda.batch import Batch
from crossrank.backends.cuda.fusing import Fusing
from crossrank.backends.cuda.layers import ACTIVATIONS, Linear, Norm, Place, mean
from crossrank.backends.reference import modernbert as reference

extras.require("torch", extra="gpu")
from torch import Tensor  # noqa: E402
from torch.nn import functional  # noqa: E402

Turn = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one block; the query part of `qkv` carries the factor 1 / sqrt(head size).

    Attributes:
        kind: full_attention or sliding_attention.
        window: tokens further apart do not see each other; None for no limit.
    """

    kind: str
    window: int | None
    norm: Norm | None
    qkv: Linear
    out: Linear
    mlp_norm: Norm
    up: Linear
    down: Linear


class ModernBert:
    """The encoder and, for a cross-encoder, its head. Read-only after construction."""

    def __init__(
        self, source: reference.ModernBert, labels: int, place: Place, attention: Attention, fusing: Fusing
    ) -> None:
        self.hidden, self.heads = source.hidden, source.heads
        self.attention, self.fusing = attention, fusing
        # Has it windows? Those over part of a sequence take the padded way (`attention.Varlen.every`).
        self.local = any(layer.kind == "sliding_attention" for layer in source.layers)
        self._dtype = place.dtype
        self._words = place.tensor(source.words)
        self._norm = place.exact().norm(source.norm, source.eps)
        self._frequencies = {kind: place.exact().tensor(rate) for kind, rate in source.frequencies.items()}
        self._activation = ACTIVATIONS[source.activation]
        self._layers = [
            Layer(
                kind=layer.kind,
                window=source.window if layer.kind == "sliding_attention" else None,
                norm=None if layer.norm is None else place.norm(layer.norm, source.eps),
                qkv=place.linear(layer.qkv, layer.qkv_bias),
                out=place.linear(layer.out, layer.out_bias),
                mlp_norm=place.norm(layer.mlp_norm, source.eps),
                up=place.linear(layer.up, layer.up_bias),
                down=place.linear(layer.down, layer.down_bias),
            )
            for layer in source.layers
        ]
        self._final = place.norm(source.final, source.eps)
        self._by_mean = source.by_mean
        if labels:
            head = place.exact()
            self._dense = head.linear(source.dense, source.dense_bias)
            self._dense_activation = ACTIVATIONS[source.dense_activation]
            self._dense_norm = head.norm(source.dense_norm, source.eps)
            self._classifier = head.linear(*source.classifier)

    def states(self, batch: Batch) -> Tensor:
        """The last hidden state of every token, shape (tokens, hidden)."""
        x, turns = self._enter(batch)
        for layer in self._layers:
            x = self._block(x, layer, turns[layer.kind], batch)
        return self._final(x)

    def first_states(self, batch: Batch) -> Tensor:
        """The last hidden state of each sequence's first token, shape (sequences, hidden); see `Bert.first_states`."""
        x, turns = self._enter(batch)
        for layer in self._layers[:-1]:
            x = self._block(x, layer, turns[layer.kind], batch)
        layer = self._layers[-1]
        qkv = self._qkv(x, layer, turns[layer.kind])
        seen = self.attention.first(qkv[batch.first, 0], qkv[:, 1:], batch, layer.window)
        return self._final(self._rest(x[batch.first], seen, layer))

    def logits(self, batch: Batch) -> Tensor:
        """Raw outputs of the head in float32, shape (sequences, labels)."""
        rows = mean(self.states(batch), batch) if self._by_mean else self.first_states(batch).float()
        return self._classifier(self._dense_norm(self._dense_activation(self._dense(rows))))

    def _enter(self, batch: Batch) -> tuple[Tensor, dict[str, Turn]]:
        """Embeddings, and for each layer kind the cosine and sine of every token's angles, (tokens, size / 2) each."""
        x = self._norm(functional.embedding(batch.ids, self._words).float()).to(self._dtype)
        angles = {kind: batch.place[:, None].float() * rate for kind, rate in self._frequencies.items()}
        return x, {kind: (angle.cos(), angle.sin()) for kind, angle in angles.items()}

    def _qkv(self, x: Tensor, layer: Layer, turn: Turn) -> Tensor:
        """Queries, keys and values, the first two turned: shape (tokens, 3, heads, size)."""
        made = layer.qkv(x if layer.norm is None else layer.norm(x))
        qkv = made.view(len(x), 3, self.heads, self.hidden // self.heads)
        self.fusing.turn(qkv, *turn)
        return qkv

    def _block(self, x: Tensor, layer: Layer, turn: Turn, batch: Batch) -> Tensor:
        seen = self.attention.every(self._qkv(x, layer, turn), batch, layer.window)
        return self._rest(x, seen, layer)

    def _rest(self, x: Tensor, seen: Tensor, layer: Layer) -> Tensor:
        """Everything after attention."""
        x, normed = self.fusing.add_and_norm(x, layer.out(seen), layer.mlp_norm)
        return x + layer.down(self.fusing.gate(layer.up(normed), self._activation))
