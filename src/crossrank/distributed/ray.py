"""Workers that are actors of a Ray cluster: Ray Data hands out the parts, starts dead actors again and retries."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from crossrank import errors, extras
from crossrank.distributed.parts import Part
from crossrank.distributed.work import Work, Worker
from crossrank.errors import CrossrankError, InputError

extras.require("ray", extra="ray")

import ray  # noqa: E402
import ray.data  # noqa: E402


class _Actor:
    """A worker as Ray Data calls it: blocks of one row."""

    def __init__(self, work: Work) -> None:
        self._worker = Worker(work)

    def __call__(self, block: dict[str, Any]) -> dict[str, Any]:
        answer = self._worker.answer(Part(int(block["begin"][0]), int(block["end"][0])))
        # An exception would end the whole data set and come back wrapped in Ray's own.
        failed = isinstance(answer, CrossrankError)
        return {
            "begin": block["begin"],
            "end": block["end"],
            "file": [b"" if failed else answer],
            "error": [type(answer).__name__ if failed else ""],
            "message": [str(answer) if failed else ""],
        }


def run(work: Work, parts: Sequence[Part], workers: int, cores: int, address: str) -> Iterator[tuple[Part, bytes]]:
    """Each part with its file, in the order in which they are done.

    Args:
        work: what to do. Its folder and model must be seen by all machines under the same path.
        parts: each is done once; Ray repeats those whose actor died.
        workers: actors, which hold the model once; with 0 as many as the cluster has room for.
        cores: of one actor.
        address: of a cluster, "auto" for the one that this machine belongs to, or "local" for a new one here.

    Raises:
        InputError: there is no such cluster, or it is too small.
        CrossrankError: whatever the work raises; also when a part has ended several workers.
    """
    _join(address, workers * cores)
    try:
        room = int(ray.cluster_resources().get("CPU", 0)) // cores
        if room < max(workers, 1):
            raise InputError(
                f"the Ray cluster has cores for {room} workers of {cores}, not for {max(workers, 1)}: ask for fewer "
                "workers or threads, or for a larger cluster"
            )
        yield from _results(work, parts, min(workers or room, len(parts)), cores)
    finally:
        ray.shutdown()


def _join(address: str, cores: int) -> None:
    if ray.is_initialized():
        raise InputError("this process uses a Ray cluster already: call ray.shutdown() first, or run this elsewhere")
    try:
        if address == "local":
            ray.init(num_cpus=cores or None, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray raises plain ones, too, when it does not come up in time.
        raise InputError(
            f"no Ray cluster at {address!r} ({str(error).splitlines()[0]}): start one with `ray start --head`, name "
            "its address, or use 'local'; where the machine is busy, try again"
        ) from error


def _results(work: Work, parts: Sequence[Part], actors: int, cores: int) -> Iterator[tuple[Part, bytes]]:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    rows = [{"begin": part.begin, "end": part.end} for part in parts]
    data = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        _Actor,
        fn_constructor_args=(work,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=2),
        num_cpus=cores,
    )
    for row in data.iter_rows():
        if row["error"]:
            raise getattr(errors, row["error"], CrossrankError)(row["message"])
        yield Part(row["begin"], row["end"]), row["file"]
