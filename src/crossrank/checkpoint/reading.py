"""From what the user asked for to a `Checkpoint`: find the folder, then check what it states against what it holds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crossrank import extras
from crossrank.checkpoint import generative, gte, late, modular, settings, vocabulary, weights
from crossrank.checkpoint.record import WORD_EMBEDDINGS, Checkpoint, Kind
from crossrank.credentials import without_secrets
from crossrank.errors import CheckpointError, InputError

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
# Characters of a file's name, on every system in use.
LONGEST = 255
# The last tensor of the classification head of each architecture whose names are known here.
HEADS = {
    "bert": "classifier.weight",
    "modernbert": "classifier.weight",
    "gte": "classifier.weight",
    "distilbert": "classifier.weight",
    "electra": "classifier.out_proj.weight",
    "roberta": "classifier.out_proj.weight",
    "xlm-roberta": "classifier.out_proj.weight",
}
# A tensor of layer number ..., as BERT and its kin, ModernBERT, GTE and DistilBERT name it.
LAYER = re.compile(r"(?:^|\.)(?:encoder\.layer|transformer\.layer|layers)\.(\d{1,9})\.")

RELEVANT = frozenset({"entailment", "relevant", "positive", "true", "yes"})


def read(
    source: str | Path,
    *,
    shared: Sequence[Path] = (),
    shared_tokenizer: Path | None = None,
    instruction: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Checkpoint:
    """Describe the model at `source`: an existing folder, a `.safetensors` file beside its config, else a hub name.

    Args:
        source: folder, file or hub name. A path that exists wins over a hub name.
        shared: safetensors files with word embeddings or layers, for a model whose own file leaves them out.
        shared_tokenizer: the tokenizer.json, or its folder, for a model whose own folder has none.
        instruction: the system message of a language model's prompt; the folder's default prompt when absent.
        revision: branch, tag or commit of a hub model; refused for a folder.
        token: of the hub, for models that are not public; the one that is stored on this machine when absent. It and
            the next change nothing for a folder.
        cache_dir: the hub's local cache; where HF_HOME says when absent.
        local_files_only: look only in the hub's local cache.

    Raises:
        CheckpointError: not found, damaged, or not a model this version reads. The message names the cure.
        InputError: a revision of a folder or file, or an instruction of a model that has no prompt.
    """
    hub = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only or None}
    folder, files = _locate(source, revision, {name: value for name, value in hub.items() if value is not None})
    config = settings.load_json(folder / "config.json")
    architecture = config.get("model_type")
    if not isinstance(architecture, str) or not architecture:
        raise CheckpointError(f"{folder / 'config.json'} has no model_type, so the architecture is unknown")
    if architecture == "xlnet":
        raise CheckpointError(
            f"{folder} is an XLNet: it reads with its padding in front and a token type for its last token alone, which"
            " crossrank does not give: scores would be wrong. Use it through transformers, or choose another model."
        )
    if architecture in gte.DEFAULTS:
        config, architecture = gte.config(config, str(folder)), gte.NAME
    files = files or _weight_files(folder)
    shapes = _shapes(files)
    head = modular.head(folder, architecture)
    answer = generative.answer(folder, config)
    found = late.find(folder, config) if head is None and answer is None else None
    parts = head or found
    kind: Kind = "late-interaction"
    if found is not None:
        labels = 0
        _check_map(folder, found, shapes)
    elif answer is not None:
        kind, labels = "cross-encoder", 1
    elif head is None:
        kind = _kind(config, architecture, shapes)
        labels = _labels(folder, config, architecture, shapes) if kind == "cross-encoder" else 0
    else:
        kind, labels, config = "cross-encoder", head.labels, {**config, **head.config}
        _check_count(folder, labels)
    pooling, normalize = settings.pooling(folder) if kind == "bi-encoder" else (None, False)
    place = folder
    if shared_tokenizer is not None and not vocabulary.files(folder):
        place = shared_tokenizer if shared_tokenizer.is_dir() else shared_tokenizer.parent
    pair = generative.prompt(folder, place, instruction) if kind == "cross-encoder" else None
    if instruction is not None and pair is None:
        raise InputError(
            f"{source} has no prompt that an instruction could be written in: leave instruction={instruction!r:.200} "
            "out, or write it before your queries if the model was trained so"
        )
    if answer is not None and pair is None:
        raise CheckpointError(
            f"{folder} is a language model that says whether a passage is relevant, and does not say how it is asked: "
            "its sentence_bert_config.json has no modality_config with 'message'. Save it with sentence-transformers "
            "5.4 or later, or choose another model."
        )
    query_prompt, prompt = _prompts(folder, kind) if pair is None else ("", "")
    _check_embeddings(folder, architecture, shapes, shared)
    _check_layers(folder, architecture, config, shapes)
    return Checkpoint(
        name=str(source),
        folder=folder,
        architecture=architecture,
        config=config,
        kind=kind,
        labels=labels,
        activation=settings.activation(folder, config, labels) if kind == "cross-encoder" else "identity",
        max_length=_max_length(folder, place, architecture, config, found),
        pooling=pooling,
        normalize=normalize,
        calibration=settings.calibration(folder),
        weights=files,
        vocabulary=place,
        token_types=settings.token_types(place, config),
        shared=tuple(Path(path) for path in shared),
        modules=parts.tensors if parts is not None else {},
        late=None if found is None else found.late,
        threshold=settings.threshold(folder),
        mix=settings.mix(folder) if kind == "cross-encoder" else None,
        prompt=prompt,
        query_prompt=query_prompt,
        pair=pair,
        answer=answer,
        instruction=instruction,
    )


def _locate(source: str | Path, revision: str | None, options: Mapping[str, Any]) -> tuple[Path, tuple[Path, ...]]:
    """The model's folder, and the weight file when `source` names one."""
    if not isinstance(source, (str, Path)):
        raise CheckpointError(f"a model is named by a string or a path, not by {source!r}")
    path = Path(source).expanduser()
    if any(len(part) > LONGEST for part in path.parts):
        raise CheckpointError(
            f"there is no model {str(path)[:40]!r}...: no file has a name of over {LONGEST} characters"
        )
    if revision is not None and path.exists():
        raise InputError(f"{path} is on this machine and has no revisions: leave revision={revision!r} out")
    # From here on absolute: a scorer may be pickled, or share its backend, after the working directory has changed.
    if path.is_dir():
        return path.absolute(), ()
    if path.is_file():
        if path.suffix != ".safetensors":
            raise CheckpointError(f"{path} is neither a folder nor a .safetensors file. Give the folder that holds it.")
        return path.absolute().parent, (path.absolute(),)
    text = str(source)
    name, mark, after = text.partition("@")
    if mark and "/" in name and not isinstance(source, Path) and HUB_NAME.fullmatch(name):
        raise CheckpointError(
            f"there is no model folder {text!r}: if it is a folder, check the path. If it is a revision of the hub's "
            f"{name}, give revision={after!r}, or the folder that `hf download {name} --revision {after}` prints"
        )
    if isinstance(source, Path) or not HUB_NAME.fullmatch(text):
        # It may have been meant as an address, with a password.
        shown = text if isinstance(source, Path) else without_secrets(text)
        raise CheckpointError(f"there is no model folder {shown!r}. Check the path; hub names look like owner/model.")
    from crossrank.checkpoint import hub  # half a second of imports that a folder does not need

    return hub.folder(text, revision=revision, **options).absolute(), ()


