"""Plots of an evaluation as SVG text. Needs the extra `eval`; the only file that imports matplotlib.

Figures are made without pyplot, which keeps them in global state. Words stay words in the SVG, so that a page's own
typeface and search reach them.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Sequence

import numpy as np

from crossrank.evaluation.comparison import Comparison, Standing
from crossrank.evaluation.frontier import Frontier
from crossrank.evaluation.reliability import Reliability
from crossrank.evaluation.style import BETTER, INK, LINE, MODELS, PAPER, TRACE, UNCLEAR, WORSE
from crossrank.evaluation.verdict import LEVEL
from crossrank.extras import require

require("matplotlib", extra="eval")
import matplotlib  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

_WIDTH = 9.2
# Panels of `per_query`: thousands of queries and dozens of runs would make a page of many megabytes.
MOST_PANELS = 12


def differences(comparison: Comparison) -> str:
    """Each system's difference to the baseline on the main measure, with its interval."""
    shown = [standing for standing in comparison.standings if standing.contrasts]
    figure, axes = _figure(0.9 + 0.42 * len(shown))
    for row, standing in enumerate(shown):
        contrast = standing.contrasts[comparison.main]
        between, colour = contrast.difference, _colour(standing, comparison.main)
        axes.plot([between.low, between.high], [row, row], color=colour, linewidth=2.5, solid_capstyle="round")
        axes.plot([between.mean], [row], "o", color=colour, markersize=7)
    axes.axvline(0, color=INK, linewidth=0.8)
    _rows(axes, [standing.system.name for standing in shown])
    base = _short(comparison.baseline, 60)
    axes.set_xlabel(f"{_short(comparison.main, 30)}, difference to {base} (95 % interval)")
    return _svg(figure, "differences")


