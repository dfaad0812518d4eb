"""PostgreSQL: engines of our own, engines around a caller's pool, transactions, errors.

Owns the settings of connections, how long to wait for one and to trust an idle one, and what the
server's error codes mean for another attempt. Nothing here keeps state in a session, so that all
of it works behind a proxy that gives each transaction another session.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final, Literal
from weakref import WeakKeyDictionary

from sqlalchemy import URL, Connection, Engine, Transaction, create_engine, event, exc
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg, PGDialectAsync_psycopg
from sqlalchemy.pool import NullPool

from eventstore.concurrency import completed
from eventstore.db.options import TRANSACTIONAL_WRITES, Durability, Mode, PoolOptions
from eventstore.errors import ConfigurationError

if TYPE_CHECKING:
    from psycopg_pool import AsyncConnectionPool, ConnectionPool
    from sqlalchemy.ext.asyncio import AsyncEngine

CHECK_AFTER_S: Final = 30.0
"""A connection that was idle for longer is pinged before it is used."""

_DRIVER: Final = "postgresql+psycopg"
_NAMES: Final = ("postgres", "postgresql", _DRIVER)
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
_OURS: Final = "eventstore_connections"
_TWINS: Final[WeakKeyDictionary[Any, Callable[[], Engine]]] = WeakKeyDictionary()
"""By the pool of an asynchronous engine: how to connect to its database without an event loop."""
_IDLE_SINCE: Final = "eventstore_idle_since"


# --- engines of our own -----------------------------------------------------------------


def is_url_of_ours(url: URL) -> bool:
    """Whether a URL is for PostgreSQL, with any driver."""
    return url.drivername.split("+")[0] in _NAMES


def open_engine(url: URL, pool: PoolOptions, durability: Durability = "full") -> Engine:
    """An engine with a pool of its own.

    A URL's query may contain any setting of libpq, which overrides ours, and
    ``prepare_threshold``: after how many uses a statement is prepared; by default never,
    because a proxy that pools transactions would lose prepared statements.
    """
    options = _options(url, pool, durability)
    options["connect_args"]["cursor_factory"] = _binary(_psycopg().Cursor)
    return _set_up(create_engine(_url(url), **options))


def open_async_engine(url: URL, pool: PoolOptions, durability: Durability = "full") -> AsyncEngine:
    """As :func:`open_engine`, for an event loop."""
    from sqlalchemy.ext.asyncio import create_async_engine

    options = _options(url, pool, durability)
    options["connect_args"]["cursor_factory"] = _binary(_psycopg().AsyncCursor)
    engine = create_async_engine(_url(url), **options)
    _set_up(engine.sync_engine)
    _TWINS[engine.sync_engine.pool] = partial(_open_unpooled, url, durability)
    return engine


def sync_twin(engine: Any) -> Engine:
    """A sync engine for the database of an asynchronous one, which connects for each use.

    It is made from what the other was made from: the URL, or what a caller's pool connects with.
    """
    options = engine.sync_engine.get_execution_options()
    kept = {name: options[name] for name in ("schema_translate_map",) if name in options}
    make = _TWINS.get(engine.sync_engine.pool) or partial(_open_unpooled, engine.url)
    return make().execution_options(**kept)


def _open_unpooled(url: URL, durability: Durability = "full") -> Engine:
    given = _options(url, PoolOptions(), durability)
    options = {name: each for name, each in given.items() if not name.startswith("pool_")}
    options["connect_args"]["cursor_factory"] = _binary(_psycopg().Cursor)
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
    return found.set(drivername=_DRIVER, password=password)


def _options(url: URL, pool: PoolOptions, durability: Durability) -> dict[str, Any]:
    connect_args: dict[str, Any] = {
        "prepare_threshold": _prepare_threshold(url),
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
        "execution_options": {_OURS: True},
    }


def _psycopg() -> Any:
    import psycopg

    return psycopg


@cache
def _binary(cursor: type[Any]) -> type[Any]:
    """A cursor class with binary results: as text, bytes would be twice as long."""

    class BinaryCursor(cursor):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.format = _psycopg().pq.Format.BINARY

    return BinaryCursor


def _prepare_threshold(url: URL) -> int | None:
    text = url.query.get("prepare_threshold", "none")
    if isinstance(text, str) and text.lower() == "none":
        return None
    if isinstance(text, str) and text.isdecimal():
        return int(text)
    raise ConfigurationError(
        f"prepare_threshold in the database URL must be a number of uses or 'none', not {text!r}"
    )


def _set_up(engine: Engine) -> Engine:
    dialect, pool = engine.dialect, engine.pool
    errors: Any = dialect.loaded_dbapi.Error

    def check(connection: Any, record: Any, _proxy: Any) -> None:
        since = record.info.get(_IDLE_SINCE)
        if since is None or time.monotonic() - since < CHECK_AFTER_S:
            return
        try:
            dialect.do_ping(connection)
        except errors as error:
            lost = exc.DisconnectionError(f"a connection was lost while idle: {error}")
            lost.invalidate_pool = True  # the others that are as old were lost, too
            raise lost from error

    def note(_connection: Any, record: Any) -> None:
        record.info[_IDLE_SINCE] = time.monotonic()

    event.listen(pool, "connect", _check_encoding)
    event.listen(pool, "checkout", check)
    event.listen(pool, "checkin", note)
    event.listen(engine, "handle_error", _give_up_pool)
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
    if not engine.get_execution_options().get(_OURS):

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


# --- engines around a caller's pool -----------------------------------------------------


class _Borrowing(PGDialect_psycopg):
    """Returns a connection to the pool that it came from, instead of closing it."""

    supports_statement_cache = True
    give_back: Any = None

    def on_connect(self) -> Any:
        return None  # SQLAlchemy's would add another handler for notices at every use

    def do_close(self, dbapi_connection: Any) -> None:
        self.give_back(dbapi_connection)

    def do_terminate(self, dbapi_connection: Any) -> None:
        self.give_back(dbapi_connection)

    @classmethod
    def get_async_dialect_cls(cls, url: URL) -> type[Any]:
        return _AsyncBorrowing


class _AsyncBorrowing(PGDialectAsync_psycopg):
    supports_statement_cache = True
    give_back: Any = None
    on_connect = _Borrowing.on_connect
    do_close = _Borrowing.do_close
    do_terminate = _Borrowing.do_terminate


registry.register("postgresql.eventstore_borrowing", __name__, _Borrowing.__name__)
_BORROWED_URL: Final = "postgresql+eventstore_borrowing://"
_BORROWED_OPTIONS: Final = {
    "poolclass": NullPool,
    "use_native_hstore": False,
    "pool_reset_on_return": None,
    "hide_parameters": True,
    "execution_options": {_OURS: True},
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
        conn.cursor_factory = _binary(_psycopg().Cursor)
        return conn

    def give_back(conn: Any) -> None:
        before = lent.pop(id(conn))
        try:
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
        conn.cursor_factory = _binary(_psycopg().AsyncCursor)
        return conn

    async def take_back(conn: Any) -> None:
        before = lent.pop(id(conn))
        try:
            if not conn.closed:
                await conn.rollback()
                await conn.set_autocommit(before.autocommit)
                await conn.set_isolation_level(before.isolation_level)
            conn.row_factory = before.row_factory
            conn.cursor_factory = before.cursor_factory
        finally:
            await pool.putconn(conn)

    def give_back(adapted: Any) -> None:
        await_only(completed(take_back(adapted.driver_connection)))

    engine = create_async_engine(_BORROWED_URL, async_creator=borrow, **_BORROWED_OPTIONS)
    engine.sync_engine.dialect.give_back = give_back  # type: ignore[attr-defined]
    _TWINS[engine.sync_engine.pool] = partial(_open_like_pool, pool)
    return engine


def borrows(engine: Engine) -> bool:
    """Whether an engine takes its connections from a caller's pool."""
    return isinstance(engine.dialect, _Borrowing | _AsyncBorrowing)


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
        settings = {**options, "autocommit": True, "cursor_factory": _binary(_psycopg().Cursor)}
        settings.pop("row_factory", None)
        return _psycopg().connect(conninfo, **settings)

    url = f"{_DRIVER}://"
    twin = {"use_native_hstore": False, "pool_reset_on_return": None, "hide_parameters": True}
    options_of_ours = {"isolation_level": "AUTOCOMMIT", "execution_options": {_OURS: True}}
    return create_engine(url, creator=connect, poolclass=NullPool, **twin, **options_of_ours)


