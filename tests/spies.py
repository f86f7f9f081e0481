"""Stand-ins that note what they were asked for."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer


class Counting:
    """A tokenizer for `PairEncoder` that notes the texts."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.texts: list[str] = []

    def encode_batch_fast(self, texts: list[str], add_special_tokens: bool) -> list[Any]:
        """As the tokenizer's."""
        self.texts += texts
        return self.tokenizer.encode_batch_fast(texts, add_special_tokens=add_special_tokens)
