"""What the server says about itself: its OpenAPI description, made from the dialects, and `/info`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crossrank import __version__
from crossrank.server.service import Service
from crossrank.server.wire import cohere, dialects, openai, vllm
from crossrank.server.wire import search as search_wire

# A blank query is refused; a blank document is not.
_TEXT: dict[str, Any] = {"type": "string", "pattern": r"\S"}
_DOCUMENT: dict[str, Any] = {
    "anyOf": [
        {"type": "string"},
        {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}},
    ]
}
_QUERY: dict[str, Any] = {
    "anyOf": [_TEXT, {"type": "object", "required": ["text"], "properties": {"text": _TEXT}}],
}
_DOCUMENTS: dict[str, Any] = {"type": "array", "items": _DOCUMENT}
_COUNT: dict[str, Any] = {"type": ["integer", "null"], "minimum": 0}
_FLAG: dict[str, Any] = {"type": ["boolean", "null"]}
_DEPTH: dict[str, Any] = {"type": ["integer", "null"], "minimum": 1, "maximum": search_wire.MOST_DEPTH}
_FIELDS: dict[str, dict[str, Any]] = {
    "query": _QUERY, "model": {"description": "Not read: the reply's model says what answered."},
    "documents": _DOCUMENTS, "texts": {**_DOCUMENTS, "minItems": 1},
    "top_n": _COUNT, "top_k": _COUNT,
    "return_documents": _FLAG, "raw_scores": _FLAG, "use_activation": _FLAG, "return_text": _FLAG, "truncate": _FLAG,
    "truncation": _FLAG,
    "text_1": {"anyOf": [_QUERY, {"type": "array", "items": _QUERY}]}, "text_2": {"anyOf": [_DOCUMENT, _DOCUMENTS]},
    "input": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]},
    "encoding_format": {"enum": ["float", "base64", None]},
    "k": _DEPTH, "depth": _DEPTH,
    "mix": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
    "budget_ms": {"type": ["number", "null"], "minimum": 1, "maximum": search_wire.MOST_BUDGET_MS},
    "where": {
        "type": ["array", "null"],
        "items": {"type": "string", "pattern": "^[A-Za-z_]+ *(=|!=|<|<=|>|>=) *[A-Za-z0-9]+$"},
        "description": "Conditions such as year>=2020; several by AND, quotes around what has spaces.",
    },
    "columns": _COUNT, "evidence": _FLAG, "rerank": _FLAG,
}  # fmt: skip
# infinity and TEI refuse an empty list; the others answer it with one.
_SOME = {**_FIELDS, "documents": {**_DOCUMENTS, "minItems": 1}}
_ERRORS = {
    400: "A field is wrong; `error.param` names it.",
    401: "An API key is needed.",
    403: "Web pages from elsewhere may not call this server; see --cors.",
    408: "The body came too slowly.",
    413: "More than one request may have.",
    421: "This server is not called by that name; see --allow-host.",
    422: "A field is wrong, as TEI and infinity say it.",
    429: "No room now; Retry-After says when.",
    503: "Not ready, shutting down, or the deadline passed.",
}
_ERROR_REPLY = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}


def document(service: Service, keyed: bool = False) -> dict[str, Any]:
    """The OpenAPI 3.1 description of this server.

    Args:
        service: what is served.
        keyed: whether a key is needed.
    """
    limit = service.limits.most_seconds
    paths: dict[str, Any] = {
        "/v2/rerank": _post(limit, cohere.V2.about, cohere.V2.example, ("query", "documents"), "results"),
        "/v1/rerank": _post(limit, cohere.V1.about, cohere.V1.example, ("query", "documents"), "results"),
        "/rerank": _post(
            limit,
            "Any dialect: the fields decide. TEI's when texts is present, Voyage's when top_k or truncation is.",
            dialects.BY_NAME["tei"].example,
            ("query", "texts"),
        ),
    }
    for name, dialect in dialects.BY_NAME.items():
        documents, key = {"tei": ("texts", None), "voyage": ("documents", "data")}.get(name, ("documents", "results"))
        known = _SOME if name == "infinity" else _FIELDS
        paths[f"/{name}/rerank"] = _post(limit, dialect.about, dialect.example, ("query", documents), key, known=known)
    paths["/v1/score"] = _post(limit, vllm.SCORE.about, vllm.SCORE.example, ("text_1", "text_2"), "data")
    if service.embedder is not None:
        paths["/v1/embeddings"] = _post(limit, "OpenAI's embeddings.", openai.EXAMPLE, ("input",), "data")
    paths["/search"] = _post(
        limit,
        "Search the index: BM25 and dense retrieval, fused, reranked within the budget. "
        "Add columns and evidence to see what each step did.",
        search_wire.EXAMPLE,
        ("query",) if service.index is not None else ("query", "documents"),
        "results",
        ("mix", "rerank", "columns", "evidence", "documents"),
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "crossrank",
            "version": __version__,
            "description": "Reranking in the dialects of Cohere, Jina, Voyage, vLLM, infinity and TEI; embeddings in "
            "OpenAI's; search. X-Crossrank-Deadline-Ms bounds a request's time; Server-Timing in the reply says where "
            "it went.",
        },
        "paths": paths | _gets(),
        "components": {
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
            "schemas": {
                "Error": {
                    "type": "object", "required": ["message"], "properties": {"message": {"type": "string"}},
                },
            },
        },
        "security": [{"key": []}, {"header": []}] if keyed else [],
    }  # fmt: skip


def _post(
    limit: float,
    about: str,
    example: Mapping[str, Any],
    required: tuple[str, ...],
    key: str | None = None,
    more: tuple[str, ...] = (),
    known: Mapping[str, Any] = _FIELDS,
) -> dict[str, Any]:
    """A path that takes a body. `limit`: seconds a deadline may be away; `key`: what the reply surely has."""
    fields = [*example, *(name for name in (*required, *more) if name not in example)]
    schema = {
        "type": "object", "required": list(required), "properties": {name: known[name] for name in fields},
        "example": dict(example),
    }  # fmt: skip
    deadline = {
        "name": "X-Crossrank-Deadline-Ms", "in": "header", "required": False,
        "schema": {"type": "integer", "minimum": 1, "maximum": int(1000 * limit)},
        "description": "Milliseconds within which the answer is due.",
    }  # fmt: skip
    reply = {"type": "array"} if key is None else {"type": "object", "required": [key]}
    return {
        "post": {
            "summary": about,
            "parameters": [deadline],
            "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
            "responses": {
                "200": {
                    "description": "Best first, unless said otherwise.",
                    "content": {"application/json": {"schema": reply}},
                },
                **_failures(*_ERRORS),
            },
        }
    }


def _gets() -> dict[str, Any]:
    about = {
        "/v1/models": "The models that are served.", "/info": "Models, index and limits.",
        "/health": "200 while the process lives.", "/ready": "200 when models are warm and no shutdown has begun.",
        "/metrics": "Prometheus' text format.",
    }  # fmt: skip
    paths = {}
    for path, summary in about.items():
        kind = "text/plain" if path == "/metrics" else "application/json"
        operation: dict[str, Any] = {
            "summary": summary,
            "responses": {"200": {"description": summary, "content": {kind: {}}}, **_failures(401, 403, 421)},
        }
        if path in ("/health", "/ready"):
            operation["security"] = []
        if path == "/ready":
            operation["responses"]["503"] = {"description": "Not yet, or no more.", "content": {"application/json": {}}}
        paths[path] = {"get": operation}
    return paths


def _failures(*statuses: int) -> dict[str, Any]:
    return {str(status): {"description": _ERRORS[status], "content": _ERROR_REPLY} for status in statuses}


def info(service: Service) -> dict[str, Any]:
    """Models, index and limits; also the names under which TEI's clients look for them."""
    limits, scorer = service.limits, service.scorer
    made: dict[str, Any] = {
        "version": __version__,
        "model": {
            "name": service.model,
            "fingerprint": service.fingerprint,
            "backend": scorer.backend.name,
            "max_length": scorer.checkpoint.max_length,
            "probability": service.score_kind,
        },
        "embedder": None,
        "index": None,
        "limits": {
            "body_bytes": limits.body, "documents": limits.documents, "tokens": limits.tokens,
            "requests": limits.requests, "seconds": limits.seconds, "most_seconds": limits.most_seconds,
            "batch_tokens": service.scheduler.batch_tokens,
        },
        "model_id": service.model,
        "model_type": {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
        "max_concurrent_requests": limits.requests,
        "max_input_length": scorer.checkpoint.max_length,
        "max_batch_tokens": service.scheduler.batch_tokens,
        "max_client_batch_size": limits.documents,
    }  # fmt: skip
    if service.embedder is not None:
        made["embedder"] = {
            "name": service.embedding_model, "width": service.embedder.width,
            "max_length": service.embedder.max_length, "fingerprint": service.embedder.fingerprint,
        }  # fmt: skip
    if service.index is not None:
        made["index"] = {"passages": len(service.index)}
    return made
