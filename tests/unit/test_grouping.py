"""At most so many passages of one document: which stay, and what is said of the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from crossrank.errors import InputError
from crossrank.grouping import PerDocument, grouped
from crossrank.types import Passage, Ranking


def ranking(ids: Sequence[str], head: int | None = None) -> Ranking:
    scores = np.arange(len(ids), 0, -1, dtype=np.float32)
    return Ranking(tuple(ids), scores, len(ids) if head is None else head)


def texts(ids: Sequence[str]) -> list[Passage]:
    """Of "guide#2" the document is "guide"; what has no number names none."""
    return [Passage(id_, "", document=id_.partition("#")[0] if "#" in id_ else "") for id_ in ids]


def test_of_each_document_the_best_stay_in_their_order() -> None:
    dice = np.random.default_rng(0)
    for _ in range(200):
        owners = dice.choice(list("abcd"), size=int(dice.integers(0, 30))).tolist()
        limit = PerDocument(k=int(dice.integers(1, 12)), most=int(dice.integers(1, 4)))
        stay = [row for row, owner in enumerate(owners) if owners[:row].count(owner) < limit.most]
        assert limit.rows(owners) == stay[: limit.k]


def test_scores_and_head_are_of_what_stays() -> None:
    made = grouped(ranking(["a#1", "a#2", "b#1", "a#3", "c#1", "d#1"], head=3), PerDocument(3, 1), texts)
    assert list(made.ranking) == [("a#1", 6.0), ("b#1", 4.0), ("c#1", 2.0)]
    assert (made.ranking.head, [passage.id for passage in made.passages]) == (2, ["a#1", "b#1", "c#1"])


def test_only_passages_above_the_last_place_are_called_left_out() -> None:
    """Those below would not be in the answer either way."""
    made = grouped(ranking(["a#1", "a#2", "b#1", "b#2", "a#3"]), PerDocument(2, 1), texts)
    assert made.left_out == {"a": 1}
    assert made.notes == ("left out: 1 passage of documents that have 1 here: a 1",)
    assert grouped(ranking(["a#1", "b#1", "a#2"]), PerDocument(2, 1), texts).notes == ()


def test_fewer_documents_than_places_are_told() -> None:
    made = grouped(ranking(["a#1", "b#1", "b#2", "a#2", "b#3"]), PerDocument(3, 1), texts)
    assert (made.ranking.ids, made.left_out) == (("a#1", "b#1"), {"b": 2, "a": 1})
    left, short = made.notes
    assert left == "left out: 3 passages of documents that have 1 here: b 2, a 1"
    assert short.startswith("what was found holds no more documents, so there are 2 of 3")


def test_a_note_names_three_documents_and_counts_the_others() -> None:
    ids = [f"{name}#{number}" for name in "abcde" for number in range(2)]
    assert grouped(ranking([*ids, "f#0"]), PerDocument(6, 1), texts).notes[0].endswith(": a 1, b 1, c 1 and 2 more")


def test_a_passage_without_a_document_is_one() -> None:
    made = grouped(ranking(["1", "2", "a#1", "a#2", "3"]), PerDocument(4, 1), texts)
    assert (made.ranking.ids, made.left_out) == (("1", "2", "a#1", "3"), {"a": 1})
    # Where none has one the option does nothing, which must not look like an answer of different documents.
    assert grouped(ranking(["1", "2"]), PerDocument(2, 1), texts).notes == (
        "no passage names its document, so each counts as one",
    )


def test_texts_are_asked_for_no_more_than_decide() -> None:
    asked: list[int] = []

    def counting(ids: Sequence[str]) -> list[Passage]:
        asked.append(len(ids))
        return texts(ids)

    ids = [f"a#{number}" for number in range(150)] + [f"{number}#1" for number in range(150)]
    assert len(grouped(ranking(ids), PerDocument(3, 1), counting).ranking) == 3
    assert asked == [100, 100]
    assert len(grouped(ranking([]), PerDocument(3, 1), counting).ranking) == 0
    assert asked == [100, 100], "of nothing nothing is asked"


@pytest.mark.parametrize(
    ("bad", "said"), [(0, "per_document must be at least 1"), (True, "whole number"), (1.5, "1.5")]
)
def test_what_is_no_number_of_passages_is_refused(bad: int, said: str) -> None:
    with pytest.raises(InputError, match=said):
        PerDocument(3, bad)
