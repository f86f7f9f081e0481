"""How probable it is that the passages of a search are relevant, as the last stage that read any of them says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from crossrank.answer import Answer
from crossrank.calibration import UNREAD, Threshold, above, check_threshold, least, without_probabilities
from crossrank.cascade import Stage, Trace, Unavailable
from crossrank.crossencoder import CrossEncoder
from crossrank.errors import InputError
from crossrank.scorers import name_of
from crossrank.types import Scorer


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


def threshold_of(scorer: Scorer, threshold: Threshold, name: str = "") -> float:
    """The probability that a threshold is: as it was given, or the scorer's own for "model".

    Raises:
        InputError: no threshold, the scorer gives no probabilities, or it has no threshold of its own. It is called
            `name` there, or else by its checkpoint's.

    >>> import crossrank
    >>> threshold_of(crossrank.load(), 0.5)
    0.5
    """
    check_threshold(threshold)
    called = name or name_of(scorer)
    if not isinstance(scorer, CrossEncoder):
        raise InputError(without_probabilities(called))
    return least(scorer, threshold, called)


def check_stages(stages: Sequence[Stage], threshold: Threshold | None, any_last: bool = False) -> None:
    """Refuse a threshold that these stages cannot hold, before anything is searched for.

    Args:
        stages: in order; the probabilities are those of the last that reads. One whose model could not be loaded, where
            its failure is to cost no answer, is passed over.
        threshold: None asks for nothing.
        any_last: whether each may be the last that reads, as within a budget, which leaves stages out.

    Raises:
        InputError: as `threshold_of`, or there is no stage.

    >>> check_stages([], 0.5)
    Traceback (most recent call last):
    ...
    crossrank.errors.InputError: a threshold needs a stage that gives probabilities; this pipeline only retrieves
    """
    check_threshold(threshold)
    if threshold is None:
        return
    if not stages:
        raise InputError("a threshold needs a stage that gives probabilities; this pipeline only retrieves")
    there = [stage for stage in stages if not isinstance(stage.scorer, Unavailable)]
    for stage in there if any_last else there[-1:]:
        threshold_of(stage.scorer, threshold, stage.name)


def last_read(stages: Sequence[Stage], traces: Sequence[Trace]) -> tuple[Stage, dict[str, float]]:
    """The last of `stages`, at least one, that read anything, which a budget may have chosen; its raw scores by id."""
    read = ((s, t.scores) for t in reversed(traces) if t.scores for s in reversed(stages) if s.name == t.name)
    return next(read, (stages[-1], {}))


def relevance_of(
    stages: Sequence[Stage], traces: Sequence[Trace], ids: Sequence[str], asked: bool = False
) -> Relevance:
    """What the last stage that read anything says of the documents `ids`; a blank one has the probability 0.

    `asked`: by name, as with a threshold: also where the model has no calibration, but was trained to give
    probabilities, see `CrossEncoder.probability`.

    >>> relevance_of([], [], ["a"])
    Relevance(probabilities=(None,), threshold=None)
    """
    stage, scores = last_read(stages, traces) if stages else (None, {})
    known = [id_ for id_ in ids if id_ in scores]
    if stage is None or not isinstance(stage.scorer, CrossEncoder) or not known or not _tells(stage.scorer, asked):
        return Relevance((None,) * len(ids))
    chances = stage.scorer.probability(np.array([scores[id_] for id_ in known], dtype=np.float32))
    by_id = dict(zip(known, chances.tolist(), strict=True))
    return Relevance(tuple(by_id.get(id_) for id_ in ids), stage.scorer.threshold)


def _tells(scorer: CrossEncoder, asked: bool) -> bool:
    if scorer.calibrated or not asked:
        return scorer.calibrated
    try:
        scorer.probability(np.zeros(0, np.float32))
    except InputError:
        return False
    return True


def unused(probability: float | None, limit: float | None) -> str:
    """Why a threshold that was asked for could not be used; empty where it was.

    A budget or a failure is behind it: where no stage gives probabilities the threshold is refused.
    """
    if probability is None:
        return UNREAD
    return "the threshold was not used: the last stage that read has no threshold of its own" if limit is None else ""


def kept(stages: Sequence[Stage], answer: Answer, threshold: Threshold) -> Answer:
    """The passages of an answer that are at least as probable as a threshold, with a note of what was left out.

    Where the last stage that read has no threshold of its own for "model", all stay, as where nothing was read, see
    `crossrank.calibration.above`.
    """
    found = relevance_of(stages, answer.traces, answer.ranking.ids, asked=True)
    limit = found.threshold if threshold == "model" else threshold
    if not answer.passages:
        return answer
    if limit is None:
        return replace(answer, thresholded=(unused(found.best, limit),))
    rows, said = above(found.probabilities, limit)
    return replace(
        answer,
        ranking=answer.ranking.take(rows),
        passages=tuple(answer.passages[row] for row in rows),
        thresholded=said,
    )
