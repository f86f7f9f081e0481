"""Quality against latency: every model, depth, mix and two-stage cascade on the same judged queries. Needs `eval`.

Each (model, query, candidate) is scored once, at the greatest depth; all rankings follow from these scores. Times are
not derived: a sample of queries is run through every configuration for real, the configurations taking turns.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from crossrank.cascade import Stage, rerank
from crossrank.errors import InputError
from crossrank.evaluation.bootstrap import FEW_CHANGED, Interval, difference, mean
from crossrank.evaluation.candidates import Candidates, Progress, Reading
from crossrank.evaluation.comparison import Latency
from crossrank.evaluation.measures import per_query
from crossrank.evaluation.outcome import interval_fields, latency_fields
from crossrank.evaluation.systems import Owners, System
from crossrank.pipeline import Pipeline
from crossrank.scorers import PairScorer
from crossrank.types import Qrels, Ranking

# Milliseconds for which reports say what fits: those that people ask about.
BUDGETS = (30, 50, 100, 200, 500)


@dataclass(frozen=True, slots=True)
class Step:
    """One stage of a configuration, as `Stage` without its scorer."""

    model: str
    depth: int
    weight: float


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """One configuration.

    Attributes:
        name: for people.
        family: configurations that differ in depth only.
        steps: its stages; none for a first stage alone.
        values: of the measure, by query.
        quality: their mean with its interval.
        change: difference to the baseline, paired; None for the baseline itself.
        latency: of the whole query, or without the first stage where that is a run from a file.
        pareto: whether no other configuration is at least as good and at least as fast, and better in one of the two.
        gain: of a Pareto point, the difference to the next cheaper one, paired; else None.
    """

    name: str
    family: str
    steps: tuple[Step, ...]
    values: Mapping[str, float]
    quality: Interval
    change: Interval | None
    latency: Latency
    pareto: bool = False
    gain: Interval | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Frontier:
    """All configurations.

    Attributes:
        measure: an ir-measures name.
        base: the first stage that is reranked.
        points: in the order of their median latency.
        queries: judged queries that quality is measured on.
        timed: queries that every configuration was timed on.
        whole: whether times hold the first stage.
        seed: of the bootstrap.
    """

    measure: str
    base: Point
    points: tuple[Point, ...]
    queries: int
    timed: int
    whole: bool
    seed: int = 0

    @property
    def best(self) -> Point:
        """The highest mean; the faster of equal ones."""
        return max(self.points, key=lambda point: (point.quality.mean, -point.latency.median))

    @property
    def cheapest(self) -> Point:
        """The fastest configuration whose difference to the best cannot be told from 0."""
        best = self.best
        return next(p for p in self.points if p is best or not self._told_from_best(p))

    def _told_from_best(self, point: Point) -> bool:
        return difference(self.best.values, point.values, seed=self.seed).excludes_zero

    def within(self, ms: float) -> Point | None:
        """The best whose 95th percentile is within so many milliseconds, the faster of equal ones; None for none.

        The percentile is that of the timed queries, interpolated: of ten it lies between the two slowest, so what it
        says of 95 of 100 others is an estimate. `timed` says of how many it is.
        """
        fit = [point for point in self.points if point.latency.p95 * 1e3 <= ms]
        return max(fit, key=lambda point: (point.quality.mean, -point.latency.median), default=None)

    def headline(self) -> str:
        """What to take away, in a sentence or two."""
        best, cheap = self.best, self.cheapest
        if best is cheap:
            said = f"{_told(best, self.measure)}, is the best, and every faster one is worse"
            return f"{said} on {'this query' if self.queries == 1 else f'these {self.queries} queries'}."
        if cheap is self.base:
            return (
                f"{self.base.name} alone, {_figures(cheap, self.measure)}, cannot be told from the best with "
                f"{_counted(self.queries)}: {_told(best, self.measure)}."
            )
        return (
            f"{_told(cheap, self.measure)}, is the cheapest that cannot be told from the best with "
            f"{_counted(self.queries)}: {_told(best, self.measure)}."
        )

    def foot(self) -> str:
        """How the figures of a frontier were made."""
        held = "whole queries" if self.whole else "the stages alone, without the first stage, which is a file"
        also = "; BM25 and dense search alone were timed on all" if self.whole else ""
        return (
            f"Means over {_counted(self.queries)} with 95 % bootstrap intervals (Student's for differences that rest "
            f"on under {FEW_CHANGED} queries), not corrected for the number of configurations: the best of "
            f"{len(self.points)} was picked on these very queries. Times are measured, {held}: {_counted(self.timed)} "
            f"through every configuration, which took turns{also}; a 95th percentile of so many is an estimate."
        )


def configurations(
    models: Sequence[str], depths: Sequence[int], weights: Sequence[float], cascades: Sequence[tuple[str, str]] = ()
) -> list[tuple[Step, ...]]:
    """Every model at every depth and weight, then each cascade (coarse, fine) at every pair of falling depths.

    The coarse stage of a cascade chooses by the smallest weight, the product's mix where that is among them, and the
    fine one is tried with every weight.

    >>> len(configurations(["a"], [10, 20], [0.1, 1.0])), len(configurations(["a", "b"], [10, 20], [1.0], [("a", "b")]))
    (4, 5)
    """
    made: list[tuple[Step, ...]] = []
    for model in models:
        made += [(Step(model, depth, weight),) for weight in weights for depth in sorted(depths)]
    for coarse, fine in cascades:
        if unknown := {coarse, fine} - set(models):
            raise InputError(f"the cascade {coarse}>{fine} names {sorted(unknown)[0]!r}, which --models does not")
        for weight in weights:
            pairs = ((wide, near) for wide in sorted(depths) for near in sorted(depths) if near < wide)
            made += [(Step(coarse, wide, min(weights)), Step(fine, near, weight)) for wide, near in pairs]
    return made


def sweep(
    candidates: Candidates,
    readings: Mapping[str, Reading],
    plans: Sequence[tuple[Step, ...]],
    first: Sequence[System],
    qrels: Qrels,
    owners: Owners,
    times: Mapping[tuple[Step, ...], Sequence[float]],
    measure: str = "nDCG@10",
    seed: int = 0,
) -> Frontier:
    """The quality of every plan, beside times that `timings` measured.

    Args:
        candidates: what is reranked.
        readings: by model, at the greatest depth of the plans.
        plans: of `configurations`.
        first: first stages alone, the last being the one that is reranked; those that were not timed are left out.
        qrels: grades by query and judged id.
        owners: judged ids of passages.
        times: seconds by plan; the empty plan is the first stage that is reranked.
        measure: an ir-measures name.
        seed: of the bootstrap.

    Raises:
        InputError: an unknown measure.
    """

    def values(run: Mapping[str, Ranking]) -> dict[str, float]:
        return per_query(qrels, run, [measure])[measure]

    base_values = values(first[-1].run)
    points = []
    for system in first:
        seconds = times[()] if system is first[-1] else list(system.whole.values())
        if (latency := Latency.of(list(seconds))) is not None:
            points.append(_point(system.name, "first stage", (), values(system.run), base_values, latency, seed))
    base = points[-1]
    before = candidates.run
    for plan in plans:
        run = {query: replayed(query, before[query], plan, readings) for query in before if len(before[query])}
        latency = Latency.of(list(times[_untold(plan)]))
        assert latency is not None
        found = values(owners.fold(run))
        points.append(_point(name_of(plan), _family(plan), plan, found, base_values, latency, seed))
    base = replace(base, change=None)
    listed = [base if point.name == base.name and not point.steps else point for point in points]
    ordered = marked(sorted(listed, key=lambda point: point.latency.median), seed)
    base = next(point for point in ordered if not point.steps and point.change is None)
    return Frontier(measure, base, tuple(ordered), len(base_values), base.latency.queries, candidates.timed, seed)


def replayed(query: str, ranking: Ranking, plan: Sequence[Step], readings: Mapping[str, Reading]) -> Ranking:
    """The ranking that a plan gives, from scores that are known."""
    for step in plan:
        ranking = readings[step.model].reranked(query, ranking, step.depth, step.weight)
    return ranking


def timings(
    candidates: Candidates,
    pipeline: Pipeline | None,
    scorers: Mapping[str, PairScorer],
    plans: Sequence[tuple[Step, ...]],
    most: int,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[tuple[Step, ...], list[float]]:
    """Seconds of `most` queries, drawn at random, through every plan; without a pipeline, of the stages alone.

    Plans that differ only in the weight of their last stage read the same passages, so they are timed once. Every query
    goes through the plans in another order: none profits from coming after a certain other.
    """
    asked = [query for query, ranking in candidates.run.items() if len(ranking)]
    if not asked:
        raise InputError("no query has any candidate, so there is nothing to time")
    random = np.random.default_rng(seed)
    drawn = [asked[place] for place in sorted(random.permutation(len(asked))[:most])]
    todo: list[tuple[Step, ...]] = list(dict.fromkeys([(), *map(_untold, plans)]))
    found: dict[tuple[Step, ...], list[float]] = {plan: [] for plan in todo}
    for number, query in enumerate(drawn, start=1):
        for place in random.permutation(len(todo)):
            plan = todo[place]
            stages = tuple(Stage(scorers[step.model], step.depth, step.weight, step.model) for step in plan)
            found[plan].append(_seconds(candidates, pipeline, query, stages))
        if progress:
            progress("timing", number, len(drawn))
    return found


def _seconds(candidates: Candidates, pipeline: Pipeline | None, query: str, stages: tuple[Stage, ...]) -> float:
    text = candidates.queries[query]
    if pipeline is not None:
        return replace(pipeline, stages=stages).search(text).seconds
    ranking = candidates.run[query]
    began = time.perf_counter()
    rerank(text, ranking, stages, candidates.texts, candidates.store)
    return time.perf_counter() - began


def _untold(plan: tuple[Step, ...]) -> tuple[Step, ...]:
    """What the plan reads, whatever its last weight."""
    return (*plan[:-1], replace(plan[-1], weight=1.0)) if plan else ()


def marked(points: Sequence[Point], seed: int = 0) -> list[Point]:
    """The same points with the Pareto set marked and its gains measured.

    Args:
        points: in the order of their median latency.
        seed: of the bootstrap.
    """
    made: list[Point] = []
    last: Point | None = None
    # Of points equally fast the best counts, so it is met first.
    order = sorted(range(len(points)), key=lambda i: (points[i].latency.median, -points[i].quality.mean))
    best = {}
    for i in order:
        if last is None or points[i].quality.mean > last.quality.mean:
            gain = None if last is None else difference(points[i].values, last.values, seed=seed)
            best[i] = last = replace(points[i], pareto=True, gain=gain)
    for i, point in enumerate(points):
        made.append(best.get(i, point))
    return made


def name_of(plan: Sequence[Step]) -> str:
    """What tables call a plan: `small 50 (mix 0.1)`; `tiny 100 > small 20`."""
    return " > ".join(f"{step.model} {step.depth}{_mix(step)}" for step in plan)


def _family(plan: Sequence[Step]) -> str:
    return " > ".join(f"{step.model}{_mix(step)}" for step in plan)


def _mix(step: Step) -> str:
    return "" if step.weight == 1.0 else f" (mix {step.weight:g})"


def _point(
    name: str,
    family: str,
    steps: tuple[Step, ...],
    values: Mapping[str, float],
    base: Mapping[str, float],
    latency: Latency,
    seed: int,
) -> Point:
    change = difference(values, base, seed=seed)
    return Point(name, family, steps, values, mean(list(values.values()), seed=seed), change, latency)


def _counted(queries: int) -> str:
    return "1 query" if queries == 1 else f"{queries} queries"


def _told(point: Point, measure: str) -> str:
    return f"{point.name}, {_figures(point, measure)}"


def _figures(point: Point, measure: str) -> str:
    return f"{measure} {point.quality.mean:.3f} in {point.latency.median * 1e3:.0f} ms"


def record(found: Frontier, about: Mapping[str, Any], notes: Sequence[str] = ()) -> dict[str, Any]:
    """The frontier as one JSON object."""
    return {
        "about": dict(about),
        "headline": found.headline(),
        "measure": found.measure,
        "queries": found.queries,
        "timed_queries": found.timed,
        "times_hold_the_first_stage": found.whole,
        "baseline": found.base.name,
        "best": found.best.name,
        "cheapest_not_told_from_best": found.cheapest.name,
        "within_ms": {str(ms): best.name if (best := found.within(ms)) else None for ms in BUDGETS},
        "configurations": list(_records(found)),
        "notes": list(notes),
    }


def _records(found: Frontier) -> Iterator[dict[str, Any]]:
    for point in found.points:
        yield {
            "name": point.name,
            "stages": [asdict(step) for step in point.steps],
            "quality": interval_fields(point.quality),
            "difference": None if point.change is None else interval_fields(point.change),
            "latency_ms": latency_fields(point.latency),
            "pareto": point.pareto,
            "gain_over_cheaper": None if point.gain is None else interval_fields(point.gain),
        }
