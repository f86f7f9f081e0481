"""Raw logits to probabilities of relevance. Pure functions; nothing here is applied unless it is asked for by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from crossrank.asking import check_real
from crossrank.errors import InputError

# Outliers are few, and lie so many times as far from the median as all other logits.
_FEW, _FAR = 0.05, 10.0
# What the other logits must tell of relevance for outliers to be to blame, in nats: less may be chance.
_TELLING = 3.0

Threshold = float | Literal["model"]
"""The least probability that is taken for relevant, or "model" for the one that a model has of its own."""


class Telling(Protocol):
    """What gives probabilities, as a `CrossEncoder` does."""

    @property
    def threshold(self) -> float | None:
        """Its own; None where nobody has chosen one."""
        ...

    def probability(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Raw scores as probabilities; an error where it has none."""
        ...


def numbers(scores: Any) -> NDArray[np.float64]:
    """Scores as an array; refuse what holds something else, such as a whole `Ranked`.

    >>> numbers([1, 2.5]).tolist()
    [1.0, 2.5]
    """
    if hasattr(scores, "scores"):
        raise InputError(f"probabilities are made of scores, not of {type(scores).__name__}: pass ranked.scores")
    try:
        made = np.asarray(scores)
    except ValueError:
        made = np.asarray(None)
    if made.dtype.kind in "OSUMm":
        raise InputError(f"probabilities are made of numbers, such as ranked.scores, not of {scores!r:.80}")
    return made.astype(np.float64)


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 / (1 + exp(-x)), safe at both ends: no overflow, and computed in float64 so that near ties stay apart.

    >>> sigmoid(np.float32([-1000, 0, 1000])).tolist()
    [0.0, 0.5, 1.0]
    """
    # exp of a number that is never positive cannot overflow.
    small = np.exp(-np.abs(logits.astype(np.float64)))
    return np.where(logits >= 0, 1.0 / (1.0 + small), small / (1.0 + small)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Platt:
    """probability = sigmoid(slope * logit + intercept). Source: Platt 1999, "Probabilistic outputs for SVMs".

    The slope is positive, so that the order of probabilities is the order of logits.

    >>> Platt(2.0, -1.0).probability(np.float32([0.5])).tolist()
    [0.5]
    """

    slope: float
    intercept: float

    def __post_init__(self) -> None:
        check_real("a calibration's slope", self.slope)
        check_real("a calibration's intercept", self.intercept)
        if not (np.isfinite(self.slope) and np.isfinite(self.intercept) and self.slope > 0):
            raise InputError(f"a calibration needs a finite positive slope, not {self.slope} (+ {self.intercept})")
        # Numbers of NumPy cannot be written as JSON.
        for name in ("slope", "intercept"):
            object.__setattr__(self, name, float(getattr(self, name)))

    @classmethod
    def of(cls, value: Platt | Mapping[str, float]) -> Platt:
        """A calibration as it is, or the one that a mapping with `slope` and `intercept` states.

        Raises:
            InputError: neither of the two.

        >>> Platt.of({"slope": 2, "intercept": -1})
        Platt(slope=2.0, intercept=-1.0)
        """
        if isinstance(value, Platt):
            return value
        if isinstance(value, Mapping) and set(value) == {"slope", "intercept"}:
            return cls(value["slope"], value["intercept"])
        told = f"{value!r:.80}" if isinstance(value, Mapping) else type(value).__name__
        raise InputError(
            f'a calibration is a crossrank.Platt, such as Platt.fit(...) gives, or {{"slope": ..., "intercept": ...}}, '
            f"not {told}"
        )

    def probability(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities, same shape; -inf gives 0."""
        with np.errstate(over="ignore"):  # inf, as the sigmoid of what is so large says as well
            return sigmoid((numbers(logits) * self.slope + self.intercept).astype(np.float32))

    @classmethod
    def fit(cls, logits: NDArray[np.float32], relevant: NDArray[np.bool_]) -> Platt:
        """Maximum likelihood on judged pairs, with Platt's smoothed targets.

        By Newton's method with a line search (Lin, Lin and Weng 2007, "A note on Platt's probabilistic outputs for
        support vector machines"), on standardized logits: those of a large language model may lie around 20 with a
        spread of 0.1, where slope and intercept in their own units trade off against each other.

        Args:
            logits: shape (n,). Pairs with -inf, which blank passages have, are left out.
            relevant: shape (n,).

        Raises:
            InputError: other shapes, a logit that is NaN or inf, judgments of one class only, logits that do not
                rise with relevance, a few logits so far from all others that these get nearly one probability (the
                message names them), or a fit that does not converge.

        >>> rng = np.random.default_rng(0)
        >>> logits = rng.normal(size=4000).astype(np.float32)
        >>> fitted = Platt.fit(logits, rng.random(4000) < sigmoid(2 * logits - 1))
        >>> abs(fitted.slope - 2) < 0.2, abs(fitted.intercept + 1) < 0.2
        (True, True)
        """
        x, y = np.asarray(logits, np.float64), np.asarray(relevant, bool)
        if x.ndim != 1 or x.shape != y.shape:
            raise InputError(f"a calibration needs one judgment a logit, not shapes {x.shape} and {y.shape}")
        rows = np.flatnonzero(x != -np.inf)
        x, y = x[rows], y[rows]
        if not np.isfinite(x).all():
            raise InputError(f"logit {x[~np.isfinite(x)][0]} cannot be calibrated: score with dtype='float32'")
        if y.all() or not y.any():
            raise InputError("a calibration needs pairs of both kinds, relevant and not")
        try:
            slope, intercept = fit = _fitted(x, y)
        except InputError:
            _check_outliers(x, y, rows, None)
            raise
        _check_outliers(x, y, rows, fit)
        if slope <= 0:
            raise InputError("these scores do not rise with relevance, so there is nothing to calibrate")
        return cls(slope, intercept)


