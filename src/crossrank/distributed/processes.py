"""Workers that are processes of this machine, or none at all. One that dies is replaced, and its part done again."""

from __future__ import annotations

import multiprocessing
import signal
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from crossrank.distributed.parts import Part
from crossrank.distributed.work import Work, Worker, file_of
from crossrank.distributed.workfolder import MOST_TRIES
from crossrank.errors import InputError


def run(work: Work, parts: Sequence[Part], workers: int) -> Iterator[tuple[Part, bytes]]:
    """Each part with its file, in the order in which they are done.

    Args:
        work: what to do.
        parts: each is done once.
        workers: processes; with 0 this one does the work. They end with this process, however it ends.

    Raises:
        CrossrankError: whatever the work raises; also when a part has ended several workers, or these do not come up.
    """
    if not workers:
        worker = Worker(work)
        yield from ((part, file_of(worker.answer(part))) for part in parts)
        return
    pool = _Pool(work, parts)
    try:
        for _ in range(min(workers, len(parts))):
            pool.start()
        yield from pool.results()
    finally:
        pool.close()


class _Pool:
    def __init__(self, work: Work, parts: Sequence[Part]) -> None:
        self._work = work
        self._waiting = deque(parts)
        self._busy: dict[Connection, tuple[BaseProcess, Part]] = {}
        self._died: Counter[Part] = Counter()
        # A fork would copy the threads' locks of whatever the caller has loaded.
        self._context = multiprocessing.get_context("spawn")

    def start(self) -> None:
        """A new worker, with a part to do."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._work), daemon=True)
        process.start()
        # Held by the worker alone, so that its death ends the connection.
        theirs.close()
        self._give(ours, process)

    def _give(self, connection: Connection, process: BaseProcess) -> None:
        part = self._waiting.popleft()
        self._busy[connection] = process, part
        try:
            connection.send(part)
        except OSError:
            return  # It has died: reading its answer says so.

    def results(self) -> Iterator[tuple[Part, bytes]]:
        """What the workers answer, until all parts are done."""
        while self._busy:
            for connection in wait(list(self._busy)):
                assert isinstance(connection, Connection)
                process, part = self._busy.pop(connection)
                try:
                    answer = connection.recv()
                except (EOFError, OSError):
                    connection.close()
                    process.join()
                    self._again(part)
                    continue
                if self._waiting:
                    self._give(connection, process)
                else:
                    connection.close()
                    process.join()
                yield part, file_of(answer)

    def _again(self, part: Part) -> None:
        """Give a part whose worker has died to a new one.

        A worker that begins counts itself (`WorkFolder.begin`), and the one too many says so. One that dies before it
        can begin would be replaced for ever.
        """
        self._died[part] += 1
        if self._died[part] > MOST_TRIES:
            raise InputError(
                "worker processes end before they begin to work, see their own messages. A script that asks for them "
                'has to do so below `if __name__ == "__main__":`, because each of them reads it, too; without workers '
                "(0) this process works alone"
            )
        self._waiting.appendleft(part)
        self.start()

    def close(self) -> None:
        """End the workers that are left, whatever they do."""
        for connection, (process, _) in self._busy.items():
            process.terminate()
            process.join()
            connection.close()


def _serve(connection: Connection, work: Work) -> None:
    """A worker's life. It ends when the other side closes the connection, which a dying process does, too."""
    # Ctrl-C reaches the whole group of processes; the leading one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    worker = Worker(work)
    while True:
        try:
            part = connection.recv()
        except (EOFError, OSError):
            return
        answer = worker.answer(part)
        try:
            connection.send(answer)
        except OSError:
            return
