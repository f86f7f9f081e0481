"""The parts of a reranking joined to rankings, in bounded memory: SQLite keeps the scores of each query in order."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from crossrank.distributed import database, parts
from crossrank.distributed.parts import Part
from crossrank.distributed.workfolder import WorkFolder
from crossrank.errors import ReadError
from crossrank.evaluation import trec
from crossrank.types import Ranking

# -inf of a blank document comes last; equal scores keep the order of the input.
_SCHEMA = """
CREATE TABLE ranked (query INTEGER, score REAL, pair INTEGER, unread INTEGER NOT NULL,
    PRIMARY KEY (query, score DESC, pair)) WITHOUT ROWID
"""
_RANKINGS = """
SELECT query.id, document.id, ranked.score, ranked.unread
FROM ranked CROSS JOIN input.query ON query.number = ranked.query
    CROSS JOIN input.pair ON pair.number = ranked.pair CROSS JOIN input.document ON document.number = pair.document
ORDER BY ranked.query, ranked.score DESC, ranked.pair
"""
_JOIN = """
INSERT INTO ranked SELECT pair.query, ?, pair.number, ?
FROM input.pair CROSS JOIN input.query ON query.number = pair.query
    CROSS JOIN input.document ON document.number = pair.document
WHERE pair.number = ? AND query.id = ? AND document.id = ?
"""
ROWS = (".jsonl", ".ndjson")
"""Suffixes of rankings that are written as rows of JSON."""
_Row = tuple[str, str, float, int]


@dataclass(frozen=True, slots=True)
class Totals:
    """What the parts say together.

    Attributes:
        pairs: in the input and in the parts.
        blank: pairs whose document has no text, which come last.
        unread: pairs whose passage was not read whole.
        queries_cut: queries that were cut, counted in every part in which they stand.
        tokens: that models read.
    """

    pairs: int
    blank: int
    unread: int
    queries_cut: int
    tokens: int


def merge(folder: WorkFolder, all_parts: Sequence[Part], target: Path, k: int | None) -> Totals:
    """Write the ranking of every query to `target`, whole or not at all; queries in the order of the input.

    The name decides the format: `.jsonl` and `.parquet` hold rows of query, document, rank (from 1), score (a raw
    logit; null for a blank document) and unread (tokens of the passage that no model read, at least); any other name
    is a TREC run.

    Raises:
        ReadError: a part or the input is damaged.
        InputError: an id cannot stand in a TREC run, or the disk is full.
    """
    try:
        totals = _joined(folder, all_parts)
        with closing(database.opened(folder.ranked)) as connection, database.damage_told(folder.input):
            connection.execute("ATTACH ? AS input", (database.for_reading(folder.input),))
            with parts.unwritten_told(target):
                _write(target, _rankings(connection.execute(_RANKINGS), k))
    finally:
        # Also after a failure: it takes the room that the same command needs.
        folder.ranked.unlink(missing_ok=True)
    return totals


def _joined(folder: WorkFolder, all_parts: Sequence[Part]) -> Totals:
    """Bring the scores of all parts into the order of the rankings.

    Raises:
        ReadError: a part or the input is damaged, also where it has other ids than a part.
    """
    pairs = blank = unread = queries_cut = tokens = 0
    with database.made(folder.ranked, _SCHEMA) as connection:
        connection.execute("ATTACH ? AS input", (database.for_reading(folder.input),))
        for part in all_parts:
            rows, facts = _read(folder.file(part), part)
            with database.damage_told(folder.input, beside=True):
                joined = connection.executemany(
                    _JOIN,
                    [
                        (_score(row), row["unread"], part.begin + place, row["query"], row["document"])
                        for place, row in enumerate(rows)
                    ],
                ).rowcount
            if joined < len(rows):
                # A pair would be missing from its ranking, or stand there under another id.
                raise database.damaged(folder.input, f"it lacks pairs of {folder.file(part).name}")
            pairs += len(rows)
            blank += sum(row["score"] is None for row in rows)
            unread += sum(row["unread"] > 0 for row in rows)
            queries_cut += facts["queries_cut"]
            tokens += facts["tokens"]
    return Totals(pairs, blank, unread, queries_cut, tokens)


def _read(path: Path, part: Part) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    body, facts = parts.read(path)
    rows = [json.loads(line) for line in body.decode().split("\n")]
    if len(rows) != len(part):
        raise ReadError(f"{path} holds {len(rows)} pairs, not {len(part)}: delete it, and run the same command again")
    return rows, facts


def _score(row: dict[str, Any]) -> float:
    return float("-inf") if row["score"] is None else float(row["score"])


def _rankings(rows: Iterator[_Row], k: int | None) -> Iterator[list[_Row]]:
    for _, group in groupby(rows, itemgetter(0)):
        yield list(group)[:k]


def _write(target: Path, rankings: Iterator[list[_Row]]) -> None:
    if target.suffix.lower() == ".parquet":
        from crossrank.distributed import parquet  # needs the extra, which the base install leaves out

        parquet.write(target, map(_objects, rankings))
    elif target.suffix.lower() in ROWS:
        parts.write(target, (_lines(_objects(ranking)) for ranking in rankings))
    else:
        run = ((ranking[0][0], _ranking(ranking)) for ranking in rankings)
        trec.write_rankings(target, run)


def _objects(ranking: list[_Row]) -> list[dict[str, Any]]:
    return [
        {
            "query": query,
            "document": document,
            "rank": rank,
            "score": None if score == -np.inf else score,
            "unread": unread,
        }
        for rank, (query, document, score, unread) in enumerate(ranking, start=1)
    ]


def _lines(rows: Sequence[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _ranking(ranking: list[_Row]) -> Ranking:
    scores = np.array([score for _, _, score, _ in ranking], dtype=np.float32)
    return Ranking(tuple(document for _, document, _, _ in ranking), scores, len(ranking))
