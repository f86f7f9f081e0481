"""vLLM's rerank and score. Source: its pooling/scoring/protocol.py and api_router.py of mid 2026."""

from __future__ import annotations

from typing import Any

from crossrank.server.refusals import invalid
from crossrank.server.service import Caps
from crossrank.server.wire import fields
from crossrank.server.wire.shapes import Dialect, Outcome, Rerank

# Fields that no other dialect has: a body without a product's path that holds one is vLLM's.
OWN = ("truncate_prompt_tokens", "max_tokens_per_query", "use_activation", "truncation_side", "cache_salt",
       "chat_template_kwargs", "instruction")  # fmt: skip
_QUERIES = ("queries", "text_1", "data_1")
_DOCUMENTS = ("documents", "items", "text_2", "data_2")


def _caps(body: fields.Body) -> Caps:
    """vLLM's limits of reading; 0 and null mean none, and so does a truncation to -1, "what the model can"."""
    if body.get("instruction"):
        raise invalid("this model takes no instruction; leave it out", "instruction")
    if "normalize" in body:
        raise invalid("normalize is not a parameter; say use_activation", "normalize")
    pair = fields.whole(body, "truncate_prompt_tokens", -1)
    return Caps(
        query=fields.count(body, "max_tokens_per_query"),
        document=fields.count(body, "max_tokens_per_doc"),
        pair=pair if pair is not None and pair > 0 else None,
    )


def read(body: fields.Body) -> Rerank:
    """`use_activation: false` asks for logits."""
    query, documents = fields.text(body, "query"), fields.texts(body, "documents")
    return Rerank(
        pairs=tuple((query, document) for document in documents),
        k=fields.count(body, "top_n"),
        raw=not fields.flag(body, "use_activation", True),
        echo=True,
        documents=documents,
        caps=_caps(body),
    )


def reply(request: Rerank, outcome: Outcome) -> dict[str, Any]:
    """Best first; documents always come back."""
    return {
        "id": f"rerank-{outcome.id}",
        "model": outcome.model,
        "usage": {"prompt_tokens": outcome.tokens, "total_tokens": outcome.tokens},
        "results": [
            {"index": position, "document": {"text": request.documents[position]}, "relevance_score": score}
            for position, score in zip(outcome.positions, outcome.scores, strict=True)
        ],
    }


def read_score(body: fields.Body) -> Rerank:
    """One text against one, one against many, or two lists of one length, pair by pair."""
    queries, documents = _side(body, _QUERIES), _side(body, _DOCUMENTS)
    if len(queries) == 1:
        queries = queries * len(documents)
    if len(queries) != len(documents):
        raise invalid(
            f"{len(queries)} queries and {len(documents)} documents: give one query, or as many as documents",
            "documents",
        )
    return Rerank(
        pairs=tuple(zip(queries, documents, strict=True)),
        sorted=False,
        raw=not fields.flag(body, "use_activation", True),
        caps=_caps(body),
    )


def _side(body: fields.Body, names: tuple[str, ...]) -> tuple[str, ...]:
    name = next((name for name in names if body.get(name) is not None), None)
    if name is None:
        raise invalid(f"one of {', '.join(names)} must be there", names[0])
    value = body[name]
    return fields.texts({name: value if isinstance(value, list) else [value]}, name)


def reply_score(request: Rerank, outcome: Outcome) -> dict[str, Any]:
    """In the order of the input."""
    return {
        "id": f"score-{outcome.id}",
        "object": "list",
        "created": outcome.created,
        "model": outcome.model,
        "data": [
            {"index": position, "object": "score", "score": score}
            for position, score in zip(outcome.positions, outcome.scores, strict=True)
        ],
        "usage": {"prompt_tokens": outcome.tokens, "total_tokens": outcome.tokens, "completion_tokens": 0},
    }


RERANK = Dialect(
    "vllm",
    read,
    reply,
    {"model": "BAAI/bge-reranker-base", "query": "What is the capital of France?",
     "documents": ["Bread needs yeast.", "Paris is the capital of France."], "top_n": 0, "use_activation": True},
    "vLLM's: documents always come back; chosen where one of its own fields is present.",
)  # fmt: skip
SCORE = Dialect(
    "vllm-score",
    read_score,
    reply_score,
    {"model": "BAAI/bge-reranker-base", "text_1": "What is the capital of France?",
     "text_2": ["Bread needs yeast.", "Paris is the capital of France."]},
    "vLLM's score: pairs, in the order of the input.",
)  # fmt: skip
