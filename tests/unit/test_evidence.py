"""Evidence: exact spans, one batch, ties to the first, bounds that are told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import crossrank
from crossrank import evidence
from crossrank.errors import InputError
from crossrank.types import Passage


class Words:
    """Scores the words that a text shares with the query; notes its calls."""

    def __init__(self) -> None:
        self.calls: list[list[tuple[str, str]]] = []

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        self.calls.append(list(pairs))
        return np.array([len(set(q.split()) & set(t.replace(".", "").split())) for q, t in pairs], dtype=np.float32)


def passages(*texts: str) -> list[Passage]:
    return [Passage(str(place), text) for place, text in enumerate(texts)]


def test_the_span_is_the_sentence_in_the_original_text() -> None:
    text = "  Bread needs yeast.\n\tParis, yes paris has a capital.  Tea is hot. "
    (found,) = evidence.find("capital paris", passages(text), Words())
    assert found is not None
    assert text[found.start : found.stop] == "Paris, yes paris has a capital."
    assert (found.score, found.drop, found.sentences, found.compared) == (2.0, 2.0, 3, 3)


def test_all_passages_share_one_call_for_sentences_and_one_for_drops() -> None:
    scores = Words()
    found = evidence.find("a b", passages("To one. Be a.", "", "Only this", "So. Do b. En."), scores)
    assert [len(call) for call in scores.calls] == [2 + 3, 2 * 2]
    assert [None if one is None else (one.start, one.stop) for one in found] == [(8, 13), None, (0, 9), (4, 9)]
    assert found[2] == evidence.Evidence(0, 9, None, None, 1, 1)
    assert scores.calls[1] == [("a b", text) for text in ("To one. ", "So. En.", "To one. Be a.", "So. Do b. En.")]


def test_scores_that_are_known_are_not_computed() -> None:
    texts = ("To one. Be a.", "", "So. Do b. En.", "Only this")
    plain, scores = evidence.find("a b", passages(*texts), Words()), Words()
    assert evidence.find("a b", passages(*texts), scores, known=[1.0, None, None, -3.0]) == plain
    assert [text for _, text in scores.calls[1]] == ["To one. ", "So. En.", "So. Do b. En."]
    # A passage that a budget left unread has -inf.
    assert evidence.find("a b", passages(*texts), Words(), known=[1.0, None, -np.inf, -3.0]) == plain
    given = np.float32([1.0, -np.inf, -np.inf, -3.0])
    assert evidence.find("a b", passages(*texts), lambda pairs: Words()(pairs).tolist(), known=given) == plain
    with pytest.raises(InputError, match=r"gave scores of shape \(1,\) for 5 pairs"):
        evidence.find("a b", passages(*texts), lambda pairs: [0.0])
    with pytest.raises(InputError, match="gave no list of numbers, one a pair"):
        evidence.find("a b", passages(*texts), lambda pairs: ["high"] * len(pairs))
    with pytest.raises(InputError, match="1 known scores were given for 2"):
        evidence.find("a", passages("x", "y"), Words(), known=[1.0])


def test_nothing_to_compare_scores_nothing() -> None:
    scores = Words()
    assert evidence.find("q", passages("", "One only."), scores) == [None, evidence.Evidence(0, 9, None, None, 1, 1)]
    assert evidence.find("q", [], scores) == []
    assert scores.calls == []


def test_the_first_of_equals_and_the_title_with_each_sentence() -> None:
    scores = Words()
    (found,) = evidence.find("zoo", [Passage("a", "One x. Two y.", title="The zoo")], scores, drops=False)
    assert found is not None
    assert (found.start, found.drop) == (0, None)
    assert [text for _, text in scores.calls[0]] == ["The zoo. One x.", "The zoo. Two y."]


def test_a_sentence_that_another_repeats_has_no_drop() -> None:
    (found,) = evidence.find("a", passages("Oh a. Then a. End."), Words())
    assert found is not None
    assert (found.start, found.drop) == (0, 0.0)


def test_a_sentence_without_any_token_is_no_evidence() -> None:
    def scores(pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        return np.array([len(text) if text.strip(" \n\u200b") else -np.inf for _, text in pairs], dtype=np.float32)

    (found,) = evidence.find("q", passages("One here.\n\n\u200b"), scores)
    assert found is not None
    assert (found.start, found.stop, found.score, found.drop) == (0, 9, 9.0, None)
    (found,) = evidence.find(
        "q", passages("One here. Two here."), lambda pairs: np.full(len(pairs), -np.inf, np.float32)
    )
    assert found is not None
    assert (found.stop, found.score, found.drop, found.sentences) == (9, None, None, 2)


def test_the_bound_is_told() -> None:
    text = " ".join(f"Sentence {number}." for number in range(10)) + " Answer here."
    (found,) = evidence.find("Answer", passages(text), Words(), most=4)
    assert found is not None
    assert (found.sentences, found.compared, found.score) == (11, 4, 0.0)
    (found,) = evidence.find("Answer", passages(text), Words())
    assert found is not None
    assert text[found.start : found.stop] == "Answer here."
    with pytest.raises(InputError, match="at least 1"):
        evidence.find("q", [], Words(), most=0)


def test_rank_gives_it_for_the_documents_it_returns(cross_encoder_folder: Path) -> None:
    scorer = crossrank.load(cross_encoder_folder, dtype="float32")
    documents = [
        "the cat. The planet is a cat.",
        "",
        "paris is the capital.",
        # Places are of the text as it was given, white space at its beginning too.
        "\n\n  A bread. Yeast is bread. What is a cat?",
    ]
    plain = scorer.rank("what is paris?", documents, k=3)
    assert plain.evidence == ()
    ranked = scorer.rank("what is paris?", documents, k=3, evidence=True)
    assert (ranked.positions, ranked.scores.tolist()) == (plain.positions, plain.scores.tolist())
    assert len(ranked.evidence) == 3
    for (position, score), found in zip(ranked, ranked.evidence, strict=True):
        assert found is not None
        text = documents[position]
        if found.score is not None:
            alone = scorer.score([("what is paris?", text[found.start : found.stop])])
            without = scorer.score([("what is paris?", text[: found.start] + text[found.stop :].lstrip())])
            assert found.score == pytest.approx(float(alone[0]), abs=1e-5)
            assert found.drop == pytest.approx(score - float(without[0]), abs=1e-4)
    everything = scorer.rank("what is paris?", documents, evidence=True)
    assert everything.positions[-1] == 1
    assert everything.evidence[-1] is None
