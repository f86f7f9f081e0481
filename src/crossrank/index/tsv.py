"""Rows of tab-separated text, as judged sets hold it and as spreadsheets write it; what separates the cells of a table.

Most .tsv files, those of BEIR and MS MARCO among them, know no quotes: a cell may begin with one, as speech does.
Spreadsheets put quotes around cells that hold tabs, line ends or quotes, and write a quote within them twice. So a
quote is a letter like any other, unless the cell ends with one as well and those between stand in pairs.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from crossrank.errors import ReadError

_HEADER_LIMIT = 2**20
_CLOSED_LINES = 64


def is_tsv(path: str | Path) -> bool:
    """Whether a file holds tab-separated rows by its name, compressed or not.

    >>> is_tsv("a.TSV"), is_tsv("a.tsv.gz"), is_tsv("a.csv")
    (True, True, False)
    """
    return str(path).lower().removesuffix(".gz").endswith(".tsv")


def separator(path: str | Path, first: str) -> str:
    """What separates the cells of a table: tabs in a .tsv file, else whichever of , ; tab its first line has most of.

    >>> separator("a.csv", "id;name, first;text"), separator("a.tsv", "id\\tname, first, last\\ttext")
    (';', '\\t')
    """
    return "\t" if is_tsv(path) else max(",;\t", key=first.count)


def records(lines: Iterable[str], limit: int) -> Iterator[tuple[int, list[str]]]:
    r"""The rows of tab-separated lines, the names of the columns first: each with the number of its first line, from 1.

    A cell that begins and ends with a quote and holds others in pairs alone is read without its quotes, and each pair
    as one; so it may hold tabs and line ends. Any other quote stands for itself. Lines that have as many cells as the
    names are rows, whatever their quotes say, where there is more than one column: a quote that somebody did not close
    takes no row below into its cell. Blank lines are passed over.

    Args:
        lines: with their ends.
        limit: letters of the lines that one row may take.

    >>> list(records(['text\tby\n', '"Hello," he said\t"Bo ""B"" Day"\n', '"two\n', 'lines"\tme'], 99))
    [(1, ['text', 'by']), (2, ['"Hello," he said', 'Bo "B" Day']), (3, ['two\nlines', 'me'])]
    """
    source = _Lines(lines)
    width = 0
    for line in source:
        number = source.number
        # Above the names white space is nothing; below, it may be what the only column holds.
        if not (line.strip("\r\n") if width else line.strip()):
            continue
        # A byte order mark may stand below blank lines.
        cells = _apart(line if width else line.removeprefix("\ufeff"))
        if '"' in line:
            bare = [unquoted(cell) for cell in cells]
            opened = any(cell.startswith('"') and cell == kept for cell, kept in zip(cells, bare, strict=True))
            cells = (opened and _quoted(line, source, width, limit)) or bare
        width = width or len(cells)
        yield number, cells


def opened(path: Path) -> TextIO:
    """A .tsv file to read."""
    return path.open(encoding="utf-8-sig", newline="")


def header(file: TextIO, path: Path) -> list[str]:
    """The names of the columns of an `opened` file; none where it is empty.

    Raises:
        ReadError: they take more than a million letters.
        UnicodeDecodeError: not UTF-8.
    """
    return next((cells for _, cells in records(whole_lines(file, path, _HEADER_LIMIT), _HEADER_LIMIT)), [])


def whole_lines(file: TextIO, path: Path, limit: int) -> Iterator[str]:
    """The lines of an `opened` file: a line feed, a carriage return or both end them.

    Raises:
        ReadError: one is longer than the limit.
    """
    number = 0
    while line := file.readline(limit + 1):
        number += 1
        if len(line) > limit:
            raise ReadError(
                f"{path}, line {number} is larger than {limit:,} bytes: split the document, or raise Limits.row_bytes"
            )
        yield line


def _apart(line: str) -> list[str]:
    return line.rstrip("\r\n").split("\t")


def unquoted(cell: str) -> str:
    """A cell without the quotes around it, where they are quotes.

    >>> unquoted('"5"" pipe"'), unquoted('"a" and "b"'), unquoted('"')
    ('5" pipe', '"a" and "b"', '"')
    """
    if len(cell) < 2 or not (cell.startswith('"') and cell.endswith('"')):
        return cell
    inner = cell[1:-1]
    return cell if '"' in inner.replace('""', "") else inner.replace('""', '"')


def _quoted(line: str, source: _Lines, width: int, limit: int) -> list[str] | None:
    """The cells of a row that begins in this line, by its quotes; None when they make no row.

    In each line below, the first quotes that stand in odd number close a cell, if the row is one. So a search ends
    after as many such lines as there are columns, or 64, and all searches together take linear time.
    """
    taken = [line]
    most = min(width or _CLOSED_LINES, _CLOSED_LINES)

    def further() -> Iterator[str]:
        size, closing = len(line), 0
        yield line
        while size <= limit and closing < most and (more := next(source, "")):
            taken.append(more)
            size += len(more)
            closing += '"' in more.replace('""', "")
            yield more

    # What is read may be as long as a row; the module's own limit is 128 KiB.
    csv.field_size_limit(max(csv.field_size_limit(), limit))
    try:
        cells = next(csv.reader(further(), delimiter="\t", strict=True))
    except csv.Error:
        cells = []
    fits = len(cells) == width if width else bool(cells)
    if fits and not (width > 1 and all(len(_apart(one)) == width for one in taken)):
        return cells
    source.back(taken[1:])
    return None


class _Lines:
    """Lines that can be given back when they turn out to be rows of their own."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.number = 0
        self._source = iter(lines)
        self._ahead: deque[str] = deque()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._ahead.popleft() if self._ahead else next(self._source)
        self.number += 1
        return line

    def back(self, lines: Sequence[str]) -> None:
        self._ahead.extendleft(reversed(lines))
        self.number -= len(lines)
