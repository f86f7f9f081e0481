"""A process that works for a benchmark: requests and answers are lines of JSON on its standard input and output.

Each contender has a process of its own that stays alive, so that contenders can take turns (A B A B) without sharing
libraries, threads or settings. Times are taken in the process, so the pipe between us is in no figure.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


class EndedError(Exception):
    """The process is gone; its own message is on stderr."""


class Worker:
    """Our side: starts the process and waits until it says that it is ready, in `ready`."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._command = command
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, **(environment or {})},
        )
        self.ready: dict[str, Any] = self._answer()

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a request.

        Raises:
            EndedError: there will be none.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise EndedError(self._ended()) from error
        return self._answer()

    def close(self) -> None:
        """End the process: it stops when its input does."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise EndedError(self._ended())
        found: dict[str, Any] = json.loads(line)
        return found

    def _ended(self) -> str:
        return f"the process ended with code {self._process.wait()}: {' '.join(self._command[1:4])}"


def serve(start: Callable[[], tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]]) -> None:
    """The other side: start, say that we are ready, and answer each request.

    Args:
        start: gives what to say when ready, and the function that answers a request. What it or a library prints goes
            to stderr: the output belongs to the answers.
    """
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        ready, answer = start()
        print(json.dumps(ready), file=answers, flush=True)
        for line in sys.stdin:
            print(json.dumps(answer(json.loads(line))), file=answers, flush=True)
