"""Filters on metadata as callers give them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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
