"""`crossrank label`: grades from a chat model, and how they agree with people's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crossrank.cli import options, terminal
from crossrank.cli.exits import Exit

if TYPE_CHECKING:
    from crossrank.training.grading import Grading
    from crossrank.training.judgments import Judgments

    Labels = Mapping[tuple[str, str], float]  # by `query_key` and `document_key`

_NAMED = 5
_ELSEWHERE = ("blank", "spelling")
"""Findings that are not told here: blank pairs are counted with the grades, and spelling matters to a training only."""


@click.command(
    "label",
    short_help="Grade pairs with a chat model, for `crossrank tune`.",
    epilog="""\b
Examples:
  crossrank label pairs.jsonl --url http://localhost:8000/v1 --grader my-model --to graded.jsonl
  crossrank label judged.csv --url https://api.example.com/v1 --grader big --price 2.5 10 --to graded.jsonl
  crossrank tune graded.jsonl --to my-model

Interrupted, the same command asks only for what is missing.
""",
)
@click.argument("data", type=options.Given(path_type=Path))
@click.option("--to", "target", metavar="FILE", required=True, type=click.Path(dir_okay=False, path_type=Path),
              help="A .jsonl file for the grades, appended to.")  # fmt: skip
@click.option("--url", required=True, envvar="CROSSRANK_GRADER_URL", show_envvar=True,
              help="Of an OpenAI-compatible API, such as http://localhost:8000/v1.")  # fmt: skip
@click.option(
    "--grader", required=True, envvar="CROSSRANK_GRADER", show_envvar=True, help="The chat model's name there."
)
@click.option("--key", envvar="CROSSRANK_GRADER_KEY", show_envvar=True, default="",
              help="API key; better given by the variable, which no process list shows.")  # fmt: skip
@click.option("--split", default="train", show_default=True, help="Judgments of a BEIR folder: qrels/SPLIT.tsv.")
@click.option("--limit", type=options.Count(min=1), metavar="N", help="Grade the first N different pairs only.")
@click.option("--parallel", type=click.IntRange(1, 64), default=4, show_default=True, help="Questions at a time.")
@click.option("--timeout", type=options.Seconds(min=1), default=60.0, show_default=True, help="Seconds for an answer.")
@click.option("--answer-tokens", type=options.Count(min=1), default=16, show_default=True,
              help="Of one answer and its end; a model that thinks aloud needs more.")  # fmt: skip
@click.option("--price", nargs=2, type=options.Number(min=0), metavar="IN OUT",
              help="Of a million tokens read and written, to show costs.")  # fmt: skip
@options.as_json
def command(data: Path, target: Path, limit: int | None, price: tuple[float, float] | None, **chosen: Any) -> int:
    """Grade the pairs of DATA from 0 to 10 with a chat model.

    DATA is read as `crossrank tune` reads it. Labels in it are taken as people's: how far the grades agree with them is
    printed (Cohen's kappa with quadratic weights, and Kendall's tau). Every pair is sent to the address that you give.
    In a pipe the columns are graded, asked, failed, tokens read, tokens written, cost, kappa and tau. A cost is of the
    answers that came with a count of tokens, and absent where none did.
    """
    from crossrank.training import reading
    from crossrank.training.grading import MOST_CHARACTERS, Grader, graded

    judgments = reading.read(data, split=chosen["split"])
    if judgments.unread:
        held = terminal.shown(", ".join(judgments.unread), 100)
        terminal.warn(f"rows have no labels to compare with; if one of these columns holds them, call it label: {held}")
    people = _people(judgments)
    pairs = list(dict.fromkeys((row.query, row.document) for row in judgments.rows))[:limit]
    if not terminal.on_terminal() or not chosen["as_json"]:
        characters = sum(len(query) + min(len(document), MOST_CHARACTERS) + 500 for query, document in pairs)
        terminal.note(f"{terminal.count(len(pairs), 'pair')}, about {characters // 4:,} tokens when all are asked.")
    with (
        Grader(chosen["url"], chosen["grader"], chosen["key"], chosen["timeout"], chosen["answer_tokens"]) as grader,
        _progress() as report,
    ):
        found = graded(pairs, grader, target, chosen["parallel"], report)
    told = _facts(found, judgments, people, price)
    if chosen["as_json"]:
        terminal.json_line(told)
    elif terminal.on_terminal():
        _print(told, target)
    else:
        terminal.tab_line(*told.values())
    missing = len(pairs) - len(found.grades) - found.blank
    _warn(found, missing)
    if not found.grades:
        return Exit.ERROR
    return Exit.SOME_FAILED if missing else Exit.OK


def _warn(found: Grading, missing: int) -> None:
    from crossrank.training.grading import MOST_CHARACTERS

    for (query, _), reason in found.failed[:_NAMED]:
        terminal.warn(f"no grade for {terminal.shown(query, 60)}: {terminal.shown(reason, 200)}")
    if found.stopped:
        left = terminal.count(found.left, "pair was", "pairs were")
        terminal.warn(f"{terminal.shown(found.stopped, 300)}; {left} not asked about.")
    if found.blank:
        terminal.warn(f"{terminal.count(found.blank, 'pair')} with a blank query or document: not asked about.")
    if found.cut:
        cut = terminal.count(found.cut, "document was", "documents were")
        terminal.warn(f"{cut} sent without the end: the first {MOST_CHARACTERS:,} characters are graded.")
    if found.uncounted:
        answers = terminal.count(found.uncounted, "answer")
        terminal.warn(f"{answers} came without a count of tokens: neither the tokens nor the cost hold them.")
    if found.others:
        terminal.warn(
            f"the file holds grades of {terminal.shown(', '.join(found.others), 100)}, too, and two models disagree: "
            "give each a file of its own to tune on."
        )
    if missing:
        terminal.warn(f"{terminal.count(missing, 'pair has', 'pairs have')} no grade; the same command asks again.")


def _people(judgments: Judgments) -> Labels:
    """The label of each pair on which people agree; what is wrong with the labels is told."""
    from crossrank.training.checks import Finding, pairs

    findings: list[Finding] = []
    labels = {
        (query, document): max(0.0, *given)
        for query, (_, documents) in pairs(judgments, findings).items()
        for document, (_, given) in documents.items()
        if len(given) == 1
    }
    for finding in findings:
        if finding.name not in _ELSEWHERE:
            terminal.warn(f"{terminal.shown(finding.message)}.")
    return labels if judgments.scale == "labels" else {}


def _facts(found: Grading, judgments: Judgments, people: Labels, price: tuple[float, float] | None) -> dict[str, Any]:
    cost = None
    if price is not None and (found.prompt_tokens or not found.uncounted):
        cost = (found.prompt_tokens * price[0] + found.answer_tokens * price[1]) / 1e6
    kappa, tau = _agreement(found, judgments, people)
    return {
        "graded": len(found.grades),
        "asked": found.asked,
        "failed": len(found.failed),
        "tokens_read": found.prompt_tokens,
        "tokens_written": found.answer_tokens,
        "cost": cost,
        "kappa": kappa,
        "tau": tau,
    }


def _agreement(found: Grading, judgments: Judgments, people: Labels) -> tuple[float | None, float | None]:
    """Kappa on the people's scale, and tau; None where people said nothing.

    The grader's 0 to 10 are brought to it by their share of the highest label, halves up: a 5 stands on the side of
    "relevant" where people said 0 and 1, as a label of 0.5 does for `crossrank tune`.
    """
    from crossrank.agreement import kendall, weighted_kappa
    from crossrank.training.grading import HIGHEST
    from crossrank.training.judgments import document_key, query_key

    keys = [(query_key(one.query), document_key(one.document)) for one in found.grades]
    both = [(people[key], one.score) for key, one in zip(keys, found.grades, strict=True) if key in people]
    if len(both) < 2:
        return None, None
    theirs, grades = [label for label, _ in both], [score for _, score in both]
    # Of all rows: those that are graded may hold no document of the highest grade.
    highest = max(1.0, *(row.label for row in judgments.rows))
    return weighted_kappa(theirs, [int(score / HIGHEST * highest + 0.5) for score in grades]), kendall(theirs, grades)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None] | None]:
    if not terminal.on_terminal(err=True):
        yield None
        return
    from rich import progress

    columns = (progress.BarColumn(), progress.MofNCompleteColumn(), progress.TimeRemainingColumn())
    with progress.Progress(*columns, console=terminal.console(err=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _print(told: dict[str, Any], target: Path) -> None:
    cost = "" if told["cost"] is None else f", cost {told['cost']:.4f}"
    click.echo(
        f"{told['graded']:,} pairs are graded in {click.format_filename(target)}; {told['asked']:,} were asked for, "
        f"{told['failed']:,} failed. {told['tokens_read']:,} tokens read, {told['tokens_written']:,} written{cost}."
    )
    if told["kappa"] is not None:
        click.echo(f"Agreement with the labels: kappa {told['kappa']:.2f} (quadratic weights), tau {told['tau']:.2f}.")
