"""A database opened as an event store, for event loops: the twin of :mod:`eventstore.database`.

Operations are the same synchronous functions; SQLAlchemy runs them over an asynchronous
driver. A task that is cancelled inside a transaction leaves it rolled back, or committed
if the commit was already under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import dialects, migrations
from eventstore.database import Database, translated, within
from eventstore.transactor import Transactor

T = TypeVar("T")


class AsyncDatabase(Transactor):
    """An open database; waiting for it lets the event loop go on."""

    blocks = False

    def __init__(self, engine: AsyncEngine, *, owned: bool, now_us: Callable[[], int]) -> None:
        super().__init__()
        self.engine = engine
        self._owned = owned
        self._now_us = now_us
        self._begin = dialects.beginner(engine.sync_engine)

    async def transact(
        self, write: bool, operation: Callable[..., T], args: Any, kwargs: Mapping[str, Any]
    ) -> T:
        """One try of one transaction."""
        with translated():
            async with self.engine.connect() as conn:
                return await conn.run_sync(within, self._begin, write, operation, args, kwargs)

    async def prepare(self) -> None:
        """Create or migrate the tables."""
        if await self.transact(False, migrations.pending, (), {}):
            await self.transact(True, migrations.migrate, (self._now_us(),), {})

    async def sleep(self, seconds: float) -> None:
        """Let others go on for a while."""
        await asyncio.sleep(seconds)

    async def perform(self, operation: Awaitable[T]) -> T:
        """Run a whole operation for an event loop: here that is to await it."""
        return await operation

    async def aclose(self) -> None:
        """Close what was opened here. A second call does nothing."""
        if self._owned and not self._closed:
            await self.engine.dispose()
        self._closed = True


def open_database(
    target: Any, durability: dialects.Durability, now_us: Callable[[], int]
) -> Database | AsyncDatabase:
    """A database as an event loop should use it: see :mod:`eventstore.async_store`.

    Raises:
        ConfigurationError: the target cannot be opened.
    """
    engine, owned = dialects.open_async_engine(target, durability)
    if isinstance(engine, Engine):
        return Database(engine, owned=owned, now_us=now_us)
    return AsyncDatabase(engine, owned=owned, now_us=now_us)
