"""A server on a free port of this machine, asked as any program would ask it: for `crossrank check`."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.request import ProxyHandler, Request, build_opener

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import CrossrankError
from crossrank.unicode import is_blank

if TYPE_CHECKING:
    from crossrank.crossencoder import CrossEncoder

_READY_SECONDS, _REPLY_SECONDS = 120.0, 600.0
# Documents of one request.
_AT_ONCE = 64

Score = Callable[[Sequence[tuple[str, str]]], NDArray[np.float32]]


@contextmanager
def serving(scorer: CrossEncoder) -> Iterator[Score]:
    """Serve a scorer over HTTP for as long as the block lasts; gives what asks it for raw scores.

    Raises:
        MissingExtraError: the server extra is not installed.
        CrossrankError: the server did not start.
    """
    from crossrank.server.app import build
    from crossrank.server.limits import Limits
    from crossrank.server.listening import Listener
    from crossrank.server.service import Service

    limits = Limits(seconds=_REPLY_SECONDS)
    listener = Listener(build(Service(scorer, limits=limits)).app, "127.0.0.1", 0, limits)
    thread = threading.Thread(target=listener.run, name="crossrank-check-server")
    thread.start()
    # No proxy stands between this process and itself.
    opener = build_opener(ProxyHandler({}))

    def score(pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        scores = np.full(len(pairs), -np.inf, dtype=np.float32)
        for query, rows in _requests(pairs):
            body = {"query": query, "texts": [pairs[row][1] for row in rows], "raw_scores": True}
            asked = Request(
                f"{listener.url}/tei/rerank", json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
            with opener.open(asked, timeout=_REPLY_SECONDS) as reply:
                for found in json.load(reply):
                    if found["score"] is not None:
                        scores[rows[found["index"]]] = found["score"]
        return scores

    try:
        end = time.monotonic() + _READY_SECONDS
        while not _ready(opener.open, listener.url):
            if time.monotonic() > end or not thread.is_alive():
                raise CrossrankError(f"the server on {listener.url} did not start in {_READY_SECONDS:.0f} s")
            time.sleep(0.02)
        yield score
    finally:
        listener.stop()
        thread.join(_READY_SECONDS)


def _requests(pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[str, list[int]]]:
    """Positions of the pairs of each query, a request at a time; blank documents are not sent."""
    by_query: dict[str, list[int]] = {}
    for row, (query, text) in enumerate(pairs):
        if not is_blank(text):
            by_query.setdefault(query, []).append(row)
    for query, rows in by_query.items():
        for begin in range(0, len(rows), _AT_ONCE):
            yield query, rows[begin : begin + _AT_ONCE]


def _ready(opened: Callable[..., object], url: str) -> bool:
    try:
        opened(f"{url}/ready", timeout=5.0)
    except (URLError, OSError):
        return False
    return True
