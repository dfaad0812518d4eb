"""The saver for graphs that run with ``ainvoke``. On SQLite it serves ``invoke``, too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Self

from langgraph.checkpoint.serde.base import SerializerProtocol

from eventstore import AsyncEventStore, async_store
from eventstore.closing import AsyncClosing
from graph.langgraph.base import StoreSaver


class AsyncEventStoreSaver(StoreSaver[AsyncEventStore], AsyncClosing):
    """Keeps LangGraph's threads in an event store, for async code.

    Args:
        target: an ``AsyncEventStore``, or whatever one can be opened on: a path, a URL, an
            ``AsyncEngine``, an ``aiosqlite.Connection`` or a ``psycopg_pool.AsyncConnectionPool``.
        serde: as for :class:`~graph.langgraph.EventStoreSaver`.
        on_conflict: as there.
        ttl: as there.
        options: as for :class:`~eventstore.AsyncEventStore`.

    Its sync methods work on SQLite. On PostgreSQL they would have to wait for the event loop that
    owns the connections, and raise ``RuntimeError``.
    """

    def __init__(
        self,
        target: AsyncEventStore | async_store.Target = ":memory:",
        *,
        serde: SerializerProtocol | None = None,
        on_conflict: str = "last",
        ttl: timedelta | None = None,
        **options: Any,
    ) -> None:
        owned = not isinstance(target, AsyncEventStore)
        opened = (
            target if isinstance(target, AsyncEventStore) else AsyncEventStore(target, **options)
        )
        super().__init__(opened, owned, serde, on_conflict, ttl)

    @classmethod
    @asynccontextmanager
    async def from_conn_string(cls, conn_string: str, **options: Any) -> AsyncIterator[Self]:
        """Open a path or URL for the length of an ``async with`` block."""
        async with cls(conn_string, **options) as saver:
            yield saver

    async def setup(self) -> None:
        """Create or migrate the tables. Optional: the first use does it."""
        await self.store.setup()

    async def close(self) -> None:
        """Close the store, unless the caller opened it."""
        if self._owned:
            await self.store.close()
