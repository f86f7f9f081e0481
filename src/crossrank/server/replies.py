"""Replies as bytes of JSON."""

from __future__ import annotations

import json
from typing import Any

_READABLE = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_ESCAPED = json.JSONEncoder(allow_nan=False, separators=(",", ":"))


def encoded(payload: Any) -> bytes:
    """JSON in UTF-8; escaped where a text holds half of a surrogate pair, which UTF-8 cannot hold.

    Lists of results are encoded one result at a time: Python writes JSON in one go, while no other thread runs.

    >>> encoded({"text": chr(0xD800), "results": [1, 2]})
    b'{"text":"\\\\ud800","results":[1,2]}'
    """
    if isinstance(payload, list):
        return b"[" + b",".join([_written(item) for item in payload]) + b"]"
    if not isinstance(payload, dict):
        return _written(payload)
    members = [
        _written(name) + b":" + (encoded(value) if isinstance(value, list) else _written(value))
        for name, value in payload.items()
    ]
    return b"{" + b",".join(members) + b"}"


def _written(value: Any) -> bytes:
    try:
        return _READABLE.encode(value).encode()
    except UnicodeEncodeError:
        return _ESCAPED.encode(value).encode()
