"""Where the pairs of a large reranking come from: a TREC run with its texts, or rows that hold everything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from crossrank.distributed.pairs import Filling, Kind
from crossrank.errors import InputError, ReadError
from crossrank.evaluation import beir, trec
from crossrank.evaluation.files import existing
from crossrank.types import Passage

FIELDS = ("query_id", "document_id", "query", "text")


class Source(Protocol):
    """An input, read from beginning to end and never held."""

    @property
    def files(self) -> Sequence[Path]:
        """What is read, so that a change can be noticed."""
        ...

    def fill(self, into: Filling) -> None:
        """Bring the whole input into the database.

        Raises:
            ReadError: a file is missing or damaged.
            InputError: a pair comes twice, a text is missing, a query is blank, an id has two texts.
        """
        ...


@dataclass(frozen=True, slots=True)
class RunSource:
    """A TREC run; the texts are in the BEIR layout. Of the corpus only documents of the run are kept.

    Attributes:
        run: six columns; its scores are not read, its order decides between equal new ones.
        queries: as `evaluation.read_queries` reads them: lines of `{"_id", "text"}`.
        corpus: as `evaluation.read_corpus` does: lines of `{"_id", "title", "text"}`.
    """

    run: Path
    queries: Path
    corpus: Path

    @classmethod
    def of(cls, run: Path, folder: Path) -> RunSource:
        """A run over a folder with `queries.jsonl` and `corpus.jsonl`, plain or gzip.

        Raises:
            ReadError: the folder has no such files.
        """
        return cls(run, existing(folder, "queries.jsonl"), existing(folder, "corpus.jsonl"))

    @property
    def files(self) -> Sequence[Path]:
        """See `Source`."""
        return self.run, self.queries, self.corpus

    def fill(self, into: Filling) -> None:
        """See `Source`."""
        into.pairs((query, document, f"{self.run}") for query, document, _, _ in trec.run_rows(self.run))
        _texts(into, "query", self.queries, beir.asked(self.queries))
        corpus = ((n, passage.id, passage.scored_text) for n, passage in beir.passages(self.corpus))
        _texts(into, "document", self.corpus, corpus)
        into.check_whole("add them to the queries or the corpus, or take their lines out of the run")


@dataclass(frozen=True, slots=True)
class RowSource:
    """Rows of `query_id`, `document_id`, `query`, `text` and, if there is one, `title`: .jsonl(.gz) or .parquet files.

    A query or document may come in many rows, always with the same text. A row of .jsonl may hold a whole list instead,
    as requests to rerank do: `query` and `documents`, texts or objects with `text` and perhaps `title` and `id` (or
    `_id`). Without ids the query's is the number of its line, and a document's that and its position, from 0: `7-0`.
    """

    rows: tuple[Path, ...]

    @property
    def files(self) -> Sequence[Path]:
        """See `Source`."""
        return self.rows

    def fill(self, into: Filling) -> None:
        """See `Source`."""
        for path in self.rows:
            for some in _blocks(_rows(path)):
                into.pairs((query, document.id, where) for query, _, document, where in some)
                for query, asked, document, where in some:
                    into.text("query", query, asked, where)
                    into.text("document", document.id, document.scored_text, where)
        into.check_whole("give every row its texts")


def _texts(into: Filling, kind: Kind, path: Path, rows: Iterable[tuple[int, str, str]]) -> None:
    for number, id_, text in rows:
        into.text(kind, id_, text, f"{path}, line {number}")


def _rows(path: Path) -> Iterator[tuple[str, str, Passage, str]]:
    """Query id and text, document, and where they stand."""
    if path.suffix.lower() == ".parquet":
        from crossrank.distributed import parquet  # needs the extra, which the base install leaves out

        rows: Iterator[tuple[int, dict[str, Any]]] = parquet.rows(path, FIELDS)
    elif path.suffix.lower() in (".jsonl", ".ndjson", ".gz"):
        rows = beir.objects(path)
    else:
        raise InputError(
            f"{path} is neither .jsonl, .jsonl.gz nor .parquet; for a TREC run, name the folder of its texts, too "
            "(--data)"
        )
    for number, row in rows:
        if "documents" in row and "document_id" not in row:
            yield from _list(path, number, row)
            continue
        if any(name not in row for name in FIELDS):
            held = ", ".join(map(repr, list(row)[:8])) or "nothing"
            raise ReadError(
                f"{path}, line {number}: a row needs {', '.join(FIELDS)}, or a query and a list of documents; this one "
                f"holds {held:.400}"
            )
        query, document, asked, text = (beir.field(path, number, row, name) for name in FIELDS)
        yield query, asked, Passage(document, text, _title(path, number, row)), f"{path}, line {number}"


def _list(path: Path, number: int, row: Mapping[str, Any]) -> Iterator[tuple[str, str, Passage, str]]:
    """The pairs of a row that holds a query and all of its documents."""
    query = str(number) if row.get("query_id") is None else beir.field(path, number, row, "query_id")
    asked, documents = beir.field(path, number, row, "query"), row["documents"]
    if not isinstance(documents, list):
        raise ReadError(f"{path}, line {number}: documents must be a list, found {documents!r:.80}")
    for position, given in enumerate(documents):
        where = f"{path}, line {number}"
        document = {"text": given} if isinstance(given, str) else given
        if not isinstance(document, dict):
            raise ReadError(f"{where}: document {position} must be a text or an object with one, found {given!r:.80}")
        named = next((name for name in ("_id", "id") if document.get(name) is not None), None)
        id_ = f"{query}-{position}" if named is None else beir.field(path, number, document, named)
        passage = Passage(id_, beir.field(path, number, document, "text"), _title(path, number, document))
        yield query, asked, passage, where


def _title(path: Path, number: int, row: Mapping[str, Any]) -> str:
    return "" if row.get("title") is None else beir.field(path, number, row, "title")


def _blocks(
    rows: Iterator[tuple[str, str, Passage, str]], most: int = 1_000
) -> Iterator[list[tuple[str, str, Passage, str]]]:
    while some := list(islice(rows, most)):
        yield some
