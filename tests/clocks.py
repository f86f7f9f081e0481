"""Time that only tests move, and scorers that take some of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from crossrank.cost import CostModel, Pace
from crossrank.types import Passage


class Clock:
    """Seconds that pass when something is done."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now


class Slow:
    """A scorer that takes exactly what its model says, times `factor`, and scores by a table or by length."""

    def __init__(
        self, clock: Clock, model: CostModel, scores: dict[str, float] | None = None, factor: float = 1.0
    ) -> None:
        self.clock, self.model, self.scores, self.factor = clock, model, scores or {}, factor
        self.calls: list[int] = []

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """As a `Scorer`."""
        self.calls.append(len(pairs))
        # As `crossrank.anytime` estimates texts: a quarter of their characters, and of the query's.
        lengths = [max(1, len(text) // 4) + len(query) // 4 for query, text in pairs]
        self.clock.now += self.factor * self.model.seconds(lengths, sum(len(text) for _, text in pairs))
        return np.array([self.scores.get(text, len(text)) for _, text in pairs], dtype=np.float32)

    def pace(self) -> Pace:
        """What a calibration would have found."""
        return Pace(self.model)


def texts(ids: Sequence[str]) -> list[Passage]:
    """Passages of different lengths, by id."""
    return [Passage(id_, f"text of {id_} " + "word " * (7 * sum(map(ord, id_)) % 60)) for id_ in ids]
