"""What a model folder's JSON files say: labels, activation, maximum length, pooling. Stated facts only, no guesses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from crossrank.errors import CheckpointError
from crossrank.types import Pooling

Activation = Literal["identity", "sigmoid", "softmax"]

MAX_JSON = 16_000_000
# Bytes of a large file for each object, list and name in it, at the least.
SPARSE = 16
# Positions of these start at pad_token_id + 1, so that many rows of the position table are never reached.
OFFSET_POSITIONS = frozenset(
    {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "roberta-prelayernorm", "data2vec-text", "mpnet", "xmod",
     "longformer", "ibert", "luke"}
)  # fmt: skip
# A longer maximum is none: transformers writes 1e30 for a tokenizer that states nothing.
LONGEST = 10**9
# Rows of the token type table of a model that states none, as in transformers.
TYPES = 2
# Classes of tokenizers that give no token types unless they are told to: the one of transformers 5 for a tokenizer made
# by hand, and DistilBERT's, which distilled BERTs keep.
UNTYPED = frozenset({"TokenizersBackend", "DistilBertTokenizer"})
# Names of prompts for one side of a search: before queries, then before documents, the first that is there.
SIDES = ("query", "document", "passage", "corpus")
ACTIVATIONS: Mapping[str, Activation] = {"Identity": "identity", "Sigmoid": "sigmoid", "Softmax": "softmax"}


def load_json(path: Path) -> dict[str, Any]:
    """One JSON object from a file.

    Raises:
        CheckpointError: missing, too large, not JSON, or not an object.
    """
    value = _value(path)
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is not a JSON object. Download or copy the model again.")
    return value


def _value(path: Path) -> Any:
    """What a JSON file holds, read only when it is as small as settings are."""
    try:
        return json.loads(bounded(path, MAX_JSON, "a model's settings file").decode("utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path.parent} has no {path.name}. A model folder holds config.json, tokenizer.json and "
            "model.safetensors; copy the whole folder."
        ) from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is not valid JSON ({error}). Download or copy the model again.") from error


def bounded(path: Path, largest: int, kind: str) -> bytes:
    """A file as small as its kind is, to be parsed: two bytes of JSON can be an object that takes 64.

    Raises:
        CheckpointError: it is larger, holds too many parts, or is a named pipe, whose opening would never end.
        OSError: it cannot be read.
    """
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path} is no regular file. Download or copy the model again.")
    with path.open("rb") as file:
        raw = file.read(largest + 1)
    if len(raw) > largest:
        raise CheckpointError(f"{path} has over {largest // 1_000_000} MB, so it is not {kind}")
    if crowded(raw, largest // SPARSE):
        raise CheckpointError(f"{path} has over {largest // SPARSE:,} objects, lists and names, so it is not {kind}")
    return raw


def crowded(raw: bytes, parts: int) -> bool:
    """Whether JSON holds more than so many objects, lists and names."""
    return sum(map(raw.count, (b"{", b"[", b":"))) > parts


def optional_json(path: Path) -> dict[str, Any]:
    """One JSON object, or an empty one when the file does not exist."""
    return load_json(path) if path.is_file() else {}


def whole(settings: Mapping[str, Any], key: str, where: str, default: int | None = None) -> int | None:
    """A whole number at `key`, or the default.

    Raises:
        CheckpointError: something else is there.
    """
    value = settings.get(key)
    if value is None:
        return default
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise CheckpointError(f"{where}: {key} must be a whole number, not {value!r}")
    return value


def label_count(config: Mapping[str, Any], where: str) -> int:
    """Labels of a sequence classifier as transformers counts them: id2label, else num_labels, else 2."""
    names = config.get("id2label")
    if isinstance(names, dict) and names:
        return len(names)
    count = whole(config, "num_labels", where, 2)
    return 2 if count is None else count


def activation(folder: Path, config: Mapping[str, Any], labels: int) -> Activation:
    """What the model's authors apply to its logits, in the order in which sentence-transformers looks.

    Default, from its CrossEncoder: sigmoid for one label, identity otherwise.

    Raises:
        CheckpointError: an activation that is none of identity, sigmoid and softmax.
    """
    nested = config.get("sentence_transformers")
    for stated in (
        optional_json(folder / "config_sentence_transformers.json").get("activation_fn"),
        nested.get("activation_fn") if isinstance(nested, dict) else None,
        config.get("sbert_ce_default_activation_function"),
    ):
        if stated is None:
            continue
        found = ACTIVATIONS.get(str(stated).rpartition(".")[2]) if str(stated).startswith("torch.") else None
        if found is None:
            raise CheckpointError(
                f"{folder}: the activation {stated!r} is not one of torch's Identity, Sigmoid, Softmax. Correct "
                "activation_fn in the folder's config; crossrank runs no code that a model names."
            )
        return found
    return "sigmoid" if labels == 1 else "identity"


def depth(config: Mapping[str, Any]) -> int | None:
    """Layers of a model, as BERT or DistilBERT calls them; None where neither is stated."""
    stated = (config.get(name) for name in ("num_hidden_layers", "n_layers"))
    return next((one for one in stated if isinstance(one, int) and not isinstance(one, bool)), None)


def positions(config: Mapping[str, Any], architecture: str, where: str) -> int | None:
    """The longest sequence that the position table holds; None for a model that states no limit."""
    count = whole(config, "max_position_embeddings", where)
    if count is None or count < 1:
        return None
    return count - padding(config, architecture, where) - 1 if architecture in OFFSET_POSITIONS else count


def padding(config: Mapping[str, Any], architecture: str, where: str) -> int:
    """The token behind shorter sequences; where none is stated 0, or 1 for models that count positions from it.

    Raises:
        CheckpointError: it is no row of the word table.
    """
    found = whole(config, "pad_token_id", where, int(architecture in OFFSET_POSITIONS)) or 0
    words = whole(config, "vocab_size", where)
    if found < 0 or (words is not None and found >= words):
        raise CheckpointError(
            f"{where}: config.json has pad_token_id = {found}, which is no word of the model. Correct it: it is the "
            "number of the token that stood behind shorter texts in training."
        )
    return found


def token_types(vocabulary: Path, config: Mapping[str, Any]) -> bool:
    """Whether the model is fed token types: it has two or more, and its tokenizer is not told to leave them out."""
    stated = optional_json(vocabulary / "tokenizer_config.json")
    names = stated.get("model_input_names")
    if isinstance(names, list):
        told = "token_type_ids" in names
    else:
        told = str(stated.get("tokenizer_class")).removesuffix("Fast") not in UNTYPED
    return told and config.get("type_vocab_size", TYPES) not in (0, 1)


def max_length(folder: Path, vocabulary: Path, architecture: str, config: Mapping[str, Any]) -> int:
    """Tokens in one sequence, special tokens included: the least of what the tokenizer's, the model's and
    sentence-transformers' settings say.

    Raises:
        CheckpointError: none of them says anything, or they leave no room.
    """
    where = str(folder)
    stated = [
        whole(optional_json(vocabulary / "tokenizer_config.json"), "model_max_length", where),
        whole(optional_json(folder / "sentence_bert_config.json"), "max_seq_length", where),
    ]
    stated.append(positions(config, architecture, where))
    known = [length for length in stated if length is not None and length <= LONGEST]
    if not known:
        raise CheckpointError(f"{folder} states no maximum length. Add model_max_length to its tokenizer_config.json.")
    if min(known) < 4:
        raise CheckpointError(f"{folder} states a maximum length of {min(known)} tokens, which leaves no room for text")
    return min(known)


def modules(folder: Path) -> list[tuple[str, Path]]:
    """The sentence-transformers modules of a folder: class name without its path, and the module's own folder."""
    path = folder / "modules.json"
    if not path.is_file():
        return []
    listed = _value(path)
    if not isinstance(listed, list):
        raise CheckpointError(f"{path} is damaged (not a JSON list). Download or copy the model again.")
    try:
        found = [(str(entry["type"]).rpartition(".")[2], str(entry["path"])) for entry in listed]
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error!r}). Download or copy the model again.") from error
    for _, name in found:
        if name and (Path(name).name != name or name == ".."):
            raise CheckpointError(f"{path} names the module folder {name!r}, which is not in this folder")
    return [(kind, folder / name) for kind, name in found]


