"""`crossrank tune`: fine-tune on judgments, and keep the base model unless the tuned one is better."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crossrank.cli import options, terminal
from crossrank.cli.exits import Exit
from crossrank.errors import InputError

if TYPE_CHECKING:
    from crossrank.training.checks import Finding
    from crossrank.training.judgments import Group
    from crossrank.training.negatives import Nearest
    from crossrank.training.outcome import Engine, Outcome, Progress
    from crossrank.training.settings import Loss

LOSSES = ("bce", "listwise", "lambda", "margin-mse", "distil")
# Queries of a general set that are measured: its values are compared on the same queries.
GENERAL_QUERIES = 100


@click.command(
    "tune",
    short_help="Fine-tune on your judgments; a model that is not better is refused.",
    epilog="""\b
Examples:
  crossrank tune judged.jsonl --to my-model
  crossrank tune judged.csv --index docs.index --to my-model --general beir/nfcorpus
  crossrank tune clicks.csv --clicks --index docs.index --to my-model
  crossrank tune judged.jsonl --check
  crossrank rerank "how do I retry?" passages.txt --model my-model

Interrupted at any moment, the same command goes on and ends with the same model.
""",
)
@click.argument("data", type=options.Given(path_type=Path))
@click.option("--to", "folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path),
              help="The tuned model's folder, made only if it is kept; DIR.tuning holds the work.")  # fmt: skip
@click.option("--refused", metavar="DIR", type=click.Path(file_okay=False, path_type=Path),
              help="Also keep a trained model that is refused, there, to look at.")  # fmt: skip
@options.model
@click.option("--index", "index", metavar="DIR", type=options.Given(file_okay=False, path_type=Path),
              help="The index that the model will search: hard negatives come from it, and it is decided how the model "
              "ranks what it finds.  [default: lists of the documents in DATA]")  # fmt: skip
@options.embedder
@click.option("--held-out", metavar="FILE", type=options.Given(path_type=Path),
              help="Judgments to decide on.  [default: cross-validation over DATA]")  # fmt: skip
@click.option("--general", multiple=True, metavar="FOLDER",
              type=options.Given(file_okay=False, path_type=Path),
              help="A judged set in BEIR layout on which little may be lost. Repeat it for more.")  # fmt: skip
@click.option("--split", default="train", show_default=True, help="Judgments of a BEIR folder: qrels/SPLIT.tsv.")
@click.option("--clicks", is_flag=True, help="Rows are clicks: what is not in them is unknown.")
@click.option("--check", is_flag=True, help="Only say what is wrong with DATA.")
@click.option("--loss", type=click.Choice(LOSSES), help="[default: by the labels: listwise, lambda or distil]")
@click.option("--folds", type=click.IntRange(2, 20),
              help="Of cross-validation.  [default: 3, or one part held out where that is enough]")  # fmt: skip
@click.option("--repeats", type=click.IntRange(1, 20), help="Trainings of each fold, with seeds of their own.")
@click.option("--epochs", type=click.IntRange(1, 100), help="Passes over the queries, at most.")
@click.option("--layers", type=options.Count(min=1), help="Upper layers that are trained.")
@click.option("--rate", type=options.Number(0, 1, min_open=True, max_open=True), help="Highest learning rate.")
@click.option("--max-tokens", type=options.Count(min=16),
              help="Of a sequence in training; when absent, what holds nine of ten pairs, 64 to 320. A tuned model "
              "still reads as much as its base.")  # fmt: skip
@click.option("--effort", type=options.Number(0.1, 100), default=1.0, show_default=True,
              help="Times the usual number of tokens to train and to measure on.")  # fmt: skip
@click.option("--confidence", type=options.Number(0.5, 1, min_open=True, max_open=True), default=0.95,
              show_default=True, help="That the tuned model is better, one-sided.")  # fmt: skip
@click.option("--most-loss", type=options.Number(0, 1), default=0.02, show_default=True,
              help="What the mean nDCG@10 of general questions may fall by.")  # fmt: skip
@click.option("--seed", type=options.Count(min=0), default=0, show_default=True, help="Of everything that is drawn.")
@click.option("--restart", is_flag=True, help="Throw away an unfinished tuning beside DIR.")
@click.option("--force", is_flag=True, help="Write into a folder that is not empty, over the model that may be there.")
@options.as_json
@options.engine
def command(data: Path, folder: Path | None, check: bool, as_json: bool, **chosen: Any) -> int:
    """Fine-tune a cross-encoder on DATA, and keep it only if it is better on queries that it has not seen.

    DATA is a .jsonl or .csv file of rows with query, document and label (0 is not relevant; grades may be higher), or
    with score (of a larger model), or with neither (clicks); or of query, positive and negative; or a BEIR folder.

    The base model is kept, with exit code 4, when the data cannot be trusted, when the gain may be chance, or when
    general questions are answered worse. In a pipe the columns are kept, gain, its lower and upper end, folder and
    reasons.
    """
    from crossrank import extras
    from crossrank.training import reading

    judgments = reading.read(data, split=chosen["split"], clicks=chosen["clicks"])
    held_out = chosen["held_out"] and reading.read(chosen["held_out"], split="test", clicks=chosen["clicks"])
    if check:
        return _check(judgments, held_out, chosen["loss"], as_json)
    if folder is None:
        raise click.UsageError("say where the tuned model goes with --to DIR, or only --check the data")
    # Asked here, because modules below name smaller extras, which would not be enough.
    for library in ("torch", "transformers", "bm25s", "ir_measures"):
        extras.require(library, extra="train")
    from crossrank.training.settings import Settings
    from crossrank.training.tuning import tune

    usual = Settings()
    settings = Settings(
        **{name: chosen[name] for name in ("loss", "folds", "repeats", "epochs", "layers", "rate", "max_tokens",
                                           "confidence", "most_loss", "seed")},
        tokens=round(usual.tokens * chosen["effort"]),
        measured_tokens=round(usual.measured_tokens * chosen["effort"]),
    )  # fmt: skip
    with _progress() as report:
        outcome = tune(
            judgments,
            folder,
            refused=chosen["refused"],
            model=chosen["model"],
            held_out=held_out,
            nearest=_nearest(chosen),
            general_sets=_general(chosen["general"]),
            settings=settings,
            engine=_engine(chosen),
            restart=chosen["restart"],
            overwrite=chosen["force"],
            report=report,
        )
    _print(outcome, as_json)
    return Exit.OK if outcome.verdict.kept == "tuned" else Exit.BASE_KEPT


def _engine(chosen: Mapping[str, Any]) -> Engine:
    from crossrank.training.outcome import Engine

    return Engine(chosen["backend"], chosen["device"], chosen["dtype"], chosen["threads"])


def _nearest(chosen: Mapping[str, Any]) -> Nearest | None:
    if chosen["index"] is None:
        if chosen["embedder"] is not None:
            raise click.UsageError("--embedder is of an index, and --index names none")
        return None
    from crossrank.pipeline import open_pipeline
    from crossrank.training.searched import searched_by

    engine = {name: chosen[name] for name in ("backend", "device", "dtype", "threads")}
    embedder = options.remote_embedder(chosen["embedder"]) or chosen["embedder"]
    return searched_by(open_pipeline(chosen["index"], embedder=embedder, rerank=False, **engine))


def _general(folders: Sequence[Path]) -> dict[str, list[Group]]:
    from crossrank.evaluation import read_set
    from crossrank.evaluation.words import Words
    from crossrank.training import general

    names = [folder.resolve().name for folder in folders]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise click.UsageError(f"two --general folders are called {twice!r}; rename one")
    found = {}
    for folder in folders:
        judged = read_set(folder)
        words = Words([passage.scored_text for passage in judged.corpus.values()])
        found[judged.name] = general.of_set(judged, words.nearest, GENERAL_QUERIES)
        if not found[judged.name]:
            raise InputError(
                f"--general {folder}: no query of qrels/test has a relevant document and another in corpus.jsonl, so "
                "that nothing would be checked with it. See whether the ids of both files are alike"
            )
    return found


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    """A bar on a terminal; in a pipe a line on stderr for each stage and each epoch."""
    if not terminal.on_terminal(err=True):
        yield _told
        return
    from rich import progress

    columns = (progress.TextColumn("{task.description}", markup=False), progress.BarColumn())
    with progress.Progress(*columns, console=terminal.console(err=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        last = ""

        def report(now: Progress) -> None:
            nonlocal last
            last = _value(now) if now.value is not None else last
            total = now.runs * now.steps or None
            done = (now.run - 1) * now.steps + now.step if total else 0
            bar.update(task, description=_line(now) + last, total=total, completed=done)

        yield report


def _told(now: Progress) -> None:
    if now.stage != "training" or now.value is not None:
        terminal.note(_line(now) + (_value(now) if now.value is not None else ""))


def _line(now: Progress) -> str:
    if now.stage != "training":
        return now.stage
    left = "" if now.left is None else f", {terminal.duration(now.left)} left"
    return f"training {now.run}/{now.runs}, step {now.step}/{now.steps}, loss {now.loss:.3f}{left}"


def _value(now: Progress) -> str:
    return f", held out {now.value:.3f} (base {now.base:.3f})" if now.base is not None else ""


def _check(judgments: Any, held_out: Any, loss: Loss | None, as_json: bool) -> int:
    from dataclasses import asdict

    from crossrank.training.checks import together
    from crossrank.training.settings import check_loss

    if loss is not None:
        check_loss(loss, judgments.scale)
    groups, held, findings, _ = together(judgments, held_out)
    if as_json:
        counts = {"queries": len(groups), "pairs": sum(map(len, groups)), "held_out": len(held)}
        terminal.json_line({**counts, "scale": judgments.scale, "findings": [asdict(one) for one in findings]})
    else:
        _print_findings(findings)
        pairs = terminal.count(sum(map(len, groups)), "pair")
        count = terminal.count(len(groups), "query", "queries")
        besides = f", and {terminal.count(len(held), 'query', 'queries')} are held out" if held_out else ""
        terminal.out(f"{count} with {pairs} can be trained on ({judgments.scale}){besides}.")
    return Exit.BASE_KEPT if any(finding.fatal for finding in findings) else Exit.OK


def _print_findings(findings: Sequence[Finding]) -> None:
    for finding in findings:
        terminal.warn(f"{finding.name}: {finding.message}.")
        for example in finding.examples:
            terminal.note(f"  for example {terminal.shown(example, 140)}")


def _print(outcome: Outcome, as_json: bool) -> None:
    from crossrank.training.card import facts

    if as_json:
        terminal.json_line(facts(outcome))
        return
    _print_findings(outcome.findings)
    verdict, gain = outcome.verdict, outcome.verdict.gain
    if not terminal.on_terminal():
        ends = (gain.mean, gain.low, gain.high) if gain else (None, None, None)
        folder = None if outcome.folder is None else str(outcome.folder)
        terminal.tab_line(verdict.kept, *ends, folder, "; ".join(verdict.reasons) or None)
        return
    if verdict.gain is not None:
        _print_values(outcome)
    if outcome.folder is not None:
        folder = click.format_filename(outcome.folder)
        click.echo(f"The tuned model is better. It is in {folder}.")
        if outcome.in_search is None:
            click.echo(f"  Which --mix of a search suits it, `crossrank eval --models {folder} --mix 0.4,0.8,1` says.")
        else:
            click.echo(f"  A search gives it a share of {outcome.in_search.mix:g}, unless --mix says another.")
        if outcome.uncalibrated:
            click.echo(f"  It gives no probabilities: {terminal.shown(outcome.uncalibrated)}.")
    else:
        there = "nothing was written"
        if outcome.refused is not None:
            there = f"what was trained is in {click.format_filename(outcome.refused)}"
        click.echo(f"The base model is kept; {there}.")
        for reason in verdict.reasons:
            click.echo(f"  {terminal.shown(reason)}")


def _print_values(outcome: Outcome) -> None:
    from crossrank.evaluation.verdict import signed

    verdict = outcome.verdict
    right: Mapping[str, Any] = {"justify": "right", "no_wrap": True}
    table = terminal.table(
        ("nDCG@10", {}), ("queries", right), ("base", right), ("tuned", right), ("difference", right)
    )
    if verdict.gain and verdict.base and verdict.tuned:
        values = f"{verdict.base.mean:.3f}", f"{verdict.tuned.mean:.3f}"
        table.add_row("yours, held out", str(verdict.gain.queries), *values, signed(verdict.gain))
    if verdict.expected:
        # The difference that decides; its values are those of no ranking that anybody sees.
        table.add_row("... expected, with noise", str(verdict.expected.queries), "", "", signed(verdict.expected))
    if found := outcome.in_search:
        at = found.mixes.index(found.mix)
        base, tuned = found.base[at], found.tuned[at]
        share = f"... at a share of {found.mix:g}"
        table.add_row(share, "", f"{base:.3f}", f"{tuned:.3f}", f"{tuned - base:+.3f}")
    for one in verdict.general:
        table.add_row(one.name, str(one.queries), f"{one.base:.3f}", f"{one.tuned:.3f}", f"{-one.loss:+.3f}")
    terminal.console().print(table)
