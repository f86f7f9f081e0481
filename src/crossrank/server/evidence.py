"""The sentence of a text that answers: where sentences lie, and which one the model scores best."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

# As `crossrank.index.passages` finds sentence ends; also blank lines, and line ends before the next point of a list.
# Other line ends may be where an editor wrapped the text.
_END = re.compile(r"[.!?…]['\")\]”’»]*\s+(?=[^\sa-z])|[。！？]|\n[ \t]*(?:\n\s*|(?=[-*+•#]|\d+[.)]))")
# Sentences that are compared in one text; the rest of a long text is not looked at.
MOST = 16
# Shorter spans ("Yes.", "3.") say nothing alone.
_LEAST = 12
# Characters of a text, and of one sentence, that are looked at.
_MOST_TEXT, _MOST_SENTENCE = 20_000, 1_000

Scores = Callable[[Sequence[tuple[str, str]]], NDArray[np.float32]]


def sentences(text: str) -> list[tuple[int, int]]:
    """Where the sentences of a text begin and end, in characters, without the white space around them.

    >>> text = "Paris is a capital. It lies on the Seine."
    >>> [text[a:b] for a, b in sentences(text)]
    ['Paris is a capital.', 'It lies on the Seine.']
    """
    text = text[:_MOST_TEXT]
    found: list[tuple[int, int]] = []
    begin = 0
    for end in [match.end() for match in _END.finditer(text)] + [len(text)]:
        piece = text[begin:end]
        start = begin + len(piece) - len(piece.lstrip())
        stop = begin + len(piece.rstrip())
        if stop - start >= _LEAST or (stop > start and not found and end == len(text)):
            found.append((start, stop))
        begin = end
    return found[:MOST]


def best(query: str, texts: Sequence[str], scores: Scores) -> list[tuple[int, int] | None]:
    """For each text the span of its best sentence; None where there is no sentence.

    A text of one sentence is its own evidence and is not scored.

    >>> def longest(pairs):
    ...     return np.array([len(text) for _, text in pairs], dtype=np.float32)
    >>> best("q", ["A short one. A longer sentence here.", ""], longest)
    [(13, 36), None]
    """
    spans = [sentences(text) for text in texts]
    asked = [(row, span) for row, own in enumerate(spans) if len(own) > 1 for span in own]
    values = (
        scores([(query, texts[row][a : min(b, a + _MOST_SENTENCE)]) for row, (a, b) in asked])
        if asked
        else np.zeros(0, np.float32)
    )
    chosen: list[tuple[int, int] | None] = [own[0] if len(own) == 1 else None for own in spans]
    top: dict[int, float] = {}
    for (row, span), value in zip(asked, values.tolist(), strict=True):
        if value > top.get(row, -np.inf):
            top[row], chosen[row] = value, span
    return chosen
