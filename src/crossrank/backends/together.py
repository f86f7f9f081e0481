"""Which sequences a model may read at once: some compute others' scores where a sequence stands beside a longer one.

FNet mixes all places of a row, ConvBERT convolves over its end, Nystromformer averages stretches of it: padding behind
a text is part of what they read. Whether a model does so is not told by its config, so it is tried.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from crossrank.checkpoint import Checkpoint
from crossrank.types import Tokens

# What may stand in one pass: any sequences, those of one length, or only one.
Together = Literal["any", "equal", "one"]
# These read nothing behind the end of a text, as tests of their scores in lists show.
SOUND = frozenset({"bert", "distilbert", "electra", "gpt2", "gte", "modernbert", "qwen3", "roberta", "xlm-roberta"})
# How far off rounding may be, as a share: sums differ by what stands beside them.
ROUNDING = {"float32": 1e-4, "float16": 5e-3, "bfloat16": 3e-2}
SHORT, LONG, WORDS = 7, 40, 4096


def of(
    model: Any,
    checkpoint: Checkpoint,
    padding: int,
    compute: Callable[[Tokens], NDArray[np.float32]],
    dtype: str,
) -> Together:
    """What a model of transformers may read at once; it is tried (three short passes) where that is not known.

    Args:
        model: as transformers has it.
        checkpoint: what it was made of.
        padding: the token that no probe has.
        compute: see `tried`, as for the next.
        dtype: the number format.
    """
    if checkpoint.architecture in SOUND:
        return "any"
    rows = int(model.get_input_embeddings().num_embeddings)
    ends = getattr(model.config.get_text_config(), "eos_token_id", None)
    # Classifiers of T5 and BART look for the token that ends a text.
    end = [one for one in (ends if isinstance(ends, list) else [ends]) if isinstance(one, int) and 0 <= one < rows]
    words = [word for word in range(min(rows, WORDS)) if word not in (*end, padding)]
    try:
        return tried(compute, words, [one for one in end[:1] if one != padding], checkpoint.max_length, dtype)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return "equal"  # what fails here fails at the first text, where somebody asks for its score


def tried(
    compute: Callable[[Tokens], NDArray[np.float32]], words: Sequence[int], end: Sequence[int], most: int, dtype: str
) -> Together:
    """What a model may read at once, found out by what it makes of one sequence alone and beside others.

    Args:
        compute: what the model makes of the first of some sequences, any shape.
        words: tokens that may stand in a sequence.
        end: tokens that must stand at its end, as some classifiers look for them.
        most: tokens in one sequence.
        dtype: the number format, a key of ROUNDING.

    >>> def mixed(tokens):  # the mean over a padded row
    ...     row = tokens.row(0)
    ...     return np.array([row.sum() / tokens.lengths.max()], dtype=np.float32)
    >>> tried(mixed, range(5, 90), (), 64, "float32")
    'equal'
    """
    long = min(LONG, most)
    short = min(SHORT, long - 1)
    if short <= len(end) or not words:
        return "any"
    dice = np.random.default_rng(0)
    one, other, longer = ([*dice.choice(words, size - len(end)).tolist(), *end] for size in (short, short, long))
    alone = compute(Tokens.of([one]))

    def same(beside: list[int]) -> bool:
        off = np.linalg.norm(compute(Tokens.of([one, beside])) - alone)
        return not off > ROUNDING[dtype] * np.linalg.norm(alone)  # also where weights give NaN, which is told later

    if same(longer):
        return "any"
    return "equal" if same(other) else "one"


def parts(lengths: NDArray[np.int64], together: Together) -> list[NDArray[np.int64]]:
    """Sequences by the pass that reads them.

    >>> [part.tolist() for part in parts(np.array([3, 9, 3]), "equal")]
    [[0, 2], [1]]
    """
    rows = np.arange(len(lengths), dtype=np.int64)
    if together == "any":
        return [rows]
    if together == "one":
        return np.split(rows, rows[1:])
    return [np.flatnonzero(lengths == length) for length in np.unique(lengths)]
