"""What the exit codes mean: the one place, read by the commands, their help and the documentation."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """How a command ended."""

    OK = 0
    ERROR = 1
    USAGE = 2
    SOME_FAILED = 3
    BASE_KEPT = 4
    INTERRUPTED = 130


MEANINGS: dict[Exit, str] = {
    Exit.OK: "done",
    Exit.ERROR: "an error in the input, the model or the index; the message names the cure",
    Exit.USAGE: "the command line is wrong",
    Exit.SOME_FAILED: "finished, but some documents could not be read or graded, or a stage failed and was left out",
    Exit.BASE_KEPT: "the data cannot be tuned on, or the tuned model is not better: the base model is kept",
    Exit.INTERRUPTED: "interrupted with Ctrl-C; an index stays usable, a tuning or bulk work can be gone on with",
}


def epilog() -> str:
    """The exit codes as a paragraph of help that click does not wrap."""
    return "\b\nExit codes:\n" + "\n".join(f"  {code:<4}{meaning}" for code, meaning in MEANINGS.items())
