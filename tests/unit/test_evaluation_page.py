"""A report is made of text that others wrote: none of it may become markup."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ir_measures", reason="needs the extra eval")
pytest.importorskip("matplotlib", reason="needs the extra eval")

from crossrank.evaluation import plots, report
from crossrank.evaluation.moves import Placed
from crossrank.evaluation.outcome import Outcome, assess, record
from crossrank.evaluation.reliability import of
from crossrank.evaluation.style import CSS, INK, MODELS, NAMES, TRACE, UNCLEAR
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


def runs(count: int, kind: str = "run", before: str = "") -> Outcome:
    """So many systems over as many queries as there are hostile texts, nothing known but their rankings."""
    queries = [f"q{number}" for number in range(len(HOSTILE))]
    forth = Ranking(("a", "b"), np.float32([2, 1]), 2)
    back = Ranking(("b", "a"), forth.scores, 2)
    systems = [System(f"{before}base", "first" if kind != "run" else "run", dict.fromkeys(queries, forth))]
    systems += [System(f"{before}other {n}", kind, dict.fromkeys(queries, back)) for n in range(count)]  # type: ignore[arg-type]
    return assess(systems, {query: {"b": 1, "a": 0} for query in queries}, {}, {})


def written(path: Path, outcome: Outcome) -> tuple[str, Reader]:
    report.write_evaluation(path, outcome)
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return path.read_text(encoding="utf-8"), reader


def test_every_system_has_its_panel_or_the_page_says_which_have_none(tmp_path: Path) -> None:
    # The fifth and sixth of six systems were missing, and nothing said so.
    page, reader = written(tmp_path / "six.html", runs(6))
    # In the table, in two plots and among the queries to read.
    assert all(len(re.findall(f">[^<]*\\bother {n}\\b", page)) >= 3 for n in range(6))
    assert "Drawn are" not in reader.text
    _, reader = written(tmp_path / "many.html", runs(14))
    assert "Drawn are the first 12 of 14 systems; the table above has all." in reader.text


def test_runs_alone_have_no_columns_about_candidates(tmp_path: Path) -> None:
    page, _ = written(tmp_path / "runs.html", runs(1))
    assert not re.search("ceiling|candidates' recall", page)
    read = hostile()
    page, _ = written(tmp_path / "read.html", read)
    assert ("ceiling" in page) == any(standing.ceiling for standing in read.comparison.standings)


def test_dollar_signs_in_the_names_of_all_systems_are_no_mathematics(tmp_path: Path) -> None:
    # That of the baseline is in the label of an axis, where it failed after all the work.
    page, reader = written(tmp_path / "page.html", runs(2, before="$_{$ "))
    assert "difference to $_{$ base (95 % interval)" in page
    assert "$_{$ other 1" in reader.text


@pytest.mark.filterwarnings("error")
def test_every_model_is_in_the_legend_in_any_script(tmp_path: Path) -> None:
    # Legends leave out labels that begin with an underscore; letters that matplotlib's font lacks were told on stderr.
    scores, relevant = np.float32([0.1, 0.2, 0.9, 0.95]), np.array([False, False, True, False])
    drawn = plots.calibration([of(name, scores, relevant, bins=2) for name in ("tiny", "_tiny", "日本 🙂")])
    assert [name for name in (">tiny: ", "_tiny: ", "日本 🙂: ") if name not in drawn] == []


def test_each_text_has_its_own_direction(tmp_path: Path) -> None:
    # A Hebrew passage that ends in Latin letters had its end before its beginning.
    page, _ = written(tmp_path / "page.html", hostile())
    assert page.count('<p dir="auto">') == page.count("<blockquote>") > 0
    assert page.count("<b><bdi>") == page.count("<blockquote>")
    assert "<bdi>" in page[page.index("<summary>") :].split("</summary>")[0]


def test_plots_and_tables_can_be_heard(tmp_path: Path) -> None:
    # Plots said "difference of each query", and cells of tables no row or column.
    _, reader = written(tmp_path / "page.html", runs(2, "alone"))
    labels = [attributes["aria-label"] or "" for tag, attributes in reader.tags if tag == "svg"]
    assert any("other 0 +0.369 [" in one and "better" in one for one in labels)
    assert any("other 1: 7 better, 0 worse, 0 the same, from +0.369 to +0.369" in one for one in labels)
    heads = [attributes for tag, attributes in reader.tags if tag == "th"]
    assert {attributes.get("scope") for attributes in heads} == {"row", "col"}
    tables = sum(tag == "table" for tag, _ in reader.tags)
    assert sum(tag == "caption" for tag, _ in reader.tags) == tables
    found = of("m", np.float32([0.1, 0.2, 0.9, 0.95]), np.array([False, False, True, False]), bins=2)
    _, reader = written(tmp_path / "calibrated.html", replace(runs(1), calibration=(found,)))
    labels = [attributes["aria-label"] or "" for tag, attributes in reader.tags if tag == "svg"]
    assert any("m: expected calibration error" in one and "too high" in one for one in labels)
    assert "The figures of m" in reader.text
    assert "0.500 [" in reader.text


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.1."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def test_what_carries_meaning_can_be_seen_in_light_and_dark() -> None:
    # The line of "fusion alone" had 1.45:1 on white, and six of eight models kept their light colours where it is dark.
    assert set(MODELS) <= set(NAMES)
    for sheet in re.findall(r":root \{(.*?)\}", CSS, re.DOTALL):
        colours = dict(re.findall(r"--(\w+): (#\w{6})", sheet))
        paper = luminance(colours["paper"])
        for name in {NAMES[colour] for colour in (*MODELS, TRACE, UNCLEAR, INK)}:
            low, high = sorted((luminance(colours[name]), paper))
            assert (high + 0.05) / (low + 0.05) >= 3, name
    light = dict(re.findall(r"--(\w+): (#\w{6})", CSS.split("@media")[0]))
    assert all(light[name] == colour for colour, name in NAMES.items() if colour != "#000000")
