"""`crossrank search --queries`: many queries over an index, as one TREC run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crossrank.cli import terminal

if TYPE_CHECKING:
    from crossrank.answer import Answer
    from crossrank.pipeline import Pipeline
    from crossrank.types import Ranking


def check(query: str | None, queries: Path | None, to: Path | None, alone: Mapping[str, Any]) -> None:
    """Refuse what is neither one query nor a file of many, and what a file of many has no use for.

    Args:
        query: of the command line.
        queries: of `--queries`.
        to: of `--to`.
        alone: options that are for one query, with what they were given.

    Raises:
        click.UsageError: so.
    """
    if (query is None) == (queries is None):
        raise click.UsageError("name one QUERY, or a file of them: --queries FILE --to RUN")
    if (queries is None) != (to is None):
        raise click.UsageError("--queries FILE and --to RUN go together: rankings of many queries are a TREC run")
    if to is None:
        return
    if wrong := next((name for name, given in alone.items() if given), None):
        raise click.UsageError(f"{wrong} is of one query, and --queries asks many")
    if not to.absolute().parent.is_dir():
        raise click.UsageError(f"--to {to}: there is no folder {to.parent}")


def read(path: Path) -> dict[str, str]:
    """Text by query id, each fit to be asked and to stand in a run.

    Raises:
        ReadError: the file is damaged or empty, or a query has no text.
        InputError: an id that a run cannot hold.
    """
    from crossrank.errors import ReadError
    from crossrank.evaluation import read_queries
    from crossrank.evaluation.files import filled
    from crossrank.evaluation.trec import check_name
    from crossrank.types import is_blank

    texts = filled(path, read_queries(path), "queries")
    for query, text in texts.items():
        check_name(query)
        if is_blank(text):
            raise ReadError(f"{path}: the query {query} has no text: give it one, or leave it out")
    return texts


def write(pipeline: Pipeline, texts: Mapping[str, str], to: Path, k: int) -> bool:
    """Search for every query and write the run, whole or not at all; whether a stage failed.

    A document stands where its best passage stands, as `crossrank eval` has it.

    Raises:
        InputError: an id of a document that a run cannot hold.
    """
    from crossrank.evaluation import write_run
    from crossrank.evaluation.folding import documents_of
    from crossrank.evaluation.trec import check_name

    run: dict[str, Ranking] = {}
    said = _Said()
    # All that was found, because several passages may be one document.
    most = pipeline.depth * len(pipeline.retrievers)
    with terminal.progress() as progress:
        for number, (query, text) in enumerate(texts.items(), start=1):
            answer = pipeline.search(text, most)
            said.add(answer)
            ranking = documents_of(answer.ranking, answer.passages)
            # Now and not at the end, when hours would be lost.
            for document in ranking.ids:
                check_name(document)
            run[query] = ranking.cut(k)
            progress("searching", number, len(texts))
    write_run(to, run)
    said.tell()
    terminal.note(f"Wrote the rankings of {terminal.count(len(run), 'query', 'queries')} to {to}.")
    return bool(said.failed)


class _Said:
    """What is said of all answers together: a line a query would be thousands."""

    def __init__(self) -> None:
        self.failed = self.hurried = self.late = self.cut = self.empty = 0
        self.reason = ""

    def add(self, answer: Answer) -> None:
        traces = answer.traces
        self.failed += bool(answer.failed)
        self.hurried += any(trace.stopped in ("deadline", "plan") for trace in traces)
        self.late += answer.late
        self.cut += any(cut.position < 0 and cut.lost for trace in traces for cut in trace.truncations)
        self.empty += not answer.passages
        self.reason = self.reason or next((trace.note for trace in traces if trace.stopped == "error"), "")

    def tell(self) -> None:
        told = (
            (self.failed, f"a stage failed, and the order before it was kept: {self.reason}"),
            (self.hurried, "passages were left unread for want of time"),
            (self.late, "the answer took longer than the budget"),
            (self.cut, "a model did not read the query to its end"),
            (self.empty, "nothing was found"),
        )
        for count, what in told:
            if count:
                terminal.warn(f"for {terminal.count(count, 'query', 'queries')} {what}.")