def pooling(folder: Path) -> tuple[Pooling | None, bool]:
    """How a bi-encoder turns token vectors into one, and whether it then normalizes. (None, False) when not stated.

    Raises:
        CheckpointError: a pooling or module that crossrank does not compute.
    """
    way: Pooling | None = None
    normalize = False
    for kind, place in modules(folder):
        if kind == "Pooling":
            way = pooling_of(place)
        elif kind == "Normalize":
            normalize = True
        elif kind != "Transformer":
            raise CheckpointError(
                f"{folder} has the sentence-transformers module {kind}, which crossrank does not compute. "
                "Use a bi-encoder of Transformer, Pooling and Normalize."
            )
    return way, normalize


def pooling_of(place: Path) -> Pooling:
    """The pooling that a module folder states.

    Raises:
        CheckpointError: it is neither mean nor cls, or damaged.
    """
    settings = load_json(place / "config.json")
    if isinstance(settings.get("pooling_mode"), str):  # sentence-transformers 5.5 and later
        chosen = [settings["pooling_mode"]]
    else:
        chosen = [key.removeprefix("pooling_mode_") for key, value in settings.items()
                  if key.startswith("pooling_mode_") and value is True]  # fmt: skip
    names: Mapping[str, Pooling] = {"mean": "mean", "mean_tokens": "mean", "cls": "cls", "cls_token": "cls"}
    if len(chosen) != 1 or chosen[0] not in names:
        raise CheckpointError(f"{place / 'config.json'}: pooling {chosen} is neither mean nor cls alone")
    return names[chosen[0]]


