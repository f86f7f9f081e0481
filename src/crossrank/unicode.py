"""Text as UTF-8 can hold it, and whether any of it shows. All parts ask this first, so that they read the same."""

from __future__ import annotations

from unicodedata import category


def valid_text(text: str) -> str:
    """The text, each half of a surrogate pair (which JSON can smuggle in and no file format can hold) as U+FFFD.

    >>> valid_text("par\\ud800is")
    'par\ufffdis'
    """
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def is_blank(text: str) -> bool:
    """Whether nothing in a text shows; control and format characters such as U+200B do no more than white space.

    >>> is_blank(" \\u200b\\n"), is_blank("tea")
    (True, False)
    """
    return all(character.isspace() or category(character) in ("Cc", "Cf") for character in text)