def per_query(comparison: Comparison, shown: Sequence[Standing]) -> str:
    """The difference of every query, largest gain to largest loss, a panel a system: of the first `MOST_PANELS`."""
    shown = shown[:MOST_PANELS]
    columns = min(2, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(_WIDTH, 0.5 + 2.2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    base = comparison.of(comparison.baseline).values[comparison.main]
    for axes, standing in zip(panels.flat, shown, strict=False):
        own = standing.values[comparison.main]
        moved = np.sort([own[query] - base[query] for query in base])[::-1]
        colours = [BETTER if value > 0 else WORSE for value in moved]
        axes.bar(np.arange(len(moved)), moved, width=1.0 if len(moved) > 60 else 0.8, color=colours)
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.set_title(_short(standing.system.name, 46), fontsize=10, loc="left")
        axes.set_xticks([])
        _plain(axes)
    for axes in panels.flat[len(shown) :]:
        axes.set_visible(False)
    figure.supylabel(f"{_short(comparison.main, 30)}, difference", fontsize=9)
    figure.supxlabel(f"{comparison.queries} queries, each panel in its own order", fontsize=9)
    return _svg(figure, "queries")


def latency(comparison: Comparison) -> str:
    """Median and 95th percentile of the whole query up to each system; empty when nothing was timed."""
    shown = [standing for standing in comparison.standings if standing.whole is not None]
    if not shown:
        return ""
    figure, axes = _figure(0.9 + 0.42 * len(shown))
    for row, standing in enumerate(shown):
        assert standing.whole is not None
        ends = [standing.whole.median * 1e3, standing.whole.p95 * 1e3]
        axes.plot(ends, [row, row], color=TRACE, linewidth=5, solid_capstyle="round", zorder=1)
        axes.plot(ends[:1], [row], "o", color=BETTER, markersize=7, zorder=2)
        axes.plot(ends[1:], [row], "|", color=INK, markersize=12, markeredgewidth=1.5, zorder=2)
    _logarithmic(axes, [end for s in shown if s.whole for end in (s.whole.median * 1e3, s.whole.p95 * 1e3)])
    _rows(axes, [standing.system.name for standing in shown])
    axes.set_xlabel("milliseconds a query: median (dot) and 95th percentile (bar); logarithmic")
    return _svg(figure, "latency")


def calibration(found: Sequence[Reliability]) -> str:
    """Predicted against observed relevance; empty when no model gives probabilities."""
    if not found:
        return ""
    figure = Figure(figsize=(_WIDTH * 0.6, _WIDTH * 0.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=TRACE, linewidth=1.5, zorder=1)
    for colour, one in zip(_cycle(len(found)), found, strict=False):
        predicted, observed = [b.predicted for b in one.bins], [b.observed for b in one.bins]
        below = [b.observed - b.low for b in one.bins]
        above = [b.high - b.observed for b in one.bins]
        label = f"{_short(one.model, 30)}: error {one.error:.3f}"
        axes.errorbar(
            predicted, observed, yerr=[np.maximum(0, below), np.maximum(0, above)], fmt="o-", color=colour,
            markersize=5, linewidth=1.2, elinewidth=1, label=label,
        )  # fmt: skip
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.set_xlabel("predicted probability of relevance")
    axes.set_ylabel("share that is relevant")
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    _plain(axes)
    return _svg(figure, "calibration")


def frontier(found: Frontier) -> str:
    """Quality against latency of every configuration, the Pareto set joined and numbered.

    A first stage that came from a file has no time and is the dashed line alone.
    """
    numbers = {point.name: number for number, point in enumerate((p for p in found.points if p.pareto), start=1)}
    points = [point for point in found.points if found.whole or point.steps]
    figure = Figure(figsize=(_WIDTH, 5.2), layout="constrained")
    axes = figure.subplots()
    families = list(dict.fromkeys(point.family for point in points))
    for colour, family in zip(_cycle(len(families)), families, strict=False):
        mine = [point for point in points if point.family == family]
        x, y = [point.latency.median * 1e3 for point in mine], [point.quality.mean for point in mine]
        faces = [colour if point.pareto else PAPER for point in mine]
        stages = len(mine[0].steps)
        if stages == 1:
            # One model at rising depths; first stages and cascades are no sequence.
            axes.plot(x, y, color=colour, linewidth=0.8, zorder=2)
        axes.scatter(
            x,
            y,
            s=42,
            marker="sod"[min(stages, 2)],
            facecolors=faces,
            edgecolors=colour,
            linewidths=1.3,
            label=_short(family, 40),
            zorder=3,
        )
    best = sorted((point for point in points if point.pareto), key=lambda point: point.latency.median)
    axes.plot(
        [point.latency.median * 1e3 for point in best], [point.quality.mean for point in best],
        color=INK, linewidth=1, drawstyle="steps-post", zorder=2,
    )  # fmt: skip
    for point in best:
        axes.annotate(
            str(numbers[point.name]), (point.latency.median * 1e3, point.quality.mean), textcoords="offset points",
            xytext=(0, 8), ha="center", fontsize=9, color=INK,
        )  # fmt: skip
    axes.axhline(found.base.quality.mean, color=TRACE, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
    _logarithmic(axes, [point.latency.median * 1e3 for point in points])
    axes.set_xlabel("milliseconds a query, median; logarithmic")
    axes.set_ylabel(_short(found.measure, 30))
    figure.legend(frameon=False, fontsize=8.5, loc="outside lower center", ncols=3)
    _plain(axes)
    return _svg(figure, "frontier")


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.subplots()
    _plain(axes)
    return figure, axes


def _rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [_short(name, 44) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _plain(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=8.5, color=LINE)
    axes.xaxis.label.set_fontsize(9)
    axes.yaxis.label.set_fontsize(9)


def _logarithmic(axes: Axes, values: Iterable[float]) -> None:
    """A logarithmic axis of times with readable ticks, however narrow the range."""
    listed = [max(value, 1e-3) for value in values]
    low, high = min(listed), max(listed)
    axes.set_xscale("log")
    axes.set_xlim(low / 1.25, high * 1.25)
    steps = [digit * 10.0**power for power in range(-3, 7) for digit in (1, 2, 5)]
    ticks = [tick for tick in steps if low / 1.25 <= tick <= high * 1.25]
    if len(ticks) > 10:
        ticks = [tick for tick in ticks if f"{tick:e}".startswith("1")]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.grid(axis="x", color=LINE, linewidth=0.5, zorder=0)
    axes.set_axisbelow(True)


def _colour(standing: Standing, measure: str) -> str:
    contrast = standing.contrasts[measure]
    if contrast.corrected >= LEVEL:
        return UNCLEAR
    return BETTER if contrast.difference.mean > 0 else WORSE


def _cycle(count: int) -> list[str]:
    return [MODELS[place % len(MODELS)] for place in range(count)]


def _short(name: str, most: int) -> str:
    # A dollar sign starts mathematics, and a name that is not mathematics would be an error. Legends leave out what
    # begins with an underscore, as a folder may.
    cut = name if len(name) <= most else f"{name[: most - 1]}…"
    seen = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in cut).replace("$", r"\$")
    return f"\N{ZERO WIDTH SPACE}{seen}" if seen.startswith("_") else seen


def _svg(figure: Figure, salt: str) -> str:
    """The figure as SVG; ids of one `salt` are the same every time and meet no other figure's."""
    stream = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}), warnings.catch_warnings():
        # Words stay words in the file, and browsers have the letters that matplotlib's own font lacks.
        warnings.filterwarnings("ignore", r"Glyph .* missing from font")
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    return stream.getvalue()
