"""Rows of .jsonl files, and the rule that makes a document of a row, whatever file it came from."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from io import BufferedReader
from pathlib import Path
from typing import Any, cast

from crossrank.errors import InputError, ReadError
from crossrank.index import tsv
from crossrank.index.documents import Document, Failure, Limits, cleaned, is_missing, left_out, plain_metadata
from crossrank.unicode import valid_text

TEXT_FIELDS = ("text", "content", "contents", "body", "passage")
ID_FIELDS = ("_id", "id")
TITLE_FIELD = "title"

Report = Callable[[Failure], None]


class Rows:
    """Turns rows of one file into documents, and reports bad rows without flooding the report.

    The text is the first of the fields text, content, contents, body, passage that holds something; the id is `_id` or
    `id`, else the file's name and the number of the row; `title` is the title; all other
    fields are the metadata, and so is what stands in a mapping called `metadata`, unless the row has a field of that
    name itself: then it is left out, and named as in `metadata.year`.
    """

    def __init__(self, name: str, path: str, limits: Limits, report: Report) -> None:
        self.name = name
        self.path = path
        self.limits = limits
        self.bad = 0
        self._report = report

    def refuse(self, number: int, reason: str, unit: str = "row") -> None:
        """Report one bad row; past `Limits.bad_rows` it is only counted."""
        self.bad += 1
        if self.bad <= self.limits.bad_rows:
            self._report(Failure(f"{self.path}, {unit} {number}", reason))

    def close(self) -> None:
        """Say how many bad rows were not reported one by one."""
        if self.bad > self.limits.bad_rows:
            self._report(Failure(self.path, f"{self.bad - self.limits.bad_rows} more rows could not be read"))

    def document(self, row: Mapping[str, Any], number: int, unit: str = "row") -> Document | None:
        """The document of row `number` (from 1), or None when it was refused and reported."""
        by_name = keys_of(row)
        text_key, no_texts = filled(row, by_name, TEXT_FIELDS)
        if text_key is None:
            names = ", ".join(str(key) for key in list(row)[:12]) or "none"
            self.refuse(number, f"no text: name the field one of {', '.join(TEXT_FIELDS)} (its fields: {names})", unit)
            return None
        text = row[text_key]
        if text is not None and not isinstance(text, str):
            self.refuse(number, f"its {text_key!r} is a {type(text).__name__}, not a string", unit)
            return None
        id_key, no_ids = filled(row, by_name, ID_FIELDS)
        identity = row[id_key] if id_key is not None else None
        title_key = by_name.get(TITLE_FIELD)
        title = row[title_key] if title_key is not None else None
        if isinstance(title, (list, dict)):
            self.refuse(number, f"its {title_key!r} is a {type(title).__name__}, not a string", unit)
            return None
        used = {text_key, id_key, title_key, *no_texts, *no_ids}
        fields = {key: value for key, value in row.items() if key not in used}
        nested = fields.pop("metadata", None)
        twice: list[str] = []
        if isinstance(nested, Mapping):
            twice = [f"metadata.{key}" for key in nested if key in fields and fields[key] != nested[key]]
            fields |= {key: value for key, value in nested.items() if key not in fields}
        elif nested is not None:
            fields["metadata"] = nested
        try:
            metadata = plain_metadata(fields)
        except InputError as error:
            self.refuse(number, str(error), unit)
            return None
        return Document(
            id=f"{self.name}#{number}" if is_empty(identity) else valid_text(str(identity)),
            text=valid_text(text or ""),
            title="" if is_empty(title) else valid_text(str(title)),
            metadata=metadata,
            row=f"{unit} {number}",
            omitted=[*left_out(fields, metadata), *twice],
        )


def document_of(given: Document | Mapping[str, Any], position: int) -> Document:
    """A document that a program passed in, as itself or as a row, as an index can hold it.

    Raises:
        InputError: it is neither, has no id, or something in it is of another type.

    >>> document_of({"id": 7, "text": "Tea is hot.", "year": 2020}, 0).metadata
    {'year': 2020}
    """
    if not isinstance(given, Mapping):
        return cleaned(given, position)
    id_key, _ = filled(given, keys_of(given), ID_FIELDS)
    # Its place would do in a file; here the next call's first row would replace this one's.
    if id_key is None or is_empty(given[id_key]):
        names = ", ".join(str(key) for key in list(given)[:12]) or "none"
        raise InputError(f"document {position} has no id: name its field id or _id (its fields: {names})")

    def refuse(failure: Failure) -> None:
        raise InputError(f"document {position}: {failure.reason}")

    made = Rows("", "", Limits(), refuse).document(given, position)
    assert made is not None
    return replace(made, row="")


def keys_of(row: Mapping[str, Any]) -> dict[str, str]:
    """A row's own keys by the names that are looked for: without the spaces around them, in lower case.

    Of several keys of one name, that which holds something; of these, the one that is written so, then the first.

    >>> keys_of({" Text ": "tea", "TEXT": ""})
    {'text': ' Text '}
    """
    named = [(str(key).strip().lower(), key) for key in row]
    keys: dict[str, str] = {}
    for name, key in sorted(named, key=lambda one: (is_empty(row[one[1]]), one[0] != one[1])):
        keys.setdefault(name, key)
    return keys


def filled(row: Mapping[str, Any], by_name: Mapping[str, str], names: Sequence[str]) -> tuple[str | None, list[str]]:
    """Key of the first field of these names that holds something, else of the first; and of all that hold nothing.

    >>> row = {"content": "", "body": "tea"}
    >>> filled(row, keys_of(row), TEXT_FIELDS)
    ('body', ['content'])
    """
    keys = [by_name[name] for name in names if name in by_name]
    empty = [key for key in keys if is_empty(row[key])]
    return next((key for key in keys if key not in empty), keys[0] if keys else None), empty


def is_empty(value: Any) -> bool:
    """Whether nothing is there: no text, or what tables have in place of None."""
    return (isinstance(value, str) and not value) or is_missing(value)


def read_jsonl(path: Path, rows: Rows) -> Iterator[Document]:
    """One document a line; blank lines are skipped, bad ones reported. `.gz` files are decompressed as they are read.

    Raises:
        ReadError: the file cannot be opened, or its compressed data is damaged.
    """
    try:
        with _open(path) as file:
            for number, line in _lines(file, rows.limits.row_bytes):
                if line is None:
                    rows.refuse(
                        number,
                        f"the line is longer than {rows.limits.row_bytes:,} bytes: split the document, or raise "
                        "Limits.row_bytes",
                        "line",
                    )
                    continue
                row = _parse(line, number, rows)
                document = rows.document(row, number, "line") if row is not None else None
                if document is not None:
                    yield document
    except (OSError, EOFError, zlib.error) as error:
        raise ReadError(f"{path} cannot be read: {error}") from error
    rows.close()


def count_lines(path: Path) -> int:
    """Lines of a file, about: what a progress bar counts towards. 0 when it cannot be read."""
    lines = 0
    try:
        with _open(path) as file:
            while chunk := file.read(2**20):
                lines += chunk.count(b"\n")
    except (OSError, EOFError, zlib.error):
        return 0
    return max(lines, 1)


def has_texts(path: Path) -> bool:
    """Whether a .tsv file names a column of texts, as its reader understands it.

    True also where that is uncertain, so that reading it says what is wrong: bytes that are not UTF-8, names of another
    encoding, a quote that nobody closed, or more than one way to see where the first line ends.
    """
    try:
        with tsv.opened(path) as file:
            names = tsv.header(file, path)
            ends = file.newlines
    except (OSError, UnicodeDecodeError, ReadError):
        return True
    together = "\t".join(names)
    odd = together.count('"') % 2 == 1 or any(letter in together for letter in "\0\x1b\r\n")
    if odd or "\r" in (ends if isinstance(ends, tuple) else [ends]):
        return True
    return not {name.strip().lower() for name in names}.isdisjoint(TEXT_FIELDS)


def _open(path: Path) -> BufferedReader:
    if path.suffix.lower() == ".gz":
        return cast(BufferedReader, gzip.open(path, "rb"))
    return path.open("rb")


def _lines(file: BufferedReader, limit: int) -> Iterator[tuple[int, bytes | None]]:
    """Lines from 1; None for one that is longer than the limit, which is passed over in bounded pieces."""
    number = 0
    while line := file.readline(limit + 1):
        number += 1
        if len(line) <= limit or line.endswith(b"\n"):
            yield number, line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(2**16)
        yield number, None


def _parse(line: bytes, number: int, rows: Rows) -> Mapping[str, Any] | None:
    """The row of a line; None when it is blank, or was refused and reported."""
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        if not text:
            return None
        row = json.loads(text)
    except UnicodeDecodeError as error:
        rows.refuse(number, f"not UTF-8 at byte {error.start} of the line: save the file as UTF-8", "line")
        return None
    except (ValueError, RecursionError) as error:
        rows.refuse(number, f"not JSON ({error or 'nested too deep'}): one object a line is expected", "line")
        return None
    if not isinstance(row, dict):
        rows.refuse(number, f"a JSON {type(row).__name__}, where an object with fields is expected", "line")
        return None
    return row
