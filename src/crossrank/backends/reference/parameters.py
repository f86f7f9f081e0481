"""A checkpoint's tensors by name, each checked against the shape that the config promises."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import CheckpointError

LARGEST = 100_000_000
OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}  # checkpoints of 2018-2019


class Parameters:
    """Tensors of one model under the names transformers uses, with or without the encoder's prefix."""

    def __init__(self, tensors: Mapping[str, NDArray[np.float32]], prefix: str, where: str) -> None:
        self._where = where
        self._prefix = prefix
        self._tensors = {self._modern(name): tensor for name, tensor in tensors.items()}

    @staticmethod
    def _modern(name: str) -> str:
        for old, new in OLD_NAMES.items():
            if name.endswith(old):
                return name.removesuffix(old) + new
        return name

    def encoder_bias(self, name: str, width: int, stated: object) -> NDArray[np.float32] | None:
        """A bias of the encoder; None when neither the config (`stated`) nor the weights have it."""
        return self.head_bias(self._prefix + name, width, stated)

    def head_bias(self, name: str, width: int, stated: object) -> NDArray[np.float32] | None:
        """A bias by its whole name; None when neither the config (`stated`) nor the weights have it."""
        return self.head(name, width) if stated or name in self._tensors else None

    def encoder(self, name: str, *shape: int) -> NDArray[np.float32]:
        """A tensor of the encoder, named without its prefix."""
        return self.head(self._prefix + name, *shape)

    def head(self, name: str, *shape: int) -> NDArray[np.float32]:
        """A tensor by its whole name.

        Raises:
            CheckpointError: it is missing, or has another shape than the config says.
        """
        tensor = self._tensors.get(name)
        if tensor is None:
            raise CheckpointError(
                f"{self._where}: the weights have no {name}; newly initialised it would make scores random. "
                "Use the complete weight file of the fine-tuned model."
            )
        if tensor.shape != shape:
            raise CheckpointError(
                f"{self._where}: {name} has shape {list(tensor.shape)} but config.json asks for {list(shape)}. "
                "The config and the weights are of two models; copy the folder again."
            )
        return np.ascontiguousarray(tensor, dtype=np.float32)


@contextmanager
def sensible(where: str) -> Iterator[None]:
    """Turn what a value of the wrong kind in config.json causes into a `CheckpointError`.

    Raises:
        MemoryError: memory ran out, which says nothing about the model.
    """
    try:
        yield
    except CheckpointError:
        raise
    except MemoryError as error:
        raise MemoryError(f"not enough memory for the weights of {where} ({error})") from error
    except (TypeError, ValueError, ArithmeticError, AttributeError, LookupError) as error:
        raise CheckpointError(
            f"{where}: config.json has a value that makes no sense ({type(error).__name__}: {error}). Copy the "
            "model again."
        ) from error


def number(config: Mapping[str, Any], key: str, where: str) -> int:
    """A positive whole number from config.json.

    Raises:
        CheckpointError: missing or something else.
    """
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LARGEST:
        raise CheckpointError(f"{where}: config.json has {key} = {value!r}, not a whole number of 1 to {LARGEST}")
    return value
