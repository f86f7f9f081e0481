"""vLLM's rerank and score. Source: its pooling/scoring/protocol.py and api_router.py of mid 2026."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from crossrank.server.cutting import Caps
from crossrank.server.refusals import invalid
from crossrank.server.wire import fields, schemas
from crossrank.server.wire.shapes import ID, Dialect, Outcome, Rerank

# Fields that no other dialect has: a body without a product's path that holds one is vLLM's.
OWN = ("truncate_prompt_tokens", "max_tokens_per_query", "use_activation", "truncation_side", "cache_salt",
       "chat_template_kwargs", "instruction")  # fmt: skip
_QUERIES = ("queries", "text_1", "data_1")
_DOCUMENTS = ("documents", "items", "text_2", "data_2")
_SIDES = ("left", "right")


def _caps(body: fields.Body) -> Caps:
    """vLLM's limits of reading; 0 and null mean none, and so does a truncation to -1, "what the model can".

    `truncation_side` says which end `truncate_prompt_tokens` cuts: "left" keeps the end of a text.
    """
    if body.get("instruction"):
        raise invalid(
            "a request sets no instruction; leave it out. A language model has the one that its folder states as "
            "default_prompt_name in config_sentence_transformers.json, others have none",
            "instruction",
        )
    if body.get("normalize") is not None:
        raise invalid("normalize is not a parameter; say use_activation", "normalize")
    pair = fields.whole(body, "truncate_prompt_tokens", -1)
    side = fields.choice(body, "truncation_side", _SIDES, "right")
    return Caps(
        query=fields.count(body, "max_tokens_per_query"),
        document=fields.count(body, "max_tokens_per_doc"),
        pair=pair if pair is not None and pair > 0 else None,
        left=side == "left" and pair is not None and pair > 0,
    )


def _id(body: fields.Body) -> str:
    """`request_id`, which the reply is to have; nothing where it is none that a header could hold."""
    value = body.get("request_id")
    return value if isinstance(value, str) and ID.fullmatch(value) else ""


def _overruled(body: fields.Body, caps: Caps, id: str) -> tuple[str, ...]:
    """Fields that say nothing here: an id that cannot be one, and a side where nothing is cut by both texts' limit."""
    side = body.get("truncation_side") == "left" and not caps.left
    named = body.get("request_id") is not None and not id
    return (*(("truncation_side",) if side else ()), *(("request_id",) if named else ()))


def read(body: fields.Body) -> Rerank:
    """`use_activation: false` asks for logits. `top_k` is read as `top_n`."""
    query = fields.text(body, "query")
    documents = fields.texts({"documents": _inputs(body.get("documents"))}, "documents")
    k, overruled = fields.either(body, "top_n", "top_k")
    caps, id = _caps(body), _id(body)
    return Rerank(
        pairs=tuple((query, document) for document in documents),
        k=k,
        raw=not fields.flag(body, "use_activation", True),
        echo=True,
        documents=documents,
        caps=caps,
        unread=(*overruled, *_overruled(body, caps, id)),
        id=id,
    )


def _inputs(value: Any) -> Any:
    """Of one object that holds a list of parts each part is an input, as vLLM has it; all else as it is."""
    if isinstance(value, Mapping) and isinstance(value.get("content"), list):
        return [{"content": [part]} for part in value["content"]]
    return value


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
    queries, documents = _side(body, _QUERIES, fields.query), _side(body, _DOCUMENTS, fields.document)
    if len(queries) == 1:
        queries = queries * len(documents)
    if len(queries) != len(documents):
        raise invalid(
            f"{len(queries)} queries and {len(documents)} documents: give one query, or as many as documents",
            "documents",
        )
    caps, id = _caps(body), _id(body)
    return Rerank(
        pairs=tuple(zip(queries, documents, strict=True)),
        sorted=False,
        raw=not fields.flag(body, "use_activation", True),
        caps=caps,
        unread=_overruled(body, caps, id),
        id=id,
    )


def _side(body: fields.Body, names: tuple[str, ...], read: Callable[[Any, str], str]) -> tuple[str, ...]:
    given = [name for name in names if body.get(name) is not None]
    if len(given) != 1:
        # Whichever of two were taken, the other would be passed over in silence.
        raise invalid(f"one of {', '.join(names)} must be there, and only one", names[0])
    (name,) = given
    value = _inputs(body[name])
    if not isinstance(value, list):
        return (read(value, name),)
    return tuple(read(item, f"{name}[{place}]") for place, item in enumerate(value))


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


_FIELDS = {
    "use_activation": schemas.FLAG, "max_tokens_per_query": schemas.COUNT, "max_tokens_per_doc": schemas.COUNT,
    "truncate_prompt_tokens": {"type": ["integer", "null"], "minimum": -1}, "truncation_side": schemas.one_of(*_SIDES),
    "request_id": {"type": ["string", "null"], "description": "The id of the reply; X-Request-Id goes before it."},
}  # fmt: skip
_LISTED: schemas.Schema = {"anyOf": [schemas.DOCUMENTS, schemas.PARTS]}
RERANK = Dialect(
    "vllm",
    read,
    reply,
    {"model": "BAAI/bge-reranker-base", "query": "What is the capital of France?",
     "documents": ["Bread needs yeast.", "Paris is the capital of France."], "top_n": 0, "use_activation": True},
    "vLLM's: documents always come back; chosen where one of its own fields is present.",
    {"model": schemas.MODEL, "query": schemas.QUERY, "documents": _LISTED, "top_n": schemas.COUNT,
     "top_k": schemas.COUNT, **_FIELDS},
)  # fmt: skip
SCORE = Dialect(
    "vllm-score",
    read_score,
    reply_score,
    {"model": "BAAI/bge-reranker-base", "text_1": "What is the capital of France?",
     "text_2": ["Bread needs yeast.", "Paris is the capital of France."]},
    "vLLM's score: pairs, in the order of the input.",
    {"model": schemas.MODEL, **dict.fromkeys(_QUERIES, schemas.ANY_QUERIES),
     **dict.fromkeys(_DOCUMENTS, schemas.ANY_DOCUMENTS), **_FIELDS},
    (_QUERIES, _DOCUMENTS),
    "data",
    {"index": schemas.INDEX, "object": {"const": "score"}, "score": schemas.SCORE},
)  # fmt: skip
