"""`crossrank bulk`: work that takes hours, in parts that survive a kill, on this machine or on a Ray cluster."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from crossrank import cores
from crossrank.cli import options, terminal
from crossrank.cli.exits import Exit
from crossrank.cli.group import Group

if TYPE_CHECKING:
    from crossrank.distributed import Reranked, Workers
    from crossrank.distributed.sources import Source

F = TypeVar("F", bound=Callable[..., Any])


def _workers(command: F) -> F:
    """Who does the work: `--workers`, `--ray`."""
    count = click.option(
        "--workers", type=options.Count(min=0), metavar="N",
        help="Processes of this machine, or actors of a cluster, of --threads each; 0 is this process alone.  "
        "[default: one for each core]",
    )  # fmt: skip
    ray = click.option(
        "--ray", metavar="ADDRESS",
        help="Work on a Ray cluster: its address, auto for the one that this machine belongs to, local for one on this "
        "machine alone.",
    )  # fmt: skip
    return count(ray(command))


_part_tokens = click.option(
    "--part-tokens", type=options.Count(min=1), metavar="N", default=500_000, show_default=True,
    help="Tokens of a part, about: what a killed worker does again.",
)  # fmt: skip


@click.group(
    "bulk",
    cls=Group,
    short_help="Rerank millions of pairs, or index a large corpus, in parts that survive a kill.",
)
def command() -> None:
    """Work that takes hours: cut into parts, done by many processes or a Ray cluster, gone on with after a kill."""


@command.command(
    "rerank",
    short_help="Rerank every query of a run of any length.",
    epilog="""\b
Examples:
  crossrank bulk rerank first-stage.run --data msmarco/ --to scores/ --ranking reranked.run
  crossrank bulk rerank pairs-*.parquet --to scores/ --ranking ranked.parquet -k 100
  crossrank bulk rerank pairs.jsonl --to /shared/scores --ray auto --workers 200

Killed or interrupted at any moment, the same command goes on: parts that are done are not scored again.
""",
)
@click.argument("inputs", nargs=-1, required=True, type=options.Given(dir_okay=False, path_type=Path))
@click.option("--data", metavar="FOLDER", type=options.Given(file_okay=False, path_type=Path),
              help="Texts of a TREC run: queries.jsonl and corpus.jsonl, as BEIR has them, also .gz.")  # fmt: skip
@click.option("--to", "folder", metavar="DIR", required=True, type=click.Path(file_okay=False, path_type=Path),
              help="New, or of the same work: the texts, and a file for each part of the scores.")  # fmt: skip
@click.option("--ranking", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
              help="Where the rankings go; .jsonl and .parquet hold scores, any other name is a TREC run.  "
              "[default: DIR/ranking.jsonl]")  # fmt: skip
@click.option(
    "-k", cls=options.Top, type=options.Count(min=1), metavar="N", help="Entries of a ranking.  [default: all]"
)
@options.model
@_workers
@_part_tokens
@click.option(
    "--max-length", type=options.Count(min=5), metavar="N",
    help="Tokens in one sequence; longer passages take more windows, at most 64.  [default: the model's]",
)  # fmt: skip
@options.as_json
@options.engine
def rerank(
    inputs: tuple[Path, ...],
    data: Path | None,
    folder: Path,
    ranking: Path | None,
    k: int | None,
    model: str | None,
    workers: int | None,
    ray: str | None,
    part_tokens: int,
    max_length: int | None,
    as_json: bool,
    backend: str,
    device: str,
    dtype: str,
    threads: int | None,
) -> None:
    """Score every pair of INPUTS and write the ranking of each query.

    INPUTS is one TREC run with --data, or files of rows, .jsonl, .jsonl.gz or .parquet, that hold query_id,
    document_id, query, text and perhaps title. A row of .jsonl may also hold a query and its documents, {"query": ...,
    "documents": ["...", "..."]}, whose ids are then its line and their positions, such as 7 and 7-0. They are read once
    and never held in memory; DIR gets a copy of the texts. On a cluster, all machines must see DIR and the model's
    folder under the same path.

    Equal scores keep the order of the input, documents without text come last. With the native engine, scores are the
    same to the bit whoever computes them.
    """
    from crossrank import distributed

    began = time.perf_counter()
    with terminal.progress() as report:
        done = distributed.rerank(
            _source(inputs, data),
            folder,
            model,
            ranking=ranking,
            k=k,
            workers=_asked(workers, threads, ray),
            part_tokens=part_tokens,
            options={"backend": backend, "device": device, "dtype": dtype, "max_length": max_length},
            progress=report,
        )
    _print(done, time.perf_counter() - began, as_json)


@command.command(
    "index",
    short_help="Index a large corpus, or bring its index up to date.",
    epilog="""\b
Examples:
  crossrank bulk index msmarco/ --to msmarco.index
  crossrank bulk index /shared/corpus-*.parquet --to /shared/my.index --ray auto --workers 200

