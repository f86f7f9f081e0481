"""Text as UTF-8 can hold it. Readers, indexes and tokenizers all ask this first, so that they read the same."""

from __future__ import annotations


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
