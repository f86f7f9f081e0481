"""The `crossrank` command itself: commands imported when they run, and every error turned into a message and a code."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from typing import Any

import click

from crossrank import __version__
from crossrank.cli import terminal
from crossrank.cli.exits import Exit, epilog
from crossrank.errors import CrossrankError, InputError

# In the order people meet them; each module has a `command`.
_COMMANDS = (
    "rerank", "index", "search", "bulk", "eval", "frontier", "serve", "mcp", "tune", "calibrate", "label", "models",
    "doctor", "check", "bench", "completion",
)  # fmt: skip


class Group(click.Group):
    """A group that says which commands there are, and which was meant, when it is given a name that is none."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click's, and `help` is `--help`, also of a command: `help rerank`."""
        return super().parse_args(ctx, [*args[1:], "--help"] if args[:1] == ["help"] else args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, but a wrong name lists the right ones."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            names = self.list_commands(ctx)
            near = get_close_matches(args[0], names, n=1)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"no command {args[0]!r}; there {'are' if names[1:] else 'is'}: {', '.join(names)}.{meant}")
        return super().resolve_command(ctx, args)


class Root(Group):
    """A group whose commands are modules of this package, imported on use, and whose `main` never shows a traceback
    for what a user can cure. A traceback that is left means a bug of crossrank.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order people meet them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module; None for a name that is none."""
        if cmd_name not in _COMMANDS:
            return None
        command = import_module(f"crossrank.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """As click's, which prints `--help` and `--version` here."""
        with _closed_pipe_told():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """As click's."""
        with _closed_pipe_told():
            return super().invoke(ctx)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """As click's; in standalone mode it always raises SystemExit, with a code of `Exit`."""
        run = partial(super().main, args, prog_name, complete_var, standalone_mode=False, **extra)
        if not standalone_mode:
            return run()
        _never_fail_to_print()
        # Commands that print nothing, such as `serve`, do without it.
        sys.stdout = sys.stdout or _Closed()
        sys.exit(_guarded(run))


class _Closed(io.TextIOBase):
    """In place of a stdout that is closed, of which Python has none: click would print nothing and say that it did."""

    def write(self, text: str, /) -> int:
        """Refuse it."""
        raise InputError("stdout is closed, so there is no place for the output: send it to a file or to /dev/null")


class _ReaderLeftError(Exception):
    """Nobody reads stdout any more."""


@contextmanager
def _closed_pipe_told() -> Iterator[None]:
    # click's `main` answers a closed pipe with exit code 1 in every mode, so it must not see one.
    try:
        yield
    except OSError as error:
        if terminal.reader_left(error):
            raise _ReaderLeftError from error
        raise


def _guarded(run: Callable[[], Any]) -> int:
    """Run a command; turn what it raises into a line on stderr and an exit code."""
    try:
        result = run()
        if sys.stdout is not None:
            # What fails to leave here (a full disk) would otherwise fail at exit, as noise.
            with terminal.even_unread():
                sys.stdout.flush()
        return int(result) if isinstance(result, int) else Exit.OK
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except _ReaderLeftError:
        terminal.forget_output()
        return Exit.OK
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", Exit.INTERRUPTED)
    except CrossrankError as error:
        return _fail(str(error))
    except OSError as error:
        if terminal.reader_left(error):
            terminal.forget_output()
            return Exit.OK
        return _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    except MemoryError:
        return _fail("out of memory. Give fewer or shorter passages at once, or a smaller model.")


def _fail(message: str, code: Exit = Exit.ERROR) -> int:
    click.echo(f"{terminal.styled('Error:', fg='red', bold=True)} {message}", err=True)
    return code


def _never_fail_to_print() -> None:
    # A terminal that cannot show a letter (a C locale, a Windows code page) gets an escape and not a traceback.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@click.group(
    cls=Root,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=epilog(),
)
@click.version_option(__version__, "-V", "--version", message="crossrank %(version)s")
def root() -> None:
    """Decide which texts answer a question: rerank a list, or index files and search them.

    It works offline: a cross-encoder and an embedder are part of the install.

    \b
      grep -rih retry docs/ | crossrank rerank "how do I retry a failed upload?" -k 5
      crossrank index docs/ --to docs.index
      crossrank search docs.index "how do I retry a failed upload?"

    On a terminal you get tables. In a pipe you get tab-separated lines, and with --json one JSON object a line.
    """
