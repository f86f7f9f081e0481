"""benchmarks/same_answers.py never passes when it compared nothing; what it measures is tested in tests/native."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from crossrank.backends.cpu import library

pytest.importorskip("ir_measures", reason="needs the extra eval")
pytest.importorskip("lance", reason="needs the extra search")

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="benchmarks/ is not in this distribution"),
    pytest.mark.skipif(library.obstacle() is not None, reason=f"no native library: {library.obstacle()}"),
]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, str(ROOT / "benchmarks" / "same_answers.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_a_folder_without_known_sets_is_no_pass(tmp_path: Path) -> None:
    done = run(str(tmp_path), "--cache", str(tmp_path / "cache"))
    assert done.returncode == 1
    assert done.stderr.startswith(f"no known set in {tmp_path}; it needs one subfolder a set: trec_dl19")


def test_a_mistyped_set_is_named(tmp_path: Path) -> None:
    done = run(str(tmp_path), "--cache", str(tmp_path / "cache"), "--sets", "wikqa")
    assert done.returncode == 1
    assert done.stderr.startswith(f"no such set in {tmp_path}: wikqa. Known: ")


def test_the_judge_alone_is_nothing_to_compare(tmp_path: Path) -> None:
    tier = "avx512" if library.tiers()[-1] == "amx_bf16" else library.tiers()[-1]
    done = run(str(tmp_path), "--cache", str(tmp_path / "cache"), "--kinds", f"{tier}=float32")
    assert done.returncode == 1
    assert done.stderr.startswith(f"nothing to compare: {tier}=float32 is what judges")
