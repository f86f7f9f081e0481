"""Documents to passages: cut at headings, paragraphs, sentences or words, sizes in tokens, in linear time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from crossrank.asking import check_whole
from crossrank.checkpoint import vocabulary
from crossrank.errors import InputError
from crossrank.index.documents import Document, Markup
from crossrank.index.headings import Section, sections
from crossrank.index.records import Settings
from crossrank.textids import TextIds
from crossrank.types import Embedder, Passage, Place, ReportingEmbedder

SIZE = 200
"""Tokens of a passage, at most, unless a caller says otherwise: with a query it fits one window of a cross-encoder."""

LEAST = 16
"""Tokens that a passage must be allowed to have."""

_PIECE = 8_192
"""Characters tokenized at once. The cost of a tokenizer may grow faster than its text; so no text is longer."""
_PIECES_AT_ONCE = 64
_LONG_TOKEN, _CHARACTERS_A_TOKEN = 32, 16
"""A token that covers more characters (an unknown word) counts once for each so many of them, a bound on passages."""

_PARAGRAPH, _SENTENCE, _LINE, _WORD = 4, 3, 2, 1
_BLANK_LINE = re.compile(r"\n[ \t]*(?=\n)")
_SPACE = re.compile(r"\s+")
_LINE_END = re.compile(r"\n")
_SENTENCE_END = re.compile(r"[.!?…]['\")\]”’»]*\s+(?=[^\sa-z])|[。！？｡]+[’”」』）)】》]*")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a document that becomes a passage: the path of headings above it, its text, and where that begins."""

    title: str
    text: str
    start: int = 0


def usual_size(embedder: Embedder) -> int:
    """Tokens of a passage unless a caller says otherwise: never more than the embedder reads, if it says so."""
    return max(min(SIZE, embedder.room), LEAST) if isinstance(embedder, ReportingEmbedder) else SIZE


def check_sizes(size: int, overlap: int) -> tuple[int, int]:
    """Size and overlap, both as Python's integers; refuse what cannot be kept.

    Raises:
        InputError: no whole numbers, a size under 16 tokens, or an overlap that is negative or above a quarter of the
            size.

    >>> check_sizes(200, 20)
    (200, 20)
    """
    check_whole("the size of passages", size)
    check_whole("the overlap of passages", overlap)
    if size < LEAST:
        raise InputError(f"passages must have at least {LEAST} tokens, not {size}")
    if not 0 <= overlap <= size // 4:  # More would make the work of one text grow without need.
        raise InputError(f"the overlap must be between 0 and a quarter of a passage's {size} tokens, not {overlap}")
    return int(size), int(overlap)


def split(
    text: str,
    tokenizer: Tokenizer,
    size: int = SIZE,
    overlap: int = 0,
    *,
    title: str = "",
    markup: Markup = "plain",
) -> list[Piece]:
    """Cut a text into pieces of at most `size` tokens, title included.

    A text that fits stays whole. A longer one is cut at its headings; what is still too long, at the strongest boundary
    in the second half of the room: a blank line, the end of a sentence, the end of a line, a space, and only then
    within a word. The title of a piece is the document's and the path of headings above it, "Guide > Install > Linux".
    A text that stays whole and has no title has the heading that it opens with.

    The first piece has the document's title in full; where that takes more than half of the size, the others have its
    beginning, up to a space within that half, and "…".

    The size holds as `tokenizer` counts the pieces of the whole text. It may be passed in two cases: the title of the
    first piece or a path of headings takes more than half of it, or a word is cut and counts more tokens than before.

    Args:
        text: any length; the time is proportional to it.
        tokenizer: a plain one (see `checkpoint.vocabulary`); special tokens are not counted.
        size: tokens, at least 16.
        overlap: tokens that a piece repeats from the one before it, at most a quarter of the size.
        title: of the document.
        markup: how headings are written.

    Raises:
        InputError: a size or overlap that cannot be kept.
    """
    return _split(text, TextIds(tokenizer), size, overlap, title, markup)


