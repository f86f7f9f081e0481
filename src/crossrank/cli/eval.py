"""`crossrank eval`: every stage on judged queries, side by side, with what the difference is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crossrank.cli import judged, judgedlists, options, runfiles, terminal
from crossrank.cli.counted import Counted, asked_model
from crossrank.cli.exits import Exit

if TYPE_CHECKING:
    from crossrank.evaluation.candidates import Candidates, Reading
    from crossrank.evaluation.comparison import Comparison, Latency, Standing
    from crossrank.evaluation.moves import Move
    from crossrank.evaluation.outcome import Outcome
    from crossrank.evaluation.systems import System
    from crossrank.scorers import PairScorer


@click.command(
    "eval",
    short_help="Does reranking help here? Measure every stage on judged queries.",
    epilog="""\b
Examples:
  crossrank eval my.index --queries queries.jsonl --qrels judged.tsv --html report.html
  crossrank eval scifact/ --cache eval.cache --sample 50 --models small,my-model/
  crossrank eval trec_dl19/ --split full --run BM25=bm25.trec --over BM25
  crossrank eval my.index --queries queries.jsonl --qrels judged.tsv --models fast,small --cascade "fast>small"
  crossrank eval my.index --queries queries.jsonl --qrels judged.tsv --sample 30 --llm "http://localhost:8000/v1#qwen3"
  crossrank eval my.index --queries queries.jsonl --qrels judged.tsv --models "small,https://api.jina.ai/v1#MODEL"
  crossrank eval --qrels qrels.txt --run old=old.trec --run new=new.trec -m nDCG@10 -m AP
  crossrank eval judged.jsonl --models small,my-model/ --baseline small
