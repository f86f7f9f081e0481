"""Texts cut to the tokens that a request wants read, with a report of what that leaves out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tokenizers import Encoding

from crossrank.checkpoint import growth, vocabulary
from crossrank.crossencoder import CrossEncoder
from crossrank.encoder import CHARACTERS_A_TOKEN, PairEncoder
from crossrank.types import Truncation
from crossrank.unicode import valid_text

Pairs = Sequence[tuple[str, str]]
# Characters and documents tokenized at once. It bounds the memory of one request's tokens, and is where a request
# notices that it was cancelled.
_CHARACTERS, _DOCUMENTS = 400_000, 512
# A cut inside a word can give more tokens than it had there; so many times one cut earlier is tried, then far earlier.
_TRIES = 8


@dataclass(frozen=True, slots=True)
class Caps:
    """How much of texts a request wants read; None reads everything.

    Attributes:
        query: tokens of the query.
        document: tokens of each document.
        pair: tokens of a query and a document together, special tokens included. Each text keeps a character at least,
            which may be several tokens.
        windows: windows of one document.
        left: what `pair` cuts keeps its end, not its beginning.
    """

    query: int | None = None
    document: int | None = None
    pair: int | None = None
    windows: int | None = None
    left: bool = False


class Cutter:
    """Cuts texts by the tokens of a scorer. Thread-safe: it holds no state.

    Args:
        scorer: reads what is left.
    """

    def __init__(self, scorer: CrossEncoder) -> None:
        self._scorer = scorer
        self._tokenizer = scorer.checkpoint.tokenizer()
        # This also has it read a text that says "[SEP]" as those five characters, as the scorer does.
        encoder = PairEncoder(self._tokenizer, scorer.max_length, scorer.checkpoint.pair)
        self._specials = scorer.max_length - encoder.room + encoder.beside
        self._room = encoder.room - 2 * encoder.beside
        with vocabulary.guarded():
            # Of texts in ASCII, and of all others.
            self._dense = {plain: growth.tokens_a_character(self._tokenizer, plain) for plain in (True, False)}

    def cut(self, pairs: Pairs, caps: Caps | None) -> tuple[Pairs, tuple[Truncation, ...]]:
        """The pairs with their texts cut, and what was cut: at the place of its pair, a query once as position -1."""
        if caps is None or caps == Caps():
            return pairs, ()
        queries: dict[str, tuple[str, Truncation | None, int | None]] = {}
        made, cuts = [], []
        for place, (query, document) in enumerate(pairs):
            if query not in queries:
                queries[query] = self._query(query, caps)
            head, _, left = queries[query]
            document, cut = self._steps(document, (self._most(caps), False), (left, caps.left))
            made.append((head, document))
            if cut is not None:
                cuts.append(replace(cut, position=place))
        return made, (*(cut for _, cut, _ in queries.values() if cut is not None), *cuts)

    def _query(self, query: str, caps: Caps) -> tuple[str, Truncation | None, int | None]:
        """The query cut, what was cut, and the tokens that `caps.pair` leaves for a document beside it."""
        room = None if caps.pair is None else caps.pair - self._specials
        beside = None if room is None else max(1, room - 1)
        # The scorer reads no more of a query than half its room; cut here, it is reported once.
        query, cut = self._steps(query, (caps.query, False), (beside, caps.left), (self._room // 2, False))
        return query, cut, None if room is None else max(1, room - self._count(query))

    def _most(self, caps: Caps) -> int | None:
        """Tokens of a document, by itself."""
        if caps.windows is None:
            return caps.document
        windows = self._scorer.windows
        whole = windows.size + (caps.windows - 1) * (windows.size - windows.overlap)
        return whole if caps.document is None else min(caps.document, whole)

    def _steps(self, text: str, *steps: tuple[int | None, bool]) -> tuple[str, Truncation | None]:
        """The text cut to so many tokens, from the left or not, one step after another."""
        cut: Truncation | None = None
        for most, left in steps:
            if most is None:
                continue
            text, found = self._cut(text, most, left)
            if found is not None:
                cut = found if cut is None else replace(cut, read=found.read)
        return text, cut

    def _cut(self, text: str, most: int, left: bool) -> tuple[str, Truncation | None]:
        if len(text) * self._dense[text.isascii()] <= most:
            return text, None
        # White space can be long and has no tokens: the search goes on behind it, as far as the scorer reads at all.
        bare, windows = text.strip(), self._scorer.windows
        limit = max(windows.size * windows.most, self._room) * CHARACTERS_A_TOKEN
        size = min(most * CHARACTERS_A_TOKEN, limit)
        while True:
            exact, part = size >= len(bare), bare[-size:] if left else bare[:size]
            if not exact:
                # Half of a long word can have more tokens than the word.
                part = part.split(None, 1)[-1] if left else part.rsplit(None, 1)[0]
            spans = self._encoded(part).offsets
            if exact or len(spans) > most or size >= limit:
                break
            size *= 2
        if len(spans) <= most:
            return (text, None) if exact else (part, Truncation(-1, len(spans), len(spans), 1, exact))
        for size in _sizes(spans, most, len(part), left):
            kept = part[-size:] if left else part[:size]
            read = self._count(kept)
            if read <= most:
                break
        if exact and len(kept) == len(bare):  # one character, which stays
            return text, None
        return kept, Truncation(-1, len(spans), read, 1, exact)

    def _count(self, text: str) -> int:
        return len(self._encoded(text).ids)

    def _encoded(self, text: str) -> Encoding:
        with vocabulary.guarded():
            return self._tokenizer.encode(valid_text(text), add_special_tokens=False)


def _sizes(spans: Sequence[tuple[int, int]], most: int, length: int, left: bool) -> list[int]:
    """How many characters of a text to try to keep: what `most` tokens have, then less, a character at the least.

    Several tokens may be of one character, so that one token fewer may be no character less.
    """
    ends = [length - begin for begin, _ in spans[-most:]] if left else [end for _, end in spans[:most]]
    falling = sorted({end for end in ends if end > 0} or {1}, reverse=True)
    places = [*range(min(_TRIES, len(falling)))]
    while places[-1] < len(falling) - 1:
        places.append(min(2 * places[-1], len(falling) - 1))
    return [falling[place] for place in places]


def merged(cuts: Sequence[Truncation], scored: Sequence[Truncation]) -> list[Truncation]:
    """What was cut beforehand and what the scorer then cut, one report a document: its tokens, and those read."""
    documents = {cut.position: cut for cut in cuts if cut.position >= 0}
    made = [cut for cut in cuts if cut.position < 0]
    for cut in scored:
        first = documents.pop(cut.position, None)
        made.append(cut if first is None else replace(cut, tokens=first.tokens, exact=first.exact))
    return [*made, *documents.values()]


def chunks(pairs: Sequence[tuple[str, str]], ends: range = range(0)) -> Iterator[Sequence[tuple[str, str]]]:
    """The pairs in order, a bounded number of characters at a time, and none on both sides of one of `ends`."""
    begin = size = 0
    for end, (_, document) in enumerate(pairs):
        size += len(document)
        if end > begin and (size > _CHARACTERS or end - begin >= _DOCUMENTS or end in ends):
            yield pairs[begin:end]
            begin, size = end, len(document)
    if begin < len(pairs):
        yield pairs[begin:]
