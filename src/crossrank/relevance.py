"""How probable it is that the passages of a search are relevant, as the last stage that read any of them says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from crossrank.cascade import Stage, Trace
from crossrank.crossencoder import CrossEncoder
from crossrank.errors import InputError


@dataclass(frozen=True, slots=True)
class Relevance:
    """What a stage says of the passages of one answer.

    Attributes:
        probabilities: of each passage, in their order; None for one that the stage did not read, and for all where the
            stage has no calibration.
        threshold: the stage's own (`CrossEncoder.threshold`); None where it has none.
    """

    probabilities: tuple[float | None, ...]
    threshold: float | None = None

    @property
    def best(self) -> float | None:
        """The highest of the probabilities; None where there is none."""
        return max((one for one in self.probabilities if one is not None), default=None)


def threshold_of(scorer: CrossEncoder, threshold: float | Literal["model"], name: str = "") -> float:
    """The probability that a threshold is: as it was given, or the scorer's own for "model".

    Raises:
        InputError: the scorer has none of its own. It is called `name` there, or else by its checkpoint's.

    >>> import crossrank
    >>> threshold_of(crossrank.load(), 0.5)
    0.5
    """
    if threshold != "model":
        return threshold
    if scorer.threshold is None:
        called = name or scorer.checkpoint.name
        raise InputError(f"{called} has no threshold of its own: give a probability, such as 0.1")
    return scorer.threshold


def last_read(stages: Sequence[Stage], traces: Sequence[Trace]) -> tuple[Stage, dict[str, float]]:
    """The last of `stages`, at least one, that read anything, which a budget may have chosen; its raw scores by id."""
    read = ((s, t.scores) for t in reversed(traces) if t.scores for s in reversed(stages) if s.name == t.name)
    return next(read, (stages[-1], {}))


def relevance_of(stages: Sequence[Stage], traces: Sequence[Trace], ids: Sequence[str]) -> Relevance:
    """What the last stage that read anything says of the documents `ids`; a blank one has the probability 0.

    >>> relevance_of([], [], ["a"])
    Relevance(probabilities=(None,), threshold=None)
    """
    stage, scores = last_read(stages, traces) if stages else (None, {})
    known = [id_ for id_ in ids if id_ in scores]
    if stage is None or not isinstance(stage.scorer, CrossEncoder) or not stage.scorer.calibrated or not known:
        return Relevance((None,) * len(ids))
    chances = stage.scorer.probability(np.array([scores[id_] for id_ in known], dtype=np.float32))
    by_id = dict(zip(known, chances.tolist(), strict=True))
    return Relevance(tuple(by_id.get(id_) for id_ in ids), stage.scorer.threshold)
