"""The columns of the table: how a passage becomes a row, and a row a passage."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank import extras
from crossrank.index.filters import decode_metadata, encode_metadata
from crossrank.index.readers import MARKUP, SUFFIXES, suffix_of
from crossrank.index.records import ANY_LANGUAGE, SPELLING, Row, Settings
from crossrank.packed import offsets_of
from crossrank.tokenvectors import TokenVectors
from crossrank.types import Passage, Place

extras.require("pyarrow", extra="search")

import pyarrow as pa  # noqa: E402

KEY = b"crossrank"
"""Where the schema's own metadata hold the settings."""
LATE = "late"
"""Token vectors of late interaction, one after another; only where they were asked for."""
SHOWN = "shown"
"""Title and text as they are shown, where BM25 reads other letters than these; null elsewhere. Indexes made before this
column lack it; there, BM25 reads what is shown."""
_ACCENTS = re.compile("(?<=[A-Za-z])[\u0300-\u036f]+")
_DOTTED = re.compile("[Ii]\u0307")
"""The Turkish İ, taken apart, and what lower case makes of it."""
_HIDDEN = {"\u00ad": "", "\u2060": "", "\ufeff": ""}
"""What shows nothing within a word, and would part it: the soft hyphen and word joiners."""
_LIGATURES = {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"}
_ALL = str.maketrans(_HIDDEN | _LIGATURES)
_SPACED = _ALL | str.maketrans({"\u200b": ""})
"""With the space of no width, which may part words in languages without other spaces, and breaks lines in these."""
_LETTERS = {"ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "þ": "th", "Þ": "TH"}
_LETTERS |= dict(zip("øØłŁđĐðÐħĦŧŦŋŊıſ", "oOlLdDdDhHtTnNis", strict=True))
_ENGLISH = _SPACED | str.maketrans(_LETTERS)
"""With letters that are not taken apart into one of English and its accent."""
_OTHER_LINES = frozenset(suffix for suffix in SUFFIXES if MARKUP.get(suffix, "html") == "html")
"""Kinds of files whose text is not what stands in them."""
_PLACE = ("start", "line")
"""Columns that indexes made before them lack; there, nobody knows where a passage begins."""


def schema(settings: Settings) -> pa.Schema:
    """The columns of a new table."""
    return pa.schema(
        [
            ("id", pa.string()),
            ("document", pa.string()),
            # Title and text side by side: BM25 reads both as one, and neither is stored twice unless it is `SHOWN`.
            ("content", pa.list_(pa.string())),
            ("metadata", pa.json_(pa.string())),
            ("vector", pa.list_(pa.float32(), settings.width)),
            ("tokens", pa.list_(pa.int32())),
            ("source", pa.string()),
            ("digest", pa.string()),
            ("size", pa.int64()),
            ("modified", pa.int64()),
            *((name, pa.int64()) for name in _PLACE),
            (SHOWN, pa.list_(pa.string())),
            *([(LATE, pa.list_(pa.float16()))] if settings.late else []),
        ],
        metadata={KEY: json.dumps(asdict(settings)).encode()},
    )


def columns_of(found: pa.Schema) -> list[str]:
    """What `passage_of` reads of a table with this schema, besides the id."""
    places = ["source", *_PLACE] if set(_PLACE) <= set(found.names) else []
    return ["document", "content", "metadata", *places, *([SHOWN] if SHOWN in found.names else [])]


def passage_of(row: Mapping[str, Any]) -> Passage:
    """The passage of a row with the columns of `columns_of`."""
    title, text = row.get(SHOWN) or row["content"]
    return Passage(row["id"], text, title, row["document"], decode_metadata(row["metadata"]), _place_of(row))


def _place_of(row: Mapping[str, Any]) -> Place | None:
    """Where a passage begins; its line is 0, unknown, where the text that was read has other lines than its file.

    So it is in HTML and PDF, and in files of rows: there, the stored line counts within the row's text. The row's own
    line in the file is not stored: it may change without the row, and rows that are as they were are left alone.
    """
    if "start" not in row:
        return None
    return Place(row["source"], row["start"], 0 if suffix_of(row["source"]) in _OTHER_LINES else row["line"])


def as_words(text: str, language: str, spelling: int = SPELLING) -> str:
    """A text or query as BM25 reads it: what looks the same is written the same, and English has English letters only.

    Lance takes accents off too, but after stemming: without this "résumé" stays whole and "resume" becomes "resum".
    Stemmers of other languages need the accents.

    Args:
        text: as it is shown.
        language: of the index.
        spelling: of the index, see `records.SPELLING`.

    >>> as_words("re\u0301sume\u0301", "English"), as_words("re\u0301sume\u0301", "French")
    ('resume', 'résumé')
    >>> as_words("Stra\u00adße", "English"), as_words("Stra\u00adße", "German"), as_words("İzmir", "Turkish")
    ('Strasse', 'Straße', 'izmir')
    """
    if text.isascii():
        return text
    text = unicodedata.normalize("NFD", text)
    if spelling:
        letters = {"English": _ENGLISH, ANY_LANGUAGE: _ALL}.get(language, _SPACED)
        text = _DOTTED.sub("i", text).translate(letters)
    if language == "English":
        text = _ACCENTS.sub("", text)
    return unicodedata.normalize("NFC", text)


def vectors_of(lists: pa.ListArray, width: int) -> TokenVectors:
    """Token vectors of the rows of a column."""
    flat = np.asarray(lists.flatten().to_numpy(zero_copy_only=False), dtype=np.float16).reshape(-1, width)
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False) // width
    return TokenVectors(flat, offsets_of(lengths))


def table_of(
    rows: Sequence[Row],
    vectors: NDArray[np.float32],
    settings: Settings,
    found: pa.Schema,
    late: TokenVectors | None = None,
) -> pa.Table:
    """Rows for a table that was made with these settings and has this schema."""
    passages = [row.passage for row in rows]
    shown = [[passage.title, passage.text] for passage in passages]
    words = (
        [[as_words(text, settings.language, settings.spelling) for text in texts] for texts in shown]
        if SHOWN in found.names
        else shown
    )
    offsets = offsets_of([len(row.tokens) for row in rows]).astype(np.int32)
    tokens = np.concatenate([row.tokens for row in rows]).astype(np.int32)
    wanted = schema(settings)
    # Passages of a document share their metadata.
    distinct = {id(passage.metadata): passage.metadata for passage in passages}
    encoded = {key: encode_metadata(metadata) for key, metadata in distinct.items()}
    metadata = pa.array([encoded[id(passage.metadata)] for passage in passages], pa.string())
    table = pa.Table.from_arrays(
        [
            pa.array([passage.id for passage in passages], pa.string()),
            pa.array([passage.document for passage in passages], pa.string()),
            pa.array(words, wanted.field("content").type),
            pa.ExtensionArray.from_storage(pa.json_(pa.string()), metadata),
            pa.FixedSizeListArray.from_arrays(np.ascontiguousarray(vectors).ravel(), settings.width),
            pa.ListArray.from_arrays(offsets, tokens),
            *(
                pa.array([getattr(row, name) for row in rows], wanted.field(name).type)
                for name in ("source", "digest", "size", "modified")
            ),
            *(
                pa.array([getattr(passage.place, name, 0) for passage in passages], wanted.field(name).type)
                for name in _PLACE
            ),
            pa.array([a if a != b else None for a, b in zip(shown, words, strict=True)], wanted.field(SHOWN).type),
            *([] if late is None else [_lists(late)]),
        ],
        schema=wanted,
    )
    return table.select([name for name in wanted.names if name in found.names])


def _lists(late: TokenVectors) -> pa.ListArray:
    width = late.vectors.shape[1]
    numbers = pa.array(np.ascontiguousarray(late.vectors, dtype=np.float16).ravel())
    return pa.ListArray.from_arrays((late.offsets * width).astype(np.int32), numbers)
