"""Where the pairs of a large reranking come from: a TREC run with its texts, or rows that hold everything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from crossrank.distributed.pairs import Filling, Kind
from crossrank.errors import InputError
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

    A query or document may come in many rows, always with the same text.
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
        query, document, asked, text = (beir.field(path, number, row, name) for name in FIELDS)
        title = "" if row.get("title") is None else beir.field(path, number, row, "title")
        yield query, asked, Passage(document, text, title), f"{path}, line {number}"


def _blocks(
    rows: Iterator[tuple[str, str, Passage, str]], most: int = 1_000
) -> Iterator[list[tuple[str, str, Passage, str]]]:
    while some := list(islice(rows, most)):
        yield some
