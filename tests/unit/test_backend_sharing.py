"""A model is loaded once in a process: who opens it again gets the same backend, until nobody holds it."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import crossrank
import tiny
from crossrank import backends
from crossrank.backends import sharing
from crossrank.backends.fake import Fake
from crossrank.checkpoint import read
from crossrank.errors import CheckpointError, InputError


def test_equal_options_share_a_backend_and_others_do_not(cross_encoder_folder: Path) -> None:
    first = crossrank.load(cross_encoder_folder)
    assert crossrank.load(cross_encoder_folder, max_windows=2).backend is first.backend
    others = [{"backend": "reference"}, {"dtype": "float32", "backend": "cpu:portable"}, {"threads": 97}]
    for options in others:
        assert crossrank.load(cross_encoder_folder, **options).backend is not first.backend  # type: ignore[arg-type]


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
    (tmp_path / "model.safetensors").unlink()
    for _ in range(2):
        with pytest.raises((CheckpointError, OSError), match=r"model\.safetensors"):
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
