"""kill -9 of a bulk reranking and of its workers, on this machine and on a local Ray cluster, and the command again."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crossrank import extras
from tiny import WORDS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked for in /proc"),
]
PAIRS = 3_000
DEADLINE = 280
WAYS = [
    pytest.param([], id="one"),
    pytest.param(["--workers", "2"], id="processes"),
    pytest.param(
        ["--workers", "2", "--ray", "local"],
        id="ray",
        marks=pytest.mark.skipif(not extras.available("ray"), reason="needs the ray extra"),
    ),
]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of pairs."""
    dice = random.Random(0)
    file = tmp_path_factory.mktemp("rows") / "pairs.jsonl"
    with file.open("w", encoding="utf-8") as stream:
        for place in range(PAIRS):
            text = " ".join(dice.choices(WORDS[:-1], k=dice.randint(5, 50)))
            row = {"query_id": f"q{place % 30}", "query": f"what is {place % 30}?", "document_id": f"d{place}"}
            stream.write(json.dumps({**row, "text": text}) + "\n")
    return file


@pytest.fixture(scope="module")
def whole(rows: Path, cross_encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of them that nobody disturbs."""
    to = tmp_path_factory.mktemp("whole") / "work"
    assert finished(start(rows, cross_encoder_folder, to, ["--workers", "0"]))["scored"] == PAIRS
    return to


def start(rows: Path, model: Path, to: Path, how: list[str]) -> subprocess.Popen[str]:
    asked = ["bulk", "rerank", str(rows), "--to", str(to), "-m", str(model), "--part-tokens", "2000", "--json", *how]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "crossrank.cli", *asked]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen[str]) -> dict[str, int]:
    out, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, err
    found: dict[str, int] = json.loads(out)
    return found


def until(there: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not there() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    assert there(), process.communicate()[1] if process.poll() is not None else "nothing happened"


def done(to: Path) -> int:
    return len([file for file in to.glob("parts/*") if file.suffix != ".part"])


def below(process: int) -> Iterator[int]:
    """The processes that a process started, and theirs."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")
        except OSError:
            continue
        if int(fields.split()[1]) == process:
            yield int(stat.parent.name)
            yield from below(int(stat.parent.name))


def workers(process: int) -> list[int]:
    """Those of them that score: spawned ones, or Ray's actors."""
    found = []
    for child in below(process):
        try:
            command = Path(f"/proc/{child}/cmdline").read_bytes()
        except OSError:
            continue
        if b"spawn_main" in command or b"ray::MapWorker" in command:
            found.append(child)
    return found


def check_same(to: Path, whole: Path) -> None:
    """Every part once, every byte as in the run that nobody disturbed."""
    names = sorted(str(file.relative_to(whole)) for file in (*whole.glob("parts/*"), whole / "ranking.jsonl"))
    assert sorted(str(file.relative_to(to)) for file in (*to.glob("parts/*"), to / "ranking.jsonl")) == names
    assert [name for name in names if (to / name).read_bytes() != (whole / name).read_bytes()] == []


@pytest.mark.timeout(3 * DEADLINE)
@pytest.mark.parametrize("how", WAYS)
def test_the_leading_process_is_killed(
    how: list[str], rows: Path, whole: Path, cross_encoder_folder: Path, tmp_path: Path
) -> None:
    to = tmp_path / "work"
    killed = start(rows, cross_encoder_folder, to, how or ["--workers", "0"])
    until(lambda: done(to) >= 3, killed)
    left = list(below(killed.pid))
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=DEADLINE)
    before = done(to)
    assert 3 <= before < done(whole)
    # Nobody goes on without the leading process.
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{child}").exists() for child in left) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [child for child in left if Path(f"/proc/{child}").exists()] == []
    assert done(to) == before
    again = finished(start(rows, cross_encoder_folder, to, how or ["--workers", "0"]))
    assert again["kept"] > 0
    assert again["kept"] + again["scored"] == again["pairs"] == PAIRS
    check_same(to, whole)


@pytest.mark.timeout(3 * DEADLINE)
@pytest.mark.parametrize("how", WAYS[1:])
def test_a_worker_is_killed(
    how: list[str], rows: Path, whole: Path, cross_encoder_folder: Path, tmp_path: Path
) -> None:
    to = tmp_path / "work"
    running = start(rows, cross_encoder_folder, to, how)
    until(lambda: done(to) >= 2, running)
    victims = workers(running.pid)
    assert victims
    os.kill(victims[0], signal.SIGKILL)
    assert done(to) < done(whole)
    assert finished(running)["scored"] == PAIRS
    check_same(to, whole)
