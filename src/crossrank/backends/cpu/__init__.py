"""The native engine: the forward pass in C++ over packed sequences, without padding. The fastest path on a CPU.

`native/` holds its sources; `reference` says what it computes. Without its library (an install that had no compiler)
`crossrank.backends.open` takes the reference backend, and `crossrank doctor` says so.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank import cores
from crossrank.backends import reference
from crossrank.backends.cpu import engine, library
from crossrank.backends.cpu.library import peak, tiers
from crossrank.backends.limits import Limits, check_seen, check_threads
from crossrank.backends.reference.parameters import number
from crossrank.checkpoint import Checkpoint
from crossrank.errors import CheckpointError, InputError
from crossrank.types import Backend, Pooling, Tokens

__all__ = ["Native", "maxsim", "obstacle", "peak", "tiers"]

ROTARY = ("modernbert", "gte")
# What products in a format other than float32 need.
NEEDED = {"bfloat16": "AVX512-BF16 or AMX", "int16": "the tier avx2, or AMX"}
# Rotary tables are made for every position; no model reads more today, and it bounds them at some 64 MB.
MOST_POSITIONS = 1 << 17


def obstacle(checkpoint: Checkpoint) -> str | None:
    """Why the native engine cannot compute the checkpoint, as half a sentence; None when it can."""
    reason = library.obstacle() or reference.obstacle(checkpoint)
    if reason is None and checkpoint.architecture in ROTARY:
        positions = checkpoint.config.get("max_position_embeddings", 0)
        if isinstance(positions, int) and positions > MOST_POSITIONS:
            reason = f"it makes rotary tables for at most {MOST_POSITIONS} positions, and the model has {positions}"
    return reason


def _tiers_with(tier: str | None) -> tuple[str, ...]:
    """The tiers of this machine, the best last.

    Raises:
        InputError: a named one is not among them.
    """
    found = tiers()
    if tier is not None and tier not in found:
        raise InputError(f"this machine or build has no tier {tier!r}; it has {', '.join(found)}")
    return found


def choose(tier: str | None, dtype: str, checkpoint: Checkpoint) -> tuple[str, str]:
    """The instruction set and the dtype to compute in: the best of this machine unless they are named.

    Raises:
        InputError: this machine has no such tier, or the tier no such dtype.
        CheckpointError: the model's sizes make no sense.
    """
    found = _tiers_with(tier)
    hidden, heads = (
        number(checkpoint.config, key, str(checkpoint.folder)) for key in ("hidden_size", "num_attention_heads")
    )
    paired = hidden // heads % 2 == 0  # an odd head size cannot be read in pairs
    if dtype == "auto":
        faster = [name for name in library.faster(tier or found[-1]) if paired or name != "bfloat16"]
        dtype = faster[0] if faster else "float32"
    if dtype not in library.DTYPES:
        raise InputError(f"the cpu backend computes in float32, bfloat16 or int16, not in {dtype}")
    if dtype == "bfloat16" and not paired:
        raise InputError(
            f"bfloat16 reads pairs, and {checkpoint.name} has heads of {hidden // heads}; use dtype='float32'"
        )
    able = [name for name in ([tier] if tier else found) if dtype in library.dtypes(name)]
    if not able:
        raise InputError(
            f"{dtype} needs {NEEDED[dtype]}, which {tier or 'this machine'} has not; use dtype='float32'"
            + (", or backend='torch', which computes it slowly" if dtype == "bfloat16" else "")
        )
    return able[-1], dtype


class Native:
    """The forward pass in C++. Safe to share between threads and across a fork: weights are read-only, and in memory
    once for all objects of one model, tier and dtype.

    A copy is the object itself. A pickle holds no weights: where it is read, `backends.open` gives the model that is
    open already or reads the checkpoint again, which must be where it was; and it takes the best instruction set there
    where none was asked for.

    Args:
        checkpoint: the model.
        dtype: "auto", "float32", "bfloat16" or "int16", which matrix products read; softmax and norms are float32
            always. "auto" is bfloat16 or int16 where that is faster.
        tier: an instruction set of `tiers()`; the best when absent.
        threads: cores that one call may use; all that this process may use when absent.
    """

    padded = False

    def __init__(
        self, checkpoint: Checkpoint, dtype: str = "auto", tier: str | None = None, threads: int | None = None
    ) -> None:
        reason = obstacle(checkpoint)
        if reason is not None:
            raise CheckpointError(
                f"the cpu backend cannot run {checkpoint.name!r}: {reason}. Use backend='auto', which takes another."
            )
        check_threads(threads)
        self._asked = checkpoint, dtype, tier, threads
        self.threads = int(threads or cores.available())
        self.tier, self.dtype = choose(tier, dtype, checkpoint)
        self._labels, self._limits = checkpoint.labels, Limits.of(checkpoint)
        self._library, self._engine = library.handle(), engine.opened(checkpoint, self.tier, self.dtype)

    def __reduce__(self) -> tuple[Callable[..., Backend], tuple[Checkpoint, str, str, str, int | None]]:
        from crossrank import backends  # which imports this module

        checkpoint, dtype, tier, threads = self._asked
        return backends.open, (checkpoint, f"cpu:{tier}" if tier else "cpu", "cpu", dtype, threads)

    def __copy__(self) -> Native:
        return self

    def __deepcopy__(self, memo: object) -> Native:
        return self

    @property
    def name(self) -> str:
        """Tier and dtype: what the numbers depend on. Threads change nothing but the time."""
        return f"cpu ({self.tier}, {self.dtype})"

    @property
    def weight_bytes(self) -> int:
        """Bytes of packed weights and embedding tables; all backends over the same ones share them."""
        return self._engine.bytes

    def forward(self, tokens: Tokens) -> NDArray[np.float32]:
        """Raw logits, shape (n,); a two-label head gives log-odds, logit 1 minus logit 0.

        Raises:
            CheckpointError: the model is a bi-encoder and has no head.
            InputError: an empty or too long sequence, or an id outside the vocabulary.
        """
        self._limits.check_head()
        logits = self._run(tokens, library.LOGITS, len(tokens), self._labels)
        return logits[:, 0].copy() if self._labels == 1 else logits[:, 1] - logits[:, 0]

    def pool(self, tokens: Tokens, pooling: Pooling) -> NDArray[np.float32]:
        """One vector a sequence, shape (n, hidden): the mean over its tokens or its first token; not normalized.

        Raises:
            InputError: an empty or too long sequence, an id outside the vocabulary, or another pooling.
        """
        self._limits.check_pooling(pooling)
        output = library.MEAN if pooling == "mean" else library.FIRST
        return self._run(tokens, output, len(tokens), self._engine.hidden)

    def states(self, tokens: Tokens, seen: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """The last hidden state of every token, shape (total, hidden), for late interaction.

        Args:
            tokens: the sequences.
            seen: of each sequence, attention sees so many tokens from its start, shape (n,); all when absent.

        Raises:
            InputError: an empty or too long sequence, an id outside the vocabulary, or a `seen` outside a sequence.
        """
        return self._run(tokens, library.STATES, len(tokens.ids), self._engine.hidden, seen)

    def _run(
        self, tokens: Tokens, output: int, rows: int, width: int, seen: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        tokens = self._limits.admit(tokens)
        check_seen(tokens, seen)
        result = np.empty((rows, width), dtype=np.float32)
        if not len(tokens):
            return result
        # The library follows the offsets without asking: what they reach must be there.
        if tokens.offsets[0] != 0 or not tokens.offsets[-1] == len(tokens.ids) == len(tokens.types):
            raise InputError("the offsets of tokens must begin at 0 and end with their ids and types; use Tokens.of")
        ids = np.ascontiguousarray(tokens.ids, dtype=np.int32)
        types = np.ascontiguousarray(tokens.types, dtype=np.int32)
        offsets = np.ascontiguousarray(tokens.offsets, dtype=np.int64)
        failed = self._library.crossrank_forward(
            self._engine.pointer,
            ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            types.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            _longs(offsets),
            None if seen is None else _longs(np.ascontiguousarray(seen, dtype=np.int64)),
            len(tokens),
            output,
            self.threads,
            result.ctypes.data_as(library.Floats),
        )
        if failed == library.OUTSIDE:  # a second look, by those who read: `admit` goes by config.json
            raise InputError(f"{self._limits.where} has no row for an id, a type or the length of these tokens")
        if failed:
            raise MemoryError(
                f"not enough memory to compute {len(tokens.ids)} tokens; shorten the passages or use fewer threads"
            )
        return result


def maxsim(
    query: NDArray[np.float32],
    vectors: NDArray[np.floating[Any]],
    offsets: NDArray[np.int64],
    tier: str | None = None,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Late interaction, see `crossrank.backends.maxsim`: the score of one query with each document, shape (n,).

    Args:
        query: vectors, shape (tokens, width).
        vectors: of all documents, shape (total, width). Float16 is read as it is, everything else as float32.
        offsets: document i has `vectors[offsets[i]:offsets[i + 1]]`, shape (n + 1,).
        tier: an instruction set of `tiers()`; the best when absent.
        threads: cores that the call may use; all that this process may use when absent.

    Raises:
        InputError: widths differ, the offsets leave the vectors, or there is no such tier here.
    """
    if query.ndim != 2 or vectors.ndim != 2 or query.shape[1] != vectors.shape[1]:
        raise InputError(
            f"vectors of shapes {query.shape} and {vectors.shape} have no products; give one width to both"
        )
    # Before they are compared: the differences of unsigned numbers never fall.
    ends = np.ascontiguousarray(offsets, dtype=np.int64)
    if not len(ends) or ends[0] != 0 or ends[-1] != len(vectors) or (np.diff(ends) < 0).any():
        raise InputError("the offsets must begin at 0, never fall, and end with the vectors; use TokenVectors.of")
    found = _tiers_with(tier)
    half = vectors.dtype == np.float16
    asked = np.ascontiguousarray(query, dtype=np.float32)
    read = np.ascontiguousarray(vectors, dtype=np.float16 if half else np.float32)
    scores = np.empty(len(ends) - 1, dtype=np.float32)
    failed = library.handle().crossrank_maxsim(
        library.TIERS.index(tier or found[-1]),
        asked.ctypes.data_as(library.Floats),
        *asked.shape,
        read.ctypes.data_as(ctypes.c_void_p),
        half,
        _longs(ends),
        len(scores),
        threads or cores.available(),
        scores.ctypes.data_as(library.Floats),
    )
    if failed:
        raise MemoryError(f"not enough memory to compare {len(scores)} documents")
    return scores


def _longs(array: NDArray[np.int64]) -> object:
    """A pointer to the numbers of a contiguous array, which it keeps alive."""
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_int64))
