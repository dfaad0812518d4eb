"""Drivers' errors in our words, and whether a transaction that failed may be tried again."""

from __future__ import annotations

from types import TracebackType
from typing import Literal

from sqlalchemy import exc

from eventstore.db import sqlite
from eventstore.db.postgresql import errors as postgresql
from eventstore.errors import (
    ConfigurationError,
    CorruptEventError,
    EventStoreError,
    StoreBusyError,
    StoreUnavailableError,
)


class RolledBack(StoreUnavailableError):
    """A transaction failed for a passing reason, and nothing of it was stored."""


class CommitInDoubt(StoreUnavailableError):
    """The connection was lost during the commit: whether it went through is unknown."""


class Translation:
    """A context manager that turns drivers' errors into ours.

    ``IntegrityError`` stays as it is: only the operation can explain it.
    """

    __slots__ = ()

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, UnicodeDecodeError):
            # SQLite quotes a damaged schema in its message, which the driver then cannot decode.
            raise CorruptEventError(
                "the database file is damaged: a text of its schema does not decode to UTF-8; run "
                "eventstore verify, and restore a backup"
            ) from error
        if not isinstance(error, exc.SQLAlchemyError) or isinstance(error, exc.IntegrityError):
            return
        if classify(error):
            raise RolledBack(message(error)) from error
        translated = translate(error)
        if translated is not None:
            raise translated from error


TRANSLATION = Translation()


def classify(error: BaseException) -> Literal["again", "lost"] | None:
    """Whether a whole transaction that failed with this error is worth another attempt.

    Returns:
        ``"again"``: it was rolled back for certain, because of others that have ended since.
        ``"lost"``: the connection was lost, or leads to a server that has become read-only; if
        the transaction was being committed, its outcome is unknown.
        ``None``: another attempt would not help.
    """
    original = error.orig if isinstance(error, exc.DBAPIError) else error
    if postgresql.again(original):
        return "again"
    if isinstance(error, exc.DBAPIError):
        if error.connection_invalidated:
            return "lost"
        if postgresql.refused_by_client(original, error.statement):
            return None
    return "lost" if postgresql.lost(original) else None


def translate(error: Exception) -> EventStoreError | None:
    """Our error for a driver's exception; ``None`` where it has to stay what it is.

    Only the driver's message about the database is kept: not the statement, nor its parameters,
    nor anything of the URL.
    """
    if isinstance(error, exc.TimeoutError):
        return StoreBusyError(
            "every connection of the pool stayed in use for pool_timeout seconds; raise "
            "pool_max_size, or run fewer operations at the same time"
        )
    if not isinstance(error, exc.DBAPIError):
        return None
    if isinstance(error, exc.OperationalError | exc.DatabaseError | exc.InterfaceError):
        if isinstance(error.orig, sqlite.ERRORS):
            return sqlite.translate(message(error))
        if isinstance(error, exc.DataError) or (
            not error.connection_invalidated
            and postgresql.busy(error.orig) is None
            and postgresql.refused_by_client(error.orig, error.statement)
        ):
            return _of_value(message(error))
        return _of_server(message(error), postgresql.busy(error.orig))
    return None


def _of_value(words: str) -> ConfigurationError:
    if "NUL (0x00)" in words:
        return ConfigurationError(f"a name must not contain a NUL character: {words}")
    return ConfigurationError(f"a value cannot be sent to the database: {words}")


def _of_server(words: str, busy: Literal["pool", "server"] | None) -> EventStoreError:
    if busy == "pool":
        return StoreBusyError(f"the caller's pool had no free connection: {words}")
    if busy == "server":
        return StoreBusyError(f"the database is overloaded: {words}")
    return StoreUnavailableError(f"PostgreSQL failed: {words}")


def is_duplicate(error: exc.DBAPIError) -> bool:
    """Whether another process made the same table, or a row of the same key, meanwhile."""
    return isinstance(error, exc.IntegrityError) or postgresql.is_duplicate(error.orig)


def message(error: exc.SQLAlchemyError) -> str:
    """The driver's own message, without the statement and its parameters."""
    return str(error.orig if isinstance(error, exc.DBAPIError) else error).strip()
