"""Systems side by side: means with intervals, differences to the baseline, ceilings and times. Needs `eval`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import InputError
from crossrank.evaluation.bootstrap import Interval, difference, mean
from crossrank.evaluation.measures import per_query
from crossrank.evaluation.significance import holm, randomization
from crossrank.evaluation.systems import System
from crossrank.types import Qrels, Ranking, Run

# The main measure first. What the literature of reranking reports, and how much a first stage finds at all.
MEASURES = ("nDCG@10", "RR@10", "R@100")
# Values nearer than this are the same.
_SAME = 1e-9


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds a query.

    Attributes:
        median: half of the queries took less.
        p95: 95 of 100 took less, by linear interpolation.
        queries: how many were timed.
    """

    median: float
    p95: float
    queries: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency | None:
        """None when nothing was timed."""
        if not seconds:
            return None
        median, p95 = np.quantile(np.asarray(seconds), [0.5, 0.95])
        return cls(float(median), float(p95), len(seconds))


@dataclass(frozen=True, slots=True, eq=False)
class Contrast:
    """A system against the baseline, paired by query.

    Attributes:
        difference: mean and 95 % interval of system minus baseline, see `bootstrap.difference`.
        p: of the randomization test, two-sided.
        corrected: that p after Holm's correction for all systems compared on this measure.
        better: ids of the queries that gained, largest gain first.
        worse: ids of the queries that lost, largest loss first.
        same: how many did not change.
    """

    difference: Interval
    p: float
    corrected: float
    better: tuple[str, ...]
    worse: tuple[str, ...]
    same: int


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """How one system did.

    Attributes:
        system: what was measured.
        values: by measure and query.
        means: with 95 % intervals, by measure.
        contrasts: by measure; empty for the baseline itself.
        ceiling: what a perfect order of the candidates it reads would reach, by measure, with the rest of the ranking
            behind them as it was; empty for a first stage.
        recall: share of all relevant documents, over all queries together, that are among the candidates it reads; None
            for a first stage, or where no document is relevant.
        step: time of the step itself; None when not measured.
        whole: time of the query up to and with the step, likewise.
    """

    system: System
    values: Mapping[str, Mapping[str, float]]
    means: Mapping[str, Interval]
    contrasts: Mapping[str, Contrast]
    ceiling: Mapping[str, float]
    recall: float | None
    step: Latency | None
    whole: Latency | None


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """All systems on the same judged queries.

    Attributes:
        measures: ir-measures names; the first is the main one, which verdicts are about.
        baseline: name of the system that differences are taken to.
        standings: in the order of the systems.
        queries: how many judged queries.
    """

    measures: tuple[str, ...]
    baseline: str
    standings: tuple[Standing, ...]
    queries: int

    @property
    def main(self) -> str:
        """The measure that verdicts are about."""
        return self.measures[0]

    def of(self, name: str) -> Standing:
        """The standing of the system with this name."""
        return next(standing for standing in self.standings if standing.system.name == name)


def compare(
    qrels: Qrels, systems: Sequence[System], measures: Sequence[str] = MEASURES, baseline: str = "", seed: int = 0
) -> Comparison:
    """Measure all systems on all judged queries; a query that a system does not answer counts as 0.

    Args:
        qrels: grades by query and judged id.
        systems: with rankings of judged ids.
        measures: ir-measures names, the main one first.
        baseline: name of a system; the first when empty.
        seed: of the bootstrap and of the randomization test.

    Raises:
        InputError: no systems, two of one name, no such baseline, or an unknown measure.
    """
    names = [system.name for system in systems]
    if not names:
        raise InputError("there are no systems to compare")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"two systems are called {twice!r}; give each a name of its own")
    baseline = baseline or names[0]
    if baseline not in names:
        raise InputError(f"there is no system {baseline!r} to compare with; there are: {', '.join(names)}")
    measures = tuple(dict.fromkeys(measures))
    if not measures:
        raise InputError("name at least one measure, such as nDCG@10")
    values = {system.name: per_query(qrels, system.run, measures) for system in systems}
    contrasts = {m: _contrasts({name: values[name][m] for name in names}, baseline, seed) for m in measures}
    standings = []
    for system in systems:
        own = values[system.name]
        standings.append(
            Standing(
                system,
                own,
                {m: mean(list(own[m].values()), seed=seed) for m in measures},
                {m: contrasts[m][system.name] for m in measures if system.name != baseline},
                _ceiling(qrels, system, measures) if system.candidates else {},
                _recall(qrels, system.candidates) if system.candidates else None,
                Latency.of(list(system.step.values())),
                Latency.of(list(system.whole.values())),
            )
        )
    return Comparison(measures, baseline, tuple(standings), len(qrels))


def _contrasts(values: Mapping[str, Mapping[str, float]], baseline: str, seed: int) -> dict[str, Contrast]:
    base = values[baseline]
    others = {name: found for name, found in values.items() if name != baseline}
    p = {name: randomization(found, base, seed=seed) for name, found in others.items()}
    corrected = holm(p)
    made = {}
    for name, found in others.items():
        moved = {query: found[query] - base[query] for query in base}
        better = sorted((q for q in moved if moved[q] > _SAME), key=lambda q: -moved[q])
        worse = sorted((q for q in moved if moved[q] < -_SAME), key=lambda q: moved[q])
        same = len(moved) - len(better) - len(worse)
        between = difference(found, base, seed=seed)
        made[name] = Contrast(between, p[name], corrected[name], tuple(better), tuple(worse), same)
    return made


def ideal(qrels: Qrels, run: Run) -> dict[str, Ranking]:
    """The same documents in the order of their grades, unjudged ones as grade 0: no reranker of them can do better.

    >>> run = {"q": Ranking.sorted(["a", "b"], np.array([2.0, 1.0]))}
    >>> ideal({"q": {"b": 2}}, run)["q"].ids
    ('b', 'a')
    """
    return {
        query: Ranking.sorted(ranking.ids, _grades(qrels[query], ranking.ids))
        for query, ranking in run.items()
        if query in qrels
    }


def _grades(grades: Mapping[str, int], ids: Sequence[str]) -> NDArray[np.float32]:
    return np.array([max(0, grades.get(id_, 0)) for id_ in ids], dtype=np.float32)


def _ceiling(qrels: Qrels, system: System, measures: Sequence[str]) -> dict[str, float]:
    best = ideal(qrels, system.candidates)
    best = {query: head.over(system.before[query]) if query in system.before else head for query, head in best.items()}
    found = per_query(qrels, best, measures)
    return {measure: float(np.mean(list(values.values()))) for measure, values in found.items()}


def _recall(qrels: Qrels, candidates: Run) -> float | None:
    wanted = {(query, id_) for query, grades in qrels.items() for id_, grade in grades.items() if grade > 0}
    read = {(query, id_) for query, ranking in candidates.items() for id_ in ranking.ids}
    return len(wanted & read) / len(wanted) if wanted else None
