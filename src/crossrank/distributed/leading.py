"""The one process that leads: it brings parts and workers together and keeps what comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from crossrank import extras
from crossrank.distributed import processes
from crossrank.distributed.parts import Part
from crossrank.distributed.work import Work
from crossrank.errors import InputError

# Tokens of a part, about: what a killed worker has to do again, some ten seconds on a core.
PART_TOKENS = 500_000
# What was done, and of how much: "reading", "scoring" and the like, rows, all rows.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Workers:
    """Who does the work.

    Attributes:
        count: processes or actors; 0 is this process alone, or as many actors as a cluster has room for.
        threads: of one worker, for the native engine; with no workers all cores when absent, else 1.
        ray: address of a Ray cluster, "auto" or "local"; without it, processes of this machine.

    Raises:
        InputError: a number is out of its range.
        MissingExtraError: Ray is asked for and not installed.
    """

    count: int = 0
    threads: int | None = None
    ray: str | None = None

    def __post_init__(self) -> None:
        if self.ray is not None:
            extras.require("ray", extra="ray")  # now, and not after the input was read
        if self.count < 0 or (self.threads is not None and self.threads < 1):
            raise InputError(
                f"there must be 0 workers or more, of 1 thread or more, not {self.count} of {self.threads}"
            )

    @property
    def engine_threads(self) -> int | None:
        """What a worker's model is loaded with."""
        return self.threads or (1 if self.count or self.ray else None)


def lead(work: Work, all_parts: Sequence[Part], workers: Workers, doing: str, progress: Progress) -> tuple[int, int]:
    """Have every part done that is not done yet.

    Returns:
        Rows that were done now, and rows that were done before.

    Raises:
        ReadError: a finished part is damaged.
        CrossrankError: whatever the work raises. What is done by then is kept.
    """
    total = sum(map(len, all_parts))
    missing = work.folder.missing(all_parts)
    before = done = total - sum(map(len, missing))
    progress(doing, done, total)
    if missing:
        for part, file in _run(work, missing, workers):
            work.folder.keep(part, file)
            done += len(part)
            progress(doing, done, total)
    return done - before, before


def _run(work: Work, missing: Sequence[Part], workers: Workers) -> Iterator[tuple[Part, bytes]]:
    if workers.ray is None:
        return processes.run(work, missing, workers.count)
    from crossrank.distributed import ray  # needs the extra, which the base install leaves out

    return ray.run(work, missing, workers.count, workers.engine_threads or 1, workers.ray)
