"""text-embeddings-inference's rerank: `texts` in, a bare array out. Source: its router/src/http/types.rs, 1.9.3."""

from __future__ import annotations

from typing import Any

from crossrank.server.refusals import RefusedError
from crossrank.server.wire import fields, schemas
from crossrank.server.wire.shapes import Dialect, Outcome, Rerank, Timing

_KINDS = {
    "Empty": "Empty", "OverloadedError": "Overloaded", "UnavailableError": "Unhealthy", "DeadlineError": "Backend",
    "InternalServerError": "Backend",
}  # fmt: skip

DIRECTIONS = ("left", "right", "Left", "Right")


def read(body: fields.Body) -> Rerank:
    """`truncate: false` asks for an error when something would not be read; absent, all is read in windows anyway."""
    query, texts = fields.text(body, "query"), fields.texts(body, "texts")
    if not texts:
        raise RefusedError("`texts` cannot be empty", 400, "Empty", "texts")
    return Rerank(
        pairs=tuple((query, text) for text in texts),
        raw=fields.flag(body, "raw_scores", False),
        echo=fields.flag(body, "return_text", False),
        documents=texts,
        whole="" if fields.flag(body, "truncate", True) else "truncate",
        # What windows do not reach is always the end.
        unread=("truncation_direction",) if cuts_left(body) else (),
    )


def cuts_left(body: fields.Body) -> bool:
    """Whether what is not read of a text should be its beginning."""
    return fields.choice(body, "truncation_direction", DIRECTIONS, "right").lower() == "left"


def reply(request: Rerank, outcome: Outcome) -> list[dict[str, Any]]:
    """Best first."""
    rows = []
    for position, score in zip(outcome.positions, outcome.scores, strict=True):
        row: dict[str, Any] = {"index": position}
        if request.echo:
            row["text"] = request.documents[position]
        row["score"] = score
        rows.append(row)
    return rows


def refuse(refusal: RefusedError, id: str) -> tuple[int, Any]:
    """`error` is a string here, and a wrong field is a 422."""
    status = 422 if refusal.status == 400 and refusal.kind != "Empty" else refusal.status
    kind = _KINDS.get(refusal.kind, "Validation")
    return status, {"error": refusal.message, "error_type": kind, "message": refusal.message}


def headers(outcome: Outcome) -> dict[str, str]:
    """See `times`."""
    return times(outcome.timing, outcome.characters, outcome.tokens)


def times(timing: Timing, characters: int, tokens: int) -> dict[str, str]:
    """What was computed, and times in milliseconds, in headers as TEI sends them."""
    return {
        "x-compute-time": f"{1000 * timing.compute:.0f}",
        "x-compute-characters": str(characters),
        "x-compute-tokens": str(tokens),
        "x-total-time": f"{1000 * timing.total:.0f}",
        "x-tokenization-time": f"{1000 * timing.tokenize:.0f}",
        "x-queue-time": f"{1000 * timing.queue:.0f}",
        "x-inference-time": f"{1000 * timing.compute:.0f}",
    }


TEI = Dialect(
    "tei",
    read,
    reply,
    {"query": "What is the capital of France?", "texts": ["Bread needs yeast.", "Paris is the capital of France."],
     "raw_scores": False, "return_text": True, "truncate": True},
    "text-embeddings-inference's: a bare array; chosen where texts is present, and at / and /invocations.",
    {"query": schemas.QUERY, "texts": schemas.SOME_DOCUMENTS, "raw_scores": schemas.FLAG, "return_text": schemas.FLAG,
     "truncate": schemas.FLAG, "truncation_direction": schemas.one_of(*DIRECTIONS)},
    (("query",), ("texts",)),
    None,
    {"index": schemas.INDEX, "score": schemas.SCORE, "text": {"type": "string"}},
    refuse,
    headers,
)  # fmt: skip
