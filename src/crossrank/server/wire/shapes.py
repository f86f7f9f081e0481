"""What every dialect's request becomes, and what every dialect's reply is made from."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from crossrank.server.cutting import Caps
from crossrank.server.refusals import RefusedError
from crossrank.server.wire.schemas import RANKED, Schema

ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
"""What a client may call its request: it comes back in a header."""


@dataclass(frozen=True, slots=True)
class Rerank:
    """A request to score documents.

    Attributes:
        pairs: (query, document) texts.
        k: entries to return, best first; None returns all.
        sorted: best first, or in the order of the pairs.
        raw: logits instead of probabilities.
        echo: the documents come back with their scores.
        documents: what comes back, as the client wrote it.
        query: what comes back, where the reply holds it.
        caps: how much of the texts is read.
        whole: the field that asks to refuse the request when something of a text would not be read; empty: nobody does.
        unread: fields that the dialect knows and that others of this request overrule, or that say nothing.
        id: of the request, where its body names one.
    """

    pairs: tuple[tuple[str, str], ...]
    k: int | None = None
    sorted: bool = True
    raw: bool = False
    echo: bool = False
    documents: tuple[Any, ...] = ()
    query: str = ""
    caps: Caps = field(default_factory=Caps)
    whole: str = ""
    unread: tuple[str, ...] = ()
    id: str = ""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds: text to token ids and logits to an order, waiting for a turn, computing, and all together."""

    tokenize: float = 0.0
    queue: float = 0.0
    compute: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer to a `Rerank`.

    Attributes:
        id: of the request.
        model: what scored, whatever model the request named.
        created: Unix time.
        positions: places in the request's pairs, in the order of the answer.
        scores: probabilities, or logits when `raw` was asked for: of a blank document 1 less than the lowest other.
        tokens: tokens the model read.
        characters: of all texts.
        warnings: fields of the request that were not read, that the model has no words in a query's script, and texts
            that were not read whole, in words.
        timing: of this request.
    """

    id: str
    model: str
    created: int
    positions: tuple[int, ...]
    scores: tuple[float, ...]
    tokens: int
    characters: int
    warnings: tuple[str, ...] = ()
    timing: Timing = field(default_factory=Timing)


def error_body(refusal: RefusedError, id: str) -> tuple[int, dict[str, Any]]:
    """Status and body of an error: `message` for Cohere, `error` for OpenAI, vLLM and infinity, `detail` for Jina.

    >>> error_body(RefusedError("no", 400, "BadRequestError", "top_n"), "1")[1]["error"]["param"]
    'top_n'
    """
    error = {"message": refusal.message, "type": refusal.kind, "param": refusal.param, "code": refusal.status}
    return refusal.status, {"id": id, "message": refusal.message, "detail": refusal.message, "error": error}


def no_headers(outcome: Outcome) -> dict[str, str]:
    """No headers of the dialect's own."""
    return {}


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one product spells a rerank.

    Attributes:
        name: of the product, the first part of its own paths here: `/jina/v1/rerank`.
        read: a body to a request; raises RefusedError.
        reply: a request and its answer to a body.
        example: a body, for the documentation and its tests.
        about: one sentence.
        fields: what is read of a body, as JSON schemas; `example` has no others.
        required: fields that must be there, each as a tuple of names of which one is enough.
        key: what the reply holds its entries under; None for a bare list.
        entry: what an entry holds, as JSON schemas: all of it, but for its document where nobody asks for it.
        refuse: an error to status and body.
        headers: of a reply.
    """

    name: str
    read: Callable[[Mapping[str, Any]], Rerank]
    reply: Callable[[Rerank, Outcome], Any]
    example: Mapping[str, Any]
    about: str
    fields: Mapping[str, Schema]
    required: tuple[tuple[str, ...], ...] = (("query",), ("documents",))
    key: str | None = "results"
    entry: Mapping[str, Schema] = field(default_factory=lambda: {**RANKED, "document": {"type": "object"}})
    refuse: Callable[[RefusedError, str], tuple[int, Any]] = error_body
    headers: Callable[[Outcome], dict[str, str]] = no_headers
