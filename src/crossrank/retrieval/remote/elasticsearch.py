"""Passages in an index of Elasticsearch, by BM25 and by its search for nearest vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crossrank.extras import require
from crossrank.retrieval.remote.hits import SearchIndex
from crossrank.retrieval.remote.store import DEEPEST, GRACE, TIMEOUT, Fields

require("elasticsearch", extra="elasticsearch")

from elasticsearch import ApiError, Elasticsearch, TransportError  # noqa: E402


class ElasticsearchIndex(SearchIndex):
    """Passages of one index of Elasticsearch 8 or later.

    Tested against exchanges written after its documentation, not against a running server.

    Args:
        client: of the official library; it knows addresses, key and certificates.
        index: its name or alias.
        fields: where in a document the texts are; words are looked for in text and title.
        vector: field of type dense_vector; "" has none.
        where: clauses of the query language that every passage must meet, such as `{"term": {"lang": "en"}}`.
        timeout: seconds for one answer. An answer that the server cut short for it is an error.

    >>> ElasticsearchIndex(Elasticsearch("http://localhost:9200"), "notes", Fields("body"), vector="embedding")
    ElasticsearchIndex('notes')
    """

    def __init__(
        self,
        client: Elasticsearch,
        index: str,
        fields: Fields | None = None,
        *,
        vector: str = "",
        where: Sequence[Mapping[str, Any]] = (),
        timeout: float = TIMEOUT,
    ) -> None:
        super().__init__(index, fields, vector=vector, where=where, timeout=timeout)
        self._client = client.options(request_timeout=self._timeout + GRACE)

    def _search(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            answer = self._client.search(index=self._index, body=dict(body)).body
        except ApiError as error:
            raise self._refused(error.meta.status, error) from error
        except TransportError as error:
            raise self._silent(error) from error
        return answer if isinstance(answer, dict) else {}

    def _near(self, vector: list[float], depth: int) -> dict[str, Any]:
        # Twice as many candidates on each shard as are asked for: the server's own default is half as many more.
        asked = {
            "field": self._vector,
            "query_vector": vector,
            "k": depth,
            "num_candidates": min(DEEPEST, max(100, 2 * depth)),
            "filter": self._where,
        }
        return {"knn": asked}
