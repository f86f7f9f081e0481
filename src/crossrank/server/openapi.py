"""The OpenAPI description of the server, made from the dialects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from crossrank import __version__
from crossrank.server.refusals import invalid
from crossrank.server.service import Service
from crossrank.server.wire import cohere, dialects, openai, schemas, teiembed, vllm
from crossrank.server.wire import search as search_wire
from crossrank.server.wire.embeddings import Embedding
from crossrank.server.wire.schemas import Schema
from crossrank.server.wire.shapes import Dialect

_ERRORS = {
    400: "A field is wrong, which `error.param` names, or the body is no JSON.",
    401: "An API key is needed.",
    403: "Web pages from elsewhere may not call this server; see --cors.",
    404: "No such model is served.",
    408: "The body came too slowly.",
    413: "More than one request may have.",
    415: "The body is compressed or in another encoding than JSON's.",
    421: "This server is not called by that name; see --allow-host.",
    422: "The same, as TEI and infinity say it.",
    429: "No room now; Retry-After says when.",
    500: "The server failed; its log says where.",
    503: "Not ready, shutting down, the deadline passed, the index cannot be read, or its embedder gives no vector.",
}
_WORDS = {"type": "string"}
_ERROR_SCHEMAS = {
    "Error": {
        "type": "object", "required": ["id", "message", "detail", "error"],
        "properties": {
            "id": _WORDS, "message": _WORDS,
            "detail": {"type": ["string", "array"], "description": "A list where infinity has one, with status 422."},
            "error": {
                "type": "object", "required": ["message", "type", "param", "code"],
                "properties": {
                    "message": _WORDS, "type": _WORDS, "code": {"type": "integer"},
                    "param": {"type": ["string", "null"], "description": "The field that is wrong."},
                },
            },
        },
    },
    "TeiError": {
        "type": "object", "required": ["error", "error_type", "message"],
        "properties": {"error": _WORDS, "error_type": _WORDS, "message": _WORDS},
    },
    "WeaviateError": {"type": "object", "required": ["error"], "properties": {"error": _WORDS}},
}  # fmt: skip


def document(service: Service, keyed: bool = False) -> dict[str, Any]:
    """The OpenAPI 3.1 description of this server.

    Args:
        service: what is served.
        keyed: whether a key is needed.
    """
    paths = _posts(service) | _gets(service.names)
    for path, other in _aliases().items():
        if other in paths and path not in paths:
            paths[path] = {method: _alias(path, other, about) for method, about in paths[other].items()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "crossrank",
            "version": __version__,
            "description": "Reranking in the dialects of Cohere, Jina, Voyage, vLLM, llama.cpp, infinity, TEI "
            "and Weaviate; embeddings in OpenAI's and TEI's; search. X-Crossrank-Deadline-Ms bounds a request's time; "
            "Server-Timing in the reply says where it went.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
            "schemas": _ERROR_SCHEMAS,
        },
        "security": [{"key": []}, {"header": []}] if keyed else [],
    }  # fmt: skip


def _posts(service: Service) -> dict[str, Any]:
    """The paths that take a body."""
    limit, of = service.limits.most_seconds, partial(_schema_of, names=_names(service))
    tei, infinity, voyage = (dialects.BY_NAME[name] for name in ("tei", "infinity", "voyage"))
    made = {
        "/v2/rerank": _post(limit, cohere.V2.about, of(cohere.V2), (cohere.V2,)),
        "/v1/rerank": _post(limit, cohere.V1.about, of(cohere.V1), (cohere.V1, voyage, infinity, tei)),
        "/rerank": _post(
            limit,
            "Any dialect: the fields decide. TEI's when texts is present, infinity's when raw_scores is, vLLM's when "
            "one of its own is, and Voyage's when top_k or truncation is.",
            {"anyOf": [of(tei), of(cohere.V2)], "example": of(tei)["example"]},
            (cohere.V2, voyage, infinity, tei),
        ),
    }
    for name, dialect in dialects.BY_NAME.items():
        made[f"/{name}/rerank"] = _post(limit, dialect.about, of(dialect), (dialect,))
    made["/v1/score"] = _post(limit, vllm.SCORE.about, of(vllm.SCORE), (vllm.SCORE,))
    if service.embedder is not None:
        width = service.embedder.width
        for path, one in (("/v1/embeddings", openai.OPENAI), ("/embed", teiembed.TEI)):
            made[path] = _post(limit, one.about, _embedding(one, width), replies=(one.replied,), wrong=(one,))
        # What asks for vectors is no rerank.
        asked = of(tei)
        asked["properties"]["inputs"] = {"type": "null"}
        either = {"anyOf": [asked, _embedding(teiembed.TEI, width)], "example": of(tei)["example"]}
        post = _post(limit, "", either, (tei,), replies=(_reply(tei), teiembed.TEI.replied))["post"]
        made["/"] = {"post": _alias("/", "/embed where inputs is present, else /tei/rerank", post)}
    else:
        made["/"] = {"post": _alias("/", "/tei/rerank", made["/tei/rerank"]["post"])}
    made["/search"] = _post(
        limit,
        "Search the index: BM25 and dense retrieval, fused, reranked within the budget. A result's score orders it in "
        "this reply, with what the cross-encoder did not read under the others; probability says how likely it is "
        "relevant. Add columns and evidence to see what each step did.",
        _schema(
            search_wire.fields_of(service),
            (("query",),) if service.index is not None else (("query",), ("documents",)),
            search_wire.EXAMPLE if service.index is not None else search_wire.BROUGHT,
        )
        | {"additionalProperties": False, "not": search_wire.never_of(service)},
        replies=({"type": "object", "required": ["results"]},),
    )
    return made


def _embedding(dialect: Embedding, width: int) -> dict[str, Any]:
    """A body that asks for vectors of this width."""
    fields = {**dialect.fields, **{name: {"enum": [width, None]} for name in dialect.widths}}
    return _schema(fields, ((dialect.field,),), dialect.example)


def _aliases() -> dict[str, str]:
    """The other paths that are answered, each with the one that it is answered as."""
    made = {
        path: path.removeprefix("/cohere") if (named := dialects.by_path(path)) is None else f"/{named.name}/rerank"
        for path in dialects.RERANK
    }
    made |= {path: path.removesuffix("ing") for path in dialects.LLAMA}
    for paths, other in (
        (dialects.SCORE, "/v1/score"), (dialects.EMBED, "/v1/embeddings"), (dialects.TEI_EMBED, "/embed"),
        (dialects.TEI_ROOT, "/"), (dialects.MODELS, "/v1/models"), (dialects.HEALTH, "/health"),
        (dialects.READY, "/ready"), (dialects.INFO, "/info"),
    ):  # fmt: skip
        made |= dict.fromkeys(paths, other)
    return made | {f"{path}/{{name}}": "/v1/models/{name}" for path in dialects.MODELS}


def _names(service: Service) -> Sequence[str]:
    """The models among which the requests of all dialects choose; none where there is no choice."""
    return [*service.rerankers] if len(service.rerankers) > 1 else []


def _schema_of(dialect: Dialect, names: Sequence[str] = ()) -> dict[str, Any]:
    """A body of a dialect; of a server of several models these have a say in it, also where the product has one."""
    if not names:
        return _schema(dialect.fields, dialect.required, dialect.example)
    fields = {**dialect.fields, "model": schemas.models(names)}
    return _schema(fields, dialect.required, {**dialect.example, "model": names[-1]})


def _schema(
    fields: Mapping[str, Any], required: Sequence[tuple[str, ...]], example: Mapping[str, Any]
) -> dict[str, Any]:
    """A body: what its fields may hold, and those that must be there, each as names of which one is enough and two
    with a value are one too many."""
    made: dict[str, Any] = {
        "type": "object", "required": [names[0] for names in required if len(names) == 1],
        "properties": dict(fields), "example": dict(example),
    }  # fmt: skip
    choices = [{"oneOf": [_has(name) for name in names]} for names in required if len(names) > 1]
    return {**made, "allOf": choices} if choices else made


def _has(name: str) -> dict[str, Any]:
    """A field with a value; null stands for none."""
    return {"required": [name], "properties": {name: {"not": {"type": "null"}}}}


def _alias(path: str, other: str, about: dict[str, Any]) -> dict[str, Any]:
    """What another path does, said of a path that is answered as it is, with errors of the product that it names."""
    named = dialects.by_path(path)
    wrong = _wrong([named]) if named is not None and "requestBody" in about else {}
    return {**about, "summary": f"As {other}.", "tags": ["alias"], "responses": about["responses"] | wrong}


def _reply(dialect: Dialect) -> dict[str, Any]:
    """A reply, with what surely is in it."""
    required = [name for name in dialect.entry if name not in ("document", "text")]
    entries = {
        "type": "array",
        "items": {"type": "object", "required": required, "properties": dict(dialect.entry)},
    }  # fmt: skip
    if dialect.key is None:
        return entries
    return {"type": "object", "required": [dialect.key], "properties": {dialect.key: entries}}


def _post(
    limit: float,
    about: str,
    schema: Mapping[str, Any],
    speaking: Sequence[Dialect] = (),
    replies: Sequence[Schema] = (),
    wrong: Sequence[Embedding] = (),
) -> dict[str, Any]:
    """A path that takes a body.

    Args:
        limit: seconds a deadline may be away.
        about: one sentence.
        schema: of the body.
        speaking: the dialects that its replies may have.
        replies: what these may be, where that is not said by the dialects.
        wrong: others in which it may say that a field is wrong.
    """
    deadline = {
        "name": "X-Crossrank-Deadline-Ms", "in": "header", "required": False,
        "schema": {"type": "integer", "minimum": 1, "maximum": int(1000 * limit)},
        "description": "Milliseconds within which the answer is due.",
    }  # fmt: skip
    replies = list(replies) or [_reply(dialect) for dialect in speaking]
    return {
        "post": {
            "summary": about,
            "parameters": [deadline],
            "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
            "responses": {
                "200": {
                    "description": "Best first, unless said otherwise.",
                    "content": {
                        "application/json": {"schema": replies[0] if len(replies) == 1 else {"anyOf": replies}}
                    },
                },
                **_failures(*(status for status in _ERRORS if status != 422)),
                **_wrong([*speaking, *wrong]),
            },
        }
    }


def _wrong(speaking: Sequence[Dialect | Embedding]) -> dict[str, Any]:
    """How these dialects tell that a field is wrong: with 400 or 422, and TEI's and Weaviate's in their own shapes, as
    all errors.
    """
    told = [dialect.refuse(invalid(""), "") for dialect in speaking]
    shapes = {_error_schema(body) for _, body in told}
    statuses = {status for status, _ in told} | (set() if shapes <= {"Error"} else {*_ERRORS} - {422})
    return _failures(*statuses, shapes=sorted(shapes))


def _error_schema(body: Mapping[str, Any]) -> str:
    """Which of `_ERROR_SCHEMAS` an error has."""
    if isinstance(body["error"], dict):
        return "Error"
    return "TeiError" if "error_type" in body else "WeaviateError"


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
            del operation["responses"]["401"]
        if path == "/ready":
            operation["responses"]["503"] = {"description": "Not yet, or no more.", "content": {"application/json": {}}}
        paths[path] = {"get": operation}
    return paths


def _failures(*statuses: int, shapes: Sequence[str] = ("Error",)) -> dict[str, Any]:
    of = [{"$ref": f"#/components/schemas/{name}"} for name in shapes]
    content = {"application/json": {"schema": of[0] if len(of) == 1 else {"anyOf": of}}}
    return {str(status): {"description": _ERRORS[status], "content": content} for status in statuses}
