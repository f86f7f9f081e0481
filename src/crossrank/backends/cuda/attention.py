"""Attention over packed sequences: flash attention where the card has it, else padded sequences. Needs the extra `gpu`.

Queries come scaled. A window of w lets tokens see each other that are at most w apart.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Protocol

from crossrank import extras
from crossrank.backends.cuda.batch import Batch

extras.require("torch", extra="gpu")
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

FLASH_SINCE = (8, 0)  # compute capability
WIDEST_HEAD = 256


class Attention(Protocol):
    """One way to compute attention."""

    name: str
    padded: bool

    def every(self, qkv: Tensor, batch: Batch, window: int | None) -> Tensor:
        """Of every token to its own sequence: qkv (tokens, 3, heads, size), result (tokens, heads * size)."""
        ...

    def first(self, query: Tensor, kv: Tensor, batch: Batch, window: int | None) -> Tensor:
        """Of each sequence's first token alone: query (sequences, heads, size), kv (tokens, 2, heads, size), result
        (sequences, heads * size)."""
        ...


class Padded:
    """Sequences side by side, filled up to the longest, through torch's own attention. Every device and format."""

    name = "padded attention"
    padded = True

    def every(self, qkv: Tensor, batch: Batch, window: int | None) -> Tensor:
        """See `Attention.every`."""
        spread = self._spread(qkv, batch)  # (sequences, 3, heads, longest, size)
        places = torch.arange(batch.shape.longest, device=qkv.device)
        shown = (places < batch.seen[:, None])[:, None, None, :]
        if window is not None:
            shown = shown & ((places[:, None] - places).abs() <= window)
        seen = self._attend(spread[:, 0], spread[:, 1], spread[:, 2], shown)
        return seen.transpose(1, 2)[batch.owner, batch.place.long()].flatten(1)

    def first(self, query: Tensor, kv: Tensor, batch: Batch, window: int | None) -> Tensor:
        """See `Attention.first`."""
        spread = self._spread(kv, batch)
        reach = batch.seen if window is None else batch.seen.clamp(max=window + 1)
        shown = (torch.arange(batch.shape.longest, device=kv.device) < reach[:, None])[:, None, None, :]
        return self._attend(query[:, :, None], spread[:, 0], spread[:, 1], shown).flatten(1)

    @staticmethod
    def _spread(packed: Tensor, batch: Batch) -> Tensor:
        """(tokens, parts, heads, size) as (sequences, parts, heads, longest, size)."""
        places = torch.arange(batch.shape.longest, device=packed.device)
        rows = (batch.offsets[:-1, None] + places).clamp(max=batch.shape.tokens - 1)
        # A row past the end of a sequence may hold anything, and NaN times 0 is NaN: masked keys get numbers.
        outside = (places >= batch.offsets[1:, None] - batch.offsets[:-1, None])[:, :, None, None, None]
        return packed[rows].masked_fill(outside, 0).permute(0, 2, 3, 1, 4)

    @staticmethod
    def _attend(query: Tensor, key: Tensor, value: Tensor, shown: Tensor) -> Tensor:
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=shown, scale=1.0)


class Varlen:
    """Flash attention (Dao 2023) for sequences of different lengths, without padding."""

    name = "flash attention"
    padded = False

    def __init__(self, kernel: Callable[..., Any]) -> None:
        self._kernel = kernel
        self._padded = Padded()

    def every(self, qkv: Tensor, batch: Batch, window: int | None) -> Tensor:
        """See `Attention.every`."""
        if window is not None and batch.partly:
            # The kernel aligns a window with the last key that is seen, and not with the query's own place.
            return self._padded.every(qkv, batch, window)
        query, key, value = qkv.unbind(1)
        longest = batch.shape.longest
        seen = self._kernel(
            query, key, value, batch.offsets, batch.offsets, longest, longest,
            scale=1.0,
            window_size=(-1, -1) if window is None else (window, window),
            seqused_k=batch.seen if batch.partly else None,
        )  # fmt: skip
        return self._flat(seen)

    def first(self, query: Tensor, kv: Tensor, batch: Batch, window: int | None) -> Tensor:
        """See `Attention.first`."""
        key, value = kv.unbind(1)
        # For the same reason, a window is a shorter list of keys here.
        reach = batch.seen if window is None else batch.seen.clamp(max=window + 1)
        one_each = torch.arange(batch.shape.sequences + 1, dtype=torch.int32, device=query.device)
        seen = self._kernel(
            query, key, value, one_each, batch.offsets, 1, batch.shape.longest,
            scale=1.0,
            window_size=(-1, -1),
            seqused_k=None if window is None and not batch.partly else reach,
        )  # fmt: skip
        return self._flat(seen)

    @staticmethod
    def _flat(seen: Any) -> Tensor:
        return torch.flatten(seen, 1)


def flash() -> Callable[..., Any] | None:
    """torch's attention for sequences of different lengths; None where this torch lacks it or what is asked of it."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:  # before torch 2.10
        return None
    asked = {"scale", "window_size", "seqused_k"}
    return varlen_attn if asked <= inspect.signature(varlen_attn).parameters.keys() else None


def best(device: torch.device, dtype: torch.dtype, size: int) -> Attention:
    """The fastest attention that computes heads of `size` in this format on this device."""
    if device.type != "cuda" or dtype == torch.float32 or size % 8 or size > WIDEST_HEAD:
        return Padded()
    kernel = flash() if torch.cuda.get_device_capability(device) >= FLASH_SINCE else None
    return Padded() if kernel is None else Varlen(kernel)