# --- errors -----------------------------------------------------------------------------

_ROLLED_BACK: Final = ("40001", "40P01")  # serialization failure, deadlock
_LOST: Final = (
    "25006",  # read-only: a standby, after a failover
    "25P03",  # the server ended the session: a transaction was idle for too long
    "40003",  # the server does not know how the transaction ended
    "57P01",  # shut down by an administrator
    "57P02",  # shut down by the crash of another session
    "57P03",  # starting up or shutting down
    "57P05",  # the session was idle for too long
)
_BUSY: Final = ("53300", "55P03", "57014")  # too many clients, a lock or statement timed out
_DUPLICATE: Final = (
    "23505",  # a row with the same key, in our tables or in the server's catalogue
    "42P07",  # a table
    "42710",  # another object
    "42701",  # a column
    "XX000",  # "tuple concurrently updated": two sessions changed the same object
)
_FULL: Final = ("too many clients", "too many connections", "connection slots")
_PERMANENT: Final = (
    "authentication failed",
    "no password supplied",
    "does not exist",
    "pg_hba.conf",
    "permission denied",
    "certificate",
)
"""Messages of refusals that another attempt cannot change. Psycopg gives no code for a connection
that was not made; a message in another language counts as a lost connection."""


def _sqlstate(error: BaseException | None) -> str | None:
    """The server's code for an error of psycopg; ``None``: it has none."""
    code: str | None = getattr(error, "sqlstate", None)
    return code


