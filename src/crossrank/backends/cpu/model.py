"""A model as the native library takes it. The reference backend reads and checks the weights; nothing is read twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.backends.cpu import library
from crossrank.backends.reference import ops
from crossrank.backends.reference.bert import Bert
from crossrank.backends.reference.modernbert import ModernBert

# The numbers of `enum crossrank_activation`.
ACTIVATIONS: dict[Any, int] = {
    ops.gelu: 0,
    ops.gelu_tanh: 1,
    ops.quick_gelu: 2,
    ops.silu: 3,
    ops.relu: 4,
    ops.tanh: 5,
}
ROTARY = ("full_attention", "sliding_attention")

Array = NDArray[np.float32]


class Description:
    """`crossrank_model` and the arrays its pointers reach, which must live until the library has packed them.

    Attributes:
        model: the structure.
        tables: arrays that the library reads as long as its engine lives.
    """

    def __init__(self, source: Bert | ModernBert, labels: int) -> None:
        self._alive: list[Any] = []
        self.model = library.Model()
        self.tables: Sequence[Array] = ()
        if isinstance(source, Bert):
            self._bert(source, labels)
        else:
            self._modern(source, labels)

    def _floats(self, array: Array | None) -> Any:
        if array is None:
            return library.Floats()
        whole = np.ascontiguousarray(array, dtype=np.float32)
        self._alive.append(whole)
        return whole.ctypes.data_as(library.Floats)

    def _linear(self, weight: Array, bias: Array | None) -> library.Linear:
        return library.Linear(self._floats(weight), self._floats(bias))

    def _norm(self, norm: tuple[Array, Array | None] | None) -> library.Norm:
        return library.Norm(*((self._floats(part) for part in norm) if norm else ()))

    def _sizes(self, source: Bert | ModernBert, labels: int) -> None:
        m = self.model
        m.hidden, m.heads, m.inner = source.hidden, source.heads, source.inner
        m.layers, m.labels = len(source.layers), labels
        m.vocabulary, m.width = source.words.shape
        m.positions = source.positions
        m.eps = source.eps
        m.activation = ACTIVATIONS[source.activation]
        m.embedding_norm = self._norm(source.norm)

    def _head(self, dense: Array, bias: Array | None, activation: Any, classifier: tuple[Array, Array]) -> None:
        m = self.model
        m.head_dense, m.head_activation = self._linear(dense, bias), ACTIVATIONS[activation]
        m.classifier = self._linear(*classifier)

    def _keep(self, *names_and_arrays: tuple[str, Array]) -> None:
        """Embedding tables: the library reads them where they are."""
        self.tables = tuple(np.ascontiguousarray(array, dtype=np.float32) for _, array in names_and_arrays)
        for (name, _), table in zip(names_and_arrays, self.tables, strict=True):
            setattr(self.model, name, table.ctypes.data_as(library.Floats))

    def _layers(self, layers: list[library.Layer]) -> None:
        block = (library.Layer * len(layers))(*layers)
        self._alive.append(block)
        self.model.layer = block

    def _bert(self, source: Bert, labels: int) -> None:
        self._sizes(source, labels)
        m = self.model
        m.kinds = source.kinds
        m.padding = -1 if source.offset is None else source.offset - 1
        m.gated = int(source.gated)
        tables = ("words", source.words), ("places", source.places), ("types", source.types)
        self._keep(*((name, table) for name, table in tables if table is not None))
        m.frequencies[0] = self._floats(source.frequencies)
        if source.project is not None:
            m.project = self._linear(*source.project)
        self._layers(
            [
                library.Layer(
                    qkv=self._linear(layer.qkv, layer.qkv_bias),
                    out=self._linear(layer.out, layer.out_bias),
                    after_attention=self._norm(layer.out_norm),
                    up=self._linear(layer.up, layer.up_bias),
                    down=self._linear(layer.down, layer.down_bias),
                    after_inner=self._norm(layer.down_norm),
                    window=-1,
                    rotary=-1 if source.frequencies is None else 0,
                )
                for layer in source.layers
            ]
        )
        if labels:
            self._head(*source.dense, source.dense_activation, source.classifier)

    def _modern(self, source: ModernBert, labels: int) -> None:
        self._sizes(source, labels)
        m = self.model
        m.padding = -1
        m.gated = 1
        m.final_norm = self._norm(source.final)
        self._keep(("words", source.words))
        for number, kind in enumerate(ROTARY):
            if kind in source.frequencies:
                m.frequencies[number] = self._floats(source.frequencies[kind])
        self._layers(
            [
                library.Layer(
                    before_attention=self._norm(layer.norm),
                    qkv=self._linear(layer.qkv, layer.qkv_bias),
                    out=self._linear(layer.out, layer.out_bias),
                    before_inner=self._norm(layer.mlp_norm),
                    up=self._linear(layer.up, layer.up_bias),
                    down=self._linear(layer.down, layer.down_bias),
                    window=source.window if layer.kind == "sliding_attention" else -1,
                    rotary=ROTARY.index(layer.kind),
                )
                for layer in source.layers
            ]
        )
        if labels:
            self._head(source.dense, source.dense_bias, source.dense_activation, source.classifier)
            m.head_norm = self._norm(source.dense_norm)
            m.head_by_mean = int(source.by_mean)
