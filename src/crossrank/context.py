"""Passages to a context for a language model: within a token budget, with markers that lead back. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal
from unicodedata import category

import numpy as np

from crossrank.calibration import irrelevant
from crossrank.duplicates import NEAR, Said, said_by, twin_of
from crossrank.errors import InputError
from crossrank.types import Passage, Place, check_k
from crossrank.unicode import is_blank

Order = Literal["score", "document"]

_BETWEEN = 2
"""Characters that may lie between passages that are joined: a blank line. No word fits there, between two spaces; into
three it would, and a passage of it that was not found would be lost in the middle of a source."""
_GAP = "\n\n"
_UNSURE = 4
"""Tokens that a text may have more or fewer beside others than alone: special ones, and a piece over each end."""
_SHARED = 32
"""Characters that the end of one passage and the start of another must share where no place tells where they lie."""
_BEGIN, _END = r"(?:(?!\w)|(?<!\w)(?<!\d[.,]))", r"(?:(?<!\w)|(?!\w)(?![.,]\d))"
"""Places in a text where no word or number goes on."""
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u1038\u103a-\u109f\u1780-\u17d1\u3005-\u3007\u3040-\u30ff\u3105-\u312f\u31a0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
"""Letters of scripts without spaces between words: Thai, Lao, Burmese, Khmer, Chinese, Japanese."""
_CLOSING = "。、！？｡､，．；：」』）］】〕》〉…・"
_WITHIN = re.compile(rf"(?<=[{_UNSPACED}{_CLOSING}])(?=[^\s{_CLOSING}])")
"""Places within what no space divides where another word may begin."""


@dataclass(frozen=True, slots=True)
class Source:
    """One numbered part of a context.

    Attributes:
        marker: from 1, in the order of the context; `[1]` in its text.
        passages: ids of the passages it is made of, as they follow each other.
        document: id of their document.
        title: of the passages.
        text: of the passages, joined; without marker and title.
        rank: of the best of the passages, from 1.
        place: where the text begins; None when the passages do not tell.
        cut: whether the end of the text was left out, because no passage fits the budget whole.
    """

    marker: int
    passages: tuple[str, ...]
    document: str
    title: str
    text: str
    rank: int
    place: Place | None
    cut: bool = False

    @property
    def head(self) -> str:
        """The line above the text: marker, title, document and the line in it, `[1] Uploads (docs/faq.md, line 12)`."""
        line = f", line {self.place.line}" if self.place is not None and self.place.line > 1 else ""
        where = f"({' '.join(self.document.split())}{line})" if self.document else ""
        return " ".join(filter(None, [f"[{self.marker}]", *self.title.split(), where]))


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A passage that was found and is not in the context.

    Attributes:
        passage: its id.
        reason: for people: over the budget, a near-duplicate of which passage, or blank.
    """

    passage: str
    reason: str


@dataclass(frozen=True, slots=True)
class Context:
    """What a language model is given to answer from.

    Attributes:
        text: the sources, each under its head; "" when there are none.
        sources: in the order of the text.
        tokens: of the text, never more than the budget.
        counted_by: whose tokens they are.
        left_out: passages that are not in the text, best first, with the reasons.
        probability: of the most relevant passage, as the calibrated model says; None when it does not say.
        note: what else people should know; "" when there is nothing.
        notes: what steps of the search could not do as they should, `Answer.notes`, and then what `note` says.

    >>> made = assemble([Passage("a", "Tea is hot."), Passage("b", "Bread needs yeast.")], 6, lambda t: len(t.split()))
    >>> made.text, [left.passage for left in made.left_out]
    ('[1]\\nTea is hot.', ['b'])
    """

    text: str
    sources: tuple[Source, ...]
    tokens: int
    counted_by: str
    left_out: tuple[LeftOut, ...] = ()
    probability: float | None = None
    note: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Block:
    """Passages of one document that follow each other."""

    passages: tuple[str, ...]
    document: str
    title: str
    text: str
    rank: int
    place: Place | None
    stop: int


