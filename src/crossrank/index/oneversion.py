"""One version of an index for a whole query, whoever writes to it meanwhile.

A query reads an index several times: it finds ids, then fetches texts and tokens by them. Ids of one version mean
nothing in another, where their passages may be gone or say something else. So the version of the first read is kept for
all that follow. It travels in a context variable, because between the steps of a query lies code of others: retrievers,
`texts` and stages may be anybody's functions over an index, and none of them has a parameter for it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

from crossrank.errors import IndexFileError

T = TypeVar("T")
V = TypeVar("V")


class _Query:
    """What one query has read: of each index the version, and the error if one was removed under its feet."""

    def __init__(self) -> None:
        self.began: dict[object, Any] = {}
        self.lost: IndexFileError | None = None


_QUERY: ContextVar[_Query | None] = ContextVar("crossrank_query", default=None)


def one_version(ask: Callable[[], T]) -> T:
    """What `ask` gives, which reads one version of each index from beginning to end.

    That is the version that an `Index` is at when it is first read. Updates are seen by the next call, also those that
    `ask` makes itself. When the version is removed meanwhile (it was replaced ten minutes ago, and the index is updated
    again), `ask` is called once more, over the newest. Within another call of `one_version` it is a part of that query.

    It holds for the thread that calls this. Threads that `ask` starts belong to the query when they run in its context,
    as those of `asyncio.to_thread` do.

    Raises:
        IndexFileError: the version was removed twice, so that what was read would not fit together.

    >>> import tempfile
    >>> import crossrank
    >>> from crossrank.index import Document, Index
    >>> embedder = crossrank.load_embedder()
    >>> folder = tempfile.TemporaryDirectory()
    >>> index = Index.create(folder.name, embedder, embedder.tokenizer)
    >>> index.add([Document("a", "Cats purr.")], embedder, embedder.tokenizer).added
    1
    >>> def ask():
    ...     ids = index.bm25("cats", 10).ids
    ...     index.remove(ids, embedder, embedder.tokenizer)
    ...     return [passage.text for passage in index.passages(ids)]
    >>> one_version(ask), one_version(index.ids)
    (['Cats purr.'], [])
    >>> folder.cleanup()
    """
    if _QUERY.get() is not None:
        return ask()
    for _ in range(2):
        query = _Query()
        token = _QUERY.set(query)
        try:
            made = ask()
            # A stage that may fail has failed then, and the answer would be one without it.
            if query.lost is None:
                return made
        except Exception:
            # Whatever others made of the error, the version was the cause.
            if query.lost is None:
                raise
        finally:
            _QUERY.reset(token)
    assert query.lost is not None
    raise query.lost


def held(index: object, now: V) -> V:
    """The version of an index that the running query began with: `now` where this is its first read, or none runs."""
    query = _QUERY.get()
    version: V = now if query is None else query.began.setdefault(index, now)
    return version


def lost(folder: Path, stays: bool = False) -> None:
    """A version that was read is gone: end the running query, if there is one, so that all of it is asked again.

    Args:
        folder: of the index.
        stays: no other version will do, so that nothing is asked again.

    Raises:
        IndexFileError: a query runs, or `stays`.
    """
    if stays:
        raise IndexFileError(
            f"the index {folder} was updated or replaced, and the version that is read here was removed: begin again, "
            "while nobody writes to it, or with a copy of it"
        )
    query = _QUERY.get()
    if query is not None:
        query.lost = IndexFileError(
            f"the index {folder} was updated during this query, and the version that it had begun to read was removed: "
            "ask again"
        )
        raise query.lost