def _weight_files(folder: Path) -> tuple[Path, ...]:
    if (folder / "model.safetensors").is_file():
        return (folder / "model.safetensors",)
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return weights.shards(folder, settings.load_json(index))
    pickle = folder / "pytorch_model.bin"
    if not pickle.is_file():
        raise CheckpointError(
            f"{folder} has no model.safetensors. A model folder holds config.json, tokenizer.json and "
            "model.safetensors; copy the whole folder."
        )
    if not extras.available("torch"):
        raise CheckpointError(
            f"{pickle} is a pickle, which can run code, so the base install does not open it. Use a folder with "
            "model.safetensors, or pip install 'crossrank[torch]', whose weights-only loader reads it safely."
        )
    return (pickle,)


def _shapes(files: tuple[Path, ...]) -> Mapping[str, tuple[int, ...]]:
    """Names and shapes of what `weights.load` gives, from the headers; empty for a pickle, which has no header."""
    if not all(path.suffix == ".safetensors" for path in files):
        return {}
    found = {name: entry.shape for name, entry in weights.headers(files).items() if entry.dtype in weights.FLOATS}
    if not found:
        raise CheckpointError(f"{files[0]} holds no tensors of floating-point numbers. {weights.CURE}")
    return found


def _kind(config: Mapping[str, Any], architecture: str, shapes: Mapping[str, tuple[int, ...]]) -> Kind:
    """By the class that config.json names; by the weights when it names none."""
    classes = config.get("architectures")
    if isinstance(classes, list) and classes:
        classifies = any(str(name).endswith("ForSequenceClassification") for name in classes)
    else:
        classifies = HEADS.get(architecture) in shapes
    return "cross-encoder" if classifies else "bi-encoder"


