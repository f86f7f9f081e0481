"""Backends: tokens in, logits or vectors out. `open` is the one place that chooses among them."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable

from crossrank import cores, extras
from crossrank.backends import cpu, cuda, reference, sharing
from crossrank.backends.limits import check_threads
from crossrank.checkpoint import Checkpoint
from crossrank.errors import InputError
from crossrank.types import Backend

NAMES = ("auto", "cpu", "cuda", "reference", "torch", "fake")
DEVICES = ("auto", "cpu", "cuda")
# As torch writes it, the CPU is also "cpu:0".
ON_CPU = ("auto", "cpu", "cpu:0")
DTYPES = ("auto", "float32", "bfloat16", "float16", "int16")
# A GPU's context, and the threads of torch, do not reach over a fork; weights in memory do.
FORKED = ("cuda", "torch")
_open: sharing.Table[Backend] = sharing.Table()


def open(
    checkpoint: Checkpoint,
    name: str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    threads: int | None = None,
) -> Backend:
    """The forward pass of `checkpoint`. A model that is open already, with the same options, is not loaded again.

    So scorers and pipelines of one process share the weights, which are only read. They are freed with the last that
    uses them, and loaded anew where the files have changed.

    Args:
        checkpoint: the model.
        name: `auto`, `cpu` (the native engine; `cpu:avx2` forces an instruction set), `cuda` (the GPU engine, extra
            `gpu`), `reference` (NumPy), `torch` (extra `torch`) or `fake` (no model: a function of the ids).
        device: `auto`, `cpu` or `cuda`, also `cuda:1`; for the cuda backend also `cuda:0,1` or `cuda:all`, which
            divide the work among cards. All but the cuda and the torch backend have only the CPU.
        dtype: `auto`, `float32`, `bfloat16`, `float16` or, in the native engine with AVX2 or AMX, `int16`. `auto` is
            what is fastest where the hardware is faster in it than in float32: bfloat16, float16 on older GPUs, int16
            with AVX2 on Intel's processors and from AMD's Zen 3 on.
        threads: cores that one call of the native engine may use; all when absent.

    Raises:
        InputError: an unknown name, device or dtype, or one that the backend does not have.
        CheckpointError: the backend cannot run this model.
        MissingExtraError: the backend's library is not installed.
    """
    name, tier = _named(name)
    _check(name, tier, device, dtype)
    check_threads(threads)
    chosen = _choose(checkpoint, device, dtype)[0] if name == "auto" else name
    settings, make = _resolved(checkpoint, chosen, tier, device, dtype, threads)
    model = sharing.identity(checkpoint)
    if model is None:
        return make()
    return _open.get((model, chosen, settings, os.getpid() if chosen in FORKED else 0), make)


def _resolved(
    checkpoint: Checkpoint, chosen: str, tier: str, device: str, dtype: str, threads: int | None
) -> tuple[Hashable, Callable[[], Backend]]:
    """What tells one open backend of a model from another, and how it is opened.

    "cuda" is another card after torch.cuda.set_device, so that cards and their formats are looked up each time.
    """
    if chosen == "torch":
        from crossrank.backends import torch  # needs the extra, which the base install leaves out

        place = torch.resolved(device, dtype)
        return place, lambda: torch.Torch(checkpoint, *place)
    if chosen == "cuda":
        places = cuda.places(checkpoint, device, dtype)
        return places, lambda: cuda.open(checkpoint, places)
    _check_cpu(chosen, device, dtype)
    if chosen == "cpu":
        # As they were asked for: a pickle takes what is best where it is read only in the place of what nobody named.
        used = cores.available() if threads is None else threads
        return (tier, dtype, used), lambda: cpu.Native(checkpoint, dtype, tier or None, threads)
    if chosen == "fake":
        from crossrank.backends import fake

        return (), lambda: fake.Fake(checkpoint)
    return (), lambda: reference.Reference(checkpoint)


def _named(name: str) -> tuple[str, str]:
    """A backend's name and its tier; what is no text is refused as a name that is unknown."""
    backend, _, tier = str(name).partition(":")
    return backend, tier


