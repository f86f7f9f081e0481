"""Rows of .parquet files, so few at a time that their texts fit into memory, whatever the file holds."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from crossrank import extras
from crossrank.errors import ReadError
from crossrank.index import pages
from crossrank.index.arrow import check_text_column
from crossrank.index.documents import Document
from crossrank.index.rows import ID_FIELDS, TEXT_FIELDS, TITLE_FIELD, Rows

extras.require("pyarrow", extra="search")

import pyarrow as pa  # noqa: E402
import pyarrow.compute as pc  # noqa: E402
import pyarrow.parquet  # noqa: E402

_TIME = re.compile(r"(.*T[\d:]{8})(?:\.(\d+))?(.*)")
_USED = (*TEXT_FIELDS, *ID_FIELDS, TITLE_FIELD)
_ROWS_AT_ONCE = 128
"""With more, 20,000 rows of 1 KB are read 3 % faster, and with 64 they take 8 % longer."""
_RATIO = 100
"""Texts are hardly ever compressed so well. What takes more than so many times the file may be a trap: it gets the
first number of the next two, and all else up to the second."""
_BYTES_AT_ONCE = 2**24, 2**29
"""What the texts of the rows read at once may take: where pages are large, these are fewer."""
_BYTES_OF_ONE = 2**28, 2**31
"""What those of one row may take, as far as pages tell. pyarrow puts 1,024 values into a page, whatever their lengths,
so that one of documents of 1 MB has a gigabyte."""
_TEXTS, _FIXED = "BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY"
_WIDE = 64
"""Bytes of a value of fixed length from which on it counts; decimals have less."""


def read_parquet(path: Path, rows: Rows) -> Iterator[Document]:
    """One document a row.

    Columns of bytes are not read: they are no metadata. A row is measured before Python objects are made of it.

    Raises:
        ReadError: damaged, no text column, or pages so large that a single row might not fit into memory.
    """
    limit = rows.limits.row_bytes
    told = f"the row is larger than {limit:,} bytes: split the document, or raise Limits.row_bytes"
    rest: dict[str, bytes] = {}

    def kept(found: pa.Schema) -> list[str]:
        check_text_column(found.names, path)
        names = [one.name for one in found if one.name.strip().lower() in _USED or not _is_bytes(one.type)]
        rest.update(dict.fromkeys([name for name in found.names if name not in names], b""))
        return names

    for number, row in enumerate(values(path, kept, limit), start=1):
        if row is None:
            rows.refuse(number, told)
        elif document := rows.document(row | rest if rest else row, number):
            yield document
    rows.close()


def values(path: Path, choose: Callable[[pa.Schema], list[str]], limit: int) -> Iterator[dict[str, Any] | None]:
    """Columns of each row, so few rows at a time that they fit into memory; None for a row above the limit in bytes.

    Args:
        path: a Parquet file.
        choose: gives the names of those that are read, from the schema; what it raises ends the reading.
        limit: of a row's values, as they are without compression.

    Raises:
        ReadError: damaged, or pages so large that a single row might not fit into memory.
    """
    try:
        with path.open("rb") as raw:
            footer = pyarrow.parquet.read_metadata(raw)
            with pyarrow.parquet.ParquetFile(raw, metadata=footer, read_dictionary=_repeated(footer)) as file:
                columns = choose(file.schema_arrow)
                at_once = _rows_at_once(path, footer, [name for name in file.schema_arrow.names if name not in columns])
                yield from _rows(file, columns, at_once, limit)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, ReadError):
            raise
        raise ReadError(f"{path} is not a Parquet file that can be read ({error}): write it again") from error


def count_parquet(path: Path) -> int:
    """Rows of a Parquet file; 0 when it cannot be read."""
    try:
        with path.open("rb") as file:
            return int(pyarrow.parquet.read_metadata(file).num_rows)
    except (pa.ArrowException, OSError):
        return 0


def _is_bytes(kind: pa.DataType) -> bool:
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
    return any(test(kind) for test in tests)


def _repeated(footer: pyarrow.parquet.FileMetaData) -> list[str]:
    """Columns of texts in lists, to be read as numbers into a dictionary: no page tells how many texts a row has."""
    columns = [footer.schema.column(place) for place in range(footer.num_columns)]
    return [one.path for one in columns if one.max_repetition_level and one.physical_type == _TEXTS]


def _rows_at_once(path: Path, footer: pyarrow.parquet.FileMetaData, unread: Sequence[str]) -> int:
    """How many rows surely fit, by the largest pages; 1 where their headers cannot be read.

    Raises:
        ReadError: not even one surely does.
    """
    columns = [footer.schema.column(place) for place in range(footer.num_columns)]
    texts = [
        place
        for place, one in enumerate(columns)
        if one.path not in unread
        and (one.physical_type == _TEXTS or (one.physical_type == _FIXED and one.length > _WIDE))
    ]
    most = 1
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            for group in range(footer.num_row_groups):
                most = max(most, sum(_largest(file, footer.row_group(group).column(place)) for place in texts))
    except ValueError:
        return 1
    if most > np.clip(_RATIO * size, *_BYTES_OF_ONE):
        raise ReadError(
            f"{path} has pages so large that one row might take {most:,} bytes: write it again with smaller pages "
            "(data_page_size, dictionary_pagesize_limit)"
        )
    return int(np.clip(np.clip(_RATIO * size, *_BYTES_AT_ONCE) // most, 1, _ROWS_AT_ONCE))


def _largest(file: BinaryIO, chunk: pyarrow.parquet.ColumnChunkMetaData) -> int:
    starts = [chunk.data_page_offset, chunk.dictionary_page_offset or chunk.data_page_offset]
    return pages.largest(file, min(starts), chunk.total_compressed_size)


def _rows(
    file: pyarrow.parquet.ParquetFile, columns: Sequence[str], at_once: int, limit: int
) -> Iterator[dict[str, Any] | None]:
    """The rows; None for one whose values take more bytes than the limit."""
    # A text in a dictionary counts each time that a row refers to it.
    plain = file.metadata.schema.to_arrow_schema() if "dictionary<" in str(file.schema_arrow) else None
    for batch in file.iter_batches(batch_size=at_once, columns=list(columns)):
        yield from _fitting(batch, plain, limit)


def _fitting(batch: pa.RecordBatch, plain: pa.Schema | None, limit: int) -> Iterator[dict[str, Any] | None]:
    if plain is None and batch.nbytes <= limit:
        yield from _dicts(batch, plain)
        return
    total = np.sum([sizes(column) for column in batch.columns], axis=0)
    if total.sum() <= limit:
        yield from _dicts(batch, plain)
        return
    # One at a time: as Python objects, numbers in lists take many times their bytes.
    for row, size in enumerate(total.tolist()):
        yield next(_dicts(batch.slice(row, 1), plain)) if size <= limit else None


def _dicts(batch: pa.RecordBatch, plain: pa.Schema | None) -> Iterator[dict[str, Any]]:
    """The rows of a batch, its texts in dictionaries as `plain` has them: one by one these take ten times as long."""
    names, columns = batch.schema.names, batch.columns
    if plain is not None:
        columns = [
            column if column.type == plain.field(name).type else column.cast(plain.field(name).type)
            for name, column in zip(names, columns, strict=True)
        ]
    return (dict(zip(names, values, strict=True)) for values in zip(*map(_values, columns), strict=True))


def sizes(array: pa.Array) -> NDArray[np.int64]:
    """Bytes of each value of an array, shape (n,): those of its texts, bytes and numbers, however they lie in memory.

    >>> sizes(pa.array(["tea", None, "é"]).dictionary_encode()).tolist(), sizes(pa.array([[1, 2], []])).tolist()
    ([3, 0, 2], [16, 0])
    """
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return sizes(array.storage)
    if pa.types.is_dictionary(kind):
        known = np.append(sizes(array.dictionary), 0)
        places = array.indices.cast(pa.int64()).fill_null(len(known) - 1)
        return np.asarray(known[places.to_numpy(zero_copy_only=False)], dtype=np.int64)
    if pa.types.is_struct(kind):
        return sum((sizes(part) for part in array.flatten()), start=np.zeros(len(array), dtype=np.int64))
    if (bounds := _bounds(array)) is not None:
        ends = np.append(0, np.cumsum(sizes(array.values)))
        return np.asarray(ends[bounds[1:]] - ends[bounds[:-1]], dtype=np.int64)
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        array = array.cast(pa.large_binary())
    elif not pa.types.is_string(kind) and not pa.types.is_large_string(kind) and not _is_bytes(kind):
        return np.full(len(array), 0 if pa.types.is_null(kind) else (kind.bit_width + 7) // 8, dtype=np.int64)
    lengths = pc.binary_length(array).cast(pa.int64()).fill_null(0)
    return np.asarray(lengths.to_numpy(zero_copy_only=False), dtype=np.int64)


def _bounds(array: pa.Array) -> NDArray[np.int64] | None:
    """Where the lists of an array begin and end in its values; None where it has none."""
    kind = array.type
    if pa.types.is_fixed_size_list(kind):
        return np.asarray((array.offset + np.arange(len(array) + 1)) * kind.list_size, dtype=np.int64)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind):
        return np.asarray(array.offsets.to_numpy(), dtype=np.int64)
    return None


def _values(column: pa.Array) -> list[Any]:
    """The values of a column; a time that Python has no object for (nanoseconds, the year 10000) as ISO text."""
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError):
        return [_value(scalar) for scalar in column]


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError):
        if isinstance(scalar, pa.ListScalar):
            return [_value(inner) for inner in scalar.values]
        if isinstance(scalar, pa.StructScalar):
            return {name: _value(inner) for name, inner in scalar.items()}
        if pa.types.is_duration(scalar.type):
            return f"{scalar.value} {scalar.type.unit}"
        return _iso(str(scalar.cast(pa.string())))


def _iso(text: str) -> str:
    """A time of Arrow as `datetime.isoformat` spells the others of its column, so that they compare as texts.

    >>> _iso("10000-01-01 00:00:00.000Z"), _iso("2023-11-14 22:13:20.000000001")
    ('10000-01-01T00:00:00+00:00', '2023-11-14T22:13:20.000000001')
    """
    found = _TIME.fullmatch(text.replace(" ", "T"))
    if found is None:
        return text
    second, digits, zone = found.groups("")
    digits = digits.ljust(6, "0")
    fraction = "." + (digits if digits[6:].strip("0") else digits[:6]) if digits.strip("0") else ""
    zone = "+00:00" if zone == "Z" else re.sub(r"(\d\d)(\d\d)$", r"\1:\2", zone)
    return second + fraction + zone