def _labels(folder: Path, config: Mapping[str, Any], architecture: str, shapes: Mapping[str, tuple[int, ...]]) -> int:
    stated = settings.label_count(config, str(folder))
    head = HEADS.get(architecture)
    if head is not None and shapes:
        if head not in shapes:
            raise CheckpointError(
                f"{folder}: config.json names a sequence classifier but the weights have no {head}: the head newly "
                "initialised would score at random. Use the fine-tuned model's own weight file."
            )
        rows = weights.rows(folder, head, shapes[head])
        if rows != stated:
            raise CheckpointError(
                f"{folder}: config.json says {stated} labels but {head} has {rows} rows. "
                "Correct num_labels and id2label in config.json, or use the matching weights."
            )
    names = config.get("id2label")
    first = str(names.get("0")).lower() if isinstance(names, dict) else ""
    if stated == 2 and first in RELEVANT:
        raise CheckpointError(
            f"{folder}: config.json names label 0 {first!r}, but a two-label reranker's label 1 is the relevant one, "
            "so its ranking would come out upside down. If the name is wrong, correct id2label; else swap the rows of "
            "the head."
        )
    _check_count(folder, stated)
    return stated


def _prompts(folder: Path, kind: Kind) -> tuple[str, str]:
    """What stands before queries and documents of a bi-encoder; of a late-interaction model, it is in its `Late`.

    Raises:
        CheckpointError: see `settings.prompts_of`; or sentence-transformers would put it before every query of this
            cross-encoder.
    """
    if kind == "late-interaction":
        return "", ""
    if kind == "bi-encoder":
        return settings.prompts_of(folder)
    prompt = settings.prompt(folder)
    if prompt:
        raise CheckpointError(
            f"{folder} has the default prompt {prompt!r}, which sentence-transformers puts before every query and "
            "crossrank does not: its scores would be others. Take default_prompt_name out of "
            "config_sentence_transformers.json, and write the prompt before your queries."
        )
    return "", ""


def _check_map(folder: Path, found: late.Found, shapes: Mapping[str, tuple[int, ...]]) -> None:
    weight = f"{late.PROJECTION}.weight"
    if found.tensors:
        file, name = found.tensors[weight]
        weights.rows(file, name, weights.header(file)[name].shape)
    elif weight in shapes:
        weights.rows(folder, weight, shapes[weight])
    elif shapes:
        raise CheckpointError(
            f"{folder}: config.json says HF_ColBERT but the weights have no {weight}: newly initialised it would score "
            "at random. Use the fine-tuned model's own weight file."
        )


def _max_length(
    folder: Path, place: Path, architecture: str, config: Mapping[str, Any], found: late.Found | None
) -> int:
    """Tokens in one sequence; of a late-interaction model, its longer side, which its table must hold."""
    if found is None:
        return settings.max_length(folder, place, architecture, config)
    longest = max(found.late.query_length, found.late.document_length)
    positions = settings.positions(config, architecture, str(folder))
    if positions is not None and longest > positions:
        raise CheckpointError(
            f"{folder} states texts of {longest} tokens but has positions for {positions}. Correct the lengths in "
            "config_sentence_transformers.json or artifact.metadata."
        )
    window = (settings.whole(config, "local_attention", str(folder), 128) or 0) // 2
    unseen = found.late.expand and not found.late.attend
    # A mask that no longer reaches the query would see nothing at all.
    if architecture == "modernbert" and unseen and found.late.query_length > window:
        raise CheckpointError(
            f"{folder} fills queries up to {found.late.query_length} tokens, and its layers see {window} to either "
            "side: those masks would see nothing. State a shorter query_length."
        )
    return longest


def _check_count(folder: Path, labels: int) -> None:
    if labels not in (1, 2):
        raise CheckpointError(
            f"{folder} has {labels} labels. A reranker has 1 (a relevance logit) or 2 (not relevant, relevant); "
            "choose a model trained for relevance."
        )


def _check_embeddings(
    folder: Path, architecture: str, shapes: Mapping[str, tuple[int, ...]], shared: Sequence[Path]
) -> None:
    if not shapes or architecture not in HEADS or architecture == "modernbert":
        return
    names = [*shapes, *(name for path in shared for name in weights.header(path))]
    if not any(name.endswith(WORD_EMBEDDINGS) for name in names):
        raise CheckpointError(
            f"{folder}: the weights have no {WORD_EMBEDDINGS}. Use a complete model.safetensors, or give the file that "
            "shares them as shared."
        )


def _check_layers(
    folder: Path, architecture: str, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Refuse weights of more layers than the config has: those above would be left out, and the scores others; and a
    config of more layers than there are weights, before so many are made."""
    stated = settings.depth(config)
    if stated is None:
        return
    if shapes and stated > len(shapes):
        raise CheckpointError(
            f"{folder}: config.json and the weights are of two models ({stated} layers are stated, and the file has "
            f"{len(shapes)} weights). Copy the whole folder again."
        )
    # Of others it is not known here what all their layers are for.
    if architecture not in HEADS:
        return
    numbers = [int(found[1]) for name in shapes if (found := LAYER.search(name))]
    if numbers and max(numbers) >= stated:
        raise CheckpointError(
            f"{folder}: config.json has {stated} layers (num_hidden_layers) and the weights have {max(numbers) + 1}: "
            "without the last ones scores would be wrong. Copy the folder again; to use fewer, save it with fewer."
        )
