"""Does a passage say what another has said? Pure functions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from unicodedata import category

from crossrank.types import Passage

_Words = tuple[str, ...]

NEAR = 0.9
"""Share of a passage's word triples that stand in a better one, from which it counts as a near-duplicate."""

_WORD = re.compile(r"\w")
_TOKEN = re.compile(r"(?<![\w.])[-+±]?(?:[$€£¥]\s?)?\.?\d\w*(?:[.,]\d+)*(?:\s?[$€£¥%‰°](?!\s?\d)\w*)?|\w+|[^\w\s]")
"""A number with its sign and what it counts, a word, or one other character."""
_DASHES = dict.fromkeys(map(ord, "‐‑‒–—―−"), "-")
_TELLING = frozenset("-#%&*@/\\{}")
"""Characters that make another statement, besides those that are symbols or marks for Unicode."""


@dataclass(frozen=True, slots=True)
class Said:
    """Word triples of a text alone and with its title before it, and the words of both with digits in them."""

    alone: set[_Words]
    titled: set[_Words]
    numbers: set[str]


def said_by(passage: Passage) -> Said:
    """What two passages are compared by.

    Symbols count as words: C++ is not C, and x < y is not x > y. A text without a word is a single one.
    """
    whole = passage.scored_text.lower()
    if not _WORD.search(passage.text):
        return Said({(whole,)}, {(whole,)}, set())
    words = _words(whole)
    numbers = {word for word in words if any(letter.isdigit() for letter in word)}
    return Said(_triples(_words(passage.text.lower())), _triples(words), numbers)


def _words(text: str) -> list[str]:
    # "5 %" may be broken anywhere, and "5%" is the same.
    return ["".join(token.split()) for token in _TOKEN.findall(text.translate(_DASHES)) if _tells(token)]


def _triples(words: Sequence[str]) -> set[_Words]:
    return {tuple(words[at : at + 3]) for at in range(max(1, len(words) - 2))}


def _tells(token: str) -> bool:
    return len(token) > 1 or token.isalnum() or token in _TELLING or category(token)[0] in "SM"


def twin_of(said: Said, kept: Sequence[tuple[str, Said]], near: float) -> str:
    """The id of a passage that says the same; "" when there is none.

    Numbers must agree, because records that differ in a price or a version alone share nearly all of their words. Texts
    must be near with their titles and without: a long title would make one of "Yes" and "No", and "See above." says
    another thing under another title.
    """

    def held(some: set[_Words], others: set[_Words]) -> bool:
        return len(some & others) >= near * len(some)

    for id_, other in kept:
        if said.numbers <= other.numbers and held(said.alone, other.alone) and held(said.titled, other.titled):
            return id_
    return ""
