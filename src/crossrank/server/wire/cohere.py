"""Cohere's rerank, versions 1 and 2. Source: Cohere's OpenAPI file of August 2026.

The reply also holds `model`, `object` and `usage`, which clients of Jina, vLLM and infinity read: this is the shape of
the paths without a product's name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from crossrank.server.cutting import Caps
from crossrank.server.refusals import invalid
from crossrank.server.wire import fields, schemas
from crossrank.server.wire.shapes import Dialect, Outcome, Rerank

# One search unit is a query with up to so many documents.
_UNIT = 100
# Names of rank_fields. Each is looked for in each document, and the event loop may be what does it.
_MOST_NAMES = 64


def read(body: fields.Body) -> Rerank:
    """Version 2: documents are strings. Objects with a `text` are taken too, as Jina's clients send them.

    `top_k` is a second name of `top_n`, which counts where both are given.
    """
    cure = "; rank_fields is read at /v1/rerank" if "rank_fields" in body else ""
    query, documents = fields.text(body, "query"), fields.texts(body, "documents", cure)
    k, overruled = fields.either(body, "top_n", "top_k")
    return Rerank(
        pairs=tuple((query, document) for document in documents),
        k=k,
        echo=fields.flag(body, "return_documents", False),
        documents=tuple(body["documents"]),
        caps=Caps(document=fields.count(body, "max_tokens_per_doc")),
        unread=overruled,
    )


def read_v1(body: fields.Body) -> Rerank:
    """Version 1: documents are strings or objects; `rank_fields` names the fields of objects that are read."""
    names = _names(body.get("rank_fields"))
    query = fields.text(body, "query")
    given = fields.items(body, "documents")
    documents = [_document(item, place, names) for place, item in enumerate(given)]
    k, overruled = fields.either(body, "top_n", "top_k")
    return Rerank(
        pairs=tuple((query, document) for document in documents),
        k=k,
        echo=fields.flag(body, "return_documents", False),
        documents=tuple(given),
        caps=Caps(
            document=fields.count(body, "max_tokens_per_doc"), windows=fields.whole(body, "max_chunks_per_doc", 1)
        ),
        unread=overruled,
    )


def _names(value: Any) -> Sequence[str]:
    """The names of `rank_fields`, each once: a text that is named a thousand times is read once."""
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise invalid("rank_fields must be a list of strings", "rank_fields")
    if len(value) > _MOST_NAMES:
        raise invalid(f"rank_fields may name {_MOST_NAMES} fields, not {len(value):,}", "rank_fields")
    return tuple(dict.fromkeys(value))


def _document(item: Any, place: int, names: Sequence[str]) -> str:
    where = f"documents[{place}]"
    if not isinstance(item, Mapping):
        return fields.document(item, where)
    if not names:
        # Whatever else an object holds, images too, is none of the fields that are ranked.
        return fields.document(
            {name: item.get(name) for name in fields.TEXTS}, where, ", or in fields that rank_fields names"
        )
    if not any(name in item for name in names):
        raise invalid(f"{where} has none of the rank_fields, which name fields to the letter, capitals too", where)
    # A name without a text beside it would make a blank document one that can be scored.
    texts = ((name, _text(item.get(name))) for name in names)
    return "\n".join(f"{name}: {text}" for name, text in texts if text.strip())


def _text(value: Any) -> str:
    """A field's value as text: other than strings as JSON, null as nothing."""
    if value is None or isinstance(value, str):
        return value or ""
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        raise invalid("the body is nested too deeply") from None


def reply(request: Rerank, outcome: Outcome) -> dict[str, Any]:
    """Best first; `document` only when `return_documents` asks for it."""
    return _reply(request, outcome, "2")


def reply_v1(request: Rerank, outcome: Outcome) -> dict[str, Any]:
    """As version 2, with the other version number."""
    return _reply(request, outcome, "1")


def _reply(request: Rerank, outcome: Outcome, version: str) -> dict[str, Any]:
    results = []
    for position, score in zip(outcome.positions, outcome.scores, strict=True):
        result: dict[str, Any] = {"index": position, "relevance_score": score}
        if request.echo:
            result["document"] = as_object(request.documents[position])
        results.append(result)
    meta: dict[str, Any] = {
        "api_version": {"version": version, "is_experimental": False},
        "billed_units": {"search_units": max(1, -(-len(request.pairs) // _UNIT))},
        "tokens": {"input_tokens": outcome.tokens},
    }
    if outcome.warnings:
        meta["warnings"] = list(outcome.warnings)
    usage = {"prompt_tokens": outcome.tokens, "total_tokens": outcome.tokens}
    return {
        "id": outcome.id, "object": "rerank", "model": outcome.model, "results": results, "meta": meta, "usage": usage,
    }  # fmt: skip


def as_object(document: Any) -> dict[str, Any]:
    """The document as an object: as it came, or its text under `text`."""
    return dict(document) if isinstance(document, Mapping) else {"text": document}


FIELDS = {
    "model": schemas.MODEL, "query": schemas.QUERY, "documents": schemas.DOCUMENTS, "top_n": schemas.COUNT,
    "top_k": schemas.COUNT, "return_documents": schemas.FLAG, "max_tokens_per_doc": schemas.COUNT,
}  # fmt: skip
V2 = Dialect(
    "cohere",
    read,
    reply,
    {"model": "rerank-v4.0-pro", "query": "What is the capital of France?",
     "documents": ["Bread needs yeast.", "Paris is the capital of France."], "top_n": 2},
    "Cohere's version 2; the reply also holds what clients of Jina, vLLM and infinity read.",
    FIELDS,
)  # fmt: skip
V1 = Dialect(
    "cohere",
    read_v1,
    reply_v1,
    {"model": "rerank-english-v3.0", "query": "What is the capital of France?",
     "documents": [{"text": "Bread needs yeast."}, {"text": "Paris is the capital of France."}],
     "return_documents": True},
    "Cohere's version 1: documents may be objects, and rank_fields says what of them is read.",
    {
        **FIELDS,
        "documents": {
            "type": "array",
            "items": {"anyOf": [{"type": "string"}, {"type": "object"}]},
            "description": "An object holds its text in text or content, or in the fields that rank_fields names.",
        },
        "rank_fields": {"type": ["array", "null"], "items": {"type": "string"}, "maxItems": _MOST_NAMES},
        "max_chunks_per_doc": schemas.POSITIVE,
    },
)  # fmt: skip
