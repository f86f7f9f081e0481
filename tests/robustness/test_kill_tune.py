"""kill -9 in the middle of a tuning, and the same command again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

for library in ("torch", "transformers", "bm25s", "ir_measures"):
    pytest.importorskip(library, reason="needs the extra train")

pytestmark = [
    pytest.mark.torch,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL"),
]
ASKED = ["--backend", "reference", "--device", "cpu", "--threads", "1", "--max-tokens", "32", "--rate", "0.005",
         "--epochs", "2", "--repeats", "1", "--most-loss", "1"]  # fmt: skip
# Of nine modules of Python, not ninety: each of the three processes would parse them all.
PROGRAM = (
    "from crossrank.training import general, loop, prepared\n"
    "prepared.MEASURED = prepared.REMEMBERED = 4; loop.STATE_SECONDS = 0.0; general.MODULES = general.MODULES[:9]\n"
    "from crossrank.cli import main; main()"
)


def data(path: Path) -> Path:
    """45 queries whose relevant documents speak of bread."""
    rng = np.random.default_rng(0)
    found = [
        {"query": f"what is {q}", "document": f"{'bread yeast' if d == 0 else 'cat planet'} {q} {rng.integers(99)}",
         "label": int(d == 0)}
        for q in range(45) for d in range(4)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    return path


def test_killed_and_again_ends_with_the_same_model(tmp_path: Path, cross_encoder_folder: Path) -> None:
    asked = ["tune", str(data(tmp_path / "data.jsonl")), "--model", str(cross_encoder_folder), *ASKED, "--to"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def start(to: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", PROGRAM, *asked, str(to)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    _, err = (whole := start(tmp_path / "whole")).communicate(timeout=200)
    assert whole.returncode == 0, err
    killed = start(tmp_path / "killed")
    state = tmp_path / "killed.tuning" / "run-0-1" / "state.pt"
    deadline = time.monotonic() + 200
    while not state.exists() and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert (tmp_path / "killed.tuning" / "run-0-0" / "done").exists()
    assert not (tmp_path / "killed").exists()
    _, err = (again := start(tmp_path / "killed")).communicate(timeout=200)
    assert again.returncode == 0, err
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert json.loads((tmp_path / "killed" / "crossrank.json").read_text(encoding="utf-8"))["tuning"]["resumed"]
