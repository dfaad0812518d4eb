"""A database opened as an event store, by blocking: connections, set-up, transactions, errors.

Owns everything that ends a transaction; its twin for event loops is
:mod:`eventstore.db.async_database`, and what both do inside one is :func:`within`. Encoding,
decoding and waiting happen outside. Drivers' errors leave here in our own words.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, exc

from eventstore.concurrency import Asyncio, Blocking, StoreThreads
from eventstore.db import dialects, migrations
from eventstore.db.transactions import Interrupted, LostConnection, Transactions

T = TypeVar("T")


class Database(Transactions):
    """An open database; waiting for it blocks the thread."""

    blocks = True

    def __init__(
        self, engine: Engine, *, owned: bool, now_us: Callable[[], int], read_only: bool = False
    ) -> None:
        super().__init__(read_only)
        self.engine = engine
        self._owned = owned
        self._now_us = now_us
        self._turns = dialects.turns(engine)
        self._begin = dialects.beginner(engine)
        self._threads = StoreThreads()
        self.concurrency = self.blocking = Blocking()
        self.asyncio = Asyncio(self._threads)

    async def transact(
        self, mode: dialects.Mode, operation: Callable[..., T], args: Any, kwargs: Mapping[str, Any]
    ) -> T:
        """One try of one transaction."""
        return self._transact(mode, operation, args, kwargs)

    def _transact(
        self, mode: dialects.Mode, operation: Callable[..., T], args: Any, kwargs: Mapping[str, Any]
    ) -> T:
        with self._turns, translated(), self.engine.connect() as conn:
            return within(conn, self._begin, mode, operation, args, kwargs)

    async def prepare(self) -> None:
        """Create or migrate the tables."""
        missing = self._transact("read", migrations.pending, (), {})
        with self._turns, translated():
            dialects.settle(self.engine)
        if missing:
            self._transact("write", migrations.migrate, (self._now_us(),), {})

    def close(self) -> None:
        """Close what was opened here. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._threads.close()
        if self._owned:
            self.engine.dispose()

    async def aclose(self) -> None:
        """Close, for an event loop: what is under way may take a while to come to its end."""
        if self._closed or self._threads.are_idle:
            self.close()
        else:
            await asyncio.to_thread(self.close)


def within(
    conn: Connection,
    begin: dialects.Begin,
    mode: dialects.Mode,
    operation: Callable[..., T],
    args: Any,
    kwargs: Mapping[str, Any],
) -> T:
    """Run an operation in a transaction on this connection.

    Raises:
        Interrupted: it failed for a passing reason, and nothing of it happened.
        LostConnection: its connection went away during the commit.
    """
    transaction = begin(conn, mode)
    try:
        result = operation(conn, *args, **kwargs)
    except BaseException as error:
        transaction.rollback()
        # A statement alone may have been committed before its answer was lost.
        if mode == "statement" and isinstance(error, exc.SQLAlchemyError):
            _raise_if_lost(error)
        raise
    try:
        transaction.commit()
    except exc.SQLAlchemyError as error:
        dialects.abandon(conn)
        _raise_if_lost(error)
        raise
    return result


def _raise_if_lost(error: exc.SQLAlchemyError) -> None:
    if dialects.classify(error) == "lost":
        raise LostConnection(dialects.said(error)) from error


@contextmanager
def translated() -> Iterator[None]:
    """Drivers' errors in our words; ``IntegrityError`` is for the operation to explain."""
    try:
        yield
    except exc.IntegrityError:
        raise
    except migrations.Overtaken as error:
        raise Interrupted("another process was setting the database up") from error
    except exc.SQLAlchemyError as error:
        if dialects.classify(error):
            raise Interrupted(dialects.said(error)) from error
        ours = dialects.translate(error)
        if ours is None:
            raise
        raise ours from error
