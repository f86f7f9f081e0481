"""A calibration of a cross-encoder on judgments, and what it, and a threshold, are worth on queries it has not seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossrank.asking import check_real
from crossrank.calibration import Platt
from crossrank.crossencoder import CrossEncoder
from crossrank.errors import InputError
from crossrank.evaluation import reliability
from crossrank.evaluation.abstention import THRESHOLDS, Best, Cut, fewest
from crossrank.evaluation.reliability import Reliability
from crossrank.scored import Progress
from crossrank.training.checks import FEWEST_QUERIES, Finding, pairs, unlabelled
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
        cuts: what thresholds do, `threshold` among them, by rising threshold and on the probabilities of `after`.
        threshold: the one that was asked for with `most_lost`; None without.
    """

    calibration: Platt
    before: Reliability | None
    after: Reliability
    queries: int
    findings: tuple[Finding, ...]
    cuts: tuple[Cut, ...] = ()
    threshold: float | None = None


def calibrated(
    scorer: CrossEncoder,
    judgments: Judgments,
    *,
    seed: int = 0,
    most_lost: float | None = None,
    progress: Progress | None = None,
) -> Calibrated:
    """Fit a calibration to the scores of judged pairs; labels above 0 are relevant.

    Queries without a relevant document count, too: they say what scores look like where there is no answer. So the
    pairs should be such as a search would give, and not only hand-picked ones.

    Args:
        scorer: what is calibrated; it stays as it is. `crossrank.load(name, calibration=...)` takes the outcome.
        judgments: as `crossrank.training.reading.read` gives them.
        seed: of the halves.
        most_lost: choose the largest threshold, in thousandths, that loses all answers of at most this share of the
            queries with an answer, over 0 and under 1. A finding says where these are too few to tell.
        progress: called with the pairs that are scored and all.

    Raises:
        InputError: a teacher's scores in place of labels, fewer than 20 queries, pairs of one kind only (also in one
            half), scores that do not rise with relevance, or no threshold that loses so few.
    """
    if most_lost is not None:
        check_real("most_lost", most_lost)
        if not 0.0 < most_lost < 1.0:
            raise InputError(f"most_lost is a share of queries, over 0 and under 1, not {most_lost}")
    findings: list[Finding] = []
    judged, relevant = _judged(judgments, findings)
    logits = scorer.scored([(query, text) for query, text in judged], progress=progress).scores
    # A passage without any token has no score and no probability, and a threshold takes that for 0.
    read = np.isfinite(logits)
    place = {query: row for row, query in enumerate(dict.fromkeys(query for query, _ in judged))}
    rows = np.array([place[query] for query, _ in judged])
    half = assign(list(place), 2, seed)[rows]
    # First: what is wrong with all of them is not due to the halves.
    fitted = Platt.fit(logits[read], relevant[read])
    chances = np.zeros(len(logits), np.float32)
    chances[read] = _held_out(logits[read], relevant[read], half[read])
    after = reliability.of(scorer.checkpoint.name, chances[read], relevant[read])
    best = Best.of(rows, chances, relevant)
    threshold = None if most_lost is None else _threshold(best, most_lost, findings)
    cuts = tuple(best.at(one) for one in sorted({*THRESHOLDS, *filter(None, [threshold])}))
    before = _before(scorer, logits[read], relevant[read])
    return Calibrated(fitted, before, after, len(place), tuple(findings), cuts, threshold)


def _judged(judgments: Judgments, findings: list[Finding]) -> tuple[list[tuple[str, str]], NDArray[np.bool_]]:
    """The pairs, query and text, whose judgments agree, and whether each is relevant, shape (n,)."""
    if judgments.scale == "scores":
        raise InputError(
            f"the rows hold {unlabelled(judgments)}. These do not say what is relevant: give each pair a label, 0 for "
            "what is not relevant"
        )
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
        held = f". The rows hold {unlabelled(judgments)}" if judgments.unread else ""
        raise InputError(
            f"all {len(judged)} judged pairs are {kind}; a calibration needs pairs of both kinds"
            f"{_left_out(findings)}{held}"
        )
    return [(query, text) for query, text, _ in judged], relevant


def _threshold(best: Best, most_lost: float, findings: list[Finding]) -> float:
    """The one that loses at most so many; where there are too few queries to tell goes to `findings`."""
    queries, needed, share = len(best.answer), fewest(most_lost), f"{100 * most_lost:.3g} %"
    found = best.largest(most_lost)
    if found is None:
        lost = best.at(0.001).lost
        cure = f"allow {math.ceil(1000 * lost.share) / 1000:g}, or leave it out"
        raise InputError(
            f"--most-lost (most_lost): no threshold keeps an answer of all but {share} of the {queries:,} queries that "
            f"have one: 0.001 already loses all answers of {lost.count:,}; {cure}"
        )
    if queries < needed:
        said = (
            f"queries with an answer: {queries}, too few to tell that a threshold loses at most {share} of them; "
            f"{needed:,} could"
        )
        findings.append(Finding("few answers", queries, said))
    return found


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
