"""A real PgBouncer in front of a server, for tests and benchmarks."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests import postgres

PROGRAM: Final = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
"""The proxy, where it is installed."""

SOCKET: Final = ".s.PGSQL.5432"
_STARTS_S: Final = 10.0

_CONFIG: Final = """
[databases]
* = host={host} user=postgres
[pgbouncer]
listen_addr =
listen_port = 5432
unix_socket_dir = {folder}
auth_type = any
pool_mode = {mode}
default_pool_size = {connections}
max_client_conn = 500
logfile = {folder}/log
"""


@contextmanager
def pgbouncer(
    server: postgres.Server, connections: int, mode: str = "transaction"
) -> Iterator[Path]:
    """The folder of the socket that leads through a proxy to a server.

    Args:
        connections: to the server, for each database.
        mode: for how long a client keeps one of them: ``transaction`` or ``session``.

    Raises:
        FileNotFoundError: it is not installed.
    """
    if PROGRAM is None:
        raise FileNotFoundError("pgbouncer is not installed; install the package pgbouncer")
    folder = Path(tempfile.mkdtemp(prefix="bouncer-"))
    config = folder / "ini"
    settings = _CONFIG.format(host=server.folder, folder=folder, connections=connections, mode=mode)
    config.write_text(settings)
    whom: dict[str, Any] = {}
    if os.geteuid() == 0:  # which it refuses to be run by
        account = postgres.unprivileged()
        for path in (folder, config):
            os.chown(path, account.pw_uid, account.pw_gid)
        whom = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    running = subprocess.Popen([PROGRAM, "-q", str(config)], cwd=folder, **whom)
    try:
        _await_socket(folder / SOCKET)
        yield folder
    finally:
        running.kill()
        running.wait()
        shutil.rmtree(folder)


def _await_socket(path: Path) -> None:
    give_up_at = time.monotonic() + _STARTS_S
    while True:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
                return
            except OSError:
                if time.monotonic() > give_up_at:
                    raise
        time.sleep(0.01)
