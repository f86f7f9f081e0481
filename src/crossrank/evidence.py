"""Why this passage? The sentence of each passage that the model finds the best answer, by itself.

Measured on judged sentences (`benchmarks/evidence.py`, LOG.md): the sentence's own score, read with the passage's
title, names the answering sentence more often than BM25 does. Leaving out each sentence in turn, to take the one whose
absence costs most, is less often right and reads a passage as often as it has sentences. So sentences compete by their
own scores, and leaving out is used for what it tells: how much of the passage's score rests on the winner.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import InputError
from crossrank.scored import as_scores
from crossrank.sentences import spans
from crossrank.types import Passage

MOST = 64
"""Sentences of one passage that are compared, unless a caller says otherwise; the first ones."""

Scores = Callable[[Sequence[tuple[str, str]]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Evidence:
    """The sentence of one passage that answers best.

    Attributes:
        start: where it begins in the passage's text, in characters.
        stop: where it ends.
        score: raw score of the sentence alone, under the passage's title; None where there was nothing to compare.
        drop: by how much the passage's score falls when the sentence is left out, which is near 0 (or below) where
            another sentence says the same; None where it was not asked for or nothing would be left.
        sentences: of the passage.
        compared: of these, the first so many.
    """

    start: int
    stop: int
    score: float | None
    drop: float | None
    sentences: int
    compared: int


def find(
    query: str,
    passages: Sequence[Passage],
    score: Scores,
    *,
    known: Sequence[float | None] | None = None,
    drops: bool = True,
    most: int = MOST,
) -> list[Evidence | None]:
    """The best sentence of each passage, in their order; None for a passage without text.

    All sentences of all passages are scored in one call of `score`, the drops in another. Together the sentences of a
    passage have its length, so the first call costs about as much as scoring the passages (more where the query is
    long), the second as much again, or twice that where the passages' own scores are not known. A passage of one
    sentence is its own evidence and is not scored.

    Args:
        query: what the user asks.
        passages: titles are read with each sentence.
        score: raw scores of (query, text) pairs; that of a `CrossEncoder`.
        known: raw scores of the passages, as `score` gave them; None, or a None among them, has them computed, and so
            does -inf, which a passage has that was not read.
        drops: whether to tell how much of the passage's score rests on the sentence.
        most: sentences of one passage that are compared. The rest is not looked at, which `compared` tells.

    Returns:
        Spans into `Passage.text`. Of sentences with equal scores the first.

    Raises:
        InputError: `most` is under 1, or `known` has another length; else what `score` raises.

    >>> def longest(pairs):
    ...     return np.array([len(text) for _, text in pairs], dtype=np.float32)
    >>> found = find("q", [Passage("a", "A short one. A longer sentence here."), Passage("b", "")], longest)
    >>> found[0].start, found[0].stop, found[0].score, found[0].drop, found[1]
    (13, 36, 23.0, 23.0, None)
    """
    if most < 1:
        raise InputError(f"at least 1 sentence must be compared, not {most}")
    if known is not None and len(known) != len(passages):
        raise InputError(f"{len(known)} known scores were given for {len(passages)} passages")
    everywhere = [spans(passage.text) for passage in passages]
    asked = [(row, span) for row, own in enumerate(everywhere) for span in _compared(own, most)]
    values = _scored(score, [(query, _part(passages[row], span)) for row, span in asked])
    best: dict[int, tuple[float, tuple[int, int]]] = {}
    for (row, span), value in zip(asked, values, strict=True):
        # A sentence without any token, such as a lone U+200B, is no evidence.
        if value > (best[row][0] if row in best else -np.inf):
            best[row] = value, span
    chosen = {row: span for row, (_, span) in best.items()}
    known = [None] * len(passages) if known is None else known
    fallen = _drops(query, passages, chosen, score, known) if drops else {}
    found: list[Evidence | None] = []
    for row, own in enumerate(everywhere):
        if row in best:
            value, (start, stop) = best[row]
            found.append(Evidence(start, stop, value, fallen.get(row), len(own), min(len(own), most)))
        else:
            found.append(Evidence(*own[0], None, None, len(own), 1) if own else None)
    return found


def pairs(query: str, passage: Passage, most: int = MOST) -> list[tuple[str, str]]:
    """What `find` has scored to choose a passage's sentence, to tell beforehand what that costs.

    >>> pairs("q", Passage("a", "A short one. A longer sentence here.", title="T")), pairs("q", Passage("b", "One."))
    ([('q', 'T. A short one.'), ('q', 'T. A longer sentence here.')], [])
    """
    return [(query, _part(passage, span)) for span in _compared(spans(passage.text), most)]


def _scored(score: Scores, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """The scores of pairs, as numbers; of none nobody is asked."""
    return as_scores(score(pairs), len(pairs)).tolist() if pairs else []


def _compared(own: Sequence[tuple[int, int]], most: int) -> Sequence[tuple[int, int]]:
    """Of a passage's sentences those that compete; a single one need not."""
    return own[:most] if len(own) > 1 else ()


def _part(passage: Passage, span: tuple[int, int]) -> str:
    return replace(passage, text=passage.text[span[0] : span[1]]).scored_text


def _drops(
    query: str,
    passages: Sequence[Passage],
    chosen: dict[int, tuple[int, int]],
    score: Scores,
    known: Sequence[float | None],
) -> dict[int, float]:
    """By how much each passage's score falls without its chosen sentence."""
    if not chosen:
        return {}
    pairs = []
    for row, (start, stop) in chosen.items():
        text = passages[row].text
        pairs.append((query, replace(passages[row], text=text[:start] + text[stop:].lstrip()).scored_text))
    whole = {row: value for row in chosen if (value := known[row]) is not None and value > -np.inf}
    unknown = [row for row in chosen if row not in whole]
    values = _scored(score, [*pairs, *((query, passages[row].scored_text) for row in unknown)])
    whole |= dict(zip(unknown, values[len(pairs) :], strict=True))
    left = zip(chosen, values[: len(pairs)], strict=True)
    return {row: whole[row] - value for row, value in left if value > -np.inf}
