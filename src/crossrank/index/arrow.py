"""Rows of .csv and .tsv files, a block at a time."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from crossrank import extras
from crossrank.errors import ReadError
from crossrank.index import tsv
from crossrank.index.documents import Document, Value
from crossrank.index.rows import ID_FIELDS, TEXT_FIELDS, TITLE_FIELD, Rows

extras.require("pyarrow", extra="search")

import pyarrow as pa  # noqa: E402
import pyarrow.csv  # noqa: E402

_READ = (*TEXT_FIELDS, *ID_FIELDS, TITLE_FIELD)
_INTEGER = re.compile(r"-?(?:0|[1-9]\d{0,17})")
_FLOAT = re.compile(r"-?(?:0|[1-9]\d{0,14})\.\d{1,15}")
_ODD_QUOTES = re.compile(rb'"(?<!"")(?:"")*(?!")')
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_BYTES_AT_ONCE = 2**20
_HEADER_BYTES = 2**20


def cell(text: str) -> Value:
    """A cell of a .csv file as a value that filters can compare; leading zeros keep a number a string.

    >>> cell("2020"), cell("0042"), cell("1.5"), cell("true"), cell("en"), cell("")
    (2020, '0042', 1.5, True, 'en', None)
    """
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    return text or None


def read_csv(path: Path, rows: Rows) -> Iterator[Document]:
    """One document a row. The first line names the columns; commas, semicolons or tabs separate them.

    Raises:
        ReadError: not UTF-8, no text column, a row larger than `Limits.row_bytes`, a quote that is not closed, or not a
            table.
    """
    skipped: set[int] = set()
    number = 0

    def skip(row: pyarrow.csv.InvalidRow) -> str:
        number = (row.number or 1) - 1
        skipped.add(number)
        rows.refuse(number, _uneven(row.actual_columns, row.expected_columns))
        return "skip"

    try:
        header, separator = _header(path)
        columns = _Columns(header, path)
        with path.open("rb") as file:
            reader = pyarrow.csv.open_csv(
                file,
                read_options=pyarrow.csv.ReadOptions(use_threads=False, block_size=rows.limits.row_bytes),
                parse_options=pyarrow.csv.ParseOptions(
                    delimiter=separator, newlines_in_values=True, invalid_row_handler=skip
                ),
                # All columns as text: types guessed from the first block would fail on a later one.
                convert_options=pyarrow.csv.ConvertOptions(
                    column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False
                ),
            )
            for batch in reader:
                for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    number += 1
                    while number in skipped:
                        number += 1
                    document = rows.document(columns.row(values), number)
                    if document is not None:
                        yield document
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        # The rows before one that is too large were all read.
        raise ReadError(_csv_cure(path, error, rows.limits.row_bytes, max([number, *skipped]) + 1)) from error
    rows.close()


def read_tsv(path: Path, rows: Rows) -> Iterator[Document]:
    """One document a row. The first line names the columns; tabs separate them, and `tsv.records` says what quotes do.

    Raises:
        ReadError: not UTF-8, no text column, or a row larger than `Limits.row_bytes`.
    """
    limit = rows.limits.row_bytes
    try:
        with tsv.opened(path) as file:
            held = tsv.records(tsv.whole_lines(file, path, limit), limit)
            _, header = next(held, (0, []))
            if not header:
                raise ReadError(f"{path} is empty: nothing to index")
            if any("\0" in name for name in header):
                raise ReadError(f"{path} is not UTF-8: save it as UTF-8 (`iconv -f ENCODING -t UTF-8`)")
            columns = _Columns(header, path)
            for number, (_, cells) in enumerate(held, start=1):
                if len(cells) != len(header):
                    rows.refuse(number, _uneven(len(cells), len(header)))
                elif document := rows.document(columns.row(cells), number):
                    yield document
    except (OSError, UnicodeDecodeError) as error:
        raise ReadError(_csv_cure(path, error, limit, 0)) from error
    rows.close()


def _uneven(cells: int | None, columns: int | None) -> str:
    return f"has {cells} cells, but the header names {columns} columns"


class _Columns:
    """The columns of a table by the names in its first line, which are refused when none holds texts."""

    def __init__(self, header: Sequence[str], path: Path) -> None:
        self.names = [_bare(name) for name in header]
        # "id, text": then the spaces behind the commas are no part of the values either.
        self._spaced = self.names != list(header)
        check_text_column(self.names, path)
        self._texts = {name for name in self.names if name.lower() in _READ}

    def row(self, values: Sequence[str]) -> dict[str, Value]:
        """A row by the names of its columns; what is neither text nor id as a value that filters compare."""
        cells = [_bare(value) for value in values] if self._spaced else values
        return {
            name: value if name in self._texts else cell(value) for name, value in zip(self.names, cells, strict=True)
        }


def _bare(value: str) -> str:
    """A cell without white space around it, and without the quotes that a space before them left standing.

    >>> _bare(' "5"" pipe" '), _bare(' "a" and "b"')
    ('5" pipe', '"a" and "b"')
    """
    bare = value.strip()
    if value[:1].isspace() and _QUOTED.fullmatch(bare):
        return bare[1:-1].replace('""', '"')
    return bare


def _header(path: Path) -> tuple[list[str], str]:
    """The names of the columns, and what separates them: whichever of , ; tab the first row has most of."""
    with path.open("rb") as file:
        raw = file.read(len(codecs.BOM_UTF8)).removeprefix(codecs.BOM_UTF8)
        while line := file.readline(_HEADER_BYTES):
            raw += line
            # Blank lines may stand before it, and a quoted name may hold a line end.
            if raw.strip() and (raw.count(b'"') % 2 == 0 or len(raw) >= _HEADER_BYTES):
                break
    first = raw.lstrip(b"\r\n").decode()
    separator = tsv.separator(path, first)
    if not first.strip():
        raise ReadError(f"{path} is empty: nothing to index")
    _check_quotes(path, separator)
    # Where a quote in a name opens nothing, lines below came along; they need not fit.
    options = pyarrow.csv.ParseOptions(
        delimiter=separator, newlines_in_values=True, invalid_row_handler=lambda row: "skip"
    )
    return list(pyarrow.csv.read_csv(pa.BufferReader(first.encode()), parse_options=options).schema.names), separator


def check_text_column(names: list[str], path: Path) -> None:
    """Refuse a table in whose columns no texts are, or two of one name."""
    read = [name for name in (name.strip().lower() for name in names) if name in _READ]
    if not set(read) & set(TEXT_FIELDS):
        raise ReadError(
            f"{path} has no text column: name it one of {', '.join(TEXT_FIELDS)} (its columns: {', '.join(names[:12])})"
        )
    if len(set(names)) != len(names) or len(set(read)) != len(read):
        raise ReadError(f"{path} has two columns of the same name: rename one")


def _check_quotes(path: Path, separator: str) -> None:
    """Refuse a quote that is not closed where its cell ends: the parser would take the rows below for its text.

    As in the parser, a quote opens a cell only where the cell begins. Of the quotes that stand side by side, each pair
    is text, so only an odd number of them opens or closes.
    """
    ends = separator.encode() + b"\r\n"
    line, opened = 1, 0
    before = b"\n"
    with path.open("rb") as file:
        if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            file.seek(0)
        # A last line end, so that each run of quotes has something before and after it.
        for chunk in chain(iter(lambda: file.read(_BYTES_AT_ONCE), b""), (b"\n",)):
            data = before + chunk
            stop, counted = len(data.rstrip(b'"')), 1
            for run in _ODD_QUOTES.finditer(data, 1, stop):
                begin, end = run.span()
                if not opened and data[begin - 1] not in ends:
                    continue
                line += data.count(b"\n", counted, begin)
                counted = begin
                # Text behind the quote of a cell in one line is odd and harmless.
                if opened and line > opened and data[end] not in ends:
                    raise ReadError(_quote_cure(path, opened))
                opened = 0 if opened else line
            line += data.count(b"\n", counted, stop)
            # A run at the end may go on. Of its quotes only one matters, when their number is odd.
            before = data[stop - 1 : stop] + (b'"' if (len(data) - stop) % 2 else b"")
    if opened:
        raise ReadError(_quote_cure(path, opened))


def _quote_cure(path: Path, line: int) -> str:
    return (
        f"{path}, line {line}: the quote that opens a cell here is not closed where the cell ends, so the rows below "
        "would become part of it: close it, and write a quote within a quoted cell twice"
    )


def _csv_cure(path: Path, error: Exception, limit: int, row: int) -> str:
    if "straddling" in str(error):
        return f"{path}, row {row} is larger than {limit:,} bytes: split the document, or raise Limits.row_bytes"
    if isinstance(error, UnicodeDecodeError) or "UTF8" in str(error):
        return f"{path} is not UTF-8: save it as UTF-8 (`iconv -f ENCODING -t UTF-8`)"
    return f"{path} is not a table that can be read ({error}): check its separators and quotes"
