"""The OpenAPI description of the server, made from the dialects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crossrank import __version__
from crossrank.server.service import Service
from crossrank.server.wire import cohere, dialects, openai, vllm
from crossrank.server.wire import search as search_wire
from crossrank.server.wire.shapes import Dialect

_ERRORS = {
    400: "A field is wrong; `error.param` names it.",
    401: "An API key is needed.",
    403: "Web pages from elsewhere may not call this server; see --cors.",
    404: "No such model is served.",
    408: "The body came too slowly.",
    413: "More than one request may have.",
    415: "The body is compressed or in another encoding than JSON's.",
    421: "This server is not called by that name; see --allow-host.",
    422: "A field is wrong, as TEI and infinity say it.",
    429: "No room now; Retry-After says when.",
    500: "The server failed; its log says where.",
    503: "Not ready, shutting down, the deadline passed, the index cannot be read, or its embedder does not answer.",
}
_ERROR_REPLY = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}


def document(service: Service, keyed: bool = False) -> dict[str, Any]:
    """The OpenAPI 3.1 description of this server.

    Args:
        service: what is served.
        keyed: whether a key is needed.
    """
    paths = _posts(service) | _gets(service.names)
    for path, other in _aliases().items():
        if other in paths and path not in paths:
            paths[path] = {
                method: {**about, "summary": f"As {other}.", "tags": ["alias"]}
                for method, about in paths[other].items()
            }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "crossrank",
            "version": __version__,
            "description": "Reranking in the dialects of Cohere, Jina, Voyage, vLLM, infinity and TEI; embeddings in "
            "OpenAI's; search. X-Crossrank-Deadline-Ms bounds a request's time; Server-Timing in the reply says where "
            "it went.",
        },
        "paths": paths,
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


def _posts(service: Service) -> dict[str, Any]:
    """The paths that take a body."""
    limit = service.limits.most_seconds
    tei = dialects.BY_NAME["tei"]
    made = {
        "/v2/rerank": _post(limit, cohere.V2.about, _schema_of(cohere.V2), _reply(cohere.V2.key)),
        "/v1/rerank": _post(limit, cohere.V1.about, _schema_of(cohere.V1), _reply(cohere.V1.key)),
        "/rerank": _post(
            limit,
            "Any dialect: the fields decide. TEI's when texts is present, Voyage's when top_k or truncation is.",
            {"anyOf": [_schema_of(tei), _schema_of(cohere.V2)], "example": dict(tei.example)},
            {"type": ["array", "object"]},
        ),
    }
    for name, dialect in dialects.BY_NAME.items():
        made[f"/{name}/rerank"] = _post(limit, dialect.about, _schema_of(dialect), _reply(dialect.key))
    made["/v1/score"] = _post(limit, vllm.SCORE.about, _schema_of(vllm.SCORE), _reply(vllm.SCORE.key))
    if service.embedder is not None:
        fields = {**openai.FIELDS, "dimensions": {"enum": [service.embedder.width, None]}}
        schema = _schema(fields, (("input",),), openai.EXAMPLE)
        made["/v1/embeddings"] = _post(limit, "OpenAI's embeddings.", schema, _reply("data"))
    made["/search"] = _post(
        limit,
        "Search the index: BM25 and dense retrieval, fused, reranked within the budget. A result's score orders it in "
        "this reply, with what the cross-encoder did not read under the others; probability says how likely it is "
        "relevant. Add columns and evidence to see what each step did.",
        _schema(
            search_wire.fields_of(service),
            (("query",),) if service.index is not None else (("query",), ("documents",)),
            search_wire.EXAMPLE,
        )
        | {"additionalProperties": False, "not": search_wire.NEVER},
        _reply("results"),
    )
    return made


def _aliases() -> dict[str, str]:
    """The other paths that are answered, each with the one that it is answered as."""
    made = {
        path: path.removeprefix("/cohere") if dialects.by_path(path) is None else f"/{path.split('/')[1]}/rerank"
        for path in dialects.RERANK
    }
    for paths, other in (
        (dialects.SCORE, "/v1/score"), (dialects.EMBED, "/v1/embeddings"), (dialects.MODELS, "/v1/models"),
    ):  # fmt: skip
        made |= dict.fromkeys(paths, other)
    return made | {f"{path}/{{name}}": "/v1/models/{name}" for path in dialects.MODELS}


def _schema_of(dialect: Dialect) -> dict[str, Any]:
    return _schema(dialect.fields, dialect.required, dialect.example)


def _schema(
    fields: Mapping[str, Any], required: Sequence[tuple[str, ...]], example: Mapping[str, Any]
) -> dict[str, Any]:
    """A body: what its fields may hold, and those that must be there, each as names of which one is enough."""
    made: dict[str, Any] = {
        "type": "object", "required": [names[0] for names in required if len(names) == 1],
        "properties": dict(fields), "example": dict(example),
    }  # fmt: skip
    choices = [{"anyOf": [{"required": [name]} for name in names]} for names in required if len(names) > 1]
    return {**made, "allOf": choices} if choices else made


def _reply(key: str | None) -> dict[str, Any]:
    """A reply that surely has this field, or is a list."""
    return {"type": "array"} if key is None else {"type": "object", "required": [key]}


def _post(limit: float, about: str, schema: Mapping[str, Any], reply: Mapping[str, Any]) -> dict[str, Any]:
    """A path that takes a body. `limit`: seconds a deadline may be away."""
    deadline = {
        "name": "X-Crossrank-Deadline-Ms", "in": "header", "required": False,
        "schema": {"type": "integer", "minimum": 1, "maximum": int(1000 * limit)},
        "description": "Milliseconds within which the answer is due.",
    }  # fmt: skip
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
                **_failures(*(status for status in _ERRORS if status != 404)),
            },
        }
    }


def _gets(names: Sequence[str]) -> dict[str, Any]:
    about = {
        "/v1/models": "The models that are served.", "/v1/models/{name}": "One of the models that are served.",
        "/info": "Models, index and limits. index is null where there is none, and where it cannot be read: then "
        "index_error says so.",
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
        if path.endswith("{name}"):
            operation["parameters"] = [{"name": "name", "in": "path", "required": True, "schema": {"enum": [*names]}}]
            operation["responses"] |= _failures(404)
        if path in ("/health", "/ready"):
            operation["security"] = []
        if path == "/ready":
            operation["responses"]["503"] = {"description": "Not yet, or no more.", "content": {"application/json": {}}}
        paths[path] = {"get": operation}
    return paths


def _failures(*statuses: int) -> dict[str, Any]:
    return {str(status): {"description": _ERRORS[status], "content": _ERROR_REPLY} for status in statuses}
