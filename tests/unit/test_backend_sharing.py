"""A model is loaded once in a process: who opens it again gets the same backend, until nobody holds it."""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import crossrank
import tiny
from crossrank import backends
from crossrank.backends import cpu, sharing
from crossrank.backends.fake import Fake
from crossrank.checkpoint import read
from crossrank.errors import CheckpointError, InputError


def test_equal_options_share_a_backend_and_others_do_not(cross_encoder_folder: Path) -> None:
    first = crossrank.load(cross_encoder_folder)
    assert crossrank.load(cross_encoder_folder, max_windows=2).backend is first.backend
    others = [{"backend": "reference"}, {"dtype": "float32", "backend": "cpu:portable"}, {"threads": 97}]
    for options in others:
        assert crossrank.load(cross_encoder_folder, **options).backend is not first.backend  # type: ignore[arg-type]


def test_the_cpu_holds_weights_once_however_they_were_asked_for(cross_encoder_folder: Path) -> None:
    """The best tier is the same by its name and without it, and threads are of a call; pickles keep what was asked."""
    made = read(cross_encoder_folder)
    if cpu.obstacle(made):
        pytest.skip("the native engine is not here")
    first = backends.open(made, "cpu")
    assert isinstance(first, cpu.Native)
    named = f"cpu:{first.tier}"
    asked: list[dict[str, Any]] = [{"name": named}, {"name": named, "dtype": first.dtype}, {"threads": 97}]
    for options in asked:
        other = backends.open(made, **{"name": "cpu"} | options)
        assert isinstance(other, cpu.Native)
        assert other._engine is first._engine
        assert pickle.loads(pickle.dumps(other)) is other is not first
    portable = backends.open(made, "cpu:portable", dtype="float32")
    assert isinstance(portable, cpu.Native)
    assert portable._engine is not first._engine
    engine = weakref.ref(first._engine)
    del first
    gc.collect()
    assert engine() is not None, "the others hold it"
    del other
    gc.collect()
    assert engine() is None


def test_one_folder_is_one_model_by_whatever_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = crossrank.load(tiny.cross_encoder(tmp_path / "model"))
    (tmp_path / "link").symlink_to(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    paths = ["model", "./model", "link", Path("model"), tmp_path / "model" / "model.safetensors"]
    assert all(crossrank.load(path).backend is first.backend for path in paths)
    other = crossrank.load(tiny.cross_encoder(tmp_path / "other", layer_norm_eps=0.1))
    assert other.backend is not first.backend


def test_a_relative_path_is_that_of_the_time_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.cross_encoder(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    written = pickle.dumps(crossrank.load("model", backend="reference"))
    monkeypatch.chdir(tmp_path / "model")
    assert len(pickle.loads(written).score([("the cat", "a cat")])) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"backend": "cpu", "device": "cpu"},
        {"backend": "reference", "threads": 3, "dtype": "float32", "device": "cpu:0"},
        {"backend": "fake", "threads": 3, "dtype": "float32"},
        {"backend": "torch", "threads": 3, "dtype": "float32", "device": "cpu"},
    ],
    ids=str,
)
def test_options_that_change_nothing_share(cross_encoder_folder: Path, options: dict[str, Any]) -> None:
    name = options["backend"]
    if name == "torch":
        pytest.importorskip("transformers", reason="the extra torch is not installed")
        if importlib.import_module("torch").cuda.is_available():
            pytest.skip("here auto is the GPU")
    made = read(cross_encoder_folder)
    if name == "cpu" and cpu.obstacle(made):
        pytest.skip("the native engine is not here")
    first = backends.open(made, name)
    assert backends.open(made, **{"name": name} | {k: v for k, v in options.items() if k != "backend"}) is first


def test_what_is_unpickled_shares(cross_encoder_folder: Path) -> None:
    for name in ("auto", "reference"):
        scorer = crossrank.load(cross_encoder_folder, backend=name)
        written = pickle.dumps(scorer)
        assert pickle.loads(written).backend is pickle.loads(written).backend is scorer.backend


def test_a_card_is_told_by_its_number(cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="the extra gpu is not installed")
    from crossrank.backends.cuda import cards

    current = [0]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[0])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda card: (9, 0))
    monkeypatch.setattr(cards, "Card", lambda checkpoint, device, dtype: Card(device, dtype))
    made = read(cross_encoder_folder)
    first = backends.open(made, "cuda")
    assert backends.open(made, device="cuda") is backends.open(made, "cuda", "cuda:0", "bfloat16") is first
    assert backends.open(made, "cuda", dtype="float16") is not first
    current[0] = 1
    second = backends.open(made, "cuda")
    assert (first.device.index, second.device.index) == (0, 1)  # type: ignore[attr-defined]
    assert backends.open(made, "cuda", "cuda:1") is second


class Card:
    """Stands for a model on a card."""

    def __init__(self, device: Any, dtype: Any) -> None:
        self.device, self.dtype = device, dtype


def test_torch_names_the_card_that_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers", reason="the extra torch is not installed")
    from crossrank.backends import torch

    current = [0]
    monkeypatch.setattr(torch.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.torch.cuda, "current_device", lambda: current[0])
    assert torch.resolved("auto", "auto") == torch.resolved("cuda", "bfloat16") == ("cuda:0", "bfloat16")
    current[0] = 1
    assert torch.resolved("cuda", "auto") == torch.resolved("cuda:1", "auto") == ("cuda:1", "bfloat16")
    assert torch.resolved("cpu:0", "auto") == ("cpu", "float32")


def test_models_of_the_wheel_are_shared() -> None:
    assert crossrank.load().backend is crossrank.load("small").backend
    assert crossrank.load_embedder().backend is not crossrank.load().backend


