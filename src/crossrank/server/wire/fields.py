"""Fields of a JSON object, checked: each function gives a value of the right kind or says which field is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crossrank.server.refusals import invalid

Body = Mapping[str, Any]


def text(body: Body, name: str) -> str:
    """A string that is not blank, or an object with one in `text`.

    >>> text({"query": {"text": "tea"}}, "query")
    'tea'
    """
    value = body.get(name)
    if isinstance(value, Mapping):
        value = _text_of(value, name)
    if not isinstance(value, str):
        raise invalid(f"{name} must be a string, not {kind(value)}", name)
    if not value.strip():
        raise invalid(f"{name} is empty; ask something", name)
    return value


def texts(body: Body, name: str) -> tuple[str, ...]:
    """A list of strings, or of objects with a string in `text`."""
    return tuple(document(item, f"{name}[{place}]") for place, item in enumerate(items(body, name)))


def items(body: Body, name: str) -> Sequence[Any]:
    """A list."""
    value = body.get(name)
    if not isinstance(value, list):
        raise invalid(f"{name} must be a list, not {kind(value)}", name)
    return value


def document(value: Any, name: str) -> str:
    """A string, or an object with one in `text`; `name` is where it stands, for the message."""
    if isinstance(value, Mapping):
        value = _text_of(value, name)
    if not isinstance(value, str):
        raise invalid(f"{name} must be a string or an object with a text, not {kind(value)}", name)
    return value


def _text_of(value: Mapping[str, Any], name: str) -> Any:
    if "image" in value or "content" in value:
        raise invalid(f"{name} holds an image or other content; this server reads text", name)
    if not isinstance(value.get("text"), str):
        raise invalid(f'{name} must hold its text in "text"', name)
    return value["text"]


def whole(body: Body, name: str, least: int = 0) -> int | None:
    """A whole number of at least `least`; None when absent or null. JSON does not tell 3 from 3.0.

    >>> whole({"top_n": 3}, "top_n"), whole({"top_n": 3.0}, "top_n"), whole({}, "top_n")
    (3, 3, None)
    """
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        told = f"{value:g}" if isinstance(value, float) else kind(value)
        raise invalid(f"{name} must be a whole number, not {told}", name)
    if value < least:
        raise invalid(f"{name} must be at least {least}, not {value}", name)
    return value


def count(body: Body, name: str) -> int | None:
    """How many entries to return: absent, null and 0 mean all."""
    return whole(body, name) or None


def number(body: Body, name: str, least: float, most: float) -> float | None:
    """A number in a range; None when absent or null."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise invalid(f"{name} must be a number, not {kind(value)}", name)
    if not least <= value <= most:
        # A whole number may be larger than any float.
        told = f"{value:g}" if isinstance(value, float) else value
        raise invalid(f"{name} must be from {least:g} to {most:g}, not {told}", name)
    return float(value)


def flag(body: Body, name: str, default: bool) -> bool:
    """True or false; the default when absent or null."""
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise invalid(f"{name} must be true or false, not {kind(value)}", name)
    return value


def choice(body: Body, name: str, values: Sequence[str], default: str) -> str:
    """One of some words; the default when absent or null."""
    value = body.get(name)
    if value is None:
        return default
    if value not in values:
        raise invalid(f"{name} must be one of {', '.join(values)}", name)
    return str(value)


def kind(value: Any) -> str:
    """What JSON calls a value.

    >>> kind([]), kind(None)
    ('a list', 'null or absent')
    """
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null or absent"}
    return names.get(type(value), "a number")
