"""Late-interaction models (Khattab and Zaharia 2020, "ColBERT"): how a folder says that it is one, and its markers.

Two layouts are read, and both mean the same: an encoder, and one linear map of its token vectors to fewer numbers.

- **PyLate**: modules.json lists Transformer and Dense; the map is `linear.weight` (and `linear.bias`) in the Dense
  module's own model.safetensors, without an activation. config_sentence_transformers.json holds query_prefix and
  document_prefix (default "[Q] " and "[D] "; "" for none), query_length (32), document_length (180), skiplist_words
  (ASCII punctuation), do_query_expansion (true), attend_to_expansion_tokens (false) and prompts, of which "query" and
  "document" stand between marker and text, as sentence-transformers 6 puts them; a default prompt is for neither.
- **ColBERTv2**: config.json names the class HF_ColBERT and the map is `linear.weight` among the encoder's weights.
  artifact.metadata, which must be there, holds query_token_id and doc_token_id ("[unused0]", "[unused1]"), query_maxlen
  (32), doc_maxlen (180), mask_punctuation (true: ASCII punctuation is skipped) and attend_to_mask_tokens (false).
  Queries are always expanded.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from crossrank.checkpoint import modular, settings
from crossrank.errors import CheckpointError

# The linear map's name, in either layout.
PROJECTION = "linear"
CHAIN = ["Transformer", "Dense"]
IDENTITY = "torch.nn.modules.linear.Identity"


@dataclass(frozen=True, slots=True)
class Late:
    """How a late-interaction model reads texts.

    Attributes:
        query_mark: the token after the first special token of a query; "" for none.
        document_mark: that of a document.
        query_length: tokens of a query, special tokens and marker included.
        document_length: those of a document.
        skipped: tokens of a document whose vectors do not count; they are read all the same.
        expand: is a query filled up to `query_length` with mask tokens, whose vectors count ("query expansion")?
        attend: do other tokens see those mask tokens?
        query_prompt: what stands before the text of a query, behind the marker; "" for nothing.
        document_prompt: that of a document.
    """

    query_mark: str = "[Q] "
    document_mark: str = "[D] "
    query_length: int = 32
    document_length: int = 180
    skipped: tuple[str, ...] = tuple(string.punctuation)
    expand: bool = True
    attend: bool = False
    query_prompt: str = ""
    document_prompt: str = ""

    def __post_init__(self) -> None:
        for name, length in (("query", self.query_length), ("document", self.document_length)):
            if length < 4:
                raise CheckpointError(f"a {name} length of {length} tokens leaves no room for text")

    def written(self) -> dict[str, Any]:
        """What PyLate's config_sentence_transformers.json says of such a model."""
        names = {"query_mark": "query_prefix", "document_mark": "document_prefix", "skipped": "skiplist_words",
                 "expand": "do_query_expansion", "attend": "attend_to_expansion_tokens"}  # fmt: skip
        stated = {names.get(name, name): value for name, value in asdict(self).items()}
        prompts = {side: stated.pop(f"{side}_prompt") for side in ("query", "document")}
        # Fingerprints of models without prompts, which indexes keep, stay what they were before prompts were read.
        given = {"prompts": prompts} if any(prompts.values()) else {}
        return {"model_type": "ColBERT", "similarity_fn_name": "MaxSim", **stated, **given}


