"""The memory-bound steps between matrix products: torch's own operations, or Triton's. Needs the extra `gpu`."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Protocol

from crossrank import extras
from crossrank.backends.cuda.layers import ACTIVATIONS, Activation, Norm, rotate
from crossrank.backends.cuda.memory import ran_out

extras.require("torch", extra="gpu")
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

# How far fused kernels may be from torch's operations on normally distributed numbers: twice the last digit of the
# format, relative and absolute. Both round once.
CLOSE = {torch.float32: 1e-5, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}


class Fusing(Protocol):
    """One way to compute them."""

    name: str

    def add_norm(self, x: Tensor, added: Tensor, norm: Norm) -> Tensor:
        """The norm of `x + added`, shape (rows, hidden)."""
        ...

    def add_and_norm(self, x: Tensor, added: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
        """`x + added`, and the norm of it: both of shape (rows, hidden)."""
        ...

    def gate(self, wide: Tensor, activation: Activation) -> Tensor:
        """The first half of the columns, activated, times the second: shape (rows, columns / 2)."""
        ...

    def turn(self, qkv: Tensor, cosine: Tensor, sine: Tensor) -> None:
        """Rotary positions for queries and keys, in place: qkv (rows, 3, heads, size), the others (rows, size / 2)."""
        ...


class Plain:
    """An operation of torch for each. Every device."""

    name = "torch's operations"

    def add_norm(self, x: Tensor, added: Tensor, norm: Norm) -> Tensor:
        """See `Fusing.add_norm`."""
        return norm(x + added)

    def add_and_norm(self, x: Tensor, added: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
        """See `Fusing.add_and_norm`."""
        both = x + added
        return both, norm(both)

    def gate(self, wide: Tensor, activation: Activation) -> Tensor:
        """See `Fusing.gate`."""
        left, right = wide.chunk(2, dim=-1)
        return activation(left) * right

    def turn(self, qkv: Tensor, cosine: Tensor, sine: Tensor) -> None:
        """See `Fusing.turn`."""
        qkv[:, :2] = rotate(qkv[:, :2], cosine, sine)


def best(device: torch.device, dtype: torch.dtype) -> Fusing:
    """Triton's kernels where they run on this device and agree with torch's operations, else those.

    Warns:
        RuntimeWarning: Triton is installed, and what keeps its kernels from being used.
    """
    if device.type != "cuda" or not extras.available("triton"):
        return Plain()
    try:
        found, reason = _tried(device, dtype)
    except Exception:  # of memory: `_tried` raises no other
        found, reason = Plain(), f"{device} is short of memory now; the next load tries them again"
    if reason:
        warnings.warn(f"Triton's kernels are not used: {reason}", RuntimeWarning, stacklevel=2)
    return found


@cache
def _tried(device: torch.device, dtype: torch.dtype) -> tuple[Fusing, str]:
    """What to take, and why not Triton's kernels.

    Triton compiles when a kernel is first used, and needs a C compiler for it, which many machines lack. So it is tried
    once a process; the backend's name says which was taken. Memory that ran out is raised, and so tried again.
    """
    try:
        from crossrank.backends.cuda.kernels import Fused  # needs Triton, which comes with torch's CUDA builds

        fused = Fused()
        return (fused, "") if agree(fused, Plain(), device, dtype) else (Plain(), "they give other numbers here")
    except Exception as error:  # Triton raises RuntimeError, OSError, its own compiler errors and subprocess errors
        if ran_out(error):
            raise
        return Plain(), f"{type(error).__name__}: {error}".partition("\n")[0]


def agree(one: Fusing, other: Fusing, device: torch.device, dtype: torch.dtype) -> bool:
    """Do both give the same numbers, up to rounding, on normally distributed ones? One call of each step."""
    rows, heads, size = 37, 3, 16
    hidden = heads * size
    dice = torch.Generator().manual_seed(0)

    def some(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=dice).to(device, dtype)

    angle = some(rows, size // 2).float()
    gelu, *others = dict.fromkeys(ACTIVATIONS.values())
    norms = [Norm(some(hidden), bias, 1e-5) for bias in (some(hidden), None)]
    x, added, qkv = some(rows, hidden), some(rows, hidden), some(rows, 3, heads, size)

    def everything(way: Fusing) -> list[Tensor]:
        turned = qkv.clone()
        way.turn(turned, angle.cos(), angle.sin())
        found = [turned, *(way.gate(x, activation) for activation in (gelu, *others))]
        for norm in norms:
            found += [way.add_norm(x, added, norm), *way.add_and_norm(x, added, norm)]
        return found

    pairs = zip(everything(one), everything(other), strict=True)
    return all(torch.allclose(a.float(), b.float(), rtol=CLOSE[dtype], atol=2 * CLOSE[dtype]) for a, b in pairs)