def assemble(
    passages: Sequence[Passage],
    tokens: int,
    count: Callable[[str], int],
    *,
    counted_by: str = "a function of the caller",
    order: Order = "score",
    near: float = NEAR,
) -> Context:
    """The best passages that fit into a budget of tokens, under numbered heads.

    Passages are taken from the best on. One that does not fit is left out, and a shorter one after it may fit. Passages
    of one document that overlap, or of which one begins where the other ends, become one source. A near-duplicate of a
    better passage is left out: `near` of its word triples are in the better one, and so is every number in it, with
    its sign. Symbols such as + and < are words, and a text without any word is left out only for an equal one. When no
    passage fits, the best is cut after a word, or a letter of a script that has no spaces between words.

    Args:
        passages: best first.
        tokens: the budget, heads included; the text as a whole is counted.
        count: tokens of a text, such as `lambda text: len(encoding.encode(text))` with tiktoken.
        counted_by: what to call `count` in the result.
        order: of the sources: "score", best first, or "document": documents by their best passage, and within one as
            in it.
        near: over 0; above 1 keeps near-duplicates.

    Raises:
        InputError: a budget under 1, an unknown order, or a `count` that gives no number.

    >>> found = [
    ...     Passage("faq#2", "Failed uploads are retried thrice.", "Uploads", "faq.md", place=Place("/faq.md", 95, 12)),
    ...     Passage("tea", "Tea is hot.", document="tea.md"),
    ...     Passage("faq#3", "Then they stop.", "Uploads", "faq.md", place=Place("/faq.md", 130, 13)),
    ... ]
    >>> context = assemble(found, 40, lambda text: len(text.split()))
    >>> print(context.text)
    [1] Uploads (faq.md, line 12)
    Failed uploads are retried thrice. Then they stop.
    <BLANKLINE>
    [2] (tea.md)
    Tea is hot.
    >>> context.tokens, context.sources[0].passages
    (18, ('faq#2', 'faq#3'))
    """
    check_k(tokens, "tokens")
    if order not in ("score", "document"):
        raise InputError(f"no order {order!r}; there are 'score' and 'document'")
    blocks: list[_Block] = []
    kept: list[tuple[str, Said]] = []
    left_out: list[LeftOut] = []
    over: list[_Block] = []
    room = _Room(tokens, count, order)
    for rank, passage in enumerate(passages, start=1):
        if is_blank(passage.text):
            left_out.append(LeftOut(passage.id, "blank"))
            continue
        block = _block(passage, rank)
        joined = _with(blocks, block)
        said = said_by(passage)
        if len(joined) > len(blocks) and (twin := twin_of(said, kept, near)):
            left_out.append(LeftOut(passage.id, f"near-duplicate of {twin}"))
        elif not room.holds(joined):
            left_out.append(LeftOut(passage.id, "over the budget"))
            over.append(block)
        else:
            blocks = joined
            kept.append((passage.id, said))
    while blocks and (found := room.counted(blocks)) > tokens:
        over.append(blocks.pop(max(range(len(blocks)), key=lambda at: blocks[at].rank)))
        left_out += [LeftOut(id_, "over the budget") for id_ in over[-1].passages]
    sources = _sources(blocks, order)
    note = ""
    if not sources and over:
        sources = _cut(min(over, key=lambda block: block.rank), tokens, count)
        left_out = [left for left in left_out if not sources or left.passage != sources[0].passages[0]]
        note = "no passage fits the budget whole" + ("; the best was cut" if sources else ", nor the start of the best")
    text = _text(sources)
    notes = (note,) if note else ()
    if not blocks:
        found = _count(count, text) if text else 0
    places = {passage.id: place for place, passage in enumerate(passages)}
    left_out.sort(key=lambda left: places[left.passage])
    return Context(text, sources, found, counted_by, tuple(left_out), note=note, notes=notes)


def nothing(counted_by: str, passages: Sequence[Passage], probability: float, threshold: float) -> Context:
    """The context of a question that no passage answers: the best is less probable than the threshold."""
    left_out = tuple(LeftOut(passage.id, f"under the threshold of {threshold:g}") for passage in passages)
    note = irrelevant(probability, threshold)
    return Context("", (), 0, counted_by, left_out, probability, note, (note,))


def _count(count: Callable[[str], int], text: str) -> int:
    found = count(text)
    if isinstance(found, bool) or not isinstance(found, (int, np.integer)) or found < 0:
        raise InputError(f"count must give the number of tokens of a text, not {found!r}; such as len(encode(text))")
    return int(found)


class _Room:
    """Whether blocks fit the budget, told by what each takes alone; all of the text is counted where that is not sure.

    Counting all of it for each passage would be quadratic: 300 passages in 50,000 tokens took 13 seconds.
    """

    def __init__(self, tokens: int, count: Callable[[str], int], order: Order) -> None:
        self._tokens = tokens
        self._count = count
        self._order = order
        self._alone: dict[_Block, int] = {}
        # What all took above its parts when it was counted last, and how many blocks were taken since.
        self._more: int | None = None
        self._since = 0

    def holds(self, blocks: Sequence[_Block]) -> bool:
        """Whether these fit, as far as can be told: blocks that fitted, and the last one anew."""
        if blocks[-1] not in self._alone:
            (source,) = _sources(blocks[-1:], self._order)
            gap = "" if len(blocks) == 1 else _GAP
            self._alone[blocks[-1]] = _count(self._count, gap + _text([replace(source, marker=len(blocks))]))
        found = sum(self._alone[block] for block in blocks) + (self._more or 0)
        unsure = _UNSURE * (self._since + 1)
        if found + unsure <= self._tokens:
            self._since += 1
            return True
        return (self._more is None or found - unsure <= self._tokens) and self.counted(blocks) <= self._tokens

    def counted(self, blocks: Sequence[_Block]) -> int:
        """Tokens of all of the text of these, for each of which `holds` was asked."""
        whole = _count(self._count, _text(_sources(blocks, self._order)))
        self._more = whole - sum(self._alone[block] for block in blocks)
        self._since = 0
        return whole


