"""What the server says about itself: its OpenAPI description, made from the dialects, and `/info`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crossrank import __version__
from crossrank.server.service import Service
from crossrank.server.wire import cohere, dialects, openai, vllm
from crossrank.server.wire import search as search_wire

_TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
_DOCUMENTS: dict[str, Any] = {
    "type": "array",
    "items": {
        "oneOf": [
            {"type": "string"},
            {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}},
        ]
    },
}
_COUNT: dict[str, Any] = {"type": ["integer", "null"], "minimum": 0}
_FLAG: dict[str, Any] = {"type": ["boolean", "null"]}
_FIELDS: dict[str, dict[str, Any]] = {
    "query": _TEXT, "model": {"type": ["string", "null"]}, "documents": _DOCUMENTS,
    "texts": {"type": "array", "items": {"type": "string"}},
    "top_n": _COUNT, "top_k": _COUNT, "max_tokens_per_doc": {"type": ["integer", "null"], "minimum": 1},
    "return_documents": _FLAG, "raw_scores": _FLAG, "use_activation": _FLAG, "return_text": _FLAG, "truncate": _FLAG,
    "truncation": _FLAG,
    "text_1": {"type": ["string", "array"], "items": {"type": "string"}},
    "text_2": {"type": ["string", "array"], "items": {"type": "string"}},
    "input": {"type": ["string", "array"], "items": {"type": "string"}},
    "encoding_format": {"enum": ["float", "base64"]},
    "k": {"type": "integer", "minimum": 1, "maximum": search_wire.MOST_DEPTH},
    "depth": {"type": "integer", "minimum": 1, "maximum": search_wire.MOST_DEPTH},
    "mix": {"type": "number", "minimum": 0, "maximum": 1},
    "budget_ms": {"type": "number", "minimum": 1}, "where": {"type": "array", "items": {"type": "string"}},
    "columns": _COUNT, "evidence": _FLAG, "rerank": _FLAG,
}  # fmt: skip
_ERRORS = {
    400: "A field is wrong; `error.param` names it.",
    401: "An API key is needed.",
    408: "The body came too slowly.",
    413: "More than one request may have.",
    422: "A field is wrong, as TEI and infinity say it.",
    429: "No room now; Retry-After says when.",
    503: "Not ready, or shutting down.",
    504: "The deadline passed.",
}


def document(service: Service) -> dict[str, Any]:
    """The OpenAPI 3.1 description of this server."""
    paths: dict[str, Any] = {
        "/v2/rerank": _post(cohere.V2.about, cohere.V2.example, ("query", "documents")),
        "/v1/rerank": _post(cohere.V1.about, cohere.V1.example, ("query", "documents")),
        "/rerank": _post(
            "Any dialect: the fields decide. TEI's when texts is present, Voyage's when top_k or truncation is.",
            dialects.BY_NAME["tei"].example,
            ("query",),
        ),
    }
    for name, dialect in dialects.BY_NAME.items():
        documents = "texts" if name == "tei" else "documents"
        paths[f"/{name}/rerank"] = _post(dialect.about, dialect.example, ("query", documents))
    paths["/v1/score"] = _post(vllm.SCORE.about, vllm.SCORE.example, ("text_1", "text_2"))
    if service.embedder is not None:
        paths["/v1/embeddings"] = _post("OpenAI's embeddings.", openai.EXAMPLE, ("input",))
    paths["/search"] = _post(
        "Search the index: BM25 and dense retrieval, fused, reranked within the budget. "
        "Add columns and evidence to see what each step did.",
        search_wire.EXAMPLE,
        ("query",),
        ("mix", "rerank", "columns", "evidence", "documents"),
    )
    about = {
        "/v1/models": "The models that are served.", "/info": "Models, index and limits.",
        "/health": "200 while the process lives.", "/ready": "200 when models are warm and no shutdown has begun.",
        "/metrics": "Prometheus' text format.",
    }  # fmt: skip
    for path, summary in about.items():
        paths[path] = {"get": {"summary": summary, "responses": {"200": {"description": summary}}}}
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
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"key": []}],
    }


def _post(
    about: str, example: Mapping[str, Any], required: tuple[str, ...], more: tuple[str, ...] = ()
) -> dict[str, Any]:
    fields = [*example, *(name for name in (*required, *more) if name not in example)]
    schema = {
        "type": "object", "required": list(required), "properties": {name: _FIELDS[name] for name in fields},
        "example": dict(example),
    }  # fmt: skip
    deadline = {
        "name": "X-Crossrank-Deadline-Ms", "in": "header", "required": False,
        "schema": {"type": "integer", "minimum": 1}, "description": "Milliseconds within which the answer is due.",
    }  # fmt: skip
    failures = {str(status): {"description": told} for status, told in _ERRORS.items()}
    return {
        "post": {
            "summary": about,
            "parameters": [deadline],
            "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
            "responses": {"200": {"description": "Best first, unless said otherwise."}, **failures},
        }
    }


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