def test_it_is_freed_with_the_last_that_holds_it(cross_encoder_folder: Path) -> None:
    scorers = [crossrank.load(cross_encoder_folder, backend="fake") for _ in range(2)]
    backend = weakref.ref(scorers[0].backend)
    scorers.pop()
    gc.collect()
    assert backend() is not None
    scorers.clear()
    gc.collect()
    assert backend() is None


def test_changed_files_are_loaded_anew(tmp_path: Path) -> None:
    pair = [("the cat", "a cat")]
    first = crossrank.load(tiny.cross_encoder(tmp_path))
    score = first.score(pair)
    weights = tmp_path / "model.safetensors"
    held, times = weights.read_bytes(), weights.stat()
    # In place, of the same size, and with the times of before: so does rsync write.
    weights.write_bytes(held[:-4] + b"\x00\x00\x80\x40")
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    changed = crossrank.load(tmp_path)
    assert changed.backend is not first.backend
    assert changed.score(pair)[0] != score[0] == first.score(pair)[0]
    weights.write_bytes(held)
    tiny.cross_encoder(tmp_path, layer_norm_eps=0.1)
    assert crossrank.load(tmp_path).backend is not first.backend, "settings count, too"


def test_what_cannot_be_opened_says_why_each_time(tmp_path: Path) -> None:
    made = read(tiny.cross_encoder(tmp_path))
    with pytest.raises(InputError, match="threads must be"):
        backends.open(made, "cpu", threads=0)
    # What does not tell two open backends apart is checked all the same.
    opened = backends.open(made, "reference")
    for wrong in ({"dtype": "bfloat16"}, {"device": "cuda"}, {"threads": 0}):
        with pytest.raises(InputError):
            backends.open(made, "reference", **wrong)  # type: ignore[arg-type]
    del opened
    (tmp_path / "model.safetensors").unlink()
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"model\.safetensors"):
            backends.open(made, "reference")


def test_of_many_threads_one_opens() -> None:
    table, made, gate = sharing.Table(), [], threading.Barrier(8)

    def make() -> Fake:
        made.append(Fake())
        return made[-1]

    def ask(_: int) -> object:
        gate.wait(10)
        return table.get("key", make)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(8)))
    assert len(made) == 1
    assert all(one is made[0] for one in found)


def test_what_fails_fails_once_for_all_that_wait() -> None:
    table, tries, gate = sharing.Table[Fake](), [], threading.Barrier(8)

    def fails() -> Fake:
        tries.append(1)
        time.sleep(0.3)
        raise CheckpointError("damaged")

    def ask(_: int) -> str:
        gate.wait(10)
        with pytest.raises(CheckpointError) as caught:
            table.get("key", fails)
        return str(caught.value)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == ["damaged"] * 8
    # One, unless this machine kept a thread from asking for so long.
    assert len(tries) <= 2
    assert isinstance(table.get("key", Fake), Fake), "the next that asks tries again"


def test_what_failed_is_freed_at_once() -> None:
    table = sharing.Table[Fake]()

    class Part:
        """Of a model that loads, and fails."""

    parts = []

    def fails() -> Fake:
        part = Part()
        parts.append(weakref.ref(part))
        raise CheckpointError("damaged")

    gc.disable()
    try:
        with pytest.raises(CheckpointError) as caught:
            table.get("key", fails)
        del caught
        assert parts[0]() is None
    finally:
        gc.enable()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
# Lance, where another test has loaded it, warns at each fork; the child here computes nothing.
@pytest.mark.filterwarnings("ignore:lance is not fork-safe")
def test_what_does_not_reach_over_a_fork_is_opened_again(
    cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = read(cross_encoder_folder)
    for forked, shares in ((("fake",), False), ((), True)):
        monkeypatch.setattr(backends, "FORKED", forked)
        held = backends.open(made, "fake")
        child = os.fork()
        if not child:
            os._exit(int((backends.open(made, "fake") is held) != shares))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
# Lance, where another test has loaded it, warns at each fork; the child here computes nothing.
@pytest.mark.filterwarnings("ignore:lance is not fork-safe")
def test_a_child_waits_for_no_thread_of_its_parent() -> None:
    table, opening, end = sharing.Table(), threading.Event(), threading.Event()

    def slow() -> Fake:
        opening.set()
        end.wait(30)
        return Fake()

    thread = threading.Thread(target=table.get, args=("key", slow))
    thread.start()
    assert opening.wait(10)
    child = os.fork()
    if not child:
        found = threading.Thread(target=table.get, args=("key", Fake), daemon=True)
        found.start()
        found.join(10)
        os._exit(int(found.is_alive()))
    _, status = os.waitpid(child, 0)
    end.set()
    thread.join()
    assert os.waitstatus_to_exitcode(status) == 0


FORK = """
import os, signal, sys
import numpy as np, torch
import crossrank
torch.set_num_threads(2)
folder = sys.argv[1]
pairs = [("the cat", f"paris is a planet of bread {number} " * 4) for number in range(200)]
scorer = crossrank.load(folder, backend="torch", device="cpu")
scores = scorer.score(pairs)
for own in (False, True):
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        used = crossrank.load(folder, backend="torch", device="cpu") if own else scorer
        os._exit(0 if np.allclose(used.score(pairs), scores, atol=1e-5) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, own
assert torch.get_num_threads() == 2
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_torch_answers_in_a_forked_child(cross_encoder_folder: Path) -> None:
    """It waited for ever for threads that the parent has, with the parent's model as with one of its own."""
    pytest.importorskip("transformers", reason="the extra torch is not installed")
    # In a process of its own: some libraries that other tests load complain about forks.
    subprocess.run([sys.executable, "-c", FORK, str(cross_encoder_folder)], check=True, timeout=120)
