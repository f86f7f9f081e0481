"""What all models are made of: linear layers, norms, activations, rotary positions, heads. Needs the extra `gpu`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank import extras
from crossrank.backends.cuda.batch import Batch
from crossrank.backends.reference import ops

extras.require("torch", extra="gpu")
import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn import functional  # noqa: E402

Activation = Callable[[Tensor], Tensor]
Floats = NDArray[np.float32]


def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


# By what the reference backend has made of the config's name.
ACTIVATIONS: Mapping[Any, Activation] = {
    ops.gelu: functional.gelu,
    ops.gelu_tanh: partial(functional.gelu, approximate="tanh"),
    ops.quick_gelu: _quick_gelu,
    ops.silu: functional.silu,
    ops.relu: functional.relu,
    ops.tanh: torch.tanh,
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where weights go and in which number format."""

    device: torch.device
    dtype: torch.dtype

    def tensor(self, array: Floats) -> Tensor:
        """A copy there, in the format."""
        return torch.tensor(array, dtype=self.dtype, device=self.device)

    def exact(self) -> Place:
        """The same device in float32, for heads: they are a few rows and decide the last digits."""
        return Place(self.device, torch.float32)

    def linear(self, weight: Floats, bias: Floats | None) -> Linear:
        """A linear layer there."""
        return Linear(self.tensor(weight), None if bias is None else self.tensor(bias))

    def norm(self, norm: tuple[Floats, Floats | None], eps: float) -> Norm:
        """A norm there."""
        weight, bias = norm
        return Norm(self.tensor(weight), None if bias is None else self.tensor(bias), eps)


@dataclass(frozen=True, slots=True)
class Linear:
    """`x @ weight.T + bias`; the bias is added in the product's own epilogue."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        """Rows in, rows out."""
        return functional.linear(x, self.weight, self.bias)

    def rows(self, part: slice) -> Linear:
        """Some of the outputs: views."""
        return Linear(self.weight[part], None if self.bias is None else self.bias[part])


@dataclass(frozen=True, slots=True)
class Norm:
    """Rows to mean 0 and variance 1, times weight plus bias."""

    weight: Tensor
    bias: Tensor | None
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        """Rows in, rows out."""
        return functional.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021): number i of the first half turns with number i of the second.

    Args:
        x: shape (rows, parts, heads, size).
        cosine: float32, shape (rows, size / 2).
        sine: float32, shape (rows, size / 2).
    """
    a, b = x.float().chunk(2, dim=-1)
    c, s = cosine[:, None, None, :], sine[:, None, None, :]
    return torch.cat([a * c - b * s, b * c + a * s], dim=-1).to(x.dtype)


def mean(states: Tensor, batch: Batch) -> Tensor:
    """The mean of each sequence's rows in float32, shape (sequences, hidden); NaN for empty sequences.

    One thread adds the rows of a column in their order: no atomic additions, so the same sum every time.
    """
    sums = torch.segment_reduce(states.float(), "sum", offsets=batch.offsets.long(), axis=0, unsafe=True, initial=0)
    return sums / (batch.offsets[1:] - batch.offsets[:-1])[:, None]
