"""Can this be scored? What every scorer of texts refuses, in the same words."""

from __future__ import annotations

from collections.abc import Sequence

from crossrank.errors import InputError
from crossrank.types import check_k, check_query


def check_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    """Refuse what is no list of (query, passage) pairs of strings, and a blank query.

    Raises:
        InputError: with the place of the first mistake.
    """
    queries = set()
    for position, pair in enumerate(pairs):
        if isinstance(pair, str) or len(pair) != 2:
            raise InputError(f"pair {position} is not a (query, passage) pair")
        query, passage = pair
        if not isinstance(passage, str):
            raise InputError(f"document {position} is {type(passage).__name__}, not a string")
        queries.add(query)
    for query in queries:
        check_query(query)


def check_queries(queries: Sequence[str], passages: int) -> None:
    """Refuse what is not one query that is not blank for each of so many passages."""
    if isinstance(queries, str) or len(queries) != passages:
        raise InputError(f"scored_tokens takes one query for each of the {passages} passages")
    for query in dict.fromkeys(queries):
        check_query(query)


def check_list(query: str, documents: Sequence[str], k: int | None) -> None:
    """Refuse what cannot be ranked: a blank query, one string in place of a list, a `k` under 1."""
    if k is not None:
        check_k(k)
    if isinstance(documents, str):
        raise InputError("rank takes a list of documents, not one string")
    check_query(query)
