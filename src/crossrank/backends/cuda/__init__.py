"""The GPU engine: the forward pass on an NVIDIA GPU over packed sequences. Needs the extra `gpu`.

Nothing here imports torch before a model is opened, so that a machine without a GPU pays nothing. `reference` says what
is computed; the engine takes the weights that `reference` has read and checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from crossrank import extras
from crossrank.backends import reference
from crossrank.backends.cuda import driver
from crossrank.checkpoint import Checkpoint
from crossrank.errors import CheckpointError
from crossrank.types import TokenBackend

if TYPE_CHECKING:
    from crossrank.backends.cuda.layers import Place

__all__ = ["driver", "obstacle", "open", "places", "unseen"]


def obstacle(checkpoint: Checkpoint) -> str | None:
    """Why the GPU engine cannot compute the checkpoint, as half a sentence; None when it can."""
    return reference.obstacle(checkpoint)


def unseen() -> str | None:
    """Why no GPU can be used here, as half a sentence; None when torch sees one.

    torch is imported only where the NVIDIA driver is installed: it takes seconds.
    """
    if not driver.installed():
        return "this machine has no NVIDIA driver"
    if not extras.available("torch"):
        return "torch is not installed: pip install 'crossrank[gpu]'"
    from crossrank.backends.cuda import devices  # needs the extra

    return devices.unseen()


def places(checkpoint: Checkpoint, device: str = "auto", dtype: str = "auto") -> tuple[Place, ...]:
    """The cards that these names mean now, and the number format on each.

    Args:
        checkpoint: the model.
        device: `auto` or `cuda` (torch's current card), `cuda:1`, `cuda:0,2` (those two) or `cuda:all`.
        dtype: `auto`, `float32`, `bfloat16` or `float16`. `auto` is bfloat16 where the card multiplies in it, else
            float16, and float32 on cards older than both.

    Raises:
        MissingExtraError: torch is not installed.
        InputError: torch sees no GPU, or not the ones that are named.
        CheckpointError: the architecture is not one of the engine's.
    """
    extras.require("torch", extra="gpu")
    reason = obstacle(checkpoint)
    if reason is not None:
        raise CheckpointError(
            f"the cuda backend cannot run {checkpoint.name!r}: {reason}. Use backend='torch' "
            "(pip install 'crossrank[torch]'), which runs it on a GPU, too."
        )
    from crossrank.backends.cuda import cards

    return cards.places(device, dtype)


def open(checkpoint: Checkpoint, places: Sequence[Place]) -> TokenBackend:
    """The model on one card, or on several behind one scorer; `places` says which."""
    from crossrank.backends.cuda import cards

    return cards.open(checkpoint, places)
