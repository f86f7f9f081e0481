"""The columns of the table: how a passage becomes a row, and a row a passage."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank import extras
from crossrank.index.filters import decode_metadata, encode_metadata
from crossrank.index.records import Row, Settings
from crossrank.types import Passage, Place

extras.require("pyarrow", extra="search")

import pyarrow as pa  # noqa: E402

KEY = b"crossrank"
"""Where the schema's own metadata hold the settings."""
_PLACE = ("start", "line")
"""Columns that indexes made before them lack; there, nobody knows where a passage begins."""


def schema(settings: Settings) -> pa.Schema:
    """The columns of a new table."""
    return pa.schema(
        [
            ("id", pa.string()),
            ("document", pa.string()),
            # Title and text side by side: BM25 reads both as one, and neither is stored twice.
            ("content", pa.list_(pa.string())),
            ("metadata", pa.json_(pa.string())),
            ("vector", pa.list_(pa.float32(), settings.width)),
            ("tokens", pa.list_(pa.int32())),
            ("source", pa.string()),
            ("digest", pa.string()),
            ("size", pa.int64()),
            ("modified", pa.int64()),
            *((name, pa.int64()) for name in _PLACE),
        ],
        metadata={KEY: json.dumps(asdict(settings)).encode()},
    )


def columns_of(found: pa.Schema) -> list[str]:
    """What `passage_of` reads of a table with this schema, besides the id."""
    return ["document", "content", "metadata", *(["source", *_PLACE] if _has_places(found) else [])]


def passage_of(row: Mapping[str, Any]) -> Passage:
    """The passage of a row with the columns of `columns_of`."""
    title, text = row["content"]
    place = Place(row["source"], row["start"], row["line"]) if "start" in row else None
    return Passage(row["id"], text, title, row["document"], decode_metadata(row["metadata"]), place)


def table_of(rows: Sequence[Row], vectors: NDArray[np.float32], settings: Settings, found: pa.Schema) -> pa.Table:
    """Rows for a table that was made with these settings and has this schema."""
    passages = [row.passage for row in rows]
    offsets = np.concatenate([[0], np.cumsum([len(row.tokens) for row in rows])]).astype(np.int32)
    tokens = np.concatenate([row.tokens for row in rows]).astype(np.int32)
    wanted = schema(settings)
    metadata = pa.array([encode_metadata(passage.metadata) for passage in passages], pa.string())
    table = pa.Table.from_arrays(
        [
            pa.array([passage.id for passage in passages], pa.string()),
            pa.array([passage.document for passage in passages], pa.string()),
            pa.array([[passage.title, passage.text] for passage in passages], wanted.field("content").type),
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
        ],
        schema=wanted,
    )
    return table if _has_places(found) else table.drop_columns(list(_PLACE))


def _has_places(found: pa.Schema) -> bool:
    return set(_PLACE) <= set(found.names)
