"""Rerankers that sentence-transformers saves as modules: ModernBERT, pooling, dense, norm, dense (the ettin family).

Their last three modules are what transformers calls ModernBERT's prediction head and classifier, under other names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossrank.checkpoint import settings, weights
from crossrank.errors import CheckpointError

CHAIN = ("Transformer", "Pooling", "Dense", "LayerNorm", "Dense")
ACTIVATIONS = {"GELU": "gelu", "SiLU": "silu", "ReLU": "relu", "Tanh": "tanh"}


@dataclass(frozen=True, slots=True)
class Head:
    """A classification head in module folders.

    Attributes:
        labels: its outputs.
        config: what transformers' config.json would say of it.
        tensors: transformers' names of its weights, and the file and name where each is.
    """

    labels: int
    config: Mapping[str, Any]
    tensors: Mapping[str, tuple[Path, str]]


def head(folder: Path, architecture: str) -> Head | None:
    """The head in the module folders of `folder`; None when its modules give no scores.

    Raises:
        CheckpointError: the modules give scores in a way that crossrank does not compute, or are damaged.
    """
    listed = settings.modules(folder)
    if not listed or listed[-1][0] != "Dense":
        return None
    last = settings.optional_json(listed[-1][1] / "config.json")
    if last.get("module_output_name") != "scores":
        return None
    kinds = tuple(kind for kind, _ in listed)
    if kinds != CHAIN or architecture != "modernbert":
        raise CheckpointError(
            f"{folder} scores with the sentence-transformers modules {', '.join(kinds)} over {architecture}; crossrank "
            f"computes {', '.join(CHAIN)} over modernbert. Use it through sentence-transformers, or choose another."
        )
    pooling, dense, norm, classifier = (place for _, place in listed[1:])
    first = settings.load_json(dense / "config.json")
    named = ACTIVATIONS.get(str(first.get("activation_function")).removeprefix("torch.nn.modules.activation."))
    plain = last.get("activation_function") == "torch.nn.modules.linear.Identity"
    if named is None or not plain or first.get("use_residual") or last.get("use_residual"):
        raise CheckpointError(
            f"{folder}: its dense modules have activations {first.get('activation_function')}, "
            f"{last.get('activation_function')} or a residual, which crossrank does not compute. Use it through "
            "sentence-transformers, or choose another model."
        )
    tensors = {
        **weights_of(dense, "linear", "head.dense"),
        **weights_of(norm, "norm", "head.norm"),
        **weights_of(classifier, "linear", "classifier"),
    }
    file, name = tensors["classifier.weight"]
    return Head(
        labels=weights.rows(file, name, weights.header(file)[name].shape),
        config={"classifier_pooling": settings.pooling_of(pooling), "classifier_activation": named},
        tensors=tensors,
    )


def weights_of(place: Path, theirs: str, ours: str) -> dict[str, tuple[Path, str]]:
    """Weight and bias of one module under our name, and the file and name where each is; a bias may be absent.

    Raises:
        CheckpointError: the module's file is missing or damaged, has no weight, or holds whole numbers, which no
            backend reads.
    """
    file = place / "model.safetensors"
    names = weights.header(file)
    found = {f"{ours}.{part}": (file, f"{theirs}.{part}") for part in ("weight", "bias") if f"{theirs}.{part}" in names}
    if f"{ours}.weight" not in found:
        raise CheckpointError(f"{file} has no {theirs}.weight. {weights.CURE}")
    for _, name in found.values():
        if names[name].dtype not in weights.FLOATS:
            raise CheckpointError(
                f"{file}: {name} has dtype {names[name].dtype}, which is no weight's. Save the model in float32, "
                "float16 or bfloat16."
            )
    return found
