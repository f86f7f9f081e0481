"""The build itself, of one small file in place of the engine: where may a checkout lie?"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "native"


@pytest.mark.skipif(not SOURCES.is_dir(), reason="the native sources are not here")
@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")
@pytest.mark.skipif(sys.platform != "linux", reason="the version script is for Linux's linkers")
def test_a_checkout_may_lie_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LD_PRELOAD", raising=False)  # Beside a sanitizer's runtime cmake hangs.
    folder = tmp_path / "a, b" / "native"
    folder.mkdir(parents=True)
    for name in ("CMakeLists.txt", "exports.map"):
        shutil.copy(SOURCES / name, folder)
    stub = '__attribute__((visibility("default"))) int crossrank_abi() { return 2; }'
    (folder / "kernels_portable.cpp").write_text(f'extern "C" {stub}\n')
    for command in (["-S", str(folder), "-B", str(tmp_path / "build")], ["--build", str(tmp_path / "build")]):
        done = subprocess.run(["cmake", *command], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
    assert next((tmp_path / "build").glob("libcrossrank.so")).is_file()
