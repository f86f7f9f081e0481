"""Where a server listens: had early, and by one server only."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from crossrank.errors import InputError


def bound(host: str, port: int) -> socket.socket:
    """A socket that has this place, and does not listen yet: whoever connects meanwhile is refused, and does not wait.

    It has the place alone: of two servers that are started together one is told so here, before it loads its models.
    Linux would give it to both of them where both say SO_REUSEADDR and neither listens. That is said only where the
    place is not free otherwise, such as for a minute after a server's end, when its last connections are remembered.

    Raises:
        InputError: it cannot be had.
    """
    with told(None, host, port):
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # The protocol must be named: asyncio sets TCP_NODELAY only on sockets that say they are TCP, and without it
        # each reply waits 40 ms for the client's delayed acknowledgement of its headers (measured).
        made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    with told(made, host, port):
        try:
            made.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or os.name != "posix":
                raise
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((host, port))
            # Whoever comes next conflicts with this one again; where the kernel goes by what was said when it was
            # bound, it learns of it at `listen` only.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    return made


@contextmanager
def told(made: socket.socket | None, host: str, port: int) -> Iterator[None]:
    """Say what to do about a place that cannot be had, and give the socket back."""
    try:
        yield
    except (OSError, OverflowError) as error:
        if made is not None:
            made.close()
        raise InputError(f"cannot listen on {host} port {port} ({error}): choose another --host or --port") from error