def _check(name: str, tier: str, device: str, dtype: str) -> None:
    if name not in NAMES or (tier and name != "cpu"):
        raise InputError(f"backend must be one of {', '.join(NAMES)}, not {name!r}; only cpu takes a tier: cpu:avx2")
    known = isinstance(device, str) and device.partition(":")[0] in DEVICES
    if not known or (device.startswith("cpu:") and device != "cpu:0"):
        raise InputError(
            f"device must be one of {', '.join(DEVICES)}, or cards as in cuda:1, cuda:0,1 or cuda:all, not {device!r}"
        )
    if dtype not in DTYPES:
        raise InputError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
    if dtype == "int16" and (name in FORKED or device not in ON_CPU):
        raise InputError("int16 is a format of the native engine, on the CPU; use backend='cpu', or dtype='float16'")
    if name == "cuda" and device.startswith("cpu"):
        raise InputError("the cuda backend computes on a GPU, not on the CPU; use backend='cpu'")


def _check_cpu(chosen: str, device: str, dtype: str) -> None:
    """Refuse what the backends that compute on the CPU alone do not have."""
    if device not in ON_CPU:
        raise InputError(f"the {chosen} backend computes on the CPU, not on {device}; use backend='cuda' or 'torch'")
    if chosen != "cpu" and dtype not in ("auto", "float32"):
        others = "'cpu'" if dtype == "int16" else "'cpu' or 'torch'"
        raise InputError(f"the {chosen} backend computes in float32, not in {dtype}; use backend={others}")


def why(checkpoint: Checkpoint, name: str = "auto", device: str = "auto", dtype: str = "auto") -> str:
    """One sentence: which backend these arguments of `open` pick for this checkpoint, and the reason.

    Raises:
        InputError: an unknown name, device or dtype, or one that the backend does not have.
    """
    name, tier = _named(name)
    _check(name, tier, device, dtype)
    if name != "auto":
        if name not in ("torch", "cuda"):
            _check_cpu(name, device, dtype)
        return f"{name} was asked for."
    chosen, reason = _choose(checkpoint, device, dtype)
    if chosen == "torch" and not extras.available("torch"):
        reason += ". It is not installed: pip install 'crossrank[torch]'"
    # Not by itself: the GPU engine has never run on a card, and the CPU's is measured.
    if device == "auto" and cuda.driver.installed():
        reason += ". An NVIDIA driver is here: device='cuda' computes on its GPU"
    return f"auto picks {chosen}: {reason}."


def _choose(checkpoint: Checkpoint, device: str, dtype: str) -> tuple[str, str]:
    """The backend's name and the reason, without loading anything."""
    if device not in ON_CPU:
        return _on_gpu(checkpoint, f"{device} was asked for")
    if dtype == "float16":
        return "torch", f"{dtype} was asked for, and here only torch computes in it"
    obstacle = cpu.obstacle(checkpoint)
    if dtype == "int16":
        return "cpu", f"{dtype} was asked for, and only the native engine computes in it"
    if obstacle is None:
        try:
            tier, found = cpu.choose(None, dtype, checkpoint)
        except InputError as error:
            obstacle = str(error)
        else:
            return "cpu", f"the native engine computes {checkpoint.architecture} here with {tier} in {found}"
    if dtype == "bfloat16":
        return "torch", f"{dtype} was asked for, and the native engine cannot: {obstacle}"
    missing = reference.obstacle(checkpoint)
    if missing is None:
        return "reference", f"it computes {checkpoint.architecture} with NumPy; the native engine cannot: {obstacle}"
    return "torch", f"the native engine and the reference backend cannot: {missing}"


def _on_gpu(checkpoint: Checkpoint, reason: str) -> tuple[str, str]:
    unable = cuda.obstacle(checkpoint)
    if unable is None:
        return "cuda", f"{reason}, and the GPU engine computes {checkpoint.architecture}"
    return "torch", f"{reason}, and the GPU engine cannot: {unable}"
