"""infinity's rerank: `raw_scores`, and documents as plain strings or null. Source: its pymodels.py, 0.0.77."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from crossrank.server.refusals import RefusedError, invalid
from crossrank.server.wire import fields, schemas
from crossrank.server.wire.shapes import Dialect, Outcome, Rerank, error_body


def read(body: fields.Body) -> Rerank:
    """At least one document; white space around texts is stripped, as infinity does. `top_k` is read as `top_n`."""
    query = fields.text(body, "query").strip()
    documents = tuple(document.strip() for document in fields.texts(body, "documents"))
    if not documents:
        raise invalid("documents must hold at least one document", "documents")
    k, overruled = fields.either(body, "top_n", "top_k", 1)
    return Rerank(
        pairs=tuple((query, document) for document in documents),
        k=k,
        raw=fields.flag(body, "raw_scores", False),
        echo=fields.flag(body, "return_documents", False),
        documents=documents,
        unread=overruled,
    )


def reply(request: Rerank, outcome: Outcome) -> dict[str, Any]:
    """Best first."""
    return {
        "object": "rerank",
        "results": [
            {"relevance_score": score, "index": position,
             "document": request.documents[position] if request.echo else None}
            for position, score in zip(outcome.positions, outcome.scores, strict=True)
        ],
        "model": outcome.model,
        "usage": {"prompt_tokens": outcome.tokens, "total_tokens": outcome.tokens},
        "id": f"infinity-{outcome.id}",
        "created": outcome.created,
    }  # fmt: skip


def refuse(refusal: RefusedError, id: str) -> tuple[int, Any]:
    """A wrong field is a 422, whose `detail` is a list as FastAPI writes it."""
    if refusal.status != 400:
        return error_body(refusal, id)
    status, body = error_body(replace(refusal, status=422), id)
    place = ["body", *([refusal.param] if refusal.param else [])]
    return status, body | {"detail": [{"loc": place, "msg": refusal.message, "type": "value_error"}]}


INFINITY = Dialect(
    "infinity",
    read,
    reply,
    {"model": "default/not-specified", "query": "What is the capital of France?",
     "documents": ["Bread needs yeast.", "Paris is the capital of France."], "raw_scores": False,
     "return_documents": True},
    "infinity's: documents come back as plain strings; chosen where raw_scores is present.",
    {"model": schemas.MODEL, "query": schemas.QUERY, "documents": schemas.SOME_DOCUMENTS, "top_n": schemas.POSITIVE,
     "top_k": schemas.COUNT, "raw_scores": schemas.FLAG, "return_documents": schemas.FLAG},
    entry={**schemas.RANKED, "document": {"type": ["string", "null"]}},
    refuse=refuse,
)  # fmt: skip
