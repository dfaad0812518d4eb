"""Checkpointers under the names that LangGraph's users know.

A saver opens an event store and closes it; a compiled graph uses ``saver.store`` for everything
else. The asynchronous savers are for graphs that run with ``ainvoke``; on SQLite and in memory a
saver of either kind serves both ``invoke`` and ``ainvoke``.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from typing import Any, ClassVar, Final, Protocol, Self

from eventstore import (
    AsyncEventStore,
    ConfigurationError,
    EventStore,
    ThreadNotFoundError,
    async_store,
    store,
)
from eventstore.closing import AsyncClosing, Closing
from eventstore.db.engines import backend_of
from eventstore.db.options import Backend
from eventstore.workers import discard
from graph.build.options import refuse_left_out
from graph.checkpoints import Checkpoints


class InvalidCheckpointerError(ConfigurationError, TypeError):
    """What was passed as the checkpointer is none."""


class Saver(Protocol):
    """What ``compile(checkpointer=…)`` takes besides a store: something that has one."""

    @property
    def store(self) -> EventStore | AsyncEventStore:
        """Where events go."""


def store_of(checkpointer: object) -> EventStore | AsyncEventStore:
    """The store of what a caller passed as the checkpointer.

    Raises:
        InvalidCheckpointerError: it is no checkpointer; says what to pass instead.
    """
    if not isinstance(checkpointer, type) and not _is_langgraphs(checkpointer):
        found = checkpointer
        if not isinstance(found, EventStore | AsyncEventStore):
            found = inspect.getattr_static(found, "store", None) and getattr(found, "store", None)
        if isinstance(found, EventStore | AsyncEventStore):
            return found
    raise InvalidCheckpointerError(_correction(checkpointer))


def _is_langgraphs(checkpointer: object) -> bool:
    """Whether it is a saver of ours for LangGraph's graphs."""
    return any(cls.__module__.startswith("graph.langgraph.") for cls in type(checkpointer).__mro__)


def _correction(given: object) -> str:
    """What to pass as the checkpointer instead of this."""
    example = "such as SqliteSaver('runs.db'), PostgresSaver(url) or an EventStore"
    if isinstance(given, type):
        return f"checkpointer is the class {given.__name__}; pass an instance of it, {example}"
    kind = type(given).__qualname__
    if _is_langgraphs(given):
        return (
            f"checkpointer is an {kind}, which is for LangGraph's own StateGraph; pass "
            "SqliteSaver(path), PostgresSaver(url) or its store, checkpointer.store"
        )
    if _leads_to_database(given):
        return (
            f"checkpointer is a {kind} that leads to a database; pass a checkpointer that is "
            "opened on it: SqliteSaver(path) or PostgresSaver(url)"
        )
    if inspect.isawaitable(given):
        discard(given)
        return f"checkpointer is a {kind} that was not awaited; pass the result of awaiting it"
    module = type(given).__module__.partition(".")[0]
    if module == "contextlib":  # from_conn_string(…)
        word = "with" if isinstance(given, AbstractContextManager) else "async with"
        return (
            f"checkpointer is a context manager ({kind}) that was not entered; write "
            f"`{word} … as saver:` and pass saver, or pass an open checkpointer, {example}"
        )
    if inspect.isroutine(given):
        return f"checkpointer is a function; call it and pass its result, {example}"
    return f"checkpointer is a {module}.{kind}; pass a checkpointer of this library, {example}"


def _leads_to_database(given: Any) -> bool:
    if isinstance(given, str | os.PathLike):
        return True
    try:
        return bool(backend_of(given))
    except ConfigurationError:
        return False


_NAMES: Final[dict[Backend, str]] = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


def _check(saver: type, backend: Backend | None, target: object) -> None:
    """Refuse to open a saver on a database of the other kind."""
    if backend is None:
        return
    found = backend_of(target)
    if found != backend:
        expected = (
            "the path of a file"
            if backend == "sqlite"
            else "postgresql://user:password@host:port/database"
        )
        kinds: dict[Backend, str] = {"sqlite": "SqliteSaver", "postgresql": "PostgresSaver"}
        other = ("Async" if issubclass(saver, _AsyncDatabaseSaver) else "") + kinds[found]
        raise ConfigurationError(
            f"{saver.__name__} is for {_NAMES[backend]}, and the target leads to {_NAMES[found]}; "
            f"pass {expected}, or use {other}"
        )


