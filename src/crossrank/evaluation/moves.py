"""The queries that a system changed most, with what it put first and what it lost: reading these teaches the most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crossrank.errors import InputError
from crossrank.evaluation.candidates import Texts
from crossrank.evaluation.comparison import Comparison, Standing
from crossrank.evaluation.systems import System
from crossrank.evidence import Scores, find
from crossrank.types import Passage, Qrels

# Documents that are shown of each side of a move.
_SHOWN = 3
_RANK = 10


@dataclass(frozen=True, slots=True)
class Placed:
    """A document in a move.

    Attributes:
        id: the judged id.
        title: empty where texts are not known.
        text: of the passage that stands for it, likewise.
        grade: None when it was not judged for this query.
        before: rank in the baseline, from 1; None when it is not there.
        after: rank in the system, likewise.
        evidence: where in the text the sentence begins and ends that the system's model scores highest; None where
            there is no such model or no text.
    """

    id: str
    title: str
    text: str
    grade: int | None
    before: int | None
    after: int | None
    evidence: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """A query that a system changed.

    Attributes:
        query: its id.
        text: empty where texts are not known.
        before: the main measure of the baseline.
        after: of the system.
        top: what the system puts first.
        relevant: other relevant documents that one of the two has in its first 10, in the baseline's order.
    """

    query: str
    text: str
    before: float
    after: float
    top: tuple[Placed, ...]
    relevant: tuple[Placed, ...]


@dataclass(frozen=True, slots=True)
class Moves:
    """Of one system against the baseline: the worst losses and the best gains, largest first."""

    system: str
    losses: tuple[Move, ...]
    gains: tuple[Move, ...]


def moves(
    comparison: Comparison,
    standing: Standing,
    queries: Mapping[str, str],
    qrels: Qrels,
    texts: Texts | None,
    most: int = 5,
    score: Scores | None = None,
) -> Moves:
    """The `most` worst losses and best gains of a system, on the main measure.

    Args:
        comparison: all systems.
        standing: the system; not the baseline.
        queries: text by id; may be empty.
        qrels: grades by query and judged id.
        texts: passages by id; None where none are known.
        most: of each kind.
        score: of the system's model, to mark the sentence of each passage that answers; see `crossrank.evidence`.
    """
    base, contrast = comparison.of(comparison.baseline), standing.contrasts[comparison.main]

    def move(query: str) -> Move:
        top, relevant = _sides(query, base.system, standing.system, qrels.get(query, {}))
        ids = list(dict.fromkeys([*top, *relevant]))
        shown = _passages(query, ids, standing.system, base.system, texts)
        marked = _marked(queries.get(query, ""), shown, score)
        placed = {
            id_: Placed(
                id_,
                shown[id_].title if id_ in shown else "",
                shown[id_].text if id_ in shown else "",
                qrels.get(query, {}).get(id_),
                _rank(base.system, query, id_),
                _rank(standing.system, query, id_),
                marked.get(id_),
            )
            for id_ in ids
        }
        return Move(
            query,
            queries.get(query, ""),
            base.values[comparison.main][query],
            standing.values[comparison.main][query],
            tuple(placed[id_] for id_ in top),
            tuple(placed[id_] for id_ in relevant),
        )

    return Moves(
        standing.system.name,
        tuple(move(query) for query in contrast.worse[:most]),
        tuple(move(query) for query in contrast.better[:most]),
    )


def _sides(query: str, base: System, system: System, grades: Mapping[str, int]) -> tuple[list[str], list[str]]:
    before, after = ([*other.run[query].ids] if query in other.run else [] for other in (base, system))
    top = after[:_SHOWN]
    near = dict.fromkeys([*before[:_RANK], *after[:_RANK]])
    return top, [id_ for id_ in near if grades.get(id_, 0) > 0 and id_ not in top][:_SHOWN]


def _rank(system: System, query: str, id_: str) -> int | None:
    ids = system.run[query].ids if query in system.run else ()
    return ids.index(id_) + 1 if id_ in ids else None


def _passages(query: str, ids: Sequence[str], system: System, base: System, texts: Texts | None) -> dict[str, Passage]:
    """By judged id, the passage that stands for it in the system, else in the baseline."""
    if texts is None or not ids:
        return {}
    standing = {**base.shown.get(query, {}), **system.shown.get(query, {})}
    found = {}
    for id_ in ids:
        try:
            (found[id_],) = texts([standing.get(id_, id_)])
        except (InputError, KeyError):
            # A run from elsewhere may rank what this collection does not hold.
            continue
    return found


def _marked(text: str, shown: Mapping[str, Passage], score: Scores | None) -> dict[str, tuple[int, int]]:
    """Where in each passage the sentence is that answers the query best."""
    if score is None or not text.strip():
        return {}
    found = zip(shown, find(text, list(shown.values()), score, drops=False), strict=True)
    return {id_: (one.start, one.stop) for id_, one in found if one is not None and one.sentences > 1}
