"""The currency of crossrank: packed tokens, rankings, and the protocols everything else is written against.

Nothing here knows a model, a file or a network. `Tokens` crosses the border to the backends; `Ranking` crosses every
border above the scorers. Both are frozen, and nothing a caller passes in is ever changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, ValuesView
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import InputError, ScoreError
from crossrank.packed import offsets_of, places

Pooling = Literal["mean", "cls"]


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """Sequences of token ids, end to end, without padding: the only thing a backend sees.

    Attributes:
        ids: token ids of all sequences, shape (total,), int32.
        types: 0 for the query side, 1 for the passage side, shape (total,), int32.
        offsets: sequence i is `ids[offsets[i]:offsets[i + 1]]`, shape (n + 1,), int64, first 0, never falling.

    >>> tokens = Tokens.of([[101, 7, 102], [101, 102]])
    >>> len(tokens), tokens.lengths.tolist()
    (2, [3, 2])
    >>> tokens.take([1]).ids.tolist()
    [101, 102]
    """

    ids: NDArray[np.int32]
    types: NDArray[np.int32]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], types: Sequence[Sequence[int]] | None = None) -> Tokens:
        """Pack rows of ids; `types` has the same shape and is all 0 when absent."""
        offsets = offsets_of([len(row) for row in rows])
        # One array from all numbers at once: an array a row takes twice as long.
        ids = np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=int(offsets[-1]))
        if types is None:
            return cls(ids, np.zeros_like(ids), offsets)
        if [len(row) for row in types] != [len(row) for row in rows]:
            raise InputError("token types must have the lengths of the token ids")
        return cls(ids, np.fromiter(chain.from_iterable(types), np.int32, count=len(ids)), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens in each sequence, shape (n,)."""
        return np.diff(self.offsets)

    def row(self, i: int) -> NDArray[np.int32]:
        """The ids of sequence `i`, a view."""
        return self.ids[self.offsets[i] : self.offsets[i + 1]]

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> Tokens:
        """The given sequences, in the given order, packed anew."""
        where = self.places(rows)
        return Tokens(self.ids[where], self.types[where], offsets_of(self.lengths[rows]))

    def places(self, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the tokens of the given sequences lie in `ids`, in the given order."""
        return places(self.offsets, rows)


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """The documents of one query, best first. The order is the truth; scores explain it. Iterates as (id, score).

    `scores[:head]` come from the last stage that scored and are comparable with each other. The tail keeps the scores
    of the stage before it, which are not comparable with the head's: no score is rescaled or invented.

    Attributes:
        ids: document ids, best first, no id twice.
        scores: shape (n,), float32.
        head: how many entries the last stage scored, 0..n.

    >>> list(Ranking.sorted(["a", "b", "c"], [1.0, 2.0, 1.0]))
    [('b', 2.0), ('a', 1.0), ('c', 1.0)]
    """

    ids: tuple[str, ...]
    scores: NDArray[np.float32]
    head: int

    @classmethod
    def sorted(cls, ids: Iterable[str], scores: Iterable[float] | NDArray[Any] | None = None) -> Ranking:
        """Order by score as given, not as float32, descending; equal scores keep their order: the one tie rule of all.

        Raises:
            InputError: no scores, lengths differ, an id comes twice, or a score is NaN or None.

        >>> Ranking.sorted(["older", "newer"], [1764302693000000001, 1764302693000000002]).ids
        ('newer', 'older')
        """
        if scores is None or isinstance(ids, Mapping):
            raise InputError("a ranking has ids and scores; of a dict d: Ranking.sorted(list(d), list(d.values()))")
        ids, scores = list(ids), list(scores) if isinstance(scores, (Iterator, ValuesView)) else scores
        values = np.asarray(scores)
        if values.dtype.kind not in "iu":  # These stay: as float64, times in nanoseconds would be equal.
            values = values.astype(np.float64)
        if values.shape != (len(ids),):
            raise InputError(f"{len(ids)} ids but scores of shape {values.shape}")
        if len(set(ids)) != len(ids):
            raise InputError("an id comes twice in one ranking; ids must be unique for each query")
        if len(bad := np.flatnonzero(np.isnan(values))):
            raise InputError(f"the score of {ids[bad[0]]!r} is NaN or None, which has no order; -inf would be the last")
        order = order_of(values)
        with np.errstate(over="ignore"):
            return cls(tuple(ids[i] for i in order), values[order].astype(np.float32), len(ids))

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[tuple[str, float]]:
        return zip(self.ids, self.scores.tolist(), strict=True)

    def cut(self, k: int) -> Ranking:
        """The first `k` entries; all of them when `k` is larger.

        Raises:
            InputError: `k` is under 1.

        >>> Ranking.sorted(["a", "b", "c"], [1, 3, 2]).cut(2).ids
        ('b', 'c')
        """
        check_k(k)
        return Ranking(self.ids[:k], self.scores[:k], min(self.head, k))

    def take(self, rows: Sequence[int]) -> Ranking:
        """The entries at these positions, which rise."""
        head = sum(row < self.head for row in rows)
        return Ranking(tuple(self.ids[row] for row in rows), self.scores[list(rows)], head)

    def over(self, tail: Ranking) -> Ranking:
        """This ranking as the head, then what is left of `tail` in its own order and with its own scores.

        >>> fused = Ranking.sorted(["a", "b", "c"], [3, 2, 1])
        >>> joined = Ranking.sorted(["b", "a"], [0.9, 0.1]).over(fused)
        >>> joined.ids, joined.head
        (('b', 'a', 'c'), 2)
        """
        mine = set(self.ids)
        rest = [i for i, document in enumerate(tail.ids) if document not in mine]
        scores = np.concatenate([self.scores, tail.scores[rest]]).astype(np.float32)
        return Ranking(self.ids + tuple(tail.ids[i] for i in rest), scores, len(self.ids))


def order_of(scores: NDArray[np.floating[Any] | np.integer[Any]]) -> NDArray[np.int64]:
    """Positions by score, descending, ties in incoming order.

    Raises:
        ScoreError: a score is NaN, which has no place in an order.
    """
    if len(bad := np.flatnonzero(np.isnan(scores))):
        raise ScoreError(
            f"score {bad[0]} of {len(scores)} is NaN, so there is no order. The model's weights are damaged or overflow"
            " in this dtype: load it with dtype='float32', or run `crossrank doctor MODEL`."
        )
    # The sign of a whole number without one, or of the least, cannot be turned.
    return np.argsort(np.invert(scores) if scores.dtype.kind in "iu" else -scores, kind="stable")


def check_k(k: int, name: str = "k", cure: str = "") -> None:
    """Refuse a `k`, depth or budget of tokens, called so by the caller, that is not a whole number of at least 1."""
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)):
        raise InputError(f"{name} must be a whole number, not {k!r}")
    if k < 1:
        raise InputError(f"{name} must be at least 1, not {k}" + (f"; {cure}" if cure else ""))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a passage begins.

    Attributes:
        file: absolute path of the file that was read; "" for a document that a program passed in.
        start: characters of its document's text before it. The text is what the reader made of the file: for plain
            text, Markdown and reStructuredText this is the place in the file itself.
        line: in the file, from 1; 0 is unknown, as in HTML and PDF and of a row of a file of rows.

    >>> Place("/docs/faq.md", start=310, line=12).line
    12
    """

    file: str
    start: int
    line: int


@dataclass(frozen=True, slots=True)
class Passage:
    """The text a scorer reads for one document, and where it came from.

    Attributes:
        id: unique in its corpus.
        text: what is read, without the title.
        title: read before the text when it is not empty.
        document: id of the document (often a file) that holds the passage.
        metadata: the user's own fields: strings, numbers, booleans, None, or lists and mappings of these.
        place: where it begins; None when that is not known. Not compared.

    Raises:
        InputError: its text is no string, such as the None or NaN of a table, or its title is another thing than that
            or None.

    >>> Passage("7", "Up to 5 MB.", title="Uploads").scored_text
    'Uploads. Up to 5 MB.'
    """

    id: str
    text: str
    title: str = ""
    document: str = ""
    metadata: Mapping[str, str | int | float | bool | list[Any] | dict[str, Any] | None] = field(default_factory=dict)
    place: Place | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for name, value in (("text", self.text), ("title", "" if self.title is None else self.title)):
            if not isinstance(value, str):
                told = f"the {name} of passage {self.id!r} is {type(value).__name__} ({value!r:.40}), not a string"
                raise InputError(f'{told}: leave the passage out, or give it "" there')

    @property
    def scored_text(self) -> str:
        """Title and text as models read them. The one place that joins the two."""
        return f"{self.title}. {self.text}" if self.title else self.text


@dataclass(frozen=True, slots=True)
class Truncation:
    """What of a text was not read whole, or was read in windows.

    Attributes:
        position: place of the pair or text in the caller's list; -1 for the query.
        tokens: tokens of the text, special tokens left out; where reading stopped early, a lower bound.
        read: tokens that reached the model in some window.
        windows: how many windows they were read in; 1 where there are none.
        exact: whether `tokens` is the whole count.
    """

    position: int
    tokens: int
    read: int
    windows: int
    exact: bool = True

    @property
    def lost(self) -> bool:
        """Whether some of the text was not read at all."""
        return self.read < self.tokens or not self.exact

    @property
    def told(self) -> str:
        """What was read of what, in words.

        >>> Truncation(0, 31_000, 25_000, 64).told, Truncation(0, 8_192, 1_024, 1, exact=False).told
        ('25,000 of 31,000 tokens', '1,024 of more than 8,192 tokens')
        """
        return f"{self.read:,} of {'' if self.exact else 'more than '}{self.tokens:,} tokens"


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """Vectors of texts, with what was read of them.

    Attributes:
        vectors: unit vectors, shape (n, width), in the order of the texts.
        truncations: texts whose end no vector tells of, positions rising.
    """

    vectors: NDArray[np.float32]
    truncations: tuple[Truncation, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Retrieved:
    """What a first stage found for one query, with what it read of the query.

    Attributes:
        ranking: best first.
        truncations: of the query, position -1; empty when it was read whole.
    """

    ranking: Ranking
    truncations: tuple[Truncation, ...]


@runtime_checkable
class Backend(Protocol):
    """A forward pass. It knows nothing about text, queries or ranking, and may be called from many threads."""

    @property
    def name(self) -> str:
        """What runs, for people: `reference (numpy, float32)`."""

    @property
    def padded(self) -> bool:
        """Does a short sequence cost as much as the longest of its batch?"""

    def forward(self, tokens: Tokens) -> NDArray[np.float32]:
        """Raw logits, shape (n,): row i for sequence i. Two-label heads give log-odds, logit 1 minus logit 0."""

    def pool(self, tokens: Tokens, pooling: Pooling) -> NDArray[np.float32]:
        """One vector a sequence, shape (n, hidden): the mean over its tokens or its first token; not normalized."""


@runtime_checkable
class TokenBackend(Backend, Protocol):
    """A backend that also gives the vectors of single tokens, for late interaction."""

    def states(self, tokens: Tokens, seen: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Last hidden states of all tokens, shape (total, hidden); attention sees the first `seen[i]` of sequence i."""


class Scorer(Protocol):
    """Anything that scores (query, passage text) pairs: a cross-encoder, late interaction, an LLM."""

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Raw scores, shape (n,), in the order of the pairs; larger is more relevant."""


@runtime_checkable
class NotingScorer(Protocol):
    """A scorer that says what people should know of a call. One that is not has nothing to say."""

    def noted(self, pairs: Sequence[tuple[str, str]]) -> tuple[NDArray[np.float32], str]:
        """Like `score`, with a note; "" when there is nothing to say."""


class Embedder(Protocol):
    """Text to unit vectors."""

    @property
    def width(self) -> int:
        """Numbers in one vector."""

    @property
    def fingerprint(self) -> str:
        """Equal exactly for embedders that give equal vectors."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors, shape (n, width), in the order of the texts."""


@runtime_checkable
class ReportingEmbedder(Protocol):
    """An embedder that says what it cut. One that is not reads every text to its end."""

    @property
    def room(self) -> int:
        """Tokens of a text that it reads, special tokens left out."""

    def embedded(self, texts: Sequence[str]) -> Embedded:
        """Like `embed`, with a report of what was cut."""


class Retriever(Protocol):
    """A first stage: texts in, rankings out."""

    def retrieve(self, queries: Sequence[str], depth: int) -> list[Ranking]:
        """One ranking of at most `depth` documents a query, in the order of the queries."""


@runtime_checkable
class ReportingRetriever(Protocol):
    """A first stage that says what it cut of a query. One that is not reads every query to its end."""

    def retrieved(self, queries: Sequence[str], depth: int) -> list[Retrieved]:
        """Like `retrieve`, with a report of what was cut."""


class TokenStore(Protocol):
    """Where token ids of passages lie ready, so that a query tokenizes only itself: an index."""

    @property
    def tokenizer(self) -> str:
        """Fingerprint of the tokenizer that made them, as `checkpoint.vocabulary.fingerprint` gives it."""

    def tokens(self, ids: Sequence[str]) -> Tokens:
        """Ids of the passages' scored texts, in the order of the passages, special tokens left out."""


Run = Mapping[str, Ranking]
Qrels = Mapping[str, Mapping[str, int]]