def again(error: BaseException | None) -> bool:
    """Whether the transaction was rolled back for certain, and may succeed when repeated."""
    return _sqlstate(error) in _ROLLED_BACK


def lost(error: BaseException | None) -> bool:
    """Whether the connection is useless now, though another one may work.

    It was lost, or could not be opened, or leads to a server that has become read-only.
    """
    code = _sqlstate(error)
    if code is not None:
        return code in _LOST or code.startswith("08")
    psycopg = sys.modules.get("psycopg")
    if psycopg is None or not isinstance(error, psycopg.OperationalError) or _of_pool(error):
        return False
    return not any(phrase in str(error) for phrase in (*_PERMANENT, *_FULL))


def refused_by_client(error: BaseException | None, statement: str | None) -> bool:
    """Whether the driver failed on a statement without an answer of the server.

    Either it refused the statement (too many parameters, a value too large to send), which
    another attempt cannot change, or the connection was lost: then it is invalidated.
    """
    return statement is not None and _sqlstate(error) is None


def busy(error: BaseException | None) -> Literal["pool", "server"] | None:
    """What stayed overloaded during the whole wait."""
    if _of_pool(error):
        return "pool" if type(error).__name__ in ("PoolTimeout", "TooManyRequests") else None
    if _sqlstate(error) in _BUSY or any(phrase in str(error) for phrase in _FULL):
        return "server"
    return None


def is_duplicate(error: BaseException | None) -> bool:
    """Whether the object to create exists, or is being created by another session."""
    return _sqlstate(error) in _DUPLICATE


def _of_pool(error: BaseException | None) -> bool:
    return type(error).__module__.startswith("psycopg_pool")
