"""Counts the round trips between a client and a PostgreSQL server.

The counter is a Unix socket in front of the server's. Each message of the client that follows an
answer counts as one round trip, so pipelines, prepared statements and everything else that a
driver does are counted as they are on the wire. It slows the client down: nothing is timed
meanwhile.
"""

from __future__ import annotations

import socket
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

SOCKET: Final = ".s.PGSQL.5432"
CHUNK: Final = 1 << 16


class RoundTripCounter:
    """A proxy in front of the server's socket.

    Args:
        url: the URL of a database on the server.
        folder: the folder of the server's own socket.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self._server = str(folder / SOCKET)
        self._folder = tempfile.TemporaryDirectory(prefix="round-trips-")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(Path(self._folder.name) / SOCKET))
        self._listener.listen()
        self._lock = threading.Lock()
        self._count = 0
        parts = urlsplit(url)
        query = {**dict(parse_qsl(parts.query)), "host": self._folder.name}
        self.target = urlunsplit(parts._replace(query=urlencode(query)))
        self._threads: list[threading.Thread] = []
        self._begin(self._accept)

    def _begin(self, run: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=run, args=args, name="round-trips", daemon=True)
        self._threads.append(thread)
        thread.start()

    @property
    def count(self) -> int:
        """Round trips so far, over all connections."""
        with self._lock:
            return self._count

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:  # the listener was closed
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._server)
            connection = _Connection()
            self._begin(self._forward, peer, server, connection, True)
            self._begin(self._forward, server, peer, connection, False)

    def _forward(
        self, source: socket.socket, sink: socket.socket, connection: _Connection, from_client: bool
    ) -> None:
        with source, suppress(OSError):  # either end may close the connection
            while data := source.recv(CHUNK):
                with self._lock:
                    self._count += from_client and connection.answered
                    connection.answered = not from_client
                sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # closing alone does not wake accept()
        self._listener.close()
        for thread in self._threads:
            thread.join()
        self._folder.cleanup()


class _Connection:
    """The state of one connection: whether the server sent the last message."""

    answered = True
