"""A scorer that remembers: sweeping the mix, or adding a measure, must not score a hundred thousand pairs again."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crossrank.crossencoder import CrossEncoder
from crossrank.scorers import PairScorer


@dataclass(frozen=True, slots=True)
class Timing:
    """What scoring one list took when all of it was new."""

    seconds: float
    pairs: int
    tokens: int
    truncated: int


class CachedScorer:
    """A `Scorer` over a model with a file of pairs it has seen.

    The file belongs to one model and one way of reading: fingerprint, backend, sequence length and windows (of a
    late-interaction model, its lengths and markers) are in its name. Texts are in it as hashes. Each list is
    committed, so an interrupted run goes on where it was.
    """

    def __init__(self, scorer: PairScorer, folder: Path, max_length: int | None) -> None:
        reads = scorer.windows if isinstance(scorer, CrossEncoder) else scorer.checkpoint.late
        way = f"{scorer.backend.name}|{max_length}|{reads}"
        name = f"scores-{scorer.fingerprint[:16]}-{hashlib.sha256(way.encode()).hexdigest()[:8]}.sqlite"
        folder.mkdir(parents=True, exist_ok=True)
        self.scorer = scorer
        self._file = sqlite3.connect(folder / name)
        self._file.execute("CREATE TABLE IF NOT EXISTS score (pair BLOB PRIMARY KEY, score REAL) WITHOUT ROWID")
        columns = "list BLOB PRIMARY KEY, seconds REAL, pairs INT, tokens INT, truncated INT"
        self._file.execute(f"CREATE TABLE IF NOT EXISTS timing ({columns})")

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """As `CrossEncoder.score`; only pairs never seen are computed."""
        keys = [_key(pair) for pair in pairs]
        known = self._known(keys)
        missing = [place for place, key in enumerate(keys) if key not in known]
        if missing:
            began = time.perf_counter()
            scored = self.scorer.scored([pairs[place] for place in missing])
            seconds = time.perf_counter() - began
            fresh = {keys[place]: float(score) for place, score in zip(missing, scored.scores, strict=True)}
            with self._file:
                self._file.executemany("INSERT OR REPLACE INTO score VALUES (?, ?)", fresh.items())
                if len(missing) == len(pairs):
                    row = (_list_key(keys), seconds, len(pairs), scored.tokens, len(scored.truncations))
                    self._file.execute("INSERT OR REPLACE INTO timing VALUES (?, ?, ?, ?, ?)", row)
            known |= fresh
        return np.array([known[key] for key in keys], dtype=np.float32)

    def timing(self, pairs: Sequence[tuple[str, str]]) -> Timing | None:
        """What this list took, when it was scored whole and at once."""
        key = _list_key([_key(pair) for pair in pairs])
        row = self._file.execute(
            "SELECT seconds, pairs, tokens, truncated FROM timing WHERE list = ?", [key]
        ).fetchone()
        return Timing(*row) if row else None

    def _known(self, keys: Sequence[bytes]) -> dict[bytes, float]:
        known: dict[bytes, float] = {}
        for start in range(0, len(keys), 500):
            part = keys[start : start + 500]
            marks = ",".join("?" * len(part))
            known.update(self._file.execute(f"SELECT pair, score FROM score WHERE pair IN ({marks})", part))
        return known


def _key(pair: tuple[str, str]) -> bytes:
    query = pair[0].encode("utf-8", "surrogatepass")
    return hashlib.blake2b(
        len(query).to_bytes(8, "little") + query + pair[1].encode("utf-8", "surrogatepass"), digest_size=16
    ).digest()


def _list_key(keys: Sequence[bytes]) -> bytes:
    return hashlib.blake2b(b"".join(keys), digest_size=16).digest()
