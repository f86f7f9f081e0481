"""The AMX tier on emulated tiles, where the machine has none: its arithmetic and its layout, not its speed."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import crossrank
import tiny
from crossrank.backends.cpu import library

SOURCES = Path(__file__).parents[2] / "native"

pytestmark = pytest.mark.skipif(not SOURCES.is_dir(), reason="the native sources are not here")

COMPARE = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[2])
import tiny
from pathlib import Path
from crossrank import backends
from crossrank.checkpoint import read

assert "amx_bf16" in backends.cpu.tiers()
for heads, size, inner, far in [
    (4, 32, 200, False), (2, 64, 65, False), (3, 24, 96, False), (1, 2, 7, False), (2, 32, 777, False),
    (4, 32, 201, True), (2, 64, 66, True)
]:
    shape = {"hidden_size": heads * size, "num_attention_heads": heads, "intermediate_size": inner}
    folder = tiny.cross_encoder(Path(sys.argv[1]) / f"{heads}-{inner}", **shape)
    if far:
        # The same for all keys of a query: softmax ignores it, if it subtracts. Scores are up to some hundreds now.
        tensors = tiny.weights({**tiny.CONFIG, **shape}, 1)
        for name in tensors:
            if name.endswith("self.key.bias"):
                tensors[name] += 8
        tiny.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    tokens = tiny.random_tokens([1, 2, 15, 16, 17, 31, 32, 33, 63, 64] * 3)
    tiles = backends.open(read(folder), "cpu:amx_bf16", dtype="bfloat16")
    plain = backends.open(read(folder), "cpu:avx512", dtype="bfloat16")
    exact = backends.open(read(folder), "cpu:avx512", dtype="float32")
    integers = backends.open(read(folder), "cpu:amx_bf16", dtype="int16")
    for got, true in (
        (integers.forward(tokens), exact.forward(tokens)), (integers.states(tokens), exact.states(tokens))
    ):
        assert np.abs(got - true).max() < 0.005 * max(1.0, float(np.abs(true).max()))
    for got, want, true in (
        (tiles.forward(tokens), plain.forward(tokens), exact.forward(tokens)),
        (tiles.pool(tokens, "mean"), plain.pool(tokens, "mean"), exact.pool(tokens, "mean")),
        (tiles.states(tokens), plain.states(tokens), exact.states(tokens)),
    ):
        # Both read the same bfloat16 and add in float32, in another order; a rounding that differs moves on.
        spread = 0.06 * max(1.0, float(np.abs(want).max()), 0.3 * (heads * size) ** 0.5)
        assert np.abs(got - want).max() < spread, (heads, size, np.abs(got - want).max())
        # Neither is further from float32 than the other. Thirty scores of one model differ by chance: of 48 models,
        # whose mean errors were equal, one had 1.28 times the other's.
        error, other = (float(np.sqrt(np.mean((x - true) ** 2))) for x in (got, want))
        assert error < (1.25 if got.size > 100 else 1.6) * other + 1e-6, (heads, size, error, other)
    # One sequence's rows divided among threads, at whole tiles.
    one = backends.open(read(folder), "cpu:amx_bf16", dtype="bfloat16", threads=1)
    three = backends.open(read(folder), "cpu:amx_bf16", dtype="bfloat16", threads=3)
    np.testing.assert_array_equal(three.states(tokens.take([9])), one.states(tokens.take([9])))
    alone = np.concatenate([tiles.forward(tokens.take([i])) for i in range(len(tokens))])
    np.testing.assert_array_equal(tiles.forward(tokens), alone)
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")
@pytest.mark.skipif(
    "avx512" not in library.tiers() or "bfloat16" not in library.dtypes("avx512"),
    reason="the rest of the AMX tier is AVX512-BF16, which this machine has not",
)
def test_emulated_tiles_compute_what_avx512_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LD_PRELOAD", raising=False)  # Beside a sanitizer's runtime cmake hangs.
    build = tmp_path / "build"
    # Without the tier that is not compared: it takes a fifth of the time.
    options = ["-DCROSSRANK_EMULATE_TILES=ON", "-DCROSSRANK_COMPILES_AVX2=OFF"]
    configure = ["cmake", "-S", str(SOURCES), "-B", str(build), *options]
    subprocess.run(configure, check=True, capture_output=True, timeout=120)
    subprocess.run(["cmake", "--build", str(build), "-j2"], check=True, capture_output=True, timeout=280)
    package = tmp_path / "site" / "crossrank"
    leave_out = shutil.ignore_patterns("weights", "libcrossrank.*", "__pycache__")
    shutil.copytree(Path(crossrank.__file__).parent, package, ignore=leave_out)
    shutil.copy(next(build.glob("libcrossrank.*")), package / "backends" / "cpu")
    command = [sys.executable, "-c", COMPARE, str(tmp_path), str(Path(tiny.__file__).parent)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={"PYTHONPATH": str(package.parent), "PATH": ""}
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="tiles are an x86's")
@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler")
@pytest.mark.parametrize("level", ["-O1", "-O2", "-O3"])
def test_what_tile_instructions_read_is_in_memory(tmp_path: Path, level: str) -> None:
    program = tmp_path / "tiles"
    command = ["c++", "-std=c++17", level, f"-I{SOURCES}", str(Path(__file__).with_name("tiles.cpp")), "-o", program]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    done = subprocess.run([program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stdout
