"""Texts in encodings that use 7 bits a byte, such as ISO-2022-JP: as UTF-8 they are valid, and nonsense."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache

# What ISO-2022 writes before letters of another set: ESC, "$" or more, and the set. Terminals' colours are ESC "[", and
# their alphabets ESC "(B" and "(0", which prove nothing.
_ESCAPE = re.compile(rb"\x1b(?:\$[@AB]|\$\([CDGHOPQ]|\$\)[ACEG]|\$\*H|\([IJ]|\.[AF])")
_KOREAN = re.compile(rb"\x1b\$\)C")
_LONGEST = 3  # of an escape sequence, but for its last byte
# The 63 letters of JIS X 0201 beside the Latin ones, as in Shift JIS; 0xFF is none.
_KANA = bytes(byte if byte < 0x21 else byte | 0x80 if byte < 0x60 else 0xFF for byte in range(256))
_BYTES_AT_ONCE = 2**16
# From the strictest to the widest; each is refused by what it does not hold.
_JAPANESE = ("iso2022_jp", "iso2022_jp_2", "iso2022_jp_3", "iso2022_jp_2004", "iso2022_jp_ext")
DECLARED = frozenset({"hz", "iso2022_kr", *_JAPANESE, "iso2022_jp_1"})
"""Codecs of such encodings, by Python's names for them: the only ones that a page may name."""


def proven(pieces: Iterable[bytes]) -> bool:
    """Whether escape sequences say that bytes, given in pieces, are written in ISO-2022, whatever is said elsewhere.

    >>> proven(["日本".encode("iso2022_jp")]), proven([b"\\x1b[31mred\\x1b[0m"]), proven(["日本".encode()])
    (True, False, False)
    """
    found, before = False, b""
    for piece in pieces:
        if not piece.isascii():
            return False
        found = found or _ESCAPE.search(before + piece) is not None
        # A sequence may begin at the end of a piece.
        before = (before + piece)[-_LONGEST:]
    return found


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
        names = _JAPANESE if proven([raw]) else ()
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
    """ISO-2022-JP with the letters that Windows has beside JIS X 0208, such as "①".

    A page may change sets at every letter, so pieces of bounded size are taken apart, and what is of one set is read
    together.
    """
    begin = raw.find(b"\x1b") if b"\x1b" in raw else len(raw)
    text = [raw[:begin].decode("ascii")]
    try:
        while begin < len(raw):
            end = raw.find(b"\x1b", begin + _BYTES_AT_ONCE)
            end = end if end > 0 else len(raw)
            text.append(_piece(raw[begin + 1 : end].split(b"\x1b")))
            begin = end
    except UnicodeError:
        return None
    return "".join(text)


def _piece(parts: Sequence[bytes]) -> str:
    """The text of parts that each begin with an escape sequence, without its ESC.

    Raises:
        UnicodeError: not a set of ISO-2022-JP, or letters that Windows does not have.
    """
    by_set: dict[bytes, list[bytes]] = {}
    for part in parts:
        by_set.setdefault(part[:2], []).append(part[2:])
    if len(by_set) == 1:
        return "".join(_of_one_set(parts[0][:2], by_set[parts[0][:2]]))
    texts = {escape: iter(_of_one_set(escape, held)) for escape, held in by_set.items()}
    return "".join([next(texts[part[:2]]) for part in parts])


def _of_one_set(escape: bytes, parts: Sequence[bytes]) -> list[str]:
    """The texts of parts in one set; ESC, which none of them holds, keeps them apart."""
    if escape in (b"$@", b"$B"):
        # Two bytes are one letter, as in UTF-16. A line end may stand where the set should have been left.
        together = b"\0\x1b".join(parts)
        for blank in (b"\n", b"\r", b"\t", b" "):
            together = together.replace(blank, b"\0" + blank)
        text = together.decode("utf-16-be").translate(_windows())
    elif escape == b"(I":
        text = b"\x1b".join(parts).translate(_KANA).decode("shift_jis")
    elif escape in (b"(B", b"(J"):
        text = b"\x1b".join(parts).decode("ascii")
    else:
        raise UnicodeError("no set of ISO-2022-JP")
    return text.split("\x1b")


class _Letters(dict[int, str]):
    def __missing__(self, key: int) -> str:
        raise UnicodeError(f"no letter of Windows: {key:x}")


@cache
def _windows() -> _Letters:
    """The letters of Windows by their two bytes of JIS X 0208, and white space by itself."""
    letters = _Letters({ord(blank): blank for blank in "\x1b\n\r\t "})
    for row in range(0x21, 0x7F):
        for cell in range(0x21, 0x7F):
            with suppress(UnicodeError):
                letters[row << 8 | cell] = _shifted(row, cell).decode("cp932")
    return letters


def _shifted(row: int, cell: int) -> bytes:
    """Two bytes of JIS X 0208 as those of Shift JIS."""
    lead = (row + 1) // 2 + (0x70 if row < 0x5F else 0xB0)
    if row % 2:
        return bytes((lead, cell + (0x20 if cell >= 0x60 else 0x1F)))
    return bytes((lead, cell + 0x7E))
