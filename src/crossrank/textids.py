"""Texts to token ids, each read alone: natively where the ids are the tokenizers library's to the last, else by it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from crossrank import cores, wordpiece
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
        threads: cores that one call may use; all that this process may use when absent.

    >>> from crossrank.models import named
    >>> ids = TextIds(named.read("embed", default="embed").tokenizer())
    >>> ids.of(["a cat", ""]).lengths.tolist(), ids.framed(["a cat", ""]).lengths.tolist()
    ([2, 0], [4, 2])
    """

    def __init__(self, tokenizer: Tokenizer, threads: int | None = None) -> None:
        self.tokenizer = tokenizer
        self._threads = threads
        self._asked = 0
        self._taken: tuple[Hashable, wordpiece.WordPiece | None] = (None, None)
        self._found: tuple[Hashable, tuple[list[int], list[int]] | None] = (_NEVER, None)

    def __reduce__(self) -> tuple[Callable[..., TextIds], tuple[Tokenizer, bool, int | None]]:
        # What lies in the native library is made anew.
        return _copied, (self.tokenizer, self.tokenizer.encode_special_tokens, self._threads)

    def of(self, texts: Sequence[str]) -> Tokens:
        """Ids of texts, special tokens left out, end to end; types that nobody reads."""
        native = self._native(texts)
        if native is None:
            return Tokens.of(self._foreign(texts))
        ids, counts = native.encode(texts, self._threads)
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

    def spans(self, texts: Sequence[str]) -> list[NDArray[np.integer[Any]]]:
        """Of each text, where its tokens begin and end, in characters, shape (tokens, 2); special tokens left out.

        >>> from crossrank.models import named
        >>> TextIds(named.read("embed", default="embed").tokenizer()).spans(["Élan vital"])[0].tolist()
        [[0, 2], [2, 4], [5, 10]]
        """
        native = self._native(texts)
        if native is None:
            return self._foreign_spans(texts)
        spans, counts = native.spans(texts, self._threads)
        ends = offsets_of(np.maximum(counts, 0))[1:]
        found: list[NDArray[np.integer[Any]]] = list(np.split(spans, ends[:-1]) if len(texts) else [])
        rest = np.flatnonzero(counts < 0).tolist()
        theirs = self._foreign_spans([texts[row] for row in rest])
        for row, one in zip(rest, theirs, strict=True):
            found[row] = one
        return found

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
        return [one.ids for one in self._encodings(self.tokenizer.encode_batch_fast, texts, special)]

    def _foreign_spans(self, texts: Sequence[str]) -> list[NDArray[np.integer[Any]]]:
        made = self._encodings(self.tokenizer.encode_batch, texts, False)
        return [np.asarray(one.offsets, dtype=np.int64).reshape(-1, 2) for one in made]

    def _encodings(self, encode: Callable[..., list[Encoding]], texts: Sequence[str], special: bool) -> list[Encoding]:
        # Each thread of the library takes whole texts, and it has as many as there are cores, whoever asks. A call for
        # each text takes no longer than one for all.
        threads = self._threads or cores.available()
        most = threads if threads < cores.available() else max(1, len(texts))
        valid = list(map(valid_text, texts))
        with vocabulary.guarded():
            return [
                one
                for at in range(0, len(valid), most)
                for one in encode(valid[at : at + most], add_special_tokens=special)
            ]


def _copied(tokenizer: Tokenizer, plain: bool, threads: int | None) -> TextIds:
    # A pickled tokenizer forgets it, and would read a "[SEP]" that a text spells as the border between two texts.
    tokenizer.encode_special_tokens = plain
    return TextIds(tokenizer, threads)


def _untyped(ids: NDArray[np.int32], lengths: NDArray[np.int64]) -> Tokens:
    return Tokens(ids, np.zeros_like(ids), offsets_of(lengths))
