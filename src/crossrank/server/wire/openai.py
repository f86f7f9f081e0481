"""OpenAI's embeddings and list of models. Voyage's and Jina's embeddings have the same reply, and say more of texts."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from crossrank.server.refusals import invalid
from crossrank.server.wire import fields, schemas
from crossrank.server.wire.embeddings import Embed, Embedded, Embedding

_PART = {
    "type": "object",
    "required": ["text"],
    "properties": {"text": {"type": "string"}},
    "additionalProperties": False,
}
_TEXT = {"anyOf": [{"type": "string"}, _PART]}
# Tasks of Jina's models that are about queries.
ASKING = frozenset({"retrieval.query", "nl2code.query", "code2code.query", "code2nl.query", "code2completion.query",
                    "qa.query", "techqa.query"})  # fmt: skip
# What the texts are, as Voyage, NVIDIA and Cohere say it in their embeddings; OpenAI has no such field.
QUERIES = ("query", "search_query")
SIDES = (*QUERIES, "document", "passage", "search_document")
WIDTHS = ("dimensions", "output_dimension")
FIELDS: dict[str, schemas.Schema] = {
    "model": schemas.MODEL,
    "input": {"anyOf": [{"type": "string"}, {"type": "array", "items": _TEXT, "minItems": 1}]},
    "encoding_format": schemas.one_of("float", "base64"),
    "dimensions": schemas.POSITIVE,
    "output_dimension": schemas.POSITIVE,
    "output_dtype": schemas.one_of("float"),
    "embedding_type": schemas.one_of("float", "base64"),
    "input_type": schemas.one_of(*SIDES),
    "task": {"type": ["string", "null"]},
}
EXAMPLE = {"model": "text-embedding-3-small", "input": ["Paris is the capital of France."], "encoding_format": "float"}


def read(body: fields.Body) -> Embed:
    """`input` is a string or a list of strings, or of objects with a `text`, as Jina's clients send them.

    >>> read({"input": "tea"}).texts
    ('tea',)
    """
    value = body.get("input")
    if not isinstance(value, (str, int, list)) or isinstance(value, bool):
        raise invalid(f"input must be a string or a list of strings, not {fields.kind(value)}", "input")
    given: list[Any] = value if isinstance(value, list) else [value]
    if not given:
        raise invalid("input is empty", "input")
    if any(isinstance(item, (int, list)) and not isinstance(item, bool) for item in given):
        raise invalid(
            "input holds token ids of another tokenizer; send text (LangChain: check_embedding_ctx_length=False)",
            "input",
        )
    given = [item["text"] if isinstance(item, dict) and item.keys() == {"text"} else item for item in given]
    for place, text in enumerate(given):
        if not isinstance(text, str):
            raise invalid(f"input[{place}] must be a string, not {fields.kind(text)}", f"input[{place}]")
    packed = _as_base64(body)
    return Embed(
        tuple(given),
        _asks(body),
        packed,
        {name: fields.whole(body, name, 1) for name in WIDTHS},
        smaller="send fewer texts" if packed else 'send fewer texts, or "encoding_format": "base64"',
    )


def _as_base64(body: fields.Body) -> bool:
    """How vectors are written. They are of float32: a client that asked for other numbers would read bytes wrongly."""
    fields.choice(body, "output_dtype", ("float",), "float")
    wanted = fields.choice(body, "encoding_format", ("float", "base64"), "float")
    return "base64" in (wanted, fields.choice(body, "embedding_type", ("float", "base64"), "float"))


def _asks(body: fields.Body) -> bool:
    """Whether the texts are queries, by what Voyage's, NVIDIA's and Cohere's clients say of them, or by Jina's task."""
    task, kind = body.get("task"), fields.choice(body, "input_type", SIDES, "")
    if task is not None and not isinstance(task, str):
        raise invalid(f"task must be a string, not {fields.kind(task)}", "task")
    if task is not None and kind and (task in ASKING) != (kind in QUERIES):
        raise invalid(f"input_type says {kind} and task {task}: leave one of them out", "task")
    return kind in QUERIES or task in ASKING


def reply(request: Embed, made: Embedded) -> dict[str, Any]:
    """In the order of the input."""
    encoded: Sequence[Any] = (
        [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in made.vectors]
        if request.base64
        else made.vectors.tolist()
    )
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": place, "embedding": row} for place, row in enumerate(encoded)],
        "model": made.model,
        "usage": {"prompt_tokens": made.tokens, "total_tokens": made.tokens},
    }


OPENAI = Embedding(
    "openai", read, reply, EXAMPLE, "OpenAI's embeddings.", FIELDS, "input", WIDTHS,
    {"type": "object", "required": ["data"]},
)  # fmt: skip


def models(names: Sequence[str], created: int) -> dict[str, Any]:
    """What is served, the cross-encoder first.

    >>> models(["small"], 0)["data"][0]["id"]
    'small'
    """
    return {"object": "list", "data": [model(name, created) for name in names]}


def model(name: str, created: int) -> dict[str, Any]:
    """One model, as the list has it.

    >>> model("small", 0)["object"]
    'model'
    """
    return {"id": name, "object": "model", "created": created, "owned_by": "crossrank"}
