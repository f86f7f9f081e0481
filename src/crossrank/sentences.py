"""Where the sentences of a text begin and end. A pure function, without a model and for many languages.

The rules are those of writing and not of a language: a mark that ends sentences, then white space, then no lower-case
letter; marks of scripts that leave no space; blank lines; and line ends before the next point of a list. Unicode's
annex 29 and trained splitters also know abbreviations of one language each; here a short list and initials do.
"""

from __future__ import annotations

import re

LONGEST = 1_000
"""Characters of a sentence, at most: a table or a log without full stops is cut at line ends, or else at spaces."""

# Latin, Greek, Cyrillic, Armenian, Hebrew; Arabic and Urdu; Devanagari; Ethiopic; Burmese; Khmer: white space follows.
_SPACED = r"[.!?…؟۔।॥።፧။។։]"
_CLOSING = r"['\"’”)\]»›」』]*"
_END = re.compile(
    rf"(?P<mark>{_SPACED}{_CLOSING})\s+"  # a sentence ends
    r"|[。！？｡][」』”’）)]*\s*"  # a sentence of a script without spaces ends
    r"|\n[ \t]*(?:\r?\n\s*|(?=[-*+•#>|]\s|\d{1,3}[.)]\s))"  # a paragraph or a point of a list ends
)
# A full stop after these ends no sentence, or so seldom that two sentences in one are the lesser harm. Lower case.
_SHORT = frozenset(
    ("mr", "mrs", "ms", "dr", "prof", "st", "rev", "hon", "gen", "col", "capt", "lt", "sgt", "sen", "rep", "gov",
     "messrs", "eds", "cf", "vs", "e.g", "i.e", "viz", "approx", "ca", "bzw", "bspw", "z.b", "d.h", "u.a", "ggf", "mme",
     "mlle")
)  # fmt: skip
_SHORT_BEFORE_NUMBER = frozenset(
    ("no", "nos", "nr", "fig", "figs", "eq", "eqs", "sec", "ch", "vol", "vols", "p", "pp", "art", "abs", "al")
)
_WORD = re.compile(r"[^\s(\[\"'“‘«]{1,12}$")
# A point of a list, or a heading's number, alone: it belongs to what follows.
_NUMBER = re.compile(r"[\W\d_]*(?:[ivxIVX]{1,4}|\w)?[.)\W]*")


def spans(text: str) -> list[tuple[int, int]]:
    """Begin and end of each sentence, in characters, without the white space around it.

    Every character but white space lies in exactly one span, and spans are in order. Time is linear in the text.

    >>> text = "Dr. Ito came at 3.15 p.m. to Paris. It rained!  東京は首都です。雨でした。"
    >>> [text[a:b] for a, b in spans(text)]
    ['Dr. Ito came at 3.15 p.m. to Paris.', 'It rained!', '東京は首都です。', '雨でした。']
    """
    found: list[tuple[int, int]] = []
    begin = 0
    for match in _END.finditer(text):
        if match["mark"] is not None and not _ends(text, begin, match):
            continue
        if _NUMBER.fullmatch(text, begin, min(match.end(), begin + 24)) and match.end() - begin < 24:
            continue  # "2." or "(a)": joined with what follows.
        found += _pieces(text, begin, match.end())
        begin = match.end()
    return found + _pieces(text, begin, len(text))


def _ends(text: str, begin: int, match: re.Match[str]) -> bool:
    """Whether the mark that was found ends the sentence that begins at `begin`."""
    after = text[match.end() : match.end() + 1]
    if after.islower() and "\n\n" not in match[0]:
        return False
    if match["mark"] != ".":
        return True
    word = _WORD.search(text, max(begin, match.start() - 13), match.start())
    if word is None:
        return True
    last = word[0]
    if "\n\n" in match[0]:
        return True
    # "J. R. R. Tolkien", "U.S. Army": capitals with full stops between, before a capital; but "so do I. Then".
    parts = last.split(".")
    if after.isupper() and last != "I" and all(len(part) == 1 and part.isupper() for part in parts):
        return False
    return last.lower() not in (_SHORT_BEFORE_NUMBER if after.isdigit() else _SHORT)


def _pieces(text: str, begin: int, end: int) -> list[tuple[int, int]]:
    """The stretch without the white space at its ends, in pieces of at most `LONGEST` characters; none when blank."""
    while begin < end and text[begin].isspace():
        begin += 1
    while end > begin and text[end - 1].isspace():
        end -= 1
    pieces: list[tuple[int, int]] = []
    while end - begin > LONGEST:
        cut = max(text.rfind("\n", begin + 1, begin + LONGEST), -1)
        if cut < 0:
            cut = text.rfind(" ", begin + 1, begin + LONGEST)
        if cut < 0:
            cut = begin + LONGEST
        pieces += _pieces(text, begin, cut)
        begin = cut
        while begin < end and text[begin].isspace():
            begin += 1
    return [*pieces, (begin, end)] if begin < end else pieces
