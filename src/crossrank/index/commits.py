"""When passages are embedded and when they are committed: what a kill can cost is kept small on any machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import InputError
from crossrank.index.records import Row, Unread
from crossrank.index.table import Table
from crossrank.tokenvectors import TokenEmbedder, TokenVectors, joined
from crossrank.types import Embedder, ReportingEmbedder, Truncation

COMMIT_PASSAGES = 1_024
COMMIT_SECONDS = 15.0
"""A commit comes after so many passages or seconds, whichever is first. Commits hold whole documents, so one document
that takes longer to embed is the exception."""

_CALL_SECONDS = 1.0
"""What one call of the embedder may take. A call cannot be cut short: 128 passages took 43 s on a busy machine."""
_FIRST_CALL, _MOST_A_CALL = 8, 128
"""Passages of the first call, when the pace is not known yet, and of any."""


class Commits:
    """Passages between the reader and the table. Used by one thread.

    Args:
        table: where they go.
        embedder: makes their vectors.
        embedded: called after every call of the embedder.
        committed: called after every commit, with the number of passages in it.
        clock: seconds, for tests.
        late: makes their token vectors, where the table holds some.

    Attributes:
        unread: passages whose vectors do not tell of their ends.
    """

    def __init__(
        self,
        table: Table,
        embedder: Embedder,
        embedded: Callable[[], None],
        committed: Callable[[int], None],
        clock: Callable[[], float] = time.monotonic,
        late: TokenEmbedder | None = None,
    ) -> None:
        self._table = table
        self._embedder = embedder
        self._tell_embedded = embedded
        self._tell_committed = committed
        self._clock = clock
        self._late_model = late
        self._token_vectors: list[TokenVectors] = []
        self.unread: list[Unread] = []
        self._rows: list[Row] = []
        self._vectors: list[NDArray[np.float32]] = []
        self._embedded = 0
        self._replaced: list[str] = []
        self._since = 0.0  # When the oldest of the rows came.
        self._pace = 0.0  # Seconds that a passage takes to embed.
        self._call = _FIRST_CALL

    def add(self, rows: Sequence[Row], replaced: str | None) -> None:
        """Take over the passages of one document.

        Args:
            rows: all its passages, at least one.
            replaced: its id, when the table holds other passages of it.
        """
        if self._rows and self._late(len(rows)):
            self.commit()  # A large document must not keep the small ones before it waiting.
        if not self._rows:
            self._since = self._clock()
        self._rows += rows
        if replaced is not None:
            self._replaced.append(replaced)

    def advance(self) -> None:
        """Embed and commit what is due. To be called after every document, also one that added nothing."""
        while len(self._rows) - self._embedded >= self._call:
            self._embed()
        if len(self._rows) >= COMMIT_PASSAGES or (self._rows and self._late(self._call)):
            self.commit()

    def commit(self) -> None:
        """Embed and commit everything."""
        if not self._rows:
            return
        while self._embedded < len(self._rows):
            self._embed()
        late = joined(self._token_vectors) if self._token_vectors else None
        self._table.put(self._rows, np.concatenate(self._vectors), self._replaced, late)
        self._token_vectors = []
        count = len(self._rows)
        self._rows, self._vectors, self._embedded, self._replaced = [], [], 0, []
        self._tell_committed(count)

    def _late(self, more: int) -> bool:
        """Whether the commit would come too late if `more` passages were waited for."""
        waiting = len(self._rows) - self._embedded + more
        return self._clock() - self._since + waiting * self._pace >= COMMIT_SECONDS

    def _embed(self) -> None:
        rows = self._rows[self._embedded : self._embedded + self._call]
        began = self._clock()
        texts = [row.passage.scored_text for row in rows]
        vectors, cut = _embedded(self._embedder, texts)
        width = self._table.settings.width
        if vectors.shape != (len(rows), width) or not np.isfinite(vectors).all():
            raise InputError(
                f"the embedder gave vectors of shape {vectors.shape}, or NaN, for {len(rows)} texts; expected "
                f"({len(rows)}, {width}) finite numbers"
            )
        self._vectors.append(np.asarray(vectors, dtype=np.float32))
        if self._late_model is not None:
            made, unread = self._late_model.encode(texts)
            self._token_vectors.append(TokenVectors(made.vectors.astype(np.float16), made.offsets))
            known = {t.position for t in cut}
            cut = [*cut, *(t for t in unread if t.position not in known)]
        self._embedded += len(rows)
        self.unread += [Unread(rows[t.position].passage.id, t.tokens, t.read, t.exact) for t in cut]
        pace = (self._clock() - began) / len(rows)
        # A machine that became busy is believed at once, one that became free only by and by.
        self._pace = max(pace, (self._pace + pace) / 2)
        self._call = max(1, min(_MOST_A_CALL, int(_CALL_SECONDS / self._pace))) if self._pace > 0 else _MOST_A_CALL
        self._tell_embedded()


def _embedded(embedder: Embedder, texts: Sequence[str]) -> tuple[NDArray[np.float32], Sequence[Truncation]]:
    """Vectors, and what was cut, where the embedder says so."""
    if not isinstance(embedder, ReportingEmbedder):
        return embedder.embed(texts), ()
    made = embedder.embedded(texts)
    return made.vectors, made.truncations
