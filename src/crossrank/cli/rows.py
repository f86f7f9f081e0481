"""The passages that a user gives to `crossrank rerank`: one a line of text, or one a row of JSON lines."""

from __future__ import annotations

import codecs
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click

from crossrank.cli import terminal
from crossrank.errors import ReadError
from crossrank.types import Passage, check_query

# One passage is a paragraph, at most a long article. A longer line is a file without line ends, read by mistake; the
# limit keeps it out of memory. 16 MiB is more text than any model reads of one passage.
MOST_BYTES = 16 * 1024 * 1024


def read(files: Sequence[str], encoding: str, jsonl: bool | None) -> list[Passage]:
    """All passages of all files, in order; `-` is stdin.

    A passage's id is the row's own (`id` or `_id`), or else file and line, `notes.txt:3`.

    Args:
        files: paths or `-`.
        encoding: of the files.
        jsonl: whether the rows are JSON; None decides by the file name.

    Raises:
        ReadError: a file that is not text in this encoding, a line beyond 16 MiB, a row without text.
    """
    passages: list[Passage] = []
    for file in files:
        name = "stdin" if file == "-" else click.format_filename(file)
        as_json = jsonl if jsonl is not None else Path(file).suffix.lower() in (".jsonl", ".ndjson")
        with opened(file) as stream:
            for number, line in enumerate(lines(stream, name, encoding), start=1):
                if as_json and not line.strip():
                    continue
                where = f"{name}:{number}"
                passages.append(_row(line, where, name) if as_json else Passage(where, line, document=name))
    return passages


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
    """A file's bytes; stdin for `-`, which stays open.

    Raises:
        ReadError: there is no stdin.
    """
    if file == "-":
        if sys.stdin is None:
            raise ReadError("there is no stdin to read passages from; name a file")
        if sys.stdin.isatty():
            terminal.note("Reading passages from the terminal, one a line. Ctrl-D ends them.")
        # Not closed: stdin is the process's.
        yield sys.stdin.buffer
    else:
        with Path(file).open("rb") as stream:
            yield stream


def lines(stream: IO[bytes], name: str, encoding: str) -> Iterator[str]:
    """Lines without their ends. Only a newline ends a line; a form feed or U+2028 is part of the text.

    Raises:
        ReadError: a line beyond 16 MiB, or what is not text in this encoding.
    """
    if encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32")):
        # A newline is several bytes there, so such a file is decoded whole, within the limit of one line.
        whole = stream.read(MOST_BYTES + 1)
        _check_length(whole, name, 1)
        yield from _decoded(whole, name, 1, encoding).removesuffix("\n").split("\n")
        return
    number = 0
    while line := stream.readline(MOST_BYTES + 1):
        number += 1
        _check_length(line, name, number)
        text = _decoded(line, name, number, encoding)
        if number == 1:
            text = text.removeprefix("\ufeff")
        yield text.removesuffix("\n").removesuffix("\r")


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


def _row(line: str, where: str, name: str) -> Passage:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ReadError(f"{where} is not a JSON row ({error}). For plain lines of text add --input lines.") from error
    if not isinstance(row, dict):
        raise ReadError(f'{where}: a row must be an object such as {{"id": "7", "text": "..."}}, not {_kind(row)}')
    text, title = row.get("text"), row.get("title")
    if not isinstance(text, str):
        held = ", ".join(map(str, list(row)[:8])) or "nothing"
        raise ReadError(f'{where}: a row needs its passage in "text", a string; this one holds {held}')
    if not isinstance(title, str | None):
        raise ReadError(f'{where}: "title" must be a string, not {_kind(title)}')
    given = row.get("id", row.get("_id"))
    made = Passage(where if given is None else str(given), text, title or "", name)
    try:
        f"{made.id}{text}{title}".encode()
    except UnicodeEncodeError as error:
        raise ReadError(
            f"{where} holds half of a surrogate pair (\\ud8xx without \\udcxx), so it is no text"
        ) from error
    return made


def _kind(value: Any) -> str:
    return {list: "a list", str: "a string", bool: "true or false", type(None): "null"}.get(type(value), "a number")
