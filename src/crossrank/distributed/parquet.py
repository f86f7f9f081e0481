"""Rows of Parquet files, so few at a time that they fit into memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from crossrank import extras
from crossrank.errors import ReadError
from crossrank.evaluation.files import LINE_BYTES
from crossrank.index import parquet
from crossrank.writing import whole

extras.require("pyarrow", extra="search")

import pyarrow as pa  # noqa: E402
import pyarrow.parquet  # noqa: E402

_AT_ONCE = 10_000
"""Rows that are written at once."""
_RANKED = [
    *(("query", pa.string()), ("document", pa.string())),
    *(("rank", pa.int64()), ("score", pa.float32()), ("unread", pa.int64())),
]


def rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row number from 1, row) of a file that has the needed columns; of the others, `title` is read, too.

    Raises:
        ReadError: the file is missing, damaged, or lacks a column; a row takes more than a line of a text
            file may, or its pages more than `index.Limits` says.
    """

    def chosen(found: pa.Schema) -> list[str]:
        if missing := [name for name in needed if name not in found.names]:
            raise ReadError(f"{path} has no column {missing[0]}; it needs {', '.join(needed)}: rename its columns")
        return [*needed, *(["title"] if "title" in found.names else [])]

    for number, row in enumerate(parquet.values(path, chosen, LINE_BYTES), start=1):
        if row is None:
            raise ReadError(f"{path}, row {number}: it is larger than {LINE_BYTES:,} bytes: split the document")
        yield number, row


def write(path: Path, ranked: Iterable[Sequence[dict[str, Any]]]) -> None:
    """Write rows of (query, document, rank, score, unread), one group a query, whole or not at all."""
    schema = pa.schema(_RANKED)
    held: list[dict[str, Any]] = []
    with whole(path) as part, part.open("wb") as stream, pyarrow.parquet.ParquetWriter(stream, schema) as writer:
        for group in ranked:
            held += group
            if len(held) >= _AT_ONCE:
                writer.write_table(pa.Table.from_pylist(held, schema))
                held = []
        writer.write_table(pa.Table.from_pylist(held, schema))