def _block(passage: Passage, rank: int) -> _Block:
    stop = passage.place.start + len(passage.text) if passage.place is not None else 0
    return _Block((passage.id,), passage.document, passage.title, passage.text, rank, passage.place, stop)


def _with(blocks: Sequence[_Block], new: _Block) -> list[_Block]:
    """The blocks with a new one, joined to those it touches."""
    rest = list(blocks)
    grown = True
    while grown:
        grown = False
        for number, block in enumerate(rest):
            joined = _join(block, new)
            if joined is not None:
                new, grown = joined, True
                del rest[number]
                break
    return [*rest, new]


def _join(one: _Block, other: _Block) -> _Block | None:
    """Two blocks as one, where they overlap or follow each other; None where they do not."""
    if not one.document or (one.document, one.title) != (other.document, other.title):
        return None
    if one.place is not None and other.place is not None:
        first, second = sorted((one, other), key=lambda block: (_start(block), -block.stop))
        shared = first.stop - _start(second)
        if one.place.file != other.place.file or shared < -_BETWEEN:
            return None
        if shared <= 0:
            glue = "\n\n" if shared < -1 else " " if shared else ""
            return _joined(first, second, glue + second.text)
        if second.stop <= first.stop:
            return _joined(first, second, "") if second.text in first.text else None
        # A text that was joined over white space may be some characters off; what is not equal is not joined.
        return _joined(first, second, second.text[shared:]) if first.text.endswith(second.text[:shared]) else None
    for first, second in ((one, other), (other, one)):
        if _holds(first.text, second.text):
            return _joined(first, second, "")
        shared = _overlap(first.text, second.text)
        if shared >= _SHARED:
            return _joined(first, second, second.text[shared:])
    return None


def _holds(text: str, part: str) -> bool:
    """Whether a text is a part of another: a long one, or one of whole words. "5" is no part of "2015" or "2.5"."""
    return part in text if len(part) >= _SHARED else re.search(_BEGIN + re.escape(part) + _END, text) is not None


def _start(block: _Block) -> int:
    return block.place.start if block.place is not None else 0


def _joined(first: _Block, second: _Block, more: str) -> _Block:
    return replace(
        first,
        passages=(*first.passages, *second.passages),
        text=first.text + more,
        rank=min(first.rank, second.rank),
        stop=max(first.stop, second.stop),
    )


def _overlap(first: str, second: str) -> int:
    """The most characters that the end of one text and the beginning of another share (Knuth, Morris, Pratt 1977)."""
    tail = first[-len(second) :]
    # The separator stands in no text of Unicode, so that no match runs over it.
    both = [*second, None, *tail]
    border = [0] * len(both)
    for place in range(1, len(both)):
        length = border[place - 1]
        while length and both[place] != both[length]:
            length = border[length - 1]
        border[place] = length + (both[place] == both[length])
    return border[-1]


def _sources(blocks: Sequence[_Block], order: Order) -> tuple[Source, ...]:
    ranked = sorted(blocks, key=lambda block: block.rank)
    if order == "document":
        first: dict[str, int] = {}
        for block in ranked:
            first.setdefault(block.document, block.rank)
        ranked.sort(key=lambda block: (first[block.document], _start(block)))
    return tuple(
        Source(marker, block.passages, block.document, block.title, block.text, block.rank, block.place)
        for marker, block in enumerate(ranked, start=1)
    )


def _text(sources: Sequence[Source]) -> str:
    return _GAP.join(f"{source.head}\n{source.text}" for source in sources)


def _cut(block: _Block, tokens: int, count: Callable[[str], int]) -> tuple[Source, ...]:
    """The beginning of one block, as many words as fit; nothing when not even one does."""
    (whole,) = _sources([block], "score")
    ends = _ends(whole.text)
    few, many = 0, len(ends)
    while few < many:
        middle = (few + many + 1) // 2
        fits = _count(count, _text([replace(whole, text=whole.text[: ends[middle - 1]])])) <= tokens
        few, many = (middle, many) if fits else (few, middle - 1)
    # Every `few` above 0 was counted and fits, whether or not counts rise with the text.
    return (replace(whole, text=whole.text[: ends[few - 1]], cut=True),) if few else ()


def _ends(text: str) -> list[int]:
    """Where a text may be cut, rising: behind words, and behind letters of scripts without spaces between words.

    >>> _ends("upload 20 MB"), _ends("東京、12日。")
    ([6, 9, 12], [1, 3, 7])
    """
    ends = {word.end() for word in re.finditer(r"\S+", text)}
    ends |= {place.start() for place in _WITHIN.finditer(text) if category(text[place.start()])[0] != "M"}
    return sorted(ends)
