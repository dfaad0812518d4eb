"""Ways from a client to a PostgreSQL server: its socket, PgBouncer, a network with a delay.

A route changes the URL of a database and nothing else. The network is TCP on loopback through
:mod:`benchmarks.backends.slow_network`; with a delay of 0 it shows what that itself costs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from tests.pgbouncer import SOCKET
from tests.pgbouncer import pgbouncer as proxy
from tests.postgres import Server

POOLED: Final = "benchmark-behind-pgbouncer"
"""The application's name in URLs that lead to PgBouncer, so that peers prepare no statements."""

_CONNECTIONS: Final = 20


class Route:
    """A way to a server that is open.

    Attributes:
        name: added to the names of workloads; empty: the server's own socket.
    """

    def __init__(self, name: str, parameters: dict[str, str]) -> None:
        self.name = name
        self._parameters = parameters

    def url(self, url: str) -> str:
        """The URL of a database, by this way."""
        parts = urlsplit(url)
        query = {**dict(parse_qsl(parts.query)), **self._parameters}
        return urlunsplit(parts._replace(query=urlencode(query)))


@contextmanager
def route(server: Server, *, pgbouncer: bool, network_ms: float | None) -> Iterator[Route]:
    """Open a way to a server.

    Args:
        pgbouncer: through PgBouncer in transaction mode, beside the server.
        network_ms: through a network with this round-trip time; ``None``: by a Unix socket.
    """
    with ExitStack() as stack:
        names, parameters, folder = [], {}, server.folder
        if pgbouncer:
            folder = stack.enter_context(proxy(server, _CONNECTIONS))
            parameters = {"host": str(folder), "application_name": POOLED}
            names.append("PgBouncer")
        if network_ms is not None:
            port = stack.enter_context(_network(folder / SOCKET, network_ms))
            parameters |= {"host": "127.0.0.1", "port": str(port)}
            names.append(f"network of {network_ms:g} ms")
        yield Route("".join(f", {name}" for name in names), parameters)


def add_route(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose the way to PostgreSQL."""
    parser.add_argument(
        "--pgbouncer", action="store_true", help="go through PgBouncer in transaction mode"
    )
    parser.add_argument(
        "--network-ms",
        type=float,
        metavar="MS",
        help="go through a network (a proxy on loopback) with this round-trip time; 0: TCP alone",
    )


def check_route(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse these options for another database."""
    if options.backend != "postgres" and (options.pgbouncer or options.network_ms is not None):
        parser.error("--pgbouncer and --network-ms need --backend postgres")


@contextmanager
def _network(target: Path, delay_ms: float) -> Iterator[int]:
    """Run a proxy before a socket; its TCP port on loopback."""
    command = [sys.executable, "-m", "benchmarks.backends.slow_network"]
    with _ended(
        subprocess.Popen([*command, str(target), str(delay_ms)], stdout=subprocess.PIPE, text=True)
    ) as running:
        assert running.stdout is not None
        yield int(running.stdout.readline())


@contextmanager
def _ended(process: subprocess.Popen[Any]) -> Iterator[subprocess.Popen[Any]]:
    with process:
        try:
            yield process
        finally:
            process.kill()
