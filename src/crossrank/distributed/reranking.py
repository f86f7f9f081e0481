"""Reranking of millions of pairs: what is known is kept, what is missing is done, and the rest is a merge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossrank import writing
from crossrank.distributed import database, merging, pairs, workfolder
from crossrank.distributed.leading import PART_TOKENS, Progress, Workers, lead
from crossrank.distributed.merging import Totals
from crossrank.distributed.scoring import Scoring
from crossrank.distributed.sources import Source
from crossrank.errors import InputError
from crossrank.evaluation import trec
from crossrank.scorers import load
from crossrank.types import check_k


@dataclass(frozen=True, slots=True)
class Reranked:
    """What a bulk reranking did.

    Attributes:
        ranking: the file of rankings.
        scored: pairs that were scored now.
        kept: pairs that an earlier run had scored.
        totals: of all pairs.
    """

    ranking: Path
    scored: int
    kept: int
    totals: Totals


def rerank(
    source: Source,
    to: str | Path,
    model: str | Path | None = None,
    *,
    ranking: str | Path | None = None,
    k: int | None = None,
    workers: Workers | None = None,
    part_tokens: int = PART_TOKENS,
    options: Mapping[str, Any] | None = None,
    progress: Progress = lambda doing, done, total: None,
) -> Reranked:
    r"""Score every pair of an input of any length and write the ranking of each query. Resumable.

    The folder `to` gets a copy of the input's texts (`input.sqlite`) and a file for each part of the scores, named by
    its range and a fingerprint of input, model and settings. A run that was killed is gone on with by the same call:
    parts that are done stay, the others are done whole. Memory is bounded by one part for each worker. With the native
    engine, scores are those of `CrossEncoder.score`, to the bit, whoever computes them.

    Args:
        source: `RunSource` or `RowSource`.
        to: a new folder, or the one of the same work; on a cluster, seen by all machines under one path.
        model: as `crossrank.load` takes it; on a cluster, a folder must be there on all machines.
        ranking: the file of rankings; `ranking.jsonl` in the folder when absent. See `merging.merge` for formats.
        k: entries of a ranking; all when absent.
        workers: who computes; this process alone when absent.
        part_tokens: tokens of a part, about.
        options: more arguments of `crossrank.load`, without threads.
        progress: called with what is done, how many pairs of it, and how many there are.

    Returns:
        Rankings best first; equal scores keep the order of the input, blank documents come last.

    Raises:
        ReadError: a file of the input, or a part that an earlier run made, is damaged.
        InputError: a pair comes twice, a text is missing, a query is blank or has no token, an id has two texts; the
            folder is of another work; the rankings would take the place of what is read or of the folder's own files;
            an argument is out of its range.
        IndexFileError: another process works in the folder.

    >>> import json, tempfile
    >>> from crossrank.distributed.sources import RowSource
    >>> folder = tempfile.TemporaryDirectory()
    >>> rows = Path(folder.name, "pairs.jsonl")
    >>> row = {"query_id": "q", "query": "capital of France?"}
    >>> texts = {"a": "Bread needs yeast.", "b": "Paris is the capital of France."}
    >>> lines = [json.dumps({**row, "document_id": name, "text": text}) for name, text in texts.items()]
    >>> _ = rows.write_text("\n".join(lines))
    >>> done = rerank(RowSource((rows,)), Path(folder.name, "scores"))
    >>> [json.loads(line)["document"] for line in done.ranking.read_text().splitlines()], done.scored
    (['b', 'a'], 2)
    >>> rerank(RowSource((rows,)), Path(folder.name, "scores")).kept
    2
    >>> folder.cleanup()
    """
    if k is not None:
        check_k(k, cure="leave it out to keep everything")
    if part_tokens < 1:
        raise InputError(f"a part has at least 1 token, not {part_tokens}")
    workers = workers or Workers()
    to = Path(to).absolute()
    target = Path(ranking).absolute() if ranking is not None else to / "ranking.jsonl"
    _check_target(target, to, source)
    model = str(Path(model).absolute()) if model is not None and Path(model).is_dir() else model
    loaded = {**(options or {}), "threads": workers.engine_threads}
    scorer = load(model, **loaded)
    identity = scorer.identity
    called = {"model": f"{scorer.checkpoint.name} on {scorer.backend.name}, {identity[-1]} tokens a pair"}
    progress("reading", 0, 0)
    made_of = {
        "work": "rerank",
        "input": [workfolder.digest(path) for path in source.files],
        "model": identity,
        "part_tokens": part_tokens,
    }
    with workfolder.opened(to, made_of, called) as folder:
        if not folder.input.exists():
            with pairs.filling(folder.input) as filling:
                source.fill(filling)
                filling.check_queries(scorer.count)
                filling.cut(part_tokens)
        del scorer  # Workers load their own.
        if target.suffix.lower() not in (*merging.ROWS, ".parquet"):
            # Now, and not after hours.
            for name in pairs.names(folder.input):
                trec.check_name(name)
        all_parts = database.parts_of(folder.input)
        scored, kept = lead(Scoring(folder, model, loaded, identity), all_parts, workers, "scoring", progress)
        progress("writing", 0, 0)
        return Reranked(target, scored, kept, merging.merge(folder, all_parts, target, k))


def _check_target(target: Path, to: Path, source: Source) -> None:
    """Refuse a file that could not be written, or whose place is taken, before hours are spent."""
    if target.parent != to and not target.parent.is_dir():
        raise InputError(f"there is no folder {target.parent} for the rankings: make it, or name another file")
    try:
        if target == to or target.is_dir():
            raise InputError(f"{target} is a folder: name a file in it for the rankings")
        if target.parent.is_dir():
            writing.check(target)
    except OSError as error:
        raise InputError(f"{target} cannot be written ({error.strerror}): name another file") from error
    for file in source.files:
        # By what it is and not by its name: links lead to the same file, and some disks do not tell a from A.
        if target.resolve() == file.resolve() or (target.exists() and file.exists() and target.samefile(file)):
            raise InputError(f"the rankings would take the place of {file}, which is read: name another file")
    if target.suffix.lower() == ".gz":
        raise InputError(f"the rankings are not compressed: name {target.with_suffix('').name}, and gzip it afterwards")
    if workfolder.is_own(target, to):
        raise InputError(f"{target} is a file of the work itself: name another one for the rankings")
    if target.suffix.lower() == ".parquet":
        from crossrank.distributed import parquet  # noqa: F401  its absence should not wait until the end
