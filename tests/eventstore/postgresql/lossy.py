"""A plain TCP proxy between a client and a server, which counts round trips and loses answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import make_url


class Lossy:
    """A proxy on loopback before a server, which loses an answer and the connection when asked.

    Attributes:
        trips: answers after which the server was ready for the next request.
    """

    def __init__(self, url: str) -> None:
        folder = make_url(url).query["host"]
        assert isinstance(folder, str)
        self._server = f"{folder}/.s.PGSQL.5432"
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = str(self._listener.getsockname()[1])
        through = make_url(url).update_query_dict({"host": "127.0.0.1", "port": port})
        self.url = through.render_as_string(hide_password=False)
        self.loses = False
        self.trips = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._server)
                for each in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._forward, args=each, daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                # The last answer to a pipeline says that the session is idle: it is committed.
                if answers and self.loses and data.endswith(b"Z\0\0\0\x05I"):
                    self.loses = False
                    break
                if answers:
                    self.trips += data.count(b"Z\0\0\0\x05")
                sink.sendall(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextmanager
def lossy(url: str) -> Iterator[Lossy]:
    proxy = Lossy(url)
    try:
        yield proxy
    finally:
        proxy.close()
