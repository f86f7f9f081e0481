"""The systems that an evaluation compares: each first stage, their fusion, each cascade stage alone and mixed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from crossrank.cascade import Trace
from crossrank.evaluation.candidates import Candidates, Reading
from crossrank.evaluation.folding import folded
from crossrank.scorers import PairScorer, share_of
from crossrank.types import Ranking, Run, Scorer

Kind = Literal["first", "alone", "mix", "run"]


@dataclass(frozen=True, slots=True)
class Cuts:
    """How much of what a system read did not fit into one sequence.

    Attributes:
        pairs: (query, passage) pairs that were read.
        windowed: passages that were read whole, in several windows.
        lost: passages of which some part was not read.
        queries: queries of which some part was not read.
        known: whether the scorer tells what it cut; a model behind an address does not.
    """

    pairs: int = 0
    windowed: int = 0
    lost: int = 0
    queries: int = 0
    known: bool = True

    @classmethod
    def of(cls, traces: Iterable[Trace], known: bool = True) -> Cuts:
        """Counted over the traces of one step, one for each query."""
        pairs = windowed = lost = queries = 0
        for trace in traces:
            pairs += len(trace.scores)
            queries += any(cut.position < 0 and cut.lost for cut in trace.truncations)
            passages = [cut for cut in trace.truncations if cut.position >= 0]
            lost += sum(cut.lost for cut in passages)
            windowed += sum(not cut.lost for cut in passages)
        return cls(pairs, windowed, lost, queries, known)


@dataclass(frozen=True, slots=True, eq=False)
class System:
    """One way to rank, over all judged queries.

    Attributes:
        name: unique in its evaluation.
        kind: "first" (a retriever or the fusion), "alone" (a cross-encoder's own order), "mix" (its score mixed with
            the order before, as the product does), "run" (from a file).
        run: rankings of judged ids, by query.
        model: the cross-encoder, where there is one.
        weight: its share in the order; 0 where there is none.
        step: seconds of the step itself, by query; empty when not measured.
        whole: seconds of the query up to and with this step, likewise.
        candidates: what the step read, in judged ids; empty for a first stage.
        before: the ranking that these are the top of, whose rest stays behind them; likewise.
        shown: the passage that stood for each judged id, by query; an id without one stands for itself.
        cuts: what was not read in one piece.
        notes: what the step could not do as it should.
    """

    name: str
    kind: Kind
    run: Run
    model: str = ""
    weight: float = 0.0
    step: Mapping[str, float] = field(default_factory=dict)
    whole: Mapping[str, float] = field(default_factory=dict)
    candidates: Run = field(default_factory=dict)
    before: Run = field(default_factory=dict)
    shown: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    cuts: Cuts = Cuts()
    notes: tuple[str, ...] = ()

    @property
    def reranked(self) -> bool:
        """Has a scorer made this order, alone or mixed with the one before?"""
        return self.kind in ("alone", "mix")


@dataclass(frozen=True, slots=True)
class Owners:
    """Which judged id each passage stands for; empty when passages themselves are judged, or are whole documents."""

    of: Mapping[str, str] = field(default_factory=dict)

    def fold(self, run: Run) -> dict[str, Ranking]:
        """Rankings of passages as rankings of judged ids."""
        return {query: folded(ranking, self.of) for query, ranking in run.items()} if self.of else dict(run)

    def shown(self, run: Run) -> dict[str, dict[str, str]]:
        """The best passage of each judged id, by query; empty when each stands for itself."""
        if not self.of:
            return {}
        # Later entries win, so the list is read from its end.
        return {query: {self.of.get(id_, id_): id_ for id_ in reversed(ranking.ids)} for query, ranking in run.items()}


def first_stages(candidates: Candidates, owners: Owners, names: Mapping[str, str]) -> list[System]:
    """A system for every step before the cross-encoders.

    Args:
        candidates: what was found.
        owners: see `Owners`.
        names: what tables call the steps, by the names of their traces; a step that is not there keeps its own.
    """
    made = []
    steps = [trace.name for trace in next(iter(candidates.traces.values()), ())]
    for place, step in enumerate(steps):
        traces = {query: listed[place] for query, listed in candidates.traces.items()}
        run = {query: trace.ranking for query, trace in traces.items()}
        timed = {query: trace.seconds for query, trace in traces.items()} if candidates.timed else {}
        last = place == len(steps) - 1
        made.append(
            System(
                names.get(step, step),
                "first" if candidates.timed else "run",
                owners.fold(run),
                step=timed,
                # A retriever works alone; the fusion has to wait for all of them.
                whole=candidates.seconds if last and timed else timed,
                shown=owners.shown(run),
                cuts=Cuts.of(traces.values()),
            )
        )
    return made


def with_own(shares: Sequence[float], scorers: Iterable[Scorer]) -> list[float]:
    """These shares, the last of them that of other models, and those that tuned models bring to a search.

    >>> with_own([1.0, 0.4], [])
    [1.0, 0.4]
    """
    return list(dict.fromkeys([*shares, *(share_of(scorer, None, shares[-1]) for scorer in scorers)]))


def named(model: str, weight: float) -> str:
    """What tables call a cross-encoder whose share in the order is `weight`.

    >>> named("small", 1.0), named("small", 0.1)
    ('small', 'small (mix 0.1)')
    """
    return model if weight == 1.0 else f"{model} (mix {weight:g})"


def reranked(candidates: Candidates, reading: Reading, owners: Owners, weights: Sequence[float]) -> list[System]:
    """A system for each weight of one cross-encoder: 1 is its own order, less is a mix."""
    before = candidates.run
    step = {query: trace.seconds for query, trace in reading.traces.items()}
    whole = {query: candidates.seconds[query] + seconds for query, seconds in step.items()}
    read = owners.fold({query: before[query].cut(reading.depth) for query in reading.traces})
    kept = owners.fold({query: before[query] for query in reading.traces})
    said = Counter(trace.note for trace in reading.traces.values() if trace.note)
    every = len(reading.traces)
    notes = tuple(
        note if n == every else f"{note} (for {n:,} of {every:,} queries)" for note, n in sorted(said.items())
    )
    made = []
    for weight in weights:
        run = {query: reading.reranked(query, before[query], reading.depth, weight) for query in reading.traces}
        made.append(
            System(
                named(reading.model, weight),
                "alone" if weight == 1.0 else "mix",
                owners.fold(run),
                reading.model,
                weight,
                step,
                whole,
                read,
                kept,
                owners.shown(run),
                Cuts.of(reading.traces.values(), isinstance(reading.scorer, PairScorer)),
                notes,
            )
        )
    return made
