"""Judgments made ready: each query with its negatives, the fold it is held out in, and how its order is valued."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from crossrank.training import folds, measuring
from crossrank.training.judgments import Group, Scale, threshold
from crossrank.training.negatives import MEASURED, WANTED, Nearest, Shown, mine
from crossrank.training.settings import FOLDS, Settings

# Held-out queries of one part are cut into so many blocks, to choose the epoch on the others.
BLOCKS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """All queries of a tuning.

    Attributes:
        shown: queries with everything they are shown.
        fold: of each query; -1 for one that is never held out.
        block: of each held-out query: what is chosen for it is chosen on the others; -1 where the fold is.
        telling: whether the query can be ranked better or worse, shape (n,).
        scale: of the labels.
        limit: labels above it are relevant.
        low: the least label.
        high: the highest label.
    """

    shown: tuple[Shown, ...]
    fold: NDArray[np.int64]
    block: NDArray[np.int64]
    telling: NDArray[np.bool_]
    scale: Scale
    limit: float
    low: float
    high: float

    @property
    def parts(self) -> list[int]:
        """The folds there are."""
        return sorted(set(self.fold[self.fold >= 0].tolist()))

    def measured(self, lengths: NDArray[np.int64], most: int, seed: int) -> NDArray[np.int64]:
        """Held-out queries that can be ranked better or worse: all, or as many as `most` tokens hold, drawn.

        Args:
            lengths: tokens of each query with all its documents, shape (n,).
            most: tokens, at most.
            seed: of the draw.
        """
        drawn = self._drawn(seed)
        return np.sort(drawn[np.cumsum(lengths[drawn]) <= most])

    def needed(self, lengths: NDArray[np.int64], queries: int, seed: int) -> int:
        """The least `most` with which `measured` gives so many queries."""
        return int(lengths[self._drawn(seed)[:queries]].sum())

    def _drawn(self, seed: int) -> NDArray[np.int64]:
        """Held-out queries that can be ranked better or worse, in the order in which they are measured."""
        return np.random.default_rng([seed, 7]).permutation(np.flatnonzero(self.telling & (self.fold >= 0)))

    def holding_out(self, rows: NDArray[np.int64], seed: int) -> Material:
        """The same with the queries in `rows` held out and all others trained on, as with a held-out file."""
        fold, block = np.full(len(self.shown), -1), np.full(len(self.shown), -1)
        fold[rows], block[rows] = 0, _blocks([self.shown[row].query for row in rows.tolist()], seed)
        return replace(self, fold=fold, block=block)

    def with_distractors(self, rows: NDArray[np.int64], most: int) -> Material:
        """The same with the `most` hardest distractors of each query in `rows`, and none of the others."""
        if not any(one.distractor.any() for one in self.shown):
            return self
        measured = set(rows.tolist())
        return self.showing([one.hardest(most if i in measured else 0) for i, one in enumerate(self.shown)])

    def values(self, rows: NDArray[np.int64], scores: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
        """nDCG@10 of the queries in `rows` with these scores."""
        shown = [self.shown[i] for i in rows.tolist()]
        return measuring.values(shown, scores, self.scale, self.low, self.high)

    def expected(self, rows: NDArray[np.int64], scores: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
        """Expected nDCG@10 of the queries in `rows`, see `measuring.expected`."""
        shown = [self.shown[i] for i in rows.tolist()]
        return measuring.expected(shown, scores, self.scale, self.low, self.high)

    def relevant(self, row: int) -> NDArray[np.bool_]:
        """Which documents of a query count as relevant."""
        return np.asarray(self.shown[row].labels > self.limit)

    def targets(self, row: int, spread: float) -> NDArray[np.float32]:
        """What a loss is given for a query: labels from 0 to 1, or a teacher's scores spread like the base model's.

        Args:
            row: of the query.
            spread: standard deviation of the base model's scores.
        """
        labels = self.shown[row].labels
        if self.scale != "scores":
            return np.asarray(np.maximum(labels, 0) / max(self.high, 1e-9), dtype=np.float32)
        everything = np.concatenate([one.labels for one in self.shown])
        deviation = float(everything.std()) or 1.0
        return np.asarray((labels - everything.mean()) / deviation * spread, dtype=np.float32)

    def showing(self, shown: Sequence[Shown]) -> Material:
        """The same with other `shown`."""
        return replace(self, shown=tuple(shown))


def gathered(
    groups: Sequence[Group],
    held_out: Sequence[Group],
    scale: Scale,
    nearest: Nearest,
    pool: Sequence[str],
    settings: Settings,
    never: Mapping[str, Sequence[str]] | None = None,
) -> Material:
    """Mine negatives for all queries and deal the folds; with `held_out`, those are the only fold.

    A teacher's scores are taken as they are: mined documents would have none. For `never` see `mine`. All distractors
    are there still, see `Material.with_distractors`.
    """
    everything = [*groups, *held_out]
    limit = threshold(everything, scale)
    labels = [label for group in everything for label in group.labels]
    wanted, measured = (0, 0) if scale == "scores" else (WANTED, MEASURED)
    shown = mine(everything, nearest, pool, limit, settings.seed, wanted, never, measured)
    if held_out:
        fold = np.array([-1] * len(groups) + [0] * len(held_out), dtype=np.int64)
        block = np.full(len(fold), -1)
        block[len(groups) :] = _blocks([group.query for group in held_out], settings.seed)
    else:
        fold = block = folds.assign([group.query for group in groups], settings.folds or FOLDS, settings.seed)
    telling = np.array([measuring.telling(one.hardest(0)) for one in shown], dtype=np.bool_)
    return Material(tuple(shown), fold, block, telling, scale, limit, min(labels), max(labels))


def _blocks(queries: Sequence[str], seed: int) -> NDArray[np.int64]:
    return folds.assign(queries, BLOCKS, seed) if len(queries) >= BLOCKS else np.arange(len(queries))
