"""Write a checkpoint as an ordinary folder that transformers and sentence-transformers load with the same results."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save_file

from crossrank.checkpoint import copying, settings
from crossrank.checkpoint.late import PROJECTION, Late, late_files
from crossrank.checkpoint.record import Checkpoint
from crossrank.errors import CheckpointError
from crossrank.writing import abandoned, beside, whole

CLASSES = {
    "bert": "Bert",
    "electra": "Electra",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "modernbert": "ModernBert",
    "gte": "Gte",
    "distilbert": "DistilBert",
}
ACTIVATIONS = {
    "identity": "torch.nn.modules.linear.Identity",
    "sigmoid": "torch.nn.modules.activation.Sigmoid",
    "softmax": "torch.nn.modules.activation.Softmax",
}
# Of the files that are not always written: left from another model, each would change what the folder is.
OTHERS = (
    *("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "crossrank.json"),
    *("model.safetensors.index.json", "chat_template.jinja", "chat_template.json", "added_tokens.json"),
)
TOKENIZER_FILES = ("tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "vocab.json", "merges.txt")


def export(checkpoint: Checkpoint, folder: Path, *, overwrite: bool = False) -> None:
    """Write `checkpoint` to `folder`: float32 safetensors, config, tokenizer, sentence-transformers files.

    Of a language model, and of one whose head is in sentence-transformers modules, the files themselves are copied,
    with weights as they are; an instruction that it was loaded with becomes the default prompt.

    Args:
        checkpoint: what is written.
        folder: new or empty; it is made with its parents.
        overwrite: write also into a folder that holds something. Files of a model that was there are replaced or
            removed; what else is there stays.

    Raises:
        CheckpointError: the folder holds something (without `overwrite`) or is the checkpoint's own; the checkpoint
            cannot be read; or the weights cannot be written, and what was there before still is.
    """
    target = Path(folder)
    check_target(checkpoint, target, overwrite=overwrite)
    if copying.assembled(checkpoint):
        with _apart(target) as made:
            copying.copy(checkpoint, made)
            _write_own(checkpoint, made)
        return
    tensors = checkpoint.tensors()
    with _apart(target) as made:
        _write(checkpoint, tensors, made)
        _write_own(checkpoint, made)


def _write(checkpoint: Checkpoint, tensors: dict[str, NDArray[np.float32]], target: Path) -> None:
    _write_json(target / "config.json", _config(checkpoint))
    if checkpoint.late is not None:
        _pylate(checkpoint.late, target, tensors)
    write_weights(tensors, target / "model.safetensors")
    _tokenizer(checkpoint, target)
    if checkpoint.kind == "bi-encoder":
        _sentence_transformer(checkpoint, target, checkpoint.width)


def _write_own(checkpoint: Checkpoint, target: Path) -> None:
    """What only crossrank reads."""
    calibration = None if checkpoint.calibration is None else dict(checkpoint.calibration)
    held = {"calibration": calibration, "threshold": calibration and checkpoint.threshold, "mix": checkpoint.mix}
    if stated := {name: value for name, value in held.items() if value is not None}:
        _write_json(target / "crossrank.json", stated)


@contextmanager
def _apart(target: Path) -> Iterator[Path]:
    """An empty folder within `target`, whose files come to stand there when the block ends.

    An exception leaves what was there before: on a full disk the model is found out not to fit when most is written.
    """
    new = not target.exists()
    target.mkdir(parents=True, exist_ok=True)
    for left in abandoned(target):
        shutil.rmtree(left, ignore_errors=True)
    made = beside(target / "config.json")
    try:
        made.mkdir()
        yield made
        clear(target)
        if not (made / "model.safetensors").exists():  # several files, before which that one of another model goes
            (target / "model.safetensors").unlink(missing_ok=True)
        for path in sorted(path for path in made.rglob("*") if path.is_file()):
            place = target / path.relative_to(made)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)
        shutil.rmtree(made)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        if new:
            with suppress(OSError):
                target.rmdir()
        raise


def clear(folder: Path) -> None:
    """Remove the files of a model that another one, written over it, may not have, and that would change what it is."""
    for name in (*OTHERS, *TOKENIZER_FILES):
        (folder / name).unlink(missing_ok=True)


def check_target(checkpoint: Checkpoint, folder: Path, *, overwrite: bool = False) -> None:
    """Refuse what `export` refuses before it reads the weights: for who works for minutes before it writes.

    Raises:
        CheckpointError: as `export`.
    """
    target = Path(folder)
    if target.exists() and target.resolve() in (checkpoint.folder.resolve(), checkpoint.vocabulary.resolve()):
        raise CheckpointError(f"{target} is the model's own folder; give another")
    if not overwrite and target.is_dir() and set(target.iterdir()) - abandoned(target):
        raise CheckpointError(
            f"{target} is not empty, and a model there would be overwritten: give a new folder, or say so with --force "
            "(overwrite=True)"
        )
    if copying.assembled(checkpoint):
        copying.check(checkpoint)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _config(checkpoint: Checkpoint) -> dict[str, Any]:
    config = {key: value for key, value in checkpoint.config.items() if key != "sbert_ce_default_activation_function"}
    config.pop("torch_dtype", None)
    config["dtype"] = "float32"
    if checkpoint.architecture in CLASSES:
        config.pop("auto_map", None)  # code for other names of weights, perhaps
        suffix = "ForSequenceClassification" if checkpoint.kind == "cross-encoder" else "Model"
        config["architectures"] = [CLASSES[checkpoint.architecture] + suffix]
    if checkpoint.kind == "cross-encoder":
        stated = config.get("sentence_transformers")
        config["sentence_transformers"] = {
            **(stated if isinstance(stated, dict) else {}),
            "activation_fn": ACTIVATIONS[checkpoint.activation],
        }
    return config


def _tokenizer(checkpoint: Checkpoint, target: Path) -> None:
    # Not by the library's `save`: on a full disk it raises a bare Exception.
    (target / "tokenizer.json").write_text(checkpoint.tokenizer().to_str(pretty=True), encoding="utf-8")
    for name in TOKENIZER_FILES:
        if (checkpoint.vocabulary / name).is_file():
            shutil.copyfile(checkpoint.vocabulary / name, target / name)
    path = target / "tokenizer_config.json"
    stated = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    stated.setdefault("tokenizer_class", "PreTrainedTokenizerFast")
    if not isinstance(stated.get("model_input_names"), list):
        # transformers 5 reads that class without token types unless they are named.
        types = ["token_type_ids"] if checkpoint.token_types else []
        stated["model_input_names"] = ["input_ids", *types, "attention_mask"]
    _write_json(path, {**stated, "model_max_length": checkpoint.max_length})


def write_weights(tensors: Mapping[str, NDArray[np.float32]], path: Path) -> None:
    """A file of weights that transformers reads, and whoever may read the files beside it.

    Raises:
        CheckpointError: it cannot be written.
    """
    try:
        with whole(path, usual=True) as part:
            save_file(dict(tensors), part, metadata={"format": "pt"})
    except SafetensorError as error:
        raise CheckpointError(
            f"{path.name} cannot be written ({error}). Make room on the disk, or name a folder on another."
        ) from error


def _pylate(late: Late, target: Path, tensors: dict[str, NDArray[np.float32]]) -> None:
    """PyLate's files of a late-interaction model; its linear map is taken out of `tensors`."""
    mapped = {name: tensors.pop(name) for name in list(tensors) if name.startswith(f"{PROJECTION}.")}
    (target / "1_Dense").mkdir(exist_ok=True)
    write_weights(mapped, target / "1_Dense" / "model.safetensors")
    width, hidden = mapped[f"{PROJECTION}.weight"].shape
    for name, value in late_files(late, hidden, width, f"{PROJECTION}.bias" in mapped).items():
        _write_json(target / name, value)


def _sentence_transformer(checkpoint: Checkpoint, target: Path, width: int) -> None:
    kinds = [("Transformer", "")]
    if checkpoint.pooling is not None:
        kinds.append(("Pooling", "1_Pooling"))
        (target / "1_Pooling").mkdir(exist_ok=True)
        ways = {"cls_token": "cls", "mean_tokens": "mean"}
        chosen = {f"pooling_mode_{name}": way == checkpoint.pooling for name, way in ways.items()}
        _write_json(target / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **chosen})
    if checkpoint.normalize:
        kinds.append(("Normalize", "2_Normalize"))
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(kinds)
    ]
    _write_json(target / "modules.json", listed)
    stated = settings.prompts(checkpoint.folder)
    if (checkpoint.query_prompt, checkpoint.prompt) != settings.prompts_of(checkpoint.folder):
        stated = {"prompts": {"query": checkpoint.query_prompt, "document": checkpoint.prompt}}
    if stated:
        _write_json(target / "config_sentence_transformers.json", stated)
    _write_json(target / "sentence_bert_config.json", {"max_seq_length": checkpoint.max_length, "do_lower_case": False})
