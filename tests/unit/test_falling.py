"""Scores for those who sort by them: they fall with every order that a pipeline can make."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from crossrank.falling import falling, published
from crossrank.types import Ranking

# Magnitudes at which neighbouring float32 differ by less than 1, and by more.
SCORE = st.floats(-1e9, 1e9, width=32) | st.floats(-10, 10, width=32) | st.just(-math.inf)


@given(st.lists(st.lists(SCORE, min_size=1, max_size=6), min_size=1, max_size=4))
def test_scores_fall_over_the_tails_of_several_stages(parts: list[list[float]]) -> None:
    ranking = Ranking((), np.zeros(0, np.float32), 0)
    for number, part in enumerate(parts):
        stage = Ranking.sorted([f"{number}-{row}" for row in range(len(part))], part)
        ranking = stage.over(ranking)
    scores = falling(ranking)
    assert all(map(math.isfinite, scores))
    assert (np.diff(scores) <= 0).all()
    head = ranking.scores[: ranking.head]
    if np.isfinite(head[0]):
        assert [one for one, own in zip(scores, head, strict=False) if np.isfinite(own)] == head[
            np.isfinite(head)
        ].tolist()
    assert all(score < scores[ranking.head - 1] for score in scores[ranking.head :])
    assert [score is None for score in published(ranking)] == np.isneginf(ranking.scores).tolist()


def test_what_was_not_read_keeps_its_distances() -> None:
    ranking = Ranking.sorted(["a"], [-7.0]).over(Ranking.sorted(["a", "b", "c", "d"], [0.75, 0.5, 0.25, -9.0]))
    assert falling(ranking) == [-7.0, -8.0, -8.25, -17.5]
    assert falling(Ranking.sorted(["a", "b"], [-math.inf, -math.inf])) == [0.0, 0.0]
    assert falling(Ranking((), np.zeros(0, np.float32), 0)) == []
