"""Tests that measure times are alone while they run, though several processes run tests."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from turns import turn

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it has no such locks")


class Running:
    """A test that runs until it is told to end."""

    def __init__(self, pool: ThreadPoolExecutor, folder: Path, *, alone: bool) -> None:
        self.began, self.end = threading.Event(), threading.Event()
        self.done: Future[None] = pool.submit(self._run, folder, alone)

    def _run(self, folder: Path, alone: bool) -> None:
        with turn(alone, folder / "door", folder / "room"):
            self.began.set()
            assert self.end.wait(30)

    def finish(self) -> None:
        self.end.set()
        self.done.result(30)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("door", "room"):
        (tmp_path / name).touch()
    return tmp_path


def test_others_run_at_once(folder: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        first, second = (Running(pool, folder, alone=False) for _ in range(2))
        assert first.began.wait(30)
        assert second.began.wait(30)
        first.finish()
        second.finish()


def test_who_is_alone_waits_for_all_and_all_wait_for_it(folder: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        before = Running(pool, folder, alone=False)
        assert before.began.wait(30)
        alone = Running(pool, folder, alone=True)
        assert not alone.began.wait(0.1)
        # It came later, and would keep the other waiting.
        after = Running(pool, folder, alone=False)
        assert not after.began.wait(0.1)
        before.finish()
        assert alone.began.wait(30)
        assert not after.began.wait(0.1)
        alone.finish()
        assert after.began.wait(30)
        after.finish()


def test_a_failure_lets_the_next_one_in(folder: Path) -> None:
    with pytest.raises(ValueError, match="it failed"), turn(True, folder / "door", folder / "room"):
        raise ValueError("it failed")
    with turn(True, folder / "door", folder / "room"):
        pass
