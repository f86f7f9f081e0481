"""What a reply tells beside its answer: texts that were not read whole, fields that were not read, and cautions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from crossrank.server.refusals import LONGEST_NAME
from crossrank.types import Truncation

# Texts that were not read whole, or fields, of which a reply tells; the header counts all.
MOST = 20


def cut(truncation: Truncation, name: str = "") -> str:
    """A text that was not read whole; its place in the request is its name where none is given."""
    name = name or ("the query" if truncation.position < 0 else f"document {truncation.position}")
    return f"{name} was not read whole: {truncation.told}"


def text_of(step: str, id_: str | None) -> str:
    """A text of a search; the step tells which of two models the figures after it are about."""
    return f"{step}: {'the query' if id_ is None else f'passage {id_}'}"


def unread(names: Sequence[str], known: Mapping[str, Any]) -> str:
    """Fields of a request that were not read."""
    told = ", ".join(name[:LONGEST_NAME] for name in names[:MOST])
    return f"not read: {told}; the fields that are read here are {', '.join(known)}"


def truncated(texts: int) -> dict[str, str]:
    """The header that counts texts that were not read whole."""
    return {"X-Crossrank-Truncated": str(texts)} if texts else {}


def cautioned(said: Sequence[str]) -> dict[str, str]:
    """The header of cautions."""
    return {"X-Crossrank-Caution": "; ".join(said)} if said else {}


def ignored(names: Sequence[str]) -> dict[str, str]:
    """The header that names fields of a request that were not read, escaped as in an address.

    >>> ignored(["threshold", "x y"])
    {'X-Crossrank-Unread': 'threshold, x%20y'}
    """
    # Cut first: to escape a name of megabytes takes seconds. A header cannot end in the space of an empty name.
    told = [quote(name[:LONGEST_NAME], safe="", errors="replace") for name in names[:MOST]]
    told = [name[:LONGEST_NAME] or '""' for name in told]
    return {"X-Crossrank-Unread": ", ".join(told)} if told else {}
