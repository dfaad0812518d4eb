"""Engines that borrow their connections from a psycopg pool of the caller's.

Promises that the pool gets each back with the settings that it had, or closed if it is useless.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Engine, create_engine
from sqlalchemy.dialects import registry
from sqlalchemy.pool import NullPool

from eventstore.concurrency import completed
from eventstore.db.postgresql.opening import DRIVER, OURS, TWINS, binary, driver
from eventstore.errors import ConfigurationError

if TYPE_CHECKING:
    from psycopg_pool import AsyncConnectionPool, ConnectionPool
    from sqlalchemy.ext.asyncio import AsyncEngine


_DRIVER: Final = "postgresql+eventstore_borrowing"
registry.register("postgresql.eventstore_borrowing", f"{__package__}.dialects", "Borrowing")
_BORROWED_URL: Final = f"{_DRIVER}://"
_BORROWED_OPTIONS: Final = {
    "poolclass": NullPool,
    "use_native_hstore": False,
    "pool_reset_on_return": None,
    "hide_parameters": True,
    "execution_options": {OURS: True},
}


@dataclass(frozen=True)
class _Settings:
    """Settings of a caller's connection that we change while we use it, and restore."""

    autocommit: bool
    isolation_level: Any
    row_factory: Any
    cursor_factory: Any


def _settings(conn: Any) -> _Settings:
    return _Settings(conn.autocommit, conn.isolation_level, conn.row_factory, conn.cursor_factory)


def around_pool(pool: ConnectionPool[Any]) -> Engine:
    """An engine that borrows its connections from a caller's pool."""
    from psycopg.rows import tuple_row

    lent: dict[int, _Settings] = {}

    def borrow() -> Any:
        conn = pool.getconn()
        lent[id(conn)] = _settings(conn)
        conn.autocommit = True
        conn.isolation_level = None
        conn.row_factory = tuple_row
        conn.cursor_factory = binary(driver().Cursor)
        return conn

    def give_back(conn: Any, closed: bool = False) -> None:
        before = lent.pop(id(conn))
        try:
            if closed:
                conn.close()
            if not conn.closed:
                conn.rollback()  # a transaction is open only if something went wrong
                conn.autocommit = before.autocommit
                conn.isolation_level = before.isolation_level
            conn.row_factory = before.row_factory
            conn.cursor_factory = before.cursor_factory
        finally:
            pool.putconn(conn)

    engine = create_engine(_BORROWED_URL, creator=borrow, **_BORROWED_OPTIONS)
    engine.dialect.give_back = give_back  # type: ignore[attr-defined]
    return engine


def around_async_pool(pool: AsyncConnectionPool[Any]) -> AsyncEngine:
    """As :func:`around_pool`, for the event loop that the pool was opened on."""
    from psycopg.rows import tuple_row
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.util import await_only

    lent: dict[int, _Settings] = {}

    async def borrow() -> Any:
        conn = await pool.getconn()
        lent[id(conn)] = _settings(conn)
        await conn.set_autocommit(True)
        await conn.set_isolation_level(None)
        conn.row_factory = tuple_row
        conn.cursor_factory = binary(driver().AsyncCursor)
        return conn

    async def take_back(conn: Any, closed: bool) -> None:
        before = lent.pop(id(conn))
        try:
            if closed:
                await conn.close()
            if not conn.closed:
                await conn.rollback()
                await conn.set_autocommit(before.autocommit)
                await conn.set_isolation_level(before.isolation_level)
            conn.row_factory = before.row_factory
            conn.cursor_factory = before.cursor_factory
        finally:
            await pool.putconn(conn)

    def give_back(adapted: Any, closed: bool = False) -> None:
        await_only(completed(take_back(adapted.driver_connection, closed)))

    engine = create_async_engine(_BORROWED_URL, async_creator=borrow, **_BORROWED_OPTIONS)
    engine.sync_engine.dialect.give_back = give_back  # type: ignore[attr-defined]
    TWINS[engine.sync_engine.pool] = partial(_open_like_pool, pool)
    return engine


def borrows(engine: Engine) -> bool:
    """Whether an engine takes its connections from a caller's pool."""
    return engine.url.drivername == _DRIVER


def _open_like_pool(pool: Any) -> Engine:
    """An engine that connects as a caller's asynchronous pool does.

    Raises:
        ConfigurationError: the pool computes that anew for each connection, on its event loop.
    """
    conninfo, options = pool.conninfo, pool.kwargs or {}
    if callable(conninfo) or callable(options):
        raise ConfigurationError(
            "the pool computes its connection settings on the event loop, where no thread can "
            "renew the leases of runs; give the pool fixed settings, or the store a URL"
        )

    def connect() -> Any:
        settings = {**options, "autocommit": True, "cursor_factory": binary(driver().Cursor)}
        settings.pop("row_factory", None)
        return driver().connect(conninfo, **settings)

    url = f"{DRIVER}://"
    twin = {"use_native_hstore": False, "pool_reset_on_return": None, "hide_parameters": True}
    options_of_ours = {"isolation_level": "AUTOCOMMIT", "execution_options": {OURS: True}}
    return create_engine(url, creator=connect, poolclass=NullPool, **twin, **options_of_ours)
