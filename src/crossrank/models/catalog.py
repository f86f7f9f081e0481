"""The models crossrank knows by name: the ones in the wheel, and public ones it has been tried with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from crossrank.errors import InputError

_HERE = Path(__file__).parent / "weights"


@dataclass(frozen=True, slots=True)
class Entry:
    """One model.

    Attributes:
        name: what `crossrank.load` takes.
        kind: "cross-encoder" scores pairs, "bi-encoder" makes vectors.
        source: "wheel", or the hub name.
        licence: as its card states it.
        parameters: millions.
        activation: what its authors apply to logits; crossrank returns logits.
        note: what it is good for.
    """

    name: str
    kind: Literal["cross-encoder", "bi-encoder"]
    source: str
    licence: str
    parameters: float
    activation: str
    note: str


@dataclass(frozen=True, slots=True)
class Located:
    """Where a model's files are, and what to call it."""

    name: str
    source: str | Path
    shared_embeddings: Path | None = None
    shared_tokenizer: Path | None = None


def _hub(name: str, licence: str, parameters: float, activation: str, note: str) -> Entry:
    return Entry(name, "cross-encoder", name, licence, parameters, activation, note)


CATALOG: tuple[Entry, ...] = (
    Entry("small", "cross-encoder", "wheel", "Apache-2.0", 22.7, "calibrated", "the default; English"),
    Entry("embed", "bi-encoder", "wheel", "Apache-2.0", 22.7, "none", "the first stage of search; English"),
    _hub("cross-encoder/ms-marco-TinyBERT-L-2-v2", "Apache-2.0", 4.4, "identity", "low latency, first of a cascade"),
    _hub("cross-encoder/ms-marco-MiniLM-L-2-v2", "Apache-2.0", 15.6, "identity", "low latency"),
    _hub("cross-encoder/ms-marco-MiniLM-L-4-v2", "Apache-2.0", 19.2, "identity", "between L-2 and L-6"),
    _hub("cross-encoder/ms-marco-MiniLM-L-6-v2", "Apache-2.0", 22.7, "identity", "what most installations run"),
    _hub("cross-encoder/ms-marco-MiniLM-L-12-v2", "Apache-2.0", 33.4, "identity", "twice L-6's cost, hardly better"),
    _hub("cross-encoder/ms-marco-electra-base", "Apache-2.0", 109.5, "identity", "slower than MiniLM-L-6, not better"),
    _hub("cross-encoder/qnli-distilroberta-base", "Apache-2.0", 82.1, "sigmoid", "does the passage answer; QNLI"),
    _hub("cross-encoder/ettin-reranker-17m-v1", "Apache-2.0", 17.0, "identity", "small ModernBERT"),
    _hub("BAAI/bge-reranker-base", "MIT", 278.0, "sigmoid", "multilingual (zh, en), XLM-R"),
    _hub("Alibaba-NLP/gte-reranker-modernbert-base", "Apache-2.0", 149.6, "identity", "long passages, ModernBERT"),
)

# Short names of the write-up and of older cards.
ALIASES = MappingProxyType(
    {
        "cross-encoder/ms-marco-ELECTRA-Base": "cross-encoder/ms-marco-electra-base",
        "ms-marco-MiniLM-L-6-v2": "cross-encoder/ms-marco-MiniLM-L-6-v2",
        "ms-marco-TinyBERT-L-2-v2": "cross-encoder/ms-marco-TinyBERT-L-2-v2",
        "ms-marco-electra-base": "cross-encoder/ms-marco-electra-base",
        "qnli-distilroberta-base": "cross-encoder/qnli-distilroberta-base",
    }
)


def locate(name: str | Path | None, default: str) -> Located:
    """Where the files of `name` are: in the wheel, or wherever `checkpoint.read` finds a folder or hub name.

    A name in the wheel wins over a folder of the same name; write `./small` for the folder.

    >>> locate("ms-marco-MiniLM-L-6-v2", default="small").source
    'cross-encoder/ms-marco-MiniLM-L-6-v2'
    """
    wanted = default if name is None else name
    if isinstance(wanted, str):
        if not wanted.strip():
            raise InputError("the model name is empty; leave it out for the default, or see `crossrank models`")
        wanted = ALIASES.get(wanted, wanted)
        if any(entry.name == wanted and entry.source == "wheel" for entry in CATALOG):
            shared = _HERE / "shared"
            return Located(wanted, _HERE / wanted, shared / "word_embeddings.safetensors", shared / "tokenizer.json")
    return Located(str(wanted), wanted)
