"""(query, passage) pairs to token ids: special tokens, truncation that spares the query, windows over long passages.

The template (`[CLS] query [SEP] passage [SEP]` for BERT, `<s> query </s></s> passage </s>` for RoBERTa) is read off
the checkpoint's own tokenizer by encoding a probe pair, so no table of model families is needed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from crossrank.errors import CheckpointError, InputError
from crossrank.types import Tokens, Truncation
from crossrank.windows import Fold, spans

# A passage is cut before it is tokenized at this many characters a token that could be read: English has 4-5, the
# longest scripts under 2, and a word longer than 100 characters is one [UNK]. It bounds memory on a 50 MB line.
_CHARACTERS_A_TOKEN = 24


@dataclass(frozen=True, slots=True)
class Windows:
    """How long passages are read.

    Attributes:
        size: passage tokens in one window, when a passage does not fit into one sequence with its query.
        overlap: tokens that neighbouring windows share.
        fold: how window scores become one: "max", "mean" or "first".
        most: windows read of one passage; what lies beyond is reported as unread, never silently dropped.
    """

    size: int = 400
    overlap: int = 100
    fold: Fold = "max"
    most: int = 64

    def __post_init__(self) -> None:
        spans(0, self.size, self.overlap)
        if self.fold not in ("max", "mean", "first"):
            raise InputError(f"unknown fold {self.fold!r}; use 'max', 'mean' or 'first'")
        if self.most < 1:
            raise InputError(f"at least one window must be read, not {self.most}")


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """Sequences for a backend, and the way back to the pairs they came from.

    Attributes:
        tokens: one sequence a window.
        owner: the pair of each sequence, never falling, shape (len(tokens),).
        truncations: texts that were cut or split; the query once for each distinct cut query, as position -1.
    """

    tokens: Tokens
    owner: NDArray[np.int64]
    truncations: tuple[Truncation, ...]


@dataclass(frozen=True, slots=True)
class Template:
    """Special tokens around a pair, with their token types: `before query between passage after`."""

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    types: tuple[int, int, int, int, int]

    @property
    def specials(self) -> int:
        """Special tokens in one sequence."""
        return len(self.before) + len(self.between) + len(self.after)

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Template:
        """Read the template off a tokenizer.

        Raises:
            CheckpointError: the tokenizer does not put special tokens around a pair.
        """
        probe = tokenizer.encode("a", "b")
        sides = list(probe.sequence_ids)
        if 0 not in sides or 1 not in sides or None not in sides:
            raise CheckpointError(
                "the tokenizer does not mark pairs with special tokens (no post-processor for pairs), so query and "
                "passage cannot be told apart. Save the tokenizer again with sentence-transformers or transformers."
            )
        q0, q1 = sides.index(0), len(sides) - sides[::-1].index(0)
        p0, p1 = sides.index(1), len(sides) - sides[::-1].index(1)
        ids, types = probe.ids, probe.type_ids
        # The last special token of each part has the type of the part (BERT's [SEP] belongs to what it ends).
        return cls(
            tuple(ids[:q0]),
            tuple(ids[q1:p0]),
            tuple(ids[p1:]),
            (types[0], types[q0], types[q1] if p0 > q1 else types[q0], types[p0], types[-1]),
        )


class PairEncoder:
    """Pairs to packed sequences. Thread-safe: it holds no state but the tokenizer, which is only read.

    Args:
        tokenizer: of the checkpoint, without truncation or padding.
        max_length: tokens in one sequence, special tokens included.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int) -> None:
        # A document that says "[SEP]" means those five characters: it must not forge the border between query and
        # passage. (transformers would read it as the special token.)
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self.template = Template.of(tokenizer)
        self.room = max_length - self.template.specials
        if self.room < 2:
            raise CheckpointError(f"a maximum length of {max_length} leaves no room for a query and a passage")

    def encode(self, pairs: Sequence[tuple[str, str]], windows: Windows) -> Encoded:
        """Encode pairs; a passage that does not fit beside its query becomes several sequences.

        The query keeps its tokens up to half the room and is cut after that, with a report. Each distinct query and
        each distinct passage is tokenized once.

        Args:
            pairs: (query, passage) texts.
            windows: how passages that do not fit are read.

        Returns:
            Sequences in the order of the pairs, a pair's windows in the order of the text.
        """
        queries, cut = self._queries([query for query, _ in pairs])
        passages = self._passages([passage for _, passage in pairs], windows)
        rows: list[NDArray[np.int32]] = []
        types: list[NDArray[np.int32]] = []
        owner: list[int] = []
        truncations = list(cut)
        for position, (query, passage) in enumerate(pairs):
            head = queries[query]
            ids, whole = passages[passage]
            places = self._places(len(ids), self.room - len(head), windows)[: windows.most]
            if len(places) > 1 or places[-1][1] < len(ids) or not whole:
                truncations.append(Truncation(position, len(ids), places[-1][1], len(places), whole))
            for start, stop in places:
                row, kinds = self._sequence(head, ids[start:stop])
                rows.append(row)
                types.append(kinds)
                owner.append(position)
        return Encoded(_pack(rows, types), np.array(owner, dtype=np.int64), tuple(truncations))

    def _places(self, length: int, room: int, windows: Windows) -> list[tuple[int, int]]:
        if length <= room:
            return [(0, length)]
        size = min(windows.size, room)
        return spans(length, size, min(windows.overlap, size - 1))

    def _sequence(
        self, query: NDArray[np.int32], passage: NDArray[np.int32]
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        t = self.template
        parts = (t.before, query, t.between, passage, t.after)
        ids = np.concatenate([np.asarray(part, dtype=np.int32) for part in parts])
        types = np.repeat(np.array(t.types, dtype=np.int32), [len(part) for part in parts])
        return ids, types

    def _queries(self, texts: Sequence[str]) -> tuple[dict[str, NDArray[np.int32]], list[Truncation]]:
        most = self.room // 2
        found: dict[str, NDArray[np.int32]] = {}
        cut = []
        for text in dict.fromkeys(texts):
            ids, exact = self._ids(text, most)
            if len(ids) > most or not exact:
                cut.append(Truncation(-1, len(ids), most, 1, exact))
            found[text] = ids[:most]
        return found, cut

    def _passages(self, texts: Sequence[str], windows: Windows) -> dict[str, tuple[NDArray[np.int32], bool]]:
        most = max(windows.size * windows.most, self.room)
        distinct = list(dict.fromkeys(texts))
        limit = most * _CHARACTERS_A_TOKEN
        # encode_batch_fast leaves out character offsets, which nobody reads here; a third of the time.
        encoded = self._tokenizer.encode_batch_fast(
            [valid_text(text[:limit]) for text in distinct], add_special_tokens=False
        )
        return {
            text: (np.array(e.ids, dtype=np.int32), len(text) <= limit)
            for text, e in zip(distinct, encoded, strict=True)
        }

    def _ids(self, text: str, most: int) -> tuple[NDArray[np.int32], bool]:
        limit = (most + 1) * _CHARACTERS_A_TOKEN
        encoded = self._tokenizer.encode(valid_text(text[:limit]), add_special_tokens=False)
        return np.array(encoded.ids, dtype=np.int32), len(text) <= limit


def valid_text(text: str) -> str:
    """Text as UTF-8 can hold it: half of a surrogate pair, which JSON can smuggle in, becomes U+FFFD."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _pack(rows: Sequence[NDArray[np.int32]], types: Sequence[NDArray[np.int32]]) -> Tokens:
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    empty = np.zeros(0, dtype=np.int32)
    return Tokens(
        np.concatenate(rows) if rows else empty,
        np.concatenate(types) if types else empty,
        offsets,
    )
