"""crossrank's own search: a query over the index, and on request what each step of it did."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from typing import Any, Literal

from crossrank.cascade import Trace
from crossrank.falling import published
from crossrank.planner import SETTLES
from crossrank.server.refusals import LONGEST_NAME, invalid
from crossrank.server.rerankers import Reranker
from crossrank.server.searches import Found, Search
from crossrank.server.service import Service
from crossrank.server.wire import fields, schemas
from crossrank.server.wire.shapes import Timing
from crossrank.types import Passage

EXAMPLE = {"query": "how do I retry a failed upload?", "k": 5, "depth": 50, "budget_ms": 500, "where": ["year>=2020"]}
# Of a server without an index.
BROUGHT = {
    "query": "how do I retry a failed upload?",
    "k": 1,
    "documents": [
        {"title": "Uploads", "text": "A failed upload is retried three times."},
        {"title": "Baking", "text": "Bread needs yeast."},
    ],
}
MOST_DEPTH, MOST_BUDGET_MS = 1000, 600_000
_DEPTH: schemas.Schema = {"type": ["integer", "null"], "minimum": 1, "maximum": MOST_DEPTH}
# As `crossrank.index.filters` reads it: words or texts in quotes about a comparison, several joined by AND. Regular
# expressions do not agree about white space that is not ASCII, so words hold none.
_WORD = r"""[^\u0000-\u0020\u007f-\u00a0\u1680\u2000-\u200f\u2028-\u202f\u205f\u3000\ufeff"'=<>!]+"""
_QUOTED = r"""("([^"\\]|\\.)*"|'([^'\\]|\\.)*')"""
_SPACE = r"[ \t\r\n]"
_COMPARED = rf"{_SPACE}*(==|=|!=|<=|<|>=|>){_SPACE}*({_WORD}|{_QUOTED})"
_ITEM = rf"{_SPACE}*({_WORD[:-2]},()]+|{_QUOTED}){_SPACE}*"
_LISTED = rf"{_SPACE}+([Nn][Oo][Tt]{_SPACE}+)?[Ii][Nn]{_SPACE}*\({_ITEM}(,{_ITEM}){{0,7}}\)"
_HAS = rf"{_SPACE}+[Hh][Aa][Ss]{_SPACE}+({_WORD}|{_QUOTED})"
_ONE = rf"({_WORD}|{_QUOTED})({_COMPARED}|{_LISTED}|{_HAS})"
_MORE = rf"{_SPACE}+[Aa][Nn][Dd]{_SPACE}+{_ONE}"


def _conditions(most: int) -> schemas.Schema:
    """A text of so many conditions."""
    return {"type": "string", "pattern": rf"^{_SPACE}*{_ONE}({_MORE}){{0,{most - 1}}}{_SPACE}*$", "maxLength": 10_000}


# A filter has 64 conditions at most, which no schema can count over a list: as many as surely fit.
_LISTS: list[schemas.Schema] = [
    {"type": "array", "items": _conditions(each), "maxItems": 64 // each} for each in (1, 8)
]
_PROBABILITY: schemas.Schema = {"type": "number", "minimum": 0, "maximum": 1}
_PER_DOCUMENT: schemas.Schema = {
    **_DEPTH,
    "description": "At most so many passages of one document are returned, its best; k counts what is returned, and "
    "warnings what was left out. Each of documents is one.",
}
_THRESHOLD: schemas.Schema = {
    "anyOf": [_PROBABILITY, {"const": "model"}, {"type": "null"}],
    "description": "Of the k passages only those that have at least this probability are returned; model takes the "
    "model's own threshold. warnings says what was left out.",
}
FIELDS: dict[str, schemas.Schema] = {
    "query": schemas.QUERY, "model": {"type": ["string", "null"]},
    "coarse": {
        "type": ["string", "null"],
        "description": "Another of the models that are served, a cheaper one: it reads first, and model reads half of "
        "depth then, at most 50, of the best that it leaves.",
    },
    "k": _DEPTH,
    "depth": {
        **_DEPTH,
        "description": "Passages that each retriever returns and the cross-encoder reads: 100, or all of documents.",
    },
    "mix": {
        "type": ["number", "null"], "minimum": 0, "maximum": 1,
        "description": "Share of the cross-encoder's score in the order. Left out, 1 for documents, else 0.4, or what "
        "a model brings that was tuned with an index.",
    },
    "rerank": schemas.FLAG,
    "budget_ms": {"type": ["number", "null"], "minimum": 1, "maximum": MOST_BUDGET_MS},
    "where": {
        "anyOf": [_conditions(64), *_LISTS, {"type": "null"}],
        "description": "Conditions such as year>=2020; several by AND, 64 in all; quotes around what has spaces.",
    },
    "per_document": _PER_DOCUMENT, "columns": schemas.COUNT, "evidence": schemas.FLAG, "threshold": _THRESHOLD,
    "stop_early": {
        **schemas.FLAG,
        "description": "The cross-encoder reads on only while a passage that it has not read is likely to reach the k "
        f"best: read says how many it did. Left out, so with budget_ms and a mix of at most {SETTLES}.",
    },
    "documents": {
        "type": "array",
        "items": {
            "anyOf": [
                {"type": "string"},
                *(
                    {
                        "type": "object", "required": [name], "additionalProperties": False,
                        "properties": {
                            name: schemas.held({"type": "string"})[name], other: {"type": "null"},
                            "title": {"type": ["string", "null"]},
                        },
                    }
                    for name, other in (fields.TEXTS, fields.TEXTS[::-1])
                ),
            ],
        },
        "description": "Ranked instead of the index's passages; a title is read before its text.",
    },
}  # fmt: skip
# What rerank APIs and databases call it. No second name of it: two fields for one number could say two.
_MEANT = dict.fromkeys(("top_k", "top_n", "limit"), ": k says how many results to return")
NEVER: schemas.Schema = {
    "anyOf": [
        # Conditions are on the index's metadata.
        {
            "required": ["where", "documents"],
            "properties": {
                "where": {"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1}]},
                "documents": {"type": "array"},
            },
        },
        # Probabilities are the cross-encoder's, and what reads before it is for it.
        *(
            {
                "required": [name],
                "properties": {name: {"not": {"type": "null"}}},
                "anyOf": [
                    {"required": ["rerank"], "properties": {"rerank": {"const": False}}},
                    {"required": ["mix"], "properties": {"mix": {"const": 0}}},
                ],
            }
            for name in ("threshold", "coarse")
        ),
    ],
}  # fmt: skip


def fields_of(service: Service) -> dict[str, schemas.Schema]:
    """`FIELDS`, with this server's models, and what they can be asked for as a threshold."""
    probability = [_PROBABILITY] if _without(service, "probability") < set(service.rerankers) else []
    own = [{"const": "model"}] if _without(service, "threshold") < set(service.rerankers) else []
    made = {
        **FIELDS,
        "model": schemas.models([*service.rerankers]),
        "coarse": {**FIELDS["coarse"], **schemas.one_of(*(service.rerankers if len(service.loaded) > 1 else ()))},
        "threshold": {**_THRESHOLD, "anyOf": [*probability, *own, {"type": "null"}]},
    }
    # Without documents a server without an index has nothing to rank.
    return made if service.index is None else {**made, "documents": {**FIELDS["documents"], "type": ["array", "null"]}}


def never_of(service: Service) -> schemas.Schema:
    """`NEVER`, the thresholds that only some of this server's models have, and a model that reads before itself."""
    lacking = [
        (names, asked)
        for names, asked in (
            (_without(service, "probability"), {"type": "number"}),
            (_without(service, "threshold"), {"const": "model"}),
        )
        if names
    ]
    made = [_never(service, names, threshold=asked) for names, asked in lacking]
    if len(service.loaded) > 1:
        # Within a budget it may be the last that reads.
        told = {"budget_ms": {"type": "number"}}
        made += [_all({"threshold": asked, "coarse": {"enum": sorted(names)}, **told}) for names, asked in lacking]
        for one in service.loaded:
            names = {name for name, other in service.rerankers.items() if other.speed is one.speed}
            made.append(_never(service, names, coarse={"enum": sorted(names)}))
    return {"anyOf": [*NEVER["anyOf"], *made]}


def _never(service: Service, names: Set[str], **field: schemas.Schema) -> schemas.Schema:
    """Such a field beside one of these models, or none where the default is one of them."""
    unsaid = [None] if service.reranker.name in names else []
    made = _all({**field, "model": {"enum": [*sorted(names), *unsaid]}})
    return {**made, "required": [*field]} if unsaid else made


def _all(fields: Mapping[str, schemas.Schema]) -> schemas.Schema:
    """Such fields together."""
    return {"required": [*fields], "properties": dict(fields)}


def _without(service: Service, what: Literal["probability", "threshold"]) -> set[str]:
    """Models that have no probabilities, or no threshold of their own in these."""
    lacks = {name for name, one in service.rerankers.items() if one.score_kind == "sigmoid"}
    if what == "probability":
        return lacks
    return lacks | {name for name, one in service.rerankers.items() if one.scorer.threshold is None}


def read(body: fields.Body) -> Search:
    """Those of `FIELDS`, and no others: whoever misspells a condition must not get an answer without it. Which models
    are meant is for the service.

    >>> read({"query": "tea", "rerank": False}).mix
    0.0
    """
    if unknown := next((name for name in body if name not in FIELDS), None):
        told = unknown[:LONGEST_NAME]
        raise invalid(f"there is no field {told!r}{_MEANT.get(unknown, '')}; there are {', '.join(FIELDS)}", told)
    where = body.get("where")
    conditions = [where] if isinstance(where, str) else [] if where is None else fields.items(body, "where")
    if not all(isinstance(condition, str) for condition in conditions):
        raise invalid('where must be a list of conditions such as "year>=2020"', "where")
    if conditions and body.get("documents") is not None:
        raise invalid("where asks for metadata, which only the index has: leave out where, or documents", "where")
    mix = fields.number(body, "mix", 0.0, 1.0)
    threshold = _threshold(body)
    budget = fields.number(body, "budget_ms", 1, MOST_BUDGET_MS)
    documents = None if body.get("documents") is None else _candidates(fields.items(body, "documents"))
    # Documents that a request brings have no first stage worth mixing in.
    mix = 1.0 if mix is None and documents is not None else mix
    mix = mix if fields.flag(body, "rerank", True) else 0.0
    if threshold is not None and mix == 0:
        raise invalid("threshold needs the cross-encoder: leave out rerank and mix, or threshold", "threshold")
    if body.get("coarse") is not None and mix == 0:
        raise invalid("coarse reads for the cross-encoder: leave out rerank and mix, or coarse", "coarse")
    return Search(
        query=fields.text(body, "query"),
        k=_bounded(body, "k", 10),
        depth=_bounded(body, "depth", 100 if documents is None else len(documents)),
        mix=mix,
        budget=None if budget is None else budget / 1000,
        where=tuple(conditions),
        columns=min(fields.whole(body, "columns") or 0, MOST_DEPTH),
        evidence=fields.flag(body, "evidence", False),
        documents=documents,
        threshold=threshold,
        per_document=None if body.get("per_document") is None else _bounded(body, "per_document", 1),
        stop_early=None if body.get("stop_early") is None else fields.flag(body, "stop_early", False),
    )


def _threshold(body: fields.Body) -> float | Literal["model"] | None:
    return "model" if body.get("threshold") == "model" else fields.number(body, "threshold", 0.0, 1.0)


def _candidates(documents: Sequence[Any]) -> tuple[Passage, ...]:
    """Strings, and objects of a text and perhaps a title; their ids are their ranks as given, from 1."""
    return tuple(
        Passage(str(place + 1), fields.document(one, f"documents[{place}]"), _title(one, f"documents[{place}]"))
        for place, one in enumerate(documents)
    )


def _title(document: Any, name: str) -> str:
    """As an index reads it; any other field would be lost, and is refused as one beside the query is."""
    if isinstance(document, str):
        return ""
    if unknown := next((field for field in document if field not in (*fields.TEXTS, "title")), None):
        told = unknown[:LONGEST_NAME]
        raise invalid(f"{name} has a field {told!r}, which is not read; there are text and title", name)
    title = document.get("title")
    if not isinstance(title, str | None):
        raise invalid(f"the title of {name} must be a string, not {fields.kind(title)}", name)
    return title or ""


def _bounded(body: fields.Body, name: str, default: int) -> int:
    value = fields.whole(body, name, 1)
    if value is None:
        return default
    if value > MOST_DEPTH:
        raise invalid(f"{name} must be at most {MOST_DEPTH}, not {value}", name)
    return value


def reply(
    asked: Search, found: Found, reranker: Reranker, id: str, timing: Timing, warnings: list[str]
) -> dict[str, Any]:
    """The k best passages with the place each step gave them; the columns and their passages when asked for."""
    places = {trace.name: {id_: row for row, id_ in enumerate(trace.ranking.ids)} for trace in found.traces}
    results = []
    for row, (id_, score) in enumerate(zip(found.ranking.ids, published(found.ranking), strict=True)):
        passage, span = found.passages[id_], found.evidence[row]
        steps = {
            trace.name: _step(trace, places[trace.name][id_], found)
            for trace in found.traces
            if id_ in places[trace.name]
        }
        results.append(
            {
                "rank": row + 1,
                "id": id_,
                "document": passage.document,
                "title": passage.title,
                "text": passage.text,
                "metadata": dict(passage.metadata),
                "score": score,
                "probability": steps.get(found.last, {}).get("probability"),
                "evidence": None if span is None else list(span),
                "steps": steps,
            }
        )
    located = sum(span is not None for span in found.evidence)
    made: dict[str, Any] = {
        "id": id,
        "query": asked.query,
        "model": reranker.name,
        "coarse": None if asked.coarse is None else asked.coarse.name,
        "results": results,
        "read": found.read,
        "steps": [_summary(trace) for trace in found.traces]
        + (
            [{"name": "evidence", "seconds": found.seconds, "passages": located, "how": None, "stopped": None}]
            if asked.evidence
            else []
        ),
        "timing": {name: getattr(timing, name) for name in ("tokenize", "queue", "compute", "total")},
        "warnings": [*found.notes, *warnings],
    }
    if asked.columns:
        made["columns"] = [_column(trace, asked.columns, found) for trace in found.traces]
        made["passages"] = {
            id_: {"title": passage.title, "text": passage.text, "document": passage.document}
            for id_, passage in found.passages.items()
        }
    return made


def _summary(trace: Trace) -> dict[str, Any]:
    passages = len(trace.scores) or len(trace.ranking)
    made = {"name": trace.name, "seconds": trace.seconds, "passages": passages, "how": trace.how or None}
    return {**made, "stopped": trace.stopped or None}


def _column(trace: Trace, most: int, found: Found) -> dict[str, Any]:
    entries = [{"id": id_, **_step(trace, row, found)} for row, id_ in enumerate(trace.ranking.ids[:most])]
    return {"name": trace.name, "seconds": trace.seconds, "entries": entries}


def _step(trace: Trace, row: int, found: Found) -> dict[str, Any]:
    """Rank from 1 and score of one passage after one step; a cross-encoder also says its logit and probability."""
    step: dict[str, Any] = {"rank": row + 1, "score": _finite(float(trace.ranking.scores[row]))}
    if trace.scores:
        logit = trace.scores.get(trace.ranking.ids[row])
        step["logit"] = None if logit is None else _finite(logit)
        step["probability"] = None if logit is None else found.readers[trace.name].chance(logit)
    return step


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
