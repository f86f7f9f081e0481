"""What a reader yields, what it may spend, and how it says that something could not be read."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Literal

import numpy as np

from crossrank.errors import InputError
from crossrank.unicode import valid_text

Value = str | int | float | bool | list[Any] | dict[str, Any] | None
# What a filter can compare: a string, a number, a boolean; lists and mappings as their JSON text.
Kind = Literal["s", "n", "b"]
KINDS: tuple[Kind, ...] = ("s", "n", "b")
Markup = Literal["plain", "markdown", "rst", "html"]

NESTED_CHARACTERS = 1_000
"""A list or mapping in a row's fields is kept up to this length as JSON; longer ones (vectors) are left out."""
STRING_CHARACTERS = 32_000
"""A text in a row's fields is kept up to this length. Longer ones are no metadata but a page's source, say, and every
passage holds a copy: a field of 400,000 characters beside a text of 1,500 passages took 6 GB."""
METADATA_CHARACTERS = 128_000
"""And all fields of a document, their names too, up to this one; what does not fit any more is left out."""
_MOST = 2**31 - 1
"""What a limit in bytes or characters may be: columns of a table hold no longer text."""
_SCALAR = 24
"""Characters of a number, about."""


@dataclass(frozen=True, slots=True)
class Document:
    """What the user indexed: a file, or a row of a file of rows.

    Attributes:
        id: unique in its index.
        text: the body.
        title: read before the text when it is not empty.
        metadata: the user's own fields, which filters see; values are strings, numbers, booleans, None, or lists and
            mappings of these. Others are kept as `plain_metadata` says.
        markup: how headings are written in the text; "plain" has none, "html" is text whose headings became `# lines`.
        row: where a row stands in its file, as failures name it: "line 7"; "" for all else. No part of the content.
        omitted: fields that were left out of the metadata. No part of the content.
    """

    id: str
    text: str
    title: str = ""
    metadata: Mapping[str, Value] = field(default_factory=dict)
    markup: Markup = "plain"
    row: str = field(default="", compare=False)
    omitted: Sequence[str] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that could not be indexed; the rest was.

    Attributes:
        source: the file, with the row where there is one: `notes.jsonl, line 7`.
        reason: what was wrong and the cure.
    """

    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What reading one thing may cost, in bytes, so that a huge or hostile file has a defined end.

    Attributes:
        file_bytes: a file that is one document (text, Markdown, HTML, PDF) larger than this is refused.
        row_bytes: a row of a .jsonl file larger than this is refused, and the rows after it are read. In a .csv or .tsv
            file, where only its quotes would tell where such a row ends, it is an error that names the row: those
            before it are read, and none after it. Rows of too few or too many cells are refused alone. A .csv row up to
            twice as large may be read.
            Of a row of a .parquet file the values count as they are without compression, but no column of bytes, which
            is not read; a larger row is refused alone. Pages are decompressed as a whole, so a file is refused whose
            pages for one row have more than 256 MiB and 100 times its own size, or 2 GiB. 512 MiB of values are read at
            once, or one row; but of numbers in lists as many as there are.
        text_characters: text taken out of one PDF, whose compression could hide any amount.
        bad_rows: bad rows reported one by one for each file; the others are counted.
    """

    file_bytes: int = 32 * 2**20
    row_bytes: int = 8 * 2**20
    text_characters: int = 32 * 2**20
    bad_rows: int = 20

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 1:
                raise InputError(f"Limits.{name} must be at least 1, not {getattr(self, name)}")
            if getattr(self, name) > _MOST and name != "bad_rows":
                raise InputError(f"Limits.{name} must be at most {_MOST:,}, not {getattr(self, name)}")


