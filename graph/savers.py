"""Checkpointers by the names that LangGraph's users know: each is an event store to be used.

A saver opens (or is given) an event store and closes what it opened. Everything else a
compiled graph asks of it, it asks of ``saver.store``. The asynchronous ones are for graphs
that are run with ``ainvoke``; on SQLite and in memory either kind serves both.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from eventstore import AsyncEventStore, EventStore

if TYPE_CHECKING:
    from eventstore import async_store, store


class _Saver:
    """An event store under the name of a checkpointer."""

    def __init__(self, opened: EventStore) -> None:
        self.store = opened

    def setup(self) -> None:
        """Create or migrate the tables; done by itself at first use."""
        self.store.setup()

    def delete_thread(self, thread_id: str) -> None:
        """Remove a thread whole; threads forked from it stay whole.

        Raises:
            ThreadNotFoundError: no such thread.
        """
        self.store.delete_thread(thread_id)

    def close(self) -> None:
        """Close what was opened here; a connection or pool that the caller made stays open."""
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _AsyncSaver:
    """An asynchronous event store under the name of a checkpointer."""

    def __init__(self, opened: AsyncEventStore) -> None:
        self.store = opened

    async def setup(self) -> None:
        """Create or migrate the tables; done by itself at first use."""
        await self.store.setup()

    async def delete_thread(self, thread_id: str) -> None:
        """Remove a thread whole; threads forked from it stay whole.

        Raises:
            ThreadNotFoundError: no such thread.
        """
        await self.store.delete_thread(thread_id)

    async def close(self) -> None:
        """Close what was opened here; a connection or pool that the caller made stays open."""
        await self.store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


class MemorySaver(_Saver):
    """Keeps threads in memory: for tests and development. The same code as on disk."""

    def __init__(self, **options: Any) -> None:
        super().__init__(EventStore(":memory:", **options))


class SqliteSaver(_Saver):
    """Keeps threads in a SQLite file.

    Args:
        target: a path, a SQLAlchemy URL or engine, or a ``sqlite3.Connection``, which stays
            the caller's: it is never closed, and its transactions are not shared.
        options: as for :class:`~eventstore.EventStore` (``tenant``, ``durability``, …).
    """

    def __init__(self, target: store.Target, **options: Any) -> None:
        super().__init__(EventStore(target, **options))

    @classmethod
    @contextmanager
    def from_conn_string(cls, conn_string: str, **options: Any) -> Iterator[Self]:
        """Open a path or URL for the length of a ``with`` block."""
        with cls(conn_string, **options) as saver:
            yield saver


class AsyncSqliteSaver(_AsyncSaver):
    """Keeps threads in a SQLite file, for event loops.

    Args:
        target: as for :class:`SqliteSaver`, or an ``aiosqlite.Connection`` to a file, which
            stays the caller's: only the name of its file is used.
        options: as for :class:`~eventstore.AsyncEventStore`.
    """

    def __init__(self, target: async_store.Target, **options: Any) -> None:
        super().__init__(AsyncEventStore(target, **options))

    @classmethod
    @asynccontextmanager
    async def from_conn_string(cls, conn_string: str, **options: Any) -> AsyncIterator[Self]:
        """Open a path or URL for the length of an ``async with`` block."""
        async with cls(conn_string, **options) as saver:
            yield saver


class PostgresSaver(_Saver):
    """Keeps threads in PostgreSQL.

    Args:
        target: a URL (``postgresql://user:password@host/database``), a SQLAlchemy engine, or a
            ``psycopg_pool.ConnectionPool``, which stays the caller's and open.
        options: as for :class:`~eventstore.EventStore` (``tenant``, ``pool_max_size``, …).
    """

    def __init__(self, target: store.Target, **options: Any) -> None:
        super().__init__(EventStore(target, **options))

    @classmethod
    @contextmanager
    def from_conn_string(cls, conn_string: str, **options: Any) -> Iterator[Self]:
        """Open a URL for the length of a ``with`` block."""
        with cls(conn_string, **options) as saver:
            yield saver


class AsyncPostgresSaver(_AsyncSaver):
    """Keeps threads in PostgreSQL, for event loops.

    Args:
        target: a URL, an ``AsyncEngine``, or a ``psycopg_pool.AsyncConnectionPool``, which
            stays the caller's and open.
        options: as for :class:`~eventstore.AsyncEventStore`.
    """

    def __init__(self, target: async_store.Target, **options: Any) -> None:
        super().__init__(AsyncEventStore(target, **options))

    @classmethod
    @asynccontextmanager
    async def from_conn_string(cls, conn_string: str, **options: Any) -> AsyncIterator[Self]:
        """Open a URL for the length of an ``async with`` block."""
        async with cls(conn_string, **options) as saver:
            yield saver
