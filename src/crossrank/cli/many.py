"""`crossrank search --queries`: many queries over an index, as one TREC run."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import click

from crossrank.cli import budget, terminal

if TYPE_CHECKING:
    from crossrank.pipeline import Pipeline
    from crossrank.types import Ranking

Kind = budget.Trouble | Literal["empty", "foreign"]
_SAID: dict[Kind, str] = {
    "failed": "a stage failed, and the order before it was kept",
    "hurried": "passages were left unread for want of time",
    "late": "the answer took longer than the budget",
    "cut": "a model did not read the query to its end",
    "empty": "nothing was found",
    "foreign": "a model has no words in the query's script, so its scores say little",
}


def check(query: str | None, queries: Path | None, to: Path | None, alone: Mapping[str, Any]) -> None:
    """Refuse what is neither one query nor a file of many, and what a file of many has no use for.

    Args:
        query: of the command line.
        queries: of `--queries`.
        to: of `--to`.
        alone: options that are for one query, with what they were given.

    Raises:
        click.UsageError: both or neither are given, one of `queries` and `to` without the other, options of `alone`
            beside them, or `to` in a folder that is not there.
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


def check_per_document(queries: Path | None, most: int | None) -> None:
    """Refuse several passages of a document in a run, which holds each document once; one is what it has anyhow.

    Raises:
        click.UsageError: `--per-document` over 1 beside `--queries`.
    """
    if queries is not None and most is not None and most > 1:
        raise click.UsageError(
            f"--per-document {most} goes without --queries: a run holds each document once, at its best passage"
        )


def read(path: Path) -> dict[str, str]:
    """Text by query id, each fit to be asked and to stand in a run; `-` is stdin.

    Raises:
        ReadError: the file is damaged or empty.
        InputError: a query without text, or an id that a run cannot hold.
    """
    if path != Path("-"):
        return _read(path)
    from crossrank.errors import ReadError

    # By a file of its own: a socket, which a program may give as stdin, cannot be opened by a name.
    with TemporaryDirectory() as folder:
        copy = Path(folder, "queries")
        copy.write_bytes(sys.stdin.buffer.read())
        try:
            return _read(copy)
        except ReadError as error:
            raise ReadError(str(error).replace(str(copy), "stdin")) from error


def _read(path: Path) -> dict[str, str]:
    from crossrank.evaluation import read_queries
    from crossrank.evaluation.candidates import check_texts
    from crossrank.evaluation.files import filled
    from crossrank.evaluation.trec import check_name

    texts = filled(path, read_queries(path), "queries")
    check_texts(texts)
    for query in texts:
        check_name(query)
    return texts


def check_documents(folder: Path, where: Sequence[str]) -> None:
    """Refuse an index whose documents cannot all stand in a run, before hours are spent on its queries.

    Raises:
        InputError: an id has white space. With a filter nobody knows yet whether such a document is found.
    """
    from crossrank.errors import InputError
    from crossrank.evaluation.trec import check_name
    from crossrank.index import Index

    for document in () if where else Index.open(folder).documents():
        try:
            check_name(document)
        except InputError as error:
            raise InputError(
                f"{error}. Rename the file, or give the row another id, and index it again; or ask for one query at a "
                "time with --json"
            ) from None


def write(pipeline: Pipeline, texts: Mapping[str, str], to: Path, k: int) -> bool:
    """Search for every query and write the run, whole or not at all; whether a stage failed.

    Stdout, which is `-`, pipes and devices get the rankings as they come.

    A document stands where its best passage stands, as `crossrank eval` has it.

    Raises:
        InputError: an id of a document that a run cannot hold.
        OSError: the file cannot be written, which is known before the first search.
    """
    from crossrank.evaluation.trec import run_lines, write_rankings
    from crossrank.writing import is_stream

    said: Counter[Kind] = Counter()
    reasons: list[str] = []
    with terminal.progress() as progress:
        rankings = _found(pipeline, texts, k, said, reasons, progress)
        if str(to) == "-":
            for line in run_lines(rankings):
                # Bytes, as in a file: another encoding would make other ids of them.
                click.echo(line.encode(), nl=False)
        elif is_stream(to):
            # Opened to append: /dev/stdout may be a file that holds something.
            with to.open("a", encoding="utf-8", newline="\n") as stream:
                stream.writelines(run_lines(rankings))
        else:
            write_rankings(to, rankings)
    for kind, what in _SAID.items():
        if said[kind]:
            reason = f": {reasons[0]}" if kind == "failed" else ""
            terminal.warn(f"for {terminal.count(said[kind], 'query', 'queries')} {what}{reason}.")
    if str(to) != "-":
        terminal.note(f"Wrote the rankings of {terminal.count(len(texts), 'query', 'queries')} to {to}.")
    return bool(said["failed"])


def _found(
    pipeline: Pipeline,
    texts: Mapping[str, str],
    k: int,
    said: Counter[Kind],
    reasons: list[str],
    progress: Callable[[str, int, int], None],
) -> Iterator[tuple[str, Ranking]]:
    """The `k` best documents of each query; counts what is to be said of all together, a line a query is too much."""
    from crossrank.evaluation.folding import documents_of
    from crossrank.scorers import PairScorer

    # All that was found, because several passages may be one document.
    most = pipeline.depth * len(pipeline.retrievers)
    readers = {stage.name: stage.scorer for stage in pipeline.stages if isinstance(stage.scorer, PairScorer)}
    for number, (query, text) in enumerate(texts.items(), start=1):
        answer = pipeline.search(text, most)
        found = list(budget.troubles(answer))
        said.update({kind for kind, _ in found} | ({"empty"} if not answer.passages else set()))
        read = [readers[trace.name] for trace in answer.traces if trace.scores and trace.name in readers]
        said.update({"foreign"} if any(scorer.caution(text) for scorer in read) else ())
        reasons += [told for kind, told in found if kind == "failed"][:1]
        yield query, documents_of(answer.ranking, answer.passages).cut(k)
        progress("searching", number, len(texts))
