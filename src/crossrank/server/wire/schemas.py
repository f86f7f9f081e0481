"""What fields of requests may hold, as JSON schemas: each dialect lists its own; `/openapi.json` is made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Schema = Mapping[str, Any]


def held(of: Schema) -> Schema:
    """What an object may hold its text under: a string, and in `content` also vLLM's list of parts of type text."""
    return {"text": of, "content": {"anyOf": [of, {"type": "array", "items": _part(of), "minItems": 1}]}}


def _part(of: Schema) -> Schema:
    return {"type": "object", "required": ["type", "text"], "properties": {"type": {"const": "text"}, "text": of}}


def _text(of: Schema) -> Schema:
    """A string, or an object that holds one under one of two names, and no image."""
    texts = held(of)
    objects = [
        {
            "type": "object", "required": [name], "properties": {name: texts[name], "image": {"type": "null"}},
            "not": {"required": [other], "properties": {other: {"not": {"type": "null"}}}},
        }
        for name, other in (("text", "content"), ("content", "text"))
    ]  # fmt: skip
    return {"anyOf": [of, *objects]}


# A blank query is refused; a blank document is not. Control characters do not show, nor do the usual ones of format.
_SHOWN = r"[^\s\u0000-\u001f\u007f-\u009f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]"
QUERY: Schema = _text({"type": "string", "pattern": _SHOWN})
ANY_QUERIES: Schema = {"anyOf": [QUERY, {"type": "array", "items": QUERY}, {"type": "null"}]}
DOCUMENT: Schema = _text({"type": "string"})
DOCUMENTS: Schema = {"type": "array", "items": DOCUMENT}
# vLLM takes one object for a list: each of its parts is a document.
PARTS: Schema = {
    "type": "object", "required": ["content"],
    "properties": {"content": {"type": "array", "items": _part({"type": "string"})}},
}  # fmt: skip
ANY_DOCUMENTS: Schema = {"anyOf": [DOCUMENT, {"type": "array", "items": DOCUMENT}, PARTS, {"type": "null"}]}
# infinity and TEI refuse an empty list; the others answer it with one.
SOME_DOCUMENTS: Schema = {**DOCUMENTS, "minItems": 1}
MODEL: Schema = {"description": "Not read: the reply's model says what answered."}
COUNT: Schema = {"type": ["integer", "null"], "minimum": 0}
POSITIVE: Schema = {"type": ["integer", "null"], "minimum": 1}
INDEX: Schema = {"type": "integer", "minimum": 0, "description": "The place in the request's list, from 0."}
SCORE: Schema = {"type": "number"}
RANKED: Mapping[str, Schema] = {"index": INDEX, "relevance_score": SCORE}
FLAG: Schema = {"type": ["boolean", "null"]}


def one_of(*words: str) -> Schema:
    """One of some words, or null.

    >>> one_of("left", "right")
    {'enum': ['left', 'right', None]}
    """
    return {"enum": [*words, None]}


def models(names: Sequence[str]) -> Schema:
    """The name of one of several models.

    >>> models(["small", "fast"])["enum"]
    ['small', 'fast', None]
    """
    return {"enum": [*names, None], "description": "The model that reads; the first where it is left out."}
