"""What the log says of errors, without texts; and what libraries have to say, as lines of JSON and not in a flood."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable

from crossrank.errors import CrossrankError

# Seconds in which one thing is said once, and how many things are remembered.
_PAUSE, _MOST = 10.0, 256
_LONGEST = 200


class Line(logging.Formatter):
    """One record, such as of bytes that are no HTTP, as one line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; `again` counts those like it that `Seldom` has left out before it."""
        line = {"time": round(record.created, 3), "level": record.levelname.lower(), "message": record.getMessage()}
        if again := getattr(record, "again", 0):
            line["again"] = again
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


class Seldom(logging.Filter):
    """Lets one thing through once in a while, and counts it meanwhile: clients decide how often some things happen.

    Args:
        seconds: in which one thing is said once.
        clock: seconds that only grow.
    """

    def __init__(self, seconds: float = _PAUSE, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._seconds = seconds
        self._clock = clock
        self._said: dict[tuple[str, ...], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to say it now."""
        thing, now = _thing(record), self._clock()
        since, again = self._said.get(thing, (float("-inf"), 0))
        if now - since < self._seconds:
            self._said[thing] = since, again + 1
            return False
        if len(self._said) >= _MOST:
            self._said.clear()
        self._said[thing] = now, 0
        record.again = again
        return True


def _thing(record: logging.LogRecord) -> tuple[str, ...]:
    """What two records about the same thing have in common: one message may stand for many errors."""
    error = record.exc_info[1] if record.exc_info else None
    told = "" if error is None else f"{type(error).__name__}: {str(error)[:_LONGEST]}"
    return record.name, record.getMessage().partition("\n")[0][:_LONGEST], told


def said(error: BaseException) -> str:
    """The kind of an error and crossrank's own words for it, without those of a library, which may quote texts."""
    if not isinstance(error, CrossrankError):
        return type(error).__name__
    said = str(error) if error.__cause__ is None else str(error).partition(" (")[0]
    return f"{type(error).__name__}: {said}"


def origin_of(error: BaseException) -> str:
    """Where an error came from, without any of its text."""
    places, frame = [], error.__traceback__
    while frame is not None:
        code = frame.tb_frame.f_code
        places.append(f"{code.co_filename.rsplit('/', 1)[-1]}:{frame.tb_lineno}")
        frame = frame.tb_next
    return " > ".join(places[-8:])
