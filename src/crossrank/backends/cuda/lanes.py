"""Host memory of batches on their way to and from the card. Needs the extra `gpu`.

On CUDA it is pinned, so that the card reads and writes it by itself while the host makes the next batch.
"""

from __future__ import annotations

from queue import Empty, SimpleQueue

import numpy as np
from numpy.typing import NDArray

from crossrank import extras
from crossrank.backends.cuda.capturing import capturing

extras.require("torch", extra="gpu")
import torch  # noqa: E402
from torch import Tensor  # noqa: E402


class Lane:
    """The memory of one batch, kept from batch to batch, and the moment at which the card is done with it."""

    def __init__(self, pinned: bool, numbers: int = 0) -> None:
        self._pinned = pinned
        # Of the largest usual batch at once: growing waits for engines that capture.
        with capturing:
            self._numbers = self._grown(torch.empty(0, dtype=torch.int32), numbers)
        self._results = torch.empty(0, dtype=torch.float32)
        # Waiting for it lets the core do other work, tokenizing for example, instead of asking again and again.
        self._done = torch.cuda.Event(blocking=True) if pinned else None  # type: ignore[no-untyped-call]

    def numbers(self, count: int) -> Tensor:
        """Memory for `count` int32, to be filled and sent."""
        with capturing:  # the old memory goes here, too
            self._numbers = self._grown(self._numbers, count)
        return self._numbers[:count]

    def receive(self, result: Tensor) -> Tensor:
        """Let the card write its float32 result here, behind all that it was given before; it is there after `wait`."""
        with capturing:
            self._results = self._grown(self._results, result.numel())
        mine = self._results[: result.numel()].view(result.shape)
        mine.copy_(result, non_blocking=True)
        if self._done is not None:
            self._done.record()
        return mine

    def wait(self) -> None:
        """Return when the card is done with the last batch."""
        if self._done is not None:
            self._done.synchronize()

    def _grown(self, held: Tensor, count: int) -> Tensor:
        if held.numel() >= count:
            return held
        return torch.empty(count, dtype=held.dtype, pin_memory=self._pinned)


class Lanes:
    """A few lanes for all threads that share a card."""

    def __init__(self, count: int, pinned: bool, numbers: int) -> None:
        self._free: SimpleQueue[Lane] = SimpleQueue()
        for _ in range(count):
            self._free.put(Lane(pinned, numbers))

    def take(self, wait: bool) -> Lane | None:
        """A lane of the caller's own until `give`; None when none is free and the caller does not wait.

        Who holds a lane must not wait for another: two who did would wait for each other.
        """
        try:
            return self._free.get(block=wait)
        except Empty:
            return None

    def give(self, lane: Lane) -> None:
        """Back to all. The card must be done with it."""
        self._free.put(lane)


def array(memory: Tensor) -> NDArray[np.int32]:
    """The memory of a lane as an array; nothing is copied."""
    return memory.numpy()
