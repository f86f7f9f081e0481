"""The quality gate on real judgments: faster tiers and dtypes give float32's answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from crossrank.backends.cpu import library

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "same_answers.py"
DATA = os.environ.get("CROSSRANK_TEST_DATA", "")
SETS = ("noveleval", "cacm")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(library.obstacle() is not None, reason=f"no native library: {library.obstacle()}"),
    pytest.mark.skipif(
        not DATA or not all((Path(DATA) / name).is_dir() for name in SETS),
        reason=f"CROSSRANK_TEST_DATA names no folder with {' and '.join(SETS)}",
    ),
]


def test_every_tier_and_dtype_gives_the_answers_of_float32(tmp_path: Path) -> None:
    pytest.importorskip("lance", reason="needs the search extra")
    out = tmp_path / "result.json"
    command = [sys.executable, str(SCRIPT), DATA, "--cache", str(tmp_path / "cache"), "--out", str(out)]
    done = subprocess.run([*command, "--queries", "10", "--sets", *SETS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"]
    assert {row["set"] for row in rows} == set(SETS)
