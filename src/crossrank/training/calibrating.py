"""A calibration of a cross-encoder on judgments, and what it is worth on queries that it was not fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossrank.calibration import Platt
from crossrank.crossencoder import CrossEncoder
from crossrank.errors import InputError
from crossrank.evaluation import reliability
from crossrank.evaluation.reliability import Reliability
from crossrank.scored import Progress
from crossrank.training.checks import FEWEST_QUERIES, Finding, pairs
from crossrank.training.folds import assign
from crossrank.training.judgments import Judgments


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What was fitted, and how far probabilities were off before and are now.

    Attributes:
        calibration: fitted to all queries.
        before: of the model as it was; None where it gave no probabilities.
        after: each half of the queries by a calibration that was fitted to the other half.
        queries: judged queries.
        findings: what was wrong with the judgments.
    """

    calibration: Platt
    before: Reliability | None
    after: Reliability
    queries: int
    findings: tuple[Finding, ...]


def calibrated(
    scorer: CrossEncoder, judgments: Judgments, *, seed: int = 0, progress: Progress | None = None
) -> Calibrated:
    """Fit a calibration to the scores of judged pairs; labels above 0 are relevant.

    Queries without a relevant document count, too: they say what scores look like where there is no answer. So the
    pairs should be such as a search would give, and not only hand-picked ones.

    Args:
        scorer: what is calibrated; it stays as it is. `crossrank.load(name, calibration=...)` takes the outcome.
        judgments: as `crossrank.training.reading.read` gives them.
        seed: of the halves.
        progress: called with the pairs that are scored and all.

    Raises:
        InputError: a teacher's scores in place of labels, fewer than 20 queries, pairs of one kind only (also in one
            half), or scores that do not rise with relevance.
    """
    if judgments.scale == "scores":
        raise InputError(
            "a teacher's scores do not say what is relevant: give each pair a label, 0 for what is not relevant"
        )
    findings: list[Finding] = []
    judged = [
        (query, text, max(labels) > 0)
        for query, documents in pairs(judgments, findings).values()
        for text, labels in documents.values()
        if len(labels) == 1
    ]
    queries = dict.fromkeys(query for query, _, _ in judged)
    if len(queries) < FEWEST_QUERIES:
        there = "1 judged query is" if len(queries) == 1 else f"{len(queries)} judged queries are"
        raise InputError(
            f"{there} too few: half of them tell whether the calibration holds, and under "
            f"{FEWEST_QUERIES} that is chance. Judge more queries{_left_out(findings)}"
        )
    relevant = np.array([is_relevant for *_, is_relevant in judged], dtype=bool)
    if relevant.all() or not relevant.any():
        kind = "relevant" if relevant.all() else "not relevant"
        raise InputError(
            f"all {len(judged)} judged pairs are {kind}; a calibration needs pairs of both kinds{_left_out(findings)}"
        )
    logits = scorer.scored([(query, text) for query, text, _ in judged], progress=progress).scores
    # A passage without any token has no score and no probability.
    read = np.isfinite(logits)
    place = {query: row for row, query in enumerate(queries)}
    half = assign(list(queries), 2, seed)[[place[query] for query, _, _ in judged]][read]
    logits, relevant = logits[read], relevant[read]
    name = scorer.checkpoint.name
    # First: what is wrong with all of them is not due to the halves.
    fitted = Platt.fit(logits, relevant)
    after = reliability.of(name, _held_out(logits, relevant, half), relevant)
    return Calibrated(fitted, _before(scorer, logits, relevant), after, len(queries), tuple(findings))


def _left_out(findings: Sequence[Finding]) -> str:
    """What of the judgments was not read, for an error that says how few there are."""
    found = [one.message for one in findings if one.name in ("contradictions", "missing documents", "blank")]
    return f". Not read were: {'; '.join(found)}" if found else ""


def _held_out(logits: NDArray[np.float32], relevant: NDArray[np.bool_], half: NDArray[np.int64]) -> NDArray[np.float32]:
    """Probabilities of the pairs of each half by the other half's calibration, shape (n,)."""
    made = np.empty_like(logits)
    for part in (0, 1):
        held = half == part
        try:
            made[held] = Platt.fit(logits[~held], relevant[~held]).probability(logits[held])
        except InputError as error:
            raise InputError(f"half of the queries is too little to fit a calibration to: {error}") from error
    return made


def _before(scorer: CrossEncoder, logits: NDArray[np.float32], relevant: NDArray[np.bool_]) -> Reliability | None:
    try:
        return reliability.of(scorer.checkpoint.name, scorer.probability(logits), relevant)
    except InputError:
        return None
