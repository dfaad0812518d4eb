"""A real server for an application, in a thread of the tests' process."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette

SECONDS_MAX = 20.0


@contextmanager
def served(app: Starlette) -> Iterator[str]:
    """Serve an application on a free port of this machine; its address."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            give_up_at = time.monotonic() + SECONDS_MAX
            while not server.started:
                assert thread.is_alive() and time.monotonic() < give_up_at, "it did not start"
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(SECONDS_MAX)
            assert not thread.is_alive(), "it did not stop"
