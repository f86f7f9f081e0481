"""Work on one part while the next is made: the only place where crossrank starts a thread of its own for a call."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def lookahead(make: Callable[[Item], Made], items: Sequence[Item]) -> Generator[Made, None, None]:
    """`make(item)` for every item, in order; while the caller works on one, a thread makes the next.

    It pays where both sides let go of the interpreter's lock, as the tokenizer and the native backend do. Never more
    than two results exist at once. One item needs no thread, and none is started. The thread is gone when the iterator
    is exhausted or closed; close it also when the work on a part fails (`contextlib.closing`).

    Raises:
        Whatever `make` raises, where its result would have come.

    >>> list(lookahead(len, ["a", "bc", ""]))
    [1, 2, 0]
    """
    if len(items) < 2:
        yield from map(make, items)
        return
    from concurrent.futures import ThreadPoolExecutor  # short lists do not pay for it

    made = make(items[0])
    with ThreadPoolExecutor(1, thread_name_prefix="crossrank-lookahead") as worker:
        for item in items[1:]:
            coming = worker.submit(make, item)
            yield made
            made = coming.result()
    yield made
