"""Weaviate's reranker-transformers: `scores` in the order of the documents. Source: the module's clients/ranker.go of
2026, and app.py of the container that it calls.
"""

from __future__ import annotations

from typing import Any

from crossrank.server.refusals import RefusedError
from crossrank.server.wire import fields, schemas
from crossrank.server.wire.shapes import Dialect, Outcome, Rerank


def read(body: fields.Body) -> Rerank:
    """Probabilities, which mean the same in each request: the module sends 32 documents at once, and joins the scores.

    `property` is the one text that Weaviate sent before it sent lists. It comes with them still, empty.
    """
    query, documents = fields.text(body, "query"), fields.texts(body, "documents")
    return Rerank(
        pairs=tuple((query, document) for document in documents),
        query=query,
        sorted=False,
        documents=documents,
        unread=("property",) if body.get("property") else (),
    )


def reply(request: Rerank, outcome: Outcome) -> dict[str, Any]:
    """In the order of the documents: the module takes scores by their places."""
    scores = [
        {"document": request.documents[position], "score": score}
        for position, score in zip(outcome.positions, outcome.scores, strict=True)
    ]
    return {"query": request.query, "scores": scores, "property": None, "score": None}


def refuse(refusal: RefusedError, id: str) -> tuple[int, Any]:
    """`error` is a string, or the module could not read why."""
    return refusal.status, {"error": refusal.message}


WEAVIATE = Dialect(
    "weaviate",
    read,
    reply,
    {"query": "What is the capital of France?", "documents": ["Bread needs yeast.", "Paris is the capital of France."],
     "property": ""},
    "Weaviate's reranker-transformers: scores in the order of the documents.",
    {"query": schemas.QUERY, "documents": schemas.DOCUMENTS,
     "property": {"description": "Not read: documents holds the texts."}},
    key="scores",
    entry={"document": {"type": "string"}, "score": schemas.SCORE},
    refuse=refuse,
)  # fmt: skip
