"""Which scorer is meant: one by its name, or one that is given; what it is called, and what counts tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from crossrank import backends
from crossrank.addresses import is_address
from crossrank.asking import OF_LOAD, without
from crossrank.calibration import Platt
from crossrank.credentials import without_secrets
from crossrank.crossencoder import CrossEncoder, check_scores
from crossrank.embedder import TextEmbedder
from crossrank.encoder import Windows
from crossrank.errors import InputError
from crossrank.lateinteraction import LateInteraction
from crossrank.models import named
from crossrank.types import Scorer
from crossrank.windows import Fold

# What reads token ids, and reports what it cut.
PairScorer = CrossEncoder | LateInteraction


def name_of(scorer: Scorer) -> str:
    """What people and traces call a scorer: its checkpoint's name, the `model` that it asks elsewhere, or its class.

    >>> name_of(load_scorer("late"))
    'late'
    """
    if isinstance(scorer, PairScorer):
        return scorer.checkpoint.name
    model = getattr(scorer, "model", None)
    return model if isinstance(model, str) and model else type(scorer).__name__


def share_of(scorer: Scorer, mix: float | None, usual: float) -> float:
    """The share of a scorer's score in the order of a search: the one that is asked for, its own, or the usual one.

    >>> share_of(load_scorer("late"), None, 0.4), share_of(load_scorer("late"), 1.0, 0.4)
    (0.4, 1.0)
    """
    own = getattr(scorer, "mix", None)  # also of `CachedScorer`
    return mix if mix is not None else own if isinstance(own, float) else usual


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


@without(OF_LOAD)
def load(
    name: str | Path | None = None,
    *,
    backend: str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    threads: int | None = None,
    max_length: int | None = None,
    window: int = 400,
    overlap: int = 100,
    fold: Fold = "max",
    max_windows: int = 64,
    calibration: Platt | Mapping[str, float] | None = None,
    instruction: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
) -> CrossEncoder:
    """Load a cross-encoder.

    Args:
        name: a name of `crossrank models`, a folder, or a hub name; "small", which is in the wheel, when absent.
        backend: "auto", "cpu", "cuda", "reference" or "torch"; see `crossrank.backends.open`, also for the next two.
        device: "auto", "cpu", "cuda", or cards: "cuda:1", and for the cuda backend "cuda:0,1" or "cuda:all".
        dtype: "auto", "float32", "bfloat16", "float16" or "int16".
        threads: cores that one call of the native engine may use, tokenization included; all when absent.
        max_length: tokens in one sequence; the model's own when absent. Fewer bound what a pair takes at once, and are
            no faster: a passage that no longer fits is read in more windows, with its query in each. To read less of
            passages, lower `max_windows`, too.
        window: passage tokens in one window, for passages that do not fit beside their query; fewer where the sequence
            has no room for so many.
        overlap: tokens that neighbouring windows share; fewer where windows are smaller than `window`.
        fold: how the scores of windows become one: "max", "mean" or "first", which reads the first window alone.
        max_windows: windows read of one passage, unless `fold` is "first"; the rest is reported as unread.
        calibration: what `probability` rests on in place of the model's own, such as `crossrank.Platt.fit(scores,
            relevant)` gives, or the same as {"slope": 2.0, "intercept": -1.0}. It goes with the model's threshold,
            which was chosen for other probabilities; `crossrank.checkpoint.export(scorer.checkpoint, folder)` keeps it
            and the instruction.
        instruction: what a language model is told of its task, in place of its prompt's own words, such as "Find the
            clause that decides the case". Only models with a prompt take one.
        revision: branch, tag or commit of a hub model, which others do not have; the newest when absent.
        token: of the hub, for models that are not public; the one that is stored on this machine when absent. A model
            that is here needs neither it nor the next, and is the same with them.
        cache_dir: the hub's local cache; where HF_HOME says when absent.

    Raises:
        CheckpointError: the model is missing, damaged, or no cross-encoder.
        InputError: a revision or an instruction of a model that has none, a device or dtype that the backend lacks, or
            an option out of its range.
        MissingExtraError: the model needs the torch backend, which is not installed.

    >>> import crossrank
    >>> crossrank.load().rank("who wrote Faust?", ["Goethe wrote Faust.", "Tea is hot."]).positions
    (0, 1)
    """
    read = named.read(
        name, default="small", instruction=instruction, revision=revision, token=token, cache_dir=cache_dir
    )
    if calibration is not None:
        read = read.calibrated_by(**asdict(Platt.of(calibration)))
    check_scores(read)
    windows = Windows(window, overlap, fold, max_windows)
    return CrossEncoder(read, backends.open(read, backend, device, dtype, threads), windows, max_length)


def load_scorer(
    name: str | Path | None = None,
    *,
    backend: str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    threads: int | None = None,
    instruction: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
) -> PairScorer:
    """Load the cross-encoder or the late-interaction model of this name, whichever it is: what a stage scores with.

    Args and errors are those of `load` and `load_late`; "small" when `name` is absent.

    >>> load_scorer().score_space
    'logit'
    """
    read = named.read(
        name, default="small", instruction=instruction, revision=revision, token=token, cache_dir=cache_dir
    )
    if read.late is None:
        check_scores(read)
    opened = backends.open(read, backend, device, dtype, threads)
    return CrossEncoder(read, opened) if read.late is None else LateInteraction(read, opened)


def scorer_of(model: str | Path | Scorer | None, **how: Any) -> Scorer:
    """What a stage scores with: the model of a name, loaded by `load_scorer` with `how`, or a scorer as it is.

    Raises:
        CheckpointError: the model cannot be loaded.
        InputError: neither a name nor a scorer, or an address, whose key no name holds.
    """
    if is_address(model):
        raise InputError(
            f"{without_secrets(model)!r} is an address: give crossrank.remotereranker.RemoteReranker(url, model, key), "
            "or a crossrank.llm.LanguageModel; on the command line they are --rerank-api and --llm"
        )
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
