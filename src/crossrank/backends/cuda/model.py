"""A model on a card: its weights once a process, and the numbers a caller may ask for. Needs the extra `gpu`."""

from __future__ import annotations

from typing import Any, Literal

from crossrank import extras
from crossrank.backends import reference, sharing
from crossrank.backends.cuda import attention, fusing
from crossrank.backends.cuda.batch import Batch
from crossrank.backends.cuda.bert import Bert
from crossrank.backends.cuda.layers import Place, mean
from crossrank.backends.cuda.modernbert import ModernBert
from crossrank.backends.reference.bert import Bert as ReferenceBert
from crossrank.checkpoint import Checkpoint

extras.require("torch", extra="gpu")
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

Output = Literal["scores", "mean", "first", "states"]

# Beside that of `backends.open`: an engine over several cards has a model on each, which others may use alone.
_shared: sharing.Table[Model] = sharing.Table()


class Model:
    """Weights on one device, and the forward pass. Read-only, so that any number of engines may share it."""

    def __init__(self, checkpoint: Checkpoint, place: Place) -> None:
        source = reference.model_of(checkpoint)
        self.hidden, self.labels = source.hidden, checkpoint.labels
        self.attention = attention.best(place.device, place.dtype, source.hidden // source.heads)
        self.fusing = fusing.best(place.device, place.dtype)
        parts: Any = (source, checkpoint.labels, place, self.attention, self.fusing)
        self._network = Bert(*parts) if isinstance(source, ReferenceBert) else ModernBert(*parts)
        if place.device.type == "cuda":
            # Copies run on this thread's stream; engines compute on others. To wait for the whole card would fail while
            # another engine captures there.
            torch.cuda.current_stream(place.device).synchronize()

    def padded(self, partly: bool) -> bool:
        """Does a batch cost its longest sequence times their number, where attention sees `partly` of a sequence?"""
        return self.attention.padded or (partly and self._network.local)

    def width(self, output: Output) -> int:
        """Numbers in a row of the output."""
        return 1 if output == "scores" else self.hidden

    def compute(self, batch: Batch, output: Output) -> Tensor:
        """What was asked for in float32: shape (sequences, width), or (tokens, width) for states. Never waits.

        Scores are raw logits; of a two-label head log-odds, logit 1 minus logit 0.
        """
        if output == "scores":
            logits = self._network.logits(batch)
            return logits if self.labels == 1 else logits[:, 1:] - logits[:, :1]
        if output == "first":
            return self._network.first_states(batch).float()
        states = self._network.states(batch)
        return mean(states, batch) if output == "mean" else states.float()


def shared(checkpoint: Checkpoint, place: Place) -> Model:
    """The model of these files on this device, loaded when no engine of this process holds it already."""
    found = sharing.identity(checkpoint)
    return _shared.get((found, place), lambda: Model(checkpoint, place)) if found else Model(checkpoint, place)
