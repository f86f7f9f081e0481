"""(query, passage) pairs to token ids: special tokens, truncation that spares the query, windows over long passages.

What stands around the two texts is `template`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from crossrank.asking import LARGEST, check_texts, check_whole
from crossrank.checkpoint import Checkpoint, PairPrompt, vocabulary
from crossrank.errors import InputError
from crossrank.foreign import scripts
from crossrank.packed import offsets_of
from crossrank.template import PLAIN, Template, crowded, of_prompt
from crossrank.textids import TextIds
from crossrank.types import Tokens, Truncation
from crossrank.windows import Fold, spans

# A passage is cut before it is tokenized at this many characters a token that could be read: English has 4-5, the
# longest scripts under 2, and a word longer than 100 characters is one [UNK]. It bounds memory on a 50 MB line.
CHARACTERS_A_TOKEN = 24
# White space, control characters and long words have fewer tokens: a text that gave too few is cut so many times later,
# or here at the latest.
_FARTHER, _FARTHEST = 16, 1_000_000
NO_TOKEN = "the query is empty: nothing in it is a token that the model reads; ask something"


@dataclass(frozen=True, slots=True)
class Windows:
    """How long passages are read.

    Attributes:
        size: passage tokens in one window, when a passage does not fit into one sequence with its query.
        overlap: tokens that neighbouring windows share. Where a sequence has no room for `size` tokens beside the
            query, windows are smaller and share less: in proportion, or a quarter of the sequence where that is more.
        fold: how window scores become one: "max", "mean" or "first", which reads the first window alone.
        most: windows read of one passage; what lies beyond is reported as unread, never silently dropped.
    """

    size: int = 400
    overlap: int = 100
    fold: Fold = "max"
    most: int = 64

    def __post_init__(self) -> None:
        for name, number in (("size", self.size), ("overlap", self.overlap), ("most", self.most)):
            check_whole(f"{name} of windows", number)
        spans(0, self.size, self.overlap)
        if self.fold not in ("max", "mean", "first"):
            raise InputError(f"unknown fold {self.fold!r}; use 'max', 'mean' or 'first'")
        if self.most < 1:
            raise InputError(f"at least one window must be read, not {self.most}")

    @property
    def read(self) -> int:
        """Windows that are read of one passage: no score comes from a second where only the first counts.

        >>> Windows(fold="first").read
        1
        """
        return 1 if self.fold == "first" else self.most

    @property
    def tokens(self) -> int:
        """Tokens of one passage that its windows can hold, as far as 32 bits count."""
        return min(self.size * self.read, LARGEST)


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """Sequences for a backend, and the way back to the pairs they came from.

    Attributes:
        tokens: one sequence a window.
        owner: the pair of each sequence, never falling, shape (len(tokens),).
        blank: pairs whose passage has no token, so that there is nothing to score, shape (pairs,).
        truncations: texts that were cut or split; the query once for each distinct cut query, as position -1.
    """

    tokens: Tokens
    owner: NDArray[np.int64]
    blank: NDArray[np.bool_]
    truncations: tuple[Truncation, ...]

    def filled(self) -> Encoded:
        """Without the sequences of blank passages, so that no model reads them and `fold` gives them -inf."""
        if not self.blank.any():
            return self
        rows = np.flatnonzero(~self.blank[self.owner])
        return replace(self, tokens=self.tokens.take(rows), owner=self.owner[rows])


class PairEncoder:
    """Pairs to packed sequences. Thread-safe: it holds no state but the tokenizer, which is only read.

    Args:
        tokenizer: of the checkpoint, without truncation or padding.
        max_length: tokens in one sequence, special tokens included.
        prompt: what a language model is asked about a pair; special tokens stand around it when absent.
        instruction: what of the prompt is the caller's, which is told where it leaves no room.
        threads: cores that one call may use; all that this process may use when absent.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        max_length: int,
        prompt: PairPrompt | None = None,
        instruction: str | None = None,
        threads: int | None = None,
    ) -> None:
        # A document that says "[SEP]" means those five characters: it must not forge the border between query and
        # passage. (transformers would read it as the special token.)
        tokenizer.encode_special_tokens = True
        self._tokenizer, self._prompt, self._ids = tokenizer, prompt, TextIds(tokenizer, threads)
        self._threads = threads
        self.template, self._query, self._passage = (
            (Template.of(tokenizer), PLAIN, PLAIN) if prompt is None else of_prompt(tokenizer, prompt)
        )
        self._max_length = max_length
        least = self.template.specials + self._passage.tokens + 2 * (self._query.tokens + 1)
        self.room = max_length - self.template.specials - self._passage.tokens
        if max_length < least:
            raise crowded(tokenizer, max_length, least, instruction)

    @classmethod
    def of(cls, read: Checkpoint, max_length: int, threads: int | None = None) -> PairEncoder:
        """The encoder of a checkpoint, with sequences of up to `max_length` tokens."""
        return cls(read.tokenizer(), max_length, read.pair, read.instruction, threads)

    def __reduce__(self) -> tuple[type[PairEncoder], tuple[Tokenizer, int, PairPrompt | None, None, int | None]]:
        # A pickled tokenizer forgets `encode_special_tokens`: made anew, it is told again.
        return PairEncoder, (self._tokenizer, self._max_length, self._prompt, None, self._threads)

    @property
    def beside(self) -> int:
        """Tokens that a prompt adds to a query, beyond its own: the line that it ends, say."""
        return self._query.tokens

    @cached_property
    def fingerprint(self) -> str:
        """Equal exactly for tokenizers that cut passages into equal ids: those of an index may then stand in."""
        found = vocabulary.fingerprint(self._tokenizer)
        return found if self._passage == PLAIN else f"{found} {self._passage}"

    def count(self, text: str) -> int:
        """Tokens of a text, special tokens left out."""
        return len(self._ids.of(check_texts([text], "count")).ids)

    @cached_property
    def scripts(self) -> frozenset[str]:
        """See `foreign.scripts`."""
        return scripts(self._tokenizer)

    def encode(
        self, pairs: Sequence[tuple[str, str]], windows: Windows, query_ids: dict[str, NDArray[np.int32]] | None = None
    ) -> Encoded:
        """Encode pairs; a passage that does not fit beside its query becomes several sequences.

        The query keeps its tokens up to half the room and is cut after that, with a report. Each distinct query and
        each distinct passage is tokenized once.

        Args:
            pairs: (query, passage) texts.
            windows: how passages that do not fit are read.
            query_ids: of queries that earlier calls tokenized, by text, which are neither tokenized nor reported again;
                those of this call are added.

        Returns:
            Sequences in the order of the pairs, a pair's windows in the order of the text.

        Raises:
            InputError: a query has no token.
        """
        place = {text: row for row, text in enumerate(dict.fromkeys(passage for _, passage in pairs))}
        texts = [self._passage.of(text) for text in place]
        passages, whole = beginnings(self._ids, texts, max(windows.tokens, self.room))
        of = np.fromiter((place[passage] for _, passage in pairs), dtype=np.int64, count=len(pairs))
        return self._encoded(
            [query for query, _ in pairs], passages, of, whole, windows, {} if query_ids is None else query_ids
        )

    def encode_tokens(
        self,
        queries: Sequence[str],
        passages: Tokens,
        windows: Windows,
        query_ids: dict[str, NDArray[np.int32]] | None = None,
    ) -> Encoded:
        """Like `encode`, for passages that are token ids already: no passage is tokenized.

        Args:
            queries: texts, one for each passage.
            passages: ids without special tokens, of a tokenizer whose fingerprint is this one's; their types do not
                matter.
            windows: how passages that do not fit are read.
            query_ids: as in `encode`.
        """
        whole = np.ones(len(passages), dtype=np.bool_)
        of = np.arange(len(passages), dtype=np.int64)
        return self._encoded(queries, passages, of, whole, windows, {} if query_ids is None else query_ids)

    def sequence_lengths(
        self, query: str, passages: NDArray[np.int64], windows: Windows
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tokens of each sequence that passages of so many tokens become with `query`, and how many each becomes."""
        query_ids: dict[str, NDArray[np.int32]] = {}
        self._tokenize_queries([query], query_ids)
        passages = np.asarray(passages, dtype=np.int64)
        beside = np.full(len(passages), len(query_ids[query]), dtype=np.int64)
        owner, _, lengths, counts = self._spans(beside, passages, windows)
        return beside[owner] + lengths + self.template.specials + self._passage.tokens, counts

    def check_queries(self, queries: Sequence[str], query_ids: dict[str, NDArray[np.int32]]) -> None:
        """Refuse queries without any token; those of `query_ids` (see `encode`) have some.

        Raises:
            InputError: one has none.
        """
        self._tokenize_queries(queries, dict(query_ids))

    def stretch(self, windows: Windows) -> float:
        """Tokens read for one of a long passage beside a short query: what overlaps is read more than once."""
        if windows.read == 1:
            return 1.0
        size = min(windows.size, self.room)
        return size / (size - self._overlap(size, windows))

    def _encoded(
        self,
        queries: Sequence[str],
        passages: Tokens,
        of: NDArray[np.int64],
        whole: NDArray[np.bool_],
        windows: Windows,
        query_ids: dict[str, NDArray[np.int32]],
    ) -> Encoded:
        """Sequences of query `i` with passage `of[i]`; `whole` tells passages that were tokenized to their ends."""
        cut = self._tokenize_queries(queries, query_ids)
        place = {text: row for row, text in enumerate(dict.fromkeys(queries))}
        distinct = _packed([query_ids[text] for text in place])
        query_of = np.fromiter((place[text] for text in queries), dtype=np.int64, count=len(queries))
        owner, starts, lengths, counts = self._spans(distinct.lengths[query_of], passages.lengths[of], windows)
        reached = (starts + lengths)[np.cumsum(counts) - 1]  # Where the last window of each pair ends.
        total = passages.lengths[of]
        report = np.flatnonzero((counts > 1) | (reached < total) | ~whole[of])
        windowed = [
            Truncation(i, int(total[i]), int(reached[i]), int(counts[i]), bool(whole[of[i]])) for i in report.tolist()
        ]
        begins = passages.offsets[of[owner]] + starts
        inner = starts > 0, (starts + lengths < total[owner]) | ~whole[of[owner]]
        tokens = self._joined(distinct, query_of[owner], passages.ids, begins, lengths, inner)
        return Encoded(tokens, owner, total == 0, (*cut, *windowed))

    def _spans(
        self, queries: NDArray[np.int64], passages: NDArray[np.int64], windows: Windows
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Windows of all pairs by the lengths of their two sides: pair, start and length of each window, and the number
        of windows of each pair."""
        counts = np.ones(len(passages), dtype=np.int64)
        long = np.flatnonzero(passages > self.room - queries).tolist()
        places = {i: self._windows(int(passages[i]), self.room - int(queries[i]), windows) for i in long}
        counts[long] = [len(found) for found in places.values()]
        owner = np.repeat(np.arange(len(passages), dtype=np.int64), counts)
        starts, stops = np.zeros(len(owner), dtype=np.int64), passages[owner]
        first = np.cumsum(counts) - counts
        for i, found in places.items():
            here = slice(int(first[i]), int(first[i]) + len(found))
            starts[here], stops[here] = zip(*found, strict=True)
        return owner, starts, stops - starts, counts

    def _windows(self, length: int, room: int, windows: Windows) -> list[tuple[int, int]]:
        size = min(windows.size, room)
        return spans(length, size, self._overlap(size, windows))[: windows.read]

    def _overlap(self, size: int, windows: Windows) -> int:
        # The overlap of whole windows would leave small ones hardly a step: with 512 tokens a passage of 360 beside a
        # query of 24 is one window, and with 128 it took 64 windows that ended after 164 tokens. A query leaves half of
        # the sequence at least, so a quarter of it is half of a window at most.
        return min(windows.overlap, max(self.room // 4, size * windows.overlap // windows.size))

    def _joined(
        self,
        queries: Tokens,
        query_of: NDArray[np.int64],
        passages: NDArray[np.int32],
        begins: NDArray[np.int64],
        lengths: NDArray[np.int64],
        inner: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    ) -> Tokens:
        """Sequences of a query and a stretch of `passages` each, in the template: all of them in one gather.

        `inner` tells stretches that begin within their passage, and those that end there: what of a prompt belongs to
        the passage's ends is put around them, too.
        """
        t, around = self.template, self._passage
        fixed = (t.before, t.between, around.lead_ids, around.tail_ids, t.after)
        specials = np.array([number for part in fixed for number in part], dtype=np.int32)
        source = np.concatenate([specials, queries.ids, passages])
        sizes = np.array([len(part) for part in fixed], dtype=np.int64)
        after_queries = len(specials) + len(queries.ids)
        # Seven parts make a sequence; where each begins in `source`, and how long it is.
        begin, length = np.zeros((2, len(lengths), 7), dtype=np.int64)
        begin[:, [0, 2, 3, 5, 6]], length[:, [0, 2, 3, 5, 6]] = np.cumsum(sizes) - sizes, sizes
        begin[:, 1], length[:, 1] = len(specials) + queries.offsets[query_of], queries.lengths[query_of]
        begin[:, 4], length[:, 4] = after_queries + begins, lengths
        length[:, 3] *= inner[0]
        length[:, 5] *= inner[1]
        ends = np.cumsum(length)
        shift = begin.ravel() - (ends - length.ravel())
        where = np.repeat(shift, length.ravel()) + np.arange(ends[-1] if len(ends) else 0)
        first, query, middle, passage, last = t.types
        types = np.array([first, query, middle, passage, passage, passage, last], dtype=np.int32)
        types = np.repeat(np.tile(types, len(lengths)), length.ravel())
        return Tokens(source[where], types, offsets_of(length.sum(axis=1)))

    def _tokenize_queries(self, queries: Sequence[str], query_ids: dict[str, NDArray[np.int32]]) -> list[Truncation]:
        """Tokenize the queries that `query_ids` does not have yet; tell which were cut."""
        most, tail = self.room // 2, np.array(self._query.tail_ids, dtype=np.int32)
        new = [text for text in dict.fromkeys(queries) if text not in query_ids]
        made, exact = beginnings(self._ids, [self._query.of(text) for text in new], most + 1)
        cut = []
        for row, text in enumerate(new):
            ids = made.row(row)
            if not len(ids):
                raise InputError(NO_TOKEN)
            if len(ids) > most or not exact[row]:
                cut.append(Truncation(-1, len(ids), min(len(ids), most), 1, bool(exact[row])))
                ids = np.concatenate([ids[: most - len(tail)], tail])
            query_ids[text] = ids
        return cut


def beginnings(ids: TextIds, texts: Sequence[str], most: int, prompt: str = "") -> tuple[Tokens, NDArray[np.bool_]]:
    """Ids of texts of which so many tokens can be read, each behind `prompt`; and which are whole."""
    return begun(texts, most, lambda parts: ids.of([prompt + part for part in parts] if prompt else parts))


def begun(
    texts: Sequence[str], most: int, ids_of: Callable[[Sequence[str]], Tokens]
) -> tuple[Tokens, NDArray[np.bool_]]:
    """Ids of texts as `ids_of` gives them, of long ones about as far as `most` tokens reach; and which are whole.

    A long text whose beginning holds too little is read without the white space around it: what stands behind a page of
    blank lines is its beginning. White space has tokens in some vocabularies, so that only such a text loses it.
    """
    limit = most * CHARACTERS_A_TOKEN
    exact = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts)) <= limit
    long = np.flatnonzero(~exact).tolist()
    parts = list(texts)
    for row in long:
        parts[row] = texts[row][:limit]
    tokens = ids_of(parts)
    longer: dict[int, NDArray[np.int32]] = {}
    for row in long:
        text, ids = texts[row], tokens.row(row)
        if len(ids) >= most:
            exact[row] = limit >= len(text.rstrip())
            continue
        bare = text.strip()
        size, end = 0, min(len(bare), max(limit, min(_FARTHER * limit, _FARTHEST)))
        while size < end and len(ids) < most:
            size = min(4 * size or limit, end)
            ids = longer[row] = ids_of([bare[:size]]).ids
        exact[row] = size >= len(bare)
    if longer:
        tokens = _packed([longer.get(row, tokens.row(row)) for row in range(len(tokens))])
    return tokens, exact


def _packed(rows: Sequence[NDArray[np.int32]]) -> Tokens:
    """Rows of ids end to end; types that nobody reads."""
    ids = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int32)
    return Tokens(ids, np.zeros_like(ids), offsets_of([len(row) for row in rows]))
