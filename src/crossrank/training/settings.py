"""How a tuning is done: what the user may choose, and what follows from how much data there is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from crossrank.asking import check_real, check_whole
from crossrank.errors import InputError
from crossrank.training.gate import CONFIDENCE, LEAST_GAIN, MOST_LOSS
from crossrank.training.judgments import Scale

Loss = Literal["bce", "listwise", "lambda", "margin-mse", "distil"]
LOSSES: tuple[Loss, ...] = ("bce", "listwise", "lambda", "margin-mse", "distil")
# Those that learn from a teacher's scores, and from nothing else.
TEACHERS: tuple[Loss, ...] = ("margin-mse", "distil")
# With fewer queries only the upper half of the layers is trained.
FEW_QUERIES = 30
# The highest rate of short trainings and of longer ones. On 34 queries of WikiQA a training, all layers at 1e-4 gained
# 0.063 on held-out folds and the upper half at 3e-5 0.044 (LOG.md). More steps at that rate forget more.
SHORT_RATE, LONG_RATE, SHORT_STEPS = 1e-4, 5e-5, 60
MOST_EPOCHS, MOST_REPEATS = 4, 2
LEAST_TOKENS, MOST_TOKENS = 64, 320
FOLDS = 3
# What kind of number it is, whether it fits, and the range in words.
_Range = tuple[Callable[[str, Any], None], Callable[[Any], bool], str]


def _from(least: int) -> _Range:
    return check_whole, lambda number: number >= least, f"at least {least}"


_RANGES: dict[str, _Range] = {
    "folds": _from(2),
    "repeats": _from(1),
    "epochs": _from(1),
    "layers": _from(1),
    "rate": (check_real, lambda rate: 0 < rate < 1, "over 0 and under 1"),
    "max_tokens": _from(8),
    "candidates": _from(2),
    "queries_a_step": _from(1),
    "remember": (check_real, lambda weight: 0 <= weight < math.inf, "at least 0 and finite"),
    "seed": _from(0),
    "tokens": _from(1),
    "measured_tokens": _from(1),
    "confidence": (check_real, lambda share: 0.5 < share < 1, "over 0.5 and under 1"),
    "least_gain": (check_real, lambda gain: 0 <= gain <= 1, "from 0 to 1"),
    "most_loss": (check_real, lambda loss: 0 <= loss <= 1, "from 0 to 1"),
}
# Those that may be left to `planned`.
_OPEN = {"folds", "repeats", "epochs", "layers", "rate", "max_tokens"}


@dataclass(frozen=True, slots=True)
class Settings:
    """What the user may choose; None is decided by `planned`.

    Attributes:
        loss: by the labels when absent: listwise for two labels and for clicks, lambda for grades, distil for scores.
        folds: of cross-validation; without meaning where a held-out part is given. When absent `FOLDS`, or one part
            alone is held out, where that has as many queries as can be measured with `measured_tokens`.
        repeats: trainings of each fold, each with its own seed.
        epochs: passes over the queries; the one that serves held-out queries best is used.
        layers: upper layers that are trained, with the head; word embeddings never are.
        rate: the highest learning rate.
        max_tokens: tokens of one sequence in training, special tokens included; by the data when absent, see `fitting`.
        candidates: documents of a query in one step.
        queries_a_step: queries in one step.
        remember: weight of staying near the base model's scores on general questions.
        shares: of the tuned weights in the mix with the base model's; the best on held-out queries is used.
        mixes: shares of a model's score in the order of a search, where one is asked: what is measured is the mean over
            them, and one is chosen for the tuned model in the end.
        seed: of everything that is drawn.
        tokens: to train on, about, over all trainings: the budget of time.
        measured_tokens: to rank held-out queries with one model, at most; the queries beyond it are drawn from.
        confidence: one-sided, of the gate.
        least_gain: a mean gain of nDCG@10 under it does not count, however sure it is.
        most_loss: what the mean nDCG@10 of a general set may fall by.

    Raises:
        InputError: a value is of another kind or out of its range.
    """

    loss: Loss | None = None
    folds: int | None = None
    repeats: int | None = None
    epochs: int | None = None
    layers: int | None = None
    rate: float | None = None
    max_tokens: int | None = None
    candidates: int = 4
    queries_a_step: int = 8
    remember: float = 0.05
    shares: tuple[float, ...] = (0.5, 1.0)
    mixes: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8)
    seed: int = 0
    tokens: int = 900_000
    measured_tokens: int = 250_000
    confidence: float = CONFIDENCE
    least_gain: float = LEAST_GAIN
    most_loss: float = MOST_LOSS

    def __post_init__(self) -> None:
        if self.loss is not None and self.loss not in LOSSES:
            raise InputError(f"unknown loss {self.loss!r}; there are {', '.join(LOSSES)}")
        for name, (check, fits, said) in _RANGES.items():
            value = getattr(self, name)
            if value is None and name in _OPEN:
                continue
            check(name, value)
            if not fits(value):
                raise InputError(f"{name} must be {said}, not {value}")
        for name in ("shares", "mixes"):
            if not getattr(self, name):
                raise InputError(f"{name} must hold at least one")
            for share in getattr(self, name):
                check_real(f"each of {name}", share)
                if not 0 < share <= 1:
                    raise InputError(f"each of {name} must be over 0 and at most 1, not {share}")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done: settings with nothing left open.

    Attributes:
        loss: one of `LOSSES`.
        epochs: passes over the queries.
        repeats: trainings of each fold, each with its own seed.
        layers: upper layers that are trained, with the head.
        rate: the highest learning rate.
        queries: of one training, an epoch, at most; under all where the budget asks for it.
    """

    loss: Loss
    epochs: int
    repeats: int
    layers: int
    rate: float
    queries: int


