"""Which errors mean that a card's memory, or pinned memory, ran out. Needs the extra `gpu`."""

from __future__ import annotations

from crossrank import extras

extras.require("torch", extra="gpu")
import torch  # noqa: E402

# What torch.AcceleratorError, Triton and cuBLAS say, all of them RuntimeErrors. cuBLAS has errors of its own for the
# memory of its handle and of its workspace.
TOLD = ("out of memory", "CUBLAS_STATUS_NOT_INITIALIZED", "CUBLAS_STATUS_ALLOC_FAILED")


def ran_out(error: BaseException) -> bool:
    """Was it memory? Also where ending a capture has raised an error of its own on top.

    >>> ran_out(RuntimeError("Triton Error [CUDA]: out of memory")), ran_out(RuntimeError("device-side assert"))
    (True, False)
    """
    if error.__context__ is not None and ran_out(error.__context__):
        return True
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in TOLD)