def prompts(folder: Path) -> dict[str, Any]:
    """What config_sentence_transformers.json says of prompts: `prompts` and `default_prompt_name`, where they are."""
    stated = optional_json(folder / "config_sentence_transformers.json")
    return {key: stated[key] for key in ("prompts", "default_prompt_name") if stated.get(key) is not None}


def prompts_of(folder: Path) -> tuple[str, str]:
    """What a bi-encoder reads before a query and before a document, as sentence-transformers' `encode_query` and
    `encode_document` have it; the default prompt before both where its settings name no prompt for either.

    Raises:
        CheckpointError: as `prompt`.
    """
    everywhere, named = prompt(folder), prompts(folder).get("prompts")
    known = {name: text for name, text in named.items() if name in SIDES} if isinstance(named, dict) else {}
    if not known:
        return everywhere, everywhere
    query, document = known.get("query"), next((known[name] for name in SIDES[1:] if name in known), None)
    for text in (query, document):
        if text is not None and not isinstance(text, str):
            raise CheckpointError(
                f"{folder / 'config_sentence_transformers.json'}: a prompt is a text, not {text!r:.80}. Correct it, or "
                "take it out to put nothing before texts."
            )
        check_pooled(folder, text or "")
    return query or "", document or ""


def check_pooled(folder: Path, text: str) -> None:
    """Refuse a prompt that a model leaves out of its pooling.

    Raises:
        CheckpointError: it does.
    """
    pooled = (optional_json(place / "config.json") for kind, place in modules(folder) if kind == "Pooling")
    if text and any(one.get("include_prompt") is False for one in pooled):
        raise CheckpointError(
            f"{folder} leaves its prompt out of its pooling (include_prompt), which crossrank does not compute."
            " Use it through sentence-transformers, or choose another model."
        )


def prompt(folder: Path) -> str:
    """What sentence-transformers' `encode` puts before every text: the default prompt, "" where none is named.

    Raises:
        CheckpointError: the name is of no prompt, or the prompt is to be read and not pooled.
    """
    stated = prompts(folder)
    name, named = stated.get("default_prompt_name"), stated.get("prompts")
    if name is None:
        return ""
    # "query" and "document" are there in any case.
    known = {"query": "", "document": "", **(named if isinstance(named, dict) else {})}
    text = known.get(name, 0) if isinstance(name, str) else 0
    if text is not None and not isinstance(text, str):
        raise CheckpointError(
            f"{folder / 'config_sentence_transformers.json'}: default_prompt_name {name!r} is none of its prompts, "
            f"{', '.join(known)}. Correct the name, or remove it to put nothing before texts."
        )
    check_pooled(folder, text or "")
    return text or ""


def calibration(folder: Path) -> Mapping[str, float] | None:
    """Slope and intercept of the probability, from crossrank.json, or None.

    Raises:
        CheckpointError: the file is there and damaged.
    """
    stated = optional_json(folder / "crossrank.json").get("calibration")
    if stated is None:
        return None
    found = [stated.get(key) if isinstance(stated, dict) else None for key in ("slope", "intercept")]
    for number in found:
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not abs(number) < 1e300:
            raise CheckpointError(
                f'{folder / "crossrank.json"}: calibration must be {{"slope": number, "intercept": number}}. Correct '
                "it, or remove it: scores then are logits without probabilities."
            )
    slope, intercept = (float(number) for number in found if number is not None)
    if slope <= 0:
        raise CheckpointError(
            f"{folder / 'crossrank.json'}: the slope of a calibration is over 0, not {slope:g}: a higher score would "
            "be less probable. Fit it again with crossrank.calibration.Platt.fit, or remove it."
        )
    return {"slope": slope, "intercept": intercept}


def threshold(folder: Path) -> float | None:
    """The probability under which the best passage of a list is no answer, from crossrank.json, or None.

    Raises:
        CheckpointError: the file is there and damaged.
    """
    stated = optional_json(folder / "crossrank.json").get("threshold")
    if stated is None:
        return None
    if isinstance(stated, bool) or not isinstance(stated, (int, float)) or not 0.0 < stated < 1.0:
        raise CheckpointError(f"{folder / 'crossrank.json'}: threshold must be a probability over 0 and under 1")
    if calibration(folder) is None:
        raise CheckpointError(
            f"{folder / 'crossrank.json'}: a threshold is a probability, which needs a calibration. Add one beside it "
            "(crossrank.calibration.Platt.fit), or remove the threshold."
        )
    return float(stated)


def mix(folder: Path) -> float | None:
    """The share of the model's score that suits it in a search, from crossrank.json, or None.

    Raises:
        CheckpointError: the file is there and damaged.
    """
    stated = optional_json(folder / "crossrank.json").get("mix")
    if stated is None:
        return None
    if isinstance(stated, bool) or not isinstance(stated, (int, float)) or not 0.0 < stated <= 1.0:
        raise CheckpointError(
            f"{folder / 'crossrank.json'}: mix must be a share over 0 and at most 1. Correct it, or remove it: "
            "searches then give the model the usual share."
        )
    return float(stated)
