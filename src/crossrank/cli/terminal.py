"""How things are printed: lines for programs on stdout, tables for people, notes and warnings on stderr.

rich is imported only when a table or a progress bar is drawn.
"""

from __future__ import annotations

import codecs
import errno
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from crossrank.evidence import Evidence
    from crossrank.scorecache import Uses
    from crossrank.types import Passage, Truncation

# Called with what is done now, how many are done and how many there are.
Progress = Callable[[str, int, int], None]
# Escape codes in a passage must not move the cursor or retitle the terminal; a tab or newline is layout, kept apart.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_SPACE = re.compile(r"\s+")


def on_terminal(*, err: bool = False) -> bool:
    """Whether a person reads stdout (or stderr)."""
    stream = sys.stderr if err else sys.stdout
    return stream is not None and stream.isatty()


def console(*, err: bool = False) -> Console:
    """A rich console that prints text as it is: no markup, emoji codes or guessed highlights."""
    from rich.console import Console

    return Console(stderr=err, markup=False, emoji=False, highlight=False)


def table(*columns: tuple[str, Mapping[str, Any]]) -> Table:
    """An empty table of (heading, rich column options) in the one style of crossrank."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="dim")
    for heading, options in columns:
        made.add_column(heading, **options)
    return made


@contextmanager
def progress() -> Iterator[Progress]:
    """A progress bar on a terminal; nothing in a pipe."""
    if not on_terminal(err=True):
        yield lambda doing, done, total: None
        return
    from rich import progress as bars

    columns = (
        bars.TextColumn("{task.description:<10}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=console(err=True), transient=True) as bar:
        tasks: dict[str, bars.TaskID] = {}

        def report(doing: str, done: int, total: int) -> None:
            if doing not in tasks:
                tasks[doing] = bar.add_task(doing, total=total)
            bar.update(tasks[doing], completed=done, total=total)

        yield report


def styled(text: str, **style: Any) -> str:
    """Text for click to print, which takes its style away in a pipe; with NO_COLOR it has none, as rich's tables."""
    return text if os.environ.get("NO_COLOR") else click.style(text, **style)


def warn(message: str) -> None:
    """A line on stderr about something that changes the answer."""
    click.echo(f"{styled('Warning:', fg='yellow', bold=True)} {message}", err=True)


def note(message: str) -> None:
    """A line on stderr for people."""
    click.echo(message, err=True)


def out(text: str, **how: Any) -> None:
    """Print on stdout as `click.echo` does, `even_unread`."""
    with even_unread():
        click.echo(text, **how)


@contextmanager
def even_unread() -> Iterator[None]:
    """Print in the block. Once the reader of stdout has left, what is printed is dropped, and the command goes on: what
    it writes, what it says on stderr and its exit code do not depend on who reads along.
    """
    try:
        yield
    except OSError as error:
        if not reader_left(error):
            raise
        forget_output()


def reader_left(error: OSError) -> bool:
    """Whether a write failed because nobody reads the pipe any more: `| head` has seen enough."""
    # POSIX has EPIPE for it, Windows EINVAL.
    return isinstance(error, BrokenPipeError) or (error.errno == errno.EINVAL and error.filename is None)


def forget_output() -> None:
    """From here on nothing that is printed on stdout goes anywhere, nor what is left in its buffer."""
    # The interpreter flushes stdout once more when it exits, and would complain about the same pipe again.
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def json_line(value: Mapping[str, Any]) -> None:
    """One JSON object on one line of stdout."""
    # What another encoding cannot hold would be escaped as Python has it, which is no JSON.
    out(json.dumps(value, ensure_ascii=not _utf_8(), allow_nan=False), color=True)


def _utf_8() -> bool:
    try:
        return codecs.lookup(sys.stdout.encoding or "").name == "utf-8"
    except LookupError:
        return False


def tab_line(*fields: str | int | float | None) -> None:
    """One tab-separated line of stdout. White space inside a field becomes one space; what is absent is `-`."""
    out("\t".join(map(_field, fields)), color=True)


def _field(value: str | int | float | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6f}"
    return _SPACE.sub(" ", str(value)).strip()


def finite(score: float) -> float | None:
    """The score as a Python float; None for the -inf of a passage without text."""
    return float(score) if math.isfinite(score) else None


def truncation_fields(truncation: Truncation) -> dict[str, Any]:
    """A truncation as JSON: what the text had, what was read of it, in how many windows, and whether some was lost."""
    return {
        "tokens": truncation.tokens,
        "exact": truncation.exact,
        "read": truncation.read,
        "windows": truncation.windows,
        "lost": truncation.lost,
    }


def shown(text: str, characters: int | None = None) -> str:
    """Text safe for a terminal, on one line, cut with an ellipsis when it has more than so many characters."""
    if characters is not None:
        text = text[: 4 * characters]
    line = _SPACE.sub(" ", _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)).strip()
    if characters is not None and len(line) > characters:
        return line[: characters - 1].rstrip() + "…"
    return line


def evidence_fields(evidence: Evidence | None, text: str) -> dict[str, Any] | None:
    """The evidence of a passage as JSON: its span in the text, the sentence itself, and what it was compared with."""
    return None if evidence is None else {**asdict(evidence), "text": text[evidence.start : evidence.stop]}


def uses(uses: Uses) -> None:
    """A line on stderr: how many scores a cache could give."""
    note(f"{uses.known:,} of {count(uses.asked, 'score')} came from the cache.")


def passage(passage: Passage, width: int, source: str = "", evidence: Evidence | None = None) -> Text:
    """Title, source and text of a passage for a table cell: about three lines of text on a terminal of this width.

    The evidence is bright, and when it would not fit, the text is shown from shortly before it.
    """
    from rich.text import Text

    room = max(60, 3 * (width - 20))
    body = Text(shown(passage.text, room)) if evidence is None else _marked(passage.text, evidence, room)
    parts = [Text(shown(passage.title, width), "bold"), Text(shown(source, width), "dim"), body]
    return Text("\n").join([part for part in parts if part]) or Text("(no text)", "dim")


def _marked(text: str, evidence: Evidence, room: int) -> Text:
    from rich.text import Text

    a, b = evidence.start, evidence.stop
    sentence = shown(text[a:b], room)
    left = room - len(sentence)
    # What follows is cut by `shown`; what comes before gives way to the sentence, and keeps half of what is left.
    before = shown(text[max(0, a - 4 * room) : a])
    kept = max(left - len(shown(text[b:], room)), left // 2)
    if len(before) > kept:
        before = "…" + before[len(before) - kept :].lstrip() if kept > 0 else "…"
    after = shown(text[b:], max(left - len(before), 0)) if left > len(before) else ""
    return Text.assemble(
        before, " " if before and text[a - 1].isspace() else "", (sentence, "bold yellow"),
        " " if after and text[b].isspace() else "", after,
    )  # fmt: skip


def count(n: int, one: str, many: str | None = None) -> str:
    """`1 passage`, `1,234 passages`."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def duration(seconds: float) -> str:
    """`0.4 ms`, `12 ms`, `3.1 s`, `2 min 5 s`."""
    if seconds < 0.001:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


def list_of(names: Sequence[str], most: int = 5) -> str:
    """`a, b, c and 7 more`."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest:,} more" if rest > 0 else "")
