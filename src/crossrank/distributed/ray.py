"""Workers that are actors of a Ray cluster: Ray places them, starts dead ones again and sends their parts again."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from crossrank import extras
from crossrank.distributed.parts import Part
from crossrank.distributed.work import Work, Worker, file_of
from crossrank.errors import CrossrankError, InputError

extras.require("ray", extra="ray")

import ray  # noqa: E402
from ray.exceptions import RayError  # noqa: E402


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
    # Neither has an end: the work counts the tries of a part, and refuses one that ends worker after worker.
    actor_class = ray.remote(num_cpus=cores, max_restarts=-1, max_task_retries=-1)(Worker)
    waiting = iter(parts)
    doing: dict[Any, tuple[Any, Part]] = {}

    def give(actor: Any) -> None:
        if (part := next(waiting, None)) is not None:
            doing[actor.answer.remote(part)] = (actor, part)

    for _ in range(actors):
        give(actor_class.remote(work))
    while doing:
        # This process sleeps until the first answer. Ray Data's loop wakes up ten times a second, which took 6 % of a
        # core here, and has nothing to plan: a part is a range of rows in a file (LOG.md).
        for done in ray.wait(list(doing))[0]:
            actor, part = doing.pop(done)
            file = _file(done)
            give(actor)
            yield part, file


def _file(done: Any) -> bytes:
    try:
        answer = ray.get(done)
    except RayError as failed:
        raise CrossrankError(
            f"Ray could not have a part done ({str(failed).splitlines()[0]}): run this again, what is done is kept"
        ) from failed
    return file_of(answer)
