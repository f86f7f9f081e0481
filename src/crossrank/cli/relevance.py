"""What a threshold leaves of a search, and what is said of the rest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from crossrank.cli import terminal

if TYPE_CHECKING:
    from crossrank.calibration import Threshold
    from crossrank.pipeline import Answer, Pipeline

Chances = tuple["float | None", ...]


def kept(pipeline: Pipeline, answer: Answer, threshold: Threshold | None) -> tuple[Answer, Chances]:
    """The passages that are at least as probable as the threshold, and the probability of each.

    What was left out is said on stderr, and why the threshold could not be used, see `crossrank.relevance.kept`.
    """
    from crossrank import relevance

    if threshold is None:
        return answer, pipeline.relevance(answer).probabilities
    left = relevance.kept(pipeline.stages, answer, threshold)
    tell(left.thresholded, len(left.passages) == len(answer.passages))
    found = relevance.relevance_of(pipeline.stages, left.traces, left.ranking.ids, asked=True)
    return left, found.probabilities


def tell(notes: Iterable[str], whole: bool) -> None:
    """Say on stderr what a threshold left out; with nothing left out (`whole`) it could not be used: a warning."""
    for said in filter(None, notes):
        if whole:
            terminal.warn(f"{said}.")
        else:
            terminal.note(f"{said[0].upper()}{said[1:]}.")
