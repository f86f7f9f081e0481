"""Do texts stay about as long as they are? What is asked of a tokenizer.json before any of it runs.

Each step of a tokenizer may put several characters in the place of one, and the next step several in the place of each
of these. So a file of two kilobytes can take all memory at its first text, which ends the process: the library that
runs the steps raises nothing that could be caught.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any
from unicodedata import normalize

from tokenizers import Tokenizer, normalizers

from crossrank.errors import CheckpointError

# Characters in the place of one. XLM-R's steps have 36: the longest form of one character in NFKC is 18, and a space
# may be put before it.
MOST = 64.0
# Steps of one kind, pieces of a template, tokens in the place of one piece.
STEPS = 100
# Ids and token types are 32 bits wide, one of them the sign.
HIGHEST = 2**31 - 1
CURE = "Use the tokenizer of the model's authors."
PARTS = ("normalizer", "pre_tokenizer", "decoder")
NESTED = ("normalizers", "pretokenizers", "decoders", "processors")
# A regular expression that surely matches no empty text: one character or class, perhaps several times, as " {2,}".
SOLID = re.compile(r"(?:[^\\.|()\[\]{}*+?^$]|\\[sSdDwWnrt])(?:\+|\{[1-9][0-9]*,?[0-9]*\})?")

# Characters in the place of one, of steps whose fields do not say so: the longest forms in Unicode, and "i̇" for "İ".
FORMS = {"NFC": 3.0, "NFD": 4.0, "NFKC": 18.0, "NFKD": 18.0, "Lowercase": 2.0}
# What stands for a space in vocabularies of SentencePiece.
SPACE = "\u2581"


def check(stated: Any, where: str) -> None:
    """Refuse a tokenizer.json whose steps could make a text many times as long, whose frame has no bounds or names
    what is not there, or whose numbers no model reads.

    Args:
        stated: what the file holds.
        where: the file, for messages.

    Raises:
        CheckpointError: it does, or its steps cannot be read.

    >>> check({"normalizer": {"type": "Prepend", "prepend": "_"}}, "tokenizer.json")
    """
    try:
        for part in PARTS:
            steps = list(_steps(stated.get(part)))
            if len(steps) > STEPS or math.prod(map(_growth, steps)) > MOST:
                raise CheckpointError(
                    f"the {part} of {where} could make a text over {MOST:.0f} times as long, or has over {STEPS} steps:"
                    f" it would take all memory. {CURE}"
                )
        for step in _steps(stated.get("post_processor")):
            _check_frame(step, where)
        if max(_numbers(stated), default=0) > HIGHEST:
            raise CheckpointError(f"{where} has an id or a token type over {HIGHEST:,}, which no model reads. {CURE}")
    except CheckpointError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{where} is damaged ({error!r}). Download or copy it again.") from error


def tokens_a_character(tokenizer: Tokenizer, plain: bool = False) -> float:
    """How many tokens a text has for each of its characters, at the most; special tokens are left out.

    A token has a character at least of what the steps make of a text, or a byte. But they may make several of one: in
    bytes "🦄" has four tokens, "ﷺ" has 18 letters and "한" has three.

    Args:
        tokenizer: its steps are known to be bounded, see `check`.
        plain: the texts are ASCII, which most steps leave as long as it is.

    >>> from tokenizers import models, pre_tokenizers
    >>> made = Tokenizer(models.BPE())
    >>> made.pre_tokenizer = pre_tokenizers.ByteLevel()
    >>> tokens_a_character(made), tokens_a_character(made, plain=True)
    (5.0, 2.0)
    """
    parts = [part for part in (tokenizer.normalizer, tokenizer.pre_tokenizer) if part is not None]
    steps = [step for part in parts for step in _steps(json.loads(part.__getstate__()))]
    # BPE says whether it takes characters that it lacks for their bytes, and Unigram does not.
    bytewise = getattr(tokenizer.model, "byte_fallback", type(tokenizer.model).__name__ == "Unigram")
    if plain and all(map(_stays_plain, steps)) and not (bytewise and tokenizer.token_to_id(SPACE) is None):
        return math.prod(map(_plain_growth, steps))
    return math.prod(_growth(step) * _forms(step) for step in steps) * (4.0 if bytewise else 1.0)


def _forms(step: dict[str, Any]) -> float:
    if step.get("lowercase") or step.get("strip_accents"):
        return FORMS["NFD"] * FORMS["Lowercase"]
    return FORMS.get(step.get("type", ""), 1.0)


def _plain_growth(step: dict[str, Any]) -> float:
    """As `_growth`, of characters in ASCII: they have a byte each, no accent and no other form, and none is Chinese."""
    if step.get("precompiled_charsmap") is not None:
        return max(1.0, *(float(len(text)) for text in _ascii_mapped(step)))
    if step.get("type") == "ByteLevel":
        return 2.0
    return 1.0 if step.get("handle_chinese_chars") is not None else _growth(step)


def _stays_plain(step: dict[str, Any]) -> bool:
    """Whether ASCII stays so in this step, but for what stands for a space."""
    put = [step.get(name) or "" for name in ("content", "prepend", "suffix", "replacement")]
    if step.get("precompiled_charsmap") is not None:
        put += _ascii_mapped(step)
    return all(text.replace(SPACE, "").isascii() for text in put)


def _ascii_mapped(step: dict[str, Any]) -> list[str]:
    """What SentencePiece's table puts for each character in ASCII, and for the one pair that is read whole."""
    table = normalizers.Precompiled(base64.b64decode(step["precompiled_charsmap"]))
    return [table.normalize_str(text) for text in (*map(chr, range(128)), "\r\n", SPACE)]


