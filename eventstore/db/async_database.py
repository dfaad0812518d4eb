"""A database opened as an event store, for event loops: the twin of :mod:`eventstore.db.database`.

Operations are the same synchronous functions; SQLAlchemy runs them over an asynchronous
driver. A task that is cancelled inside a transaction leaves it rolled back, or committed
if the commit was already under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Engine

from eventstore.concurrency import abandon
from eventstore.db import dialects, migrations
from eventstore.db.database import Database, translated, within
from eventstore.db.transactions import Transactions
from eventstore.errors import ConfigurationError, StoreClosedError

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

    async def sleep(self, seconds: float) -> None:
        """Let others go on for a while."""
        await asyncio.sleep(seconds)

    async def perform(self, operation: Awaitable[T]) -> T:
        """Run a whole operation for an event loop: here that is to await it."""
        return await operation

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


class NamedLater(Database):
    """The file of a caller's ``aiosqlite.Connection``: only an event loop can ask for its name.

    The connection itself stays the caller's. Operations run on our own connections to the same
    file, through the module that opened it: a second copy of the SQLite library in one process
    would drop the locks of the first.
    """

    def __init__(
        self, connection: Any, durability: dialects.Durability, now_us: Callable[[], int]
    ) -> None:
        Transactions.__init__(self)
        self._connection = connection
        self._durability = durability
        self._now_us = now_us
        self._threads = None
        self._is_open = False

    async def perform(self, operation: Awaitable[T]) -> T:
        """Run a whole operation on a thread, once the file is known."""
        if not self._is_open:
            try:
                if self._closed:
                    raise StoreClosedError
                await self._open()
            except BaseException:
                abandon(operation)
                raise
        return await super().perform(operation)

    async def _open(self) -> None:
        async with self._connection.execute("PRAGMA database_list") as cursor:
            path = next(row[2] for row in await cursor.fetchall() if row[1] == "main")
        if not path:
            raise ConfigurationError(
                "an aiosqlite connection to memory cannot be shared with the event store; pass "
                "':memory:' instead, or connect to a file"
            )
        if self._closed:  # meanwhile
            raise StoreClosedError
        if not self._is_open:
            engine = dialects.open_file(path, self._durability)
            super().__init__(engine, owned=True, now_us=self._now_us)
            self._is_open = True

    async def prepare(self) -> None:
        """Create or migrate the tables."""
        if not self._is_open:
            raise ConfigurationError(
                "an event store on an aiosqlite connection works in an event loop: call the "
                "asynchronous methods, or pass the file's path"
            )
        await super().prepare()

    def close(self) -> None:
        """Close what was opened here: never the caller's connection."""
        if self._is_open:
            super().close()
        self._closed = True


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
        return NamedLater(target, options.durability, now_us)
    engine, owned = dialects.open_async_engine(target, options)
    if isinstance(engine, Engine):
        return Database(engine, owned=owned, now_us=now_us, read_only=options.read_only)
    return AsyncDatabase(engine, owned=owned, now_us=now_us, read_only=options.read_only)
