"""What fields of requests may hold, as JSON schemas: each dialect lists its own; `/openapi.json` is made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]

# A blank query is refused; a blank document is not.
_TEXT: Schema = {"type": "string", "pattern": r"\S"}
QUERY: Schema = {"anyOf": [_TEXT, {"type": "object", "required": ["text"], "properties": {"text": _TEXT}}]}
ANY_QUERIES: Schema = {"anyOf": [QUERY, {"type": "array", "items": QUERY}]}
DOCUMENT: Schema = {
    "anyOf": [
        {"type": "string"},
        {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}},
    ]
}
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
