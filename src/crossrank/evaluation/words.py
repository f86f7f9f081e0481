"""BM25 over a list of texts in memory, for judgments that come without an index. Needs the extra `eval` or `train`."""

from __future__ import annotations

from collections.abc import Sequence

from crossrank.extras import require

require("bm25s", extra="eval")
import bm25s  # noqa: E402
import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

# Anserini's defaults, which suit passages better than Lucene's (Yang et al. 2017).
K1, B = 0.9, 0.4


class Words:
    """Which of the texts share words with a query. English stop words are left out.

    >>> Words(["red apples", "green pears", "yellow bananas"]).nearest(["are pears green?", "zebra"], 2)
    [['green pears'], []]
    >>> Words(["red apples", "green pears", "pears"]).scores("are PEARS green?", [0, 1, 2]).round(2)
    array([0.  , 0.74, 0.27], dtype=float32)
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = list(texts)
        self._index = bm25s.BM25(k1=K1, b=B)
        self._known = False
        if self._texts:
            words = bm25s.tokenize(self._texts, show_progress=False)
            self._known = bool(words.vocab)
            if self._known:
                self._index.index(words, show_progress=False)

    def nearest(self, queries: Sequence[str], depth: int) -> list[list[str]]:
        """At most `depth` texts a query, best first, none that shares no word with it; in the order of the queries."""
        if not self._known or not queries:
            return [[] for _ in queries]
        # Strings and not ids, because a query's words may be unknown to the index.
        words = bm25s.tokenize(list(queries), return_ids=False, show_progress=False)
        depth = min(depth, len(self._texts))
        found: list[list[str]] = []
        for row in words:
            if not row:
                found.append([])
                continue
            places, scores = self._index.retrieve([row], k=depth, show_progress=False)
            pairs = zip(places[0].tolist(), scores[0].tolist(), strict=True)
            found.append([self._texts[place] for place, score in pairs if score > 0])
        return found

    def scores(self, query: str, places: Sequence[int]) -> NDArray[np.float32]:
        """Of the texts at these places, shape (n,); 0 for one that shares no word with the query."""
        row = bm25s.tokenize([query], return_ids=False, show_progress=False)[0] if self._known else []
        return self._index.get_scores(row)[list(places)] if row else np.zeros(len(places), dtype=np.float32)
