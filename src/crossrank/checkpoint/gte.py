"""GTE (Zhang et al. 2024, mGTE), whose models on the hub bring their code along: read here, and none of it is run.

They are called `new` or `gte` in config.json. From here on all have the settings of transformers, and its names of
weights (`names`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crossrank.errors import CheckpointError

NAME = "gte"
# What a config that leaves it out means, by its name: that code's defaults, and transformers'.
SIZES = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "new": {**SIZES, "vocab_size": 30_528, "max_position_embeddings": 2048, "type_vocab_size": 1},
    NAME: {**SIZES, "vocab_size": 250_048, "max_position_embeddings": 8192, "type_vocab_size": 1},
}
THETA = {"new": 10_000.0, NAME: 160_000.0}
# What that code can do and nothing here does, with the one value that is computed.
ONLY: Mapping[str, Any] = {
    "position_embedding_type": "rope", "layer_norm_type": "layer_norm", "logn_attention_scale": False,
}  # fmt: skip
# Settings of that code that say nothing about what is computed, or that are said otherwise from here on.
DROPPED = frozenset(
    {"auto_map", "pack_qkv", "unpad_inputs", "use_memory_efficient_attention", "logn_attention_clip1", "rope_theta",
     "rope_scaling", *ONLY}
)  # fmt: skip
CLASSES = "New", "Gte"


def config(stated: Mapping[str, Any], where: str) -> dict[str, Any]:
    """config.json of a GTE as transformers 5 writes it.

    >>> found = config({"model_type": "new", "rope_theta": 20000, "rope_scaling": {"type": "ntk", "factor": 8}}, "here")
    >>> found["model_type"], found["rope_parameters"]["rope_theta"], round(found["rope_parameters"]["factor"], 4)
    ('gte', 160000.0, 1.0671)

    Raises:
        CheckpointError: it asks for what neither transformers nor crossrank computes.
    """
    for key, only in ONLY.items():
        if stated.get(key, only) not in (only, None):
            raise CheckpointError(
                f"{where}: config.json has {key} = {stated[key]!r}, and crossrank computes GTE with {only!r}. Use the "
                "model through its own code, or choose another."
            )
    kept = {key: value for key, value in stated.items() if key not in DROPPED}
    found = {**DEFAULTS[stated["model_type"]], **kept, "model_type": NAME}
    if isinstance(names := stated.get("architectures"), list):
        found["architectures"] = [str(name).replace(*CLASSES, 1) for name in names]
    if not isinstance(stated.get("rope_parameters"), dict):
        found["rope_parameters"] = _rotary(stated, found, where)
    return found


def _rotary(stated: Mapping[str, Any], found: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What transformers calls that code's rotary positions.

    Its NTK scaling by s (https://kexue.fm/archives/9706) is a base s times as large, and all angles divided by
    s^(2 / head size); the second is transformers' "linear".
    """
    theta, scaling = stated.get("rope_theta", THETA[stated["model_type"]]), stated.get("rope_scaling")
    try:
        if not scaling or scaling.get("type", scaling.get("rope_type")) == "default":
            return {"rope_type": "default", "rope_theta": float(theta)}
        factor, size = float(scaling["factor"]), found["hidden_size"] // found["num_attention_heads"]
        if scaling.get("type", scaling.get("rope_type")) != "ntk" or scaling.get("mixed_b") is not None:
            raise CheckpointError(
                f"{where}: config.json has rope_scaling = {dict(scaling)!r}, and crossrank computes GTE with type 'ntk'"
                " without mixed_b. Use the model through its own code, or choose another."
            )
        if factor <= 1:
            return {"rope_type": "default", "rope_theta": float(theta)}
        return {"rope_type": "linear", "rope_theta": float(theta) * factor, "factor": factor ** (2 / size)}
    except CheckpointError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError) as error:
        raise CheckpointError(
            f"{where}: config.json has rope_theta = {theta!r} and rope_scaling = {scaling!r}, which make no sense "
            f"({type(error).__name__}: {error}). Copy the model again."
        ) from error
