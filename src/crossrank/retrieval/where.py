"""Filters on metadata as callers give them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol, runtime_checkable

from crossrank.errors import InputError
from crossrank.types import Retriever

Where = str | Iterable[str] | None
Kept = str | tuple[str, ...] | None


@runtime_checkable
class Filtering(Protocol):
    """A retriever that can look among some of its passages only."""

    def filtered(self, where: Where) -> Retriever:
        """A retriever whose passages meet these conditions and those that this one has already."""
        ...


def among(retrievers: Mapping[str, Retriever], where: Where) -> Mapping[str, Retriever]:
    """The retrievers, each `filtered`; as they are where there are no conditions.

    Raises:
        InputError: one cannot filter, so that it would find what the others leave out; or no such filter.
    """
    kept = once(where)
    if kept is None or kept == ():
        return retrievers
    made = {}
    for name, retriever in retrievers.items():
        if not isinstance(retriever, Filtering):
            raise InputError(
                f"the retriever {name!r} cannot filter: {type(retriever).__name__} has no filtered(where). Leave where "
                "out, or make a pipeline whose store has the filter, as where= of most stores"
            )
        made[name] = retriever.filtered(kept)
    return made


def both(mine: Kept, more: Where) -> Kept:
    """All conditions of both, which must all hold.

    >>> both("lang=en", ["year>=2020", "year<2024"]), both(None, ())
    (('lang=en', 'year>=2020', 'year<2024'), ())
    """
    parts = [(part,) if isinstance(part, str) else part or () for part in (mine, once(more))]
    return (*parts[0], *parts[1])


def once(where: Where) -> Kept:
    """The conditions, read once: every step asks for them with every query, and a generator would be empty by then.

    Raises:
        InputError: neither a condition nor several.

    >>> once(f"{name}={value}" for name, value in {"lang": "en"}.items())
    ('lang=en',)
    """
    if where is None or isinstance(where, str):
        return where
    mistake = InputError(f'a filter is a condition such as "year>=2020", or a list of them, not {where!r}')
    if isinstance(where, (bytes, Mapping)):
        raise mistake
    try:
        kept = tuple(where)
    except TypeError:
        raise mistake from None
    if not all(isinstance(one, str) for one in kept):
        raise mistake
    return kept
