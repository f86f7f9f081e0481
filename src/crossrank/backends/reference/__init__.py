"""NumPy, float32: the readable specification of every supported architecture. It runs everywhere.

No padding anywhere: linear layers act on the packed (total, hidden) matrix, and attention on groups of equal length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.backends.limits import Limits, check_seen
from crossrank.backends.reference import ops
from crossrank.backends.reference.attention import Group, groups
from crossrank.backends.reference.bert import Bert
from crossrank.backends.reference.gte import Gte
from crossrank.backends.reference.modernbert import ModernBert
from crossrank.backends.reference.parameters import Parameters, sensible
from crossrank.checkpoint import Checkpoint
from crossrank.checkpoint.record import prefix_of
from crossrank.errors import CheckpointError
from crossrank.types import Backend, Pooling, Tokens

MODELS: Mapping[str, type[Bert] | type[ModernBert]] = {
    "bert": Bert,
    "electra": Bert,
    "roberta": Bert,
    "xlm-roberta": Bert,
    "modernbert": ModernBert,
    "gte": Gte,
}
UNIT = 1024  # tokens computed together: enough for an efficient matrix product, few enough to stay in cache


def obstacle(checkpoint: Checkpoint) -> str | None:
    """Why this backend cannot compute the checkpoint, as half a sentence; None when it can."""
    with sensible(str(checkpoint.folder)):
        return _obstacle(checkpoint.config, checkpoint.architecture)


def _obstacle(config: Mapping[str, Any], architecture: str) -> str | None:
    model = MODELS.get(architecture)
    if model is None:
        return f"it knows {', '.join(MODELS)}, not {architecture}"
    named = ("hidden_activation", "classifier_activation") if model is ModernBert else ("hidden_act",)
    for key in named:
        if config.get(key, "gelu") not in ops.ACTIVATIONS:
            return f"it has no activation {config[key]!r} ({key})"
    if config.get("is_decoder") or config.get("add_cross_attention"):
        return "it computes encoders, and config.json says decoder"
    return model.obstacle(config)


def _relative(config: Mapping[str, Any]) -> bool:
    return str(config.get("position_embedding_type")).startswith("relative_key")


def model_of(checkpoint: Checkpoint) -> Bert | ModernBert:
    """The checkpoint's weights, each checked against its config; the native engine packs the same ones.

    Raises:
        CheckpointError: a weight is missing or has another shape than the config says.
    """
    where = str(checkpoint.folder)
    tensors = checkpoint.tensors()
    parameters = Parameters(tensors, prefix_of(tensors), where)
    model = MODELS[checkpoint.architecture]
    with sensible(where):
        return model(parameters, checkpoint.config, checkpoint.architecture, checkpoint.labels, where)


class Reference:
    """The forward pass in NumPy. Safe to share between threads: weights are read-only, buffers belong to a call."""

    name = "reference (numpy, float32)"
    padded = False

    def __init__(self, checkpoint: Checkpoint) -> None:
        reason = obstacle(checkpoint)
        if reason is not None:
            older = " 'transformers<5'" if _relative(checkpoint.config) else ""  # later ones leave them out
            raise CheckpointError(
                f"the reference backend cannot run {checkpoint.name!r}: {reason}. Use backend='torch' "
                f"(pip install 'crossrank[torch]'{older})."
            )
        self._checkpoint = checkpoint
        self._labels = checkpoint.labels
        self._model = model_of(checkpoint)
        self._limits = Limits.of(checkpoint)

    def __reduce__(self) -> tuple[Callable[..., Backend], tuple[Checkpoint, str]]:
        # A pickle holds no weights, as that of the native engine.
        from crossrank import backends  # which imports this module

        return backends.open, (self._checkpoint, "reference")

    def forward(self, tokens: Tokens) -> NDArray[np.float32]:
        """Raw logits, shape (n,); a two-label head gives log-odds, logit 1 minus logit 0.

        Raises:
            CheckpointError: the model is a bi-encoder and has no head.
            InputError: an empty or too long sequence, or an id outside the vocabulary.
        """
        self._limits.check_head()
        tokens = self._limits.admit(tokens)
        out = np.empty(len(tokens), dtype=np.float32)
        scratch = ops.Scratch()
        with np.errstate(over="ignore", invalid="ignore"):  # exp saturates by design; NaN is the caller's to report
            for rows, unit, parts in self._units(tokens):
                logits = self._model.logits(unit, parts, scratch)
                out[rows] = logits[:, 0] if self._labels == 1 else logits[:, 1] - logits[:, 0]
        return out

    def pool(self, tokens: Tokens, pooling: Pooling) -> NDArray[np.float32]:
        """One vector a sequence, shape (n, hidden): the mean over its tokens or its first token; not normalized.

        Raises:
            InputError: an empty or too long sequence, an id outside the vocabulary, or another pooling.
        """
        self._limits.check_pooling(pooling)
        tokens = self._limits.admit(tokens)
        out = np.empty((len(tokens), self._model.hidden), dtype=np.float32)
        scratch = ops.Scratch()
        with np.errstate(over="ignore", invalid="ignore"):
            for rows, unit, parts in self._units(tokens):
                if pooling == "cls":
                    out[rows] = self._model.first_states(unit, parts, scratch)
                else:
                    out[rows] = ops.mean_rows(self._model.states(unit, parts, scratch), unit.offsets)
        return out

    def states(self, tokens: Tokens, seen: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """The last hidden state of every token, shape (total, hidden), for late interaction.

        Args:
            tokens: the sequences.
            seen: of each sequence, attention sees so many tokens from its start, shape (n,); all when absent.

        Raises:
            InputError: an empty or too long sequence, an id outside the vocabulary, or a `seen` outside a sequence.
        """
        tokens = self._limits.admit(tokens)
        check_seen(tokens, seen)
        out = np.empty((len(tokens.ids), self._model.hidden), dtype=np.float32)
        scratch = ops.Scratch()
        with np.errstate(over="ignore", invalid="ignore"):
            for rows, unit, parts in self._units(tokens, seen):
                out[tokens.places(rows)] = self._model.states(unit, parts, scratch)
        return out

    def _units(
        self, tokens: Tokens, seen: NDArray[np.int64] | None = None
    ) -> list[tuple[NDArray[np.int64], Tokens, list[Group]]]:
        """Sequences sorted by length, so that equal ones lie together, in units of about UNIT tokens."""
        lengths = tokens.lengths
        seen = lengths if seen is None else seen
        order = np.lexsort((seen, lengths))
        found = []
        start = total = 0
        for end, row in enumerate(order):
            total += int(lengths[row])
            if total >= UNIT or end + 1 == len(order):
                rows = order[start : end + 1]
                unit = tokens.take(rows)
                found.append((rows, unit, groups(unit.lengths, self._model.heads, seen[rows])))
                start, total = end + 1, 0
        return found
