r"""Filters on metadata: a small language for people, compiled to SQL in which nothing of the user's is code.

    year >= 2020
    lang = en AND status != "out of print"
    lang in (en, de) AND tags has "two words"
    path = "C:\data\x" AND title = "the \"b\" side"

A value in quotes is text. A backslash in it stands for itself, but before a quote or a backslash, which then stand for
themselves.

A metadata field is stored under a key that begins with its type (`n:year`, `s:lang`), because the store's typed readers
fail on a value of another type. A filter therefore asks for the types its value could have, and compares within each.

A list or mapping is stored as its JSON text under `s:`, which filters compare as a whole, beside a true under `j:` that
says what the text stands for. Versions of crossrank that know no `j:` read the text; what they indexed is text until it
is indexed again.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from crossrank.errors import InputError
from crossrank.index.documents import KINDS, Kind, Value

_QUOTED = r"""(?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
_OPERAND = re.compile(rf"""\s*(?:{_QUOTED}|(?P<word>[^\s"'=<>!]+))""", re.DOTALL)
_ITEM = re.compile(rf"""\s*(?:{_QUOTED}|(?P<word>[^\s"'=<>!,()]+))\s*(?P<end>[,)])""", re.DOTALL)
_COMPARED = re.compile(r"\s*(<=|>=|!=|==|=|<|>)")
_LISTED = re.compile(r"\s+(not\s+)?in\s*\(", re.IGNORECASE)
_HAS = re.compile(r"""\s+has(?=[\s"'])""", re.IGNORECASE)
_AND = re.compile(r"""\s*and(?![^\s"'=<>!])""", re.IGNORECASE)
# Of a whole filter. The store parses nested terms: 64 conditions take it 0.1 s, 256 a second, and 50,000 overflow its
# stack, which ends the process.
_LONGEST, _MOST = 10_000, 64
_COLUMN = "metadata"
# Characters of what may be a number; how deep lists and mappings in a list may lie that `has` reads over.
_DIGITS, _DEEP = 400, 16
_CURE = (
    "write FIELD=VALUE (also != < <= > >=), FIELD in (A, B), or FIELD has VALUE for lists, several joined by AND; "
    'quote what has spaces: title="a b"'
)


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison.

    Attributes:
        field: the name of a metadata field.
        op: one of = != < <= > >= in "not in" has.
        value: what it is compared with; "" where these are several.
        quoted: a quoted value is a string, whatever it looks like.
        values: of "in" and "not in": each as a condition with =.
    """

    field: str
    op: str
    value: str
    quoted: bool = False
    values: tuple[Condition, ...] = ()

    @property
    def numeric(self) -> bool:
        """Whether it asks for the order of numbers, so that no text satisfies it."""
        return self.op in ("<", "<=", ">", ">=") and not self.quoted and _number(self.value) is not None


def once(where: str | Iterable[str] | None) -> str | tuple[str, ...] | None:
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


def parse(where: str | Sequence[str] | None) -> tuple[Condition, ...]:
    """The conditions of a filter, or of several, which must all hold.

    Raises:
        InputError: it cannot be understood, or there is too much of it.

    >>> parse('year>=2020 AND title = "a b"')[1]
    Condition(field='title', op='=', value='a b', quoted=True, values=())
    """
    kept = once(where)
    parts = (kept,) if isinstance(kept, str) else kept or ()
    length = sum(map(len, parts))
    if length > _LONGEST:
        raise InputError(f"a filter may have {_LONGEST:,} characters, not {length:,}; leave out conditions")
    conditions = tuple(condition for part in parts for condition in _parse(part))
    if (count := sum(max(1, len(condition.values)) for condition in conditions)) > _MOST:
        raise InputError(f"a filter may have {_MOST} conditions, not {count:,}; leave some out")
    return conditions


def _parse(where: str) -> list[Condition]:
    if not where.isascii() and any("\ud800" <= letter <= "\udfff" for letter in where):
        raise InputError(f"the filter {where!r} holds half of a surrogate pair, so it is no text; leave it out")
    text, at, conditions = where.rstrip(), 0, list[Condition]()
    while at < len(text):
        if conditions:
            at = _found(_AND, text, at).end()
        condition, at = _condition(text, at)
        conditions.append(condition)
    if not conditions:
        raise InputError(f"a filter is empty: {_CURE}")
    return conditions


def _condition(text: str, at: int) -> tuple[Condition, int]:
    """The condition that begins there, and where it ends."""
    name = _found(_OPERAND, text, at)
    field, at = _value_of(name)[0], name.end()
    if listed := _LISTED.match(text, at):
        at, values = listed.end(), list[Condition]()
        while not values or text[at - 1] != ")":
            item = _found(_ITEM, text, at)
            values.append(Condition(field, "=", *_value_of(item)))
            at = item.end()
        return Condition(field, "not in" if listed[1] else "in", "", values=tuple(values)), at
    found = _HAS.match(text, at) or _found(_COMPARED, text, at)
    op = "has" if found.re is _HAS else found[1]
    value = _found(_OPERAND, text, found.end())
    return Condition(field, "=" if op == "==" else op, *_value_of(value)), value.end()


def _found(pattern: re.Pattern[str], text: str, at: int) -> re.Match[str]:
    found = pattern.match(text, at)
    if found is None:
        rest = text[at:].lstrip()[:20]
        raise InputError(f"the filter {text!r} is not understood{f' at {rest!r}' if rest else ''}: {_CURE}")
    return found


def _value_of(found: re.Match[str]) -> tuple[str, bool]:
    """What stands there, and whether it is quoted."""
    if (quoted := found["quoted"]) is not None:
        return re.sub(r"\\([\\\"'])", r"\1", quoted[1:-1]), True
    return found["word"], False


def to_sql(conditions: Sequence[Condition]) -> str | None:
    """The predicate for the store; None when there is nothing to ask.

    `=` compares with strings, and with numbers or booleans when the value looks like one. The orders compare numbers
    with a value that looks like a number, and strings (by code point, so that ISO dates work) with any other. `in` is
    `=` with any of its values, and `has` asks for a list with such an element. A missing field satisfies only `!=` and
    `not in`. Whole numbers of 64 bits compare exactly, but the last 512 below 2**63 are one.
    """
    return " AND ".join(f"({_predicate(condition)})" for condition in conditions) or None


def mistake(where: str | Sequence[str], has_field: Callable[[str, Iterable[Kind]], bool]) -> str | None:
    """What is likely wrong with a filter that no passage satisfies; None when nothing stands out.

    Args:
        where: as for `parse`.
        has_field: `Index.has_field`.

    >>> print(mistake("date>=2024", lambda field, kinds: "s" in kinds))
    no value of 'date' is a number: compare dates as text, date>="2024"; numbers have to be indexed as numbers
    """
    conditions = parse(where)
    for condition in conditions:
        if condition.op in ("!=", "not in"):  # A passage without the field satisfies it, too.
            continue
        field, asked = condition.field, f"{condition.field}{condition.op}"
        if not has_field(field, KINDS):
            return f"no passage has a value in the field {field!r}"
        if condition.op in ("in", "has"):
            continue
        if condition.numeric and not has_field(field, ("n",)):
            # Numbers that are text have another order, "100" before "9".
            dates = f'compare dates as text, {asked}"{condition.value}"'
            return f"no value of {field!r} is a number: {dates}; numbers have to be indexed as numbers"
        if condition.quoted and not has_field(field, ("s",)):
            return f"no value of {field!r} is text{_without_quotes(condition)}"
        if condition.quoted and _number(condition.value) is not None and has_field(field, ("n",)):
            return f"numbers in {field!r} are compared without the quotes: {asked}{condition.value}"
    if len(conditions) == 1 and conditions[0].op == "=" and has_field(conditions[0].field, ("s",)):
        field, value = conditions[0].field, conditions[0].value
        return (
            f"perhaps no passage has {field}={value} as a whole; where the value is a list, write: {field} has {value}"
        )
    return None


def _without_quotes(condition: Condition) -> str:
    """The cure for the quotes of a number, true or false; nothing else would mean more without them."""
    more = _number(condition.value) is not None or condition.value.lower() in ("true", "false")
    return f", so leave out the quotes: {condition.field}{condition.op}{condition.value}" if more else ""


def has_value(field: str, kinds: Iterable[Kind]) -> str:
    """The predicate for passages that have a value of one of these kinds in this field."""
    return " OR ".join(f"{_value(kind, field)} IS NOT NULL" for kind in kinds)


def _value(kind: Kind, field: str, column: str = _COLUMN, reader: str = "") -> str:
    """The value of a field where it is of the kind, else NULL; `reader` is the store's, instead of the usual one."""
    return f"json_get_{reader or _READERS[kind]}({column}, {literal(f'{kind}:{field}')})"


def _predicate(condition: Condition) -> str:
    if condition.values:
        either = " OR ".join(f"({_predicate(one)})" for one in condition.values)
        return f"({either}) = {'true' if condition.op == 'in' else 'false'}"
    if condition.op == "has":
        return _holds(condition)
    number = None if condition.quoted else _number(condition.value)
    text, boolean = _value("s", condition.field), _value("b", condition.field)
    if condition.op in ("=", "!="):
        equal = [f"{text} = {literal(condition.value)}"]
        if number is not None:
            equal.append(_numeric("=", number, condition.field))
        if not condition.quoted and condition.value.lower() in ("true", "false"):
            equal.append(f"{boolean} = {condition.value.lower()}")
        return f"coalesce({' OR '.join(equal)}, false) = {'true' if condition.op == '=' else 'false'}"
    if number is not None:
        return _numeric(condition.op, number, condition.field)
    return f"{text} {condition.op} {literal(condition.value)}"


def _holds(condition: Condition) -> str:
    """Whether a list has an element, by its JSON text: a regular expression that reads it element by element."""
    elements = [json.dumps(condition.value, ensure_ascii=False)]
    if not condition.quoted:
        number = _number(condition.value)
        if number is not None:
            elements += _spelled(number, condition.value)
        if condition.value.lower() in ("true", "false"):
            elements.append(condition.value.lower())
    wanted = "|".join("".join(f"\\x{{{ord(letter):x}}}" for letter in element) for element in elements)
    string = r'"(?:[^"\\]|\\.)*"'
    inside = string
    for _ in range(_DEEP):
        inside = rf'{string}|[\[{{](?:[^"\[\]{{}}]|{inside})*[\]}}]'
    other = rf'(?:[^",\[\]{{}}]+|{inside})'
    pattern = rf"^\[(?:{other}, )*(?:{wanted})(?:, {other})*\]$"
    listed = f"json_get_bool({_COLUMN}, {literal(f'{_NESTED}{condition.field}')})"
    return f"coalesce({listed} AND regexp_like({_value('s', condition.field)}, {literal(pattern)}), false)"


def _spelled(number: float, typed: str) -> list[str]:
    """How JSON may spell a number that is equal to this one."""
    if number == 0:
        return ["0", "0.0", "-0.0"]
    # All its digits, which a float may not have; the float beside it is another number then.
    exact = int(typed) if re.fullmatch(r"[+-]?\d+", typed) else number
    return [
        *([repr(float(number))] if float(number) == exact else []),
        *([str(int(exact))] if exact == int(exact) else []),
    ]


def _numeric(op: str, number: float, field: str) -> str:
    """The comparison of numbers, exact for an int; it is then of at least 2**53, from where on floats are whole."""
    as_float = _value("n", field)
    if not isinstance(number, int):
        return f"{as_float} {op} {number!r}"
    # The reader of ints fails on a float beyond 64 bits, whatever condition stands around it; so it is given NULL.
    beyond = f"({as_float} >= {2.0**63!r} OR {as_float} < {-(2.0**63)!r})"
    as_int = _value("n", field, f"CASE WHEN {beyond} THEN NULL ELSE {_COLUMN} END", "int")
    return f"({as_int} {op} {number} OR {beyond} AND {as_float} {op} {float(number)!r})"


def _number(text: str) -> float | None:
    """The number that a value looks like; an int where a float, with its 53 bits, would take others for equal."""
    # Python refuses to read more than 4,300 digits, and no number that is stored has so many.
    if len(text) > _DIGITS or not re.fullmatch(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", text):
        return None
    value = float(text)
    # The float of 2**53 + 1 is 2**53.
    if 2**53 <= abs(value) < 2**64 and re.fullmatch(r"[+-]?\d+", text) and abs(int(text)) < 2**63:
        return int(text)
    return value if math.isfinite(value) else None


def literal(text: str) -> str:
    """A string of SQL that stands for exactly this text.

    >>> literal("it's")
    "'it''s'"
    """
    return "'" + text.replace("'", "''") + "'"


def one_of(column: str, values: Sequence[str]) -> str:
    """The predicate for rows with one of these strings in a column.

    >>> one_of("id", ["a", "b"])
    "id IN ('a', 'b')"
    """
    return f"{column} IN ({', '.join(map(literal, values))})"


# The store's typed reader for each kind of value.
_READERS: dict[Kind, str] = {"s": "string", "n": "float", "b": "bool"}
_TAGS = {str: "s", bool: "b", int: "n", float: "n", type(None): "z"}
_COPIES = 2**28
"""Bytes that the metadata of one document may take in all its passages."""
_NESTED = "j:"
"""Before "s:" in order: a version that does not know it takes the last value that it reads of a field."""


def encode_metadata(metadata: Mapping[str, Value]) -> str:
    """Metadata as the store holds it: JSON, each key tagged with the type of its value.

    >>> encode_metadata({"year": 2020, "tags": [1]})
    '{"n:year": 2020, "j:tags": true, "s:tags": "[1]"}'
    """
    stored: dict[str, Value] = {}
    for key, value in metadata.items():
        if isinstance(value, (list, dict)):
            stored[f"{_NESTED}{key}"] = True
            value = json.dumps(value, ensure_ascii=False)
        stored[f"{_TAGS[type(value)]}:{key}"] = value
    return json.dumps(stored, ensure_ascii=False)


def crowded(metadata: Mapping[str, Value], passages: int) -> str | None:
    """Why a document's metadata cannot be stored with each of so many passages; None when they can.

    Passages of one document go in one commit, whose rows are in memory and whose columns end at 2 GB.
    """
    size = len(encode_metadata(metadata).encode())
    if size * passages <= _COPIES:
        return None
    return (
        f"its metadata of {size:,} bytes would be stored with each of its {passages:,} passages: leave out the longest "
        "fields, or split the document"
    )


def decode_metadata(stored: str) -> dict[str, Value]:
    """What `encode_metadata` was given; the keys come back in the order of their types and names."""
    held = json.loads(stored)
    return {
        key[2:]: json.loads(value) if f"{_NESTED}{key[2:]}" in held else value
        for key, value in held.items()
        if not key.startswith(_NESTED)
    }