Killed or interrupted at any moment, the same command goes on: parts that are done are not embedded again. Afterwards
`crossrank index` and `crossrank search` use the index like any other.
""",
)
@click.argument("paths", metavar="PATHS...", nargs=-1, required=True, type=click.Path())
@click.option("--to", "folder", metavar="DIR", required=True, type=click.Path(file_okay=False, path_type=Path),
              help="The index; DIR.bulk holds the work until the index has it.")  # fmt: skip
@click.option("--model", "-m", type=options.ModelName(), envvar="CROSSRANK_EMBEDDER", show_envvar=True,
              help="Bi-encoder that makes the vectors.  [default: the index's own, or embed]")  # fmt: skip
@click.option("--passage-tokens", type=options.Count(min=16), metavar="N",
              help="Tokens of a passage, at most.  [default: as `crossrank index`]")  # fmt: skip
@click.option("--language", metavar="NAME", help="Of stemming and stop words in BM25; any for neither.")
@options.prompts
@_workers
@_part_tokens
@options.as_json
@options.engine
def index(
    paths: tuple[str, ...],
    folder: Path,
    model: str | None,
    passage_tokens: int | None,
    language: str | None,
    query_prompt: str | None,
    document_prompt: str | None,
    workers: int | None,
    ray: str | None,
    part_tokens: int,
    as_json: bool,
    backend: str,
    device: str,
    dtype: str,
    threads: int | None,
) -> int:
    """Index PATHS as `crossrank index` does, with many workers.

    They cut and embed the documents; this process reads the files and writes the index. On a cluster, all machines must
    see DIR.bulk and the model's folder under the same path.
    """
    from crossrank.cli.index import check_room, made_with, print_json, print_summary
    from crossrank.distributed import indexing
    from crossrank.embedder import load_embedder

    began = time.perf_counter()
    made = made_with(folder)
    name = model or (made.model if made else None)
    before = made.prompts if made else {}
    prompts = options.prompts_asked(before, query_prompt, document_prompt)
    engine: dict[str, Any] = {"backend": backend, "device": device, "dtype": dtype, **prompts}
    if (query_prompt, document_prompt) != (None, None):
        options.check_prompts(folder, made.prompts if made else None, load_embedder(name, **engine))
    if passage_tokens is not None:
        check_room(passage_tokens, load_embedder(name, **engine))
    with terminal.progress() as report:
        done = indexing.index(
            paths,
            folder,
            name,
            size=passage_tokens,
            language=language,
            workers=_asked(workers, threads, ray),
            part_tokens=part_tokens,
            options=engine,
            progress=report,
        )
    seconds = time.perf_counter() - began
    if done.discarded:
        parts = terminal.count(done.discarded, "part")
        terminal.note(f"{parts} of an interrupted run were of other files or options, and were made anew.")
    if as_json:
        print_json(done.passages, done.changes, seconds)
    else:
        print_summary(folder, done.passages, done.changes, seconds)
    return Exit.SOME_FAILED if done.changes.failed else Exit.OK


def _source(inputs: tuple[Path, ...], data: Path | None) -> Source:
    from crossrank.distributed import RowSource, RunSource

    if data is None:
        return RowSource(inputs)
    if len(inputs) > 1:
        raise click.UsageError("with --data there is one run; join several into one file")
    return RunSource.of(inputs[0], data)


def _asked(count: int | None, threads: int | None, ray: str | None) -> Workers:
    from crossrank.distributed import Workers

    if count is None:
        count = 0 if ray or cores.available() == 1 else max(1, cores.available() // (threads or 1))
    if count or ray:
        # Read when a library is first used: tokenizers would start a thread for each core in every worker.
        os.environ.setdefault("RAYON_NUM_THREADS", str(threads or 1))
        # Nothing about this work leaves the machine unless its user says so.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    return Workers(count, threads, ray)


def _print(done: Reranked, seconds: float, as_json: bool) -> None:
    totals = done.totals
    if as_json:
        terminal.json_line(
            {
                "ranking": str(done.ranking),
                "scored": done.scored,
                "kept": done.kept,
                **asdict(totals),
                "seconds": seconds,
            }
        )
        return
    terminal.out(
        f"{click.format_filename(done.ranking)}: {terminal.count(totals.pairs, 'pair')}, {done.scored:,} scored now, "
        f"{done.kept:,} before. {terminal.duration(seconds)}."
    )
    if totals.blank:
        pairs = terminal.count(totals.blank, "pair has", "pairs have")
        terminal.warn(f"{pairs} a document without text and came last.")
    if totals.unread:
        pairs = terminal.count(totals.unread, "pair has", "pairs have")
        terminal.warn(
            f"{pairs} a passage that was not read whole; `unread` in the parts and in .jsonl or .parquet rankings says "
            "which. Split such texts."
        )
    if totals.queries_cut:
        terminal.warn("Some queries were cut: the model read only their beginnings. Shorten them.")
