"""What else a query is shown besides its judged documents: hard negatives, easy ones, and none that is likely relevant.

Hard negatives alone make models worse (sentence-transformers issue 3085 lost a tenth), so a quarter is drawn at random.
Judged ones alone may, too, where they are of one list, such as sentences of one page: a model that had seen no others
ranked such lists better by 0.055 and a search's candidates worse by 0.058, and with four mined ones by 0.056 and 0.030
(LOG.md). So all queries get some.
A mined document may be relevant and unjudged: it is doubtful when the current model puts it above this query's best
relevant document and above the median of all relevant ones. Doubtful documents are measured with but never trained on:
leaving them out of the measurement would hide the base model's mistakes.

Short lists are easy, and hide what a model gained: with four judged documents a query and nine in all, models that gain
0.035 and 0.071 nDCG@10 on whole lists showed 0.001 (LOG.md). So more hard documents are mined than are trained on:
distractors.

Where a search finds them, judged documents are shown as its passages: `searched`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from crossrank.training.judgments import Group, document_key, query_key
from crossrank.training.searched import Answered, Listed, Searched, as_found, best_of, is_part, keys_of, text_of, whole
from crossrank.types import Passage, Scorer

# Texts or passages for each of the queries, best first, at most so many; `Searched` where a search was asked.
Nearest = Callable[[Sequence[str], int], Sequence[Sequence[str | Passage]]]

# Documents that are not relevant a query is shown, judged ones included, but half as many mined ones at least; a
# quarter of the mined ones are easy.
WANTED = 8
EASY_SHARE = 0.25
# Documents that are not relevant a held-out query is ranked with, where there is time for so many.
MEASURED = 30
# As many as the cross-encoder of a search reads.
DEPTH = 100


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """One query with everything it is shown, in an order that knows nothing of labels.

    Attributes:
        query: its text.
        documents: distinct texts, judged and mined, shuffled.
        labels: shape (n,), float64; mined documents have `low`, the least label there is.
        judged: whether somebody judged the document, or the one that it is a passage of, shape (n,).
        distractor: 1, 2, ... for documents that are measured with and not trained on, the hardest first; 0 for
            others, shape (n,).
        doubtful: mined, and likely relevant after all; or a passage of a relevant document that has a better one, shape
            (n,).
        base: raw scores of the base model, shape (n,), float32; empty until `scored`.
        owner: equal numbers for passages of one document, shape (n,); empty where each is a document of its own.
    """

    query: str
    documents: tuple[str, ...]
    labels: NDArray[np.float64]
    judged: NDArray[np.bool_]
    distractor: NDArray[np.int64]
    doubtful: NDArray[np.bool_]
    base: NDArray[np.float32]
    owner: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.documents)

    @property
    def trained(self) -> NDArray[np.int64]:
        """Positions of what may be trained on."""
        return np.flatnonzero(~self.doubtful & (self.distractor == 0))

    def best(self, scores: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which passages are the best of their documents by these scores, one each, shape (n,); the first of equals.

        >>> one = Shown("q", ("a", "b", "c"), *np.zeros((5, 3)), np.array([0, 1, 0]))
        >>> one.best(np.float32([1, 0, 2])).tolist()
        [False, True, True]
        """
        return best_of(scores, self.owner) if len(self.owner) else np.ones(len(self), np.bool_)

    def hardest(self, most: int) -> Shown:
        """The same with the `most` hardest distractors; to be asked before it is `scored`."""
        kept = np.flatnonzero(self.distractor <= most)
        return replace(
            self,
            documents=tuple(self.documents[i] for i in kept.tolist()),
            labels=self.labels[kept],
            judged=self.judged[kept],
            distractor=self.distractor[kept],
            doubtful=self.doubtful[kept],
            owner=self.owner[kept] if len(self.owner) else self.owner,
        )


