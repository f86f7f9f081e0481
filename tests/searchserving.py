"""A stand-in for OpenSearch and Elasticsearch that finds something: words in common, and vectors in the order given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

# Elasticsearch's client talks to nobody who does not say so, and reads no JSON that is not called that.
ELASTIC = {"X-Elastic-Product": "Elasticsearch", "Content-Type": "application/vnd.elasticsearch+json;compatible-with=9"}
OPEN = {"Content-Type": "application/json"}


def answering(texts: Mapping[str, str], field: str, headers: Mapping[str, str]) -> Callable[[str, dict[str, Any]], Any]:
    """What `apiserver.serving` takes: answers over documents that hold their text in one field."""

    def answer(path: str, body: dict[str, Any]) -> Any:
        query = body.get("query", {})
        if "ids" in query:
            scores = {id_: 1.0 for id_ in query["ids"]["values"]}
        elif "bool" in query:
            asked = set(query["bool"]["must"][0]["multi_match"]["query"].lower().split())
            scores = {id_: float(len(asked & set(text.lower().split()))) for id_, text in texts.items()}
        else:
            scores = {id_: 1.0 / place for place, id_ in enumerate(texts, start=1)}
        best = sorted((id_ for id_ in scores if scores[id_]), key=lambda id_: -scores[id_])[: body["size"]]
        hits = [{"_id": id_, "_score": scores[id_], "_source": {field: texts[id_]}} for id_ in best]
        return 200, {"timed_out": False, "_shards": {"failed": 0}, "hits": {"hits": hits}}, headers

    return answer
