"""Engines of our own for PostgreSQL, and how a transaction begins on any engine.

Owns the settings of connections, and how long to wait for one and to trust an idle one. Nothing
here keeps state in a session, so that all of it works behind a proxy that gives each transaction
another session; where statements are prepared is decided in
:mod:`eventstore.db.postgresql.preparing`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from sqlalchemy import URL, Connection, Engine, Transaction, create_engine, event
from sqlalchemy.pool import NullPool

from eventstore.db.options import TRANSACTIONAL_WRITES, Durability, Mode, PoolOptions
from eventstore.db.postgresql.errors import disconnected, lost, refused_by_client
from eventstore.db.postgresql.preparing import DECIDES, decide, name_of, threshold_of
from eventstore.errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

CHECK_AFTER_S: Final = 30.0
"""A connection that was idle for longer is pinged before it is used."""

DRIVER: Final = "postgresql+psycopg"
_NAMES: Final = ("postgres", "postgresql", DRIVER)
_DEFAULTS: Final = {
    "application_name": "graph-eventstore",
    "client_encoding": "utf8",
    # A server that vanished silently, as in a failover, is given up after these seconds, and not
    # after the quarter of an hour that TCP would wait.
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
_SECRETS: Final = ("password", "sslpassword")
OURS: Final = "eventstore_connections"
TWINS: Final[WeakKeyDictionary[Any, Callable[[], Engine]]] = WeakKeyDictionary()
"""By the pool of an asynchronous engine: how to connect to its database without an event loop."""
_IDLE_SINCE: Final = "eventstore_idle_since"


# --- engines of our own -----------------------------------------------------------------


def is_url_of_ours(url: URL) -> bool:
    """Whether a URL is for PostgreSQL, with any driver."""
    return url.drivername.split("+")[0] in _NAMES


def open_engine(url: URL, pool: PoolOptions, durability: Durability = "full") -> Engine:
    """An engine with a pool of its own.

    A URL's query may contain any setting of libpq, which overrides ours, and
    ``prepare_threshold``: after how many uses a statement is prepared, or ``none``. By default
    statements are prepared where a connection leads to the server itself.
    """
    options = _options(url, pool, durability)
    options["connect_args"]["cursor_factory"] = binary(driver().Cursor)
    return _set_up(create_engine(_url(url), **options), url)


def open_async_engine(url: URL, pool: PoolOptions, durability: Durability = "full") -> AsyncEngine:
    """As :func:`open_engine`, for an event loop."""
    from sqlalchemy.ext.asyncio import create_async_engine

    options = _options(url, pool, durability)
    options["connect_args"]["cursor_factory"] = binary(driver().AsyncCursor)
    engine = create_async_engine(_url(url), **options)
    _set_up(engine.sync_engine, url)
    TWINS[engine.sync_engine.pool] = partial(_open_unpooled, url, durability)
    return engine


def sync_twin(engine: Any) -> Engine:
    """A sync engine for the database of an asynchronous one, which connects for each use.

    It is made from what the other was made from: the URL, or what a caller's pool connects with.
    """
    options = engine.sync_engine.get_execution_options()
    kept = {name: options[name] for name in ("schema_translate_map",) if name in options}
    make = TWINS.get(engine.sync_engine.pool) or partial(_open_unpooled, engine.url)
    return make().execution_options(**kept)


def _open_unpooled(url: URL, durability: Durability = "full") -> Engine:
    given = _options(url, PoolOptions(), durability)
    options = {name: each for name, each in given.items() if not name.startswith("pool_")}
    options["connect_args"]["cursor_factory"] = binary(driver().Cursor)
    del options["max_overflow"]
    return create_engine(_url(url), poolclass=NullPool, **options)


def _url(url: URL) -> URL:
    if url.drivername not in _NAMES:
        raise ConfigurationError(
            f"the event store uses PostgreSQL through psycopg 3, not {url.drivername!r}; start "
            "the URL with postgresql://"
        )
    password = url.query.get("password", url.password)
    if isinstance(password, tuple):
        raise ConfigurationError("the database URL contains more than one password")
    # As its own component a password is hidden wherever the URL is shown; in the query it is not.
    found = url.difference_update_query([*_SECRETS, "prepare_threshold"])
    return found.set(drivername=DRIVER, password=password)


def _options(url: URL, pool: PoolOptions, durability: Durability) -> dict[str, Any]:
    threshold = threshold_of(url)
    connect_args: dict[str, Any] = {
        "prepare_threshold": None if threshold == "auto" else threshold,
        **{name: value for name, value in _DEFAULTS.items() if name not in url.query},
    }
    if durability == "normal":
        given = url.query.get("options", "")
        connect_args["options"] = f"{given} -c synchronous_commit=off".strip()
    if "sslpassword" in url.query:
        connect_args["sslpassword"] = url.query["sslpassword"]
    # QueuePool keeps its size and closes further connections; a size of 0 would mean no bound.
    kept = max(pool.min_size, 1)
    return {
        "connect_args": connect_args,
        "use_native_hstore": False,  # saves a query for a type that we do not use
        "pool_size": kept,
        "max_overflow": pool.max_size - kept,
        "pool_timeout": pool.timeout_s,
        "pool_use_lifo": True,  # so that surplus connections become idle
        # We begin and end transactions ourselves; switching modes at each use would cost more.
        "isolation_level": "AUTOCOMMIT",
        "pool_reset_on_return": None,
        "hide_parameters": True,  # payloads and names have no place in messages or logs
        "execution_options": {OURS: True, DECIDES: True},
    }


def driver() -> Any:
    import psycopg

    return psycopg


@cache
def binary(cursor: type[Any]) -> type[Any]:
    """A cursor class of ours: with binary results (as text, bytes would be twice as long), and
    names of prepared statements that mean the same in every session."""

    class BinaryCursor(cursor):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.format = driver().pq.Format.BINARY

        def _get_prepared(self, query: Any, prepare: bool | None = None) -> Any:
            prepares, name = super()._get_prepared(query, prepare)
            if name.startswith(b"_pg3_"):  # a number, to be prepared now
                name = name_of(query.query, query.types)
            return prepares, name

    return BinaryCursor


def _set_up(engine: Engine, url: URL) -> Engine:
    dialect, pool = engine.dialect, engine.pool
    errors: Any = dialect.loaded_dbapi.Error

    def check(connection: Any, record: Any, _proxy: Any) -> None:
        since = record.info.get(_IDLE_SINCE)
        if since is None or time.monotonic() - since < CHECK_AFTER_S:
            return
        try:
            dialect.do_ping(connection)
        except errors as error:
            raise disconnected("a connection was lost while idle", error) from error

    def note(_connection: Any, record: Any) -> None:
        record.info[_IDLE_SINCE] = time.monotonic()

    event.listen(pool, "connect", _check_encoding)
    event.listen(pool, "checkout", check)
    event.listen(pool, "checkin", note)
    event.listen(engine, "handle_error", _give_up_pool)
    decide(engine, threshold_of(url))
    return engine


def _check_encoding(connection: Any, _record: Any) -> None:
    encoding = connection.info.parameter_status("server_encoding")
    if encoding not in (None, "UTF8"):  # a proxy may not report it
        raise ConfigurationError(
            f"this database stores text as {encoding}, which cannot store every name; use one "
            "that was created with ENCODING 'UTF8'"
        )


def _give_up_pool(context: Any) -> None:
    # After a failover the connected server may be a standby: its connections work, but are
    # useless; so the pool is emptied, as if the server had gone away.
    refused = refused_by_client(context.original_exception, context.statement)
    if lost(context.original_exception) and (context.is_disconnect or not refused):
        context.is_disconnect = True


def beginner(engine: Engine) -> Callable[[Connection, Mode], Transaction]:
    """The function that begins a transaction on a connection of this engine.

    A read is not a transaction: each of its statements sees what was committed when it began.
    Rows that it reads were appended and are never changed, and where it finds that some were
    removed meanwhile it reads again; so it saves two round trips. A write waits for rows that
    others have locked and then sees their new state: its operations check again after each
    lock, and would have to be repeated if they saw an older state.
    """
    if not engine.get_execution_options().get(OURS):

        def begin_elsewhere(conn: Connection, mode: Mode) -> Transaction:
            # Set back when the connection returns to the caller's pool.
            level = "REPEATABLE READ" if mode == "snapshot_read" else "AUTOCOMMIT"
            if mode in TRANSACTIONAL_WRITES:
                level = "READ COMMITTED"
            conn.execution_options(isolation_level=level)
            return conn.begin()

        return begin_elsewhere

    def begin(conn: Connection, mode: Mode) -> Transaction:
        transaction = conn.begin()
        if mode in TRANSACTIONAL_WRITES:  # otherwise our connections commit each statement
            conn.exec_driver_sql("BEGIN ISOLATION LEVEL READ COMMITTED")
        elif mode == "snapshot_read":
            conn.exec_driver_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        return transaction

    return begin
