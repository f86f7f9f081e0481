"""Passages in an index of OpenSearch, by BM25 and by its k-NN plugin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crossrank.extras import require
from crossrank.retrieval.remote.hits import SearchIndex
from crossrank.retrieval.remote.store import GRACE, TIMEOUT, Fields

require("opensearchpy", extra="opensearch")

from opensearchpy import OpenSearch  # noqa: E402
from opensearchpy.exceptions import OpenSearchException, TransportError  # noqa: E402


class OpenSearchIndex(SearchIndex):
    """Passages of one index of OpenSearch.

    Tested against exchanges written after its documentation, not against a running server.

    Args:
        client: of the official library; it knows addresses, password and certificates.
        index: its name or alias.
        fields: where in a document the texts are; words are looked for in text and title.
        vector: field of the vectors; "" has none.
        where: clauses of the query language that every passage must meet, such as `{"term": {"lang": "en"}}`.
        timeout: seconds for one answer. An answer that the server cut short for it is an error.

    >>> OpenSearchIndex(OpenSearch("http://localhost:9200"), "notes", Fields("body"), vector="embedding")
    OpenSearchIndex('notes')
    """

    def __init__(
        self,
        client: OpenSearch,
        index: str,
        fields: Fields | None = None,
        *,
        vector: str = "",
        where: Sequence[Mapping[str, Any]] = (),
        timeout: float = TIMEOUT,
    ) -> None:
        super().__init__(index, fields, vector=vector, where=where, timeout=timeout)
        self._client = client

    def _search(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            answer = self._client.search(body=body, index=self._index, request_timeout=self._timeout + GRACE)
        except TransportError as error:
            if isinstance(error.status_code, int):
                raise self._refused(error.status_code, error) from error
            raise self._silent(error) from error
        except OpenSearchException as error:
            raise self._silent(error) from error
        return answer if isinstance(answer, dict) else {}

    def _near(self, vector: list[float], depth: int) -> dict[str, Any]:
        asked: dict[str, Any] = {"vector": vector, "k": depth}
        if self._where:
            asked["filter"] = {"bool": {"filter": self._where}}
        return {"query": {"knn": {self._vector: asked}}}
