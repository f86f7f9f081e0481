"""Scores for whoever knows nothing of `Ranking.head`: hosts and clients that sort results by score."""

from __future__ import annotations

import math
from collections.abc import Sequence

from crossrank.types import Ranking


def falling(ranking: Ranking) -> list[float]:
    """A finite score of each entry, none higher than the one before it.

    The head keeps its scores. The tail's compare with none of them: they are shifted, so that the best is 1 under the
    head's last and the distances between them stay. So it goes on where a score rises within the tail, which has
    several scales after several stages. Blank texts, whose scores are -inf, get 1 less than what stands before them,
    and 0 where that is nothing.

    >>> read = Ranking.sorted(["a", "b", "blank"], [-2.0, -3.0, float("-inf")])
    >>> found = read.over(Ranking.sorted(["a", "b", "blank", "c", "d"], [9.0, 8.0, 7.0, 6.0, 4.5]))
    >>> found.scores.tolist(), falling(found)
    ([-2.0, -3.0, -inf, 6.0, 4.5], [-2.0, -3.0, -4.0, -5.0, -6.5])
    """
    made: list[float] = []
    before = shift = 0.0
    for row, score in enumerate(ranking.scores.tolist()):
        known = math.isfinite(score)
        level = score if known else 0.0
        if made and (row == ranking.head or score > before or known != math.isfinite(before)):
            shift = made[-1] - 1.0 - level
        made.append(level + shift)
        before = score
    return made


def published(ranking: Ranking) -> list[float | None]:
    """As `falling`, for formats that have a word for no score: None of blank texts.

    >>> published(Ranking.sorted(["a", "blank"], [-2.0, float("-inf")]))
    [-2.0, None]
    """
    found = zip(falling(ranking), ranking.scores.tolist(), strict=True)
    return [score if math.isfinite(own) else None for score, own in found]


def finite(scores: Sequence[float]) -> list[float]:
    """Scores of one list for a host or a client, in their order: in place of -inf, of blank texts, the lowest other
    less 1.

    JSON has no -inf, typed clients take no null for a number, and a host that joins or fuses lists takes a score of
    None for 0, which is above every negative logit. With nothing but blank texts it is 0.

    >>> finite([2.5, -3.0, float("-inf")]), finite([float("-inf")])
    ([2.5, -3.0, -4.0], [0.0])
    """
    lowest = min(filter(math.isfinite, scores), default=1.0) - 1.0
    return [score if math.isfinite(score) else lowest for score in scores]
