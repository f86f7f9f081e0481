"""The command line: parse, compose, print; what decides lies below it. Only here are environment variables read.

Each command lives in a module of its own, which is imported when the command runs; what is heavy is imported inside
the command's function, so that `crossrank rerank` never pays for an index library. Programs read tab-separated lines
or `--json`; tables, colours and progress bars are for terminals only.
"""

from __future__ import annotations

from crossrank.cli.group import root


def main() -> None:
    """Run `crossrank` with the arguments of this process and leave it with an exit code of `cli.exits.Exit`."""
    root.main(prog_name="crossrank")


__all__ = ["main", "root"]
