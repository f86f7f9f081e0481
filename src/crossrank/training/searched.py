"""What a search's first stage finds for a query that was judged: passages, their scores, and whose passages they are.

People judge documents, and an index cuts these into passages under titles of its own. A model reads passages there, so
it is tuned and measured on passages, as far as the search finds any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, overload

import numpy as np
from numpy.typing import NDArray

from crossrank.fusion import zscore
from crossrank.training.judgments import Group, document_key
from crossrank.types import Passage, Ranking

# Characters that two texts must share for one to be a part of the other: less, as in "see above", stands anywhere.
LEAST_SHARED = 32
# Passages that one judged document is shown as, at most: the first that the search finds.
MOST_PASSAGES = 4


class Found(Protocol):
    """What one query found: `crossrank.Answer`."""

    @property
    def passages(self) -> Sequence[Passage]:
        """Best first."""
        ...

    @property
    def ranking(self) -> Ranking:
        """Their scores."""
        ...


class Search(Protocol):
    """A whole search: `crossrank.Pipeline`."""

    def search(self, query: str, k: int = 10) -> Found:
        """The `k` best passages."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Searched(Sequence[Passage]):
    """What the first stage of a search found for one query: a sequence of its passages, best first.

    Attributes:
        passages: the same.
        first: their scores, standardized over all of them as a search does before it mixes, shape (n,), float32.
    """

    passages: tuple[Passage, ...]
    first: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.passages)

    @overload
    def __getitem__(self, at: int) -> Passage: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Passage, ...]: ...
    def __getitem__(self, at: int | slice) -> Passage | tuple[Passage, ...]:
        return self.passages[at]

    @classmethod
    def of(cls, answer: Found) -> Searched:
        """Those of an answer.

        >>> from types import SimpleNamespace
        >>> two = SimpleNamespace(passages=[Passage("a", "Tea."), Passage("b", "Rye.")],
        ...                       ranking=Ranking.sorted(["a", "b"], [3, 1]))
        >>> Searched.of(two).first.tolist()
        [1.0, -1.0]
        """
        return cls(tuple(answer.passages), zscore(np.asarray(answer.ranking.scores, np.float32)))


def searched_by(pipeline: Search) -> Callable[[Sequence[str], int], list[Searched]]:
    """The first stage of a user's own search as the place where hard negatives come from, and held-out queries' lists.

    Args:
        pipeline: one that retrieves and fuses, such as `open_pipeline(folder, rerank=False)`: the scores of a pipeline
            that reranks are not those that a cross-encoder's are mixed with.
    """

    def nearest(queries: Sequence[str], depth: int) -> list[Searched]:
        return [Searched.of(pipeline.search(query, depth)) for query in queries]

    return nearest


@dataclass(frozen=True, slots=True)
class Listed:
    """What is shown of a query's judged documents.

    Attributes:
        texts: documents, or passages of them.
        labels: those of their documents.
        owners: the number of each one's document in the group.
    """

    texts: tuple[str, ...]
    labels: tuple[float, ...]
    owners: tuple[int, ...]


def whole(group: Group) -> Listed:
    """Documents as they were judged."""
    return Listed(group.documents, group.labels, tuple(range(len(group))))


def as_found(group: Group, searched: Searched) -> Listed:
    """Each document as the passages that were found of it, as it was judged where none was.

    A passage belongs to the document that it equals, is a part of, or holds, with or without its title. Where these are
    several, to the one with the best label.

    >>> group = Group("tea?", ("Tea is hot. It is grown in Assam and Darjeeling. ", "Rye."), (1.0, 0.0))
    >>> found = Passage("1", "It is grown in Assam and Darjeeling.", title="Tea"), Passage("2", "Coffee.")
    >>> as_found(group, Searched(found, np.zeros(2, np.float32)))
    Listed(texts=('Tea. It is grown in Assam and Darjeeling.', 'Rye.'), labels=(1.0, 0.0), owners=(0, 1))
    """
    keys = [document_key(text) for text in group.documents]
    passages: list[dict[str, str]] = [{} for _ in keys]
    for one in searched:
        owner = _owner(keys_of(one), keys, group.labels)
        if owner is not None and len(passages[owner]) < MOST_PASSAGES:
            passages[owner].setdefault(document_key(one.scored_text), one.scored_text)
    shown = [
        (text, label, owner)
        for owner, (document, label) in enumerate(zip(group.documents, group.labels, strict=True))
        for text in (passages[owner].values() or (document,))
    ]
    texts, labels, owners = zip(*shown, strict=True)
    return Listed(texts, labels, owners)


