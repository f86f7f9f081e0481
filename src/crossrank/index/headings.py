"""Headings of Markdown and reStructuredText, by a scan of the lines."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from crossrank.index.documents import Markup

_ATX = re.compile(r" {0,3}(#{1,6})(?=[ \t]|$)")
# No backtick stands behind a fence of backticks: ```so``` is code within a line.
_FENCE = re.compile(r" {0,3}(?P<marks>`{3,}(?=[^`]*$)|~{3,})(?P<info>.*)")
FRONT_MATTER = re.compile(r"---[ \t]*\n(?![ \t]*\n)(?P<fields>(?:.*\n)*?)(?:---|\.\.\.)[ \t]*(?:\n|$)")
"""Fields that a Markdown file may begin with. A rule has a blank line behind it, or no line that closes it."""
_TITLE = re.compile(r"^title:[ \t]+(.*)", re.MULTILINE)
_QUOTED = re.compile(r"'(?P<single>(?:[^']|'')*)'|\"(?P<double>(?:[^\"\\]|\\.)*)\"")
_NULLS = ("~", "null", "Null", "NULL")
_ESCAPE = re.compile(r"\\(?:(?P<code>x[\da-fA-F]{2}|u[\da-fA-F]{4}|U[\da-fA-F]{8})|(?P<sign>.))")
_YAML_SIGNS = tuple("'\"|>&*!%@`#[{")
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_RST_LINE = re.compile(r"([!-/:-@\[-`{-~])\1*$")
_LONGEST = 300
"""Characters of a heading, at most: a longer line is text."""


@dataclass(frozen=True, slots=True)
class Section:
    """The text under a heading.

    Attributes:
        path: the headings above it, outermost first; empty before the first heading.
        start: its first character, after the heading.
        end: the character after its last.
    """

    path: tuple[str, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Heading:
    level: int
    title: str
    start: int
    end: int


def sections(text: str, markup: Markup) -> Iterator[Section]:
    """The text in parts, in order; they cover it except for the headings. A heading with nothing under it is a part of
    its own, whose text is the heading, so that nothing is lost.

    >>> text = "Intro.\\n# Guide\\nRead.\\n## Linux\\nRun it.\\n"
    >>> [(s.path, text[s.start:s.end].strip()) for s in sections(text, "markdown")]
    [((), 'Intro.'), (('Guide',), 'Read.'), (('Guide', 'Linux'), 'Run it.')]
    """
    found = [] if markup == "plain" else list(_rst(text) if markup == "rst" else _markdown(text, markup == "html"))
    yield Section((), 0, found[0].start if found else len(text))
    path: list[_Heading] = []
    for number, heading in enumerate(found):
        end = found[number + 1].start if number + 1 < len(found) else len(text)
        while path and path[-1].level >= heading.level:
            path.pop()
        above = tuple(step.title for step in path)
        path.append(heading)
        deeper = number + 1 < len(found) and found[number + 1].level > heading.level
        if text[heading.end : end].strip() or deeper:
            yield Section((*above, heading.title), heading.end, end)
        else:
            yield Section(above, heading.start, end)


def front_title(text: str) -> str:
    """The title that Markdown's front matter names on one line, without YAML's quotes; empty where there is none.

    >>> front_title("---\\nlayout: page\\ntitle: 'The cook''s book'  # second edition\\n---\\nPeel them.\\n")
    "The cook's book"
    """
    front_matter = FRONT_MATTER.match(text)
    found = _TITLE.search(front_matter["fields"]) if front_matter else None
    value = found.group(1).strip() if found else ""
    quoted = _QUOTED.match(value)
    if quoted is None:
        # A plain value begins with no sign that means more, and a comment after a space ends it.
        plain = re.split(r"[ \t]#", value, maxsplit=1)[0].rstrip()
        return "" if plain.startswith(_YAML_SIGNS) or plain in _NULLS else plain
    if quoted["single"] is not None:
        return quoted["single"].replace("''", "'").strip()
    text = _ESCAPE.sub(_unescaped, quoted["double"])
    # A letter may be written as the two halves of a surrogate pair, as in JSON.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").strip()


def without_front_matter(text: str) -> str:
    """Markdown with blanks where its front matter stands, so that no place in it moves.

    >>> without_front_matter("---\\ntags: [x]\\n---\\nPeel them.\\n")
    '   \\n         \\n   \\nPeel them.\\n'
    """
    found = FRONT_MATTER.match(text)
    return text if found is None else re.sub(r"[^\n]", " ", found[0]) + text[found.end() :]


def _unescaped(escape: re.Match[str]) -> str:
    """What an escape in double quotes stands for; a title is one line, so that white space is a space."""
    if code := escape["code"]:
        return chr(int(code[1:], 16)) if int(code[1:], 16) <= sys.maxunicode else "\ufffd"
    return " " if escape["sign"] in "nrtvfN_LP" else escape["sign"]


def _lines(text: str) -> Iterator[tuple[int, int, str]]:
    """(start, end with the line break, the line without it) of each line."""
    begin = 0
    while begin < len(text):
        end = text.find("\n", begin)
        end = len(text) if end < 0 else end
        yield begin, min(end + 1, len(text)), text[begin : min(end, begin + _LONGEST + 1)]
        begin = end + 1


def _markdown(text: str, page: bool) -> Iterator[_Heading]:
    """Headings of Markdown; the text of a `page` has only `# lines`, and neither fences nor underlines."""
    before: tuple[int, str] | None = None  # The line before, where it may be an underlined heading.
    held = ""
    for start, end, line in _lines(text) if page else _unfenced(text):
        last, held = held, line
        atx = _ATX.match(line) if len(line) <= _LONGEST else None
        if atx:
            before = None
            title = line[atx.end() :].strip()
            if title := title if page else _unclosed(title):
                yield _Heading(len(atx.group(1)), title, start, end)
        elif before and not page and (rule := _SETEXT.fullmatch(line)):
            yield _Heading(1 if rule.group(1)[0] == "=" else 2, before[1], before[0], end)
            before = None
        else:
            # A table row, list item or quotation above a line of dashes is no heading.
            plain = line.strip() and not line.startswith(("    ", "\t", "|", ">", "- ", "* "))
            lone = before is None and not last.strip()
            before = (start, line.strip()) if plain and lone and len(line) <= _LONGEST else None


def _unclosed(title: str) -> str:
    """A heading's text without the `#` that may close it, after a space."""
    bare = title.rstrip("#")
    return title if bare and not bare[-1].isspace() else bare.rstrip()


