"""Memory-bound steps as single kernels in Triton: each number is read once and written once. Needs the extra `gpu`.

All compute in float32, whatever format they read and write.
"""

from __future__ import annotations

from typing import Any

from crossrank import extras
from crossrank.backends.cuda.layers import ACTIVATIONS, Activation, Norm
from crossrank.backends.reference import ops

extras.require("torch", extra="gpu")
extras.require("triton", extra="gpu")
import torch  # noqa: E402
import triton  # noqa: E402
from torch import Tensor  # noqa: E402
from triton import language as tl  # noqa: E402

CODES: dict[Any, int] = {
    ACTIVATIONS[made]: number
    for number, made in enumerate((ops.gelu, ops.gelu_tanh, ops.quick_gelu, ops.silu, ops.relu, ops.tanh))
}
GATED = 1024  # columns that one program of the gate takes


class Fused:
    """A kernel for each. CUDA devices, and any device in Triton's interpreter. Inputs must be contiguous."""

    name = "Triton kernels"

    def add_norm(self, x: Tensor, added: Tensor, norm: Norm) -> Tensor:
        """See `Fusing.add_norm`."""
        return self._normed(x, added, norm, None)

    def add_and_norm(self, x: Tensor, added: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
        """See `Fusing.add_and_norm`."""
        both = torch.empty_like(x)
        return both, self._normed(x, added, norm, both)

    def gate(self, wide: Tensor, activation: Activation) -> Tensor:
        """See `Fusing.gate`."""
        rows, columns = wide.shape
        out = wide.new_empty(rows, columns // 2)
        blocks = triton.cdiv(columns // 2, GATED)
        _gate[(rows, blocks)](wide, out, columns // 2, BLOCK=GATED, CODE=CODES[activation], num_warps=4)
        return out

    def turn(self, qkv: Tensor, cosine: Tensor, sine: Tensor) -> None:
        """See `Fusing.turn`."""
        rows, _, heads, size = qkv.shape
        blocks = {"HEADS": triton.next_power_of_2(2 * heads), "HALF": triton.next_power_of_2(size // 2)}
        _turn[(rows,)](qkv, cosine, sine, qkv.stride(0), 2 * heads, size // 2, **blocks, num_warps=4)

    @staticmethod
    def _normed(x: Tensor, added: Tensor, norm: Norm, both: Tensor | None) -> Tensor:
        rows, width = x.shape
        normed = torch.empty_like(x)
        block = triton.next_power_of_2(width)
        bias = norm.weight if norm.bias is None else norm.bias
        _add_norm[(rows,)](
            x, added, norm.weight, bias, normed if both is None else both, normed, width, norm.eps,
            BLOCK=block, BIASED=norm.bias is not None, KEPT=both is not None,
            num_warps=min(8, max(1, block // 256)),
        )  # fmt: skip
        return normed


@triton.jit
def _add_norm(  # type: ignore[no-untyped-def]  # noqa: ANN202
    x, added, weight, bias, both, normed, width, eps,  # noqa: ANN001
    BLOCK: tl.constexpr, BIASED: tl.constexpr, KEPT: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """A row of `norm(x + added)`; of the sum, too, where it is kept."""
    column = tl.arange(0, BLOCK)
    inside = column < width
    at = tl.program_id(0).to(tl.int64) * width + column
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    value += tl.load(added + at, mask=inside, other=0.0).to(tl.float32)
    if KEPT:
        rounded = value.to(both.dtype.element_ty)
        tl.store(both + at, rounded, mask=inside)
        value = rounded.to(tl.float32)
    centred = tl.where(inside, value - tl.sum(value, 0) / width, 0.0)
    result = centred / tl.sqrt(tl.sum(centred * centred, 0) / width + eps)
    result *= tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    if BIASED:
        result += tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(normed + at, result.to(normed.dtype.element_ty), mask=inside)


@triton.jit
def _gate(wide, out, width, BLOCK: tl.constexpr, CODE: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, N803
    """Columns of a row of `activation(left) * right`; codes as in CODES."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    left = tl.load(wide + row * 2 * width + column, mask=inside, other=0.0).to(tl.float32)
    right = tl.load(wide + row * 2 * width + width + column, mask=inside, other=0.0).to(tl.float32)
    if CODE == 0:
        left = 0.5 * left * (1.0 + tl.erf(left * 0.7071067811865476))
    elif CODE == 1:
        left = left * tl.sigmoid(1.5957691216057308 * (left + 0.044715 * left * left * left))
    elif CODE == 2:
        left = left * tl.sigmoid(1.702 * left)
    elif CODE == 3:
        left = left * tl.sigmoid(left)
    elif CODE == 4:
        left = tl.where(left < 0.0, 0.0, left)  # a maximum would hide NaN
    else:
        left = 2.0 * tl.sigmoid(2.0 * left) - 1.0
    tl.store(out + row * width + column, (left * right).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _turn(  # type: ignore[no-untyped-def]  # noqa: ANN202
    qkv, cosine, sine, stride, heads, half,  # noqa: ANN001
    HEADS: tl.constexpr, HALF: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """Turn the first `heads` vectors of a row in place: number i of the first half with number i of the second."""
    row = tl.program_id(0).to(tl.int64)
    head = tl.arange(0, HEADS)[:, None]
    number = tl.arange(0, HALF)[None, :]
    inside = (head < heads) & (number < half)
    at = qkv + row * stride + head * 2 * half + number
    a = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(at + half, mask=inside, other=0.0).to(tl.float32)
    c = tl.load(cosine + row * half + number, mask=number < half, other=0.0)
    s = tl.load(sine + row * half + number, mask=number < half, other=0.0)
    tl.store(at, (a * c - b * s).to(qkv.dtype.element_ty), mask=inside)
    tl.store(at + half, (b * c + a * s).to(qkv.dtype.element_ty), mask=inside)
