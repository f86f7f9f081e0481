"""Voyage's rerank: `top_k`, `data`, and documents as plain strings. Source: the voyageai client's own reading of it."""

from __future__ import annotations

from typing import Any

from crossrank.server.wire import fields, schemas
from crossrank.server.wire.shapes import Dialect, Outcome, Rerank


def read(body: fields.Body) -> Rerank:
    """`truncation: false` asks for an error when something would not be read. Of two numbers `top_k` is taken."""
    k, overruled = fields.either(body, "top_k", "top_n")
    query, documents = fields.text(body, "query"), fields.texts(body, "documents")
    return Rerank(
        pairs=tuple((query, document) for document in documents),
        k=k,
        echo=fields.flag(body, "return_documents", False),
        documents=documents,
        whole="" if fields.flag(body, "truncation", True) else "truncation",
        unread=overruled,
    )


def reply(request: Rerank, outcome: Outcome) -> dict[str, Any]:
    """Best first."""
    data = []
    for position, score in zip(outcome.positions, outcome.scores, strict=True):
        entry: dict[str, Any] = {"index": position, "relevance_score": score}
        if request.echo:
            entry["document"] = request.documents[position]
        data.append(entry)
    return {"object": "list", "data": data, "model": outcome.model, "usage": {"total_tokens": outcome.tokens}}


VOYAGE = Dialect(
    "voyage",
    read,
    reply,
    {"model": "rerank-2.5", "query": "What is the capital of France?",
     "documents": ["Bread needs yeast.", "Paris is the capital of France."], "top_k": 1, "truncation": True},
    "Voyage's: top_k for top_n, data for results; chosen where top_k or truncation is present.",
    {"model": schemas.MODEL, "query": schemas.QUERY, "documents": schemas.DOCUMENTS, "top_k": schemas.COUNT,
     "top_n": schemas.COUNT, "return_documents": schemas.FLAG, "truncation": schemas.FLAG},
    key="data",
    entry={**schemas.RANKED, "document": {"type": "string"}},
)  # fmt: skip
