"""The arithmetic of the reference backend: float32, in place, in blocks that stay in a core's second-level cache.

NumPy runs one operation at a time over whole arrays, so a chain of ten operations on a large array reads and writes
main memory ten times. Every chain here therefore walks its array in blocks of `BLOCK` numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Activation = Callable[[Floats, Floats, Floats], None]

BLOCK = 32768  # float32 numbers: 128 KB, measured fastest among 4k..64k

# log(Phi(x) / Phi(-x)) / x as a polynomial in x * x on |x| <= 5.5, Phi the normal distribution function: a minimax fit
# weighted by its effect on gelu. Largest error of gelu in float32: 6e-7; that of torch's own float32 gelu is 1e-6.
LOGIT = tuple(
    np.float32(c)
    for c in (
        1.5957684322295425,
        0.0726685670302173,
        -6.625998790294667e-05,
        -1.1048031695365469e-04,
        7.938218928237824e-06,
        -2.6689281972001515e-07,
        3.6112328536797364e-09,
    )
)
LOGIT_END = np.float32(5.5**2)
ONE = np.float32(1)


def gelu(x: Floats, t: Floats, u: Floats) -> None:
    """X times Phi(x), in place; `t` and `u` are scratch of the same shape.

    Phi(x) = 1 / (1 + exp(-x q(x^2))) with q above: one exponential and no error function, which NumPy lacks.
    """
    np.multiply(x, x, out=t)
    np.minimum(t, LOGIT_END, out=t)
    np.multiply(t, -LOGIT[-1], out=u)
    for c in LOGIT[-2:0:-1]:
        u -= c
        u *= t
    u -= LOGIT[0]
    u *= x
    np.exp(u, out=u)
    u += ONE
    x /= u


def gelu_tanh(x: Floats, t: Floats, u: Floats) -> None:
    """The tanh form of gelu (Hendrycks and Gimpel 2016): x / (1 + exp(-2 sqrt(2 / pi) (x + 0.044715 x^3)))."""
    np.multiply(x, x, out=t)
    t *= np.float32(-2 * np.sqrt(2 / np.pi) * 0.044715)
    t -= np.float32(2 * np.sqrt(2 / np.pi))
    t *= x
    np.exp(t, out=t)
    t += ONE
    x /= t


def quick_gelu(x: Floats, t: Floats, u: Floats) -> None:
    """X times sigmoid(1.702 x)."""
    np.multiply(x, np.float32(-1.702), out=t)
    np.exp(t, out=t)
    t += ONE
    x /= t


def silu(x: Floats, t: Floats, u: Floats) -> None:
    """X times sigmoid(x)."""
    np.negative(x, out=t)
    np.exp(t, out=t)
    t += ONE
    x /= t


def relu(x: Floats, t: Floats, u: Floats) -> None:
    """The larger of x and 0."""
    np.maximum(x, np.float32(0), out=x)


def tanh(x: Floats, t: Floats, u: Floats) -> None:
    """Hyperbolic tangent."""
    np.tanh(x, out=x)


# By transformers' names.
ACTIVATIONS: Mapping[str, Activation] = {
    "gelu": gelu,
    "gelu_python": gelu,
    "gelu_new": gelu_tanh,
    "gelu_fast": gelu_tanh,
    "gelu_accurate": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "gelu_python_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
    "silu": silu,
    "swish": silu,
    "relu": relu,
    "tanh": tanh,
}


class Scratch:
    """Buffers of one call, reused over its units and layers. One call, one thread: never shared."""

    def __init__(self) -> None:
        self._held: dict[str, Floats] = {}

    def take(self, name: str, *shape: int) -> Floats:
        """An uninitialised array that holds until `name` is taken again."""
        size = math.prod(shape)
        held = self._held.get(name)
        if held is None or held.size < size:
            held = self._held[name] = np.empty(size, dtype=np.float32)
        return held[:size].reshape(shape)


def blocks(rows: int, width: int) -> Iterator[slice]:
    """Slices over `rows` that hold about BLOCK numbers each."""
    step = max(1, BLOCK // width)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def activate(x: Floats, bias: Floats | None, activation: Activation, scratch: Scratch) -> None:
    """`activation(x + bias)` in place, x of shape (rows, width)."""
    width = x.shape[1]
    t, u = (scratch.take(name, max(BLOCK // width, 1), width) for name in ("act.t", "act.u"))
    for part in blocks(*x.shape):
        piece = x[part]
        if bias is not None:
            piece += bias
        activation(piece, t[: len(piece)], u[: len(piece)])


def gate(x: Floats, activation: Activation, scratch: Scratch) -> Floats:
    """`activation(a) * b` of a matrix (rows, 2 width) whose first half is a: a gated linear unit (Shazeer 2020)."""
    width = x.shape[1] // 2
    gated = scratch.take("gated", len(x), width)
    for part in blocks(len(x), width):
        np.copyto(gated[part], x[part, :width])
        activate(gated[part], None, activation, scratch)
        gated[part] *= x[part, width:]
    return gated


def layer_norm(x: Floats, weight: Floats, bias: Floats | None, eps: float, out: Floats | None = None) -> None:
    """Rows of `x` to mean 0 and variance 1, then times weight plus bias; in place, or into `out`."""
    width = x.shape[1]
    share = np.full(width, 1 / width, dtype=np.float32)
    for part in blocks(*x.shape):
        y = x[part] if out is None else out[part]
        np.subtract(x[part], (x[part] @ share)[:, None], out=y)
        variance = np.einsum("ij,ij->i", y, y)
        variance /= np.float32(width)
        variance += np.float32(eps)
        np.sqrt(variance, out=variance)
        y /= variance[:, None]
        y *= weight
        if bias is not None:
            y += bias


def add_norm(x: Floats, added: Floats, added_bias: Floats, weight: Floats, bias: Floats | None, eps: float) -> None:
    """`x = layer_norm(x + added + added_bias)` in place: the end of both halves of a post-norm block."""
    for part in blocks(*x.shape):
        piece = x[part]
        piece += added[part]
        piece += added_bias
        layer_norm(piece, weight, bias, eps)


def linear(x: Floats, weight: Floats, bias: Floats | None, out: Floats) -> Floats:
    """`out = x @ weight.T + bias`, weight of shape (outputs, inputs)."""
    np.matmul(x, weight.T, out=out)
    if bias is not None:
        out += bias
    return out


def rotate(x: Floats, cosine: Floats, sine: Floats) -> None:
    """Rotary positions (Su et al. 2021), in place: number i of the first half turns with number i of the second.

    Args:
        x: shape (rows, parts, heads, size).
        cosine: shape (rows, size / 2).
        sine: shape (rows, size / 2).
    """
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    c, s = cosine[:, None, None, :], sine[:, None, None, :]
    turned = a * c
    turned -= b * s
    b *= c
    b += a * s
    a[...] = turned


def mean_rows(x: Floats, offsets: NDArray[np.int64]) -> Floats:
    """The mean of each sequence's rows, shape (n, width); no sequence may be empty."""
    sums: Floats = np.add.reduceat(x, offsets[:-1], axis=0)
    sums /= np.diff(offsets)[:, None].astype(np.float32)
    return sums
