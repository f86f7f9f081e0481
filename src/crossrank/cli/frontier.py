"""`crossrank frontier`: quality against latency over models, depths, mixes and cascades."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crossrank.cli import judged, options, terminal

if TYPE_CHECKING:
    from crossrank.evaluation.bootstrap import Interval
    from crossrank.evaluation.frontier import Frontier


@click.command(
    "frontier",
    short_help="Quality against latency: which model, how deep?",
    epilog="""\b
Examples:
  crossrank frontier my.index --queries queries.jsonl --qrels judged.tsv --html frontier.html
  crossrank frontier scifact/ --cache eval.cache --models small,big/ --depths 10,20,50,100
  crossrank frontier trec_dl19/ --split full --run BM25=bm25.trec --over BM25 \\
      --models fast,small --cascade "fast>small"
""",
)
@click.argument("source", type=options.Given(file_okay=False, path_type=Path))
@judged.collection("The TREC run that --over names; a frontier compares with no other.")
@click.option("--depths", metavar="N,N", default="10,20,50,100", show_default=True,
              help="Candidates that a stage reads.")  # fmt: skip
@click.option("--mix", metavar="A,B", help="Shares of the cross-encoder in the order; 1 trusts it alone.  [default: 1 "
              "and what `crossrank search` would take]")  # fmt: skip
@click.option("--cascade", "cascades", multiple=True, metavar="COARSE>FINE",
              help="Two of --models, one after the other, at every pair of depths. Repeat it.")  # fmt: skip
@click.option("--measure", "-m", metavar="NAME", default="nDCG@10", show_default=True, help="A name of ir-measures.")
@click.option("--timed", type=options.Count(min=1), metavar="N", default=10, show_default=True,
              help="Queries that every configuration is timed on.")  # fmt: skip
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Write one self-contained page with the plot.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@options.engine
def command(
    depths: str,
    mix: str | None,
    cascades: tuple[str, ...],
    measure: str,
    timed: int,
    html: Path | None,
    as_json: bool,
    **collection: Any,
) -> None:
    """Measure every model at every depth and mix, and cascades of two, on judged queries.

    SOURCE is an index (with --queries and --qrels) or a folder laid out as BEIR does.

    Every candidate is scored once by every model, at the greatest depth, and the quality of all configurations follows
    from that. Times are measured: a sample of the queries goes through every configuration. A configuration is in the
    Pareto set when nothing else is both faster and better. In a pipe, the columns are configuration, pareto or -, mean,
    low, high, difference to the first stage, low, high, and milliseconds: median and 95th percentile. The advice and
    what must be known of the figures go to stderr.
    """
    asked = judged.Asked(**collection)
    if html is not None:
        # Before any work: a missing library or folder must not cost an hour.
        judged.check_page(html)
        from crossrank.evaluation import report
    pairs = judged.cascades(cascades, asked.models)
    found, about, notes = _measured(asked, _depths(depths), mix, pairs, measure, timed)
    try:
        if html is not None:
            report.write_frontier(html, found, about, notes)
    finally:
        # A disk may be full by now: it must not cost the lines.
        _print(found, about, notes, as_json)
    if html is not None:
        terminal.note(f"Wrote {html}.")


def _measured(
    asked: judged.Asked,
    depths: list[int],
    mix: str | None,
    cascades: list[tuple[str, str]],
    measure: str,
    timed: int,
) -> tuple[Frontier, dict[str, Any], list[str]]:
    from crossrank.evaluation import candidates, frontier, systems
    from crossrank.evaluation import measures as measured

    measured.check([measure])
    shares, deepest = judged.weights(mix), max(depths)
    runs, slow = judged.read_runs(asked.runs), judged.busy()
    if ignored := next((name for name in runs if name != asked.over), None):
        raise click.UsageError(
            f"--run {ignored} would be ignored: a frontier reranks the run that --over names, and compares with no "
            "other. `crossrank eval` compares runs"
        )
    queries, notes = judged.opened_set(asked)
    measured.check([measure], queries.qrels)
    scorers = judged.scorers(asked)
    shares = systems.with_own(shares, scorers.values()) if mix is None else shares
    plans = frontier.configurations(list(scorers), depths, shares, cascades)
    judged.check_names([*([asked.over] if asked.over else judged.STEPS.values()), *map(frontier.name_of, plans)])
    with terminal.progress() as progress:
        opened = judged.opened(asked, queries, runs, deepest, progress)
        readings = candidates.read(opened.candidates, scorers, deepest, progress)
        times = frontier.timings(
            opened.candidates, opened.pipeline, scorers, plans, timed, seed=asked.seed, progress=progress
        )
    first = systems.first_stages(opened.candidates, opened.owners, judged.STEPS)
    found = frontier.sweep(
        opened.candidates, readings, plans, first, queries.qrels, opened.owners, times, measure, asked.seed
    )
    about = judged.about(asked, queries, scorers, deepest) | {"depths": sorted(depths), "mixes": shares}
    return found, about, [*notes, *opened.notes, *slow]


def _depths(text: str) -> list[int]:
    depth = options.Count(min=1)
    try:
        return sorted({depth.convert(part.strip(), None, None) for part in text.split(",")})
    except click.BadParameter as error:
        raise click.UsageError(
            f"--depths takes whole numbers of at least 1 with commas between them: {error.message}"
        ) from None


def _print(found: Frontier, about: dict[str, Any], notes: list[str], as_json: bool) -> None:
    if as_json:
        from crossrank.evaluation.frontier import record

        terminal.json_line(record(found, about, notes))
    elif terminal.on_terminal():
        _print_table(found, notes)
    else:
        for said in (found.headline(), *notes):
            terminal.note(said)
        _print_lines(found)


def _print_lines(found: Frontier) -> None:
    for point in found.points:
        change = point.change
        ends = (None, None, None) if change is None else (change.mean, change.low, change.high)
        times = point.latency.median * 1e3, point.latency.p95 * 1e3
        quality = point.quality
        pareto = "pareto" if point.pareto else None
        terminal.tab_line(point.name, pareto, quality.mean, quality.low, quality.high, *ends, *times)


def _print_table(found: Frontier, notes: list[str]) -> None:
    from crossrank.evaluation.frontier import BUDGETS

    console = terminal.console()
    console.print(found.headline(), style="bold")
    console.print()
    right = {"justify": "right", "no_wrap": True}
    table = terminal.table(
        ("", {}),
        ("configuration", {}),
        (found.measure, right),
        (f"against {found.base.name}", right),
        ("over the cheaper", right),
        ("ms (95th)", right),
    )
    for point in found.points:
        times = f"{point.latency.median * 1e3:,.0f} ({point.latency.p95 * 1e3:,.0f})"
        table.add_row(
            "*" if point.pareto else "",
            terminal.shown(point.name, 60),
            str(point.quality),
            _change(point.change),
            _change(point.gain),
            times,
            style="" if point.pareto else "dim",
        )
    console.print(table)
    console.print("* the Pareto set: nothing measured is both faster and better.", style="dim")
    for ms in BUDGETS:
        best = found.within(ms)
        console.print(f"Within {ms} ms: {best.name if best else 'nothing measured'}.")
    for note in [*notes, found.foot()]:
        console.print(note, style="dim")


def _change(interval: Interval | None) -> str:
    from crossrank.evaluation.verdict import signed

    return "" if interval is None else signed(interval)
