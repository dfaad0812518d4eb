"""A tap on the line between peers and a PostgreSQL server, which counts round trips.

A peer that connects to the tap's socket reaches the server, and each time that it says
something after having been answered counts as a round trip. So pipelines, prepared
statements and whatever else a driver does are counted as the line sees them. It takes time:
nothing is timed while it listens.
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


class Tap:
    """A Unix socket beside the server's.

    Args:
        url: of a database on the server.
        folder: where the server's own socket is.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self._server = str(folder / SOCKET)
        self._folder = tempfile.TemporaryDirectory(prefix="tap-")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(Path(self._folder.name) / SOCKET))
        self._listener.listen()
        self._lock = threading.Lock()
        self._trips = 0
        parts = urlsplit(url)
        query = {**dict(parse_qsl(parts.query)), "host": self._folder.name}
        self.target = urlunsplit(parts._replace(query=urlencode(query)))
        self._threads: list[threading.Thread] = []
        self._begin(self._accept)

    def _begin(self, run: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=run, args=args, name="tap", daemon=True)
        self._threads.append(thread)
        thread.start()

    @property
    def trips(self) -> int:
        """Round trips so far, over all connections."""
        with self._lock:
            return self._trips

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:  # that is how it is closed
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._server)
            line = _Line()
            self._begin(self._pass_on, peer, server, line, True)
            self._begin(self._pass_on, server, peer, line, False)

    def _pass_on(self, source: socket.socket, sink: socket.socket, line: _Line, asks: bool) -> None:
        with source, suppress(OSError):  # one end hangs up, and so does the other
            while data := source.recv(CHUNK):
                with self._lock:
                    self._trips += asks and line.answered
                    line.answered = not asks
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
        self._listener.shutdown(socket.SHUT_RDWR)  # which closing alone would not tell accept()
        self._listener.close()
        for thread in self._threads:
            thread.join()
        self._folder.cleanup()


class _Line:
    """One connection; whether the server had the last word."""

    answered = True