def _split(text: str, ids: TextIds, size: int, overlap: int, title: str, markup: Markup) -> list[Piece]:
    size, overlap = check_sizes(size, overlap)
    if not text.strip():
        return [Piece(title, "")] if title.strip() else []
    parts = list(sections(text, markup))
    whole = _whole(text, title, parts)
    starts = _token_starts(text, ids)
    if len(starts) + _title_tokens(whole.title, ids.tokenizer) <= size:
        return [whole]
    strengths = _strengths(text, starts)
    repeated = _beginning(title, size // 2, ids)
    pieces: list[Piece] = []
    for section in parts:
        below = section.path[1:] if section.path[:1] == (title,) else section.path
        name = _path(repeated, below)
        room = max(size - _title_tokens(name, ids.tokenizer), size // 2)
        first, last = np.searchsorted(starts, [section.start, section.end]).tolist()
        for a, b in _cuts(strengths[first:last], room, min(overlap, room // 4)):
            begin = section.start if a == 0 else int(starts[first + a])
            end = section.end if first + b == last else int(starts[first + b])
            piece = _piece(name if pieces else _path(title, below), text, begin, end)
            if piece.text:
                pieces.append(piece)
    return pieces


Cut = Callable[[Document, str], list[tuple[Passage, NDArray[np.int32]]]]
"""What `passages_of` gives for a document and its file, when tokenizer and sizes are settled."""


def cut_by(tokenizer: Tokenizer, made: Settings, threads: int | None = None) -> Cut:
    """How documents become passages of an index that was made so, on so many cores or all."""
    ids = TextIds(vocabulary.plain(tokenizer), threads)
    return lambda document, file: passages_of(document, ids, made.size, made.overlap, file)


def passages_of(
    document: Document, text_ids: TextIds, size: int, overlap: int, file: str = ""
) -> list[tuple[Passage, NDArray[np.int32]]]:
    """The passages of a document and the token ids of the text a scorer reads, without special tokens.

    A document that stays whole keeps its id; otherwise its passages are `id#1`, `id#2` and so on. A blank document has
    none. `file` is where the document was read, for the passages' places.
    """
    title = document.title.strip()
    pieces = _split(document.text, text_ids, size, overlap, title, document.markup)
    ids = ids_of(document, len(pieces))
    lines = np.fromiter((found.end() for found in _LINE_END.finditer(document.text)), dtype=np.int64)
    passages = [
        Passage(
            id_,
            piece.text,
            piece.title,
            document.id,
            document.metadata,
            Place(file, piece.start, 1 + int(np.searchsorted(lines, piece.start, side="right"))),
        )
        for id_, piece in zip(ids, pieces, strict=True)
    ]
    tokens: list[NDArray[np.int32]] = []
    for at in range(0, len(passages), _PIECES_AT_ONCE):
        texts = [passage.scored_text for passage in passages[at : at + _PIECES_AT_ONCE]]
        read = text_ids.of(texts)
        tokens += [read.row(i) for i in range(len(read))]
    return list(zip(passages, tokens, strict=True))


def ids_of(document: Document, passages: int) -> list[str]:
    """The ids of so many passages that a document became, see `passages_of`."""
    return [document.id] if passages == 1 else [f"{document.id}#{number + 1}" for number in range(passages)]


def _whole(text: str, title: str, parts: list[Section]) -> Piece:
    """The text in one piece; without a title, the heading that it opens with is one."""
    opens = len(parts) > 1 and parts[1].path and not text[: parts[0].end].strip()
    if opens and not title:
        return _piece(parts[1].path[0], text, parts[1].start, len(text))
    return _piece(title, text, 0, len(text))


def _path(title: str, headings: tuple[str, ...]) -> str:
    return " > ".join((title, *headings) if title else headings)


def _beginning(title: str, most: int, ids: TextIds) -> str:
    """A title of at most `most` tokens; of a longer one the beginning, which has no more with the mark of the cut."""
    starts = _token_starts(title, ids)
    if len(starts) < most:  # One is for the full stop that joins it to the text.
        return title
    kept = title[: starts[most - 2]]
    return (kept[: kept.rfind(" ")] if " " in kept.rstrip() else kept).rstrip() + " …"


def _piece(title: str, text: str, begin: int, end: int) -> Piece:
    """What lies between two places, without the white space around it."""
    body = text[begin:end]
    return Piece(title, body.strip(), begin + len(body) - len(body.lstrip()))


def _title_tokens(title: str, tokenizer: Tokenizer) -> int:
    """Tokens that the title adds, with the full stop that joins it to the text."""
    with vocabulary.guarded():
        return len(tokenizer.encode(title[:_PIECE] + ".", add_special_tokens=False).ids) if title else 0


def _token_starts(text: str, ids: TextIds) -> NDArray[np.int64]:
    """Where each token begins, in characters; a very long token counts as several."""
    found: list[NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)]
    places = list(_pieces(text))
    for at in range(0, len(places), _PIECES_AT_ONCE):
        group = places[at : at + _PIECES_AT_ONCE]
        for (begin, _), one in zip(group, ids.spans([text[a:b] for a, b in group]), strict=True):
            spans = one.astype(np.int64) + begin
            found.append(spans[:, 0])
            for a, b in spans[spans[:, 1] - spans[:, 0] > _LONG_TOKEN].tolist():
                found.append(np.arange(a + _CHARACTERS_A_TOKEN, b, _CHARACTERS_A_TOKEN, dtype=np.int64))
    # Tokens that share a place (one character of several tokens) all count; order by place.
    return np.sort(np.concatenate(found), kind="stable")


def _pieces(text: str) -> Iterator[tuple[int, int]]:
    """Spans of at most `_PIECE` characters that end after white space where there is some."""
    begin = 0
    while begin < len(text):
        end = begin + _PIECE
        if end < len(text):
            tail = text[end - 1_024 : end]
            space = max(tail.rfind(" "), tail.rfind("\n"))
            end = end if space < 0 else end - 1_024 + space + 1
        yield begin, min(end, len(text))
        begin = end


def _strengths(text: str, starts: NDArray[np.int64]) -> NDArray[np.uint8]:
    """How good a place to cut the start of each token is."""
    strengths = np.zeros(len(starts) + 1, dtype=np.uint8)
    rules = {_WORD: _SPACE, _LINE: _LINE_END, _SENTENCE: _SENTENCE_END, _PARAGRAPH: _BLANK_LINE}
    for strength, rule in rules.items():
        places = np.fromiter((found.end() for found in rule.finditer(text)), dtype=np.int64)
        # The first token at or after the boundary; nothing but white space lies between.
        strengths[np.searchsorted(starts, places)] = strength
    return strengths[:-1]


def _cuts(strengths: NDArray[np.uint8], room: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Spans of tokens, each at most `room` long, in order; the last is not left much shorter than the others."""
    begin, total = 0, len(strengths)
    if total == 0:  # Text of which the tokenizer keeps nothing.
        yield 0, 0
        return
    while total - begin > room:
        highest = begin + min(room, total - begin - room // 4)
        lowest = min(begin + room // 2, highest)
        window = strengths[lowest : highest + 1]
        cut = highest - int(np.argmax(window[::-1]))  # The last of the strongest.
        yield begin, cut
        if overlap:
            window = strengths[cut - overlap : cut]
            begin = cut - overlap + int(np.argmax(window))  # The first of the strongest.
        else:
            begin = cut
    yield begin, total
