"""Copy a model that is made of sentence-transformers modules, or asked through a prompt: its own files, as they are.

Such a folder cannot be written anew from weights and config. What is copied are the files that say what it is; that
nothing is missing is seen by reading the copy.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from crossrank.checkpoint import settings
from crossrank.checkpoint.reading import read
from crossrank.checkpoint.record import Checkpoint
from crossrank.errors import CheckpointError

SETTINGS = "config_sentence_transformers.json"
INDEX = "model.safetensors.index.json"
FILES = (
    *("config.json", "modules.json", "sentence_bert_config.json", SETTINGS, "generation_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
    *("chat_template.jinja", "chat_template.json", "README.md", "LICENSE", "LICENSE.txt", "NOTICE"),
)
# The name under which an instruction stands among the prompts.
PROMPT = "crossrank"


def assembled(checkpoint: Checkpoint) -> bool:
    """Whether a model is more than a network and its tokenizer: a head in module folders, or a prompt."""
    return (bool(checkpoint.modules) and checkpoint.late is None) or checkpoint.pair is not None


def check(checkpoint: Checkpoint) -> None:
    """Refuse a link to what is none of the model's: whoever gets the copy would get that, too.

    Raises:
        CheckpointError: a file is one.
    """
    folder = checkpoint.folder
    places = [folder.resolve()]
    if folder.parent.name == "snapshots":  # the hub's cache, where all files are links
        places.append((folder.parent.parent / "blobs").resolve())
    for path, _ in _files(checkpoint):
        if not any(path.resolve().is_relative_to(place) for place in places):
            raise CheckpointError(f"{path} is a link out of the model's folder: put the file itself in its place")


def copy(checkpoint: Checkpoint, target: Path) -> None:
    """Write the files of an assembled model to an empty folder, with the instruction that it was loaded with.

    Raises:
        CheckpointError: as `check`; a file cannot be read or written, or the copy is another model.
    """
    check(checkpoint)
    for source, name in _files(checkpoint):
        place = target / name
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, place)
        except OSError as error:
            raise CheckpointError(f"{source} cannot be copied to {place.name} ({error.strerror or error})") from error
    if checkpoint.instruction is not None:
        stated = settings.optional_json(target / SETTINGS)
        prompts = stated.get("prompts")
        prompts = {**(prompts if isinstance(prompts, dict) else {}), PROMPT: checkpoint.instruction}
        stated = {**stated, "prompts": prompts, "default_prompt_name": PROMPT}
        (target / SETTINGS).write_text(json.dumps(stated, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    made = read(target)
    if (made.fingerprint, made.activation) != (checkpoint.fingerprint, checkpoint.activation):
        raise CheckpointError(
            f"{checkpoint.folder} is laid out as crossrank cannot copy it: the copy would be another model. Copy the "
            "folder itself, and write crossrank.json into it by hand (docs/tuning.md says how)."
        )


def _files(checkpoint: Checkpoint) -> Iterator[tuple[Path, Path]]:
    """The files of a model, and the name that each has in the copy."""
    folder = checkpoint.folder
    for name in FILES:
        if (folder / name).is_file():
            yield folder / name, Path(name)
    for _, place in settings.modules(folder):
        if place != folder and (place / "config.json").is_file():
            yield place / "config.json", (place / "config.json").relative_to(folder)
    for path in sorted({path for path, _ in checkpoint.modules.values()}):
        yield path, path.relative_to(folder)
    if len(checkpoint.weights) == 1 and checkpoint.weights[0].suffix == ".safetensors":
        yield checkpoint.weights[0], Path("model.safetensors")  # also one that the caller named
        return
    if (folder / INDEX).is_file():
        yield folder / INDEX, Path(INDEX)
    for path in checkpoint.weights:
        yield path, path.relative_to(folder)
