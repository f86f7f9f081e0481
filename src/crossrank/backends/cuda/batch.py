"""A batch on the card: what `ladder.fill` wrote, and what layers need to know of it. Needs the extra `gpu`."""

from __future__ import annotations

from dataclasses import dataclass

from crossrank import extras
from crossrank.backends.cuda.ladder import Shape

extras.require("torch", extra="gpu")
import torch  # noqa: E402
from torch import Tensor  # noqa: E402


@dataclass(frozen=True, slots=True)
class Batch:
    """Packed sequences on the card. Rows past the last sequence belong to none: what is computed there is never read.

    Attributes:
        shape: the sizes.
        ids: shape (tokens,), int32.
        types: shape (tokens,), int32.
        offsets: shape (sequences + 1,), int32; sequences at the end may be empty.
        seen: how many tokens of a sequence attention sees, shape (sequences,), int32; 0 for an empty one.
        partly: may `seen` be less than a sequence has?
        first: rows of the first tokens, shape (sequences,), int64; of empty sequences some row that exists.
        owner: sequence of each row, shape (tokens,), int64; the last one for rows that belong to none.
        place: of each row in its sequence, from 0, shape (tokens,), int32; 0 for rows that belong to none.
        real: does the row belong to a sequence? shape (tokens,), bool.
    """

    shape: Shape
    ids: Tensor
    types: Tensor
    offsets: Tensor
    seen: Tensor
    partly: bool
    first: Tensor
    owner: Tensor
    place: Tensor
    real: Tensor

    @classmethod
    def of(cls, numbers: Tensor, shape: Shape, partly: bool) -> Batch:
        """Views into `numbers`, and the rest computed on its device: nothing here waits for the card."""
        sizes = [shape.tokens, shape.tokens, shape.sequences + 1, shape.sequences]
        ids, types, offsets, seen = torch.split(numbers, sizes)
        rows = torch.arange(shape.tokens, dtype=torch.int32, device=numbers.device)
        # A sequence ends where the next begins: the owner of a row is the first sequence that ends after it.
        found = torch.searchsorted(offsets[1:].contiguous(), rows, right=True)
        real = found < shape.sequences
        owner = found.clamp(max=shape.sequences - 1)
        return cls(
            shape=shape,
            ids=ids,
            types=types,
            offsets=offsets,
            seen=seen,
            partly=partly,
            first=offsets[:-1].clamp(max=shape.tokens - 1).long(),
            owner=owner,
            # masked_fill and not where: a number of the host's would be copied, which no graph can capture.
            place=(rows - offsets[owner]).masked_fill(~real, 0),
            real=real,
        )
