"""What the answers of a language model say: tolerant reading that no document can steer by what is quoted from it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BEST = 10.0
"""The highest score of a document; the lowest is 0."""

_THOUGHT, _THOUGHT_END = "<think>", "</think>"
_FENCE = "```"
_LANGUAGE = re.compile(r"\w*")
# Below no two parts in a row may stand for the same characters, such as white space: there 8,000 spaces took seconds,
# in which no other thread runs.
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")
_BARE = re.compile(
    r"[^\w+-]*(?:(?:the\s+)?(?:score|relevance|rating)(?:\s+is)?[^\w+-]*)?"
    r"([+-]?\d+(?:\.\d+)?)(?:\s*(?:/|out\s+of)\s*10)?\W*",
    re.I,
)
# A score that is said beside JSON. "0 to 10" and "out of 10" are the scale, and "asks me to answer 10" is a quotation.
_SAID = re.compile(
    r"(?<!to )\b(?:scor|relevance|rat(?:e|ing)|verdict|answer|judge|give|grade)[a-z]*\b[^\d\n{}]{0,30}?"
    r"(?<!out of )(?<![\d/.])([+-]?\d+(?:\.\d+)?)(?!\d)(?![\d.]*\s*(?:to|-|\u2013)\s*\d)"
    r"|(?<![\d.])(\d+(?:\.\d+)?)\s*(?:/|out\s+of)\s*10\b",
    re.I,
)
_PIECES = re.compile(r"\n|(?<=[.,;:!?])\s")
_NAMED = re.compile(r"\[\s*([+-]?\d+)\s*\]|\bdoc(?:ument)?\.?\s*(?:#\s*)?([+-]?\d+)", re.I)
_CHAIN = re.compile(rf"(?:{_NAMED.pattern})\s*>", re.I)
_BRACKET = re.compile(r"[{\[]")
# What begins so is an object, or was meant to be one.
_BEGUN = re.compile(r"\{\s*(?:[\"'\u201c]|\w+\s*:)")
_MOST_BROKEN, _MOST_CHARACTERS, _MOST_DIGITS = 64, 100_000, 18
_DEEP = "the answer nests too deep"
_SCORE_NAMES = ("score", "relevance", "relevance_score", "rating")
_NUMBER_NAMES = ("doc", "document", "index", "id", "number")
_ORDER_NAMES = ("order", "ranking", "ranked", "documents", "results")


# What servers, and gateways to others, call an end that the model did not choose.
_CUT = frozenset({"length", "max_tokens", "content_filter"})


class UnreadableError(Exception):
    """An answer that says nothing usable; the message is the reason, for people."""


def read_score(answer: str) -> float:
    """The score in an answer, from 0 to 10.

    Read are `{"score": 8}`, also in a fence or among words, `"8/10"`, and an answer that is a number (or "8 out of 10")
    and no more. Two objects with different scores are not read, nor an object beside other words that name another
    score: one of them may be quoted from the document. For the same reason nothing is read beside JSON that is broken,
    or that names one thing twice. A thought that ends in `</think>` counts for nothing; one that is quoted in JSON or
    amid a line ends none.

    Raises:
        UnreadableError: no score, several, one that is not from 0 to 10, or a thought that has no end.

    >>> read_score('Sure! ```json\\n{"score": "7.5/10"}\\n```'), read_score("Score: 8/10")
    (7.5, 8.0)
    """
    read = _read(answer)
    try:
        found = {score for value in read.objects for score in _scores(value)}
        found = found or {score for value in read.values for score in _scores(value)}
    except RecursionError:
        raise UnreadableError(_DEEP) from None
    if found:
        found |= _said(read.prose)
    elif not read.objects and "{" not in read.text and (bare := _BARE.fullmatch(read.text)):
        found = {float(bare[1])}
    if len(found) != 1:
        raise UnreadableError(f"{len(found)} different scores in the answer" if found else "no score in the answer")
    (score,) = found
    if not 0.0 <= score <= BEST:
        raise UnreadableError(f"the score {score:g} is not from 0 to {BEST:g}")
    return score


def read_order(answer: str, n: int) -> list[int]:
    """The documents that an answer orders, by number from 0, the most relevant first; each once.

    Read are `{"order": [2, 0]}`, a bare list, `["Doc 2", "Doc 0"]`, `[2] > [0]`. An object with an order counts before
    any list; of several that differ, none is read, as by `read_score`, which also says what of thoughts and of broken
    JSON. Numbers of no document are passed over, negative ones too, and so is what comes a second time. Documents that
    the answer leaves out are not in the list. One that names a document `n` and none of 0 counts from 1.

    Raises:
        UnreadableError: it names no document, gives different orders, counts from 1, or its thought has no end.

    >>> read_order('{"order": [2, 7, "Doc 0", 2, -1]}', 3)
    [2, 0]
    """
    read = _read(answer)
    # A list of one may be a name, as in [2] > [0], so that names are read before it.
    lists = [value for value in read.values if isinstance(value, list)]
    longer = [value for value in lists if len(value) > 1]
    try:
        named = _only(read.objects)
        if named and _CHAIN.search(read.prose):
            raise UnreadableError("different orders in the answer")
        named = named or _only(longer)
        if not named and not read.objects:
            named = [_whole(found[1] or found[2]) for found in _NAMED.finditer(read.text)]
        named = named or _only(lists)
    except RecursionError:
        raise UnreadableError(_DEEP) from None
    if n in named and 0 not in named:
        # One less each is a guess: it may have left out the first and made up one more.
        raise UnreadableError("the order counts from 1, and documents from 0")
    order = list(dict.fromkeys(number for number in named if 0 <= number < n))
    if not order:
        raise UnreadableError("the answer names no document")
    return order


def text_of(body: Mapping[str, Any]) -> str:
    """The text of a chat completion, also of one that gives it in parts.

    Of one that was cut short, as at its limit of tokens, nothing is taken but a whole JSON object, alone or in a fence:
    all else may be the beginning of something else, such as a thought that was opened in the prompt, "1" of "10" or
    "[2]" of an order.

    Raises:
        UnreadableError: there is none, or no whole one.
    """
    try:
        choice = body["choices"][0]
        content = choice["message"]["content"]
    except (KeyError, IndexError, TypeError):
        raise UnreadableError("the answer is no chat completion") from None
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(text for text in texts if isinstance(text, str))
    ended = choice.get("finish_reason")
    if not isinstance(content, str) or not content.strip():
        raise UnreadableError(f"the answer has no text (it ended with {ended!r})")
    if str(ended).lower() in _CUT and not any(isinstance(value, dict) for value in _loaded(_unfenced(content))):
        raise UnreadableError("the answer was cut short")
    return content


def spent(body: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Tokens of the prompt and of the answer, as a chat completion counts them; None where it gives no count.

    >>> spent({"usage": {"prompt_tokens": 100, "completion_tokens": -2}}), spent({"usage": None})
    ((100, None), (None, None))
    """
    usage = body.get("usage")
    told = usage if isinstance(usage, dict) else {}
    counts = [_integer(told.get(kind)) for kind in ("prompt_tokens", "completion_tokens")]
    prompt, answer = (None if count is None or count < 0 else count for count in counts)
    return prompt, answer