""",
)
@click.argument("source", required=False, type=options.Given(path_type=Path))
@judged.collection("A TREC run to compare. Repeat it.")
@click.option("--depth", type=options.Count(min=1), metavar="N", default=100, show_default=True,
              help="Passages that BM25 and dense search each return, and that cross-encoders read.")  # fmt: skip
@click.option("--mix", metavar="A,B", help="Shares of the cross-encoder in the order; 1 trusts it alone.  [default: 1 "
              "and what `crossrank search` would take]")  # fmt: skip
@click.option("--cascade", "cascades", multiple=True, metavar="COARSE>FINE",
              help="Two of --models: the fine one reads the best half, at most 50, of what the coarse one leaves. "
              "Repeat it.")  # fmt: skip
@options.llm
@options.llm_depth
@options.llm_window
@click.option("--no-rerank", is_flag=True, help="First stages alone.")
@click.option("--measure", "-m", "measures", multiple=True, metavar="NAME",
              help="A name of ir-measures, such as nDCG@10, RR@10, AP, P(rel=2)@5. Repeat it; verdicts are about the "
              "first.  [default: nDCG@10, RR@10, R@100]")  # fmt: skip
@click.option("--baseline", metavar="NAME", help="What differences are taken to.  [default: the fusion, the run of "
              "--over, or the first run]")  # fmt: skip
@click.option("--relevant", type=options.Count(min=1), metavar="GRADE", default=1, show_default=True,
              help="Least grade that counts as relevant in the calibration.")  # fmt: skip
@click.option("--show", type=options.Count(min=0), metavar="N", default=3, show_default=True,
              help="Worst losses and best gains to show; the HTML page has at least 5.")  # fmt: skip
@click.option("--write-runs", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Write every system's rankings there, as TREC run files.")  # fmt: skip
@click.option("--force", is_flag=True, help="Let --write-runs replace files that are there.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Write one self-contained page with plots.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@options.engine
def command(
    depth: int,
    mix: str | None,
    cascades: tuple[str, ...],
    llm: str | None,
    llm_depth: int,
    llm_window: int | None,
    no_rerank: bool,
    measures: tuple[str, ...],
    baseline: str | None,
    relevant: int,
    show: int,
    write_runs: Path | None,
    force: bool,
    html: Path | None,
    as_json: bool,
    **collection: Any,
) -> Exit:
    """Measure BM25, dense search, their fusion and every cross-encoder on judged queries.

    SOURCE is an index (with --queries and --qrels) or a folder laid out as BEIR does. Without SOURCE, runs are
    compared: --qrels and at least one --run. SOURCE may also be a file of rows with a query, a document and a label, 0
    for what is not relevant, as `crossrank tune` reads them: nothing is searched then, and models order each query's
    own documents, all of them, without a mix.

    Differences to the fusion are paired by query, with 95 % intervals and a randomization test, corrected for
    the number of systems (Holm). In a pipe, the columns are system, measure, mean, low, high, difference, low, high,
    corrected p, better, worse, and milliseconds of the whole query: median and 95th percentile. The verdict and what
    must be known of the figures go to stderr. The exit code is 3 where the model of --llm left a passage unjudged.

    --models also takes rerank APIs, as URL#MODEL (see `crossrank search --rerank-api`): is the paid one better here?
    All queries and candidates, and RERANK_API_KEY, are sent there; what that cost is said on stderr. A query that gets
    no answer keeps its order, and then the exit code is 3, too.
    """
    asked = judged.Asked(**collection)
    if html is not None:
        # Before any work: a missing library or folder must not cost an hour.
        judged.check_page(html)
        from crossrank.evaluation import report  # noqa: F401
    model = asked_model(llm, llm_window)
    if (no_rerank or asked.source is None) and (given := options.given(("cascades", "llm", "models", "mix"))):
        raise click.UsageError(f"--no-rerank, and runs alone, leave out the reranking that {given} is for")
    pairs = judged.cascades(cascades, asked.models)
    last = None if model is None else (model, llm_depth)
    runs = None if write_runs is None else (write_runs, force)
    outcome, remote = _measured(
        asked, depth, mix, pairs, last, no_rerank, measures, baseline, relevant, max(show, 5), runs
    )
    with ExitStack() as ways:
        # From the last to the first, and each whatever becomes of the others: a disk may be full by now, stdout closed,
        # and ids with white space in them are an error in runs and nowhere else.
        if write_runs is not None:
            ways.callback(runfiles.write, write_runs, [standing.system for standing in outcome.comparison.standings])
        if html is not None:
            ways.callback(_write_page, html, outcome)
        ways.callback(_print, outcome, as_json, show)
    return Exit.SOME_FAILED if any(one.failed for one in remote) else Exit.OK


def _measured(
    asked: judged.Asked,
    depth: int,
    mix: str | None,
    cascades: Sequence[tuple[str, str]],
    last: tuple[Counted, int] | None,
    no_rerank: bool,
    measures: Sequence[str],
    baseline: str | None,
    relevant: int,
    most: int,
    runs_to: tuple[Path, bool] | None,
) -> tuple[Outcome, list[Counted]]:
    """The outcome, and what was asked behind an address."""
    from crossrank.evaluation import measures as measured
    from crossrank.evaluation import setting, systems
    from crossrank.evaluation.comparison import MEASURES
    from crossrank.evaluation.outcome import assess
    from crossrank.planner import depths

    measured.check(measures)
    slow, source = judged.busy(), judgedlists.opened(asked, depth, mix)
    asked, queries, runs, depth, shares = source.asked, source.queries, source.runs, source.depth, source.shares
    notes = [*source.notes]
    measured.check(measures, queries.qrels)
    given, lacks = setting.runs_as_systems({n: run for n, run in runs.items() if n != asked.over}, queries.qrels)
    made: list[System] = []
    read: list[tuple[Candidates, Reading]] = []
    owners, texts = systems.Owners(), None
    scorers = {} if asked.source is None or no_rerank else judged.readers(asked)
    remote = {name: scorer for name, scorer in scorers.items() if isinstance(scorer, Counted)}
    # Rows have no first stage to mix with, and models stand alone there.
    if mix is None and len(shares) > 1:
        shares = systems.with_own(shares, scorers.values())
    stages = [*scorers, *(f"{coarse} > {fine}" for coarse, fine in cascades)]
    names = [systems.named(name, share) for name in stages for share in shares]
    # A sentence of its own would be a question of its own to a model behind an address, which marks none.
    marks = {name: scorer.score for name, scorer in scorers.items() if name not in remote}
    marks |= {f"{coarse} > {fine}": marks[fine] for coarse, fine in cascades if fine in marks}
    wide, near = depths(depth, 2)
    for name in remote:
        each = depth + sum(wide * (name == coarse) + near * (name == fine) for coarse, fine in cascades)
        terminal.note(f"{name} is sent up to {len(queries.queries) * each + 1:,} passages, the first to warm up.")
    if last is not None:
        first = next(iter(scorers))
        names.append(f"{first} > {last[0].name}")
        marks |= {names[-1]: marks[first]} if first in marks else {}
        terminal.note(f"{last[0].name} is asked up to {len(queries.queries) * last[0].questions(last[1]):,} questions.")
        remote[names[-1]] = last[0]
    known = _names(baseline, asked, list(runs), names)
    if runs_to is not None:
        inputs = (*judged.run_files(asked.runs).values(), asked.queries, asked.qrels)
        runfiles.check(runs_to[0], known, [path for path in inputs if path is not None], runs_to[1])
    if asked.source is not None:
        with terminal.progress() as progress:
            opened = judged.opened(asked, queries, runs, depth, progress)
            read = _read(opened.candidates, scorers, cascades, last, depth, min(shares), progress)
        owners, texts = opened.owners, opened.candidates.texts
        made = systems.first_stages(opened.candidates, owners, judged.STEPS)
        baseline = baseline or made[-1].name
        for number, (before, reading) in enumerate(read):
            # As `search --llm` has it: the language model's order stands, without a mix.
            alone = last is not None and number == len(read) - 1
            made += systems.reranked(before, reading, owners, [1.0] if alone else shares)
        notes += [*opened.notes, *slow]
    made += given
    notes += [*lacks, *(f"{one.name}: {one.note}." for one in remote.values())]
    notes += [f"{system.name}: {note}." for system in made if system.kind != "mix" for note in system.notes]
    outcome = assess(
        made,
        queries.qrels,
        {query: text for query, text in queries.queries.items() if text},
        judged.about(asked, queries, scorers, depth),
        measures=measures or MEASURES,
        baseline=baseline or "",
        # A model's calibration is measured once, on all candidates.
        readings=[reading for _, reading in read[: len(scorers)]],
        scorers=marks,
        owners=owners,
        texts=texts,
        least=relevant,
        most=most,
        seed=asked.seed,
        notes=notes,
    )
    return outcome, list(remote.values())


def _read(
    found: Candidates,
    scorers: Mapping[str, PairScorer | Counted],
    cascades: Sequence[tuple[str, str]],
    last: tuple[Counted, int] | None,
    depth: int,
    share: float,
    progress: terminal.Progress,
) -> list[tuple[Candidates, Reading]]:
    """What each model and each cascade reads, and of which candidates; a language model reads after the first one."""
    from crossrank.cascade import Stage
    from crossrank.evaluation import candidates
    from crossrank.planner import depths

    alone = candidates.read(found, scorers, depth, progress)
    wide, near = depths(depth, 2)
    # The coarse stage chooses by the smallest share, as in a frontier.
    stages = [
        (Stage(scorers[coarse], wide, share, coarse), Stage(scorers[fine], near, 1.0, fine))
        for coarse, fine in cascades
    ]
    if last is not None:
        (name, scorer), (model, few) = next(iter(scorers.items())), last
        stages.append((Stage(scorer, depth, share, name), Stage(model, few, 1.0, model.name)))
    return [
        *((found, reading) for reading in alone.values()),
        *(candidates.cascaded(found, coarse, fine, progress) for coarse, fine in stages),
    ]


def _names(baseline: str | None, asked: judged.Asked, runs: Sequence[str], stages: Sequence[str]) -> list[str]:
    """The names of all systems; refuse one that two will have, and a baseline that none will, before any work."""
    first = [] if asked.source is None or asked.over else list(judged.STEPS.values())
    known = [*first, *stages, *runs]
    judged.check_names(known)
    if baseline is not None and baseline not in known:
        raise click.UsageError(f"--baseline {baseline} names no system; there are: {', '.join(known)}")
    return known


def _write_page(html: Path, outcome: Outcome) -> None:
    from crossrank.evaluation import report

    report.write_evaluation(html, outcome)
    terminal.note(f"Wrote {html}.")


def _print(outcome: Outcome, as_json: bool, show: int) -> None:
    if as_json:
        from crossrank.evaluation.outcome import record

        terminal.json_line(record(outcome))
    elif terminal.on_terminal():
        _print_table(outcome, show)
    else:
        for said in (outcome.verdict.headline, *outcome.verdict.details, *_remarks(outcome)):
            terminal.note(said)
        _print_lines(outcome.comparison)


def _print_lines(compared: Comparison) -> None:
    for standing in compared.standings:
        for measure in compared.measures:
            value, contrast = standing.means[measure], standing.contrasts.get(measure)
            change: tuple[int | float | None, ...] = (None,) * 6
            if contrast is not None:
                between = contrast.difference
                moved = len(contrast.better), len(contrast.worse)
                change = (between.mean, between.low, between.high, contrast.corrected, *moved)
            times = (None, None) if standing.whole is None else (standing.whole.median * 1e3, standing.whole.p95 * 1e3)
            terminal.tab_line(standing.system.name, measure, value.mean, value.low, value.high, *change, *times)


def _print_table(outcome: Outcome, show: int) -> None:
    from crossrank.evaluation.outcome import evaluation_foot

    console, compared = terminal.console(), outcome.comparison
    console.print(outcome.verdict.question, style="dim")
    console.print(outcome.verdict.headline, style="bold")
    for sentence in outcome.verdict.details:
        console.print(sentence)
    console.print()
    right = {"justify": "right", "no_wrap": True}
    made = terminal.table(
        ("system", {}),
        (compared.main, right),
        (f"against {compared.baseline}", right),
        ("p", right),
        ("+/-", right),
        *((measure, right) for measure in compared.measures[1:]),
        ("ceiling", right),
        ("ms (95th)", right),
    )
    for standing in compared.standings:
        made.add_row(*_cells(compared, standing))
    console.print(made)
    for line in _remarks(outcome):
        console.print(line, style="dim")
    if outcome.moves and show:
        moved = outcome.moves[0]
        for title, listed in (("Worst losses", moved.losses), ("Best gains", moved.gains)):
            if listed:
                console.print(f"\n{title} of {moved.system}:", style="bold")
            for move in listed[:show]:
                _print_move(move)
    console.print(f"\n{evaluation_foot(compared)}", style="dim")


def _remarks(outcome: Outcome) -> list[str]:
    """What must be known of the figures: what was cut, how good the probabilities are, and the notes."""
    from crossrank.evaluation.outcome import cut_lines

    return [*cut_lines(outcome.comparison.standings), *_calibrated(outcome), *outcome.notes]


def _cells(compared: Comparison, standing: Standing) -> list[str]:
    from crossrank.evaluation.verdict import p_number, signed

    contrast = standing.contrasts.get(compared.main)
    return [
        terminal.shown(standing.system.name, 60),
        str(standing.means[compared.main]),
        signed(contrast.difference) if contrast else "",
        p_number(contrast.corrected) if contrast else "",
        f"{len(contrast.better)}/{len(contrast.worse)}" if contrast else "",
        *(f"{standing.means[measure].mean:.3f}" for measure in compared.measures[1:]),
        f"{standing.ceiling[compared.main]:.3f}" if standing.ceiling else "",
        _time(standing.whole),
    ]


def _time(latency: Latency | None) -> str:
    return "" if latency is None else f"{latency.median * 1e3:,.0f} ({latency.p95 * 1e3:,.0f})"


def _calibrated(outcome: Outcome) -> list[str]:
    return [
        f"{found.model}: expected calibration error {found.error:.3f} over {found.pairs:,} candidates."
        for found in outcome.calibration
    ]


def _print_move(move: Move) -> None:
    console = terminal.console()
    width = max(40, console.width - 30)
    asked = terminal.shown(move.text or move.query, width)
    console.print(f"{move.after - move.before:+.3f}  {asked}  ({terminal.shown(move.query, 20)})")
    for placed in move.top[:1]:
        grade = "not judged" if placed.grade is None else f"grade {placed.grade}"
        text = terminal.shown(f"{placed.title} {placed.text}".strip() or placed.id, width)
        console.print(f"        first: [{grade}] {text}", style="dim")
