"""Rows of Parquet files, a block at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from crossrank import extras
from crossrank.errors import ReadError
from crossrank.writing import whole

extras.require("pyarrow", extra="search")

import pyarrow as pa  # noqa: E402
import pyarrow.parquet  # noqa: E402

_AT_ONCE = 10_000
_RANKED = [
    *(("query", pa.string()), ("document", pa.string())),
    *(("rank", pa.int64()), ("score", pa.float32()), ("unread", pa.int64())),
]


def rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row number from 1, row) of a file that has the needed columns; of the others, `title` is read, too.

    Raises:
        ReadError: the file is missing, damaged, or lacks a column.
    """
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = set(file.schema_arrow.names)
            if missing := [name for name in needed if name not in names]:
                raise ReadError(f"{path} has no column {missing[0]}; it needs {', '.join(needed)}: rename its columns")
            number = 0
            for batch in file.iter_batches(_AT_ONCE, columns=[*needed, *(["title"] if "title" in names else [])]):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pa.ArrowException, OSError) as error:
        raise ReadError(f"{path} is not a Parquet file that can be read ({error}): write it again") from error


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
