"""BERT, ELECTRA, RoBERTa and XLM-R on the card; `reference.bert` says what is computed. Needs the extra `gpu`."""

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
        self._tables = [place.tensor(table) for table in (source.words, source.places, source.types)]
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
        x = self._embed(batch)
        for layer in self._layers:
            x = self._block(x, layer, batch)
        return x

    def first_states(self, batch: Batch) -> Tensor:
        """The last hidden state of each sequence's first token, shape (sequences, hidden).

        Exact and cheaper than `states`: after its keys and values, the last block computes those rows alone.
        """
        x = self._embed(batch)
        for layer in self._layers[:-1]:
            x = self._block(x, layer, batch)
        layer, h = self._layers[-1], self.hidden
        kv = layer.qkv.rows(slice(h, None))(x)
        rows = x[batch.first]
        query = layer.qkv.rows(slice(h))(rows)
        seen = self.attention.first(self._split(query, 1)[:, 0], self._split(kv, 2), batch, None)
        return self._rest(rows, seen, layer)

    def logits(self, batch: Batch) -> Tensor:
        """Raw outputs of the head in float32, shape (sequences, labels)."""
        rows = self._dense_activation(self._dense(self.first_states(batch).float()))
        return self._classifier(rows)

    def _embed(self, batch: Batch) -> Tensor:
        indexes = (batch.ids, self._positions(batch), batch.types)
        gathered = [functional.embedding(i, table) for i, table in zip(indexes, self._tables, strict=True)]
        x = self._norm(gathered[0].float() + gathered[1] + gathered[2]).to(self._dtype)
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

    def _block(self, x: Tensor, layer: Layer, batch: Batch) -> Tensor:
        seen = self.attention.every(self._split(layer.qkv(x), 3), batch, None)
        return self._rest(x, seen, layer)

    def _rest(self, x: Tensor, seen: Tensor, layer: Layer) -> Tensor:
        """Everything after attention."""
        x = self.fusing.add_norm(x, layer.out(seen), layer.out_norm)
        return self.fusing.add_norm(x, layer.down(self._activation(layer.up(x))), layer.down_norm)
