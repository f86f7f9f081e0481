"""What `crossrank bench` scores: made-up text with the token counts of real search results.

The words are the model's own, frequent ones more often, so that tokenizing costs what it costs on real text; no data is
needed, and the same model gives the same pairs on every machine. What the text means is nothing: only lengths decide
how long a pair takes.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

# Standard deviation of the logarithm of pair lengths.
SPREAD = 0.45
SHORTEST = 20
# Passages of one query: results come in lists.
A_LIST = 50
# Tokens beside query and passage in a pair, counted as BERT does; one more or less does not matter here.
_SPECIALS = 3
_WORD = re.compile(r"[a-z]{2,14}")


@dataclass(frozen=True, slots=True)
class Shape:
    """How long the pairs of a workload are.

    Attributes:
        name: of the workload.
        pairs: how many.
        mean: tokens of a pair on average, special tokens included.
        longest: tokens of the longest pair.
    """

    name: str
    pairs: int
    mean: int
    longest: int


SHORT = Shape("short", 1000, 83, 512)
LONG = Shape("long", 400, 241, 512)


def pairs(tokenizer: Tokenizer, shape: Shape, max_length: int) -> list[tuple[str, str]]:
    """(query, passage) pairs whose lengths follow a log-normal, in lists of 50 for one query; always the same ones.

    Args:
        tokenizer: of the model, without truncation or padding.
        shape: how many and how long.
        max_length: of the model; no pair is longer, so that none is read in windows.
    """
    writer = Writer(tokenizer, shape.name)
    longest = min(shape.longest, max_length)
    # A model that reads little still gets pairs of different lengths.
    wanted = lengths(shape.pairs, min(shape.mean, 0.75 * longest), longest, writer.dice)
    queries = [writer.query() for _ in range(math.ceil(shape.pairs / A_LIST))]
    used = [len(tokenizer.encode(query, add_special_tokens=False).ids) + _SPECIALS for query in queries]
    # Three tokens less than allowed: where a passage is cut, its neighbours may be read as other tokens.
    room = [min(length, longest - 3) - used[i // A_LIST] for i, length in enumerate(wanted)]
    passages = writer.passages([max(tokens, 4) for tokens in room])
    return [(queries[i // A_LIST], passage) for i, passage in enumerate(passages)]


def lengths(count: int, mean: float, longest: int, dice: random.Random) -> list[int]:
    """Whole numbers that follow a log-normal, held between 20 and `longest`, whose mean is `mean`."""
    shortest = min(SHORTEST, longest)
    raw = [dice.lognormvariate(0, SPREAD) for _ in range(count)]

    def scaled(by: float) -> list[float]:
        return [min(max(by * value, shortest), longest) for value in raw]

    # Holding them between limits moves the mean; bisection finds the scale that moves it back.
    low, high = 0.0, 8.0 * longest
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(scaled(middle)) < mean * count else (low, middle)
    return [round(value) for value in scaled(high)]


class Writer:
    """Writes text out of a tokenizer's vocabulary; the same seed, the same text."""

    def __init__(self, tokenizer: Tokenizer, seed: str) -> None:
        self.dice = random.Random(seed)
        self._tokenizer = tokenizer
        self._words, self._endings = _vocabulary(tokenizer)
        # Vocabularies are ordered by frequency, more or less, and word frequencies follow Zipf's law (1949).
        total, self._odds = 0.0, []
        for rank in range(len(self._words)):
            total += 1 / (rank + 2.7)
            self._odds.append(total)

    def query(self) -> str:
        """A question of 5 to 9 words."""
        return " ".join(self._some(self.dice.randint(5, 9))) + "?"

    def passages(self, tokens: Sequence[int]) -> list[str]:
        """Distinct passages with these token counts, special tokens left out; a word may tip one over by a token."""
        sentences = self._sentences()
        text, offsets = "", list[tuple[int, int]]()
        while len(offsets) < sum(tokens) + 64:
            missing = sum(tokens) + 64 - len(offsets)
            text += "".join(next(sentences) for _ in range(missing // 8 + 1))
            offsets = self._tokenizer.encode(text, add_special_tokens=False).offsets
        found, begin, debt = [], 0, 0
        for wanted in tokens:
            end = begin + max(wanted - debt, 1)
            # A passage ends where a word does; what it has too much, the next one has less.
            while end < len(offsets) and _joined(text, offsets[end - 1], offsets[end]):
                end += 1
            debt = end - begin - max(wanted - debt, 1)
            found.append(text[offsets[begin][0] : offsets[end - 1][1]].strip())
            begin = end
        return found

    def _some(self, count: int) -> list[str]:
        words = self.dice.choices(self._words, cum_weights=self._odds, k=count)
        # One in ten is a longer word that takes several tokens, as names and inflections do.
        return [
            word + self.dice.choice(self._endings) if self._endings and self.dice.random() < 0.1 else word
            for word in words
        ]

    def _sentences(self) -> Iterator[str]:
        while True:
            words = self._some(self.dice.randint(6, 22))
            for place in range(1, len(words)):
                chance = self.dice.random()
                if chance < 0.07:
                    words[place - 1] += ","
                elif chance < 0.09:
                    words[place] = str(self.dice.randint(2, 2030))
            yield f"{' '.join(words).capitalize()}. "


def _vocabulary(tokenizer: Tokenizer) -> tuple[list[str], list[str]]:
    """English-looking words and word endings in the order of their ids, whichever way the tokenizer marks them."""
    ordered = [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]
    # GPT-2's byte-level space and SentencePiece's mark words; WordPiece marks what is none.
    marked = sum(token.startswith(("Ġ", "▁")) for token in ordered) * 10 > len(ordered)
    words, endings = list[str](), list[str]()
    for token in ordered:
        plain = token.lstrip("Ġ▁").removeprefix("##")
        if _WORD.fullmatch(plain):
            (words if (token != plain) == marked else endings).append(plain)
    return words or ["a"], endings


def _joined(text: str, left: tuple[int, int], right: tuple[int, int]) -> bool:
    """Whether two neighbouring tokens belong to one word."""
    return right[0] <= left[1] and not text[right[0]].isspace()