def _fitted(x: NDArray[np.float64], y: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and intercept of finite logits with judgments of both classes; a slope of 0 where all are equal."""
    centre, spread = float(x.mean()), float(x.std())
    if spread == 0:
        return 0.0, float(np.log(y.mean() / (1 - y.mean())))
    slope, intercept = _newton((x - centre) / spread, _smoothed(y))
    return slope / spread, intercept - slope / spread * centre


def _smoothed(y: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Platt's targets, which keep the fit finite when the classes separate perfectly."""
    positives, negatives = int(y.sum()), int((~y).sum())
    return np.where(y, (positives + 1) / (positives + 2), 1 / (negatives + 2))


def _told(x: NDArray[np.float64], y: NDArray[np.bool_], slope: float, intercept: float) -> float:
    """What a fit tells of relevance: how much less these pairs cost than with one probability for all, in nats."""
    target = _smoothed(y)
    flat = np.full(len(target), np.log(target.mean() / (1 - target.mean())))
    return _cross_entropy(flat, target) - _cross_entropy(slope * x + intercept, target)


def _check_outliers(
    x: NDArray[np.float64], y: NDArray[np.bool_], rows: NDArray[np.int64], fit: tuple[float, float] | None
) -> None:
    """Refuse a few far logits that spoil the fit of all others.

    Targets are smoothed, so that no pair is certain, and one logit of 1e6 costs more than a flat fit does: all others
    would get nearly one probability. Far logits alone are no harm, such as the few relevant ones of a model whose
    other scores lie close together: what the fit tells of these counts, too. They are to blame only where the others
    rise with relevance without them, and the fit of all tells less than half of that, of the others and of all.

    Args:
        x: finite logits, shape (n,).
        y: whether each is relevant, shape (n,).
        rows: their places among all that were given, for the message.
        fit: slope and intercept of all; None where there is none.
    """
    far = _far(x)
    rest = ~far
    if not far.any() or y[rest].all() or not y[rest].any():
        return
    try:
        slope, intercept = _fitted(x[rest], y[rest])
    except InputError:
        return
    without = _told(x[rest], y[rest], slope, intercept)
    together = max(_told(x[rest], y[rest], *fit), _told(x, y, *fit)) if fit else 0.0
    if slope > 0 and without > _TELLING and together < without / 2:
        shown = ", ".join(f"{x[i]:g} (pair {rows[i] + 1:,})" for i in np.flatnonzero(far)[:3])
        raise InputError(
            f"{int(far.sum())} of {len(x):,} logits lie far from all others and spoil the calibration of these: "
            f"{shown}. Look why these pairs score so, and leave them out if that is a mistake"
        )


def _far(x: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which few logits lie `_FAR` times as far from the median as all others, if any do, shape (n,)."""
    distance = np.abs(x - np.median(x))
    order = np.sort(distance)[::-1]
    most = max(1, int(_FEW * len(x)))
    gaps = np.flatnonzero(order[:most] > _FAR * order[1 : most + 1])
    return distance >= (order[gaps[-1]] if len(gaps) else np.inf)


def _newton(x: NDArray[np.float64], target: NDArray[np.float64]) -> tuple[float, float]:
    """Slope and intercept of least cross entropy, which is convex: steps that do not lower it enough are halved."""
    design = np.stack([x, np.ones_like(x)], axis=1)
    share = float(target.mean())
    beta = np.array([0.0, np.log(share / (1 - share))])
    loss = _cross_entropy(design @ beta, target)
    for _ in range(100):
        p = 1.0 / (1.0 + np.exp(-np.clip(design @ beta, -60, 60)))
        gradient = design.T @ (p - target)
        # In units of pairs: so much of one pair in all of them.
        if np.abs(gradient).max() < 1e-9 * len(x):
            break
        hessian = (design * (p * (1 - p))[:, None]).T @ design + 1e-12 * np.eye(2)
        step = -np.linalg.solve(hessian, gradient)
        size, fall = 1.0, float(gradient @ step)
        while size > 1e-10 and _cross_entropy(design @ (beta + size * step), target) > loss + 1e-4 * size * fall:
            size /= 2
        beta = beta + size * step
        loss = _cross_entropy(design @ beta, target)
    if not np.abs(gradient).max() < 1e-5 * len(x):
        raise InputError("no calibration could be fitted to these scores: some of them lie far from all others")
    return float(beta[0]), float(beta[1])


def _cross_entropy(logits: NDArray[np.float64], target: NDArray[np.float64]) -> float:
    return float(np.sum(np.logaddexp(0.0, logits) - target * logits))


def expected_calibration_error(
    probabilities: NDArray[np.float32], relevant: NDArray[np.bool_], bins: int = 10
) -> float:
    """Mean distance between predicted and observed relevance over equal-count bins. Source: Naeini et al. 2015.

    It does not depend on the order of the pairs, see `equal_count_bins`.

    >>> expected_calibration_error(np.float32([0.0, 1.0]), np.array([False, True]), bins=2)
    0.0
    """
    parts = equal_count_bins(probabilities, bins)
    total = sum(abs(float(probabilities[p].mean()) - float(relevant[p].mean())) * len(p) for p in parts)
    return total / max(1, len(probabilities))


def equal_count_bins(probabilities: NDArray[np.float32], bins: int) -> list[NDArray[np.int64]]:
    """Places of the pairs of each bin, by rising probability; none is empty, and there may be fewer than `bins`.

    Pairs of one probability are in one bin, which may make it larger than others: where a border would part them, it
    moves to the nearer end of theirs. Otherwise the order of the pairs would tell which of them are in which bin.

    >>> [part.tolist() for part in equal_count_bins(np.float32([0.5, 0.1, 0.5, 0.5, 0.9]), 2)]
    [[1, 0, 2, 3], [4]]
    """
    order = np.argsort(probabilities, kind="stable")
    found = probabilities[order]
    borders = set()
    for place in np.cumsum([len(part) for part in np.array_split(order, max(1, min(bins, len(order))))])[:-1]:
        low = int(np.searchsorted(found, found[place], "left"))
        high = int(np.searchsorted(found, found[place], "right"))
        borders.add(low if place - low <= high - place else high)
    return [part for part in np.split(order, sorted(borders)) if len(part)]


def check_threshold(threshold: float | str | None) -> None:
    """Refuse what is neither a probability, nor "model" for the model's own, nor None.

    Raises:
        InputError: it is something else.
    """
    if threshold is None or (isinstance(threshold, str) and threshold == "model"):
        return
    if isinstance(threshold, Real) and not isinstance(threshold, bool) and 0.0 <= threshold <= 1.0:
        return
    raise InputError(f'the threshold is a probability, from 0 to 1, or "model", not {threshold!r}')


def least(scorer: Telling, threshold: Threshold, name: str) -> float:
    """The probability that a threshold is: as it was given, or the scorer's own for "model".

    Whoever asks for a threshold must not get an answer without it, so this comes before anything is read.

    Args:
        scorer: whose probabilities it is held against.
        threshold: as asked for.
        name: of the scorer, for people.

    Raises:
        InputError: no threshold, the scorer has none of its own, or it gives no probabilities.

    >>> import crossrank
    >>> least(crossrank.load(), 0.5, "small"), least(crossrank.load(), "model", "small")
    (0.5, 0.1)
    """
    check_threshold(threshold)
    try:
        scorer.probability(np.zeros(0, np.float32))
    except InputError as error:
        # An agent, or who sends requests to a server, cannot choose another model.
        raise InputError(f"{error}, or leave out the threshold") from error
    if threshold != "model":
        return threshold
    if scorer.threshold is None:
        raise InputError(
            f"{name} has no threshold of its own: give a probability, such as 0.1, or choose one with "
            "`crossrank calibrate --most-lost`"
        )
    return scorer.threshold


def without_probabilities(name: str, asked: str = "the threshold") -> str:
    """What is said where `asked`, an option, needs the probabilities of a model of another kind.

    >>> without_probabilities("late", "--probability").partition(", or")[0]
    'late gives scores and no probabilities: leave out --probability'
    """
    return (
        f"{name} gives scores and no probabilities: leave out {asked}, or take a cross-encoder that is calibrated, "
        'such as "small"'
    )


def irrelevant(probability: float, threshold: float) -> str:
    """What is said when the best passage is less probable than the threshold.

    >>> irrelevant(0.03, 0.1)
    'nothing reaches the threshold: the best passage has a probability of 0.030, under 0.1'
    >>> irrelevant(0.4999, 0.5)[-20:]
    'of 0.4999, under 0.5'
    """
    told = f"{probability:.3f}"
    if float(told) >= threshold:
        told = f"{probability:.9g}"
    return f"nothing reaches the threshold: the best passage has a probability of {told}, under {threshold:g}"


def left_out(under: int, unread: int, threshold: float) -> str:
    """What is said of passages that a threshold left out; empty where there are none.

    >>> left_out(2, 1, 0.1)
    'left out: 2 passages under the threshold of 0.1, 1 passage that the last stage did not read'
    """
    told = [(under, f"under the threshold of {threshold:g}"), (unread, "that the last stage did not read")]
    parts = [f"{count:,} passage{'s' if count > 1 else ''} {what}" for count, what in told if count]
    return f"left out: {', '.join(parts)}" if parts else ""


UNREAD = "the threshold was not used: no stage that gives probabilities has read a passage"
"""What is said where a budget or a failure left nothing read."""


def above(chances: Sequence[float | None], threshold: float) -> tuple[list[int], tuple[str, ...]]:
    """Which passages of an answer a threshold leaves, and what is to be said of the others.

    The rule of every list that a threshold is held against. Where nothing was read, for want of time or because a stage
    failed, all stay and it is said: an answer is not empty because of its budget.

    Args:
        chances: the probability of each passage; None for one that was not read, which is left out if others were.
        threshold: the least probability that is left.

    >>> above([0.9, 0.2, None], 0.5)
    ([0], ('left out: 1 passage under the threshold of 0.5, 1 passage that the last stage did not read',))
    >>> above([0.2, 0.1], 0.5)
    ([], ('nothing reaches the threshold: the best passage has a probability of 0.200, under 0.5',))
    >>> above([None, None], 0.5)
    ([0, 1], ('the threshold was not used: no stage that gives probabilities has read a passage',))
    """
    read = [chance for chance in chances if chance is not None]
    if not read:
        return list(range(len(chances))), (UNREAD,) if chances else ()
    rows = [row for row, chance in enumerate(chances) if chance is not None and chance >= threshold]
    unread = len(chances) - len(read)
    if not rows:
        return rows, tuple(filter(None, [irrelevant(max(read), threshold), left_out(0, unread, threshold)]))
    return rows, tuple(filter(None, [left_out(len(read) - len(rows), unread, threshold)]))
