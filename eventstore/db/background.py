"""Writing beside others on SQLite, where one writes at a time and all wait for the same disk.

Owns what background work does so that writers hardly notice it: it reads and decides before it
takes the lock, holds the lock for the shorter the more recently somebody else has written, waits
for no disk when it commits, and moves the write-ahead log into the file, seldom and all at once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from sqlalchemy import Connection

from eventstore.db import sqlite
from eventstore.db.engines import Lender

SHARE: Final = 0.01
"""A transaction holds the lock for so much of the time since somebody else has written."""

QUIET_S: Final = 5.0
"""When nobody has for so long, there is nobody to be considerate of."""

_RECENT_S: Final = 60.0
"""What was written since a transaction that is longer ago may be as old."""

ROUND_S: Final = 0.25
"""How long the log grows before it is moved into the file."""

_LOG_PAGES: Final = 800
"""Pages at which work without rounds moves the log; writers do so at 1,000."""

_MOVES: Final = 3
"""What was written while the log was being moved is moved then, and is less each time."""

_PATIENCE_MS: Final = 100
"""How long background work waits for the lock before it lets go of the log."""

_NORMAL: Final = 1  # of PRAGMA synchronous
_VERSION: Final = "eventstore_version"


class Background:
    """The background work of one store.

    Attributes:
        quiet_s: for how long nobody else has written, as its last transaction saw it. On a server,
            where nobody looks, 0.
        is_alone: false when this process has appended since then.
        moved_s: how long it took to move the log, which kept the disk busy; 0 if that was not done
            at the end of the last transaction.
    """

    def __init__(self, lender: Lender) -> None:
        self.quiet_s = 0.0
        self.is_alone = True
        self.moved_s = 0.0
        self._written_at = 0.0
        self._looked_at = -math.inf
        self._lender = lender
        self._in_rounds = False
        self._round_ends = 0.0

    def lock_s(self, seconds: float) -> float:
        """How long a transaction may hold the lock, which may hold it so long in any case."""
        return max(seconds, SHARE * min(self.quiet_s, QUIET_S))

    def lock(self, conn: Connection) -> bool:
        """Take the lock of SQLite's writers; until then the transaction has only read.

        Returns:
            Whether what it has read is still true. On PostgreSQL it is: rows are locked one by one.
        """
        if conn.dialect.name != "sqlite":
            return True
        raw: Any = conn.connection.dbapi_connection
        raw.rollback()
        timeout = sqlite.ask(conn, "busy_timeout")
        try:
            raw.execute(f"PRAGMA busy_timeout = {_PATIENCE_MS}")
            with suppress(*sqlite.ERRORS):
                raw.execute("BEGIN IMMEDIATE")
            raw.execute(f"PRAGMA busy_timeout = {timeout}")
            if not raw.in_transaction:
                self._lender.unpin()  # the one that has the lock may be waiting to move the log
                raw.execute("BEGIN IMMEDIATE")
        except sqlite.ERRORS as error:
            raise sqlite.translate(str(error)) from error
        return bool(conn.info.get(_VERSION) == sqlite.ask(conn, "data_version"))

    def begin_rounds(self) -> None:
        """From now on, let the log grow for a while, and then move it into the file at once.

        A page that many transactions change is so written once, and pages side by side together:
        it is what the disk has to do here, at random places, that other writers wait for. They do
        not move the log meanwhile: it is pinned. Ends with :meth:`end_rounds`. With an engine of
        somebody else the log is not pinned, and moved as by work without rounds.
        """
        self._in_rounds = True

    def end_rounds(self) -> None:
        """Let writers move the log again."""
        self._in_rounds = False
        self._lender.unpin()

    @contextmanager
    def using(self, conn: Connection) -> Iterator[None]:
        """A connection to SQLite as background work uses it, for one transaction.

        Without a write-ahead log its settings stay: a commit without the disk could ruin the file.
        """
        self._look(conn)
        if sqlite.ask(conn, "journal_mode") != "wal":
            yield
            return
        self.moved_s = 0.0
        if self._in_rounds and self._lender.pin():
            self._round_ends = time.monotonic() + ROUND_S
        wanted = {"synchronous": _NORMAL, "wal_autocheckpoint": _LOG_PAGES}
        before = {name: int(sqlite.ask(conn, name)) for name in wanted}
        raw: Any = conn.connection.dbapi_connection
        try:
            for name, value in wanted.items():
                raw.execute(f"PRAGMA {name} = {min(value, before[name])}")
            yield
            if self._lender.pinned and time.monotonic() >= self._round_ends:
                self._lender.unpin()
                self.moved_s = move_log(conn)
        finally:
            if not conn.invalidated:
                for name, old in before.items():
                    raw.execute(f"PRAGMA {name} = {old}")

    def _look(self, conn: Connection) -> None:
        """Look whether others have written since the last transaction."""
        now, version = time.monotonic(), sqlite.ask(conn, "data_version")
        if not self.is_alone:
            self._written_at = now
        elif now - self._looked_at > _RECENT_S:
            self._written_at = now - QUIET_S  # an append or two may find out that this is wrong
        elif conn.info.get(_VERSION, version) != version:
            self._written_at = now
        self._looked_at, self.is_alone, conn.info[_VERSION] = now, True, version
        self.quiet_s = now - self._written_at


def move_log(conn: Connection) -> float:
    """Move SQLite's write-ahead log into the file, beside writers; how many seconds it took."""
    began = time.monotonic()
    if sqlite.ask(conn, "journal_mode") != "wal":
        return 0.0
    raw: Any = conn.connection.dbapi_connection
    for _ in range(_MOVES):
        version = sqlite.ask(conn, "data_version")
        raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if version == sqlite.ask(conn, "data_version"):
            break
    return time.monotonic() - began
