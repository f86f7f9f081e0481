"""What a threshold leaves of a search, and what is said of the rest."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from crossrank.cli import terminal

if TYPE_CHECKING:
    from crossrank.pipeline import Answer, Pipeline
    from crossrank.relevance import Relevance

Chances = tuple["float | None", ...]


def kept(pipeline: Pipeline, answer: Answer, threshold: float | Literal["model"] | None) -> tuple[Answer, Chances]:
    """The passages that are at least as probable as the threshold, and the probability of each.

    A passage that was not read has no probability, so a threshold leaves it out. What was left out, and why a threshold
    could not be used, is said on stderr.
    """
    from crossrank.context import irrelevant, unused

    found = pipeline.relevance(answer)
    if threshold is None or not answer.passages:
        return answer, found.probabilities
    limit = found.threshold if threshold == "model" else threshold
    if limit is None or found.best is None:
        terminal.warn(f"{unused(found.best, limit)}.")
        return answer, found.probabilities
    rows = [row for row, chance in enumerate(found.probabilities) if chance is not None and chance >= limit]
    if not rows:
        said = irrelevant(found.best, limit)
        terminal.note(f"{said[0].upper()}{said[1:]}.")
    if len(rows) < len(answer.passages):
        _tell(found, limit)
    return _with(answer, rows), tuple(found.probabilities[row] for row in rows)


def _with(answer: Answer, rows: list[int]) -> Answer:
    from crossrank.types import Ranking

    ranking = answer.ranking
    head = sum(row < ranking.head for row in rows)
    left = Ranking(tuple(ranking.ids[row] for row in rows), ranking.scores[rows], head)
    return replace(answer, ranking=left, passages=tuple(answer.passages[row] for row in rows))


def _tell(found: Relevance, limit: float) -> None:
    unread = sum(chance is None for chance in found.probabilities)
    under = sum(chance is not None and chance < limit for chance in found.probabilities)
    parts = [f"{terminal.count(under, 'passage')} under the threshold of {limit:g}"] if under else []
    if unread:
        parts.append(f"{terminal.count(unread, 'passage')} that the last stage did not read")
    terminal.note(f"Left out: {', '.join(parts)}.")
