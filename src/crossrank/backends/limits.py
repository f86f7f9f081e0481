"""What a model can be asked: the check that every backend makes before it computes."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossrank.asking import check_whole
from crossrank.checkpoint import Checkpoint
from crossrank.checkpoint.settings import TYPES, positions, whole
from crossrank.errors import CheckpointError, InputError
from crossrank.types import Pooling, Tokens


@dataclass(frozen=True, slots=True)
class Limits:
    """The sizes of a model's tables; None where the model sets no limit.

    Attributes:
        where: the model's folder, for messages.
        head: has it a classification head?
        vocabulary: rows of the word table.
        types: rows of the token type table; 0 for a model that does not read token types.
        positions: the longest sequence.
    """

    where: str
    head: bool
    vocabulary: int | None
    types: int | None
    positions: int | None

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Limits:
        """The limits that a checkpoint's config states."""
        where, config = str(checkpoint.folder), checkpoint.config
        return cls(
            where=where,
            head=checkpoint.kind == "cross-encoder",
            vocabulary=whole(config, "vocab_size", where),
            types=whole(config, "type_vocab_size", where, TYPES) if checkpoint.token_types else 0,
            positions=positions(config, checkpoint.architecture, where),
        )

    def check_head(self) -> None:
        """Refuse to score without a classification head.

        Raises:
            CheckpointError: the model is a bi-encoder.
        """
        if not self.head:
            raise CheckpointError(
                f"{self.where} is a bi-encoder: it has no classification head, and one newly initialised would score "
                "at random. Load a cross-encoder."
            )

    @staticmethod
    def check_pooling(pooling: Pooling) -> None:
        """Refuse a pooling that backends do not compute.

        Raises:
            InputError: it is neither mean nor cls.
        """
        if pooling not in ("mean", "cls"):
            raise InputError(f"pooling must be 'mean' or 'cls', not {pooling!r}")

    def admit(self, tokens: Tokens) -> Tokens:
        """The tokens, with types of 0 for a model that reads none, or an error for what the model has no row for.

        Raises:
            InputError: an empty or too long sequence, or an id outside the vocabulary.
        """
        if not len(tokens):
            return tokens
        lengths = tokens.lengths
        if lengths.min() < 1:
            raise InputError("a sequence has no tokens; give at least its special tokens")
        if self.positions is not None and lengths.max() > self.positions:
            raise InputError(f"a sequence has {lengths.max()} tokens but the model reads at most {self.positions}")
        if self.types == 0:
            tokens = Tokens(tokens.ids, np.zeros_like(tokens.types), tokens.offsets)
        for name, values, size in (("ids", tokens.ids, self.vocabulary), ("types", tokens.types, self.types)):
            if size and (values.min() < 0 or values.max() >= size):
                raise InputError(
                    f"token {name} must lie in 0..{size - 1}, not {values.min()}..{values.max()}: "
                    "the tokenizer is not this model's"
                )
        return tokens


def check_seen(tokens: Tokens, seen: NDArray[np.int64] | None) -> None:
    """Refuse counts of tokens that attention sees which are not of these sequences.

    Raises:
        InputError: not one count a sequence, or one that is under 1 or over its length.
    """
    if seen is not None and (seen.shape != (len(tokens),) or (seen < 1).any() or (seen > tokens.lengths).any()):
        raise InputError("seen must say of each sequence how many of its tokens attention sees, from 1 to its length")


def check_threads(threads: int | None) -> None:
    """Refuse a number of threads that no call may use; None, which is all, may be.

    Raises:
        InputError: it is no whole number from 1 to 1024.
    """
    if threads is None:
        return
    check_whole("threads", threads)
    if not 1 <= threads <= 1024:
        raise InputError(f"threads must be from 1 to 1024, not {threads}")


def check_process(loaded: int) -> None:
    """Refuse a model on a GPU that another process has loaded, whose id is `loaded`.

    Raises:
        InputError: this one was forked from it.
    """
    if os.getpid() != loaded:
        raise InputError(
            "this model was loaded on a GPU before the process forked, and CUDA does not survive a fork. Load it in "
            "the child, or start processes with multiprocessing's 'spawn'."
        )
