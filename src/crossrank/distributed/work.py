"""What a worker does with a part, whichever process or machine it runs on."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Protocol

from crossrank.distributed.parts import Part
from crossrank.distributed.workfolder import WorkFolder
from crossrank.errors import CrossrankError

Do = Callable[[Part], bytes]


class Work(Protocol):
    """A kind of work, small enough to be sent to every worker."""

    @property
    def folder(self) -> WorkFolder:
        """Where input and results are."""
        ...

    def start(self) -> Do:
        """Load the model, once in each worker.

        Returns:
            A function that gives the sealed file of a part, the same bytes wherever it runs.
        """
        ...


def file_of(answer: bytes | CrossrankError) -> bytes:
    """What a worker answered, where that is a file.

    Raises:
        CrossrankError: the reason why there is none.
    """
    if isinstance(answer, CrossrankError):
        raise answer
    return answer


class Worker:
    """One worker. The model is loaded with its first part, so that a load which ends the process counts as a try."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._do: Do | None = None

    def answer(self, part: Part) -> bytes | CrossrankError:
        """The file of a part, or the reason why there is none."""
        try:
            self._work.folder.begin(part)
            if self._do is None:
                self._do = self._work.start()
            return self._do(part)
        except CrossrankError as error:
            return error
        except OSError as error:
            return CrossrankError(
                f"{socket.gethostname()} could not do a part ({error}): mend that, and run the same command again, "
                "what is done is kept"
            )
