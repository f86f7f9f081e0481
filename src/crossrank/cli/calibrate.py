"""`crossrank calibrate`: probabilities of a model that fit your judgments, in a copy of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crossrank.cli import options, terminal
from crossrank.cli.exits import Exit

if TYPE_CHECKING:
    from crossrank.training.calibrating import Calibrated


@click.command(
    "calibrate",
    short_help="Fit the probabilities of a model to your judgments.",
    epilog="""\b
Examples:
  crossrank calibrate small judged.jsonl --to my-small
  crossrank calibrate ./my-model judged.csv --to my-model-calibrated --most-lost 0.05
  crossrank rerank "refund policy" faq.txt --model my-small --probability
  crossrank search docs.index "refund policy" --model my-model-calibrated --threshold model
""",
)
@click.argument("model", type=options.ModelName())
@click.argument("judged", type=options.Given(path_type=Path))
@click.option("--to", "folder", metavar="DIR", required=True, type=click.Path(file_okay=False, path_type=Path),
              help="A new or empty folder for the calibrated copy.")  # fmt: skip
@click.option("--split", default="train", show_default=True, help="Judgments of a BEIR folder: qrels/SPLIT.tsv.")
@click.option("--seed", type=options.Count(min=0), metavar="N", default=0, show_default=True, help="Of the halves.")
@click.option("--most-lost", type=options.Number(0, 1, min_open=True, max_open=True), metavar="SHARE",
              help="Give the copy a threshold, the largest that loses the answers of at most this share of the "
              "queries that have some, such as 0.05.")  # fmt: skip
@click.option("--force", is_flag=True, help="Write into a folder that is not empty, over the model that may be there.")
@options.as_json
@options.engine
def command(
    model: str,
    judged: Path,
    folder: Path,
    split: str,
    seed: int,
    most_lost: float | None,
    force: bool,
    as_json: bool,
    **engine: Any,
) -> Exit:
    """Fit the probabilities of the cross-encoder MODEL to the judgments JUDGED, and write a copy of it that gives them.

    JUDGED is read as `crossrank tune` reads it: rows with a query, a document and a label, 0 for what is not relevant.
    At least 20 queries are needed, with documents such as a search finds, also those that do not answer. Scores and
    orders stay as they are. What changes is --probability, "probability" in JSON, and what --threshold cuts. A model's
    own threshold is left out, because it was chosen for other probabilities; --most-lost chooses one for these, which
    `--threshold model` then takes.

    Printed is the expected calibration error, the mean distance of probabilities from how often a passage is relevant:
    of the model as it was, and calibrated, where each half of the queries is judged by a calibration fitted to the
    other half. On a terminal and with --json a table follows, on the same probabilities, of what thresholds do: of
    queries with an answer, how many lose all their answers, and how many are told that nothing is relevant; of queries
    without one, among them the same without their answers, how many are shown something. In a pipe the columns are
    queries, pairs, relevant ones, error before and after, slope, intercept and threshold.
    """
    from crossrank.training import reading

    judgments = reading.read(judged, split=split)
    import crossrank
    from crossrank import checkpoint
    from crossrank.training.calibrating import calibrated

    scorer = crossrank.load(model, **engine)
    # Scoring may take minutes.
    checkpoint.check_target(scorer.checkpoint, folder, overwrite=force)
    with terminal.progress() as report:
        found = calibrated(
            scorer,
            judgments,
            seed=seed,
            most_lost=most_lost,
            progress=lambda done, total: report("scoring", done, total),
        )
    for finding in found.findings:
        terminal.warn(f"{terminal.shown(finding.message)}.")
    fitted = found.calibration
    copy = scorer.checkpoint.calibrated_by(fitted.slope, fitted.intercept, found.threshold)
    checkpoint.export(copy, folder, overwrite=force)
    _print(found, folder, as_json)
    return Exit.OK


def _print(found: Calibrated, folder: Path, as_json: bool) -> None:
    before = None if found.before is None else found.before.error
    told = {
        "queries": found.queries,
        "pairs": found.after.pairs,
        "relevant": found.after.relevant,
        "error_before": before,
        "error_after": found.after.error,
        "slope": found.calibration.slope,
        "intercept": found.calibration.intercept,
        "threshold": found.threshold,
    }
    if as_json:
        terminal.json_line({**told, "thresholds": [asdict(cut) for cut in found.cuts], "folder": str(folder)})
    elif terminal.on_terminal():
        was = "it gave no probabilities before" if before is None else f"{before:.3f} before"
        pairs = f"{found.after.pairs:,} pairs of {found.queries:,} queries, {found.after.relevant:,} of them relevant"
        click.echo(f"Expected calibration error {found.after.error:.3f}; {was}. {pairs}.")
        _print_cuts(found)
        click.echo(f"The calibrated model is in {click.format_filename(folder)}.")
    else:
        terminal.tab_line(*told.values())
    if before is not None and before <= found.after.error:
        terminal.warn("the probabilities that the model had were no worse here: prefer them, or judge more queries.")


def _print_cuts(found: Calibrated) -> None:
    right: Mapping[str, Any] = {"justify": "right", "no_wrap": True}
    names = ("threshold", "answers lost", "wrongly nothing", "wrongly something")
    table = terminal.table(*((name, right) for name in names))
    for cut in found.cuts:
        shares = (
            f"{one.share:.1%} [{100 * one.low:.1f}, {100 * one.high:.1f}]"
            for one in (cut.lost, cut.nothing, cut.something)
        )
        table.add_row(f"{cut.threshold:g}", *shares, style="bold" if cut.threshold == found.threshold else None)
    terminal.console().print(table)
    first = found.cuts[0]
    has, none = (terminal.count(one.queries, "query", "queries") for one in (first.lost, first.something))
    click.echo(
        f"Lost and wrongly nothing: of {has} with an answer. Wrongly something: of {none} without one, or with theirs "
        "taken out. In brackets: 95 % intervals."
    )
    if found.threshold is not None:
        click.echo(f"The copy's own threshold is {found.threshold:g}: --threshold model takes it.")
