"""How rerank APIs want to be asked, and how much of them one request holds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

# Of the texts of one request, in UTF-8: text-embeddings-inference takes 2 MB, escapes of JSON included.
_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one API wants to be asked. All answers are read alike.

    Attributes:
        more: sent with each request. Where an API can give scores as the model made them, they are asked for.
        raw: whether that is so; else scores are from 0 to 1.
        texts: what it calls the documents.
        count: what it calls the number of documents that come back, which are always all; "" where it knows none.
        model: whether it is told the model.
        most: documents in one request, at most.
    """

    more: Mapping[str, Any] = field(default_factory=dict)
    raw: bool = False
    texts: str = "documents"
    count: str = "top_n"
    model: bool = True
    most: int = 1000


DIALECTS: Mapping[str, Dialect] = {
    "cohere": Dialect(),
    "jina": Dialect({"return_documents": False}),
    "voyage": Dialect({"return_documents": False}, count="top_k"),
    "vllm": Dialect({"use_activation": False}, raw=True),
    "infinity": Dialect({"return_documents": False, "raw_scores": True}, raw=True),
    # 32 is what it takes unless it was started with another --max-client-batch-size.
    "tei": Dialect({"raw_scores": True, "truncate": True}, True, "texts", "", model=False, most=32),
}
"""By name. "cohere" is Cohere's version 2; "jina" is also that of Cohere's version 1 and of most gateways."""


@dataclass(frozen=True, slots=True)
class Fits:
    """What an address takes in one request, as its refusals tell.

    They do not say whether the documents were too many or too long; and long ones must not make later requests of short
    ones smaller, where an API bills by the request. So a part passes that is small in either.

    Attributes:
        count: so many documents are taken, however long.
        size: so many bytes of query and documents are taken, however many.
    """

    count: float = math.inf
    size: float = math.inf

    def part(self, query: str, texts: Sequence[str]) -> tuple[str, ...]:
        """The first of the texts that one request may hold, one at the least.

        >>> Fits(count=1, size=9).part("q", ["abc", "abc", "abc"]), Fits(count=2, size=0).part("q", ["abc"] * 3)
        (('abc', 'abc'), ('abc', 'abc'))
        """
        used = len(query.encode())
        for place, text in enumerate(texts):
            used += len(text.encode())
            if place and place + 1 > self.count and used > self.size:
                return tuple(texts[:place])
        return tuple(texts)

    def less(self, query: str, part: Sequence[str]) -> Fits:
        """After a refusal of this part, which lets what let it pass count for less: there may be as many of short ones
        still that were refused for many bytes, and the other way round.

        >>> Fits(count=10, size=99).less("q", ["abc"] * 12), Fits().less("q", ["abc"] * 12)
        (Fits(count=10, size=18), Fits(count=6, size=18))
        """
        size = sum(len(text.encode()) for text in (query, *part))
        many, long = len(part) > self.count, size > self.size
        return Fits(
            self.count if many else min(self.count, len(part) // 2), self.size if long else min(self.size, size // 2)
        )

    def least(self, other: Fits) -> Fits:
        """What both take."""
        return Fits(min(self.count, other.count), min(self.size, other.size))


def parts(query: str, texts: Sequence[str], most: int) -> Iterator[tuple[str, ...]]:
    """The texts in order, in parts that one request may hold; one text is a part, however long."""
    part: list[str] = []
    used = left = len(query.encode())
    for text in texts:
        size = len(text.encode())
        if part and (len(part) >= most or used + size > _BYTES):
            yield tuple(part)
            part, used = [], left
        part.append(text)
        used += size
    yield tuple(part)


def dialect_of(url: str) -> str:
    """What an address speaks, as far as it says so.

    >>> [dialect_of(f"https://{url}") for url in ("api.cohere.com/v2", "api.voyageai.com/v1", "gpu/tei", "gpu")]
    ['cohere', 'voyage', 'tei', 'jina']
    """
    told = urlsplit(url)
    path = [one for one in told.path.split("/") if one]
    if named := next((one for one in path if one in DIALECTS), None):
        return named
    if f".{told.hostname}".endswith(".voyageai.com"):
        return "voyage"
    return "cohere" if path[-1:] == ["v2"] else "jina"
