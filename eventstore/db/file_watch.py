"""Notices that the file of a SQLite database was removed or replaced while a store has it open.

SQLite goes on writing to a file that has no name any more: nothing fails, and everything is gone
when the process ends. So each write is acknowledged only after a look at the name, which costs a
microsecond; reads look once a second.
"""

from __future__ import annotations

import os
import time
from typing import Any, Final

from sqlalchemy import Connection

from eventstore.errors import StoreUnavailableError

LOOK_EVERY_S: Final = 1.0
_WAL: Final = "eventstore_wal"
_NEVER: Final = (-1, -1)


class FileWatch:
    """The file of one store: which it was when it was opened, and whether it still is.

    Attributes:
        next_look: when reads look at it again, by ``time.monotonic``.
    """

    def __init__(self) -> None:
        self.next_look = float("inf")
        self._path: str | None = None
        self._wal = ""
        self._file: tuple[int, int] | None = None
        self._is_filled = False

    def begin(self, conn: Connection) -> None:
        """Learn from a connection which file it is; a database in memory has none."""
        raw: Any = conn.connection.dbapi_connection
        databases = raw.execute("PRAGMA database_list").fetchall()
        self._path = next(row[2] for row in databases if row[1] == "main") or None
        if self._path is not None:
            self._wal = f"{self._path}-wal"
            self._file = _identity(_stat(self._path))
            self.next_look = time.monotonic() + LOOK_EVERY_S

    def look(self) -> None:
        """Look whether the file is still there.

        Raises:
            StoreUnavailableError: it was removed, replaced or emptied.
        """
        if self._path is None:
            return
        self.next_look = 0.0  # if it fails: look again before anything is done
        found = _stat(self._path)
        if found is None or _identity(found) != self._file or self._is_emptied(found):
            raise _gone(self._path)
        self.next_look = time.monotonic() + LOOK_EVERY_S

    def wrote(self, conn: Connection) -> None:
        """Look whether the file that a connection has written to, and its log, are still there.

        Raises:
            StoreUnavailableError: one of them was removed, replaced or emptied.
        """
        if self._path is None:
            return
        self.look()
        log = _identity(_stat(self._wal))
        known = conn.info.get(_WAL)
        if known is None:  # the first write, or the file had a rollback journal until now
            conn.info[_WAL] = log
        elif log != known:
            self._path, self._file, self.next_look = self._wal, _NEVER, 0.0  # it stays lost
            raise _gone(self._wal)

    def _is_emptied(self, found: os.stat_result) -> bool:
        """Whether a database that had contents is a file of no bytes."""
        self._is_filled = self._is_filled or found.st_size > 0
        return self._is_filled and found.st_size == 0


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116 - at each write; a Path costs twice as much
    except OSError:
        return None


def _identity(found: os.stat_result | None) -> tuple[int, int] | None:
    """What distinguishes a file from another one of its name; ``None``: there is none."""
    return None if found is None else (found.st_dev, found.st_ino)


def _gone(path: str) -> StoreUnavailableError:
    return StoreUnavailableError(
        f"the file {path!r} was removed, replaced or emptied while this store had it open: what is "
        "written goes nowhere; stop the processes that use it, put the file back or restore a "
        "backup, and open the store anew"
    )
