"""One self-contained HTML page from parts that cannot be confused: text is text, whatever it says.

The page is built as a tree of elements and written by the standard library, which escapes every text and attribute. No
document, query or name is ever joined into markup by hand. Nothing is fetched: no script, no font, no picture from
elsewhere, and the page's own policy forbids all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree import ElementTree

from crossrank.evaluation.style import CSS, NAMES
from crossrank.writing import whole

Element = ElementTree.Element
Part = Element | str | None

# What no text on a page may do: hide, turn its direction, or end the document.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_SCALE = 1.4
_XLINK = "{http://www.w3.org/1999/xlink}"
_REFERENCE = re.compile(r"#([^)\"]+)")
_COLOUR = re.compile("|".join(NAMES))


def element(tag: str, *parts: Part, **attributes: str) -> Element:
    """An element with text and elements in it; a part of None is left out. `class_` is the attribute `class`.

    >>> ElementTree.tostring(element("p", "1 < 2 ", element("b", "<i>"), class_='"'), encoding="unicode", method="html")
    '<p class="&quot;">1 &lt; 2 <b>&lt;i&gt;</b></p>'
    """
    made = Element(tag, {name.rstrip("_").replace("_", "-"): clean(value) for name, value in attributes.items()})
    last: Element | None = None
    for part in parts:
        if part is None:
            continue
        if isinstance(part, str):
            if last is None:
                made.text = (made.text or "") + clean(part)
            else:
                last.tail = (last.tail or "") + clean(part)
        else:
            made.append(part)
            last = part
    return made


def clean(text: str) -> str:
    """The text with control characters and half characters made visible."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def table(
    caption: str, head: Sequence[str], rows: Iterable[Sequence[Part]], numbers: Sequence[int] = (), named: int = 0
) -> Element:
    """A table; columns whose places are in `numbers` stand to the right, and the one at `named` says what a row is.

    The caption is for those who hear the page: to the eye the section's heading says it. A wide table scrolls, which
    keys do only where the focus can be.
    """

    def cell(place: int, part: Part, scope: str) -> Element:
        side = "n" if place in numbers else "t"
        return element("th", part, class_=side, scope=scope) if scope else element("td", part, class_=side)

    def cells(row: Sequence[Part]) -> Iterable[Element]:
        return (cell(place, part, "row" if place == named else "") for place, part in enumerate(row))

    heads = (cell(place, part, "col" if part else "") for place, part in enumerate(head))
    made = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *heads)),
        element("tbody", *(element("tr", *cells(row)) for row in rows)),
    )
    return element("div", made, class_="wide", tabindex="0", role="region", aria_label=caption)


def plot(svg: str, label: str) -> Element | None:
    """A figure made of SVG text of our own plots, whose finding the label says; None for an empty one.

    Names of namespaces, metadata and ids that nothing refers to are left out: in a page they say nothing, and ids of
    several plots would meet. Colours that the style sheet names become its own, which are others where it is dark.
    """
    if not svg:
        return None
    root = ElementTree.fromstring(svg)
    used = {match for node in root.iter() for value in node.attrib.values() for match in _REFERENCE.findall(value)}
    _simplify(root, used)
    for name in ("height", "version"):
        root.attrib.pop(name, None)
    # One size of words in all plots: points of the figure are pixels of the page, times the same number.
    root.attrib["style"] = f"width: {_SCALE * float(root.attrib.pop('width').removesuffix('pt')):.0f}px"
    # What matplotlib says for all elements in a style sheet, which would hold for the whole page.
    root.attrib |= {"role": "img", "aria-label": clean(label), "stroke-linejoin": "round", "stroke-linecap": "butt"}
    return element("figure", root, tabindex="0")


def _simplify(node: Element, used: set[str]) -> None:
    node.tag = node.tag.rsplit("}", 1)[-1]
    node.attrib = {name.replace(_XLINK, "xlink:"): clean(value) for name, value in node.attrib.items()}
    if "id" in node.attrib and node.attrib["id"] not in used:
        del node.attrib["id"]
    if "style" in node.attrib:
        node.attrib["style"] = _COLOUR.sub(lambda found: f"var(--{NAMES[found[0]]})", node.attrib["style"])
    for child in list(node):
        if child.tag.rsplit("}", 1)[-1] in ("metadata", "style", "script"):
            node.remove(child)
            continue
        _simplify(child, used)


def write(path: Path, title: str, parts: Iterable[Part]) -> None:
    """Write the page, whole or not at all."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", CSS),
    )
    root = element("html", head, element("body", element("main", *parts)), lang="en")
    text = "<!DOCTYPE html>\n" + ElementTree.tostring(root, encoding="unicode", method="html") + "\n"
    with whole(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")
