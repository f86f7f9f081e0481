"""Which scorer is meant: one by its name, or one that is given; what it is called, and what counts tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from crossrank import backends
from crossrank.crossencoder import CrossEncoder
from crossrank.embedder import TextEmbedder
from crossrank.errors import InputError
from crossrank.lateinteraction import LateInteraction
from crossrank.models import named
from crossrank.types import Scorer

# What reads token ids, and reports what it cut.
PairScorer = CrossEncoder | LateInteraction


def name_of(scorer: Scorer) -> str:
    """What people and traces call a scorer: its checkpoint's name, or its class where it has none.

    >>> name_of(load_scorer("late"))
    'late'
    """
    return scorer.checkpoint.name if isinstance(scorer, PairScorer) else type(scorer).__name__


def counter_of(scorers: Sequence[Scorer], retrievers: Iterable[object] = ()) -> tuple[Callable[[str], int], str]:
    """What counts the tokens of a text, the tokenizer of the last scorer that has one, and whose it is.

    Where none has, as when the model could not be loaded, it is that of a retriever's embedder.

    Raises:
        InputError: none of them has a tokenizer.

    >>> count, whose = counter_of([load_scorer("late")])
    >>> count("Tea is hot."), whose
    (4, 'the tokenizer of late')
    """
    readers = [*(getattr(retriever, "embedder", None) for retriever in retrievers), *scorers]
    found = next((one for one in reversed(readers) if isinstance(one, (PairScorer, TextEmbedder))), None)
    if found is None:
        raise InputError("nothing in this pipeline has a tokenizer: pass count=, a function from text to tokens")
    return found.count, f"the tokenizer of {found.checkpoint.name}"


def load_scorer(
    name: str | Path | None = None,
    *,
    backend: str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    threads: int | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
) -> PairScorer:
    """Load the cross-encoder or the late-interaction model of this name, whichever it is: what a stage scores with.

    Args and errors are those of `load` and `load_late`; "small" when `name` is absent.

    >>> load_scorer().score_space
    'logit'
    """
    read = named.read(name, default="small", revision=revision, token=token, cache_dir=cache_dir)
    opened = backends.open(read, backend, device, dtype, threads)
    return CrossEncoder(read, opened) if read.late is None else LateInteraction(read, opened)


def scorer_of(model: str | Path | Scorer | None, **how: Any) -> Scorer:
    """What a stage scores with: the model of a name, loaded by `load_scorer` with `how`, or a scorer as it is.

    Raises:
        CheckpointError: the model cannot be loaded.
        InputError: neither a name nor a scorer.
    """
    if model is None or isinstance(model, (str, Path)):
        return load_scorer(model, **how)
    return check_scorer(model)


def check_scorer(model: Scorer) -> Scorer:
    """What is given as a scorer, when it is one.

    Raises:
        InputError: it is none.
    """
    if not callable(getattr(model, "score", None)):
        raise InputError(f"model must be a name, a folder or an object with score(pairs), not {type(model).__name__}")
    return model
