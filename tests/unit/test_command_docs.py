"""Every command line of README.md and docs/ is one that the command line takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from crossrank.cli import root
from pages import DOCS

PAGES = [page for page in (DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))) if page.is_file()]


def commands(page: Path) -> Iterator[list[str]]:
    """The words after `crossrank` of each command in the page's shell blocks."""
    for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            words: list[str] = []
            for word in [*lexer, ";"]:
                if not re.fullmatch(r"[|&;<>()]+", word):
                    words.append(word)
                    continue
                if words[:1] == ["crossrank"]:
                    yield words[1:]
                # What follows < and > is a file, and no command.
                words = [] if word[0] in "|&;(" else ["a file"]


def parse(words: list[str]) -> None:
    """Read the words as the command line does, without running anything."""
    command: click.Command = root
    # With the root's own settings: commands keep the first help option that they are asked for.
    context = click.Context(root, info_name="crossrank", **root.context_settings)
    rest = list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None
        command, context = found, click.Context(found, parent=context, info_name=name)
    command.make_context(context.info_name, rest, parent=context.parent)


@pytest.mark.skipif(not PAGES, reason="docs/ is not in this distribution")
def test_every_command_of_the_documentation_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    # The files of the pages are not here.
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: value)
    found = [(page, words) for page in PAGES for words in commands(page)]
    assert len(found) > 40
    for page, words in found:
        try:
            parse(words)
        except click.UsageError as error:
            pytest.fail(f"{page.name}: crossrank {shlex.join(words)}: {error.format_message()}")
