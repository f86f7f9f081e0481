"""At most so many passages of one document among the places of an answer: which of a ranking stay. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from crossrank.types import Passage, Ranking, check_k

# Passages whose documents are asked for at once: a call of an index takes 2 ms, nearly whatever it gives.
_AT_ONCE = 100
# Documents that a note names.
_NAMED = 3


@dataclass(frozen=True, slots=True)
class PerDocument:
    """The `k` best passages, at most `most` of each document.

    Attributes:
        k: passages that stay, at most.
        most: of one document.

    >>> PerDocument(k=2, most=1).rows(["guide", "guide", "faq", "notes"])
    [0, 2]
    """

    k: int
    most: int

    def __post_init__(self) -> None:
        check_k(self.k)
        check_k(self.most, "per_document", "leave it out for any number")

    def rows(self, owners: Iterable[str]) -> list[int]:
        """Which passages stay, as rising positions; fewer than `k` where there are no more.

        Args:
            owners: the document of each passage, best first. No more of them are looked at than decide.
        """
        rows: list[int] = []
        count: Counter[str] = Counter()
        for row, owner in enumerate(owners):
            count[owner] += 1
            if count[owner] <= self.most:
                rows.append(row)
                if len(rows) == self.k:
                    break
        return rows


@dataclass(frozen=True, slots=True, eq=False)
class Grouped:
    """What of a ranking stays.

    Attributes:
        ranking: the passages that stay, in their order and with their scores.
        passages: theirs.
        left_out: by document, the most first, how many passages were passed over because it has enough: those above the
            last that stays, and all there are where fewer than `k` stay.
        notes: for people: what was left out, that fewer stay, or that no passage names its document.
    """

    ranking: Ranking
    passages: tuple[Passage, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def owner_of(passage: Passage) -> str:
    """The document of a passage; one that names none is a document itself.

    >>> owner_of(Passage("guide#2", "Tea is hot.", document="guide")), owner_of(Passage("7", "Bread needs yeast."))
    ('guide', '7')
    """
    return passage.document or passage.id


def grouped(ranking: Ranking, limit: PerDocument, texts: Callable[[Sequence[str]], Sequence[Passage]]) -> Grouped:
    """The best passages of a ranking, at most so many of each document.

    Args:
        ranking: all candidates, best first.
        limit: how many stay, and how many of one document.
        texts: the passages of ids, in their order; asked for no more of them than decide.

    >>> found = Ranking.sorted(["guide#2", "guide#1", "faq#1"], [3.0, 2.0, 1.0])
    >>> made = grouped(found, PerDocument(2, 1), lambda ids: [Passage(i, "", document=i[:-2]) for i in ids])
    >>> made.ranking.ids, made.notes
    (('guide#2', 'faq#1'), ('left out: 1 passage of documents that have 1 here: guide 1',))
    """
    looked: list[Passage] = []

    def owners() -> Iterator[str]:
        for start in range(0, len(ranking), _AT_ONCE):
            some = texts(ranking.ids[start : start + _AT_ONCE])
            looked.extend(some)
            yield from map(owner_of, some)

    rows = limit.rows(owners())
    # Of a document that has enough, nothing below the last place was in the way.
    end = rows[-1] + 1 if len(rows) == limit.k else len(looked)
    stays = set(rows)
    left = Counter(owner_of(looked[row]) for row in range(end) if row not in stays)
    left_out = dict(left.most_common())
    return Grouped(
        ranking.take(rows),
        tuple(looked[row] for row in rows),
        left_out,
        _notes(left_out, len(rows), limit, any(passage.document for passage in looked)),
    )


def _notes(left_out: Mapping[str, int], stay: int, limit: PerDocument, named: bool) -> tuple[str, ...]:
    notes: list[str] = []
    if left_out:
        count = sum(left_out.values())
        names = [f"{' '.join(name.split())[:100]} {left}" for name, left in list(left_out.items())[:_NAMED]]
        more = f" and {len(left_out) - _NAMED:,} more" if len(left_out) > _NAMED else ""
        told = f"{count:,} passage{'s' if count > 1 else ''} of documents that have {limit.most:,} here"
        notes.append(f"left out: {told}: {', '.join(names)}{more}")
        if stay < limit.k:
            short = f"what was found holds no more documents, so there are {stay:,} of {limit.k:,}"
            notes.append(f"{short}: a larger depth may find more")
    if stay and not named:
        notes.append("no passage names its document, so each counts as one")
    return tuple(notes)
