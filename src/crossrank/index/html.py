"""HTML to text: headings become `# lines`, blocks paragraphs; scripts, styles and navigation are left out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape

_HIDDEN = frozenset({"template", "noscript", "svg", "nav", "head"})
_RAW = frozenset({"script", "style"})
_BLOCK = re.compile(
    "address|article|aside|blockquote|body|dd|details|div|dl|dt|fieldset|figcaption|figure|footer|form|header|hr|html|"
    "main|nav|ol|p|pre|section|summary|table|ul"
)
_HEADING = re.compile(r"h([1-6])")
_MARKS = {"li": "\n- ", "br": "\n", "tr": "\n", "td": " ", "th": " "}
_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9:-]{0,30})")
_QUOTE = re.compile(r"(?<==)[\"']|(?<== )[\"']")
_ENDLESS = re.compile(r"&#(?:[0-9]{8,}|[xX][0-9a-fA-F]{8,});?")
_LIKE_A_HEADING = re.compile(r"(?m)^(?=#{1,6}\s)")
_SPACES = re.compile(r"\s+")
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]{2,40})", re.IGNORECASE)


def declared_encoding(raw: bytes) -> str | None:
    """The encoding a page names in its first 4 KiB, if it does.

    >>> declared_encoding(b'<meta charset="iso-8859-1">')
    'iso-8859-1'
    """
    found = _CHARSET.search(raw[:4096])
    return found.group(1).decode("ascii") if found else None


def to_text(html: str) -> tuple[str, str]:
    """(title, text) of a page.

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
            end = search.find("-->", start + 4)
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
    """Entities to characters; a number too long to be one is U+FFFD."""
    return unescape(_ENDLESS.sub("\ufffd", text)) if "&" in text else text


class _Page:
    """Collects the text of a page from its events."""

    def __init__(self, html: str, hide: frozenset[str]) -> None:
        self._hide = hide
        self.hidden = 0
        self._pre = 0
        self._in_title = False
        self._title: list[str] = []
        self._parts: list[str] = []
        handle = {"text": self._text, "open": self._open, "close": self._close}
        for kind, value in _events(html):
            handle[kind](value)

    def _open(self, tag: str) -> None:
        if tag == "title" and not self._title:
            self._in_title = True
        elif tag == "body" and self.hidden:
            self.hidden = 0  # `</head>` may be left out.
        elif tag in self._hide:
            self.hidden += 1
            self._parts.append("\n\n")
        elif not self.hidden:
            self._parts.append(self._mark(tag))
            self._pre += tag == "pre"

    def _mark(self, tag: str) -> str:
        """What the start of a visible element writes."""
        heading = _HEADING.fullmatch(tag)
        if heading:
            return "\n\n" + "#" * int(heading.group(1)) + " "
        if _BLOCK.fullmatch(tag):
            return "\n\n"
        return _MARKS.get(tag, "")

    def _close(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
        elif tag in self._hide:
            self.hidden = max(0, self.hidden - 1)
        elif not self.hidden and (_BLOCK.fullmatch(tag) or _HEADING.fullmatch(tag)):
            self._parts.append("\n\n")
            self._pre = max(0, self._pre - (tag == "pre"))

    def _text(self, raw: str) -> None:
        data = _characters(raw)
        if self._in_title:
            self._title.append(data)
        elif not self.hidden:
            # A line of content that begins like a heading is set off, as Markdown sets off code.
            safe = _LIKE_A_HEADING.sub("    ", data)
            self._parts.append(safe if self._pre else _SPACES.sub(" ", safe))

    def title_text(self) -> str:
        """The title on one line."""
        return _SPACES.sub(" ", "".join(self._title)).strip()

    def text(self) -> str:
        """The text, with at most one blank line in a row."""
        kept: list[str] = []
        for line in "".join(self._parts).split("\n"):
            bare = line.rstrip()
            bare = bare[1:] if bare.startswith(" ") and not bare.startswith("    ") else bare
            if bare or (kept and kept[-1]):
                kept.append(bare)
        return "\n".join(kept).strip()
