"""Filters on metadata as callers give them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol, runtime_checkable

from crossrank.errors import InputError
from crossrank.index import filters
from crossrank.index.documents import Kind
from crossrank.types import Retriever

Where = str | Iterable[str] | None
Kept = str | tuple[str, ...] | None


@runtime_checkable
class Filtering(Protocol):
    """A retriever that can look among some of its passages only."""

    def filtered(self, where: Where) -> Retriever:
        """A retriever whose passages meet these conditions and those that this one has already."""
        ...


@runtime_checkable
class Explaining(Protocol):
    """A retriever that can say what is likely wrong with its filter, of which nothing was found."""

    def mistake(self) -> str | None:
        """The mistake; None when nothing stands out."""
        ...


@runtime_checkable
class Fields(Protocol):
    """What knows its fields, as an index does."""

    def has_field(self, name: str, kinds: Iterable[Kind]) -> bool:
        """Whether any passage has a value of one of these kinds in this field."""
        ...


def mistake(index: object, where: Kept) -> str | None:
    """What is likely wrong with a filter that no passage of an index satisfies; None when nothing stands out."""
    return filters.mistake(where, index.has_field) if where and isinstance(index, Fields) else None


def why_nothing(retrievers: Iterable[Retriever]) -> str:
    """What is likely wrong with the filters of retrievers that found nothing; empty when nothing stands out."""
    told = (retriever.mistake() for retriever in retrievers if isinstance(retriever, Explaining))
    return next(filter(None, told), "")


def among(retrievers: Mapping[str, Retriever], where: Where) -> Mapping[str, Retriever]:
    """The retrievers, each `filtered`; as they are where there are no conditions.

    Raises:
        InputError: one cannot filter, so that it would find what the others leave out; or no such filter.
    """
    kept = filters.once(where)
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
    parts = [(part,) if isinstance(part, str) else part or () for part in (mine, filters.once(more))]
    return (*parts[0], *parts[1])
