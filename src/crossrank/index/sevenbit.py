"""Texts in encodings that use 7 bits a byte, such as ISO-2022-JP: as UTF-8 they are valid, and nonsense."""

from __future__ import annotations

import re

# What ISO-2022 writes before letters of another set: ESC, "$" or more, and the set. Terminals' colours are ESC "[", and
# their alphabets ESC "(B" and "(0", which prove nothing.
_ESCAPE = re.compile(rb"\x1b(?:\$[@AB]|\$\([CDGHOPQ]|\$\)[ACEG]|\$\*H|\([IJ]|\.[AF])")
_KOREAN = re.compile(rb"\x1b\$\)C")
# JIS X 0208 by the escapes that begin it, and its Latin letters, as mail programs and browsers write ISO-2022-JP.
_PART = re.compile(rb"\x1b(\$[@B]|\([BIJ])")
# From the strictest to the widest; each is refused by what it does not hold.
_JAPANESE = ("iso2022_jp", "iso2022_jp_2", "iso2022_jp_3", "iso2022_jp_2004", "iso2022_jp_ext")
DECLARED = frozenset({"hz", "iso2022_kr", *_JAPANESE, "iso2022_jp_1"})
"""Codecs of such encodings, by Python's names for them: the only ones that a page may name."""


def proven(raw: bytes) -> bool:
    """Whether escape sequences say that bytes are written in ISO-2022, whatever is said elsewhere.

    >>> proven("日本".encode("iso2022_jp")), proven(b"\\x1b[31mred\\x1b[0m"), proven("日本".encode())
    (True, False, False)
    """
    return raw.isascii() and _ESCAPE.search(raw) is not None


def decoded(raw: bytes, declared: str | None = None) -> str | None:
    """The text of bytes that are `proven`, or of a page in the encoding it has `declared`; None when neither reads it.

    >>> decoded("日本①".encode("iso2022_jp_3")), decoded(b"~{VPND~}", "hz")
    ('日本①', '中文')
    """
    if not raw.isascii():
        return None
    if _KOREAN.search(raw):
        names: tuple[str, ...] = ("iso2022_kr",)
    else:
        names = _JAPANESE if proven(raw) else ()
    for name in dict.fromkeys((*([declared] if declared in DECLARED else []), *names)):
        try:
            text = raw.decode(name)
        except UnicodeError:
            continue
        # Python's codecs let escapes and shifts stand that are of other sets.
        if not {"\x1b", "\x0e", "\x0f"} & set(text):
            return text
    return _as_windows_writes(raw) if "iso2022_jp" in (declared, *names) else None


def _as_windows_writes(raw: bytes) -> str | None:
    """ISO-2022-JP with the letters that Windows has beside JIS X 0208, such as "①": as bytes of its own encoding."""
    parts = _PART.split(raw)
    text = [parts[0]]
    try:
        for escape, part in zip(parts[1::2], parts[2::2], strict=True):
            if escape.startswith(b"$"):
                # A line end may stand where the set should have been left.
                text.append(re.sub(rb"[!-~]{2}", _shifted, part))
            else:
                text.append(bytes(byte | 0x80 for byte in part) if escape == b"(I" else part)
        whole = b"".join(text)
        return None if b"\x1b" in whole else whole.decode("cp932")
    except UnicodeError:
        return None


def _shifted(pair: re.Match[bytes]) -> bytes:
    """Two bytes of JIS X 0208 as those of Shift JIS."""
    row, cell = pair.group()
    lead = (row + 1) // 2 + (0x70 if row < 0x5F else 0xB0)
    if row % 2:
        return bytes((lead, cell + (0x20 if cell >= 0x60 else 0x1F)))
    return bytes((lead, cell + 0x7E))
