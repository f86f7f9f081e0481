"""The checkpoint: everything a model folder states, with weights and tokenizer made on request."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from crossrank.checkpoint import names, vocabulary, weights
from crossrank.checkpoint.generative import Answer, PairPrompt
from crossrank.checkpoint.late import Late
from crossrank.checkpoint.settings import Activation
from crossrank.errors import CheckpointError, InputError
from crossrank.types import Pooling

Kind = Literal["cross-encoder", "bi-encoder", "late-interaction"]

WORD_EMBEDDINGS = "embeddings.word_embeddings.weight"
# How transformers' names of classes end that go on with a text.
GENERATORS = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """One model as its folder describes it. Nothing large is held; `tensors` and `tokenizer` read on each call.

    Attributes:
        name: what the caller asked for.
        folder: where the files are.
        architecture: the `model_type` of config.json: `bert`, `electra`, `roberta`, `xlm-roberta`, `modernbert`, ...;
            `gte` also where it is called `new`.
        config: config.json; for a head in module folders, and for GTE, with what transformers would call its settings.
        kind: has it a classification head (cross-encoder), a map of token vectors (late-interaction), or neither
            (bi-encoder)?
        labels: 1 or 2 for a cross-encoder, 0 otherwise.
        activation: what the model's authors apply to its logits. Scores stay raw; this only describes their space.
        max_length: tokens in one sequence, special tokens included.
        pooling: how a bi-encoder turns token vectors into one; None when its folder does not say.
        normalize: does the bi-encoder scale its vectors to length 1?
        prompt: what stands before every document that the bi-encoder reads; "" for nothing.
        query_prompt: what stands before every query that it reads.
        pair: what a language model is asked about a query and a document; None for models that read the texts alone.
        answer: which of its tokens say relevant and not; None where a head gives the score.
        instruction: what the caller has it told of its task, in `pair`, in place of the folder's own words; None for
            these.
        calibration: slope and intercept that turn a raw score into a probability, from crossrank.json, or None.
        threshold: the probability under which the best passage of a list is no answer, from crossrank.json, or None.
        mix: the share of its score in the order of a search that suits it, from crossrank.json, or None.
        weights: the weight files, in name order.
        vocabulary: the folder that holds the tokenizer.
        token_types: does the model tell the query side from the passage side by token types?
        shared: safetensors files with what the model's own files leave out and other models have as well: word
            embeddings, whole layers. The first that has a tensor gives it.
        modules: weights of a head in sentence-transformers module folders: name, then file and name there.
        late: how a late-interaction model reads texts; None for other kinds.
    """

    name: str
    folder: Path
    architecture: str
    config: Mapping[str, Any]
    kind: Kind
    labels: int
    activation: Activation
    max_length: int
    pooling: Pooling | None
    normalize: bool
    calibration: Mapping[str, float] | None
    weights: tuple[Path, ...]
    vocabulary: Path
    token_types: bool = True
    shared: tuple[Path, ...] = ()
    modules: Mapping[str, tuple[Path, str]] = field(default_factory=dict)
    late: Late | None = None
    threshold: float | None = None
    mix: float | None = None
    prompt: str = ""
    query_prompt: str = ""
    pair: PairPrompt | None = None
    answer: Answer | None = None
    instruction: str | None = None

    @property
    def fingerprint(self) -> str:
        """SHA-256 over settings, tokenizer and weights: equal for equal files, wherever they lie. 64 hex digits."""
        whole = hashlib.sha256()
        traits = vocabulary.traits(self.folder, self.vocabulary, self.architecture)
        stated = [self.config, self.max_length, self.pooling, self.normalize, self.token_types, traits]
        if self.late is not None:
            stated.append(self.late.written())
        if self.prompt:
            stated.append({"prompt": self.prompt})
        if self.pair is not None or self.answer is not None:
            stated.append([one and asdict(one) for one in (self.pair, self.answer)])
        whole.update(json.dumps(stated, sort_keys=True, default=str).encode())
        files = [*vocabulary.files(self.vocabulary), *self.weights, *self.shared]
        files += sorted({path for path, _ in self.modules.values()})
        for path in files:
            try:
                whole.update(_digest(path, facts(path)))
            except OSError as error:
                raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
        return whole.hexdigest()

    @property
    def generates(self) -> bool:
        """Whether it is a language model by the class that config.json names, whatever its folder makes of it."""
        classes = self.config.get("architectures")
        return isinstance(classes, list) and any(str(name).endswith(GENERATORS) for name in classes)

    @property
    def width(self) -> int:
        """Numbers in a hidden state.

        Raises:
            CheckpointError: the config does not say.
        """
        # BERT's name of it, DistilBERT's, T5's.
        stated = [self.config[name] for name in ("hidden_size", "dim", "d_model") if name in self.config]
        if not stated or not isinstance(stated[0], int):
            raise CheckpointError(f"{self.folder / 'config.json'} states no hidden_size. Copy the model again.")
        return stated[0]

    @property
    def mask(self) -> str:
        """The token that stands for a masked word."""
        return vocabulary.mask(self.vocabulary)

    def calibrated_by(self, slope: float, intercept: float, threshold: float | None = None) -> Checkpoint:
        """The same model with other probabilities and, where one is given, a threshold of them; the one that it had
        was chosen for others.

        >>> import crossrank
        >>> crossrank.load().checkpoint.calibrated_by(2, -1).calibration
        {'slope': 2.0, 'intercept': -1.0}
        """
        # Numbers of NumPy cannot be written as JSON.
        return replace(self, calibration={"slope": float(slope), "intercept": float(intercept)}, threshold=threshold)

    def tokenizer(self) -> Tokenizer:
        """A fresh tokenizer without truncation and padding: the caller may change it.

        Raises:
            CheckpointError: its files are missing or damaged, or it reads words that the model has no row for.
        """
        made = vocabulary.tokenizer(self.vocabulary, self.architecture)
        rows = self.config.get("vocab_size")
        # Words added beyond the table; special ones are not read out of a text, so that no text meets them.
        beyond = [one.content for id_, one in made.get_added_tokens_decoder().items()
                  if isinstance(rows, int) and id_ >= rows and not one.special]  # fmt: skip
        if beyond:
            raise CheckpointError(
                f"{self.vocabulary}: the tokenizer has {beyond[0]!r}, for which the model's {rows} words hold no row: "
                "a text that spells it could not be read. Save the model after resize_token_embeddings, or take it "
                "out of the tokenizer's added tokens."
            )
        return made

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """All floating-point weights as float32, under the files' names, or transformers' where these are foreign.

        Raises:
            CheckpointError: a file is missing, damaged, or holds less than it claims.
        """
        found: dict[str, NDArray[np.float32]] = {}
        for path in self.weights:
            if path.suffix == ".safetensors":
                found.update(weights.load(path))
            else:
                from crossrank.checkpoint import pickled  # needs torch, which the base install leaves out

                found.update(pickled.load(path))
        for path in self.shared:
            _fill(found, path)
        for name, (path, theirs) in self.modules.items():
            found[name] = dict(weights.load(path))[theirs]
        return names.renamed(self.architecture, found, str(self.folder))


def check_read(value: Any, load: str) -> None:
    """Refuse what is no checkpoint, such as the name of a model; `load` is the function that takes one.

    Raises:
        InputError: it is none.
    """
    if not isinstance(value, Checkpoint):
        named = repr(str(value)) if isinstance(value, (str, Path)) else "name"
        raise InputError(
            f"a model is made of a checkpoint that was read, not of {type(value).__name__}; "
            f"use crossrank.{load}({named})"
        )


def prefix_of(tensors: Mapping[str, Any]) -> str:
    """What the encoder's tensor names begin with: `bert.`, `roberta.`, or nothing for a bare encoder."""
    for name in tensors:
        head, found, _ = name.partition("embeddings.")
        if found and (not head or head.endswith(".")):
            return head
    return ""


def _fill(found: dict[str, NDArray[np.float32]], path: Path) -> None:
    """Add the tensors of a shared file that the model has none of its own for; the others are not even read."""
    held = weights.header(path)
    ours, theirs = prefix_of(found), prefix_of(held)
    name_here = {name: ours + name.removeprefix(theirs) for name in held}
    wanted = {name for name, here in name_here.items() if here not in found}
    found.update({name_here[name]: tensor for name, tensor in weights.load(path, wanted)})


def facts(path: Path) -> tuple[int, int, int, int, int]:
    """Device, number, size and times of a file: others as soon as another file lies there, or it has been written.

    Raises:
        OSError: there is none.
    """
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@lru_cache(maxsize=256)
def _digest(path: Path, key: tuple[int, int, int, int, int]) -> bytes:
    # The facts are only a key of the cache: a changed file is read again.
    whole = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            whole.update(block)
    return whole.digest()
