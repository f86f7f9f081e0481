"""What each plot of a report shows, in words, for those who do not see it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from crossrank.evaluation.comparison import Comparison, Standing
from crossrank.evaluation.frontier import Frontier
from crossrank.evaluation.reliability import Reliability
from crossrank.evaluation.verdict import LEVEL, signed


def differences(comparison: Comparison) -> str:
    """Of `plots.differences`."""
    main = comparison.main
    each = (
        f"{standing.system.name} {signed(standing.contrasts[main].difference)}, {_kind(standing, main)}"
        for standing in comparison.standings
        if standing.contrasts
    )
    return _listed(f"{main}, difference to {comparison.baseline} with 95 % interval", each)


def per_query(comparison: Comparison, shown: Iterable[Standing]) -> str:
    """Of `plots.per_query`."""
    main, base = comparison.main, comparison.of(comparison.baseline)

    def ends(standing: Standing) -> str:
        moved = [standing.values[main][query] - value for query, value in base.values[main].items()]
        return f"from {max(moved):+.3f} to {min(moved):+.3f}"

    each = (
        f"{standing.system.name}: {len(contrast.better)} better, {len(contrast.worse)} worse, {contrast.same} the "
        f"same, {ends(standing)}"
        for standing in shown
        for contrast in (standing.contrasts[main],)
    )
    return _listed(f"{main}, difference of each query to {comparison.baseline}", each)


def latency(comparison: Comparison) -> str:
    """Of `plots.latency`."""
    each = (
        f"{standing.system.name} {standing.whole.median * 1e3:.1f} ({standing.whole.p95 * 1e3:.1f})"
        for standing in comparison.standings
        if standing.whole is not None
    )
    return _listed("milliseconds a query, median (and 95th percentile)", each)


def calibration(found: Sequence[Reliability]) -> str:
    """Of `plots.calibration`."""
    return _listed("predicted against observed relevance", (f"{one.model}: {_off(one)}" for one in found))


def frontier(found: Frontier) -> str:
    """Of `plots.frontier`."""
    best = sorted((point for point in found.points if point.pareto), key=lambda point: point.latency.median)
    each = (f"{point.name} {point.quality.mean:.3f} in {point.latency.median * 1e3:.1f} ms" for point in best)
    base = f"{found.base.name} alone {found.base.quality.mean:.3f}"
    return _listed(f"{found.measure} against latency of {len(found.points)} configurations; {base}; Pareto set", each)


def _kind(standing: Standing, measure: str) -> str:
    contrast = standing.contrasts[measure]
    if contrast.corrected >= LEVEL:
        return "cannot be told"
    return "better" if contrast.difference.mean > 0 else "worse"


def _off(found: Reliability) -> str:
    """Which way a model errs: by the pairs of all bins together."""
    pairs = sum(one.pairs for one in found.bins)
    over = sum(one.pairs * (one.predicted - one.observed) for one in found.bins) / pairs
    way = "too high" if over > 0 else "too low"
    return f"expected calibration error {found.error:.3f}, probabilities on the whole {abs(over):.3f} {way}"


def _listed(what: str, each: Iterable[str]) -> str:
    return f"{what}: {'; '.join(each)}."
