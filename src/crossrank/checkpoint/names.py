"""Weights under the names of code that models bring along, brought under those of transformers. None of it is run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class Names:
    """How one code names weights.

    Attributes:
        mark: part of a name by which these names are known.
        parts: parts of its names, and of transformers', with the dots around them.
        joined: matrices that stand on one another in one of its weights, by transformers' names, from the first row on.
    """

    mark: str
    parts: tuple[tuple[str, str], ...]
    joined: Mapping[str, tuple[str, ...]]


# By the architecture, as transformers calls it. Alibaba's GTE (also what transformers itself saves), and Jina's XLM-R
# (jina-reranker-v2-base-multilingual), whose names are those of vLLM's mapper, too.
THEIRS: Mapping[str, Names] = {
    "gte": Names(
        mark=".attn_ln.",
        parts=(
            (".new.", ".gte."),
            (".encoder.layer.", ".layers."),
            (".attention.", ".self_attn."),
            (".attn_ln.", ".post_attention_layernorm."),
            (".mlp_ln.", ".post_mlp_layernorm."),
        ),
        joined={
            ".self_attn.qkv_proj.": tuple(f".self_attn.{part}_proj." for part in "qkv"),
            ".mlp.up_gate_proj.": (".mlp.up_proj.", ".mlp.gate_proj."),
        },
    ),
    "xlm-roberta": Names(
        mark=".mixer.Wqkv.",
        parts=(
            (".emb_ln.", ".embeddings.LayerNorm."),
            (".encoder.layers.", ".encoder.layer."),
            (".mixer.out_proj.", ".attention.output.dense."),
            (".norm1.", ".attention.output.LayerNorm."),
            (".mlp.fc1.", ".intermediate.dense."),
            (".mlp.fc2.", ".output.dense."),
            (".norm2.", ".output.LayerNorm."),
        ),
        joined={".mixer.Wqkv.": tuple(f".attention.self.{part}." for part in ("query", "key", "value"))},
    ),
}


def foreign(architecture: str, names: Iterable[str]) -> bool:
    """Are these names of a code of the model's own?

    >>> foreign("xlm-roberta", ["roberta.encoder.layers.0.mixer.Wqkv.weight"]), foreign("bert", ["any"])
    (True, False)
    """
    theirs = THEIRS.get(architecture)
    return theirs is not None and any(theirs.mark in name for name in names)


def given(architecture: str, name: str) -> str:
    """The name that transformers gives a weight; of matrices that stand on one another, not yet that of each.

    >>> given("gte", "new.encoder.layer.0.attn_ln.bias")
    'gte.layers.0.post_attention_layernorm.bias'
    """
    name = f".{name}"  # so that its first part is one like the others
    for old, new in THEIRS[architecture].parts if architecture in THEIRS else ():
        name = name.replace(old, new)
    return name[1:]


def renamed(architecture: str, found: Mapping[str, NDArray[np.float32]], where: str) -> dict[str, NDArray[np.float32]]:
    """The weights under transformers' names; as they are where they have these.

    Raises:
        CheckpointError: matrices that stand on one another cannot be told apart.
    """
    if not foreign(architecture, found):
        return dict(found)
    if odd := next((name for name in found if ".parametrizations." in name), None):
        raise CheckpointError(
            f"{where}: {odd} is of adapters within weights, which crossrank does not compute. Use the model through "
            "its own code, or choose another."
        )
    theirs = THEIRS[architecture]
    named: dict[str, NDArray[np.float32]] = {}
    for one, tensor in found.items():
        name = given(architecture, one)
        joined = next((part for part in theirs.joined if part in name), None)
        if joined is None:
            named[name] = tensor
            continue
        parts = theirs.joined[joined]
        if not tensor.ndim or len(tensor) % len(parts):
            raise CheckpointError(
                f"{where}: {name} has shape {list(tensor.shape)}, which are not {len(parts)} matrices on one another. "
                "Copy the model again."
            )
        named.update(zip((name.replace(joined, part) for part in parts), np.split(tensor, len(parts)), strict=True))
    return named
