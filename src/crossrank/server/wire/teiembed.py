"""text-embeddings-inference's embed: `inputs` in, bare lists of numbers out. Source: its router/src/http/types.rs."""

from __future__ import annotations

from typing import Any

from crossrank.server.refusals import RefusedError, invalid
from crossrank.server.wire import fields, schemas, tei
from crossrank.server.wire.embeddings import Embed, Embedded, Embedding

# As models of sentence-transformers call their prompts: one is for queries, the others are for documents.
_PROMPTS = ("query", "document", "passage", "corpus")


def read(body: fields.Body) -> Embed:
    """`truncate: false` asks for an error when something would not be read; absent, ends are cut, and a header says so.

    >>> read({"inputs": "tea", "prompt_name": "query"}).queries
    True
    """
    value = body.get("inputs")
    given: list[Any] = value if isinstance(value, list) else [value]
    if not given:
        raise RefusedError("`inputs` cannot be empty", 400, "Empty", "inputs")
    for place, text in enumerate(given):
        if not isinstance(text, str):
            name = f"inputs[{place}]" if isinstance(value, list) else "inputs"
            raise invalid(f"{name} must be a string, not {fields.kind(text)}", name)
    # Most models end in vectors of length 1, whatever TEI is asked for; and Haystack's clients always say false.
    asked = {
        "normalize": not fields.flag(body, "normalize", True),
        "truncation_direction": tei.cuts_left(body),
    }
    return Embed(
        tuple(given),
        fields.choice(body, "prompt_name", _PROMPTS, "document") == "query",
        widths={"dimensions": fields.whole(body, "dimensions", 1)},
        whole="" if fields.flag(body, "truncate", True) else "truncate",
        unread=tuple(name for name, otherwise in asked.items() if otherwise),
    )


def reply(request: Embed, made: Embedded) -> list[list[float]]:
    """In the order of the inputs."""
    vectors: list[list[float]] = made.vectors.tolist()
    return vectors


def headers(request: Embed, made: Embedded) -> dict[str, str]:
    """See `tei.times`."""
    return tei.times(made.timing, sum(map(len, request.texts)), made.tokens)


TEI = Embedding(
    "tei",
    read,
    reply,
    {"inputs": ["Paris is the capital of France."], "normalize": True, "truncate": True},
    "text-embeddings-inference's embeddings: bare lists of numbers.",
    {"inputs": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]},
     "normalize": schemas.FLAG, "truncate": schemas.FLAG, "prompt_name": schemas.one_of(*_PROMPTS),
     "truncation_direction": schemas.one_of(*tei.DIRECTIONS), "dimensions": schemas.POSITIVE},
    "inputs",
    ("dimensions",),
    {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
    tei.refuse,
    headers,
)  # fmt: skip