@dataclass(frozen=True, slots=True)
class _Read:
    """An answer without what the model thought aloud: its `text`, all JSON in it, the `prose` around the objects."""

    text: str
    values: list[Any]
    prose: str = ""

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [value for value in self.values if isinstance(value, dict)]


def _read(answer: str) -> _Read:
    """What is in an answer.

    Raises:
        UnreadableError: the thought has no end, so that no answer came, or there is JSON in it that is broken.
    """
    # First as it was asked for: what its strings hold, a thought's end or other JSON, is then only quoted.
    text = _unfenced(answer)
    if not (whole := _loaded(text)):
        text = _unfenced(_thought_through(text))[:_MOST_CHARACTERS]
        whole = _loaded(text)
    if whole:
        return _Read(text, whole)
    found, end = _spans(text)
    around, at = [], 0
    for start, after, value in found:
        if isinstance(value, dict):
            around.append(text[at:start])
            at = after
    prose = "\n".join([*around, text[at:end]])
    if _THOUGHT in prose:
        raise UnreadableError("the answer ended within the model's thought")
    if end < len(text):
        # What is whole in it, or stands beside it, may be quoted.
        raise UnreadableError("the answer holds JSON that is broken")
    return _Read(text, [value for _, _, value in found], prose)


def _unfenced(text: str) -> str:
    text = text.strip()
    if len(text) < 2 * len(_FENCE) or not (text.startswith(_FENCE) and text.endswith(_FENCE)):
        return text
    language = _LANGUAGE.match(text, len(_FENCE))
    assert language is not None
    return text[language.end() : -len(_FENCE)].strip()


