"""The passages that a user gives to `crossrank rerank`: lines or paragraphs of text, rows of JSON lines or tables."""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import math
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any, Literal, cast

import click

from crossrank.asking import check_query
from crossrank.cli import terminal
from crossrank.errors import ReadError
from crossrank.index import tsv
from crossrank.index.rows import ID_FIELDS, TEXT_FIELDS, TITLE_FIELD, filled, is_empty, keys_of
from crossrank.types import Passage
from crossrank.unicode import valid_text

Layout = Literal["lines", "paragraphs", "jsonl", "csv"]
_LAYOUTS: dict[str, Layout] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "csv"}

# One passage is a paragraph, at most a long article. A longer line is a file without line ends, read by mistake; the
# limit keeps it out of memory. 16 MiB is more text than any model reads of one passage.
MOST_BYTES = 16 * 1024 * 1024
_GZIP = b"\x1f\x8b"
_ORDERS = {
    **dict.fromkeys((codecs.BOM_UTF16_LE, codecs.BOM_UTF32_LE), "-le"),
    **dict.fromkeys((codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE), "-be"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """A passage, and what of its row goes back to the user as it was.

    Attributes:
        passage: what is ranked.
        id: of the row, a number where it was one; the passage's where the row has none.
        fields: all others where they were asked for, as JSON can hold them: NaN is null, and half of a surrogate pair
            is U+FFFD.
    """

    passage: Passage
    id: Any
    fields: Mapping[str, Any]


def read(files: Sequence[str], encoding: str, layout: Layout | None, fields: bool = False) -> list[Row]:
    """All passages of all files, in order; `-` is stdin, and `.gz` files are decompressed as they are read.

    A passage's id is the row's own (`id` or `_id`), or else file and (first) line, `notes.txt:3`. Rows hold their text
    in the same fields that `crossrank index` reads.

    Args:
        files: paths or `-`.
        encoding: of the files.
        layout: what the rows are; None decides by the file name.
        fields: also keep what else the rows hold, which may be many times the text.

    Raises:
        ReadError: a file that is not text in this encoding, a line beyond 16 MiB, a row without text, or a `.json` file
            whose layout is not given.
    """
    passages: list[Row] = []
    for file in files:
        name = "stdin" if file == "-" else click.format_filename(file)
        held = layout or _layout(file, name)
        with opened(file) as stream:
            found = lines(stream, name, encoding)
            if held == "csv":
                passages += _table(found, name, fields)
            elif held == "jsonl":
                passages += (
                    _json(line, f"{name}:{n}", name, fields) for n, line in enumerate(found, start=1) if line.strip()
                )
            elif held == "paragraphs":
                passages += _paragraphs(found, name)
            else:
                passages += _plain(found, name, told=layout is not None)
    return passages


def _layout(file: str, name: str) -> Layout:
    """What the rows of a file are, by its name."""
    path = Path(file.lower().removesuffix(".gz"))
    if path.suffix == ".json":
        raise ReadError(
            f"{name} is one JSON value by its name, and passages are rows. Make rows of a list with "
            f"`jq -c '.[]' {name}`, or add --input jsonl if each line is an object, --input lines if it is text."
        )
    return _LAYOUTS.get(path.suffix, "lines")


def _plain(found: Iterable[str], name: str, told: bool) -> Iterator[Row]:
    """One passage a line; `told` when the user said so."""
    for number, line in enumerate(found, start=1):
        if number == 1 and not told and _is_row(line):
            terminal.warn(
                f"the first line of {name} is a JSON object, and is ranked as the text it is written in; to rank the "
                f"text that it holds, add --input jsonl."
            )
        yield Row(Passage(f"{name}:{number}", line, document=name), f"{name}:{number}", {})


def _paragraphs(found: Iterable[str], name: str) -> Iterator[Row]:
    """One passage a paragraph: lines with something on them, up to a blank one. Its id is that of its first line."""
    held: list[str] = []
    size = 0
    # A blank line behind the last one ends the last paragraph.
    for number, line in enumerate(chain(found, [""]), start=1):
        if line.strip():
            held.append(line)
            size += len(line)
            if size > MOST_BYTES:
                raise ReadError(
                    f"{name}: the paragraph that ends at line {number} is longer than {MOST_BYTES >> 20} MiB. Part it "
                    "by blank lines, or let `crossrank index` split the file into passages."
                )
        elif held:
            id_ = f"{name}:{number - len(held)}"
            yield Row(Passage(id_, "\n".join(held), document=name), id_, {})
            held, size = [], 0


def _is_row(line: str) -> bool:
    """Whether a line is a JSON object with a text, as `crossrank search --json` prints."""
    if not line.lstrip().startswith("{"):
        return False
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return False
    if not isinstance(row, dict):
        return False
    key, _ = filled(row, keys_of(row), TEXT_FIELDS)
    return key is not None and isinstance(row[key], str)


def checked(encoding: str) -> str:
    """The encoding, when Python has it.

    Raises:
        click.UsageError: it has not.
    """
    try:
        codecs.lookup(encoding)
        "".encode(encoding).decode(encoding)
    except (LookupError, TypeError, ValueError):
        known = "utf-8, latin-1, cp1252, utf-16"
        raise click.UsageError(f"unknown encoding {encoding!r}; common ones are {known}") from None
    return encoding


def query(value: str) -> str:
    """The query of the command line, refused here, before a model is loaded for it.

    Raises:
        click.UsageError: the bytes typed were not text in this terminal's encoding.
        InputError: it is blank.
    """
    try:
        value.encode()
    except UnicodeEncodeError:
        expected = sys.getfilesystemencoding()
        raise click.UsageError(f"the query is not text: it holds bytes that are not {expected}") from None
    check_query(value)
    return value


@contextmanager
def opened(file: str) -> Iterator[IO[bytes]]:
    """A file's bytes, decompressed when its name ends in .gz; stdin for `-`, which stays open.

    Raises:
        ReadError: there is no stdin, or compressed data is damaged.
    """
    if file == "-":
        if sys.stdin is None:
            raise ReadError("there is no stdin to read passages from; name a file")
        if sys.stdin.isatty():
            terminal.note("Reading passages from the terminal, one a line. Ctrl-D ends them.")
        # Not closed: stdin is the process's.
        yield sys.stdin.buffer
    elif file.lower().endswith(".gz"):
        try:
            with gzip.open(file, "rb") as unpacked:
                yield cast("IO[bytes]", unpacked)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ReadError(f"{click.format_filename(file)} is not whole gzip data ({error}): copy it again") from error
    else:
        with Path(file).open("rb") as stream:
            yield stream


def lines(stream: IO[bytes], name: str, encoding: str) -> Iterator[str]:
    """Lines without their ends. Only a newline ends a line; a form feed or U+2028 is part of the text.

    Raises:
        ReadError: a line beyond 16 MiB, or what is not text in this encoding.
    """
    found = iter(lambda: stream.readline(MOST_BYTES + 1), b"")
    if (known := codecs.lookup(encoding).name).startswith(("utf-16", "utf-32")):
        found, encoding = _wide_lines(stream, known)
    for number, line in enumerate(found, start=1):
        _check_length(line, name, number)
        text = _decoded(line, name, number, encoding)
        if number == 1:
            text = text.removeprefix("\ufeff")
        yield text.removesuffix("\n").removesuffix("\r")


def _wide_lines(stream: IO[bytes], encoding: str) -> tuple[Iterator[bytes], str]:
    """The lines of UTF-16 or UTF-32, whose newline is several bytes, and the encoding with its order of bytes."""
    start = stream.read(2 if encoding.startswith("utf-16") else 4)
    if encoding in ("utf-16", "utf-32"):
        encoding += _ORDERS.get(start, "-le" if sys.byteorder == "little" else "-be")
    return _split(stream, start, "\n".encode(encoding)), encoding


def _split(stream: IO[bytes], start: bytes, newline: bytes) -> Iterator[bytes]:
    """What follows `start`, cut behind each newline, or where a line is too long."""
    line = bytearray(start)
    while True:
        # A byte of another letter may look like part of a newline, which begins where a letter does.
        if line.endswith(newline) or len(line) > MOST_BYTES:
            yield bytes(line)
            line.clear()
        piece = stream.readline(MOST_BYTES + 1 - len(line))
        line += piece + stream.read(-(len(line) + len(piece)) % len(newline))
        if not piece:
            break
    if line:
        yield bytes(line)


def _check_length(line: bytes, name: str, number: int) -> None:
    if len(line) > MOST_BYTES:
        raise ReadError(
            f"{name}: line {number} is longer than {MOST_BYTES >> 20} MiB, and a line is one passage. Put each passage "
            "on a line of its own, or let `crossrank index` split the file into passages."
        )


def _decoded(line: bytes, name: str, number: int, encoding: str) -> str:
    try:
        text = line.decode(encoding)
    except UnicodeDecodeError as error:
        if number == 1 and line.startswith(_GZIP):
            raise ReadError(f"{name} is gzip data: decompress it with `gunzip -c`, or name it *.gz") from error
        raise ReadError(
            f"{name}: line {number} is not {encoding} text (byte {error.start + 1}: 0x{line[error.start]:02x}). "
            "Name its encoding, as in --encoding latin-1."
        ) from error
    if "\0" in text:
        raise ReadError(
            f"{name}: line {number} holds a NUL byte, so this is no text file of lines. `crossrank index` reads PDF "
            "and Parquet; for UTF-16 text add --encoding utf-16."
        )
    return text


def _table(found: Iterable[str], name: str, fields: bool) -> Iterator[Row]:
    """One passage a row, after a line with the names of the columns; what separates them is told as an index tells."""
    # What is read may be as long as a line; the module's own limit is 128 KiB.
    csv.field_size_limit(MOST_BYTES)
    texts = iter(found)
    # Blank lines may stand before the names, as in an index.
    above, first = next(((n, line) for n, line in enumerate(texts) if line.strip()), (0, ""))
    if not first:
        return
    header: list[str] = []
    for number, row in _cells(_ended(first, texts), name, tsv.separator(name, first), above):
        where = f"{name}:{number}"
        if not header:
            header = row
            _check_header(header, name)
        elif len(row) == len(header):
            yield _row(dict(zip(header, row, strict=True)), where, name, fields)
        elif row:
            raise ReadError(
                f"{where} has {terminal.count(len(row), 'cell')}, but the first line names "
                f"{terminal.count(len(header), 'column')}: put quotes around "
                "cells that hold a separator, or add --input lines"
            )


def _cells(lines: Iterator[str], name: str, separator: str, above: int) -> Iterator[tuple[int, list[str]]]:
    """The rows of a table, each with the number of its first line in a file that has so many lines above it."""
    if tsv.is_tsv(name):
        yield from ((above + number, row) for number, row in tsv.records(lines, MOST_BYTES))
        return
    cells = csv.reader(lines, delimiter=separator, strict=True)
    end = above
    try:
        for row in cells:
            begin, end = end + 1, above + cells.line_num
            yield begin, row
    except csv.Error as error:
        raise ReadError(
            f"{name}:{end + 1} is not a row of a table ({error}): check separators and quotes, or add --input lines"
        ) from error


def _ended(first: str, rest: Iterable[str]) -> Iterator[str]:
    yield first + "\n"
    for line in rest:
        yield line + "\n"


def _check_header(header: Sequence[str], name: str) -> None:
    names = [column.strip().lower() for column in header]
    if not set(names) & set(TEXT_FIELDS):
        raise ReadError(
            f"{name} has no column of texts: name it one of {', '.join(TEXT_FIELDS)} (its columns: "
            f"{', '.join(header[:12])}), or add --input lines to rank its lines"
        )
    if len(set(names)) != len(names):
        raise ReadError(f"{name} has two columns of the same name: rename one")


def _json(line: str, where: str, name: str, fields: bool) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ReadError(f"{where} is not a JSON row ({error}). For plain lines of text add --input lines.") from error
    if not isinstance(row, dict):
        raise ReadError(f'{where}: a row must be an object such as {{"id": "7", "text": "..."}}, not {_kind(row)}')
    return _row(row, where, name, fields)


def _row(row: Mapping[str, Any], where: str, name: str, fields: bool) -> Row:
    by_name = keys_of(row)
    text_key, no_texts = filled(row, by_name, TEXT_FIELDS)
    id_key, no_ids = filled(row, by_name, ID_FIELDS)
    title_key = by_name.get(TITLE_FIELD)
    text, given, title = (None if key is None else row[key] for key in (text_key, id_key, title_key))
    if not isinstance(text, str):
        if text_key is not None:
            raise ReadError(f"{where}: its text is {_kind(text)}, not a string")
        held = ", ".join(map(str, list(row)[:8])) or "nothing"
        raise ReadError(
            f"{where}: a row needs its passage, a string, in one of {', '.join(TEXT_FIELDS)}; this one holds {held}"
            + (". Rows of a query and its documents are for `crossrank bulk rerank`" if "documents" in by_name else "")
        )
    title = "" if is_empty(title) else title
    if not isinstance(title, str):
        raise ReadError(f'{where}: "title" must be a string, not {_kind(title)}')
    unnamed = id_key is None or id_key in no_ids
    made = Passage(where if unnamed else str(given), text, title, name)
    try:
        f"{made.id}{text}{title}".encode()
    except UnicodeEncodeError as error:
        raise ReadError(
            f"{where} holds half of a surrogate pair (\\ud8xx without \\udcxx), so it is no text"
        ) from error
    if not fields:
        return Row(made, made.id, {})
    used = {text_key, id_key, title_key, *no_texts, *no_ids}
    try:
        others = {valid_text(key): _valid(value) for key, value in row.items() if key not in used}
        return Row(made, made.id if unnamed else _valid(given), others)
    except RecursionError as error:
        raise ReadError(f"{where} is nested too deep to be printed again; leave such fields out") from error


def _valid(value: Any) -> Any:
    """What JSON gave, as JSON can be written: Python also reads what is neither JSON nor text."""
    if isinstance(value, str):
        return valid_text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {valid_text(key): _valid(held) for key, held in value.items()}
    return [_valid(held) for held in value] if isinstance(value, list) else value


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
