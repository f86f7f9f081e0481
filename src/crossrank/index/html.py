"""HTML to text: headings become `# lines`, blocks paragraphs; scripts, styles and navigation are left out."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from html import unescape

from crossrank.index import sevenbit

_HIDDEN = frozenset({"template", "noscript", "svg", "nav", "head"})
_RAW = frozenset({"script", "style"})
_BLOCK = re.compile(
    "address|article|aside|blockquote|body|caption|dd|details|div|dl|dt|fieldset|figcaption|figure|footer|form|header|"
    "hr|html|legend|main|nav|ol|p|pre|section|summary|table|ul"
)
_HEADING = re.compile(r"h([1-6])")
# A mark of ours begins its line with a character that no page holds: its parsers make U+FFFD of it.
_MARK = "\0"
_STARTS = {"li": f"\n{_MARK}- ", "br": "\n", "tr": "\n"}
_APART = frozenset({"td", "th", "option", "button", "label", "svg"})
_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9:-]{0,30})")
_QUOTE = re.compile(r"(?<==)[\"']|(?<== )[\"']")
_ENDLESS = re.compile(r"&#(?:[0-9]{8,}|[xX][0-9a-fA-F]{8,});?")
_LIKE_A_HEADING = re.compile(r" {0,3}#{1,6}[ \t]")
_SPACES = re.compile(r"\s+")
_CHARSET = re.compile(
    rb"(?:<meta[^>]{0,200}?charset|^<\?xml[^>]{0,200}?encoding)\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]{2,40})", re.IGNORECASE
)
# From WHATWG's Encoding Standard: what browsers read where a page names another encoding, and all that they read. So no
# page is decoded by a codec of Python's that is none of texts, such as unicode_escape. Of 7-bit encodings some more: no
# browser reads them any longer for fear of hidden scripts, which are not run here.
_READ_AS = {
    "ascii": "cp1252", "iso8859-1": "cp1252", "iso8859-9": "cp1254", "iso8859-11": "cp874", "tis-620": "cp874",
    "gb2312": "gb18030", "gbk": "gb18030", "big5": "big5hkscs", "shift_jis": "cp932", "euc_kr": "cp949",
}  # fmt: skip
_CODECS = {
    *("cp866", "cp874", "cp932", "cp949", "big5hkscs", "gb18030", "euc_jp", "koi8-r", "koi8-u"),
    *("mac-roman", "mac-cyrillic", *(f"cp{1250 + number}" for number in range(9))),
    *sevenbit.DECLARED,
    *(f"iso8859-{part}" for part in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)),
}
_LABELS = {"windows-31j": "cp932", "windows-949": "cp949", "windows-874": "cp874", "iso-8859-8-i": "iso8859-8"}
# Bytes that are no character of cp1252 are those of Latin-1.
_LATIN_1 = {0xDC00 + byte: byte for byte in range(0x80, 0x100)}


def declared_encoding(raw: bytes) -> str | None:
    """The codec of the encoding that a page names in its first 4 KiB, as browsers read it; None where they read none.

    >>> declared_encoding(b'<meta charset="iso-8859-1">')
    'cp1252'
    """
    found = _CHARSET.search(raw[:4096])
    if found is None:
        return None
    label = found.group(1).decode("ascii").lower()
    try:
        name = codecs.lookup(_LABELS.get(label, label.removeprefix("x-"))).name
    except LookupError:
        return None
    name = _READ_AS.get(name, name)
    return name if name in _CODECS else None


def decoded(raw: bytes) -> str | None:
    """A page as text by the encoding that it names; None where it names none or is not written in it.

    >>> decoded(b'<meta charset="iso-8859-1"><p>\\x93caf\\xe9\\x94')[-6:]
    '“café”'
    """
    codec = declared_encoding(raw)
    if codec is None:
        return None
    if codec == "cp1252":
        return raw.decode(codec, "surrogateescape").translate(_LATIN_1)
    try:
        return raw.decode(codec)
    except UnicodeError:
        return None


def to_text(html: str) -> tuple[str, str]:
    """(title, text) of a page. Each heading is a line of its own, `## Install`; no other line can be read as one, and
    so one that begins with spaces is code or was set off.

    >>> to_text("<title>Soup</title><h1>Onions</h1><p>Peel <b>them</b>.<p>Cry.")
    ('Soup', '# Onions\\n\\nPeel them.\\n\\nCry.')
    """
    page = _Page(html, _HIDDEN)
    if page.hidden:  # A hidden element never closed would swallow the rest of the page: read it with nothing hidden.
        page = _Page(html, frozenset())
    return page.title_text(), page.text()


def _events(html: str) -> Iterator[tuple[str, str]]:
    """("text", its characters), ("open", tag) and ("close", tag), in order; comments and scripts are passed over.

    A scanner of our own because the standard library's takes hours for some megabytes of `<a `. This one looks at no
    character more than a few times: what was searched for in vain once is not searched for again.
    """
    search = _Search(html)
    at = 0
    while at < len(html):
        start = search.find("<", at)
        if start < 0:
            break
        if start > at:
            yield "text", html[at:start]
        if html.startswith("<!--", start):
            end = search.find("-->", start + 2)  # "<!-->" is a whole one.
            at = start + 4 if end < 0 else end + 3
            continue
        found = _TAG.match(html, start)
        end = search.tag_end(start)
        if end < 0 or not (found or html[start + 1 : start + 2] in ("!", "?", "/")):
            yield "text", "<"
            at = start + 1
            continue
        at = end + 1
        if found:
            tag = found.group(2).lower()
            yield "close" if found.group(1) else "open", tag
            if tag == "svg" and html[end - 1] == "/" and not found.group(1):
                yield "close", tag  # Of what is no HTML browsers see that it ends here.
            if tag in _RAW and not found.group(1):
                closing = re.compile(f"</{tag}", re.IGNORECASE).search(html, at)
                at = closing.start() if closing else len(html)
    if at < len(html):
        yield "text", html[at:]


class _Search:
    """Finds strings from rising positions on, and remembers where each was found next, or that there are no more."""

    def __init__(self, html: str) -> None:
        self._html = html
        self._next: dict[str, int] = {}

    def find(self, what: str, at: int) -> int:
        """Its first place at or after `at`, or -1."""
        known = self._next.get(what, -2)
        if known != -1 and known < at:
            known = self._next[what] = self._html.find(what, at)
        return known

    def tag_end(self, start: int) -> int:
        """The `>` that ends the tag at `start`; one within quotes does not, unless the quotes are never closed."""
        end = first = self.find(">", start)
        at = start
        while end >= 0:
            quoted = _QUOTE.search(self._html, at, end)
            if not quoted:
                return end
            closing = self.find(quoted.group(), quoted.end())
            if closing < 0:
                return first
            at = closing + 1
            if at > end:
                end = self.find(">", at)
        return first


def _characters(text: str) -> str:
    """Entities to characters, without the hyphens that a word may be divided at; what is no character is U+FFFD."""
    text = unescape(_ENDLESS.sub("\ufffd", text)) if "&" in text else text
    return text.replace(_MARK, "\ufffd").replace("\u00ad", "")


class _Page:
    """Collects the text of a page from its events."""

    def __init__(self, html: str, hide: frozenset[str]) -> None:
        self._hide = hide
        self.hidden = 0
        self._pre = 0
        self._drawings = 0  # A title within one is of an icon.
        self._in_title = False
        self._title: list[str] = []
        self._parts: list[str] = []
        self._last = "\n"
        self._heading = False  # Within one, on its line.
        self._waits = False  # The mark of a heading or a list item has no text yet.
        handle = {"text": self._text, "open": self._open, "close": self._close}
        for kind, value in _events(html):
            handle[kind](value)

    def _open(self, tag: str) -> None:
        self._drawings += tag == "svg"
        if tag == "title" and not self._title and not self._drawings:
            self._in_title = True
        elif tag == "body" and self.hidden:
            self.hidden = 0  # `</head>` may be left out.
        elif tag in self._hide:
            self.hidden += 1
            self._separate(tag)
        elif not self.hidden:
            self._start(tag)
            self._pre += tag == "pre"

    def _start(self, tag: str) -> None:
        """Write what the start of a visible element stands for."""
        heading = _HEADING.fullmatch(tag)
        if heading or tag == "li":
            self._write("\n\n" + _MARK + "#" * int(heading.group(1)) + " " if heading else _STARTS[tag])
            self._heading, self._waits = heading is not None, True
        elif tag in _STARTS and not self._waits:
            self._write(" " if self._heading else _STARTS[tag])
        elif tag in _APART or _BLOCK.fullmatch(tag):
            self._separate(tag)

    def _separate(self, tag: str) -> None:
        """Words on both sides are two, mostly of two paragraphs; but a mark goes before the next text."""
        if tag in _APART:
            self._write(" ")
        elif not self._waits:
            self._write("\n\n")
            self._heading = False

    def _close(self, tag: str) -> None:
        self._drawings = max(0, self._drawings - (tag == "svg"))
        if tag == "title":
            self._in_title = False
        elif tag in self._hide:
            self.hidden = max(0, self.hidden - 1)
        elif not self.hidden:
            self._end(tag)
            self._pre = max(0, self._pre - (tag == "pre"))

    def _end(self, tag: str) -> None:
        heading = _HEADING.fullmatch(tag)
        if self._waits and (heading or tag in ("li", "ul", "ol")):
            self._waits = False
            self._write("\n")
        if heading or tag in _APART or _BLOCK.fullmatch(tag):
            self._separate(tag)

    def _text(self, raw: str) -> None:
        data = _characters(raw)
        if self._in_title:
            self._title.append(data)
        elif not self.hidden:
            self._waits = self._waits and not data.strip()
            self._write(data if self._pre else _SPACES.sub(" ", data), self._pre > 0)

    def _write(self, text: str, exact: bool = False) -> None:
        """White space after white space adds nothing, but where it is exact."""
        text = text[1:] if text.startswith(" ") and self._last.isspace() and not exact else text
        if text:
            self._parts.append(text)
            self._last = text[-1]

    def title_text(self) -> str:
        """The title on one line."""
        return _SPACES.sub(" ", "".join(self._title)).strip()

    def text(self) -> str:
        """The text, with at most one blank line in a row."""
        kept: list[str] = []
        for line in "".join(self._parts).split("\n"):
            line = _line(line.rstrip())
            if line or (kept and kept[-1]):
                kept.append(line)
        return "\n".join(kept).strip("\n")


def _line(line: str) -> str:
    """A line as it is read: marks of nothing go, and content that begins like a heading is set off, as code is."""
    if line.startswith(_MARK):
        mark, _, body = line[1:].partition(" ")
        return f"{mark} {body.strip()}" if body.strip() else ""
    return "    " + line if _LIKE_A_HEADING.match(line) else line
