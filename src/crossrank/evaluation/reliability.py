"""Do probabilities mean what they say? A reliability diagram's numbers, and the expected calibration error.

Source: C. Guo et al., On Calibration of Modern Neural Networks, ICML 2017, with bins of equal count, and intervals of
E. Wilson, Probable Inference, the Law of Succession, and Statistical Inference, JASA 22, 1927.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossrank.calibration import equal_count_bins, expected_calibration_error
from crossrank.crossencoder import CrossEncoder
from crossrank.errors import InputError
from crossrank.evaluation.candidates import Reading
from crossrank.evaluation.systems import Owners
from crossrank.types import Qrels

BINS = 10
_Z = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Bin:
    """Pairs of similar predicted probability.

    Attributes:
        predicted: their mean probability.
        observed: the share of them that is relevant.
        low: lower end of the 95 % interval of that share.
        high: upper end.
        pairs: how many.
    """

    predicted: float
    observed: float
    low: float
    high: float
    pairs: int


@dataclass(frozen=True, slots=True)
class Reliability:
    """How far a model's probabilities hold here.

    Attributes:
        model: how tables call it.
        bins: by rising probability.
        error: expected calibration error over these bins, 0 to 1.
        pairs: scored pairs that count.
        relevant: how many of them are relevant.
        judged_only: whether unjudged pairs were left out; else they count as not relevant.
        least: the least grade that counts as relevant.
    """

    model: str
    bins: tuple[Bin, ...]
    error: float
    pairs: int
    relevant: int
    judged_only: bool
    least: int


def reliability(reading: Reading, qrels: Qrels, owners: Owners, least: int = 1, bins: int = BINS) -> Reliability | None:
    """Predicted against observed relevance of the candidates that a model read; None when it gives no probabilities.

    A document that was split has the probability of its best passage. Where the judgments hold documents below `least`,
    only judged candidates count; where everything judged is relevant, unjudged ones count as not relevant.
    """
    judged_only = any(grade < least for grades in qrels.values() for grade in grades.values())
    logits, relevant = _pairs(reading, qrels, owners, least, judged_only)
    if not len(logits) or not isinstance(reading.scorer, CrossEncoder):
        return None
    try:
        predicted = reading.scorer.probability(logits)
    except InputError:
        return None
    return of(reading.model, predicted, relevant, judged_only, least, bins)


def of(
    model: str,
    predicted: NDArray[np.float32],
    relevant: NDArray[np.bool_],
    judged_only: bool = True,
    least: int = 1,
    bins: int = BINS,
) -> Reliability:
    """The same for known probabilities, shape (n,), and judgments, shape (n,).

    >>> found = of("m", np.float32([0.1, 0.1, 0.9, 0.9]), np.array([False, False, True, True]), bins=2)
    >>> round(found.error, 3), [(round(b.predicted, 3), b.observed, b.pairs) for b in found.bins]
    (0.1, [(0.1, 0.0, 2), (0.9, 1.0, 2)])
    """
    made = []
    for part in equal_count_bins(predicted, bins):
        hits, n = int(relevant[part].sum()), len(part)
        low, high = wilson(hits, n)
        made.append(Bin(float(predicted[part].mean()), hits / n, low, high, n))
    error = expected_calibration_error(predicted, relevant, bins)
    return Reliability(model, tuple(made), error, len(predicted), int(relevant.sum()), judged_only, least)


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share.

    >>> [round(end, 3) for end in wilson(8, 10)]
    [0.49, 0.943]
    """
    share, square = hits / n, _Z * _Z / n
    centre = (share + square / 2) / (1 + square)
    half = _Z * math.sqrt(share * (1 - share) / n + square / (4 * n)) / (1 + square)
    return max(0.0, centre - half), min(1.0, centre + half)


def _pairs(
    reading: Reading, qrels: Qrels, owners: Owners, least: int, judged_only: bool
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    logits: list[float] = []
    relevant: list[bool] = []
    for query, trace in reading.traces.items():
        grades, best = qrels.get(query, {}), dict[str, float]()
        for id_, score in trace.scores.items():
            owner = owners.of.get(id_, id_)
            # A blank passage has no score and no probability.
            if math.isfinite(score) and (not judged_only or owner in grades):
                best[owner] = max(score, best.get(owner, -math.inf))
        logits += best.values()
        relevant += [grades.get(owner, 0) >= least for owner in best]
    return np.array(logits, dtype=np.float32), np.array(relevant, dtype=bool)
