"""Judgments made ready: each query with its negatives, the fold it is held out in, and how its order is valued."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from crossrank.training import folds, measuring
from crossrank.training.gate import FEWEST_HELD_OUT
from crossrank.training.judgments import Group, Scale, threshold
from crossrank.training.measuring import Lists
from crossrank.training.negatives import MEASURED, WANTED, Nearest, Shown, mine
from crossrank.training.searched import Answered, Searched, answered
from crossrank.training.settings import FOLDS, Settings
from crossrank.types import Passage

# An array a query.
Scores = Sequence[NDArray[np.float32]]
# Held-out queries of one part are cut into so many blocks, to choose the epoch on the others.
BLOCKS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """All queries of a tuning.

    Attributes:
        shown: queries with everything they are shown.
        fold: of each query; -1 for one that is never held out.
        block: of each held-out query: what is chosen for it is chosen on the others; -1 where the fold is.
        telling: whether the query can be ranked better or worse when it is held out, shape (n,).
        scale: of the labels.
        limit: labels above it are relevant.
        low: the least label.
        high: the highest label.
        answers: of each query, how a search answers it; empty where none was asked.
        searched: whether that is how held-out queries are ranked.
        mixes: shares of a model's score in the order of a search, over which values are means.
    """

    shown: tuple[Shown, ...]
    fold: NDArray[np.int64]
    block: NDArray[np.int64]
    telling: NDArray[np.bool_]
    scale: Scale
    limit: float
    low: float
    high: float
    answers: tuple[Answered, ...] = ()
    searched: bool = False
    mixes: tuple[float, ...] = (1.0,)

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
        drawn = self.drawn(seed)
        return np.sort(drawn[np.cumsum(lengths[drawn]) <= most])

    def needed(self, lengths: NDArray[np.int64], queries: int, seed: int) -> int:
        """The least `most` with which `measured` gives so many queries."""
        return int(lengths[self.drawn(seed)[:queries]].sum())

    def drawn(self, seed: int) -> NDArray[np.int64]:
        """Held-out queries that can be ranked better or worse, in the order in which they are measured."""
        return np.random.default_rng([seed, 7]).permutation(np.flatnonzero(self.telling & (self.fold >= 0)))

    @property
    def unfound(self) -> tuple[str, ...]:
        """Queries of which the search that was asked finds no relevant document."""
        return tuple(one.query for one in self.answers if not (one.labels > self.limit).any())

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

    def as_deep(self, depth: int) -> Material:
        """The same with the first `depth` candidates of each search."""
        answers = tuple(one.cut(depth) for one in self.answers)
        return replace(self, answers=answers, telling=_telling(answers))

    def lists(self, rows: Sequence[int]) -> list[Lists]:
        """What is ranked of these queries when they are held out."""
        return [self.answers[i] if self.searched else self.shown[i] for i in rows]

    def values(self, rows: Sequence[int], scores: Scores, mix: float | None = None) -> NDArray[np.float64]:
        """nDCG@10 of the queries in `rows` with these scores; in a search with a share of `mix`, or the mean of all."""
        return self._mean(measuring.values, rows, scores, mix)

    def expected(self, rows: Sequence[int], scores: Scores) -> NDArray[np.float64]:
        """Expected nDCG@10 of the same, see `measuring.expected`."""
        return self._mean(measuring.expected, rows, scores, None)

    def _mean(
        self, measure: Callable[..., NDArray[np.float64]], rows: Sequence[int], scores: Scores, mix: float | None
    ) -> NDArray[np.float64]:
        shares = self.mixes if mix is None else (mix,)
        lists = self.lists(rows)
        each = [measure(lists, scores, self.scale, self.low, self.high, share) for share in shares]
        return np.asarray(np.mean(each, axis=0))

    def relevant(self, row: int) -> NDArray[np.bool_]:
        """Which documents of a query that are trained on count as relevant."""
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

    Where `nearest` is a search, held-out queries are ranked as it answers them, if it finds a relevant document for as
    many as are needed to be sure of anything.

    A teacher's scores are taken as they are: mined documents would have none. For `never` see `mine`. All distractors
    are there still, see `Material.with_distractors`.
    """
    everything = [*groups, *held_out]
    limit = threshold(everything, scale)
    labels = [label for group in everything for label in group.labels]
    wanted, measured = (0, 0) if scale == "scores" else (WANTED, MEASURED)
    searched: dict[str, Searched] = {}

    def asked(queries: Sequence[str], depth: int) -> Sequence[Sequence[str | Passage]]:
        found = nearest(queries, depth)
        searched.update((q, one) for q, one in zip(queries, found, strict=True) if isinstance(one, Searched))
        return found

    shown = mine(everything, asked, pool, limit, settings.seed, wanted, never, measured)
    least = min(0.0, min(labels))
    answers = tuple(answered(group, searched[group.query], least) for group in everything if searched)
    if held_out:
        fold = np.array([-1] * len(groups) + [0] * len(held_out), dtype=np.int64)
        block = np.full(len(fold), -1)
        block[len(groups) :] = _blocks([group.query for group in held_out], settings.seed)
    else:
        fold = block = folds.assign([group.query for group in groups], settings.folds or FOLDS, settings.seed)
    telling, searched_telling = _telling([one.hardest(0) for one in shown]), _telling(answers)
    enough = bool(answers) and int((searched_telling & (fold >= 0)).sum()) >= FEWEST_HELD_OUT
    if enough:
        telling, mixes = searched_telling, tuple(sorted(settings.mixes))
    else:
        mixes = (1.0,)
    return Material(tuple(shown), fold, block, telling, scale, limit, min(labels), max(labels), answers, enough, mixes)


def _telling(lists: Sequence[Lists]) -> NDArray[np.bool_]:
    return np.array([measuring.telling(one) for one in lists], dtype=np.bool_)


def _blocks(queries: Sequence[str], seed: int) -> NDArray[np.int64]:
    return folds.assign(queries, BLOCKS, seed) if len(queries) >= BLOCKS else np.arange(len(queries))