def _owner(keys: set[str], documents: Sequence[str], labels: Sequence[float]) -> int | None:
    """The number of the document that a passage of these keys belongs to."""
    mine = [i for i, document in enumerate(documents) if document in keys]
    mine = mine or [i for i, document in enumerate(documents) if any(is_part(key, document) for key in keys)]
    return max(mine, key=lambda i: labels[i], default=None)


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """One judged query as a search answers it before a model reads: what that model will order.

    Attributes:
        query: its text.
        documents: what models read of each candidate, a passage, best first.
        first: standardized scores of the first stage, shape (n,), float32.
        owner: equal numbers for passages of one document, shape (n,).
        labels: of their documents, shape (n,), float64; the least label there is where nobody judged it.
        unfound: labels of judged documents of which nothing was found; no order brings them back.
    """

    query: str
    documents: tuple[str, ...]
    first: NDArray[np.float32]
    owner: NDArray[np.int64]
    labels: NDArray[np.float64]
    unfound: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.documents)

    def cut(self, depth: int) -> Answered:
        """The same with the first `depth` candidates."""
        if depth >= len(self):
            return self
        kept = set(self.owner[:depth].tolist())
        # The label of each document that only stands below.
        below = dict(zip(self.owner[depth:].tolist(), self.labels[depth:].tolist(), strict=True))
        lost = tuple(label for owner, label in below.items() if owner not in kept)
        return Answered(
            self.query,
            self.documents[:depth],
            self.first[:depth],
            self.owner[:depth],
            self.labels[:depth],
            (*self.unfound, *lost),
        )

    def mixed(self, scores: NDArray[np.float32], mix: float) -> NDArray[np.float32]:
        """What the search orders its candidates by when a model's scores have so large a share, shape (n,).

        See `crossrank.cascade.mixed`. Blank passages, which no model reads, have -inf.
        """
        if mix == 1.0:
            return scores
        return np.asarray(mix * zscore(scores) + (1.0 - mix) * self.first, np.float32)


def answered(group: Group, searched: Searched, low: float) -> Answered:
    """A query's candidates, judged as far as somebody judged the documents that they belong to.

    Args:
        group: what was judged.
        searched: the candidates.
        low: the label of the others.

    >>> group = Group("tea?", ("Tea is hot. It is grown in Assam and Darjeeling.", "Rye."), (1.0, 0.0))
    >>> found = [Passage("1", "Coffee.", document="c"), Passage("2", "It is grown in Assam and Darjeeling.")]
    >>> made = answered(group, Searched(tuple(found), np.float32([1, -1])), 0.0)
    >>> made.labels.tolist(), made.owner.tolist(), made.unfound
    ([0.0, 1.0], [2, 0], (0.0,))
    """
    keys = [document_key(text) for text in group.documents]
    owners = [_owner(keys_of(one), keys, group.labels) for one in searched]
    others: dict[str, int] = {}
    numbers = [
        others.setdefault(one.document or f"passage {one.id}", len(keys) + len(others)) if owner is None else owner
        for owner, one in zip(owners, searched, strict=True)
    ]
    labels = [low if owner is None else group.labels[owner] for owner in owners]
    unfound = tuple(label for i, label in enumerate(group.labels) if i not in owners)
    documents = tuple(one.scored_text for one in searched)
    return Answered(group.query, documents, searched.first, np.array(numbers, np.int64), np.array(labels), unfound)


def best_of(scores: NDArray[np.float32], owner: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which passages are the best of their documents, one each, shape (n,); the first of equals.

    >>> best_of(np.float32([1, 0, 2, 2]), np.array([0, 1, 0, 0])).tolist()
    [False, True, True, False]
    """
    order = np.lexsort((np.arange(len(owner)), -scores, owner))
    out = np.zeros(len(owner), np.bool_)
    out[order[np.diff(owner[order], prepend=-1) != 0]] = True
    return out


def text_of(found: str | Passage) -> str:
    """What models read of a text or passage."""
    return found if isinstance(found, str) else found.scored_text


def keys_of(found: str | Passage) -> set[str]:
    """`document_key` of a text; of a passage with and without its title."""
    return {document_key(text_of(found)), document_key(found if isinstance(found, str) else found.text)}


def is_part(one: str, other: str) -> bool:
    """Whether one is a part of the other, and long enough for that to mean something."""
    short, long = sorted((one, other), key=len)
    return len(short) >= LEAST_SHARED and short in long
