"""Products of 16-bit integers (native/integers.h): no sum overflows, kernels agree, what is not finite shows."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from crossrank.backends.cpu import library

NATIVE = Path(__file__).parents[2] / "native"
# Instructions of each kernel, and the name of Linux for what the processor must have.
KERNELS = {
    "avx2int16": (["-mavx2", "-mfma"], "avx2"),
    "avxvnni": (["-mavx2", "-mfma", "-mavxvnni"], "avx_vnni"),
    "amxint16": (
        ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mamx-tile", "-mamx-int8"],
        "amx_int8",
    ),
}


@pytest.mark.skipif("avx2" not in library.tiers(), reason="no AVX2 here")
@pytest.mark.skipif(shutil.which("c++") is None or not NATIVE.is_dir(), reason="no C++ compiler or no native sources")
def test_no_sum_leaves_32_bits(tmp_path: Path) -> None:
    try:
        has = Path("/proc/cpuinfo").read_text(encoding="ascii").split()
    except OSError:
        has = ["avx2"]
    made = []
    for name, (flags, needed) in KERNELS.items():
        # A process may be refused the tiles that its processor has.
        if needed in has and (name != "amxint16" or "int16" in library.dtypes("amx_bf16")):
            made.append(tmp_path / f"{name}.o")
            compiled("-c", *flags, NATIVE / f"kernels_{name}.cpp", "-o", made[-1])
    known = [f"-DWITH_{file.stem.upper()}" for file in made]
    program = tmp_path / "integers"
    compiled(*known, Path(__file__).with_name("integers.cpp"), NATIVE / "weights.cpp", *made, "-o", program)
    done = subprocess.run([program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    # Of the longest rows, 65,536 numbers that are all alike; of 384 it is a tenth.
    assert 0 < float(done.stdout) < 0.006


def compiled(*arguments: str | Path) -> None:
    command = ["c++", "-std=c++17", "-O1", f"-I{NATIVE}", *arguments]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
