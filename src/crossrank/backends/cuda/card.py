"""One card: batches planned, two in flight, fewer tokens when its memory runs out. Needs the extra `gpu`."""

from __future__ import annotations

import os
from collections import deque
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from crossrank import extras
from crossrank.backends.cuda import ladder
from crossrank.backends.cuda.graphs import Direct, Graphs, Runner
from crossrank.backends.cuda.ladder import Ladder, Shape
from crossrank.backends.cuda.lanes import Lane, Lanes, array
from crossrank.backends.cuda.layers import Place
from crossrank.backends.cuda.memory import ran_out
from crossrank.backends.cuda.model import Output, shared
from crossrank.backends.limits import Limits, check_process, check_seen
from crossrank.batching import plan
from crossrank.checkpoint import Checkpoint
from crossrank.types import Pooling, Tokens

extras.require("torch", extra="gpu")
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

BATCH = 32_768  # tokens: enough to fill a large card, and 0.3 GB of activations at a hidden size of 384
STATES = 8_192  # tokens of a batch whose every state goes back to the host
MOST = 4_096  # sequences of a batch
CALL = 8 * BATCH  # tokens that a caller should give at once, so that batches can follow each other
LEAST = 1_024  # tokens of a batch that memory which ran out never goes under: less leaves a card idle
RAISED = 1_000  # batches without an error after which there is tried twice as much again
LANES = 4
AHEAD = 2  # batches of one call in flight: while the card computes one, the host makes the next

Rows = NDArray[np.int64]

# By device and handle of a stream; never more than there are streams.
_turns: dict[tuple[torch.device, int], Lock] = {}


@dataclass(frozen=True, slots=True)
class Flight:
    """A batch that the card works on.

    Attributes:
        rows: positions of its sequences in the call.
        tokens: its sequences.
        lane: its memory.
        result: where its result will be, in the lane.
    """

    rows: Rows
    tokens: Tokens
    lane: Lane
    result: Tensor