def fitting(lengths: NDArray[np.int64], most: int) -> int:
    """Tokens of one sequence in training: as many as hold nine of ten pairs, `LEAST_TOKENS` to `MOST_TOKENS`.

    Args:
        lengths: tokens of pairs, special tokens included, shape (n,).
        most: that the model reads.

    >>> fitting(np.array([40, 50, 60, 70, 300]), 512)
    304
    """
    held = math.ceil(float(np.quantile(lengths, 0.9, method="higher")) / 16) * 16
    return min(max(LEAST_TOKENS, held), MOST_TOKENS, most)


def check_loss(loss: Loss, scale: Scale) -> None:
    """Refuse a loss that cannot learn from such labels.

    Raises:
        InputError: a loss for a teacher's scores with labels, or one for labels with scores, which are no shares of 1.
    """
    if loss in TEACHERS and scale != "scores":
        raise InputError(f"the loss {loss} needs a teacher's scores, and these rows have {scale}")
    if loss not in TEACHERS and scale == "scores":
        raise InputError(
            f"the loss {loss} needs whole grades or clicks, and these are a teacher's scores (or labels with "
            f"fractions): leave the loss out, or take {' or '.join(TEACHERS)}"
        )


def planned(settings: Settings, scale: Scale, highest: float, queries: int, tokens: float, layers: int) -> Plan:
    """Decide what the user left open.

    Args:
        settings: the user's.
        scale: of the labels.
        highest: label.
        queries: of one training.
        tokens: of one epoch of one training.
        layers: of the model.

    Raises:
        InputError: the loss does not fit the labels, see `check_loss`.

    >>> planned(Settings(), "labels", 1.0, queries=40, tokens=15_000, layers=6)
    Plan(loss='listwise', epochs=4, repeats=2, layers=6, rate=0.0001, queries=40)
    >>> planned(Settings(), "clicks", 1.0, queries=900, tokens=600_000, layers=6)
    Plan(loss='listwise', epochs=1, repeats=1, layers=6, rate=0.0001, queries=450)
    """
    loss: Loss = settings.loss or ("distil" if scale == "scores" else "lambda" if highest > 1 else "listwise")
    check_loss(loss, scale)
    each = settings.tokens / (settings.folds or FOLDS)
    epochs = settings.epochs or max(1, min(MOST_EPOCHS, int(each / max(1.0, tokens))))
    repeats = settings.repeats or max(1, min(MOST_REPEATS, int(each / max(1.0, tokens * epochs))))
    upper = (layers + 1) // 2 if queries < FEW_QUERIES else layers
    fits = queries if settings.epochs else max(1, min(queries, int(queries * each / max(1.0, tokens))))
    steps = -(-fits // settings.queries_a_step) * epochs
    rate = settings.rate or (SHORT_RATE if steps <= SHORT_STEPS else LONG_RATE)
    return Plan(loss, epochs, repeats, min(settings.layers or upper, layers), rate, fits)
