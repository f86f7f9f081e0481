"""Weights from a pickle checkpoint, through torch's weights-only loader. Needs the extra `torch`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crossrank import extras
from crossrank.errors import CheckpointError

extras.require("torch", extra="torch")
import torch  # noqa: E402

CURE = "Save the model again as model.safetensors, with save_pretrained of transformers."
# Tensors over one storage, each as long as all of it: T5 has four names for its embeddings.
MOST_SHARED = 8
SAFE_SINCE = (2, 6)  # CVE-2025-32434: before torch 2.6, weights_only=True could still run code from the file


def load(path: Path) -> dict[str, NDArray[np.float32]]:
    """The floating-point tensors of a pickle checkpoint as float32.

    Raises:
        CheckpointError: torch is too old to read it safely, or the file is damaged, holds more than weights, or
            tensors that are no plain arrays of its own size.
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
    found = {
        str(name): tensor
        for name, tensor in state.items()
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point()
    }
    _check_sizes(path, found)
    try:
        return {name: tensor.detach().to(torch.float32).contiguous().numpy() for name, tensor in found.items()}
    except (RuntimeError, TypeError) as error:
        raise CheckpointError(f"{path} holds tensors that are no float32 ({error}). {CURE}") from error


def _check_sizes(path: Path, found: Mapping[str, torch.Tensor]) -> None:
    """Refuse what would take other memory than the file has bytes: a tensor may repeat one number any number of times.

    Raises:
        CheckpointError: a tensor is no plain array, or has more numbers than its storage; or many share one storage.
    """
    read: Counter[int] = Counter()
    for name, tensor in found.items():
        if tensor.layout != torch.strided or tensor.is_nested or tensor.device.type != "cpu":
            raise CheckpointError(f"{path}: tensor {name!r} is sparse, nested or without data. {CURE}")
        storage = tensor.untyped_storage()
        numbers = storage.nbytes() // tensor.element_size()
        read[storage.data_ptr()] += tensor.numel()
        if tensor.numel() > numbers or read[storage.data_ptr()] > MOST_SHARED * numbers:
            raise CheckpointError(f"{path}: tensor {name!r} has more numbers than the file holds for it. {CURE}")
