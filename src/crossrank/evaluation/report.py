"""The HTML reports of `crossrank eval` and `crossrank frontier`. Needs the extra `eval`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crossrank.evaluation import plots, told
from crossrank.evaluation.bootstrap import Interval
from crossrank.evaluation.comparison import Comparison, Latency
from crossrank.evaluation.frontier import BUDGETS, Frontier
from crossrank.evaluation.moves import Move, Moves, Placed
from crossrank.evaluation.outcome import Outcome, cut_lines, evaluation_foot
from crossrank.evaluation.page import Element, Part, element, plot, table, write
from crossrank.evaluation.reliability import Reliability
from crossrank.evaluation.verdict import LEVEL, p_number, signed

_EXCERPT = 420


def write_evaluation(path: Path, outcome: Outcome) -> None:
    """One page about an evaluation: the answer, the table, plots, and the queries that moved most."""
    compared, said = outcome.comparison, outcome.verdict
    name = str(outcome.about.get("set", "evaluation"))
    tried = [compared.of(moved.system) for moved in outcome.moves]
    details = element("ul", *(element("li", sentence) for sentence in said.details)) if said.details else None
    head = element(
        "header", element("h1", f"{name}: {said.question}"), element("p", said.headline, class_="answer"), details,
        class_=said.answer,
    )  # fmt: skip
    parts: list[Part] = [head, _systems(compared)]
    if outcome.notes:
        parts.append(_section("Notes", None, element("ul", *(element("li", note) for note in outcome.notes))))
    if any(standing.contrasts for standing in compared.standings):
        parts.append(
            _section(
                "Differences",
                f"Blue is significantly better than {compared.baseline}, orange worse, grey cannot be told "
                f"(p under {LEVEL:g} after Holm's correction for all systems here).",
                plot(plots.differences(compared), told.differences(compared)),
            )
        )
    if tried:
        parts.append(
            _section(
                "Query by query",
                f"Each bar is one query: above the line it got better, below worse.{_left_out(len(tried))}",
                plot(plots.per_query(compared, tried), told.per_query(compared, tried[: plots.MOST_PANELS])),
            )
        )
    parts += [_latency(compared), _calibration(outcome), *map(_moves, outcome.moves), _about(outcome.about)]
    write(path, f"{name}: {said.question}", [*parts, _foot(compared)])


def write_frontier(path: Path, found: Frontier, about: Mapping[str, Any], notes: Sequence[str] = ()) -> None:
    """One page about a frontier: what to take, the plot, every configuration."""
    name = str(about.get("set", "frontier"))
    title = f"{name}: quality against latency"
    head = element("header", element("h1", title), element("p", found.headline(), class_="answer"))
    best = [point for point in found.points if point.pareto]
    drawn = _section(
        "The frontier",
        f"Filled points are the Pareto set: nothing measured is both faster and better. The dashed line is "
        f"{found.base.name} alone.",
        plot(plots.frontier(found), told.frontier(found)),
        table(
            "The Pareto set, fastest first",
            ("", "configuration", found.measure, "over the cheaper one before", "ms, median", "95th"),
            [
                (str(number), p.name, str(p.quality), _change(p.gain), *_ms(p.latency))
                for number, p in enumerate(best, start=1)
            ],
            numbers=(2, 3, 4, 5),
            named=1,
        ),
    )
    fits = _section(
        "In the time you have",
        f"The best whose 95th percentile over the {found.timed} timed queries, interpolated between the slowest, is in "
        "time. Within a budget (--budget-ms) each query reads what it has time for.",
        table(
            "The best configuration by the time there is",
            ("ms", "configuration", found.measure, "ms, median", "95th"),
            [
                (str(ms), p.name, str(p.quality), *_ms(p.latency)) if p else (str(ms), "nothing measured", "", "", "")
                for ms, p in ((ms, found.within(ms)) for ms in BUDGETS)
            ],
            numbers=(2, 3, 4),
        ),
    )
    rows = [
        (p.name, "yes" if p.pareto else "", str(p.quality), _change(p.change), *_ms(p.latency)) for p in found.points
    ]
    heads = ("configuration", "Pareto", found.measure, f"against {found.base.name}", "ms, median", "95th")
    every = _section("All configurations", None, table("All configurations", heads, rows, numbers=(2, 3, 4, 5)))
    said = element("ul", *(element("li", note) for note in notes)) if notes else None
    foot = element("footer", element("p", found.foot()))
    write(
        path,
        title,
        [head, drawn, fits, every, _about(about), _section("Notes", None, said) if said is not None else None, foot],
    )


def _left_out(tried: int) -> str:
    most = plots.MOST_PANELS
    return f" Drawn are the first {most} of {tried} systems; the table above has all." if tried > most else ""


def _systems(compared: Comparison) -> Element:
    heads = ["system", compared.main, f"against {compared.baseline}", "p", *compared.measures[1:]]
    heads.append("better / worse")
    # Runs from files say nothing of what was read, so there these columns would be empty.
    recalls = any(standing.recall is not None for standing in compared.standings)
    ceilings = any(standing.ceiling for standing in compared.standings)
    heads += ["candidates' recall"] * recalls + ["ceiling"] * ceilings
    rows = []
    for standing in compared.standings:
        contrast = standing.contrasts.get(compared.main)
        kind = ""
        if contrast is not None and contrast.corrected < LEVEL:
            kind = "better" if contrast.difference.mean > 0 else "worse"
        change = element("span", signed(contrast.difference), class_=kind) if contrast else "baseline"
        moved = f"{len(contrast.better)} / {len(contrast.worse)}" if contrast else ""
        rows.append(
            [
                standing.system.name, str(standing.means[compared.main]), change,
                p_number(contrast.corrected) if contrast else "",
                *(f"{standing.means[measure].mean:.3f}" for measure in compared.measures[1:]), moved,
                *(["" if standing.recall is None else f"{standing.recall:.3f}"] * recalls),
                *([f"{standing.ceiling[compared.main]:.3f}" if standing.ceiling else ""] * ceilings),
            ]
        )  # fmt: skip
    return _section(
        "Systems",
        f"The ceiling is {compared.main} of a perfect order of the candidates that a system reads."
        if ceilings
        else None,
        table("Systems", heads, rows, numbers=range(1, len(heads))),
        *(element("p", line, class_="faint") for line in cut_lines(compared.standings)),
    )


def _latency(compared: Comparison) -> Element | None:
    drawn = plot(plots.latency(compared), told.latency(compared))
    if drawn is None:
        return None
    rows = [(s.system.name, *_ms(s.step), *_ms(s.whole)) for s in compared.standings if s.whole is not None]
    whole = any(s.system.kind == "first" for s in compared.standings)
    heads = ("system", "step, median ms", "95th", "whole query, median ms", "95th")
    lead = "Measured on this machine, one query at a time."
    if not whole:
        lead += " The candidates came from a file, so the first stage has no part in these times."
    shown = len(heads) if whole else 3
    body = table("Latency", heads[:shown], [row[:shown] for row in rows], numbers=range(1, shown))
    return _section("Latency", lead, drawn, body)


def _calibration(outcome: Outcome) -> Element | None:
    if not outcome.calibration:
        return None
    about = []
    for found in outcome.calibration:
        unjudged = "judged candidates only" if found.judged_only else "unjudged candidates count as not relevant"
        about.append(
            f"{found.model}: expected calibration error {found.error:.3f} over {found.pairs:,} candidates, "
            f"{found.relevant:,} of them relevant (grade {found.least} or more; {unjudged})."
        )
    return _section(
        "Calibration",
        "Points on the diagonal: of candidates called 70 % relevant, 70 % are. Bins hold equally many; bars are 95 % "
        "intervals.",
        plot(plots.calibration(outcome.calibration), told.calibration(outcome.calibration)),
        *(element("p", line, class_="faint") for line in about),
        *map(_bins, outcome.calibration),
    )


def _bins(found: Reliability) -> Element:
    rows = [
        (f"{one.predicted:.3f}", f"{one.observed:.3f} [{one.low:.3f}, {one.high:.3f}]", f"{one.pairs:,}")
        for one in found.bins
    ]
    title = f"The figures of {found.model}"
    body = table(title, ("predicted", "observed", "candidates"), rows, numbers=(0, 1, 2))
    return element("details", element("summary", title), body)


def _moves(moved: Moves) -> Element | None:
    if not (moved.losses or moved.gains):
        return None
    parts: list[Part] = []
    for title, listed in (("Worst losses", moved.losses), ("Best gains", moved.gains)):
        if listed:
            parts += [
                element("h3", title),
                *(_move(move, title == "Worst losses" and i == 0) for i, move in enumerate(listed)),
            ]
    marked = any(placed.evidence for move in (*moved.losses, *moved.gains) for placed in (*move.top, *move.relevant))
    lead = "Marked is the sentence of each passage that the model finds the best answer." if marked else None
    return _section(f"Read these: {moved.system}", lead, *parts)


def _move(move: Move, opened: bool) -> Element:
    change = move.after - move.before
    figure = element("span", f"{change:+.3f}", class_="better" if change > 0 else "worse")
    # Texts of any script, each in its own direction.
    asked = element("bdi", move.text or move.query)
    head = element("summary", figure, "  ", asked, " ", element("bdi", move.query, class_="tag"))
    body: list[Part] = [element("p", f"From {move.before:.3f} to {move.after:.3f}. It puts first:", class_="faint")]
    body += map(_placed, move.top)
    if move.relevant:
        body += [
            element("p", "Relevant documents that it or the baseline has near the top, besides:", class_="faint"),
            *map(_placed, move.relevant),
        ]
    made = element("details", head, *body)
    if opened:
        made.set("open", "open")
    return made


def _placed(placed: Placed) -> Element:
    grade = "not judged" if placed.grade is None else f"grade {placed.grade}"
    ranks = f"rank {placed.before or '–'} → {placed.after or '–'}"
    tags = element(
        "p",
        element("span", ranks, class_="tag"),
        element("span", grade, class_="tag relevant" if (placed.grade or 0) > 0 else "tag"),
        element("b", element("bdi", placed.title or placed.id)),
        f" {placed.id}" if placed.title else "",
    )
    return element("blockquote", tags, element("p", *_excerpt(placed), dir="auto") if placed.text else None)


def _excerpt(placed: Placed) -> list[Part]:
    """So much of a text as a reader needs, with the sentence that answers marked."""
    text, (start, stop) = placed.text, placed.evidence or (0, 0)
    stop = min(stop, start + _EXCERPT)
    # What is left besides the mark stands before and after it, or all after it where there is little before.
    begin = max(0, min(start - (_EXCERPT - (stop - start)) // 2, len(text) - _EXCERPT))
    end = min(len(text), begin + _EXCERPT)
    mark = element("mark", text[start:stop]) if stop > start else None
    return [
        "…" if begin else "", text[begin:start].lstrip() if begin else text[:start], mark, text[stop:end].rstrip(),
        "…" if end < len(text) else "",
    ]  # fmt: skip


def _about(about: Mapping[str, Any]) -> Element:
    entries = [part for name, value in about.items() for part in (element("dt", name), element("dd", _fact(value)))]
    return _section("What was measured", None, element("dl", *entries))


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} ({_fact(one)})" for name, one in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_fact, value))
    return "–" if value is None else str(value)


def _foot(compared: Comparison) -> Element:
    return element("footer", element("p", evaluation_foot(compared)))


def _section(title: str, lead: str | None, *parts: Part) -> Element:
    return element("section", element("h2", title), element("p", lead, class_="faint") if lead else None, *parts)


def _change(interval: Interval | None) -> Part:
    if interval is None:
        return "–"
    kind = "" if not interval.excludes_zero else "better" if interval.mean > 0 else "worse"
    return element("span", signed(interval), class_=kind)


def _ms(latency: Latency | None) -> tuple[str, str]:
    return ("–", "–") if latency is None else (f"{latency.median * 1e3:,.1f}", f"{latency.p95 * 1e3:,.1f}")
