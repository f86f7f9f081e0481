"""Compiles the GPU engine's Triton kernels for a card that is not here, and prints what each takes. Needs Triton.

    python tests/ahead.py

Run by a test in a process of its own: what stands for the driver stays for the process. A line of JSON for each kernel:
its name, bytes of shared memory, and bytes that its threads have to keep in memory for want of registers.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from crossrank.backends.cuda import kernels
from crossrank.backends.cuda.layers import Norm

CAPABILITY = 90


class Absent:
    """A driver without a card."""

    def get_current_target(self):
        return GPUTarget("cuda", CAPABILITY, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device=None):
        return 0


def main() -> None:
    driver.set_active(Absent())
    launch = JITFunction.run
    made = []

    def compiled(self, *args, **kwargs):
        made.append(launch(self, *args, **{**kwargs, "warmup": True}))  # compiled, and not run
        return made[-1]

    JITFunction.run = compiled
    half, fused = torch.bfloat16, kernels.Fused()
    x = torch.zeros(4, 768, dtype=half)
    for bias in (x[0], None):
        fused.add_norm(x, x, Norm(x[0], bias, 1e-5))
        fused.add_and_norm(x, x, Norm(x[0], bias, 1e-5))
    for activation in kernels.CODES:
        fused.gate(x, activation)
    fused.turn(torch.zeros(4, 3, 12, 64, dtype=half), torch.zeros(4, 32), torch.zeros(4, 32))
    for kernel in made:
        found = {"name": kernel.metadata.name, "shared": kernel.metadata.shared, "spilled": spilled(kernel.asm["ptx"])}
        print(json.dumps(found))


def spilled(code: str) -> int:
    """What NVIDIA's assembler, which comes with Triton, says of the stack and of spilled registers."""
    assembler = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(code)
        file.flush()
        command = [str(assembler), "-v", f"--gpu-name=sm_{CAPABILITY}a", file.name, "-o", "/dev/null"]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    counts = re.findall(r"(\d+) bytes (?:stack frame|spill stores|spill loads)", told)
    assert len(counts) >= 3, told
    return sum(map(int, counts))


if __name__ == "__main__":
    main()
