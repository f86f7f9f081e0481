"""What one query found: the ranking, its passages, and what every step did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from reprlib import Repr
from typing import overload

from crossrank.cascade import Trace
from crossrank.types import Passage, Ranking

_SHORT = Repr()
_SHORT.maxlist, _SHORT.maxstring = 5, 80


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What one query found; a sequence of its passages, best first.

    Attributes:
        query: as asked.
        ranking: the k best, best first; `ranking.head` of them were read by the last stage. Its scores are logits only
            after a stage of weight 1. Otherwise, as in the usual pipeline, they are a mix of standardized scores, whose
            0 is the mean of what the stage read: they compare within this answer, and with no other and no threshold.
            `Pipeline.relevance` gives probabilities, and `Trace.scores` of the stage's trace the logits themselves.
        passages: their texts, in the same order, as they were when the search began. What is made of an answer later (a
            context, evidence, probabilities) is made of these, so that it does not matter what has become of the index.
        traces: every step, in order: each retriever, "fused" when there are several, "plan" when a budget left a stage
            out, each stage.
        seconds: wall-clock time of the whole query.
        budget: seconds that it should take; None for no budget.
        thresholded: what a threshold left out, or why it could not be used, for people; empty where none was asked for
            or nothing was left out.
        nothing: why nothing was found, most often a mistake in the name of a filter's field; empty where something was
            found, or no reason stands out.
        left_out: by document, how many passages better than the last of these `per_document` left out; empty without.
        grouped: that for people, and whether fewer than k were left; empty where there is nothing to say.

    >>> found = Answer("tea?", Ranking.sorted(["a"], [1.5]), (Passage("a", "Tea is hot."),), (), 0.1, budget=0.2)
    >>> [passage.text for passage in found], found.late
    (['Tea is hot.'], False)
    >>> found[0].id, found
    ('a', Answer('tea?', ['a'], passages=1, steps=0, notes=0, seconds=0.1))
    """

    query: str
    ranking: Ranking
    passages: tuple[Passage, ...]
    traces: tuple[Trace, ...]
    seconds: float
    budget: float | None = None
    thresholded: tuple[str, ...] = ()
    nothing: str = ""
    left_out: Mapping[str, int] = field(default_factory=dict)
    grouped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.passages)

    def __iter__(self) -> Iterator[Passage]:
        return iter(self.passages)

    @overload
    def __getitem__(self, at: int) -> Passage: ...

    @overload
    def __getitem__(self, at: slice) -> tuple[Passage, ...]: ...

    def __getitem__(self, at: int | slice) -> Passage | tuple[Passage, ...]:
        return self.passages[at]

    def __repr__(self) -> str:
        told = {"passages": len(self), "steps": len(self.traces), "notes": len(self.notes)}
        counts = "".join(f"{name}={count}, " for name, count in told.items())
        ids = _SHORT.repr(list(self.ranking.ids))
        return f"Answer({_SHORT.repr(self.query)}, {ids}, {counts}seconds={self.seconds:.3g})"

    @property
    def notes(self) -> tuple[str, ...]:
        """What steps could not do as they should, for people, "name: what"; `query_cut`; what `per_document` and
        a threshold left out; `nothing`."""
        steps = (f"{trace.name}: {trace.note}" for trace in self.traces if trace.note)
        return (*steps, *self.query_cut, *self.grouped, *self.thresholded, *filter(None, [self.nothing]))

    @property
    def query_cut(self) -> tuple[str, ...]:
        """Which steps did not read the query to its end, for people."""
        cuts = ((trace.name, cut) for trace in self.traces for cut in trace.truncations if cut.position < 0)
        return tuple(f"the query was cut: {name} read its first {cut.told}" for name, cut in cuts if cut.lost)

    @property
    def failed(self) -> tuple[str, ...]:
        """Stages that failed, so that the order before them stands."""
        return tuple(trace.name for trace in self.traces if trace.stopped == "error")

    @property
    def late(self) -> bool:
        """Whether it took longer than its budget."""
        return self.budget is not None and self.seconds > self.budget
