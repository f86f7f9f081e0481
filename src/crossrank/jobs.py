"""Jobs that wait for others, a few at once, in threads that keep nobody from leaving."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from crossrank.errors import RemoteError

T = TypeVar("T")


def at_once(jobs: Sequence[Callable[[], T]], most: int, stop: threading.Event | None = None) -> list[T]:
    """Run jobs in threads, at most `most` at once, and give their results in order.

    The first error ends it: jobs that have not begun do not begin, and nobody waits for those under way. So does
    Ctrl-C; the threads are daemons, because those of `concurrent.futures` would keep the interpreter until their last
    answer.

    Args:
        jobs: in the order in which they begin.
        most: at least 1.
        stop: set when it ends, so that jobs can stop waiting; set by another thread, it ends it, too.

    >>> at_once([lambda: 1, lambda: 2, lambda: 3], most=2)
    [1, 2, 3]
    """
    stop = stop or threading.Event()
    made: dict[int, T] = {}
    errors: list[BaseException] = []
    todo, lock, finished = iter(enumerate(jobs)), threading.Lock(), threading.Event()

    def work() -> None:
        try:
            while not stop.is_set():
                with lock:
                    number, job = next(todo, (-1, None))
                if job is None:
                    break
                made[number] = job()
        except BaseException as error:
            errors.append(error)
        if errors or len(made) == len(jobs) or stop.is_set():
            finished.set()

    try:
        for number in range(min(most, len(jobs))):
            threading.Thread(target=work, name=f"crossrank-remote-{number}", daemon=True).start()
        # Not one long wait, which Ctrl-C could not end on Windows.
        while jobs and not finished.wait(0.2):
            pass
    finally:
        stop.set()
    if errors:
        raise errors[0]
    if len(made) < len(jobs):
        raise RemoteError("the call was stopped before all answers had come")
    return [made[number] for number in range(len(jobs))]
