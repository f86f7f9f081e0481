"""One version of an index for a whole query, whoever writes to it meanwhile.

A query reads an index several times: it finds ids, then fetches texts and tokens by them. Ids of one version mean
nothing in another, where their passages may be gone or say something else. So the version of the first read is kept for
all that follow. It travels in a context variable, because between the steps of a query lies code of others: retrievers,
`texts` and stages may be anybody's functions over an index, and none of them has a parameter for it.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

from crossrank.errors import IndexFileError, InputError

T = TypeVar("T")
V = TypeVar("V")


class _Query:
    """What one query has read: of each index the version, and the errors where one was removed under its feet.

    A context that was copied during the query, such as that of a task, keeps it for as long as it lives itself. So the
    query says when it is over, and is none from then on.
    """

    def __init__(self) -> None:
        self.began: dict[object, Any] = {}
        self.read: set[object] = set()
        self.lost: list[IndexFileError] = []
        self.over = False
        self.lock = threading.Lock()

    def end(self) -> None:
        with self.lock:
            self.over = True
            self.began.clear()
            self.read.clear()


_QUERY: ContextVar[_Query | None] = ContextVar("crossrank_query", default=None)


def one_version(ask: Callable[[], T]) -> T:
    """What `ask` gives, which reads one version of each index from beginning to end.

    That is the version that an `Index` is at when it is first read; two `Index` objects over one folder are two.
    Updates are seen by the next call, also those that `ask` makes itself. When the version is removed meanwhile (it was
    replaced ten minutes ago, and the index is updated again), `ask` is called once more, over the newest. Within
    another call of `one_version` it is a part of that query.

    It holds for the thread that calls this, until this returns. Threads that `ask` starts belong to the query when they
    run in its context, as those of `asyncio.to_thread` do.

    Raises:
        IndexFileError: the version was removed twice, so that what was read would not fit together.
        InputError: `ask` is an async function or a generator, which reads only after this has returned.

    >>> import tempfile
    >>> import crossrank
    >>> from crossrank.index import Document, Index
    >>> embedder = crossrank.load_embedder()
    >>> folder = tempfile.TemporaryDirectory()
    >>> index = Index.create(folder.name, embedder)
    >>> index.add([Document("a", "Cats purr.")], embedder).added
    1
    >>> def ask():
    ...     ids = index.bm25("cats", 10).ids
    ...     index.remove(ids)
    ...     return [passage.text for passage in index.passages(ids)]
    >>> one_version(ask), one_version(index.ids)
    (['Cats purr.'], [])
    >>> folder.cleanup()
    """
    if _running() is not None:
        return _done(ask())
    for _ in range(2):
        query = _Query()
        token = _QUERY.set(query)
        try:
            made = _done(ask())
            # A stage that may fail has failed then, and the answer would be one without it.
            if not query.lost:
                return made
        except Exception as error:
            # Whatever others made of the loss, the version was the cause; of any other error it was not.
            if not _follows(error, query.lost):
                raise
        finally:
            query.end()
            _QUERY.reset(token)
    raise query.lost[0]


def held(index: object, now: V) -> V:
    """The version of an index that the running query began with: `now` where this is its first read, or none runs."""
    query = _running()
    version: V = now if query is None else query.began.setdefault(index, now)
    return version


def kept(index: object, version: object) -> bool:
    """Note that this version of an index was read; False when another thread of the query has gone on to a newer."""
    query = _running()
    if query is None:
        return True
    with query.lock:
        if query.began.get(index, version) is not version:
            return False
        query.read.add(index)
        return True


def lost(index: object, version: object, now: object, folder: Path) -> None:
    """A version is gone: the running query, if there is one, goes on to `now` if it has read nothing of this index yet.

    Raises:
        IndexFileError: it has, and what it reads from now on would not fit. So it ends, and all of it is asked again.
    """
    query = _running()
    if query is None:
        return
    with query.lock:
        if query.began.get(index, now) is not version:
            return  # Another thread of the query has gone on already.
        if index not in query.read:
            query.began[index] = now
            return
        error = IndexFileError(
            f"the index {folder} was updated during this query, and the version that it had begun to read was removed: "
            "ask again"
        )
        query.lost.append(error)
    raise error


def _running() -> _Query | None:
    query = _QUERY.get()
    return None if query is None or query.over else query


def _done(made: T) -> T:
    """What `ask` gave, unless it has not even begun."""
    if not (inspect.isawaitable(made) or inspect.isgenerator(made) or inspect.isasyncgen(made)):
        return made
    if inspect.iscoroutine(made):
        made.close()  # Python warns of one that is never awaited.
    raise InputError(
        f"one_version takes a function that has read all when it returns, and this returns a {type(made).__name__}: "
        "make a plain function of it, and in async code await asyncio.to_thread(one_version, ask)"
    )


def _follows(error: BaseException, causes: list[IndexFileError]) -> bool:
    """Whether an error is one of these, or was raised from one or while one was handled."""
    seen: list[BaseException] = []
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop()
        if one is None or any(one is other for other in seen):
            continue
        if any(one is cause for cause in causes):
            return True
        seen.append(one)
        todo += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]  # Those of a group.
    return False


def removed(folder: Path) -> IndexFileError:
    """What ends reads that stay at one version, when it is gone: no other will do, so nothing is asked again."""
    return IndexFileError(
        f"the index {folder} was updated or replaced, and the version that is read here was removed: begin again, "
        "while nobody writes to it, or with a copy of it"
    )
