"""`crossrank calibrate`: probabilities of a model that fit your judgments, in a copy of it."""

from __future__ import annotations

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
  crossrank calibrate ./my-model judged.csv --to my-model-calibrated
  crossrank rerank "refund policy" faq.txt --model my-small --probability
  crossrank search docs.index "refund policy" --model my-small --threshold 0.5
""",
)
@click.argument("model", type=options.ModelName())
@click.argument("judged", type=options.Given(path_type=Path))
@click.option("--to", "folder", metavar="DIR", required=True, type=click.Path(file_okay=False, path_type=Path),
              help="A new or empty folder for the calibrated copy.")  # fmt: skip
@click.option("--split", default="train", show_default=True, help="Judgments of a BEIR folder: qrels/SPLIT.tsv.")
@click.option("--seed", type=options.Count(min=0), metavar="N", default=0, show_default=True, help="Of the halves.")
@click.option("--force", is_flag=True, help="Write into a folder that is not empty, over the model that may be there.")
@options.as_json
@options.engine
def command(
    model: str, judged: Path, folder: Path, split: str, seed: int, force: bool, as_json: bool, **engine: Any
) -> Exit:
    """Fit the probabilities of the cross-encoder MODEL to the judgments JUDGED, and write a copy of it that gives them.

    JUDGED is read as `crossrank tune` reads it: rows with a query, a document and a label, 0 for what is not relevant.
    At least 20 queries are needed, with documents such as a search finds, also those that do not answer. Scores and
    orders stay as they are. What changes is --probability, "probability" in JSON, and what --threshold cuts. The copy
    has no threshold of its own: the model's was chosen for other probabilities.

    Printed is the expected calibration error, the mean distance of probabilities from how often a passage is relevant:
    of the model as it was, and calibrated, where each half of the queries is judged by a calibration fitted to the
    other half. In a pipe the columns are queries, pairs, relevant ones, error before and after, slope and intercept.
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
        found = calibrated(scorer, judgments, seed=seed, progress=lambda done, total: report("scoring", done, total))
    for finding in found.findings:
        terminal.warn(f"{terminal.shown(finding.message)}.")
    fitted = found.calibration
    checkpoint.export(scorer.checkpoint.calibrated_by(fitted.slope, fitted.intercept), folder, overwrite=force)
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
    }
    if as_json:
        terminal.json_line({**told, "folder": str(folder)})
    elif terminal.on_terminal():
        was = "it gave no probabilities before" if before is None else f"{before:.3f} before"
        pairs = f"{found.after.pairs:,} pairs of {found.queries:,} queries, {found.after.relevant:,} of them relevant"
        click.echo(f"Expected calibration error {found.after.error:.3f}; {was}. {pairs}.")
        click.echo(f"The calibrated model is in {click.format_filename(folder)}.")
    else:
        terminal.tab_line(*told.values())
    if before is not None and before <= found.after.error:
        terminal.warn("the probabilities that the model had were no worse here: prefer them, or judge more queries.")
