"""A model folder from the Hugging Face hub or its local cache. Honours HF_HOME, HF_HUB_OFFLINE and the like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub.utils.tqdm import tqdm

from crossrank.errors import CheckpointError

# artifact.metadata is JSON, with the settings of a ColBERT model.
SAFE = ["*.json", "*.txt", "artifact.metadata", "chat_template.jinja", "model.safetensors", "model-*.safetensors"]
SAFE += ["?_*/model.safetensors"]
PICKLE = ["pytorch_model.bin"]


class _Still(tqdm):
    """A progress bar that shows nothing: the library writes to no stream."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["disable"] = True
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]


def folder(name: str, **options: Any) -> Path:
    """The folder of the hub model `name`, downloaded unless the cache has it.

    Only JSON, text and safetensors files are fetched, and pytorch_model.bin only where there is no safetensors file.
    `options` are those of `snapshot_download`: revision, token, cache_dir, local_files_only.

    Raises:
        CheckpointError: the name does not exist, or the network or cache cannot give it; names the cure.
    """
    try:
        place = _snapshot(name, SAFE, options)
        if not any(place.glob("*.safetensors")):
            place = _snapshot(name, SAFE + PICKLE, options)
        return place
    except Exception as error:  # hub, HTTP and file errors have no common base
        first = str(error).strip().partition("\n")[0]
        given = options.get("revision")
        wanted, checked = (f"{name} --revision {given}", "name and revision") if given else (name, "the name")
        raise CheckpointError(
            f"cannot get the model {name!r} from the Hugging Face hub ({type(error).__name__}: {first}). If this "
            f"machine is offline, download it on another with `hf download {wanted}`, copy the folder here and give "
            f"its path. If it is connected, check {checked}, and unset HF_HUB_OFFLINE. `crossrank models` lists the "
            "models that need no network."
        ) from error


def _snapshot(name: str, patterns: list[str], options: dict[str, Any]) -> Path:
    return Path(huggingface_hub.snapshot_download(name, allow_patterns=patterns, tqdm_class=_Still, **options))
