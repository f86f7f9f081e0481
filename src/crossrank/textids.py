"""Texts to token ids, each read alone: natively where the ids are the tokenizers library's to the last, else by it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from crossrank import wordpiece
from crossrank.checkpoint import vocabulary
from crossrank.packed import offsets_of
from crossrank.types import Tokens
from crossrank.unicode import valid_text

# Taking up a vocabulary takes 20 to 30 ms, in which the tokenizers library reads about so many characters: whoever asks
# for less never waits for it.
_CHARACTERS = 50_000
# In the place of settings: equal to none.
_NEVER = object()


class TextIds:
    """What a tokenizer makes of texts. Thread-safe.

    Args:
        tokenizer: without truncation or padding, which is only read.

    >>> from crossrank.models import named
    >>> ids = TextIds(named.read("embed", default="embed").tokenizer())
    >>> ids.of(["a cat", ""]).lengths.tolist(), ids.framed(["a cat", ""]).lengths.tolist()
    ([2, 0], [4, 2])
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._asked = 0
        self._taken: tuple[Hashable, wordpiece.WordPiece | None] = (None, None)
        self._found: tuple[Hashable, tuple[list[int], list[int]] | None] = (_NEVER, None)

    def __reduce__(self) -> tuple[Callable[[Tokenizer, bool], TextIds], tuple[Tokenizer, bool]]:
        # What lies in the native library is made anew.
        return _copied, (self.tokenizer, self.tokenizer.encode_special_tokens)

    def of(self, texts: Sequence[str]) -> Tokens:
        """Ids of texts, special tokens left out, end to end; types that nobody reads."""
        native = self._native(texts)
        if native is None:
            return Tokens.of(self._foreign(texts))
        ids, counts = native.encode(texts)
        rest = np.flatnonzero(counts < 0)
        if not len(rest):
            return _untyped(ids, counts)
        others = Tokens.of(self._foreign([texts[row] for row in rest.tolist()]))
        theirs = counts < 0
        counts[rest] = others.lengths
        of_theirs = np.repeat(theirs, counts)
        joined = np.empty(len(of_theirs), dtype=np.int32)
        joined[of_theirs], joined[~of_theirs] = others.ids, ids
        return _untyped(joined, counts)

    def framed(self, texts: Sequence[str]) -> Tokens:
        """Ids of texts with the special tokens that stand around each."""
        frame = self._frame()
        if frame is None:
            return Tokens.of(self._foreign(texts, special=True))
        before, after = frame
        bare = self.of(texts)
        lengths = bare.lengths + len(before) + len(after)
        offsets = offsets_of(lengths)
        ids, inner = np.empty(offsets[-1], dtype=np.int32), np.ones(offsets[-1], dtype=np.bool_)
        places = [offsets[:-1] + i for i in range(len(before))] + [offsets[1:] - i for i in range(len(after), 0, -1)]
        for place, number in zip(places, [*before, *after], strict=True):
            ids[place], inner[place] = number, False
        ids[inner] = bare.ids
        return _untyped(ids, lengths)

    def _frame(self) -> tuple[list[int], list[int]] | None:
        """Special tokens before and after a text; None where the tokenizer does more than putting them there."""
        if self.tokenizer.truncation is not None or self.tokenizer.padding is not None:
            return None
        asked, found = self._found
        now = wordpiece.template_of(self.tokenizer)
        if asked != now:
            found = self._probed()
            self._found = now, found
        return found

    def _probed(self) -> tuple[list[int], list[int]] | None:
        probe, bare = self.tokenizer.encode("a"), self.tokenizer.encode("a", add_special_tokens=False).ids
        if not bare:  # A vocabulary without "a": it is not told where a text would stand.
            return None
        marks = probe.special_tokens_mask
        first = marks.index(0) if 0 in marks else len(marks)
        before, after = probe.ids[:first], probe.ids[first + len(bare) :]
        return (before, after) if [*before, *bare, *after] == probe.ids else None

    def _native(self, texts: Sequence[str]) -> wordpiece.WordPiece | None:
        asked, taken = self._taken
        if asked is _NEVER:
            return None
        settings = wordpiece.settings(self.tokenizer)
        if settings is None:
            # Where there are thousands of added tokens, asking takes longer than the library needs for a query.
            self._taken = _NEVER, None
            return None
        if asked == settings:
            return taken
        self._asked += sum(map(len, texts))
        if self._asked < _CHARACTERS:
            return None
        taken = wordpiece.opened(self.tokenizer)
        self._taken = settings, taken
        return taken

    def _foreign(self, texts: Sequence[str], special: bool = False) -> list[list[int]]:
        # encode_batch_fast leaves out character offsets, which nobody reads here; a third of the time.
        with vocabulary.guarded():
            made = self.tokenizer.encode_batch_fast([valid_text(text) for text in texts], add_special_tokens=special)
        return [one.ids for one in made]


def _copied(tokenizer: Tokenizer, plain: bool) -> TextIds:
    # A pickled tokenizer forgets it, and would read a "[SEP]" that a text spells as the border between two texts.
    tokenizer.encode_special_tokens = plain
    return TextIds(tokenizer)


def _untyped(ids: NDArray[np.int32], lengths: NDArray[np.int64]) -> Tokens:
    return Tokens(ids, np.zeros_like(ids), offsets_of(lengths))
