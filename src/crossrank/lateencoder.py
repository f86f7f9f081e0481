"""Queries and documents to token ids as late-interaction models read them: a marker, mask tokens, a list to skip.

    query:     [CLS] marker prompt query [SEP]      then, with query expansion, [MASK] up to the query length
    document:  [CLS] marker prompt document [SEP]

The marker stands after the first special token of the tokenizer's own frame. A prompt, where the model has one, is
tokenized as one text with what follows it, and its vectors count like those. What does not fit is cut before the last
special tokens. `crossrank.checkpoint.late` says where lengths, markers and prompts come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from crossrank.asking import check_texts
from crossrank.checkpoint import vocabulary
from crossrank.checkpoint.late import Late
from crossrank.encoder import NO_TOKEN, beginnings
from crossrank.errors import CheckpointError, InputError
from crossrank.foreign import scripts
from crossrank.textids import TextIds
from crossrank.types import Tokens, Truncation


@dataclass(frozen=True, slots=True, eq=False)
class Marked:
    """Sequences for a backend, one a text, in the order of the texts.

    Attributes:
        tokens: of all texts.
        seen: tokens of each sequence that others see, from its start, shape (n,): without those of a query expansion
            that nothing attends to. None where all are seen.
        kept: which tokens' vectors count, shape (total,).
        truncations: texts that were cut.
    """

    tokens: Tokens
    seen: NDArray[np.int64] | None
    kept: NDArray[np.bool_]
    truncations: tuple[Truncation, ...]


class LateEncoder:
    """Texts to marked sequences. Thread-safe: it holds no state but the tokenizer, which is only read.

    Args:
        tokenizer: of the checkpoint, without truncation or padding.
        late: how the model reads texts.
        mask: the token of query expansion.
        threads: cores that one call may use; all that this process may use when absent.

    Raises:
        CheckpointError: the tokenizer puts no special token before a text, or lacks a token that the model needs.
    """

    def __init__(self, tokenizer: Tokenizer, late: Late, mask: str = "[MASK]", threads: int | None = None) -> None:
        # A text that says "[SEP]" means those five characters.
        tokenizer.encode_special_tokens = True
        self._tokenizer, self._ids = tokenizer, TextIds(tokenizer, threads)
        self.late = late
        self._asked = tokenizer, late, mask, threads
        probe = tokenizer.encode("a")
        special = probe.special_tokens_mask
        if 0 not in special or not special[0]:
            raise CheckpointError(
                "the tokenizer puts no special token before a text, so there is no place for the marker of queries and "
                "documents. Save it again with transformers or PyLate."
            )
        first = special.index(0)
        last = len(special) - special[::-1].index(0)
        self._before, self._after = probe.ids[:first], probe.ids[last:]
        self._marks = [self._needed(mark) for mark in (late.query_mark, late.document_mark)]
        # Some tokenizers read a prompt's last space with the word that follows.
        prompts = late.query_prompt, late.document_prompt
        self._prompts: list[int] = self._ids.of([one.rstrip() for one in prompts]).lengths.tolist()
        self._mask = self._needed(mask)[0] if late.expand else 0
        found = [tokenizer.token_to_id(word) for word in late.skipped]
        self._skipped = np.array([number for number in found if number is not None], dtype=np.int32)
        if min(self.query_room, self.document_room) < 1:
            raise CheckpointError(
                "the model's query or document length leaves no room for text beside special tokens and prompt"
            )

    def __reduce__(self) -> tuple[type[LateEncoder], tuple[Tokenizer, Late, str, int | None]]:
        # As `PairEncoder` does, and for its reason.
        return LateEncoder, self._asked

    @property
    def query_room(self) -> int:
        """Tokens of a query that are read, special tokens, marker and prompt left out."""
        return self._room(0) - self._prompts[0]

    @property
    def document_room(self) -> int:
        """Those of a document."""
        return self._room(1) - self._prompts[1]

    def _room(self, side: int) -> int:
        """Tokens that are read of a prompt and its text."""
        length = (self.late.query_length, self.late.document_length)[side]
        return length - len(self._before) - len(self._after) - len(self._marks[side])

    @property
    def fingerprint(self) -> str:
        """Equal exactly for tokenizers that cut texts into equal ids: those of an index may then stand in.

        It has the prompt of documents in it, which the ids of an index were not cut behind.
        """
        plain = vocabulary.fingerprint(self._tokenizer)
        return (
            sha256(f"{plain} {self.late.document_prompt}".encode()).hexdigest() if self.late.document_prompt else plain
        )

    def queries(self, texts: Sequence[str]) -> Marked:
        """Queries, with mask tokens where the model expands them; every token's vector counts.

        A query longer than `query_room` tokens is cut there, with a report at its position.

        Raises:
            InputError: a query has no token.
        """
        ids, exact, filled = self._begun(texts, 0)
        if not filled.all():
            raise InputError(NO_TOKEN)
        rows, cut = self._framed(ids, exact, 0)
        seen = None
        if self.late.expand:
            lengths = np.array([len(row) for row in rows], dtype=np.int64)
            rows = [row + [self._mask] * (self.late.query_length - len(row)) for row in rows]
            seen = None if self.late.attend else lengths
        tokens = Tokens.of(rows)
        return Marked(tokens, seen, np.ones(len(tokens.ids), dtype=np.bool_), cut)

    def documents(self, texts: Sequence[str]) -> Marked:
        """Documents; tokens of the skip list are read but their vectors do not count.

        Of a document without any token no vector counts, not even its marker's. One longer than `document_room` tokens
        is cut there, with a report at its position.
        """
        return self._documents(*self._begun(texts, 1))

    def document_tokens(self, passages: Tokens) -> Marked:
        """Like `documents`, for ids without special tokens of a tokenizer whose fingerprint is this one's."""
        return self._documents(passages, np.ones(len(passages), dtype=np.bool_), passages.lengths > 0)

    def _documents(self, ids: Tokens, exact: NDArray[np.bool_], filled: NDArray[np.bool_]) -> Marked:
        rows, cut = self._framed(ids, exact, 1)
        tokens = Tokens.of(rows)
        counts = np.repeat(filled, tokens.lengths) & ~np.isin(tokens.ids, self._skipped)
        return Marked(tokens, None, counts, cut)

    def _begun(self, texts: Sequence[str], side: int) -> tuple[Tokens, NDArray[np.bool_], NDArray[np.bool_]]:
        """Ids of prompt and text, which were tokenized to their ends, and which texts have a token of their own."""
        prompt, most = (self.late.query_prompt, self.late.document_prompt)[side], self._room(side) + 1
        ids, exact = beginnings(self._ids, texts, most, prompt)
        filled = ids.lengths > 0
        if prompt:
            # A text that adds nothing to its prompt may have no token, or ones that are read together with the prompt.
            filled = ids.lengths > len(self._ids.of([prompt]).ids)
            rest = np.flatnonzero(~filled).tolist()
            filled[rest] = beginnings(self._ids, [texts[row] for row in rest], most)[0].lengths > 0
        return ids, exact, filled

    @cached_property
    def scripts(self) -> frozenset[str]:
        """See `foreign.scripts`."""
        return scripts(self._tokenizer)

    def count(self, text: str) -> int:
        """Tokens of a text, however long it is, special tokens left out."""
        return len(self._ids.of(check_texts([text], "count")).ids)

    def _framed(
        self, ids: Tokens, exact: NDArray[np.bool_], side: int
    ) -> tuple[list[list[int]], tuple[Truncation, ...]]:
        room = self._room(side)
        head = [self._before[0], *self._marks[side], *self._before[1:]]
        rows = [[*head, *ids.row(i)[:room].tolist(), *self._after] for i in range(len(ids))]
        cut = np.flatnonzero((ids.lengths > room) | ~exact).tolist()
        total = ids.lengths - self._prompts[side]
        read = ids.lengths.clip(max=room) - self._prompts[side]
        return rows, tuple(Truncation(i, int(total[i]), int(read[i]), 1, bool(exact[i])) for i in cut)

    def _needed(self, token: str) -> list[int]:
        """The id of a token, in a list; an empty list for no token."""
        if not token:
            return []
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise CheckpointError(
                f"the tokenizer has no token {token!r}, which this late-interaction model reads: its embedding would "
                "be made up. Use the tokenizer that the model was trained with."
            )
        return [number]