class _Saver(Checkpoints, Closing):
    """A checkpointer for sync code: an :class:`~eventstore.EventStore` of its own."""

    backend: ClassVar[Backend | None] = None

    def __init__(self, target: store.Target, **options: Any) -> None:
        _check(type(self), self.backend, target)
        self.store = EventStore(target, **refuse_left_out(options))

    def setup(self) -> None:
        """Create or migrate the tables. Optional: the first use does it."""
        self.store.setup()

    def delete_thread(self, thread_id: str) -> None:
        """Delete a thread as a whole, if there is one; threads forked from it stay intact."""
        with suppress(ThreadNotFoundError):
            self.store.delete_thread(thread_id)

    async def adelete_thread(self, thread_id: str) -> None:
        """:meth:`delete_thread` for async code."""
        core = self.store.core
        with suppress(ThreadNotFoundError):
            await core.transactions.asyncio.run(core.delete_thread(thread_id))

    def close(self) -> None:
        """Close the store. A connection, pool or engine that the caller passed stays open."""
        self.store.close()


class _DatabaseSaver(_Saver):
    """A saver that LangGraph's code opens with ``from_conn_string``."""

    @classmethod
    @contextmanager
    def from_conn_string(cls, conn_string: str, **options: Any) -> Iterator[Self]:
        """Open a path or URL for the length of a ``with`` block."""
        with cls(conn_string, **options) as saver:
            yield saver


class _AsyncDatabaseSaver(Checkpoints, AsyncClosing):
    """A checkpointer for async code: an :class:`~eventstore.AsyncEventStore` of its own."""

    backend: ClassVar[Backend]

    def __init__(self, target: async_store.Target, **options: Any) -> None:
        _check(type(self), self.backend, target)
        self.store = AsyncEventStore(target, **refuse_left_out(options))

    @classmethod
    @asynccontextmanager
    async def from_conn_string(cls, conn_string: str, **options: Any) -> AsyncIterator[Self]:
        """Open a path or URL for the length of an ``async with`` block."""
        async with cls(conn_string, **options) as saver:
            yield saver

    async def setup(self) -> None:
        """Create or migrate the tables. Optional: the first use does it."""
        await self.store.setup()

    async def delete_thread(self, thread_id: str) -> None:
        """Delete a thread as a whole, if there is one; threads forked from it stay intact."""
        with suppress(ThreadNotFoundError):
            await self.store.delete_thread(thread_id)

    async def adelete_thread(self, thread_id: str) -> None:
        """The same as :meth:`delete_thread`."""
        await self.delete_thread(thread_id)

    async def close(self) -> None:
        """Close the store. A connection, pool or engine that the caller passed stays open."""
        await self.store.close()


class MemorySaver(_Saver):
    """Keeps threads in memory, for tests and development, with the same code as on disk.

    Args:
        options: as for :class:`~eventstore.EventStore`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(":memory:", **options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


InMemorySaver = MemorySaver
"""The newer of LangGraph's two names for :class:`MemorySaver`."""


class SqliteSaver(_DatabaseSaver):
    """Keeps threads in a SQLite file.

    Args:
        target: a path, a SQLAlchemy URL or engine, or a ``sqlite3.Connection``. The caller's
            connection is never closed, and its transactions are not shared.
        options: as for :class:`~eventstore.EventStore` (``tenant``, ``durability``, …).
    """

    backend = "sqlite"


class PostgresSaver(_DatabaseSaver):
    """Keeps threads in PostgreSQL.

    Args:
        target: a URL (``postgresql://user:password@host/database``), a SQLAlchemy engine, or a
            ``psycopg_pool.ConnectionPool``. The caller's engine or pool is never closed.
        options: as for :class:`~eventstore.EventStore` (``tenant``, ``pool_max_size``, …).
    """

    backend = "postgresql"


class AsyncSqliteSaver(_AsyncDatabaseSaver):
    """Keeps threads in a SQLite file, for async code.

    Args:
        target: as for :class:`SqliteSaver`, or an ``aiosqlite.Connection`` to a file, of which
            only the file's name is used.
        options: as for :class:`~eventstore.AsyncEventStore`.
    """

    backend = "sqlite"


class AsyncPostgresSaver(_AsyncDatabaseSaver):
    """Keeps threads in PostgreSQL, for async code.

    Args:
        target: a URL, an ``AsyncEngine``, or a ``psycopg_pool.AsyncConnectionPool``. The
            caller's engine or pool is never closed.
        options: as for :class:`~eventstore.AsyncEventStore`.
    """

    backend = "postgresql"
