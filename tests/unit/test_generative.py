"""How a language model is asked about a pair: its chat template, and the text around the two texts."""

from __future__ import annotations

import pytest

from crossrank.checkpoint import generative, templating
from crossrank.checkpoint.generative import BLANKS, DOCUMENT, QUERY, PairPrompt
from crossrank.errors import CheckpointError

ASKED, SHOWN = f"{BLANKS[0]}{QUERY}{BLANKS[1]}", f"{BLANKS[2]}{DOCUMENT}{BLANKS[3]}"


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("a\n  {% if true %}\nb\n  {% endif %}\nc", "a\nb\nc"),
        ("{{ x | tojson }}", '{"\u00e9": "<"}'),
        ("{{ strftime_now('%Y') | length }}", "4"),
        ("{% for n in [1, 2, 3] %}{% if n == 2 %}{% break %}{% endif %}{{ n }}{% endfor %}", "1"),
    ],
)
def test_templates_run_as_in_transformers(template: str, text: str) -> None:
    pytest.importorskip("jinja2", reason="needs the extra torch")
    assert templating.rendered(template, [{"x": {"\u00e9": "<"}}, {"x": 1}], "a model")[0] == text


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for n in range(2000) %}{{ 'a' * 1000 }}{% endfor %}", "it gives over 1000000 characters"),
        ("{{ raise_exception('only two roles') }}", "TemplateError: only two roles"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
    ],
)
def test_templates_that_are_refused(template: str, said: str) -> None:
    pytest.importorskip("jinja2", reason="needs the extra torch")
    with pytest.raises(CheckpointError, match=said):
        templating.rendered(template, [{}], "a model")


@pytest.mark.parametrize(
    ("made", "parts"),
    [
        (f"q:{ASKED}d:{SHOWN}.", PairPrompt("q:", "d:", ".")),
        (f"q: {ASKED} d: {SHOWN} .", PairPrompt("q: ", " d: ", " .")),
        (f"q:{QUERY} d: {SHOWN}\n", PairPrompt("q:", " d: ", "\n", True)),
        (f"q: {ASKED}, {DOCUMENT} .", PairPrompt("q: ", ", ", " .", False, True)),
        (f"q: {ASKED[:-1]}, {SHOWN}", None),
        (f"q: {ASKED}, {SHOWN[1:]}", None),
        (f"{DOCUMENT} {QUERY}", None),
        (f"{QUERY} {DOCUMENT} {DOCUMENT}", None),
        (f"{QUERY} {QUERY} {DOCUMENT}", None),
    ],
)
def test_the_text_around_a_pair(made: str, parts: PairPrompt | None) -> None:
    assert generative._parts(made) == parts
