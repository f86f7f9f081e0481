"""Judgments name documents, an index ranks passages: which is which, and where a document stands.

A document that was split is found as several passages. It stands where its best passage stands, so that it counts once.
Measuring passage ids against judged document ids instead would find nothing, or only the documents that were not split,
and would look like a bad search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from crossrank.errors import InputError
from crossrank.types import Passage, Qrels, Ranking

NONE_RELEVANT = "no document is judged relevant (a grade over 0), so nothing can be measured"
# Two relevant documents of three missing: hardly an index that lags behind, rather another corpus or other ids.
_HARDLY = 1 / 3


def documents_of(ranking: Ranking, passages: Sequence[Passage]) -> Ranking:
    """The documents of ranked passages, each at the place and with the score of its best passage.

    Args:
        ranking: of passages, best first.
        passages: those of the ranking, in its order.

    >>> ranking = Ranking.sorted(["a#2", "b#1", "a#1"], [3.0, 2.0, 1.0])
    >>> documents_of(ranking, [Passage(i, "", document=i[0]) for i in ranking.ids]).ids
    ('a', 'b')
    """
    return folded(ranking, {passage.id: passage.document for passage in passages})


def folded(ranking: Ranking, owners: Mapping[str, str]) -> Ranking:
    """As `documents_of`, with the document of each passage id; an id without one stands for itself.

    >>> folded(Ranking.sorted(["a#2", "b", "a#1"], [3.0, 2.0, 1.0]), {"a#1": "a", "a#2": "a"}).ids
    ('a', 'b')
    """
    places: dict[str, int] = {}
    for place, id_ in enumerate(ranking.ids):
        places.setdefault(owners.get(id_, id_), place)
    kept = list(places.values())
    return Ranking(tuple(places), ranking.scores[kept], sum(place < ranking.head for place in kept))


@dataclass(frozen=True, slots=True)
class Identity:
    """What the judged ids are in a collection.

    Attributes:
        kind: "documents" or "passages".
        relevant: distinct ids with a grade over 0.
        found: how many of these the collection holds.
        documents: in the collection.
        passages: in the collection; more than documents where documents were split.
    """

    kind: Literal["documents", "passages"]
    relevant: int
    found: int
    documents: int
    passages: int

    @classmethod
    def of(cls, qrels: Qrels, documents: Sequence[str], passages: Sequence[str]) -> Identity:
        """Tell document ids from passage ids by counting which of the two the relevant ids are; documents when equal.

        Raises:
            InputError: none of the relevant ids is either, or nothing was judged relevant.

        >>> Identity.of({"q": {"a": 1}}, ["a", "b"], ["a#1", "a#2", "b"]).kind
        'documents'
        >>> Identity.of({"q": {"a#2": 1}}, ["a", "b"], ["a#1", "a#2", "b"]).kind
        'passages'
        """
        relevant = {id_ for grades in qrels.values() for id_, grade in grades.items() if grade > 0}
        if not relevant:
            raise InputError(NONE_RELEVANT)
        whole, parts = set(documents), set(passages)
        as_documents, as_passages = len(relevant & whole), len(relevant & parts)
        if not as_documents and not as_passages:
            held = f"{sorted(whole)[0]!r}" if whole else "none, it is empty"
            raise InputError(
                f"none of the {len(relevant)} relevant ids is in the collection. The judgments call documents such as "
                f"{sorted(relevant)[0]!r}, the collection such as {held}. Use the judgments of this collection, or "
                "index the documents under the judged ids (the field _id or id of a .jsonl row)"
            )
        kind: Literal["documents", "passages"] = "documents" if as_documents >= as_passages else "passages"
        return cls(kind, len(relevant), max(as_documents, as_passages), len(whole), len(parts))

    @property
    def split(self) -> bool:
        """Whether documents are judged and some of them are several passages."""
        return self.kind == "documents" and self.passages > self.documents

    def notes(self) -> tuple[str, ...]:
        """What a reader of the figures has to know, in sentences."""
        said = []
        if self.split:
            said.append(
                f"Judgments are about documents. The {self.documents:,} documents are {self.passages:,} passages here; "
                "each document stands where its best passage stands."
            )
        elif self.kind == "passages" and self.passages > self.documents:
            said.append("Judgments are about passages: their ids are those of passages, and nothing was folded.")
        if missing := self.relevant - self.found:
            said.append(
                f"{missing:,} of {self.relevant:,} relevant documents are not in the collection, so no system can find "
                "them; they count as missed."
            )
        if self.found < _HARDLY * self.relevant:
            said.append("So few were found that these are probably the judgments of another collection, or other ids.")
        return tuple(said)
