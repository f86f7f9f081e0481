"""A judged set in a folder, as BEIR lays it out: corpus.jsonl, queries.jsonl and qrels/, each plain or gzip."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from crossrank.errors import InputError, ReadError
from crossrank.evaluation.files import existing, filled, lines
from crossrank.evaluation.trec import QUERY_IDS, read_qrels
from crossrank.index import tsv
from crossrank.types import Passage, Qrels

# Headings of queries between tabs, beside those of their ids.
_TEXTS = ("text", "query", "question", "title")


@dataclass(frozen=True, slots=True, eq=False)
class JudgedSet:
    """Documents, questions, and people's word on which answers which.

    Attributes:
        name: the folder's name.
        split: which judgments: the stem of a file in `qrels/`.
        corpus: passages by document id, in the order of the file. One document is one passage.
        queries: text by query id, exactly the queries with judgments, in the order of the queries file.
        qrels: grades by query and document; 0 and below is judged and not relevant.
    """

    name: str
    split: str
    corpus: Mapping[str, Passage]
    queries: Mapping[str, str]
    qrels: Qrels

    def sample(self, size: int, seed: int = 0) -> JudgedSet:
        """The same set with `size` of its queries, drawn without replacement; the set itself when it has no more.

        The draw depends on the query ids, `size` and `seed` only, and the queries keep their order.

        Raises:
            InputError: `size` is under 1.
        """
        if size < 1:
            raise InputError(f"a sample needs at least 1 query, not {size}")
        if size >= len(self.queries):
            return self
        ids = sorted(self.queries)
        drawn = np.random.default_rng(seed).choice(len(ids), size=size, replace=False)
        kept = {ids[i] for i in drawn}
        queries = {query: text for query, text in self.queries.items() if query in kept}
        return replace(self, queries=queries, qrels={query: self.qrels[query] for query in queries})


def read_set(folder: str | Path, split: str = "test") -> JudgedSet:
    """Read a folder with `corpus.jsonl`, `queries.jsonl` and `qrels/SPLIT.tsv` (or `.txt`, as TREC writes them).

    Raises:
        ReadError: a file is missing, damaged or empty, or a judged query has no text.
    """
    folder = Path(folder)
    judgments, questions = existing(folder / "qrels", f"{split}.tsv", f"{split}.txt"), existing(folder, "queries.jsonl")
    qrels = filled(judgments, read_qrels(judgments), "judgments")
    texts = filled(questions, read_queries(questions), "queries")
    if missing := [query for query in qrels if query not in texts]:
        raise ReadError(
            f"{folder}: query {missing[0]} ({len(missing)} in all) is judged but has no text in queries.jsonl"
        )
    queries = {query: text for query, text in texts.items() if query in qrels}
    documents = existing(folder, "corpus.jsonl")
    corpus = filled(documents, read_corpus(documents), "documents")
    return JudgedSet(folder.resolve().name, split, corpus, queries, {query: qrels[query] for query in queries})


def read_corpus(path: str | Path) -> dict[str, Passage]:
    """Passages by document id from lines of `{"_id", "title", "text"}` (or `"id"`); a missing title is empty.

    Raises:
        ReadError: a line is not such an object, or an id comes twice.
    """
    corpus: dict[str, Passage] = {}
    for number, passage in passages(path):
        if passage.id in corpus:
            raise ReadError(f"{path}, line {number}: the id {passage.id} comes twice")
        corpus[passage.id] = passage
    return corpus


def passages(path: str | Path) -> Iterator[tuple[int, Passage]]:
    """(line number, passage) of each line of a corpus; nothing is held.

    Raises:
        ReadError: a line is no object with `_id` (or `id`) and `text`.
    """
    for number, row in objects(path):
        document = field(path, number, row, _id_name(row))
        title = "" if row.get("title") is None else field(path, number, row, "title")
        yield number, Passage(document, field(path, number, row, "text"), title, document=document)


def read_queries(path: str | Path) -> dict[str, str]:
    """Text by query id from lines of `{"_id", "text"}` (or `"id"`), or of an id, a tab and the text, as topics are.

    The two are told apart by the first line. Between tabs, a first line that names its columns, such as `qid` and
    `query`, is no query, and quotes around a text are as in an index: those of a table, see `crossrank.index.tsv`.

    Raises:
        ReadError: a line is neither, or an id comes twice.
    """
    queries: dict[str, str] = {}
    for number, query, text in asked(path):
        if query in queries:
            raise ReadError(f"{path}, line {number}: the id {query} comes twice")
        queries[query] = text
    return queries


def asked(path: str | Path) -> Iterator[tuple[int, str, str]]:
    """(line number, id, text) of each query that `read_queries` reads; nothing is held.

    Raises:
        ReadError: as there, but an id may come twice.
    """
    found = lines(path)
    # The first line is put back and not read again: a pipe gives each byte once.
    first = list(islice(found, 1))
    told_apart = any("\t" in line and not line.lstrip().startswith("{") for _, line in first)
    for number, line in first:
        if not (told_apart or line.lstrip().startswith(("{", "["))):
            raise ReadError(f"{path}, line {number}: not JSON, nor an id, a tab and the query, but {line[:80]!r}")
    yield from (_tabbed if told_apart else _asked)(path, chain(first, found))


def _asked(path: str | Path, found: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str, str]]:
    for number, row in _objects(path, found):
        yield number, field(path, number, row, _id_name(row)), field(path, number, row, "text")


def _tabbed(path: str | Path, found: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str, str]]:
    for row, (number, line) in enumerate(found):
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) != 2 or not cells[0]:
            raise ReadError(f"{path}, line {number}: expected an id, one tab and the query, found {line[:80]!r}")
        if row or cells[0].lower() not in QUERY_IDS or cells[1].lower() not in _TEXTS:
            yield number, cells[0], tsv.unquoted(cells[1])


def _id_name(row: Iterable[str]) -> str:
    """The name that a row has for its id: BEIR's, or the one that most other tools write."""
    return "id" if "id" in row and "_id" not in row else "_id"


def objects(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of each line of a JSONL file that is not blank; nothing is held.

    Raises:
        ReadError: a line is not a JSON object.
    """
    return _objects(path, lines(path))


def _objects(path: str | Path, found: Iterable[tuple[int, str]]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in found:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ReadError(f"{path}, line {number}: not JSON ({error})") from None
        if not isinstance(row, dict):
            raise ReadError(f"{path}, line {number}: expected an object, found {line[:80]!r}")
        yield number, row


def field(path: str | Path, number: int, row: Mapping[str, Any], name: str) -> str:
    """The string under this name in a row; an id may be a whole number.

    Raises:
        ReadError: it is missing or something else.
    """
    value = row.get(name)
    if isinstance(value, str):
        return value
    # Some converters write ids as numbers; a text that is a number is a mistake.
    if name.endswith("id") and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ReadError(f"{path}, line {number}: {name!r} must be a string, found {value!r:.80}")
