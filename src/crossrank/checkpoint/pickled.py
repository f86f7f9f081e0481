"""Weights from a pickle checkpoint, through torch's weights-only loader. Needs the extra `torch`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crossrank import extras
from crossrank.errors import CheckpointError

extras.require("torch", extra="torch")
import torch  # noqa: E402

SAFE_SINCE = (2, 6)  # CVE-2025-32434: before torch 2.6, weights_only=True could still run code from the file


def load(path: Path) -> dict[str, NDArray[np.float32]]:
    """The floating-point tensors of a pickle checkpoint as float32.

    Raises:
        CheckpointError: torch is too old to read it safely, or the file is damaged or holds more than weights.
    """
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2] if part.isdigit())
    if version < SAFE_SINCE:
        raise CheckpointError(
            f"{path} is a pickle, which torch {torch.__version__} cannot read safely (CVE-2025-32434). Install torch "
            "2.6 or later, or use a folder with model.safetensors."
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises whatever the damage causes
        raise CheckpointError(
            f"{path} cannot be read by torch's weights-only loader ({type(error).__name__}). It is damaged or holds "
            "code; use a folder with model.safetensors."
        ) from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds a {type(state).__name__}, not a table of weights")
    return {
        str(name): tensor.detach().to(torch.float32).contiguous().numpy()
        for name, tensor in state.items()
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point()
    }
