"""The model as torch trains it: only its upper layers and head move, and it comes back as an ordinary checkpoint.

Attention is eager and numbers are bfloat16 under autocast on a processor that has them: the fused CPU attention's
backward pass costs three times all matrix products together. Dropout is off, so that a resumed training is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from crossrank import checkpoint
from crossrank.backends.torch import model_of, padding_of, typed
from crossrank.batching import plan
from crossrank.checkpoint import Checkpoint, settings
from crossrank.checkpoint.exporting import write_weights
from crossrank.errors import CheckpointError
from crossrank.extras import require
from crossrank.types import Tokens

require("torch", extra="train")
import torch  # noqa: E402

# Tokens of one forward pass, padding included: about 1 GB of activations in a step of a MiniLM.
MICROBATCH = 4096
# On a processor so few are as fast, a token, as more, and less of them is padding: 40 sequences of 22 to 128 tokens
# take 4.3 s of a core, in passes of 4,096 8.8 (AVX2, float32). In bfloat16 (AMX) twice as many are 1.2 times as fast.
ENOUGH, ENOUGH_LOW = 512, 1024
Weights = Mapping[str, torch.Tensor]


class Network:
    """A cross-encoder whose upper `layers` and head can be trained.

    Args:
        read: its checkpoint.
        layers: how many layers are trained, from the last; all of them when there are no more.
        device: "cpu", "cuda" or "auto".

    Raises:
        CheckpointError: transformers cannot load it, or its layers cannot be told.
    """

    def __init__(self, read: Checkpoint, layers: int, device: str = "auto") -> None:
        chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self.read = read
        self._device = torch.device(chosen)
        self._model: Any = model_of(read, "eager").to(self._device, torch.float32).eval()
        self._padding = padding_of(self._model, read)
        self._typed = typed(self._model, read)
        self._low = chosen != "cpu" or torch.backends.cpu.get_cpu_capability() == "AVX512"
        self._pass = MICROBATCH if chosen != "cpu" else ENOUGH_LOW if self._low else ENOUGH
        depth = depth_of(read)
        self._model.requires_grad_(True)
        self._model.base_model.requires_grad_(False)
        for layer in _layers(self._model.base_model, depth)[depth - min(layers, depth) :]:
            layer.requires_grad_(True)
        for name, part in self._model.base_model.named_children():
            if name in ("pooler", "final_norm"):
                part.requires_grad_(True)
        self.begun = self.weights()

    @property
    def trained(self) -> dict[str, torch.nn.Parameter]:
        """What is trained, by its name."""
        return {name: weight for name, weight in self._model.named_parameters() if weight.requires_grad}

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy of what is trained."""
        return {name: weight.detach().cpu().clone() for name, weight in self.trained.items()}

    def take(self, weights: Weights) -> None:
        """Set what is trained."""
        with torch.no_grad():
            for name, weight in self.trained.items():
                weight.copy_(weights[name])

    def logits(self, tokens: Tokens) -> torch.Tensor:
        """Raw scores with their gradients, shape (n,), float32; two labels give log-odds.

        Sequences of like length share a pass, so that little is padding.
        """
        parts = []
        batches = plan(_widths(tokens.lengths), self._pass, padded=True)
        for batch in batches:
            with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._low):
                found = self._model(**self._batch(tokens.take(batch))).logits.float()
            parts.append(found[:, 0] if self.read.labels == 1 else found[:, 1] - found[:, 0])
        return torch.cat(parts)[torch.from_numpy(np.argsort(np.concatenate(batches)))]

    def _batch(self, tokens: Tokens) -> dict[str, torch.Tensor]:
        lengths = tokens.lengths
        width = min(int(_widths(lengths).max()), self.read.max_length)
        mask = np.arange(width)[None, :] < lengths[:, None]
        ids = np.full(mask.shape, self._padding, dtype=np.int64)
        ids[mask] = tokens.ids
        arrays = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
        if self._typed:
            arrays["token_type_ids"] = np.zeros_like(ids)
            arrays["token_type_ids"][mask] = tokens.types
        return {name: torch.from_numpy(array).to(self._device) for name, array in arrays.items()}

    def write(self, weights: Weights, folder: Path) -> None:
        """An ordinary checkpoint folder with these weights in place of the base model's; over what is there."""
        checkpoint.export(self.read, folder, overwrite=True)
        every = {name: tensor.float().cpu() for name, tensor in self._model.state_dict().items()}
        every.update({name: tensor.float() for name, tensor in weights.items()})
        arrays = {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in every.items()}
        write_weights(arrays, folder / "model.safetensors")


def _widths(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Multiples of 16: oneDNN keeps a primitive for every shape it has met, so few shapes keep memory in bounds."""
    return -(-lengths // 16) * 16


def mixed(base: Weights, tuned: list[Weights], share: float) -> dict[str, torch.Tensor]:
    """base + share * (mean of tuned - base), weight by weight.

    Source: the mean is a model soup (Wortsman et al. 2022), the mix with the base is WiSE-FT (Wortsman et al. 2021).

    >>> float(mixed({"w": torch.tensor(1.0)}, [{"w": torch.tensor(2.0)}, {"w": torch.tensor(4.0)}], 0.5)["w"])
    2.0
    """
    return {
        name: weight + share * (torch.stack([one[name] for one in tuned]).mean(0) - weight)
        for name, weight in base.items()
    }


def save(weights: Weights, path: Path) -> None:
    """Write weights whole or not at all."""
    write_weights({name: tensor.contiguous().numpy() for name, tensor in weights.items()}, path)


def load(path: Path) -> dict[str, torch.Tensor]:
    """Weights that `save` wrote."""
    return {name: torch.from_numpy(array) for name, array in load_file(path).items()}


def depth_of(read: Checkpoint) -> int:
    """How many layers a model has.

    Raises:
        CheckpointError: its config does not say.
    """
    found = settings.depth(read.config)
    if found is None:
        raise CheckpointError(f"{read.name} does not say how many layers it has, so it cannot be tuned")
    return found


def _layers(encoder: Any, depth: int) -> list[Any]:
    """The layers, first to last: the module list of that length."""
    for part in encoder.modules():
        if isinstance(part, torch.nn.ModuleList) and len(part) == depth:
            return list(part)
    raise CheckpointError(f"no list of {depth} layers was found in {type(encoder).__name__}, so it cannot be tuned")
