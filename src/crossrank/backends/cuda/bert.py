"""BERT, ELECTRA, RoBERTa, XLM-R and GTE on the card; `reference.bert` says what is computed. Needs the extra `gpu`."""

from __future__ import annotations

from dataclasses import dataclass

from crossrank import extras
from crossrank.backends.cuda.attention import Attention
from crossrank.backends.cuda.batch import Batch
from crossrank.backends.cuda.fusing import Fusing
from crossrank.backends.cuda.layers import ACTIVATIONS, Linear, Norm, Place
from crossrank.backends.reference import bert as reference

extras.require("torch", extra="gpu")
import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn import functional  # noqa: E402

Turn = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one block; the query part of `qkv` carries the factor 1 / sqrt(head size)."""

    qkv: Linear
    out: Linear
    out_norm: Norm
    up: Linear
    down: Linear
    down_norm: Norm


class Bert:
    """The encoder and, for a cross-encoder, its head. Read-only after construction."""

    local = False  # every token sees its whole sequence

    def __init__(self, source: reference.Bert, labels: int, place: Place, attention: Attention, fusing: Fusing) -> None:
        self.hidden, self.heads = source.hidden, source.heads
        self.attention, self.fusing = attention, fusing
        self._dtype = place.dtype
        self._offset = source.offset
        self._words = place.tensor(source.words)
        self._places, self._types = (one if one is None else place.tensor(one) for one in (source.places, source.types))
        self._frequencies = None if source.frequencies is None else place.exact().tensor(source.frequencies)
        self._gated = source.gated
        # Embeddings are added and normalized in float32, once; it costs a thousandth of the blocks.
        self._norm = place.exact().norm(source.norm, source.eps)
        self._project = None if source.project is None else place.linear(*source.project)
        self._activation = ACTIVATIONS[source.activation]
        self._layers = [
            Layer(
                qkv=place.linear(layer.qkv, layer.qkv_bias),
                out=place.linear(layer.out, layer.out_bias),
                out_norm=place.norm(layer.out_norm, source.eps),
                up=place.linear(layer.up, layer.up_bias),
                down=place.linear(layer.down, layer.down_bias),
                down_norm=place.norm(layer.down_norm, source.eps),
            )
            for layer in source.layers
        ]
        if labels:
            self._dense = place.exact().linear(*source.dense)
            self._dense_activation = ACTIVATIONS[source.dense_activation]
            self._classifier = place.exact().linear(*source.classifier)

    def states(self, batch: Batch) -> Tensor:
        """The last hidden state of every token, shape (tokens, hidden)."""
        x, turn = self._embed(batch), self._turn(batch)
        for layer in self._layers:
            x = self._block(x, layer, turn, batch)
        return x

    def first_states(self, batch: Batch) -> Tensor:
        """The last hidden state of each sequence's first token, shape (sequences, hidden).

        Exact and cheaper than `states`: after its keys and values, the last block computes those rows alone.
        """
        x, turn = self._embed(batch), self._turn(batch)
        for layer in self._layers[:-1]:
            x = self._block(x, layer, turn, batch)
        layer, h, rows = self._layers[-1], self.hidden, x[batch.first]
        if turn is not None:  # queries and keys are turned together, in place
            qkv = self._qkv(x, layer, turn)
            return self._rest(rows, self.attention.first(qkv[batch.first, 0], qkv[:, 1:], batch, None), layer)
        kv = layer.qkv.rows(slice(h, None))(x)
        query = layer.qkv.rows(slice(h))(rows)
        seen = self.attention.first(self._split(query, 1)[:, 0], self._split(kv, 2), batch, None)
        return self._rest(rows, seen, layer)

    def logits(self, batch: Batch) -> Tensor:
        """Raw outputs of the head in float32, shape (sequences, labels)."""
        rows = self._dense_activation(self._dense(self.first_states(batch).float()))
        return self._classifier(rows)

    def _embed(self, batch: Batch) -> Tensor:
        x = functional.embedding(batch.ids, self._words).float()
        if self._places is not None:
            x = x + functional.embedding(self._positions(batch), self._places)
        if self._types is not None:
            x = x + functional.embedding(batch.types, self._types)
        x = self._norm(x).to(self._dtype)
        return x if self._project is None else self._project(x)

    def _positions(self, batch: Batch) -> Tensor:
        if self._offset is None:
            return batch.place
        # RoBERTa counts from padding + 1 and skips padding tokens, which keep the padding position.
        padding = self._offset - 1
        real = (batch.ids != padding) & batch.real
        count = functional.pad(real.cumsum(0, dtype=torch.int32), (1, 0))
        since = count[1:] - count[batch.offsets[:-1].long()][batch.owner]
        return since.masked_fill(~real, 0) + padding

    def _split(self, x: Tensor, parts: int) -> Tensor:
        return x.view(len(x), parts, self.heads, self.hidden // self.heads)

    def _turn(self, batch: Batch) -> Turn | None:
        """Cosine and sine of every token's angles, (tokens, size / 2) each; None without rotary positions."""
        if self._frequencies is None:
            return None
        angle = batch.place[:, None].float() * self._frequencies
        return angle.cos(), angle.sin()

    def _qkv(self, x: Tensor, layer: Layer, turn: Turn | None) -> Tensor:
        """Queries, keys and values, the first two turned: shape (tokens, 3, heads, size)."""
        qkv = self._split(layer.qkv(x), 3)
        if turn is not None:
            self.fusing.turn(qkv, *turn)
        return qkv

    def _block(self, x: Tensor, layer: Layer, turn: Turn | None, batch: Batch) -> Tensor:
        return self._rest(x, self.attention.every(self._qkv(x, layer, turn), batch, None), layer)

    def _rest(self, x: Tensor, seen: Tensor, layer: Layer) -> Tensor:
        """Everything after attention."""
        x = self.fusing.add_norm(x, layer.out(seen), layer.out_norm)
        wide = layer.up(x)
        inner = self.fusing.gate(wide, self._activation) if self._gated else self._activation(wide)
        return self.fusing.add_norm(x, layer.down(inner), layer.down_norm)
