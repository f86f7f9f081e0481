"""Jina's rerank: documents come back unless the request says otherwise. Source: Jina's published API description."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from crossrank.server.wire import cohere, fields
from crossrank.server.wire.shapes import Dialect, Outcome, Rerank


def read(body: fields.Body) -> Rerank:
    """As Cohere's, but `return_documents` is true by default."""
    return replace(cohere.read(body), echo=fields.flag(body, "return_documents", True))


def reply(request: Rerank, outcome: Outcome) -> dict[str, Any]:
    """Best first."""
    results = []
    for position, score in zip(outcome.positions, outcome.scores, strict=True):
        result: dict[str, Any] = {"index": position, "relevance_score": score}
        if request.echo:
            result["document"] = {"text": request.pairs[position][1]}
        results.append(result)
    usage = {"total_tokens": outcome.tokens, "prompt_tokens": outcome.tokens}
    return {"model": outcome.model, "object": "list", "usage": usage, "results": results}


JINA = Dialect(
    "jina",
    read,
    reply,
    {"model": "jina-reranker-v2-base-multilingual", "query": "What is the capital of France?",
     "documents": ["Bread needs yeast.", {"text": "Paris is the capital of France."}], "top_n": 1},
    "Jina's: documents come back unless return_documents is false.",
    cohere.FIELDS,
)  # fmt: skip