class Card:
    """The forward pass on one card. Safe to share between threads; a forked child has to load its own.

    Args:
        checkpoint: the model.
        device: a CUDA device; tests give the CPU.
        dtype: of weights and activations. Norms, softmax, sums and the head compute in float32.
        graphs: replay CUDA graphs for batches of usual sizes?
        rounded: round every batch up to the sizes of the ladder, also without graphs and where attention pads? For
            tests.
    """

    padded = False

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: torch.device,
        dtype: torch.dtype,
        graphs: bool = True,
        rounded: bool = False,
    ) -> None:
        cuda = device.type == "cuda"
        self._device, self._process = device, os.getpid()
        self._limits = Limits.of(checkpoint)
        with torch.cuda.device(device) if cuda else nullcontext():
            self._model = shared(checkpoint, Place(device, dtype))
            self._stream = _stream(device) if cuda else None
        self._turn = Lock() if self._stream is None else _turn(self._stream)
        self._ladder = Ladder(BATCH, MOST, self._limits.positions)
        self._direct: Runner = Direct(self._model, device)
        self._fitted: Runner | None = self._direct if rounded else None
        if self._stream is not None and graphs:
            with self._turn:  # it writes on the stream, on which another engine may capture
                self._fitted = Graphs(self._model, device, self._stream, self._ladder)
        self._lanes = Lanes(LANES, cuda, self._ladder.numbers)
        self._rounded = rounded
        self._room, self._fitting = BATCH, 0
        ways = (self._model.attention.name, self._model.fusing.name)
        self.name = f"cuda ({device}, {str(dtype).removeprefix('torch.')}, {', '.join(ways)})"

    @property
    def budget(self) -> int:
        """Tokens that a call should bring: more than a batch, so that one is made while another is computed."""
        return CALL

    @property
    def room(self) -> int:
        """Tokens of a batch. Halved when one twice runs out of memory; doubled after RAISED that fitted."""
        return self._room

    def forward(self, tokens: Tokens) -> NDArray[np.float32]:
        """Raw logits, shape (n,); a two-label head gives log-odds, logit 1 minus logit 0.

        Raises:
            CheckpointError: the model is a bi-encoder and has no head.
            InputError: an empty or too long sequence, an id outside the vocabulary, or a process that forked.
            MemoryError: the card has not enough memory for a single sequence.
        """
        self._limits.check_head()
        return self._run(tokens, "scores")[:, 0]

    def pool(self, tokens: Tokens, pooling: Pooling) -> NDArray[np.float32]:
        """One vector a sequence, shape (n, hidden): the mean over its tokens or its first token; not normalized.

        Raises:
            InputError: an empty or too long sequence, an id outside the vocabulary, another pooling, or a process that
                forked.
            MemoryError: the card has not enough memory for a single sequence.
        """
        self._limits.check_pooling(pooling)
        return self._run(tokens, "mean" if pooling == "mean" else "first")

    def states(self, tokens: Tokens, seen: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """The last hidden state of every token, shape (total, hidden), for late interaction.

        Args:
            tokens: the sequences.
            seen: of each sequence, attention sees so many tokens from its start, shape (n,); all when absent.

        Raises:
            InputError: an empty or too long sequence, an id outside the vocabulary, a `seen` outside a sequence, or a
                process that forked.
            MemoryError: the card has not enough memory for a single sequence.
        """
        return self._run(tokens, "states", seen)

    def _run(self, tokens: Tokens, output: Output, seen: Rows | None = None) -> NDArray[np.float32]:
        check_process(self._process)
        tokens = self._limits.admit(tokens)
        check_seen(tokens, seen)
        rows = len(tokens.ids) if output == "states" else len(tokens)
        out = np.empty((rows, self._model.width(output)), dtype=np.float32)
        waiting = deque(self._planned(tokens, np.arange(len(tokens)), output, seen is not None))
        flying: deque[Flight] = deque()
        failed: Rows | None = None
        try:
            while waiting or flying:
                ready = waiting and len(flying) < AHEAD
                lane = self._lanes.take(wait=not flying) if ready else None
                if lane is None:
                    self._land(flying.popleft(), tokens, out, output)
                    continue
                batch = waiting.popleft()
                flight = self._launched(lane, batch, tokens.take(batch), output, None if seen is None else seen[batch])
                if flight is not None:
                    flying.append(flight)
                    continue
                while flying:  # what they hold is needed
                    self._land(flying.popleft(), tokens, out, output)
                with self._turn:
                    (self._fitted or self._direct).forget()
                    self._fitting = 0
                if failed is not batch:
                    # Others may have held the memory for a moment, or a cache did: that says nothing of the batch.
                    failed = batch
                    waiting.appendleft(batch)
                else:
                    waiting.extendleft(reversed(self._smaller(tokens, batch, output, seen is not None)))
        finally:
            for flight in flying:  # only after an error: the card may still write there
                flight.lane.wait()
                self._lanes.give(flight.lane)
        return out

    def _planned(self, tokens: Tokens, rows: Rows, output: Output, partly: bool, most: int = BATCH) -> list[Rows]:
        """Batches of the given sequences of at most `most` tokens, longest first."""
        room = min(self._room, STATES, most) if output == "states" else min(self._room, most)
        batches = plan(tokens.lengths[rows], room, self._model.padded(partly))
        return [rows[part[i : i + MOST]] for part in batches for i in range(0, len(part), MOST)]

    def _smaller(self, tokens: Tokens, batch: Rows, output: Output, partly: bool) -> list[Rows]:
        """The batch that did not fit in memory though all was free, cut anew; later ones are smaller, too."""
        if len(batch) == 1:
            raise MemoryError(
                f"{self._device} has not enough memory for one sequence of {tokens.lengths[batch[0]]} tokens. See with "
                "nvidia-smi who holds it, shorten the passages, or use another card: device='cuda:1'."
            )
        # Not the mere half of the room: a small batch may have failed, and others may have halved it meanwhile.
        padded = int(tokens.lengths[batch].max()) * len(batch) if self._model.padded(partly) else 0
        half = max(1, max(padded, int(tokens.lengths[batch].sum())) // 2)
        with self._turn:
            self._room = min(self._room, max(LEAST, half))
        return self._planned(tokens, batch, output, partly, half)

    def _fitted_one(self) -> None:
        """Count a batch that fitted: what others held when the room was halved, they may have given back since."""
        with self._turn:
            self._fitting += 1
            if self._fitting >= RAISED:
                self._room, self._fitting = min(BATCH, 2 * self._room), 0

    def _way(self, tokens: Tokens, partly: bool) -> tuple[Shape, Runner]:
        """At which sizes a batch is computed, and by what.

        Where attention pads, a batch costs its sequences times its longest, and sizes of the ladder multiply that:
        130 sequences of 130 tokens, planned as 16,900, would be computed as 256 of 512, eight times as many. There the
        card has so much to do that launches hide behind it, and graphs would gain little.
        """
        if self._fitted is not None and (self._rounded or not self._model.padded(partly)):
            fitted = self._ladder.fit(tokens)
            if fitted is not None:
                return fitted, self._fitted
        return ladder.exact(tokens), self._direct

    def _launched(self, lane: Lane, rows: Rows, tokens: Tokens, output: Output, seen: Rows | None) -> Flight | None:
        """Hand a batch to the card; None when it has not enough memory, and the lane is free again."""
        shape, runner = self._way(tokens, partly=seen is not None)
        try:
            numbers = lane.numbers(shape.numbers)
            ladder.fill(array(numbers), tokens, seen, shape)
            on_stream = nullcontext() if self._stream is None else torch.cuda.stream(self._stream)
            with self._turn, torch.inference_mode(), on_stream:
                result = lane.receive(runner.run(numbers, shape, output, seen is not None))
        except BaseException as error:
            self._given_up(lane)
            if ran_out(error):
                return None
            raise
        self._fitted_one()
        return Flight(rows, tokens, lane, result)

    def _given_up(self, lane: Lane) -> None:
        """Give back the lane of a batch whose launch failed, when the card is done with it.

        Copies may be on their way from it, and no event says when they end: recording comes last. So the stream is
        waited for, in turn: while another thread captures on it, that would end its capture. The error of the launch
        is the one to tell and to act on: what waiting raises on top says less, and comes again if it lasts.
        """
        try:
            if self._stream is not None:
                with self._turn, suppress(Exception):
                    self._stream.synchronize()
        finally:
            self._lanes.give(lane)

    def _land(self, flight: Flight, tokens: Tokens, out: NDArray[np.float32], output: Output) -> None:
        """Wait for a batch and copy its result to where the caller's order puts it."""
        try:
            flight.lane.wait()
            found: NDArray[np.float32] = flight.result.numpy()
            if output == "states":
                out[tokens.places(flight.rows)] = found[: len(flight.tokens.ids)]
            else:
                out[flight.rows] = found[: len(flight.rows)]
        finally:
            self._lanes.give(flight.lane)


def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _turn(stream: torch.cuda.Stream) -> Lock:
    """The lock of a stream: torch has 32 of them a device and deals them round, so engines may share one."""
    return _turns.setdefault((stream.device, stream.cuda_stream), Lock())
