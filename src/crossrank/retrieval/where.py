"""Filters on metadata as callers give them."""

from __future__ import annotations

from collections.abc import Iterable

from crossrank.errors import InputError

Where = str | Iterable[str] | None
Kept = str | tuple[str, ...] | None


def once(where: Where) -> Kept:
    """The conditions, read once: every step asks for them with every query, and a generator would be empty by then.

    Raises:
        InputError: neither a condition nor several.

    >>> once(f"{name}={value}" for name, value in {"lang": "en"}.items())
    ('lang=en',)
    """
    if where is None or isinstance(where, str):
        return where
    try:
        return tuple(where)
    except TypeError:
        raise InputError(f'a filter is a condition such as "year>=2020", or a list of them, not {where!r}') from None
