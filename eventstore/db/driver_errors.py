"""Drivers' errors in our words, and whether a transaction that failed may be tried again."""

from __future__ import annotations

from types import TracebackType
from typing import Literal

from sqlalchemy import exc

from eventstore.db import postgresql, sqlite
from eventstore.errors import (
    ConfigurationError,
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
        if not isinstance(error, exc.SQLAlchemyError) or isinstance(error, exc.IntegrityError):
            return
        if classify(error):
            raise RolledBack(message(error)) from error
        translated = translate(error)
        if translated is not None:
            raise translated from error


TRANSLATION = Translation()


def classify(error: BaseException) -> Literal["again", "lost"] | None:
    """Whether a whole transaction that failed like this is worth another try.

    Returns:
        ``"again"``: it was rolled back for sure, and met others that have gone on since.
        ``"lost"``: the connection went away (or leads to a server that only reads now); if
        the transaction was being committed, nobody knows yet whether it was.
        ``None``: trying again would not help.
    """
    original = error.orig if isinstance(error, exc.DBAPIError) else error
    if postgresql.again(original):
        return "again"
    if postgresql.lost(original):
        return "lost"
    return "lost" if isinstance(error, exc.DBAPIError) and error.connection_invalidated else None


def translate(error: Exception) -> EventStoreError | None:
    """What a driver's exception means in our words; ``None`` when it is not for us to say.

    Of the driver's own words only those are kept that it says about the database: not the
    statement, nor its parameters, nor anything of the URL.
    """
    if isinstance(error, exc.TimeoutError):
        return StoreBusyError(
            "every connection of the pool stayed in use for as long as was waited "
            "(pool_timeout); let it have more (pool_max_size), or do less at the same time"
        )
    if not isinstance(error, exc.DBAPIError):
        return None
    if isinstance(error, exc.OperationalError | exc.DatabaseError | exc.InterfaceError):
        if isinstance(error.orig, sqlite.ERRORS):
            return sqlite.translate(message(error))
        return _of_server(message(error), postgresql.busy(error.orig))
    return None


def _of_server(words: str, busy: Literal["pool", "server"] | None) -> EventStoreError:
    if "NUL (0x00)" in words:
        return ConfigurationError(f"a name must not hold a NUL character: {words}")
    if busy == "pool":
        return StoreBusyError(f"the caller's pool had no connection to give: {words}")
    if busy == "server":
        return StoreBusyError(f"the database had too much to do: {words}")
    return StoreUnavailableError(f"PostgreSQL failed: {words}")


def is_duplicate(error: exc.DBAPIError) -> bool:
    """Whether a table, or a row of that key, was made by somebody else in the meantime."""
    return isinstance(error, exc.IntegrityError) or postgresql.is_duplicate(error.orig)


def message(error: exc.SQLAlchemyError) -> str:
    """What the driver itself said, without the statement and what was in it."""
    return str(error.orig if isinstance(error, exc.DBAPIError) else error).strip()
