"""A cross-encoder that remembers what it has scored, across calls, threads, processes and restarts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crossrank.asking import check_pairs, check_queries
from crossrank.crossencoder import CrossEncoder
from crossrank.errors import InputError
from crossrank.scored import Pairs, Progress, Scored, firsts, scored_by
from crossrank.scorestore import MOST, Cut, Entry, Store
from crossrank.types import Scorer, Tokens, Truncation
from crossrank.unicode import valid_text

# Raised when equal settings begin to give other scores or reports, so that no two versions mix in one list: since 4 a
# passage of which the first window alone counts is told as not read whole.
_SCORES = 4
# Pairs computed before they are kept: what a kill may lose of a long list.
_AT_ONCE = 4096


@dataclass(slots=True)
class Uses:
    """How often a scorer could remember.

    Attributes:
        asked: pairs with text that it was asked for.
        known: of these, the ones whose score was remembered.
    """

    asked: int = 0
    known: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, asked: int, known: int) -> None:
        """Count one call; from any thread."""
        with self.lock:
            self.asked += asked
            self.known += known


class CachedScorer(CrossEncoder):
    """A `CrossEncoder` that looks its scores up in a file first, and asks another for those that are not there.

    It is one in every other way, also for a cascade.

    A score is found again by the model's fingerprint, everything else that changes scores (backend with its instruction
    set and number format, windows, sequence length) and hashes of query and passage, or of the passage's token ids. So
    one file may serve many models. Remembered scores are those that were computed, to the bit, and what was cut is
    reported as if it had been read now. (The native engine gives a pair the same score in every batch. With others,
    scores of one list that were computed in different batches may differ by rounding, 2e-5 in float32.) The file holds
    no text, and only its owner may read it; but whoever can read it can test a guess.

    `uses` counts over all calls how many scores were remembered.

    What goes wrong with the file never costs an answer: it is in `Scored.note`, `Ranked.note` and the trace of a stage.

    Args:
        scorer: what computes scores that are not known. It stays as it is.
        path: the file; made when absent.
        most: scores that it keeps, about 65 bytes each; the least recently used go first.

    Raises:
        InputError: the file holds something else, `most` is under 1, or the scorer is no cross-encoder.

    >>> import tempfile
    >>> import crossrank
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     scorer = CachedScorer(crossrank.load(), Path(folder) / "scores")
    ...     first = scorer.rank("capital of France?", ["Bread needs yeast.", "Paris is the capital."])
    ...     again = scorer.rank("capital of France?", ["Bread needs yeast.", "Paris is the capital."])
    ...     scorer.close()
    >>> first.cached, again.cached, bool((first.scores == again.scores).all())
    (0, 2, True)
    """

    def __init__(self, scorer: Scorer, path: str | Path, most: int = MOST) -> None:
        if not isinstance(scorer, CrossEncoder):
            raise InputError(
                f"a cache is of a cross-encoder's scores, which files and two texts decide, and {scorer!r} is none: "
                "a language model may answer otherwise next time, and late interaction has an index keep its vectors. "
                "So leave the cache out, or give it to a cross-encoder that reads before"
            )
        # Nothing is loaded twice: model and tokenizer are the scorer's own.
        self.checkpoint, self.backend, self.windows = scorer.checkpoint, scorer.backend, scorer.windows
        self.max_length, self._encoder = scorer.max_length, scorer._encoder
        self._scorer = scorer
        self.store = Store(path, most)
        self.uses = Uses()
        # Computed here, because hashing weights takes a tenth of a second.
        self._settings = _settings(scorer.uncached)

    def __reduce__(self) -> tuple[type[CachedScorer], tuple[CrossEncoder, Path, int]]:
        return CachedScorer, (self._scorer, self.store.path, self.store.most)

    def __repr__(self) -> str:
        return f"CachedScorer({self._scorer!r}, {str(self.store.path)!r})"

    @property
    def uncached(self) -> CrossEncoder:
        """The scorer that computes what no file knows."""
        return self._scorer.uncached

    @property
    def identity(self) -> tuple[str, str, str, int]:
        """The scorer's own, see `CrossEncoder.identity`."""
        return self._scorer.identity

    @property
    def calibrated(self) -> bool:
        """As the scorer's own `probability` is, see `CrossEncoder.calibrated`."""
        return self._scorer.calibrated

    @property
    def threshold(self) -> float | None:
        """The scorer's own, see `CrossEncoder.threshold`."""
        return self._scorer.threshold

    @property
    def mix(self) -> float | None:
        """The scorer's own, see `CrossEncoder.mix`."""
        return self._scorer.mix

    def probability(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """The scorer's own, see `CrossEncoder.probability`."""
        return self._scorer.probability(scores)

    def close(self) -> None:
        """Close the file, which the next score opens again."""
        self.store.close()

    def scored(self, pairs: Pairs, *, progress: Progress | None = None) -> Scored:
        """As `CrossEncoder.scored`; only pairs that are not known are computed, and `tokens` counts only these."""
        pairs = check_pairs(pairs)
        queries = [query for query, _ in pairs]
        keys = self._keys(b"text", queries, (_bytes(passage) for _, passage in pairs))
        blank = frozenset(key for key, (_, passage) in zip(keys, pairs, strict=True) if not passage.strip())

        def compute(rows: list[int], tell: Progress | None) -> Scored:
            return scored_by(self._scorer.scored, [pairs[row] for row in rows], tell)

        return self._settled(keys, queries, compute, progress, blank)

    def scored_tokens(self, queries: Iterable[str], passages: Tokens) -> Scored:
        """As `CrossEncoder.scored_tokens`; only pairs that are not known are computed."""
        queries = check_queries(queries, len(passages))
        keys = self._keys(b"ids", queries, (passages.row(row).tobytes() for row in range(len(passages))))
        compute = self._scorer.scored_tokens
        return self._settled(
            keys, queries, lambda rows, _: compute([queries[row] for row in rows], passages.take(rows))
        )

    def _keys(self, kind: bytes, queries: Sequence[str], passages: Iterable[bytes]) -> list[bytes]:
        """What a pair is found by: 16 bytes, of which no two pairs share all (2^64 pairs would make it likely)."""
        heads = {
            query: blake2b(_bytes(query), digest_size=16, key=self._settings, person=kind).digest()
            for query in dict.fromkeys(queries)
        }
        return [
            blake2b(passage, digest_size=16, key=heads[query]).digest()
            for query, passage in zip(queries, passages, strict=True)
        ]

    def _settled(
        self,
        keys: Sequence[bytes],
        queries: Sequence[str],
        compute: Callable[[list[int], Progress | None], Scored],
        progress: Progress | None = None,
        blank: Collection[bytes] = (),
    ) -> Scored:
        """Scores of all pairs: known ones from the file, the others computed and kept. `blank` keys count for none."""
        first = firsts(keys)
        known, note = self.store.get(list(first))
        cached = sum(key in known for key in keys)
        rows = [row for key, row in first.items() if key not in known]
        tokens, done, total = 0, len(known), len(first) - len(blank)
        for begin in range(0, len(rows), _AT_ONCE):
            part = rows[begin : begin + _AT_ONCE]
            fresh = compute(part, None if progress is None else _after(progress, done, total))
            done += sum(keys[row] not in blank for row in part)
            tokens += fresh.tokens
            cached += fresh.cached  # by a cache of which this is one
            made = self._entries([queries[row] for row in part], fresh)
            new = {keys[row]: entry for row, entry in zip(part, made, strict=True)}
            # A blank passage is no model's business and needs no memory.
            kept = {key: entry for key, entry in new.items() if np.isfinite(entry.score)}
            note = "; ".join(dict.fromkeys(filter(None, [note, fresh.note, self.store.put(kept)])))
            known |= new
        if progress is not None and not rows:
            progress(total, total)
        self.uses.add(sum(bool(np.isfinite(known[key].score)) for key in keys), cached)
        scores = np.array([known[key].score for key in keys], dtype=np.float32)
        return Scored(scores, _truncations([known[key] for key in keys], queries), tokens, cached, note)

    def _entries(self, queries: Sequence[str], scored: Scored) -> list[Entry]:
        """What was computed, a pair at a time; a query's cut stands with each of its pairs."""
        passages = {cut.position: _cut(cut) for cut in scored.truncations if cut.position >= 0}
        cut = [_cut(found) for found in scored.truncations if found.position < 0]
        asked = dict.fromkeys(queries)
        of: dict[str, Cut | None] = dict.fromkeys(asked)
        if cut and len(asked) == 1:
            of = {query: cut[0] for query in asked}
        elif cut:
            # The report does not say which of several queries were cut.
            for query in asked:
                report = self._encoder.encode([(query, "")], self.windows).truncations
                of[query] = next((_cut(found) for found in report if found.position < 0), None)
        return [
            Entry(score, passages.get(row), of[query])
            for row, (score, query) in enumerate(zip(scored.scores.tolist(), queries, strict=True))
        ]


def _after(progress: Progress, before: int, total: int) -> Progress:
    return lambda done, _: progress(before + done, total)


def _settings(scorer: CrossEncoder) -> bytes:
    """A digest of all that a score depends on besides the texts. A class of the user's may score as it likes."""
    kind = () if type(scorer) is CrossEncoder else (type(scorer).__module__, type(scorer).__qualname__)
    return blake2b(repr((_SCORES, *scorer.identity, *kind)).encode(), digest_size=16).digest()


def _bytes(text: str) -> bytes:
    # As the encoder reads it: texts that differ there must not share a key.
    return valid_text(text).encode()


def _cut(truncation: Truncation) -> Cut:
    return truncation.tokens, truncation.read, truncation.windows, truncation.exact


def _truncations(entries: Sequence[Entry], queries: Sequence[str]) -> tuple[Truncation, ...]:
    """Queries in the order in which they came, each once, then passages by position: as `CrossEncoder` reports."""
    heads = {query: entry.query for query, entry in zip(queries, entries, strict=True) if entry.query is not None}
    of_queries = [Truncation(-1, *cut) for cut in heads.values()]
    return (
        *of_queries,
        *(Truncation(row, *entry.passage) for row, entry in enumerate(entries) if entry.passage is not None),
    )