def _steps(step: Any) -> Iterator[dict[str, Any]]:
    """A step and those that are nested in it. Kinds are told by their fields, as the library does without a type."""
    if step is not None:
        yield step
        for name in NESTED:
            for inner in step.get(name, ()):
                yield from _steps(inner)


def _growth(step: dict[str, Any]) -> float:
    """How many characters may stand in the place of one after this step."""
    kinds: dict[str, Callable[[Any], float]] = {
        "content": lambda text: _replaced(step.get("pattern"), text),
        "prepend": lambda text: 1.0 + _length(text),
        "precompiled_charsmap": _mapped,
        # A space to either side of a character.
        "handle_chinese_chars": lambda _: 3.0,
        # A space before each word, and words may be characters.
        "replacement": lambda _: 2.0,
        "suffix": lambda _: 2.0,
        "word_delimiter_token": lambda _: 2.0,
        # A character for each byte, and a space before them.
        "type": lambda name: 5.0 if name == "ByteLevel" else 1.0,
    }
    return math.prod(grows(step[name]) for name, grows in kinds.items() if step.get(name) is not None)


def _replaced(pattern: dict[str, str] | None, text: str) -> float:
    if pattern is None:
        return 1.0
    literal, expression = pattern.get("String", ""), pattern.get("Regex", "")
    if literal or SOLID.fullmatch(expression):
        return max(1.0, _length(text) / max(1, len(literal)))
    return 1.0 + _length(text)  # What matches nothing at all matches before every character.


def _mapped(charsmap: str) -> float:
    """The longest text of SentencePiece's table: four bytes of a size, a trie of that size, texts that end with 0."""
    raw = base64.b64decode(charsmap)
    texts = raw[4 + int.from_bytes(raw[:4], "little") :].split(b"\0")
    return float(max(1, *(_length(text.decode("utf-8", "ignore")) for text in texts), 1))


def _length(text: str) -> int:
    """Characters of a text, also after a step that takes them apart."""
    return len(normalize("NFKD", text))


def _check_frame(step: dict[str, Any], where: str) -> None:
    """Refuse a template of special tokens around texts that is long, or that has a text twice."""
    special = step.get("special_tokens", {})
    for template in (step.get("single", ()), step.get("pair", ())):
        texts = [piece["Sequence"]["id"] for piece in template if "Sequence" in piece]
        if len(template) > STEPS or len(set(texts)) < len(texts):
            raise CheckpointError(f"the post_processor of {where} repeats a text, or has over {STEPS} pieces. {CURE}")
        named = [piece["SpecialToken"]["id"] for piece in template if "SpecialToken" in piece]
        if missing := set(named) - set(special):
            raise CheckpointError(f"the post_processor of {where} does not say which id {min(missing)!r} has. {CURE}")
    if any(len(token["ids"]) > STEPS for token in special.values()):
        raise CheckpointError(f"{where} puts over {STEPS} special tokens in one place. {CURE}")


def _numbers(stated: dict[str, Any]) -> Iterator[int]:
    """The ids and token types that stand in a tokenizer.json, of the vocabulary's the highest."""
    words = (stated.get("model") or {}).get("vocab")
    if isinstance(words, dict):
        yield max(words.values(), default=0)
    yield from (token["id"] for token in stated.get("added_tokens") or ())
    for step in _steps(stated.get("post_processor")):
        for piece in (*step.get("single", ()), *step.get("pair", ())):
            yield from (part["type_id"] for part in piece.values())
        for token in step.get("special_tokens", {}).values():
            yield from token["ids"]
        yield from (step[name][1] for name in ("cls", "sep") if name in step)
