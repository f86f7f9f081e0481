"""A PostgreSQL server with pgvector that the tests start themselves, and a line to it that they can cut."""

from __future__ import annotations

import socket
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit

import pytest


@contextmanager
def serving() -> Iterator[str]:
    """The address of a server that ends with the block, and its data with it. Skips where it is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of a library it uses, about the environment.
        pgserver = pytest.importorskip("pgserver", reason="pgserver is not installed: PostgreSQL cannot be started")
    psycopg = pytest.importorskip("psycopg", reason="needs the postgres extra")
    # Not pytest's own folder: nobody but root may enter that, and as root the server runs as another user.
    with tempfile.TemporaryDirectory() as folder:
        server = pgserver.get_server(folder)
        try:
            with psycopg.connect(server.get_uri()) as connection:
                connection.execute("CREATE EXTENSION vector")
            yield server.get_uri()
        finally:
            server.cleanup()


class Line:
    """A TCP address that leads to the server. `still` makes it silent: connections stay, and nothing goes through."""

    def __init__(self, uri: str) -> None:
        self._socket = parse_qs(urlsplit(uri).query)["host"][0] + "/.s.PGSQL.5432"
        self.still = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = [self._listener]
        self.address = f"host=127.0.0.1 port={self._listener.getsockname()[1]} user=postgres dbname=postgres"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End it, and every connection through it."""
        for end in self._open:
            end.close()

    def _accept(self) -> None:
        try:
            while True:
                here, _ = self._listener.accept()
                there = socket.socket(socket.AF_UNIX)
                there.connect(self._socket)
                self._open += [here, there]
                for source, sink in ((here, there), (there, here)):
                    threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()
        except OSError:
            pass

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while part := source.recv(65_536):
                if not self.still.is_set():
                    sink.sendall(part)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass
