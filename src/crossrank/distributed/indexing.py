"""Indexing of a large corpus: workers cut and embed, then the index is brought up to date as it always is."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossrank.distributed import database, documents, workfolder
from crossrank.distributed.embedding import Embedding, Prepared, identity_of
from crossrank.distributed.leading import PART_TOKENS, Progress, Workers, lead
from crossrank.embedder import load_embedder
from crossrank.errors import IndexFileError, InputError, ReadError
from crossrank.index import Index, readers
from crossrank.index.changes import Changes
from crossrank.index.changes import Progress as Update
from crossrank.index.documents import paths_in
from crossrank.models import named


@dataclass(frozen=True, slots=True)
class Indexed:
    """What a bulk indexing did.

    Attributes:
        changes: of the index.
        passages: that it holds now.
        embedded: documents whose passages were embedded now.
        kept: documents whose passages an earlier run had embedded.
        discarded: parts of an earlier run that were of other files or arguments, and were thrown away.
    """

    changes: Changes
    passages: int
    embedded: int
    kept: int
    discarded: int = 0


def index(
    paths: Iterable[str | Path],
    to: str | Path,
    model: str | Path | None = None,
    *,
    size: int | None = None,
    language: str | None = None,
    workers: Workers | None = None,
    part_tokens: int = PART_TOKENS,
    options: Mapping[str, Any] | None = None,
    progress: Progress = lambda doing, done, total: None,
) -> Indexed:
    """Make an index agree with the files below `paths`, as `Index.update` does, with many workers. Resumable.

    Workers cut and embed the documents that the index does not hold as they are; what they make lies in the folder
    `to` + ".bulk" until the index has it. Then the index is updated by this process, which only reads and writes. A
    run that was killed is gone on with by the same call; where a file has changed meanwhile, or an argument is
    another, what was made is thrown away, and what the index holds by then stays. With the native engine the index is
    the one that `Index.update` makes, vectors to the bit.

    Args:
        paths: files and folders, see `crossrank.index.readers.find`.
        to: the index; made if there is none.
        model: as `crossrank.load_embedder` takes it; on a cluster, a folder must be there on all machines.
        size: as in `Index.create`.
        language: as in `Index.create`.
        workers: who computes; this process alone when absent.
        part_tokens: tokens of a part, about.
        options: more arguments of `crossrank.load_embedder`, without threads.
        progress: called with what is done, how many documents of it, and how many there are.

    Raises:
        InputError: a path does not exist, and nothing was indexed from there; the work folder holds something else; an
            argument is out of its range.
        ReadError: a part that an earlier run made is damaged.
        IndexFileError: as `Index.open_or_create`; the index holds token vectors; another process works on it.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> note = Path(folder.name, "note.txt")
    >>> _ = note.write_text("Cats purr.")
    >>> done = index([note], Path(folder.name, "my.index"))
    >>> done.changes.added, done.embedded, done.passages
    (1, 1, 1)
    >>> folder.cleanup()
    """
    paths = paths_in(paths, "index")
    if part_tokens < 1:
        raise InputError(f"a part has at least 1 token, not {part_tokens}")
    workers = workers or Workers()
    to = Path(to).absolute()
    files, digests = _known_in(to)
    progress("reading", 0, 0)
    sources = readers.find(paths, files).sources  # Refuses what is not there before the index is made.
    loaded = {**(options or {}), "threads": workers.engine_threads}
    embedder = load_embedder(model, **loaded)
    made = Index.open_or_create(to, embedder, size=size, language=language)
    settings = made.settings
    made_of = {
        "work": "index",
        "input": [(source.name, _digest(source.path)) for source in sources],
        "model": identity_of(embedder),
        "passages": [settings.size, settings.overlap],
        "part_tokens": part_tokens,
    }
    work_folder = to.with_name(f"{to.name}.bulk")
    # Workers may have another working directory.
    name = named.lasting(embedder.checkpoint)
    called = {"model": f"{name} on {embedder.backend.name}"}
    # Begun anew where something changed: the folder's name is given by the index, so no other could be named.
    with workfolder.opened(work_folder, made_of, called, anew=True) as folder:
        if not folder.input.exists():
            documents.stage(folder.input, sources, digests, part_tokens)
        all_parts = database.parts_of(folder.input)
        work = Embedding(folder, name, loaded, identity_of(embedder), settings.size, settings.overlap)
        embedded, kept = lead(work, all_parts, workers, "embedding", progress)
        prepared = Prepared(folder, all_parts, embedder, settings.size, settings.overlap)

        def report(now: Update) -> None:
            progress("indexing", now.documents, now.expected)

        changes = made.update(paths, prepared, embedder.tokenizer, report, cut=prepared.cut)
        workfolder.empty(work_folder)  # First: a folder whose lock is gone before its input would be a stranger's.
    shutil.rmtree(work_folder)
    return Indexed(changes, len(made), embedded, kept, folder.discarded)


def _known_in(folder: Path) -> tuple[set[str], set[str]]:
    """The files that an index knows, and the digests of its documents. One with token vectors, which workers do not
    make, is refused.
    """
    try:
        index = Index.open(folder)
        known = index.known().values()
    except IndexFileError:  # None yet, or a damaged one: open_or_create says which.
        return set(), set()
    if index.late:
        raise IndexFileError(
            f"the index {folder} holds token vectors of a late-interaction model, which bulk indexing does not make: "
            "use `crossrank index` for this one (Index.update)"
        )
    return {one.source for one in known}, {one.digest for one in known}


def _digest(path: Path) -> str:
    """Of a file; one that cannot be read is the update's to report, and not the end of the work."""
    try:
        return workfolder.digest(path)
    except ReadError:
        return ""