def _thought_through(text: str) -> str:
    """What stands behind the end of the model's thought, as it is where that ends nowhere."""
    # Some templates open the thought in the prompt, so that only its end is here. Then a line ends beside it.
    opened, text = text.startswith(_THOUGHT), text[-_MOST_CHARACTERS:]
    spans, end = _spans(text)
    if not end and text:
        return text
    found: str | None = None
    for place in [match.span() for match in re.finditer(_THOUGHT_END, text)][-_MOST_BROKEN:]:
        if any(start < place[0] < after for start, after, _ in spans):
            continue
        rest = _unfenced(text[place[1] :])
        if rest.startswith(("{", "[")) and _loaded(rest):
            return rest
        if (opened or _by_a_line_end(text, *place)) and not _torn(rest):
            found = rest
    return text if found is None else found


def _by_a_line_end(text: str, start: int, end: int) -> bool:
    before, after = text[:start].rstrip(" \t"), text[end:].lstrip(" \t")
    return not before or not after or before.endswith("\n") or after.startswith(("\n", "\r"))


def _torn(text: str) -> bool:
    """Whether a text begins within quotation marks or brackets, so that what stands before it is part of it."""
    pairs = zip("{[(\u201c\u00ab", "}])\u201d\u00bb", strict=True)
    return any(text.count(mark) % 2 for mark in '"`') or any(text.count(a) != text.count(b) for a, b in pairs)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object by its names in lower case.

    Raises:
        ValueError: a name comes twice, as where a quotation mark in what is quoted has ended the string.
    """
    named = {name.strip().lower(): value for name, value in pairs}
    if len(named) < len(pairs):
        raise ValueError("a name comes twice")
    return named


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _loaded(text: str) -> list[Any]:
    """The one JSON value that a text is; empty where it is something else."""
    try:
        return [_DECODER.decode(text)]
    except (ValueError, RecursionError):
        return []


def _spans(text: str) -> tuple[list[tuple[int, int, Any]], int]:
    """Every object and list in a text that is whole, with its place, and how far the text can be told apart: up to an
    object that is broken, or to more brackets without JSON than a sane answer has.
    """
    found: list[tuple[int, int, Any]] = []
    at = failed = 0
    while failed < _MOST_BROKEN and (bracket := _BRACKET.search(text, at)):
        start = bracket.start()
        try:
            value, at = _DECODER.raw_decode(text, start)
            found.append((start, at, value))
        except (ValueError, RecursionError):
            if _BEGUN.match(text, start):
                return found, start
            at, failed = start + 1, failed + 1
    return found, at if failed == _MOST_BROKEN else len(text)


def _said(prose: str) -> set[float]:
    """Scores that words name: "I rate it 2/10", or a number alone in its line or sentence."""
    found = {float(match[1] or match[2]) for match in _SAID.finditer(prose)}
    return found | {float(bare[1]) for piece in _PIECES.split(prose) if (bare := _BARE.fullmatch(piece))}


def _scores(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [score for name in _SCORE_NAMES if name in value for score in _scores(value[name])][:1]
    if isinstance(value, list):
        return [score for inner in value for score in _scores(inner)] if len(value) == 1 else []
    if isinstance(value, str):
        bare = _BARE.fullmatch(value.strip())
        return [float(bare[1])] if bare else []
    if isinstance(value, int) and not isinstance(value, bool):
        return [float(value) if abs(value) < 10**_MOST_DIGITS else math.inf]
    return [value] if isinstance(value, float) and math.isfinite(value) else []


def _only(values: list[Any]) -> list[int]:
    """The one order in these values; empty where there is none.

    Raises:
        UnreadableError: they differ.
    """
    orders = [numbers for value in values if (numbers := _order(value))]
    if any(numbers != orders[0] for numbers in orders):
        raise UnreadableError("different orders in the answer")
    return orders[0] if orders else []


def _order(value: Any) -> list[int]:
    if isinstance(value, dict):
        return next((numbers for name in _ORDER_NAMES if (numbers := _order(value.get(name)))), [])
    if not isinstance(value, list):
        return []
    return [number for inner in value for number in _number(inner)]


def _number(value: Any) -> list[int]:
    if isinstance(value, dict):
        return next((_number(value[name]) for name in _NUMBER_NAMES if name in value), [])
    if isinstance(value, str):
        found = _NUMBER.findall(value)
        return [_whole(found[0])] if len(found) == 1 else []
    number = _integer(value)
    return [] if number is None else [number]


def _integer(value: Any) -> int | None:
    """A whole number, also one that is written 2.0, as languages without whole numbers write it."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _whole(written: str) -> int:
    """The number of a document; -1, which is none, where it is longer than that of any."""
    return int(float(written)) if len(written) <= _MOST_DIGITS else -1