def _unfenced(text: str) -> Iterator[tuple[int, int, str]]:
    """The lines outside of front matter and of code between fences; a fence is given as a blank line."""
    front_matter = FRONT_MATTER.match(text)
    body = front_matter.end() if front_matter else 0
    fence = ""
    for start, end, line in _lines(text):
        if start < body:
            continue
        found = _FENCE.match(line) if len(line) <= _LONGEST else None
        if not (fence or found):
            yield start, end, line
        elif found and not fence:
            fence = found["marks"]
            yield start, end, ""
        elif found and found["marks"].startswith(fence) and not found["info"].strip():
            fence = ""
            yield start, end, ""


def _rst(text: str) -> Iterator[_Heading]:
    """Underlined titles; a style of underline (with or without an overline) has the level at which it came first."""
    styles: list[tuple[str, bool]] = []
    lines = list(_lines(text))
    number = 0
    while number < len(lines):
        over = _is_rule(lines[number][2])
        title_at = number + 1 if over else number
        under_at = title_at + 1
        if under_at < len(lines) and _is_title(lines, title_at, over) and _is_rule(lines[under_at][2]):
            rule, title = lines[under_at][2].rstrip(), lines[title_at][2].strip()
            if len(rule) >= len(title) and (not over or lines[number][2].rstrip() == rule):
                style = (rule[0], over)
                if style not in styles:
                    styles.append(style)
                yield _Heading(styles.index(style), title, lines[number][0], lines[under_at][1])
                number = under_at + 1
                continue
        number += 1


def _is_rule(line: str) -> bool:
    return len(line.rstrip()) >= 2 and _RST_LINE.fullmatch(line.rstrip()) is not None


def _is_title(lines: list[tuple[int, int, str]], number: int, over: bool) -> bool:
    """Whether a line may be a title: some text, not a rule itself, first of its paragraph and not indented."""
    line = lines[number][2]
    first = over or number == 0 or not lines[number - 1][2].strip()
    return bool(
        first and line.strip() and len(line) <= _LONGEST and not _is_rule(line) and (over or not line[0].isspace())
    )
