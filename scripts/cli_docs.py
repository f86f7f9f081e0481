"""Write docs/cli.md: the help of every command, as the program prints it.

python scripts/cli_docs.py
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click

from crossrank.cli import root

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cli.md"
# The program uses the width of the terminal, up to this.
WIDTH = 100


def click_version() -> str:
    """Major and minor version of click: each lays out help a little differently."""
    return ".".join(version("click").split(".")[:2])


def page() -> str:
    """The whole page."""
    parts = [
        f"<!-- Made by scripts/cli_docs.py with click {click_version()}; change the commands, not this file. -->\n",
        "# Command line\n",
        "What `--help` says of each command.\n",
    ]
    for path, text in helps(root, "crossrank", None):
        parts.append(f"## {path}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def helps(command: click.Command, name: str, parent: click.Context | None) -> Iterator[tuple[str, str]]:
    """Full name and help of a command, then those of its commands."""
    context = click.Context(command, parent, info_name=name, terminal_width=WIDTH, **command.context_settings)
    text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    yield context.command_path, text
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            assert found is not None
            yield from helps(found, inner, context)


def main() -> None:
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8", newline="\n")
    print(f"Wrote {PAGE}.")


if __name__ == "__main__":
    main()
