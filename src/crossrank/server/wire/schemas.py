"""What fields of requests may hold, as JSON schemas: each dialect lists its own; `/openapi.json` is made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]


def _text(of: Schema) -> Schema:
    """A string, or an object that holds one under one of two names."""
    objects = [
        {
            "type": "object", "required": [name], "properties": {name: of},
            "not": {"required": [other], "properties": {other: {"not": {"type": "null"}}}},
        }
        for name, other in (("text", "content"), ("content", "text"))
    ]  # fmt: skip
    return {"anyOf": [of, *objects]}


# A blank query is refused; a blank document is not.
QUERY: Schema = _text({"type": "string", "pattern": r"\S"})
ANY_QUERIES: Schema = {"anyOf": [QUERY, {"type": "array", "items": QUERY}]}
DOCUMENT: Schema = _text({"type": "string"})
ANY_DOCUMENTS: Schema = {"anyOf": [DOCUMENT, {"type": "array", "items": DOCUMENT}]}
DOCUMENTS: Schema = {"type": "array", "items": DOCUMENT}
# infinity and TEI refuse an empty list; the others answer it with one.
SOME_DOCUMENTS: Schema = {**DOCUMENTS, "minItems": 1}
MODEL: Schema = {"description": "Not read: the reply's model says what answered."}
COUNT: Schema = {"type": ["integer", "null"], "minimum": 0}
POSITIVE: Schema = {"type": ["integer", "null"], "minimum": 1}
FLAG: Schema = {"type": ["boolean", "null"]}


def one_of(*words: str) -> Schema:
    """One of some words, or null.

    >>> one_of("left", "right")
    {'enum': ['left', 'right', None]}
    """
    return {"enum": [*words, None]}
