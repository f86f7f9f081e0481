"""How long scoring takes: a formula of sequence lengths, fitted to measurements, and a running correction of it."""

from __future__ import annotations

import heapq
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.asking import check_whole
from crossrank.batching import plan
from crossrank.errors import InputError

# From so many sequences a worker on, the busiest worker has its share within some percent.
_MANY = 8
# With this much more than its share on one worker, the native engine divides rows instead (UNEVEN in engine.cpp).
_UNEVEN = 1.15
# Share of a new measurement in the running mean of measured over predicted, and of document sizes.
_NEWS = 0.2
# One measurement moves the mean by no more than this factor: another process may have had the core.
_MOST_NEWS = 3.0
# A step that was left out is hoped to be faster by this factor each time, see `Habit.idle` and `Pace.idle`.
_HOPE = 0.995
# Tokens of a document with its query: what a passage of some 90 words has, and what a short one has.
_USUAL, _SHORT = 128.0, 16
# Shorter than this, the clock and the scheduler are measured and not the model.
_LEAST_SECONDS = 3e-4
# Held for a few operations, so that all paces share it: one of its own would keep a pace from being pickled.
_learning = threading.Lock()


@dataclass(frozen=True, slots=True)
class CostModel:
    """Seconds that one scorer on one machine takes for sequences of given lengths.

    A call costs `call + sum over the busiest worker's sequences of (sequence + token n + square n^2)`, where n is a
    sequence's length: linear layers act on tokens, attention on pairs of tokens. Whole sequences go to the worker that
    is free first, longest first; where that leaves one with much more than its share, workers divide the rows of all,
    so that each has its share. So the native engine does it. A backend that pads pays the longest of a batch for all.

    Attributes:
        call: seconds a call, whatever it holds.
        sequence: seconds a sequence.
        token: seconds a token.
        square: seconds a squared token of each sequence.
        character: seconds to tokenize a character of a passage, where passages come as text.
        workers: threads that share the sequences of a call.
        padded: see `Backend.padded`.
        budget: tokens of one batch; a longer list takes several calls.

    >>> model = CostModel(call=0.001, sequence=0.0, token=0.00005, square=0.0)
    >>> round(model.seconds([100, 100]), 6)
    0.011
    >>> round(CostModel(0.001, 0.0, 0.00005, 0.0, workers=2).seconds([100, 100]), 6)
    0.006
    """

    call: float
    sequence: float
    token: float
    square: float
    character: float = 0.0
    workers: int = 1
    padded: bool = False
    budget: int = 8192

    def __post_init__(self) -> None:
        check_whole("the workers of a cost model", self.workers)
        check_whole("the budget of a cost model", self.budget)
        if not isinstance(self.padded, bool):
            raise InputError(f"a cost model is padded or not, True or False, not {self.padded!r}")
        parts = (self.call, self.sequence, self.token, self.square, self.character)
        if not all(np.isfinite(parts)) or min(parts) < 0 or self.workers < 1 or self.budget < 1:
            raise InputError(f"a cost model holds numbers of at least 0 and one worker or more, not {self}")

    def seconds(self, lengths: Sequence[int] | NDArray[np.int64], characters: int = 0) -> float:
        """What scoring sequences of these lengths takes; 0 for none.

        Args:
            lengths: tokens of each sequence, special tokens and the query included.
            characters: of passages that must be tokenized first.
        """
        rows = self.features(lengths)
        parts = (self.call, self.sequence, self.token, self.square)
        return float(rows @ np.array(parts)) + self.character * characters

    def shares(
        self, lengths: NDArray[np.int64], first: NDArray[np.int64], characters: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """What each document adds to a long call, about, shape (n,): all workers busy, and nothing padded.

        Args:
            lengths: tokens of each sequence, document by document.
            first: the first sequence of each document, and one past the last, shape (n + 1,).
            characters: of each document that must be tokenized first, shape (n,).
        """
        each = self.sequence + self.token * lengths + self.square * lengths.astype(np.float64) ** 2
        ends = np.concatenate([[0.0], np.cumsum(each)])
        shares: NDArray[np.float64] = (ends[first[1:]] - ends[first[:-1]]) / self.workers + self.character * characters
        return shares

    def features(self, lengths: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float64]:
        """Calls, and the busiest worker's sequences, tokens and squared tokens: what the formula's parts multiply."""
        values = np.asarray(lengths, dtype=np.int64)
        total = np.zeros(4)
        for batch in plan(values, self.budget, self.padded):
            part = values[batch]
            if self.padded:
                part = np.full_like(part, part.max())
            total += (1.0, *_busiest(part, self.workers))
        return total


def _busiest(falling: NDArray[np.int64], workers: int) -> tuple[float, float, float]:
    """Sequences, tokens and squared tokens of the worker that has most to do; lengths come longest first."""
    total = float(falling.sum())
    share = 1.0 / workers
    if workers > 1 and len(falling) <= _MANY * workers:
        lanes = [0] * min(workers, len(falling))
        for length in falling.tolist():
            heapq.heapreplace(lanes, lanes[0] + length)
        uneven = max(lanes) * workers / total
        share *= uneven if uneven <= _UNEVEN else 1.0
    return len(falling) * share, total * share, float((falling * falling).sum()) * share


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One measurement: the lengths of the sequences of a call, and its seconds."""

    lengths: NDArray[np.int64]
    seconds: float


def fit(samples: Sequence[Sample], workers: int = 1, padded: bool = False, budget: int = 8192) -> CostModel:
    """The cost model that fits measurements best, by relative error, with no part below 0.

    Relative errors are weighted down as they grow (iteratively reweighted least squares towards least absolute
    deviations), so that a measurement which another process disturbed counts little. Parts below 0 are excluded by
    trying every subset of the four parts, which is exact and, with 15 subsets, quick.

    Raises:
        InputError: no measurement, or one of no length.

    >>> truth = CostModel(0.001, 0.0, 0.00005, 2e-8)
    >>> sizes = [[16], [64], [256], [512], [64] * 8, [200] * 4]
    >>> found = fit([Sample(np.array(one), truth.seconds(one)) for one in sizes])
    >>> round(found.seconds([128] * 10) / truth.seconds([128] * 10), 3)
    1.0
    """
    if not samples or any(not len(sample.lengths) or sample.seconds <= 0 for sample in samples):
        raise InputError("a cost model is fitted to one measurement or more, each of a sequence or more and some time")
    empty = CostModel(0.0, 0.0, 0.0, 0.0, workers=workers, padded=padded, budget=budget)
    seconds = np.array([sample.seconds for sample in samples])
    rows = np.array([empty.features(sample.lengths) for sample in samples]) / seconds[:, None]
    weights = np.ones(len(samples))
    parts = np.zeros(4)
    for _ in range(6):
        parts = _nonnegative(rows * weights[:, None], weights)
        weights = 1.0 / np.sqrt(np.maximum(np.abs(rows @ parts - 1.0), 0.01))
    call, sequence, token, square = parts.tolist()
    return CostModel(call, sequence, token, square, workers=workers, padded=padded, budget=budget)


def _nonnegative(rows: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least squares with no part below 0, over all subsets of the columns; fewer parts win where both fit equally."""
    best, least = np.zeros(rows.shape[1]), float("inf")
    scale = np.maximum(np.abs(rows).max(axis=0), 1e-300)
    for count in range(1, rows.shape[1] + 1):
        for columns in combinations(range(rows.shape[1]), count):
            some = list(columns)
            found = np.linalg.lstsq(rows[:, some] / scale[some], target, rcond=None)[0] / scale[some]
            if found.min() < 0:
                continue
            error = float(((rows[:, some] @ found - target) ** 2).sum())
            if error < least * (1 - 1e-9):
                best, least = np.zeros(rows.shape[1]), error
                best[some] = found
    return best


class Pace:
    """How fast a scorer is right now: a cost model and a running mean of measured over predicted time.

    Many threads may share one. Without a model it starts from a guess, which its first measurement replaces.

    Args:
        model: fitted on this machine; None for a scorer that nobody has measured.

    Attributes:
        model: what is corrected.
        known: whether predictions rest on any measurement.
        ratio: measured over predicted, an exponentially weighted mean.
        hope: by what predictions are multiplied where the question is only whether to try again, see `idle`.

    >>> pace = Pace(CostModel(0.0, 0.0, 0.001, 0.0))
    >>> pace.observe([100], 0.2)
    >>> round(pace.ratio, 2), round(pace.seconds([100]), 2)
    (1.2, 0.12)
    """

    def __init__(self, model: CostModel | None = None) -> None:
        self.known = model is not None
        self.model = model or CostModel(call=0.001, sequence=0.0, token=0.0001, square=0.0)
        self.ratio = 1.0
        self.hope = 1.0
        self._tokens = _USUAL
        self._sized = False

    def __repr__(self) -> str:
        return f"Pace({self.model if self.known else None!r}, ratio={self.ratio:.2f})"

    def seconds(self, lengths: Sequence[int] | NDArray[np.int64], characters: int = 0) -> float:
        """Predicted seconds of one call; see `CostModel.seconds`."""
        return self.ratio * self.model.seconds(lengths, characters)

    def usual(self, documents: int) -> float:
        """Predicted seconds for so many documents of the usual size; 0 for none."""
        return self.seconds(np.full(documents, round(self._tokens), dtype=np.int64)) if documents > 0 else 0.0

    def documents(self, seconds: float, most: int) -> int:
        """How many documents of the usual size one may hope to read in so much time, `most` at most."""
        fits, above = 0, most + 1
        while above - fits > 1:
            middle = (fits + above) // 2
            fits, above = (middle, above) if self.hope * self.usual(middle) <= seconds else (fits, middle)
        return fits

    def renew(self, model: CostModel) -> None:
        """Go by what was measured anew; what was learned of the sizes of documents stays."""
        with _learning:
            self.model, self.known, self.ratio, self.hope = model, True, 1.0, 1.0

    def begins(self, seconds: float) -> bool:
        """Whether a document may fit into so much time: one of the usual size, or a short one until some were read."""
        size = round(self._tokens) if self._sized else _SHORT
        return self.hope * self.seconds([size]) <= seconds

    def idle(self) -> None:
        """Learn that a query passed in which the scorer read nothing, for lack of time.

        What reads nothing is not measured: one slow moment would rule it out for ever. So `hope` falls, as slowly as
        that of a `Habit`, until a few documents are tried again; `seconds` stays. One measurement ends it, and where
        that is as good as was hoped, the ratio is what was hoped.
        """
        with _learning:
            self.hope *= _HOPE

    def observe(
        self,
        lengths: Sequence[int] | NDArray[np.int64],
        seconds: float,
        characters: int = 0,
        documents: int = 0,
    ) -> None:
        """Learn from one call: its sequences, what it took, and how many documents they were, where that is known."""
        predicted = self.model.seconds(lengths, characters)
        if predicted <= 0 or not np.isfinite(seconds) or seconds < 0:
            return
        with _learning:
            if documents:
                size = float(np.sum(lengths)) / documents
                self._tokens += (_NEWS if self._sized else 1.0) * (size - self._tokens)
                self._sized = True
            if not self.known:
                self.ratio, self.known = max(seconds, 1e-9) / predicted, True
            elif max(predicted * self.ratio, seconds) >= _LEAST_SECONDS:
                news = seconds / predicted
                # As fast as was hoped: what was measured before the wait no longer holds.
                self.ratio *= self.hope if news <= self.ratio * self.hope else 1.0
                news = min(max(news, self.ratio / _MOST_NEWS), self.ratio * _MOST_NEWS)
                self.ratio += _NEWS * (news - self.ratio)
            self.hope = 1.0

    def stated(self) -> dict[str, Any]:
        """The corrected model as JSON values: what a file of costs keeps."""
        model = self.model
        return {
            "call": model.call * self.ratio,
            "sequence": model.sequence * self.ratio,
            "token": model.token * self.ratio,
            "square": model.square * self.ratio,
            "character": model.character * self.ratio,
            "workers": model.workers,
            "padded": model.padded,
            "budget": model.budget,
        }


@dataclass(frozen=True, slots=True)
class Habit:
    """What a step usually takes: exponentially weighted means of its seconds and of how far they vary.

    >>> habit = Habit(0.010).after(0.020)
    >>> round(habit.mean, 4), round(habit.most, 4)
    (0.012, 0.018)
    """

    mean: float
    deviation: float = 0.0

    def after(self, seconds: float) -> Habit:
        """The habit with one more measurement, which moves it by no more than a factor of three."""
        news = min(seconds, _MOST_NEWS * self.mean) if self.mean > 0 else seconds
        deviation = self.deviation + _NEWS * (abs(news - self.mean) - self.deviation)
        return Habit(self.mean + _NEWS * (news - self.mean), deviation)

    def idle(self) -> Habit:
        """The habit after a time in which the step was left out: one bad moment must not leave it out for ever.

        What it varies by is forgotten within some 20 queries. Its mean falls so slowly that a step which is truly a
        fifth too slow is tried once in 40 queries.
        """
        return Habit(_HOPE * self.mean, 0.95 * self.deviation)

    @property
    def most(self) -> float:
        """What it hardly ever exceeds: the mean and three deviations."""
        return self.mean + 3.0 * self.deviation


def _unlock() -> None:
    global _learning
    _learning = threading.Lock()


# A child may be forked while another thread learns, and no thread of the child would ever end that.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)
