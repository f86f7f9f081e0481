"""Threads that the end of the process does not wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

T = TypeVar("T")


class Daemons(Executor):
    """Runs each call in a thread of its own. How many there are at once is up to whoever calls.

    Those of `concurrent.futures` are waited for when the process ends: one that waits for an embedder elsewhere, or for
    an index in a folder that hangs, would hold it up.

    Args:
        name: of the threads.

    >>> Daemons("adding").submit(sum, [1, 2]).result()
    3
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """What the call will have given."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        future.set_running_or_notify_cancel()
        threading.Thread(target=run, name=self._name, daemon=True).start()
        return future