def late_files(late: Late, hidden: int, width: int, bias: bool = False) -> dict[str, Any]:
    """The JSON files of PyLate's layout, by their places in the model's folder.

    Args:
        late: how the model reads texts.
        hidden: numbers in a vector of the encoder.
        width: numbers in a mapped one.
        bias: has the map a bias?
    """
    listed = (("", "sentence_transformers.models.Transformer"), ("1_Dense", "pylate.models.Dense.Dense"))
    dense = {"in_features": hidden, "out_features": width, "bias": bias, "activation_function": IDENTITY}
    return {
        "modules.json": [
            {"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(listed)
        ],
        "1_Dense/config.json": dense,
        "config_sentence_transformers.json": late.written(),
        "sentence_bert_config.json": {"max_seq_length": late.document_length, "do_lower_case": False},
    }


@dataclass(frozen=True, slots=True)
class Found:
    """A late-interaction model in a folder.

    Attributes:
        late: how it reads texts.
        tensors: names of the linear map's weights, and the file and name where each is; empty where they are among the
            encoder's own.
    """

    late: Late
    tensors: Mapping[str, tuple[Path, str]]


def find(folder: Path, config: Mapping[str, Any]) -> Found | None:
    """The late-interaction model in `folder`; None when it holds another kind.

    Raises:
        CheckpointError: its settings are damaged, or it maps token vectors in a way that crossrank does not compute.
    """
    listed = settings.modules(folder)
    kinds = [kind for kind, _ in listed]
    names = config.get("architectures")
    if isinstance(names, list) and "HF_ColBERT" in names and not listed:
        return Found(_colbert(folder), {})
    stated = settings.optional_json(folder / "config_sentence_transformers.json")
    if kinds != CHAIN:
        if "MultiVectorMask" in kinds or stated.get("model_type") in ("ColBERT", "MultiVectorEncoder"):
            raise CheckpointError(
                f"{folder} is a late-interaction model of the modules {', '.join(kinds)}; crossrank computes "
                f"{', '.join(CHAIN)}, as PyLate saves them. Use it through sentence-transformers, or choose another."
            )
        return None
    dense = settings.load_json(listed[1][1] / "config.json")
    if dense.get("activation_function", IDENTITY) != IDENTITY or dense.get("use_residual"):
        raise CheckpointError(
            f"{folder}: its dense module has the activation {dense.get('activation_function')} or a residual, and "
            "crossrank computes a linear map alone. Use it through sentence-transformers, or choose another model."
        )
    return Found(_pylate(folder, stated), modular.weights_of(listed[1][1], PROJECTION, PROJECTION))


def _pylate(folder: Path, stated: Mapping[str, Any]) -> Late:
    usual = Late()
    where = str(folder / "config_sentence_transformers.json")
    marks = [_text(stated, f"{side}_prefix", getattr(usual, f"{side}_mark"), where) for side in ("query", "document")]
    return Late(
        query_mark=marks[0],
        document_mark=marks[1],
        query_length=settings.whole(stated, "query_length", where, usual.query_length) or 0,
        document_length=settings.whole(stated, "document_length", where, usual.document_length) or 0,
        skipped=_texts(stated, "skiplist_words", usual.skipped, where),
        expand=_flag(stated, "do_query_expansion", usual.expand, where),
        attend=_flag(stated, "attend_to_expansion_tokens", usual.attend, where),
        query_prompt=_prompt(stated, "query", marks[0], where),
        document_prompt=_prompt(stated, "document", marks[1], where),
    )


def _prompt(stated: Mapping[str, Any], side: str, mark: str, where: str) -> str:
    """The prompt of a side; a marker at its front is the one that stands there in any case."""
    prompts = stated.get("prompts")
    if prompts is not None and not isinstance(prompts, dict):
        raise CheckpointError(f"{where}: prompts must be an object of names and texts, not {prompts!r}")
    return _text(prompts or {}, side, "", f"{where}, prompts").removeprefix(mark)


def _colbert(folder: Path) -> Late:
    usual = Late()
    where = str(folder / "artifact.metadata")
    if not (folder / "artifact.metadata").is_file():
        raise CheckpointError(
            f"{folder} is a ColBERT model without artifact.metadata, which says how much it reads of a text and behind "
            "which marker: guessed, its scores could be wrong. Copy the whole folder; if the model has no such file, "
            "write {} into one, which means ColBERT's usual settings."
        )
    stated = settings.load_json(folder / "artifact.metadata")
    return Late(
        query_mark=_text(stated, "query_token_id", "[unused0]", where),
        document_mark=_text(stated, "doc_token_id", "[unused1]", where),
        query_length=settings.whole(stated, "query_maxlen", where, usual.query_length) or 0,
        document_length=settings.whole(stated, "doc_maxlen", where, usual.document_length) or 0,
        skipped=usual.skipped if _flag(stated, "mask_punctuation", True, where) else (),
        attend=_flag(stated, "attend_to_mask_tokens", usual.attend, where),
    )


def _text(stated: Mapping[str, Any], key: str, usual: str, where: str) -> str:
    value = stated.get(key)
    if value is not None and not isinstance(value, str):
        raise CheckpointError(f"{where}: {key} must be a text, not {value!r}")
    return usual if value is None else value


def _flag(stated: Mapping[str, Any], key: str, usual: bool, where: str) -> bool:
    value = stated.get(key)
    if value is not None and not isinstance(value, bool):
        raise CheckpointError(f"{where}: {key} must be true or false, not {value!r}")
    return usual if value is None else value


def _texts(stated: Mapping[str, Any], key: str, usual: tuple[str, ...], where: str) -> tuple[str, ...]:
    value = stated.get(key)
    if value is None:
        return usual
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise CheckpointError(f"{where}: {key} must be a list of texts, not {value!r}")
    return tuple(value)
