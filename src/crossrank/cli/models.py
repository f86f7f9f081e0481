"""`crossrank models`: what the catalog knows, and models written out as ordinary folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crossrank.cli import options, terminal
from crossrank.cli.group import Group

if TYPE_CHECKING:
    from crossrank.models.catalog import Entry

# Columns of a terminal that the rest takes beside names; where they have no room so, the rest is below them.
_REST = 64


@click.group(
    "models",
    cls=Group,
    short_help="List the models known by name, or export one.",
    invoke_without_command=True,
    epilog="""\b
Examples:
  crossrank models
  crossrank models --json | jq -r 'select(.source == "wheel").name'
  crossrank models export small ./small-model
""",
)
@options.as_json
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List the models that are known by name: licence, parameters, tokens that they read, scores and use.

    In a pipe the columns are name, kind, source, licence, parameters, tokens, scores and use. What is not known for
    certain is -; loading the model tells. Any other cross-encoder loads too, by its hub name or from its folder.
    """
    if context.invoked_subcommand is not None:
        return
    from crossrank.models.catalog import CATALOG

    if as_json:
        for entry in CATALOG:
            # The catalog counts in millions, and a program should not have to know.
            counted = {"parameters": round(1e6 * entry.parameters), "score_space": entry.score_space}
            terminal.json_line({**asdict(entry), **counted})
    elif terminal.on_terminal():
        _print_table(CATALOG)
    else:
        for entry in CATALOG:
            terminal.tab_line(
                entry.name, entry.kind, entry.source, entry.licence, f"{entry.parameters:g}M", entry.max_length,
                entry.score_space, entry.note,
            )  # fmt: skip


def _print_table(entries: Sequence[Entry]) -> None:
    from rich.text import Text

    console = terminal.console()
    columns: list[tuple[str, dict[str, Any]]] = [
        ("kind", {"no_wrap": True}),
        ("from", {"no_wrap": True}),
        ("licence", {"no_wrap": True}),
        ("size", {"justify": "right", "no_wrap": True}),
        ("reads", {"justify": "right", "no_wrap": True}),
    ]
    # A name is there to be copied: it is never wrapped where a line can hold it.
    longest = max(len(entry.name) for entry in entries)
    wide = console.width >= longest + _REST
    names = {"overflow": "fold", "min_width": longest if wide else None}
    table = terminal.table(("name", names), *(columns if wide else []))
    for entry in entries:
        ours = entry.source == "wheel"
        size, reads = f"{entry.parameters:g}M", f"{entry.max_length:,}" if entry.max_length else "-"
        facts = (entry.kind, "this install" if ours else "hub", entry.licence, size, reads)
        # The note has a line of its own: beside names of 40 letters no column is left for it.
        told = Text.assemble(
            (entry.name, "bold" if ours else ""), "\n", ("" if wide else f"{', '.join(facts)} tokens; ", "dim"),
            (f"{entry.note}; gives {entry.score_space}", "dim"),
        )  # fmt: skip
        table.add_row(told, *(facts if wide else ()))
    console.print(table)


@command.command(
    "export",
    short_help="Write a model as an ordinary folder.",
    epilog="""\b
Example:
  crossrank models export small ./small-model
  python -c 'from sentence_transformers import CrossEncoder; print(CrossEncoder("./small-model"))'
""",
)
@click.argument("name", type=options.ModelName())
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Write into a folder that is not empty, over the model that may be there.")
def export(name: str, folder: Path, force: bool) -> None:
    """Write model NAME to DIR as an ordinary folder that transformers and sentence-transformers load.

    DIR is made; one that holds something is refused.
    """
    from crossrank import checkpoint
    from crossrank.models import named

    read = named.read(name, default=name)
    checkpoint.export(read, folder, overwrite=force)
    terminal.note(f"Wrote {read.name} ({read.kind}, {read.architecture}) to {click.format_filename(folder)}.")
