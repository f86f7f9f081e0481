"""A report is made of text that others wrote: none of it may become markup."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ir_measures", reason="needs the extra eval")
pytest.importorskip("matplotlib", reason="needs the extra eval")

from crossrank.evaluation import report
from crossrank.evaluation.moves import Placed
from crossrank.evaluation.outcome import Outcome, assess, record
from crossrank.evaluation.style import CSS, NAMES
from crossrank.evaluation.systems import System
from crossrank.types import Passage, Ranking

HOSTILE = [
    "</p><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<!-- --><svg onload=alert(1)>",
    "]]></style><iframe src=//evil.example>",
    "&lt;b&gt; stays as it is written, $x^2$ too",
    "half \ud800 of a character, \x00 nothing, \u202e turned",
    "https://evil.example/ is text",
]


class Reader(HTMLParser):
    """What a browser would make of a page: tags with attributes, and text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def hostile() -> Outcome:
    """Two systems over as many queries as there are hostile texts; everything that can hold text holds one."""
    # What no id can be is refused; see test_evaluation_measures.
    marked = [text.replace("\ud800", "").replace("\0", "") for text in HOSTILE]
    queries = {f"q{id_}": text for id_, text in zip(marked, HOSTILE, strict=True)}
    ids = [f"d{id_}" for id_ in marked]
    passages = {id_: Passage(id_, f"{text} Ah. Oh. {text}", text) for id_, text in zip(ids, HOSTILE, strict=True)}
    qrels = {query: {ids[0]: 1, ids[1]: 0} for query in queries}
    forth = Ranking(tuple(ids), np.arange(len(ids), 0, -1, dtype=np.float32), len(ids))
    back = Ranking(tuple(reversed(ids)), forth.scores, len(ids))
    systems = [
        System(HOSTILE[0], "first", dict.fromkeys(queries, forth), whole=dict.fromkeys(queries, 0.01)),
        System(HOSTILE[1], "alone", dict.fromkeys(queries, back), model=HOSTILE[2], whole=dict.fromkeys(queries, 0.02)),
        System(HOSTILE[4], "mix", dict.fromkeys(queries, back), model=HOSTILE[2], whole=dict.fromkeys(queries, 0.02)),
    ]

    def lengths(pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        return np.array([len(text) for _, text in pairs], dtype=np.float32)

    return assess(
        systems, qrels, queries, {"set": HOSTILE[3], "models": HOSTILE}, texts=lambda ids: [passages[i] for i in ids],
        notes=HOSTILE, scorers={HOSTILE[2]: lengths},
    )  # fmt: skip


def test_no_text_becomes_markup(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    report.write_evaluation(path, hostile())
    page = path.read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(page)
    reader.close()
    used = {tag for tag, _ in reader.tags}
    assert not used & {"script", "img", "iframe", "object", "embed", "link", "base", "form", "a", "image"}
    assert not [name for _, attributes in reader.tags for name in attributes if name.startswith("on")]
    assert sum(tag == "svg" for tag, _ in reader.tags) == 3
    assert "mark" in used
    assert HOSTILE[0] in reader.text
    assert HOSTILE[1] in reader.text
    assert HOSTILE[4] in reader.text
    assert not re.search("[\x00\u202e\ud800]", page)


def test_a_page_refers_to_nothing_outside(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    report.write_evaluation(path, hostile())
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    for tag, attributes in reader.tags:
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href", "action", "data", "srcset", "poster"):
                assert (value or "").startswith("#"), (tag, name, value)
            for address in re.findall(r"url\(([^)]*)\)", value or ""):
                assert address.startswith("#"), (tag, name, value)
    policies = [attributes for tag, attributes in reader.tags if tag == "meta" and "http-equiv" in attributes]
    assert policies[0]["content"] == "default-src 'none'; style-src 'unsafe-inline'"
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids)), "plots share ids"


def test_the_record_holds_what_was_found() -> None:
    found = record(hostile())
    assert found["verdict"]["answer"] == "no"
    assert [system["kind"] for system in found["systems"]] == ["first", "alone", "mix"]
    assert len(found["queries"]) == len(HOSTILE)
    assert found["moves"][0]["losses"][0]["top"][0]["grade"] is None


def test_plots_follow_light_and_dark(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    report.write_evaluation(path, hostile())
    page = path.read_text(encoding="utf-8")
    plots = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert "var(--ink)" in plots
    assert "var(--better)" in plots
    assert not [colour for colour in NAMES if colour in plots]
    used = set(re.findall(r"var\(--(\w+)\)", page))
    for sheet in re.findall(r":root \{(.*?)\}", CSS, re.DOTALL):
        assert used <= set(re.findall(r"--(\w+):", sheet))


@pytest.mark.parametrize("start", [0, 3, 500, 900, 4985])
def test_an_excerpt_shows_the_sentence_that_answers(start: int) -> None:
    text = "".join(f"{number:04} " for number in range(1000))
    shown = report._excerpt(Placed("d", "", text, None, 1, 2, (start, start + 12)))
    assert [part.text for part in shown if not isinstance(part, str) and part is not None] == [text[start : start + 12]]
    said = "".join(part if isinstance(part, str) else part.text or "" for part in shown if part is not None)
    assert said.strip("…") in text
    assert len(said) <= report._EXCERPT + 2
    assert said.startswith("…") == (start > 300)
    plain = report._excerpt(Placed("d", "", "short", None, 1, 2))
    assert "".join(part for part in plain if isinstance(part, str)) == "short"
    long = report._excerpt(Placed("d", "", text, None, 1, 2, (10, 4000)))
    (mark,) = (part for part in long if not isinstance(part, str) and part is not None)
    assert len(mark.text or "") == report._EXCERPT
