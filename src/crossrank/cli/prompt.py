"""`crossrank search --context`: the text for a language model on stdout, and what was left out of it on stderr."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from crossrank.cli import terminal

if TYPE_CHECKING:
    from crossrank.context import Context


def show(context: Context, as_json: bool) -> None:
    """Print it; as JSON both as one object."""
    if as_json:
        terminal.json_line(asdict(context))
        return
    lines = context.text.split("\n") if context.text else []
    terminal.out("\n".join(map(terminal.shown, lines)) if terminal.on_terminal() else context.text, nl=bool(lines))
    counted = terminal.count(context.tokens, "token")
    terminal.note(f"{terminal.count(len(context.sources), 'source')}, {counted} by {context.counted_by}.")
    if context.note:
        terminal.warn(f"{context.note}.")
    for left in context.left_out:
        terminal.note(f"Left out: {terminal.shown(left.passage, 60)}, {terminal.shown(left.reason, 80)}.")
