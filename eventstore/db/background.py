"""Writing beside others on SQLite, where one writes at a time and all wait for the same disk.

Owns what background work does so that writers hardly notice it: it reads and decides before it
takes the lock, takes the lock for the shorter the more recently somebody else has written, waits
for no disk, and moves the write-ahead log into the file before a writer has to.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection

from eventstore.db import sqlite

SHARE: Final = 0.01
"""A transaction holds the lock for so much of the time since somebody else has written."""

QUIET_S: Final = 5.0
"""When nobody has for so long, there is nobody to be considerate of."""

_LOG_PAGES: Final = 800
"""Pages in the log at which background work moves it into the file; writers do so at 1,000."""

_LOG_PAGES_BESIDE: Final = 50
"""The same beside others: what they have to write waits until the disk has written these."""

_NORMAL: Final = 1  # of PRAGMA synchronous
_VERSION: Final = "eventstore_version"


class Background:
    """The background work of one store.

    Attributes:
        quiet_s: for how long nobody else has written, as its last transaction saw it. On a server,
            where nobody looks, 0.
        is_alone: false when another thread of this process has written since then.
    """

    def __init__(self) -> None:
        self.quiet_s = 0.0
        self.is_alone = False
        self._written_at = 0.0

    def lock_s(self, seconds: float) -> float:
        """How long a transaction may hold the lock, which may hold it so long in any case."""
        return max(seconds, SHARE * min(self.quiet_s, QUIET_S))

    @contextmanager
    def using(self, conn: Connection) -> Iterator[None]:
        """A connection to SQLite as background work uses it, for one transaction.

        Without a write-ahead log its settings stay: a commit without the disk could ruin the file.
        """
        self._look(conn)
        if sqlite.ask(conn, "journal_mode") != "wal":
            yield
            return
        pages = _LOG_PAGES if self.quiet_s >= QUIET_S else _LOG_PAGES_BESIDE
        wanted = {"synchronous": _NORMAL, "wal_autocheckpoint": pages}
        before = {name: int(sqlite.ask(conn, name)) for name in wanted}
        raw: Any = conn.connection.dbapi_connection
        try:
            for name, value in wanted.items():
                raw.execute(f"PRAGMA {name} = {min(value, before[name])}")
            yield
        finally:
            if not conn.invalidated:
                for name, old in before.items():
                    raw.execute(f"PRAGMA {name} = {old}")

    def _look(self, conn: Connection) -> None:
        """Look whether others have written since the last transaction."""
        now, version = time.monotonic(), sqlite.ask(conn, "data_version")
        if not self.is_alone or conn.info.get(_VERSION) != version:
            self._written_at, self.is_alone, conn.info[_VERSION] = now, True, version
        self.quiet_s = now - self._written_at


def lock(conn: Connection) -> bool:
    """Take the lock of SQLite's writers; until then the transaction has only read.

    Returns:
        Whether what it has read is still true. On PostgreSQL it is: rows are locked one by one.
    """
    if conn.dialect.name != "sqlite":
        return True
    raw: Any = conn.connection.dbapi_connection
    raw.rollback()
    try:
        raw.execute("BEGIN IMMEDIATE")
    except sqlite.ERRORS as error:
        raise sqlite.translate(str(error)) from error
    return bool(conn.info.get(_VERSION) == sqlite.ask(conn, "data_version"))
