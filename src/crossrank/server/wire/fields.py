"""Fields of a JSON object, checked: each function gives a value of the right kind or says which field is wrong."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from crossrank.server.refusals import LONGEST_NAME, invalid
from crossrank.unicode import is_blank

Body = Mapping[str, Any]
# What an object may call its text. vLLM's clients send lists of parts as content, which may be images.
TEXTS = ("text", "content")
# What served a client is told in the reply, and priority 0 is what everybody has.
_USUAL = ("priority", 0)


def text(body: Body, name: str) -> str:
    """A query, see `query`, under its name.

    >>> text({"query": {"text": "tea"}}, "query")
    'tea'
    """
    return query(body.get(name), name)


def query(value: Any, name: str) -> str:
    """A string of which something shows, or an object with one, as for `document`."""
    if isinstance(value, Mapping):
        value = _text_of(value, name)
    if not isinstance(value, str):
        raise invalid(f"{name} must be a string, not {kind(value)}", name)
    if is_blank(value):
        raise invalid(f"{name} is empty; ask something", name)
    return value


def texts(body: Body, name: str, cure: str = "") -> tuple[str, ...]:
    """A list of what `document` takes."""
    return tuple(document(item, f"{name}[{place}]", cure) for place, item in enumerate(items(body, name)))


def items(body: Body, name: str) -> Sequence[Any]:
    """A list."""
    value = body.get(name)
    if not isinstance(value, list):
        raise invalid(f"{name} must be a list, not {kind(value)}", name)
    return value


def document(value: Any, name: str, cure: str = "") -> str:
    """A string, or an object with one in `text` or `content`, or with vLLM's list of parts in `content`.

    Args:
        value: of the request.
        name: where it stands, for the message.
        cure: what else an object without a text may need, for the message.
    """
    if isinstance(value, Mapping):
        value = _text_of(value, name, cure)
    if not isinstance(value, str):
        raise invalid(f"{name} must be a string or an object with a text, not {kind(value)}", name)
    return value


def _text_of(value: Mapping[str, Any], name: str, cure: str = "") -> str:
    given = [key for key in TEXTS if value.get(key) is not None]
    if len(given) > 1:
        # Whichever of two were read, the other would be passed over in silence.
        raise invalid(f'{name} holds both "text" and "content"; keep one', name)
    if value.get("image") is not None:
        raise invalid(f'{name} holds an image, and this server reads text: send the text alone, as "text"', name)
    found = value[given[0]] if given else None
    if given == ["content"] and isinstance(found, list):
        return _joined(found, f"{name}.content")
    if not isinstance(found, str):
        raise invalid(f'{name} must hold its text in "text" or "content"{cure}', name)
    return found


def _joined(parts: Sequence[Any], name: str) -> str:
    """vLLM's parts of a text, a line each: `{"type": "text", "text": "..."}`."""
    if not parts:
        raise invalid(f"{name} holds no part", name)
    for place, part in enumerate(parts):
        if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            of = part.get("type") if isinstance(part, Mapping) else None
            told = f" of type {of[:LONGEST_NAME]!r}" if isinstance(of, str) else ""
            wanted = 'only text is read here: {"type": "text", "text": "..."}'
            raise invalid(f"{name}[{place}] is a part{told}, and {wanted}", f"{name}[{place}]")
    return "\n".join(part["text"] for part in parts)


def unread(body: Body, known: Collection[str]) -> tuple[str, ...]:
    """Fields with a value that are not among the known ones; null asks for nothing, nor does the usual priority.

    >>> unread({"query": "tea", "threshold": 0.5, "priority": 7, "user": None}, ["query"])
    ('threshold', 'priority')
    """
    read = {*known, "model"}
    return tuple(
        name for name, value in body.items() if value is not None and name not in read and (name, value) != _USUAL
    )


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
        left_out = ", or left out" if least == 1 else ""
        raise invalid(f"{name} must be at least {least}{left_out}, not {value}", name)
    return value


def count(body: Body, name: str) -> int | None:
    """How many entries to return: absent, null and 0 mean all."""
    return whole(body, name) or None


def either(body: Body, name: str, other: str, least: int = 0) -> tuple[int | None, tuple[str, ...]]:
    """How many entries to return, by the first of two names that is given; the other where it says another number.

    No error: the schema that this server publishes takes both. Named, or it would be passed over in silence.

    >>> either({"top_n": 2, "top_k": 1}, "top_n", "top_k"), either({"top_k": 1}, "top_n", "top_k")
    ((2, ('top_k',)), (1, ()))
    """
    k, second = whole(body, name, least) or None, count(body, other)
    if body.get(name) is None:
        return second, ()
    return k, (other,) if body.get(other) is not None and k != second else ()


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
