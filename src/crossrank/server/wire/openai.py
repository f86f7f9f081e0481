"""OpenAI's embeddings and list of models. Voyage's and Jina's embeddings have the same reply, and say more of texts."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.server.refusals import invalid
from crossrank.server.wire import fields, schemas

# Bytes that one number of a vector takes in a reply.
_FLOAT_BYTES, _BASE64_BYTES = 21, 16 / 3
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


@dataclass(frozen=True, slots=True)
class Embed:
    """A request for vectors.

    Attributes:
        texts: in order.
        base64: vectors as base64 of little-endian float32 instead of lists of numbers.
        dimensions: the width the client expects, if it said one.
        queries: are the texts queries? Some embedders read these otherwise than documents.
        output_dimension: the width as Voyage's clients call it.
    """

    texts: tuple[str, ...]
    base64: bool = False
    dimensions: int | None = None
    queries: bool = False
    output_dimension: int | None = None


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
    return Embed(
        tuple(given),
        _as_base64(body),
        fields.whole(body, "dimensions", 1),
        _asks(body),
        fields.whole(body, "output_dimension", 1),
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


def check_width(request: Embed, width: int) -> None:
    """Refuse to give vectors of another width than the client expects."""
    for name, asked in (("dimensions", request.dimensions), ("output_dimension", request.output_dimension)):
        if asked not in (None, width):
            raise invalid(f"this model's vectors have {width} dimensions, not {asked}", name)


def size(request: Embed, width: int) -> int:
    """About how many bytes the reply will have.

    >>> size(Embed(("tea",) * 1000), 384)
    8124000
    """
    numbers = width * _BASE64_BYTES if request.base64 else width * _FLOAT_BYTES
    return len(request.texts) * int(numbers + 60)


def reply(request: Embed, vectors: NDArray[np.float32], model: str, tokens: int) -> dict[str, Any]:
    """In the order of the input."""
    encoded: Sequence[Any] = (
        [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]
        if request.base64
        else [row.tolist() for row in vectors]
    )
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": place, "embedding": row} for place, row in enumerate(encoded)],
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


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
