"""A database opened as an event store, for event loops: the twin of :mod:`eventstore.db.database`.

Operations are the same synchronous functions; SQLAlchemy runs them over an asynchronous
driver. A task that is cancelled inside a transaction leaves it rolled back, or committed
if the commit was already under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Engine

from eventstore.concurrency import Asyncio
from eventstore.db import dialects, migrations
from eventstore.db.database import Database, translated, within
from eventstore.db.transactions import Transactions
from eventstore.errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

T = TypeVar("T")


class AsyncDatabase(Transactions):
    """An open database; waiting for it lets the event loop go on."""

    blocks = False

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        owned: bool,
        now_us: Callable[[], int],
        read_only: bool = False,
    ) -> None:
        super().__init__(read_only)
        self.engine = engine
        self._owned = owned
        self._now_us = now_us
        self._begin = dialects.beginner(engine.sync_engine)
        self.concurrency = self.asyncio = Asyncio()
        self.blocking = None
        self._under_way = 0
        self._at_rest = asyncio.Event()

    async def transact(
        self, mode: dialects.Mode, operation: Callable[..., T], args: Any, kwargs: Mapping[str, Any]
    ) -> T:
        """One try of one transaction."""
        self._under_way += 1
        try:
            with translated():
                async with self.engine.connect() as conn:
                    return await conn.run_sync(within, self._begin, mode, operation, args, kwargs)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._at_rest.set()

    async def prepare(self) -> None:
        """Create or migrate the tables."""
        if await self.transact("read", migrations.pending, (), {}):
            await self.transact("write", migrations.migrate, (self._now_us(),), {})

    async def aclose(self) -> None:
        """Close what was opened here. A second call does nothing.

        Transactions that are under way come to their end: a connection that is given back to
        a pool that is gone would never be closed.
        """
        if self._closed:
            return
        self._closed = True
        while self._under_way:
            self._at_rest.clear()
            await self._at_rest.wait()
        if self._owned:
            await self.engine.dispose()


def open_database(
    target: Any, options: dialects.Options, now_us: Callable[[], int]
) -> Database | AsyncDatabase:
    """A database as an event loop should use it: see :mod:`eventstore.async_store`.

    Raises:
        ConfigurationError: the target cannot be opened.
    """
    if type(target).__module__.partition(".")[0] == "aiosqlite":
        if options.read_only:
            raise ConfigurationError("read_only needs the file's path, not a connection to it")
        return Database(
            dialects.open_file_of(target, options.durability), owned=True, now_us=now_us
        )
    engine, owned = dialects.open_async_engine(target, options)
    if isinstance(engine, Engine):
        return Database(engine, owned=owned, now_us=now_us, read_only=options.read_only)
    return AsyncDatabase(engine, owned=owned, now_us=now_us, read_only=options.read_only)