def plain_metadata(fields: Mapping[Any, Any], *, copied: bool = True) -> dict[str, Value]:
    """Fields as an index can hold and filter them.

    Strings, booleans, None, finite floats and integers of 64 bits stay as they are; larger integers become strings,
    infinities and what tables have in place of a value (`is_missing`) None, decimals integers or floats, dates ISO
    text, paths, UUIDs and the like their text. NumPy's scalars and subclasses of plain types, such as members of an
    `IntEnum`, become the plain value. Lists and mappings become what JSON makes of them (a tuple, an array of NumPy and
    a set are lists, the last sorted; a key is text).

    Left out are bytes, objects without a text of their own, and lists and mappings above `NESTED_CHARACTERS`. Where
    passages will hold copies, so are texts above `STRING_CHARACTERS`, and each field that would take those before it
    above `METADATA_CHARACTERS`.

    Args:
        fields: by name.
        copied: whether they are those of a document, whose passages hold copies.

    Raises:
        InputError: a list or mapping that JSON cannot hold, such as one with an object without a text of its own.

    >>> plain_metadata({"year": 2020, "tags": ["a", "b"], "score": float("nan"), "raw": b"...", "html": "<" * 99_999})
    {'year': 2020, 'tags': ['a', 'b'], 'score': None}
    """
    longest, room = (STRING_CHARACTERS, METADATA_CHARACTERS) if copied else (math.inf, math.inf)
    kept: dict[str, Value] = {}
    for key, given in fields.items():
        name = valid_text(str(key))
        value, characters = _held(name, _plain(given), longest)
        if characters is not None and len(name) + characters <= room:
            kept[name] = value
            room -= len(name) + characters
    return kept


def _held(name: str, value: Any, longest: float) -> tuple[Value, int | None]:
    """The value of a field as an index holds it, and its length in characters, None where it is left out."""
    if isinstance(value, str):
        text = valid_text(str.__str__(value))  # The str() of a member of an enum is its name.
        return text, len(text) if len(text) <= longest else None
    if value is None or isinstance(value, bool):
        return value, _SCALAR
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**63 else str(int(value)), _SCALAR
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None, _SCALAR
    if isinstance(value, (list, tuple, dict)):
        nested = _json(name, value)
        if len(nested) > NESTED_CHARACTERS:
            return None, None
        # A reply over HTTP has no NaN, which JSON does not know.
        return json.loads(valid_text(nested), parse_constant=lambda _: None), len(nested)
    told = _told(value)
    return (None, None) if told is None else _held(name, told, longest)


def is_missing(value: Any) -> bool:
    """Whether this is what tables have in place of a value: None, NaN, the NaT of a column of times, or pandas' NA.

    Their texts would be values to a filter: "NaT" comes after every date.

    >>> is_missing(np.datetime64("NaT")), is_missing(np.float32("nan")), is_missing(0)
    (True, True, False)
    """
    if isinstance(value, Decimal):
        return value.is_nan()  # One of the two kinds cannot be compared.
    if isinstance(value, (float, np.floating, np.datetime64, np.timedelta64)):
        return bool(value != value)
    # By their names, because pandas need not be there; its NA compares with nothing.
    return value is None or type(value).__name__ in ("NaTType", "NAType")


def cleaned(document: Document, position: int) -> Document:
    """A document that a program passed in, as an index can hold it.

    Raises:
        InputError: it is none, has no id, or something in it is of another type.
    """
    if not isinstance(document, Document):
        raise InputError(
            f'expected a Document or a mapping such as {{"id": ..., "text": ...}}, not {type(document).__name__}'
        )
    if not isinstance(document.id, str):
        raise InputError(
            f"the id of document {position} is {type(document.id).__name__} ({document.id!r}), not a string: turn it "
            "into one"
        )
    if not document.id:
        raise InputError("a document needs an id")
    for name, wanted, told in (("text", str, "string"), ("title", str, "string"), ("metadata", Mapping, "mapping")):
        if not isinstance(value := getattr(document, name), wanted):
            raise InputError(f"the {name} of document {document.id!r} is {type(value).__name__}, not a {told}")
    metadata = plain_metadata(document.metadata)
    return replace(
        document,
        id=valid_text(document.id),
        text=valid_text(document.text),
        title=valid_text(document.title),
        metadata=metadata,
        omitted=left_out(document.metadata, metadata),
    )