def mine(
    groups: Sequence[Group],
    nearest: Nearest,
    pool: Sequence[str],
    limit: float,
    seed: int,
    wanted: int = WANTED,
    never: Mapping[str, Sequence[str]] | None = None,
    measured: int = 0,
) -> list[Shown]:
    """Add negatives to each group until it has `wanted` documents that are not relevant, and half as many at least.

    As far as there are any. Then distractors, hard ones all, until there are `measured` that are not relevant.

    An index cuts documents into passages under titles of its own, so what is equal to a relevant document, holds it or
    is a part of it, with or without its title, is not mined.

    Args:
        groups: judged documents by query.
        nearest: where hard negatives come from: an index or `words.Words.nearest`.
        pool: where easy negatives come from.
        limit: labels above it are relevant.
        seed: of the draw of easy ones and of the order.
        wanted: 0 mines nothing.
        never: documents by `query_key` that are not mined for that query, as if they were relevant.
        measured: 0 mines no distractors.

    >>> groups = [Group("q", ("right",), (1.0,))]
    >>> shown = mine(groups, lambda queries, depth: [["near", "right"]], ["far", "right"], 0.0, seed=0, wanted=2)
    >>> sorted(zip(shown[0].documents, shown[0].labels.tolist()))
    [('far', 0.0), ('near', 0.0), ('right', 1.0)]
    """
    others = [sum(label <= limit for label in group.labels) for group in groups]
    missing = [max(wanted // 2, wanted - count) for count in others]
    asked = [i for i, count in enumerate(others) if missing[i] or count < measured]
    found = dict(zip(asked, nearest([groups[i].query for i in asked], DEPTH), strict=True)) if asked else {}
    low = min((label for group in groups for label in group.labels), default=0.0)
    low = min(low, limit)
    made = []
    for i, group in enumerate(groups):
        rng = np.random.default_rng([seed, i])
        relevant = [text for text, label in zip(group.documents, group.labels, strict=True) if label > limit]
        spared = {document_key(text) for text in (*relevant, *(never or {}).get(query_key(group.query), ()))}
        seen = found.get(i, [])
        own = as_found(group, seen) if isinstance(seen, Searched) else whole(group)
        taken = {document_key(text) for text in (*group.documents, *own.texts)} | spared
        easy = round(missing[i] * EASY_SHARE) if missing[i] > 1 else 0
        hard = _fresh(seen, missing[i] - easy, taken, spared)
        drawn = [pool[j] for j in rng.permutation(len(pool))[: 4 * WANTED].tolist()] if missing[i] and pool else []
        mined = hard + _fresh(drawn, missing[i] - len(hard), taken, spared)
        distractors = _fresh(seen, measured - others[i] - len(mined), taken, spared)
        made.append(_shown(group.query, own, mined, distractors, low, rng))
    return made


def _fresh(found: Sequence[str | Passage], count: int, taken: set[str], spared: set[str]) -> list[str]:
    """The first `count` texts whose keys are not taken, which they are then, and that share none that is spared."""
    kept: list[str] = []
    for one in found:
        if len(kept) >= count:
            break
        key, keys = document_key(text_of(one)), keys_of(one)
        if key and not keys & taken and not any(is_part(ours, theirs) for ours in keys for theirs in spared):
            taken.add(key)
            kept.append(text_of(one))
    return kept


def _shown(
    query: str,
    own: Listed,
    mined: Sequence[str],
    distractors: Sequence[str],
    low: float,
    rng: np.random.Generator,
) -> Shown:
    texts = (*own.texts, *mined, *distractors)
    order = rng.permutation(len(texts))
    labels = np.array([*own.labels, *[low] * (len(texts) - len(own.texts))], dtype=np.float64)
    owners = np.array([*own.owners, *range(len(own.texts), len(texts))], dtype=np.int64)
    return Shown(
        query,
        tuple(texts[i] for i in order.tolist()),
        labels[order],
        order < len(own.texts),
        np.maximum(order - (len(texts) - len(distractors)) + 1, 0),
        np.zeros(len(texts), np.bool_),
        np.zeros(0, np.float32),
        owners[order],
    )


def score(shown: Sequence[Shown | Answered], scorer: Scorer) -> list[NDArray[np.float32]]:
    """Raw scores of all documents of all queries, one array a query."""
    if not shown:
        return []
    pairs = [(one.query, text) for one in shown for text in one.documents]
    flat = scorer.score(pairs)
    return [np.asarray(part, np.float32) for part in np.split(flat, np.cumsum([len(one) for one in shown])[:-1])]


def scored(shown: Sequence[Shown], base: Sequence[NDArray[np.float32]], limit: float) -> list[Shown]:
    """The same with the base model's scores, and doubtful documents marked.

    Which passage of a relevant document is relevant nobody said: the best one is taken to be, by the base model.
    """
    if not shown:
        return []
    relevant = np.concatenate([scores[one.labels > limit] for one, scores in zip(shown, base, strict=True)])
    usual = float(np.median(relevant)) if len(relevant) else np.inf
    made = []
    for one, scores in zip(shown, base, strict=True):
        best = scores[one.labels > limit].max(initial=-np.inf)
        likely = ~one.judged & (scores > max(usual, float(best)))
        made.append(replace(one, base=scores, doubtful=likely | ((one.labels > limit) & ~one.best(scores))))
    return made
