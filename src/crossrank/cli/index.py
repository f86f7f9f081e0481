"""`crossrank index`: files to an index, incrementally, with a progress bar on a terminal."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crossrank.cli import options, terminal
from crossrank.cli.exits import Exit

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from crossrank.embedder import TextEmbedder
    from crossrank.index.changes import Changes, Progress
    from crossrank.index.records import Settings
    from crossrank.types import Embedder

# Failures named on a terminal; the rest are counted, and --json names all of them.
_NAMED = 20


@click.command(
    "index",
    short_help="Index files and folders, or bring their index up to date.",
    epilog="""\b
Examples:
  crossrank index docs/ --to docs.index
  crossrank index notes.md papers/*.pdf tickets.jsonl --to my.index
  crossrank index docs/ --to docs.index --rebuild --passage-tokens 150

Running it again reads only what changed. What is gone from a folder in PATHS is removed from the index, and so is a
file that PATHS still name; one that g/*.txt no longer names stays until g or the file is given. Interrupted at any
moment, the index keeps what was committed, and the same command, without --rebuild, finishes the work.
""",
)
@click.argument("paths", metavar="PATHS...", nargs=-1, required=True, type=click.Path())
@click.option("--to", "folder", metavar="DIR", required=True, type=click.Path(file_okay=False, path_type=Path),
              help="The index: made if there is none, otherwise brought up to date.")  # fmt: skip
@click.option("--rebuild", is_flag=True, help="Start from nothing, also with another embedder or passage size; "
              "settings that are not named stay as they were.")  # fmt: skip
@click.option("--model", "-m", type=options.ModelName(), envvar="CROSSRANK_EMBEDDER", show_envvar=True,
              help="Bi-encoder that makes the vectors; URL#MODEL is one behind an OpenAI-compatible address, to which "
              "all texts and OPENAI_API_KEY are sent.  [default: the index's own, or embed]")  # fmt: skip
@click.option("--passage-tokens", type=options.Count(min=16), metavar="N",
              help="Tokens of a passage, at most; longer ones are split.  "
              "[default: the index's, or 200, or what the bi-encoder reads where that is less]")  # fmt: skip
@click.option("--late", type=options.ModelName(), metavar="NAME",
              help="Late-interaction model whose token vectors are kept too, some 30 kB a passage, so that search need "
              "not encode passages; none for none.  [default: the index's own, or none]")  # fmt: skip
@click.option("--language", metavar="NAME", help="Of stemming and stop words in BM25; any for neither.  "
              "[default: the index's own, or English]")  # fmt: skip
@options.prompts
@options.as_json
@options.engine
def command(
    paths: tuple[str, ...],
    folder: Path,
    rebuild: bool,
    model: str | None,
    passage_tokens: int | None,
    late: str | None,
    language: str | None,
    query_prompt: str | None,
    document_prompt: str | None,
    as_json: bool,
    backend: str,
    device: str,
    dtype: str,
    threads: int | None,
) -> int:
    """Index PATHS, files and folders of them, so that `crossrank search` finds their passages.

    Reads .txt, .md, .rst, .html, .pdf, .jsonl, .csv, .tsv and .parquet. A file is one document; a row of a .jsonl,
    .csv, .tsv or .parquet file is one, too. The first line of a .csv or .tsv file names its columns; in
    folders, a .tsv file without a column of texts is passed over. In a .tsv file a quote is a letter like others,
    unless it is around a whole cell, which may hold tabs and line ends then. Fields in the front matter of an .md
    file are metadata, for --filter, as other columns of rows are.
    """
    from crossrank.index import Index, readers
    from crossrank.index.folders import TABLE
    from crossrank.lateinteraction import load_late

    # pypdf reports every oddity of a PDF by logging; what matters arrives as a failure with its reason.
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    began = time.perf_counter()
    made = made_with(folder)
    if rebuild or made is None:
        # An index that is there may know a path that is gone; a new or rebuilt one is written before paths are read.
        readers.check(paths)
    name = model or (made.model if made else None)
    told_late = late is not None
    late = None if late == "none" else late or (made.late_model if made else None)
    with _of_the_index(model is None and made is not None, "--model NAME"):
        how: dict[str, Any] = {"backend": backend, "device": device, "dtype": dtype, "threads": threads}
        prompts = options.prompts_asked(_prompts(made, model, rebuild), query_prompt, document_prompt)
        embedder, tokenizer = _embedder(name, model is not None, {**how, **prompts}, passage_tokens)
    if (query_prompt, document_prompt) != (None, None):
        options.check_prompts(folder, None if rebuild or made is None else made.prompts, embedder)
    with _of_the_index(not told_late, "--late NAME (or none)"):
        vectors = load_late(late, **how) if late else None
    size, overlap = passage_tokens, None
    if rebuild and made is None and (folder / TABLE).exists():
        terminal.note(f"The settings of {folder} cannot be read, so the defaults are used where none are named.")
    if rebuild and made is not None:
        size, overlap = _sizes(made, passage_tokens, embedder)
        language = language or made.language
    index = Index.open_or_create(
        folder,
        embedder,
        tokenizer,
        size=size,
        overlap=overlap,
        language=language,
        rebuild=rebuild,
        late=vectors,
    )
    try:
        with _progress() as report:
            changes = index.update(paths, embedder, tokenizer, report, late=vectors)
    except KeyboardInterrupt:
        held, same = terminal.count(len(index), "passage"), "the same command" + " without --rebuild" * rebuild
        terminal.note(f"Stopped. {folder} holds {held}; {same} finishes the work.")
        return Exit.INTERRUPTED
    if as_json:
        print_json(len(index), changes, time.perf_counter() - began)
    else:
        print_summary(folder, len(index), changes, time.perf_counter() - began)
    return Exit.SOME_FAILED if changes.failed else Exit.OK


@contextmanager
def _of_the_index(own: bool, option: str) -> Iterator[None]:
    """Say of a model that cannot be loaded where its name is from, when the index named it and not the user."""
    from crossrank.errors import CheckpointError

    try:
        yield
    except CheckpointError as error:
        if not own:
            raise
        raise CheckpointError(
            f"{error}; the index was made with it: name where it is now, or with --rebuild another, as {option}"
        ) from error


def _sizes(made: Settings, passage_tokens: int | None, embedder: Embedder) -> tuple[int, int]:
    """Tokens of a passage and of its overlap when an index is made anew: as before, where nothing else was asked for.

    Another embedder may read less.
    """
    from crossrank.index.passages import LEAST
    from crossrank.types import ReportingEmbedder

    size = passage_tokens or made.size
    if passage_tokens is None and embedder.fingerprint != made.embedder and isinstance(embedder, ReportingEmbedder):
        size = min(size, max(embedder.room, LEAST))
    return size, min(made.overlap, size // 4)


def _prompts(made: Settings | None, model: str | None, rebuild: bool) -> Mapping[str, str]:
    """Those that an index was made with, unless it is made anew with another model."""
    from crossrank.addresses import is_address
    from crossrank.models import named

    if made is None:
        return {}
    if not rebuild or model is None:
        return made.prompts
    kept = model if is_address(model) else named.lasting(named.read(model, default="embed"))
    return made.prompts if kept == made.model else {}


def _embedder(
    name: str | None, asked: bool, how: Mapping[str, Any], passage_tokens: int | None
) -> tuple[Embedder, Tokenizer]:
    """The embedder, and what cuts passages."""
    from crossrank.embedder import asked_as, load_embedder
    from crossrank.errors import IndexFileError
    from crossrank.models import named

    remote = options.remote_embedder(name)
    if remote is not None:
        if not asked:
            raise IndexFileError(
                f"this index was made with a model behind an address; to send texts there, name it: --model {name}"
            )
        # The cross-encoder in the wheel shares this tokenizer, and finds its ids in the index.
        prompted = asked_as(remote, {key: how[key] for key in how if key.endswith("_prompt")})
        return prompted, named.read(None, default="embed").tokenizer()
    embedder = load_embedder(name, **how)
    check_room(passage_tokens, embedder)
    return embedder, embedder.tokenizer


def check_room(passage_tokens: int | None, embedder: TextEmbedder) -> None:
    """Refuse passages whose ends no vector would tell of, before hours are spent on them.

    Whoever types a number does not mean that dense search should ignore a part of most passages, and a report after the
    work is too late. The library obeys (`Index.create`), for programs that want documents whole.
    """
    from crossrank.errors import InputError

    room, name = embedder.room, embedder.checkpoint.name
    if passage_tokens is not None and passage_tokens > room:
        raise InputError(
            f"--passage-tokens {passage_tokens} is more than the {room} tokens that {name} reads, so the ends of "
            f"passages would have no part in their vectors: use --passage-tokens {room} or fewer, or a bi-encoder that "
            "reads more (--model)"
        )


def made_with(folder: Path) -> Settings | None:
    """How an existing index was made."""
    from crossrank.errors import IndexFileError
    from crossrank.index import Index

    if not folder.exists():
        return None
    try:
        return Index.open(folder).settings
    except IndexFileError:
        # No index yet, or a damaged one: open_or_create says which.
        return None


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None] | None]:
    """A progress bar on a terminal; nothing in a pipe."""
    if not terminal.on_terminal(err=True):
        yield None
        return
    from rich import progress

    columns = (
        progress.TextColumn("{task.description:<10}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("documents"),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[source]}", markup=False),
    )
    with progress.Progress(*columns, console=terminal.console(err=True), transient=True) as bar:
        task = bar.add_task("reading", total=None, source="")

        def report(now: Progress) -> None:
            source = terminal.shown(now.source, 40)
            bar.update(task, description=now.stage, completed=now.documents, total=now.expected or None, source=source)

        yield report


def print_json(passages: int, changes: Changes, seconds: float) -> None:
    """What an update did, as one JSON object."""
    terminal.json_line(
        {
            "passages": passages,
            "added": changes.added,
            "changed": changes.changed,
            "deleted": changes.deleted,
            "unchanged": changes.unchanged,
            "unread": [asdict(unread) for unread in changes.unread],
            "passed_over": dict(changes.passed_over),
            "omitted": dict(changes.omitted),
            "missing": list(changes.missing),
            "failed": [{"source": failure.source, "reason": failure.reason} for failure in changes.failed],
            "seconds": seconds,
        }
    )


def print_summary(folder: Path, passages: int, changes: Changes, seconds: float) -> None:
    """What an update did, for people."""
    from crossrank.index.documents import METADATA_CHARACTERS, NESTED_CHARACTERS, STRING_CHARACTERS

    terminal.out(
        f"{folder}: {terminal.count(passages, 'passage')}. Documents: {changes.added:,} added, {changes.changed:,} "
        f"changed, {changes.deleted:,} deleted, {changes.unchanged:,} unchanged, {len(changes.failed):,} failed. "
        f"{terminal.duration(seconds)}."
    )
    if not passages and not changes.failed:
        terminal.note("Nothing to index was found; `crossrank index --help` names the kinds of files that are read.")
    if changes.passed_over:
        kinds = [
            f"{count:,} {terminal.shown(suffix, 30) or 'without a suffix'}"
            for suffix, count in changes.passed_over.items()
        ]
        terminal.note(f"Not indexed, because such files or folders are not read: {terminal.list_of(kinds, 5)}.")
    if changes.omitted:
        fields = [f"{terminal.shown(name, 40)} (of {count:,})" for name, count in changes.omitted.items()]
        terminal.note(
            f"Left out of the metadata, because they are bytes, texts longer than {STRING_CHARACTERS:,} characters, "
            f"lists or mappings longer than {NESTED_CHARACTERS:,} characters as JSON, beyond the "
            f"{METADATA_CHARACTERS:,} characters of a document, or in `metadata` while the row has another value: "
            f"{terminal.list_of(fields, 5)}."
        )
    if changes.missing:
        files = terminal.list_of([terminal.shown(path, 100) for path in changes.missing], 3)
        gone = terminal.count(len(changes.missing), "indexed file is gone", "indexed files are gone")
        terminal.note(f"Elsewhere than in PATHS {gone} and will be removed when named there: {files}.")
    _warn_of_unread(changes)
    for failure in changes.failed[:_NAMED]:
        source, reason = terminal.shown(failure.source, 200), terminal.shown(failure.reason, 300)
        # Most reasons name the file they are about.
        terminal.warn(reason if reason.startswith(source) else f"{source}: {reason}")
    if len(changes.failed) > _NAMED:
        terminal.note(f"and {len(changes.failed) - _NAMED:,} more; --json names all of them")


def _warn_of_unread(changes: Changes) -> None:
    if not changes.unread:
        return
    names = [f"{terminal.shown(it.passage, 60)} ({it.told})" for it in changes.unread]
    terminal.warn(
        f"{terminal.count(len(names), 'passage is', 'passages are')} longer than what a vector tells of, so dense "
        f"search ignores the ends: {terminal.list_of(names, 3)}. BM25 and the cross-encoder read all of them. Shorten "
        "long titles, or make the index anew with smaller passages (--rebuild --passage-tokens N)."
    )