def ids_in(ids: Iterable[str]) -> list[str]:
    """Ids that a program asks for, as an index holds them.

    Raises:
        InputError: one string in place of a list, or something that is no string.

    >>> ids_in(["a", "b"])
    ['a', 'b']
    """
    if isinstance(ids, str) or not isinstance(ids, Iterable):
        raise InputError(f"ids are passed as a list of ids, so one is [{str(ids)!r}]")
    wanted = list(ids)
    for id_ in wanted:
        if not isinstance(id_, str):
            raise InputError(f"an id is a string, not {type(id_).__name__} ({id_!r}): turn it into one")
    return [valid_text(id_) for id_ in wanted]


def paths_in(paths: Iterable[str | os.PathLike[str]], call: str) -> list[str]:
    """Paths that a program names, as strings in a list: a generator would have none left for who looks a second time.

    Args:
        paths: of the caller.
        call: what the caller called, for the message.

    Raises:
        InputError: one path in place of a list, or something that is no path.

    >>> paths_in(iter(["a.txt"]), "update")
    ['a.txt']
    """
    if isinstance(paths, (str, bytes, os.PathLike)):
        raise InputError(f"{call} takes a list of paths, not one path")
    if not isinstance(paths, Iterable):
        raise InputError(f"{call} takes a list of paths, not {type(paths).__name__}")
    wanted = [os.fspath(path) if isinstance(path, os.PathLike) else path for path in paths]
    for path in wanted:
        if not isinstance(path, str):
            raise InputError(f"a path is a string or a Path, not {type(path).__name__} ({path!r}): turn it into one")
    return wanted


def left_out(fields: Mapping[Any, Any], kept: Mapping[str, Value]) -> list[str]:
    """The names of the fields that `plain_metadata` left out.

    >>> left_out({"year": 2020, "raw": b"..."}, {"year": 2020})
    ['raw']
    """
    return [name for key in fields if (name := valid_text(str(key))) not in kept]


def _told(value: Any) -> str | None:
    """A date, path, UUID or the like as text; None of bytes, and of what shows only its address in memory, say."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return None
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    return str(value) if _has_text(value) else None


def _has_text(value: Any) -> bool:
    text: Any = type(value).__str__
    return text is not object.__str__


def _plain(value: Any) -> Any:
    """What others than Python's plain types hold: scalars and arrays of NumPy, decimals, sets (sorted, as a list);
    None of what is missing.

    Times of NumPy stay, which would lose what they are; in arrays they are text.
    """
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "mM":
            return value.tolist()
        texts = value.astype(str).astype(object)
        texts[np.isnat(value)] = None
        return texts.tolist()
    if is_missing(value):
        return None
    if isinstance(value, (set, frozenset)):
        # By their types first: Python has no order of 1 and "a".
        kinds = (str, int, float)
        return sorted(value, key=lambda one: (type(one).__name__, one if isinstance(one, kinds) else repr(one)))
    if isinstance(value, Decimal):
        return int(value) if value.as_tuple().exponent == 0 else float(value)
    if isinstance(value, np.generic) and not isinstance(value, (np.datetime64, np.timedelta64)):
        return value.item()
    return value


def _json(name: str, value: Any) -> str:
    def plain(inner: Any) -> Any:
        made = _plain(inner)
        if made is not inner and not isinstance(made, np.generic):
            return made
        if not _has_text(made):
            raise TypeError(f"a {type(made).__name__} has no text of its own")
        return str(made)

    try:
        return json.dumps(value, ensure_ascii=False, default=plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"the metadata field {name!r} cannot be kept as JSON: {error}") from error
