"""Which cards, and which number format on them. Needs the extra `gpu`."""

from __future__ import annotations

from crossrank import extras
from crossrank.errors import InputError

extras.require("torch", extra="gpu")
import torch  # noqa: E402

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Compute capabilities that multiply matrices in the format: Ampere and later, Volta and later.
BFLOAT16_SINCE = (8, 0)
FLOAT16_SINCE = (7, 0)


def unseen() -> str | None:
    """Why torch has no GPU to compute on, as half a sentence; None when it has one."""
    if torch.cuda.is_available():
        return None
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a build without CUDA: install the CUDA build from pytorch.org"
    return "torch sees no GPU: does `nvidia-smi` list it, and does CUDA_VISIBLE_DEVICES not hide it?"


def named(device: str) -> list[torch.device]:
    """The cards that `device` names, each once, in the order given.

    Raises:
        InputError: torch sees no GPU, a card that is not there, or one that is named twice.
    """
    reason = unseen()
    if reason is not None:
        raise InputError(f"the cuda backend needs an NVIDIA GPU, but {reason}. On a CPU, use backend='cpu'.")
    count = torch.cuda.device_count()
    _, _, which = device.partition(":")
    if not which:
        return [torch.device("cuda", torch.cuda.current_device())]
    if which == "all":
        return [torch.device("cuda", i) for i in range(count)]
    numbers = [int(word) if word.isascii() and word.isdigit() else -1 for word in which.split(",")]
    if len(set(numbers)) != len(numbers) or not all(0 <= number < count for number in numbers):
        raise InputError(
            f"device={device!r} must be cuda, cuda:all, or cards that differ out of 0..{count - 1}: cuda:0,1"
        )
    return [torch.device("cuda", number) for number in numbers]


def format_of(dtype: str, capability: tuple[int, int]) -> torch.dtype:
    """The number format that `dtype` names on a card of this compute capability.

    Raises:
        InputError: the card does not multiply in it.
    """
    if dtype == "auto":
        for name, since in (("bfloat16", BFLOAT16_SINCE), ("float16", FLOAT16_SINCE)):
            if capability >= since:
                return DTYPES[name]
        return torch.float32
    if dtype == "bfloat16" and capability < BFLOAT16_SINCE:
        raise InputError(
            f"bfloat16 needs compute capability 8.0 and this card has {capability[0]}.{capability[1]}; use "
            "dtype='float16'"
        )
    return DTYPES[dtype]
