"""Raw logits to probabilities of relevance. Pure functions; nothing here is applied unless it is asked for by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from crossrank.asking import check_real
from crossrank.errors import InputError

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
        return sigmoid((np.asarray(logits, np.float64) * self.slope + self.intercept).astype(np.float32))

    @classmethod
    def fit(cls, logits: NDArray[np.float32], relevant: NDArray[np.bool_]) -> Platt:
        """Maximum likelihood on judged pairs, by Newton's method, with Platt's smoothed targets.

        Args:
            logits: shape (n,). Pairs with -inf, which blank passages have, are left out.
            relevant: shape (n,).

        Raises:
            InputError: other shapes, a logit that is NaN or inf, judgments of one class only, or logits that do not
                rise with relevance.

        >>> rng = np.random.default_rng(0)
        >>> logits = rng.normal(size=4000).astype(np.float32)
        >>> fitted = Platt.fit(logits, rng.random(4000) < sigmoid(2 * logits - 1))
        >>> abs(fitted.slope - 2) < 0.2, abs(fitted.intercept + 1) < 0.2
        (True, True)
        """
        x, y = np.asarray(logits, np.float64), np.asarray(relevant, bool)
        if x.ndim != 1 or x.shape != y.shape:
            raise InputError(f"a calibration needs one judgment a logit, not shapes {x.shape} and {y.shape}")
        x, y = x[x != -np.inf], y[x != -np.inf]
        if not np.isfinite(x).all():
            raise InputError(f"logit {x[~np.isfinite(x)][0]} cannot be calibrated: score with dtype='float32'")
        positives, negatives = int(y.sum()), int((~y).sum())
        if not positives or not negatives:
            raise InputError("a calibration needs pairs of both kinds, relevant and not")
        # Smoothed targets keep the fit finite when the classes separate perfectly.
        target = np.where(y, (positives + 1) / (positives + 2), 1 / (negatives + 2))
        design = np.stack([x, np.ones_like(x)], axis=1)
        beta = np.array([0.0, np.log((positives + 1) / (negatives + 1))])
        for _ in range(100):
            p = 1.0 / (1.0 + np.exp(-np.clip(design @ beta, -60, 60)))
            hessian = (design * (p * (1 - p))[:, None]).T @ design + 1e-9 * np.eye(2)
            step = np.linalg.solve(hessian, design.T @ (target - p))
            # Half steps far from the optimum: the full Newton step can diverge on separable data.
            beta += step / max(1.0, float(np.abs(step).max()))
            if np.abs(step).max() < 1e-9:
                break
        if beta[0] <= 0:
            raise InputError("these scores do not rise with relevance, so there is nothing to calibrate")
        return cls(float(beta[0]), float(beta[1]))


def expected_calibration_error(
    probabilities: NDArray[np.float32], relevant: NDArray[np.bool_], bins: int = 10
) -> float:
    """Mean distance between predicted and observed relevance over equal-count bins. Source: Naeini et al. 2015.

    >>> expected_calibration_error(np.float32([0.0, 1.0]), np.array([False, True]), bins=2)
    0.0
    """
    order = np.argsort(probabilities, kind="stable")
    parts = np.array_split(order, min(bins, max(1, len(order))))
    total = sum(abs(float(probabilities[p].mean()) - float(relevant[p].mean())) * len(p) for p in parts if len(p))
    return total / max(1, len(order))


def check_threshold(threshold: float | str | None) -> None:
    """Refuse what is neither a probability, nor "model" for the model's own, nor None.

    Raises:
        InputError: it is something else.
    """
    if threshold in (None, "model") or (isinstance(threshold, Real) and 0.0 <= threshold <= 1.0):
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
    scorer.probability(np.zeros(0, np.float32))
    if threshold != "model":
        return threshold
    if scorer.threshold is None:
        raise InputError(f"{name} has no threshold of its own: give a probability, such as 0.1")
    return scorer.threshold


def irrelevant(probability: float, threshold: float) -> str:
    """What is said when the best passage is less probable than the threshold.

    >>> irrelevant(0.03, 0.1)
    'nothing is relevant: the best passage has a probability of 0.030, under 0.1'
    """
    return f"nothing is relevant: the best passage has a probability of {probability:.3f}, under {threshold:g}"


def left_out(under: int, unread: int, threshold: float) -> str:
    """What is said of passages that a threshold left out; empty where there are none.

    >>> left_out(2, 1, 0.1)
    'left out: 2 passages under the threshold of 0.1, 1 passage that the last stage did not read'
    """
    told = [(under, f"under the threshold of {threshold:g}"), (unread, "that the last stage did not read")]
    parts = [f"{count:,} passage{'s' if count > 1 else ''} {what}" for count, what in told if count]
    return f"left out: {', '.join(parts)}" if parts else ""
