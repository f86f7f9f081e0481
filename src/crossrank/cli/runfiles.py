"""The folder of `crossrank eval --write-runs`: a TREC run file for each system, named after it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crossrank import writing
from crossrank.cli import terminal

if TYPE_CHECKING:
    from crossrank.evaluation.systems import System


def check(folder: Path, names: Sequence[str], read: Sequence[Path], force: bool) -> None:
    """Make the folder; refuse files that cannot be written, or whose loss nobody asked for, before any work.

    Args:
        folder: of the run files.
        names: of the systems.
        read: files that the command reads; a run has more queries, and its own scores.
        force: whether other files may be replaced.

    Raises:
        click.UsageError: a file is one that is read, is there already (without `force`), or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in _files(folder, names).values():
            writing.check(path)
            if not path.exists():
                continue
            if any(map(path.samefile, read)):
                raise click.UsageError(
                    f"--write-runs {folder} would replace {path}, which is read: give another folder"
                )
            if not force:
                raise click.UsageError(
                    f"--write-runs {folder} would replace {path}: give another folder, or say so with --force"
                )
    except OSError as error:
        raise click.UsageError(f"--write-runs {folder} cannot be written: {error.strerror}: {error.filename}") from None


def write(folder: Path, systems: Sequence[System]) -> None:
    """Write them.

    Raises:
        InputError: an id has white space in it, which the format cannot hold.
    """
    from crossrank.evaluation import write_run

    files = _files(folder, [system.name for system in systems])
    for system in systems:
        path = files[system.name]
        write_run(path, system.run, tag=f"crossrank-{path.stem}")
    terminal.note(f"Wrote {terminal.count(len(systems), 'run')} to {folder}.")


def _files(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """The file of each system, whatever order they come in."""
    ordered = sorted(names)
    return {name: folder / f"{stem}.trec" for name, stem in zip(ordered, _stems(ordered), strict=True)}


def _stems(names: Sequence[str]) -> list[str]:
    """A file name for each, without its ending; no two are one file, also where capitals do not tell files apart."""
    made: list[str] = []
    taken: set[str] = set()
    for name in names:
        stem = re.sub(r"[^\w.+-]+", "-", name).strip("-.") or "system"
        # Two names may differ only in what a file name cannot hold.
        free, n = stem, 1
        while free.casefold() in taken:
            n += 1
            free = f"{stem}-{n}"
        taken.add(free.casefold())
        made.append(free)
    return made
