"""Batches on the card: computed as they come, or by replaying a captured CUDA graph. Needs the extra `gpu`.

Launching the kernels of a pass one by one takes the host longer than a small batch takes the card. A graph is one
launch.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Protocol

from crossrank import extras
from crossrank.backends.cuda.batch import Batch
from crossrank.backends.cuda.capturing import capturing
from crossrank.backends.cuda.ladder import Ladder, Shape
from crossrank.backends.cuda.model import Model, Output

extras.require("torch", extra="gpu")
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

MOST_GRAPHS = 256  # of one engine; the one replayed longest ago goes first

Key = tuple[Shape, Output, bool]


class Runner(Protocol):
    """Something that computes batches, one after another on the current stream, without waiting for them."""

    def run(self, numbers: Tensor, shape: Shape, output: Output, partly: bool) -> Tensor:
        """The output of the batch that `ladder.fill` wrote into `numbers`, which lies in host memory. It holds until
        the next call: whatever reads it must be on the same stream."""
        ...

    def forget(self) -> None:
        """Give memory back, after the card ran out of it."""
        ...


class Direct:
    """Computes a batch as it comes, in any shape, on any device."""

    def __init__(self, model: Model, device: torch.device) -> None:
        self._model, self._device = model, device

    def run(self, numbers: Tensor, shape: Shape, output: Output, partly: bool) -> Tensor:
        """See `Runner.run`."""
        return self._model.compute(Batch.of(numbers.to(self._device, non_blocking=True), shape, partly), output)

    def forget(self) -> None:
        """See `Runner.forget`."""
        if self._device.type == "cuda":
            with capturing:
                torch.cuda.empty_cache()


class Graphs:
    """Replays a graph for shapes of the ladder; captures it when a shape comes the second time. CUDA only.

    Many shapes come once, and a capture takes longer than their batch. All graphs read one buffer, write into another
    and share one pool of memory: they are replayed one after another on one stream.
    """

    def __init__(self, model: Model, device: torch.device, stream: torch.cuda.Stream, ladder: Ladder) -> None:
        self._model, self._stream = model, stream
        # Filled on the stream that reads and overwrites it: another would be free to fill it later.
        with torch.cuda.stream(stream):
            self._numbers = torch.zeros(ladder.numbers, dtype=torch.int32, device=device)
        self._pool: Any = torch.cuda.graph_pool_handle()
        self._results = torch.empty(0, dtype=torch.float32, device=device)
        self._held: OrderedDict[Key, tuple[torch.cuda.CUDAGraph, Tensor]] = OrderedDict()
        self._met: set[Key] = set()

    def run(self, numbers: Tensor, shape: Shape, output: Output, partly: bool) -> Tensor:
        """See `Runner.run`."""
        mine = self._numbers[: shape.numbers]
        mine.copy_(numbers, non_blocking=True)
        key = shape, output, partly
        if key not in self._held:
            result = self._model.compute(Batch.of(mine, shape, partly), output)
            if key not in self._met:
                self._met.add(key)
                return result
            result = self._room(result)
            if len(self._held) >= MOST_GRAPHS:
                self._stream.synchronize()  # a graph that is being replayed must not go
                self._met.discard(self._held.popitem(last=False)[0])
            self._held[key] = self._captured(mine, key, result)
        self._held.move_to_end(key)
        graph, result = self._held[key]
        graph.replay()
        return result

    def forget(self) -> None:
        """See `Runner.forget`."""
        self._stream.synchronize()
        with capturing:
            self._held.clear()
            self._results = self._results.new_empty(0)
            # What a pool without graphs holds is given back only when nobody names the pool any more.
            self._pool = torch.cuda.graph_pool_handle()
            torch.cuda.empty_cache()

    def _captured(self, numbers: Tensor, key: Key, result: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """A graph of what was just computed as it comes: libraries have chosen and loaded their kernels for the shape,
        which no capture may do."""
        shape, output, partly = key
        graph = torch.cuda.CUDAGraph()
        with (
            capturing,
            torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"),
        ):
            result.copy_(self._model.compute(Batch.of(numbers, shape, partly), output))
        return graph, result

    def _room(self, result: Tensor) -> Tensor:
        """Memory for such a result, the same for all graphs, so that none keeps one of its own in the pool.

        It grows by doubling: graphs that were captured before go on writing into the smaller one.
        """
        count = result.numel()
        if self._results.numel() < count:
            self._results = result.new_empty(max(count, 2 * self._results.numel()))
        return self._results[:count].view(result.shape)
