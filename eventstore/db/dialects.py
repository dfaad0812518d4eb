"""The few differences between databases, and the drivers' errors in our words.

Owns how an engine is opened and set up, how a transaction begins, and what a driver's
exception means. Elsewhere only the tables' layout (``schema``) names a backend; what only
PostgreSQL needs is in ``postgresql``.

SQLite: 3.7.0 to 3.51.2 can lose committed data in WAL mode when another connection
checkpoints at the wrong moment (https://www.sqlite.org/wal.html#walresetbug). We depend on
a driver that carries a fixed SQLite; where there is only an affected one, files are kept
in rollback-journal mode, and the log says so.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import quote

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    Executable,
    Table,
    Transaction,
    create_engine,
    event,
    exc,
    make_url,
)
from sqlalchemy.dialects import postgresql as postgres
from sqlalchemy.dialects import sqlite
from sqlalchemy.pool import QueuePool, SingletonThreadPool, StaticPool

from eventstore.db import postgresql
from eventstore.errors import (
    ConfigurationError,
    CorruptEventError,
    EventStoreError,
    StoreBusyError,
    StoreUnavailableError,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

try:
    import pysqlite3
except ImportError:  # no wheel for this platform
    pysqlite3 = None

log = logging.getLogger(__name__)

Durability = Literal["full", "normal"]

Mode = Literal["read", "moment", "write", "statement", "none"]
"""What a transaction is for; ``moment``: a read whose statements all see the same moment;
``statement``: one that is a transaction by itself; ``none``: what must not be in one."""

Begin = Callable[[Connection, Mode], Transaction]
"""Begins a transaction on a connection."""

BUSY_TIMEOUT_S: Final = 30.0
_LOG_TIMEOUT_MS: Final = 2000
_WAL_ATTEMPTS: Final = 200
_INCREMENTAL: Final = 2  # of PRAGMA auto_vacuum
_READY: Final = "eventstore_ready"
_DRIVER_ERRORS: Final = tuple({sqlite3.Error, (pysqlite3 or sqlite3).Error})


def wal_is_safe(version: tuple[int, ...]) -> bool:
    """Whether this SQLite is free of the WAL-reset bug (fixed in 3.51.3, 3.50.7 and 3.44.6)."""
    return (
        version >= (3, 51, 3)
        or (3, 50, 7) <= version < (3, 51)
        or (3, 44, 6) <= version < (3, 45)
        or version < (3, 7)
    )


def sqlite_driver() -> ModuleType:
    """The driver for files that we open ourselves: the one whose SQLite is sound."""
    if pysqlite3 is not None and not wal_is_safe(sqlite3.sqlite_version_info):
        module: ModuleType = pysqlite3.dbapi2
        return module
    return sqlite3


@dataclass(frozen=True)
class Options:
    """How a database is opened, whatever it is.

    Attributes:
        durability: ``"full"`` survives power loss, ``"normal"`` any crash of the process (on
            PostgreSQL: a crash of the server may lose the last moments).
        schema: the PostgreSQL schema that the tables are in; ``None``: the first of the
            connection's search path.
        pool: of connections to PostgreSQL.
        read_only: not even the mode of a file is changed.
    """

    durability: Durability = "full"
    schema: str | None = None
    pool: postgresql.PoolOptions = postgresql.PoolOptions()  # noqa: RUF009 (it is frozen)
    read_only: bool = False

    def __post_init__(self) -> None:
        if self.durability not in ("full", "normal"):
            raise ConfigurationError(
                f"durability must be 'full' or 'normal', not {self.durability!r}"
            )
        if self.schema is not None and not (self.schema and self.schema.isprintable()):
            raise ConfigurationError(f"schema must be the name of one, not {self.schema!r}")


def open_engine(target: Any, options: Options) -> tuple[Engine, bool]:
    """An engine for ``target``, and whether we made it (and so may dispose of it).

    ``target`` is a path, a SQLAlchemy URL, an engine, a ``psycopg_pool.ConnectionPool`` or a
    ``sqlite3.Connection``. Of a connection to a file only the file's name is used, so that its
    owner's transactions and settings stay untouched; a connection to memory is used itself,
    and never closed.

    Raises:
        ConfigurationError: it is none of these, or cannot be opened like this.
    """
    engine, owned = _open(target, options)
    if options.schema is None:
        return engine, owned
    if engine.dialect.name == "sqlite":
        raise ConfigurationError("SQLite has no schemas: schema= is for PostgreSQL")
    return engine.execution_options(schema_translate_map={None: options.schema}), owned


def _open(target: Any, options: Options) -> tuple[Engine, bool]:
    durability = options.durability
    if isinstance(target, Engine):
        if target.dialect.name == "sqlite":
            if isinstance(target.pool, SingletonThreadPool):
                raise ConfigurationError(
                    "with this engine every thread would see a database of its own; give it "
                    "poolclass=StaticPool, or pass ':memory:' instead of an engine"
                )
            _tune_sqlite(target, "checkout", durability)  # it may have pooled connections before
        else:
            _check_driver(target)
        return target, False
    if isinstance(target, sqlite3.Connection):
        return _from_connection(target, durability)
    if _is_of("psycopg_pool", target, "ConnectionPool"):
        return postgresql.around_pool(target), False
    url = _url(target)
    if url.get_backend_name() == "sqlite":
        opened = _for_reading(url) if options.read_only else url
        return _open_sqlite(opened, sqlite_driver(), durability), True
    with _opening(url):
        return postgresql.open_engine(url, options.pool, durability), True


def open_async_engine(target: Any, options: Options) -> tuple[Engine | AsyncEngine, bool]:
    """An engine for an event loop: an asynchronous one where its driver does not hop threads.

    ``target`` may also be an ``AsyncEngine`` or a ``psycopg_pool.AsyncConnectionPool``.
    """
    found = _open_async(target, options)
    if found is None:
        return open_engine(target, options)
    engine, owned = found
    if options.schema is not None:
        engine = engine.execution_options(schema_translate_map={None: options.schema})
    return engine, owned


def _open_async(target: Any, options: Options) -> tuple[AsyncEngine, bool] | None:
    if _is_of("sqlalchemy", target, "AsyncEngine"):  # importing it would need greenlet
        if target.dialect.name != "postgresql":
            raise ConfigurationError(
                "an asynchronous engine has to be one for PostgreSQL; for SQLite pass a path, a "
                "URL or an ordinary engine, which is faster there"
            )
        _check_driver(target.sync_engine)
        return target, False
    if isinstance(target, str | os.PathLike | URL):
        url = _url(target)
        if url.get_backend_name() != "sqlite":
            with _opening(url):
                return postgresql.open_async_engine(url, options.pool, options.durability), True
    if _is_of("psycopg_pool", target, "AsyncConnectionPool"):
        return postgresql.around_async_pool(target), False
    return None


def _is_of(module: str, target: object, name: str) -> bool:
    """Whether this is an object of a library that we do not import for the question's sake."""
    return any(
        each.__name__ == name and each.__module__.partition(".")[0] == module
        for each in type(target).__mro__
    )


@contextmanager
def _opening(url: URL) -> Iterator[None]:
    if not postgresql.is_url_of_ours(url):
        raise ConfigurationError(
            f"there is no event store on {url.drivername!r}; expected a path, sqlite:///path or "
            "postgresql://user:password@host:port/database"
        )
    try:
        yield
    except ImportError as error:
        raise ConfigurationError(
            f"PostgreSQL needs psycopg 3; pip install 'graph-eventstore[postgres]' ({error})"
        ) from error


def _check_driver(engine: Engine) -> None:
    if (engine.dialect.name, engine.dialect.driver) != ("postgresql", "psycopg"):
        raise ConfigurationError(
            "an engine has to be one for SQLite, or for PostgreSQL through psycopg 3, not "
            f"for {engine.dialect.name}+{engine.dialect.driver}"
        )


def _url(target: str | os.PathLike[str] | URL) -> URL:
    if isinstance(target, URL):
        return target
    if not isinstance(target, str | os.PathLike):
        kind = f"{type(target).__module__}.{type(target).__qualname__}"
        raise ConfigurationError(
            f"an event store cannot be opened on a {kind}; expected a path, a URL, a SQLAlchemy "
            "engine, a sqlite3.Connection or a psycopg_pool.ConnectionPool (for event loops: an "
            "AsyncEngine, an aiosqlite.Connection or an AsyncConnectionPool)"
        )
    text = os.fspath(target)
    if text == ":memory:":
        return URL.create("sqlite")
    if "://" not in text:
        return URL.create("sqlite", database=text)
    try:
        return make_url(text)
    except (exc.ArgumentError, ValueError) as error:  # the text may hold a password: not shown
        raise ConfigurationError(
            "cannot read the database URL; expected sqlite:///path or "
            "postgresql://user:password@host:port/database"
        ) from error


def _for_reading(url: URL) -> URL:
    """The same file, opened so that SQLite itself refuses to write; it has to be there."""
    path = url.database
    if path in (None, "", ":memory:"):
        return url
    if not path.startswith("file:"):
        if not Path(path).is_file():
            raise ConfigurationError(f"there is no database file {path!r}")
        path = f"file:{quote(str(Path(path).absolute()))}"
    return url.set(database=path, query={**url.query, "mode": "ro", "uri": "true"})


def _open_sqlite(
    url: URL,
    module: ModuleType,
    durability: Durability,
    creator: Callable[[], Any] | None = None,
    *,
    is_file: bool = False,
) -> Engine:
    memory = not is_file and url.database in (None, "", ":memory:")
    if not memory and url.database is not None and not url.database.startswith("file:"):
        folder = Path(url.database).absolute().parent
        if not folder.is_dir():
            raise ConfigurationError(
                f"cannot create {url.database!r}: the folder {str(folder)!r} does not exist"
            )
    # One connection is all that a memory database has, so its pool is also its lock.
    sizes: dict[str, Any] = {"pool_size": 1, "max_overflow": 0} if memory else {"pool_size": 16}
    if creator is not None:
        sizes["creator"] = creator
    engine = create_engine(
        url,
        module=module,
        poolclass=QueuePool,
        pool_timeout=BUSY_TIMEOUT_S,
        pool_reset_on_return=None,  # we end what we begin, and a caller's own stays its own
        hide_parameters=True,  # payloads and names have no place in messages or logs
        connect_args={
            "timeout": BUSY_TIMEOUT_S,
            "isolation_level": None,
            "check_same_thread": False,
        },
        **sizes,
    )
    _tune_sqlite(engine, "connect", durability)
    if creator is None or is_file:
        event.listen(engine, "connect", _tolerate_damaged_text)
    return engine


def open_file(path: str, durability: Durability) -> Engine:
    """An engine for a file that a connection of the caller's has open.

    Two copies of the SQLite library on one file in one process drop each other's locks
    (https://www.sqlite.org/howtocorrupt.html, 2.2.1): stay with the caller's.
    """
    return _open_sqlite(URL.create("sqlite", database=path), sqlite3, durability)


def open_file_of(connection: Any, durability: Durability) -> Engine:
    """An engine for the file of a caller's ``aiosqlite.Connection``, which stays the caller's.

    Its name is looked up when we first connect: that has to be awaited, and the caller has to
    have opened the connection by then.
    """

    async def look_up() -> str:
        async with connection.execute("PRAGMA database_list") as cursor:
            return str(next(row[2] for row in await cursor.fetchall() if row[1] == "main"))

    def connect() -> sqlite3.Connection:
        # On a thread of the store; aiosqlite answers to whichever loop asks.
        path = asyncio.run(look_up())
        if not path:
            raise ConfigurationError(
                "an aiosqlite connection to memory cannot be shared with the event store; pass "
                "':memory:' instead, or connect to a file"
            )
        return sqlite3.connect(
            path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )

    return _open_sqlite(URL.create("sqlite"), sqlite3, durability, connect, is_file=True)


def _from_connection(connection: sqlite3.Connection, durability: Durability) -> tuple[Engine, bool]:
    cursor = connection.cursor()
    cursor.row_factory = None
    path = next(row[2] for row in cursor.execute("PRAGMA database_list") if row[1] == "main")
    if not path and connection.row_factory is not None:
        raise ConfigurationError("a connection to memory must not have a row_factory of its own")
    if path:
        return open_file(path, durability), True
    return _open_sqlite(URL.create("sqlite"), sqlite3, durability, lambda: connection), False


def _tune_sqlite(engine: Engine, when: Literal["connect", "checkout"], dur: Durability) -> None:
    def prepare(connection: Any, record: Any, _proxy: Any = None) -> None:
        if not record.info.get(_READY):
            _set_up_connection(connection, dur)
            record.info[_READY] = True

    event.listen(engine, when, prepare)


def _tolerate_damaged_text(connection: Any, _record: Any) -> None:
    # One undecodable name would else fail every query that meets it, and so hide the threads
    # beside it. Decoded like this it equals nothing, and the digest chain tells the rest.
    connection.text_factory = _decode


def _decode(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


def _set_up_connection(connection: Any, durability: Durability) -> None:
    connection.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_S * 1000)}")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA synchronous = {durability.upper()}")


class Turns:
    """Lets one thread in at a time, in the order in which they came.

    For a database in memory, which has one connection: its pool would let a busy thread
    take that again and again, and others wait until they give up.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._line: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        turn = threading.Lock()
        turn.acquire()
        with self._lock:
            self._line.append(turn)
            if len(self._line) == 1:
                return
        turn.acquire()

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            self._line.popleft()
            if self._line:
                self._line[0].release()


def settle(engine: Engine) -> None:
    """Bring the database into the mode we rely on; called once its version is known to be ours.

    Raises:
        StoreBusyError: others used the file all the time.
    """
    if engine.dialect.name != "sqlite":
        return
    module: Any = engine.dialect.dbapi or sqlite3
    version = tuple(module.sqlite_version_info)
    safe = wal_is_safe(version)
    with engine.connect() as conn:
        raw: Any = conn.connection.dbapi_connection
        if raw.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None:
            raw.execute("PRAGMA auto_vacuum = INCREMENTAL")  # heeded before the first table only
        mode = _ask(raw, "PRAGMA journal_mode")
        wanted = "wal" if safe else "truncate"
        if mode in ("memory", wanted):
            return
        if not safe:
            named = ".".join(map(str, version))
            log.warning(
                "SQLite %s has the WAL-reset bug: the file is kept in rollback-journal mode, which "
                "is slower; install pysqlite3, or a Python with SQLite 3.51.3 or newer",
                named,
                extra={"sqlite_version": named, "journal_mode": wanted},
            )
        _switch_journal(raw, wanted)


def _switch_journal(connection: Any, wanted: str) -> None:
    # Changing the mode needs the file for a moment alone, and SQLite answers "locked" at
    # once, whatever busy_timeout says, when two processes open a new file together.
    for attempt in range(_WAL_ATTEMPTS):
        try:
            mode = _ask(connection, f"PRAGMA journal_mode = {wanted}")
        except _DRIVER_ERRORS as error:
            if "locked" not in str(error):
                raise _in_our_words(str(error)) from error
            time.sleep(0.005 + 0.0005 * attempt)
        else:
            if mode != wanted:  # read-only, or a file system without shared memory
                log.warning(
                    "this database stays in journal mode %s", mode, extra={"journal_mode": mode}
                )
            return
    raise StoreBusyError(
        f"the database stayed in use by others while its journal mode was to become {wanted}; "
        "try again when they are done"
    )


def _refuse_wal(connection: Any, version: str) -> None:
    if _ask(connection, "PRAGMA journal_mode") == "wal":
        connection.rollback()
        raise ConfigurationError(
            f"another process put this file into WAL mode, which SQLite {version} in this "
            "process cannot use safely (the WAL-reset bug); install pysqlite3 here"
        )


def _ask(connection: Any, statement: str) -> str:
    return str(connection.execute(statement).fetchone()[0]).lower()


def beginner(engine: Engine) -> Begin:
    """How a transaction begins where that has to be said, which says so.

    A read keeps one consistent view, a write takes the lock at once (one that read first
    could be refused half-way). Spoken to the driver directly: an event hook would make
    SQLAlchemy look for hooks at every statement, a fifth of the cost of a small append.
    """
    if engine.dialect.name != "sqlite":
        return postgresql.beginner(engine)
    module: Any = engine.dialect.dbapi or sqlite3
    safe = wal_is_safe(module.sqlite_version_info)

    def begin(conn: Connection, mode: Mode) -> Transaction:
        raw: Any = conn.connection.dbapi_connection
        if raw.in_transaction:
            raise StoreBusyError(
                "the owner of this connection has a transaction open: end it first"
            )
        try:
            if mode != "none":
                raw.execute("BEGIN" if mode in ("read", "moment") else "BEGIN IMMEDIATE")
        except _DRIVER_ERRORS as error:
            if raw.in_transaction:  # it was interrupted at its end
                raw.rollback()
            raise _in_our_words(str(error)) from error
        if not safe:
            _refuse_wal(raw, module.sqlite_version)
        return conn.begin()

    return begin


def abandon(conn: Connection) -> None:
    """Roll back what a commit left open that failed.

    SQLite goes on with a transaction whose commit was refused (busy, disk full, interrupted):
    it would keep the write lock, and the connection be of no use to whoever gets it next.
    """
    raw: Any = None if conn.invalidated else conn.connection.dbapi_connection
    if getattr(raw, "in_transaction", False):
        raw.rollback()


def turns(engine: Engine) -> AbstractContextManager[None]:
    """What each transaction has to wait for beyond the database's own locks."""
    if engine.dialect.name != "sqlite":
        return nullcontext()
    pool = engine.pool
    alone = isinstance(pool, QueuePool) and pool.size() == 1 and pool._max_overflow == 0
    return Turns() if alone or isinstance(pool, StaticPool) else nullcontext()


def classify(error: BaseException) -> Literal["again", "lost"] | None:
    """Whether a whole transaction that failed like this is worth another try.

    Returns:
        ``"again"``: it was rolled back for sure, and met others that have gone on since.
        ``"lost"``: the connection went away (or leads to a server that only reads now); if
        the transaction was being committed, nobody knows yet whether it was.
        ``None``: trying again would not help.
    """
    original = error.orig if isinstance(error, exc.DBAPIError) else error
    if postgresql.again(original):
        return "again"
    if postgresql.lost(original):
        return "lost"
    return "lost" if isinstance(error, exc.DBAPIError) and error.connection_invalidated else None


def translate(error: Exception) -> EventStoreError | None:
    """What a driver's exception means in our words; ``None`` when it is not for us to say.

    Of the driver's own words only those are kept that it says about the database: not the
    statement, nor its parameters, nor anything of the URL.
    """
    if isinstance(error, exc.TimeoutError):
        return StoreBusyError(
            "every connection of the pool stayed in use for as long as was waited "
            "(pool_timeout); let it have more (pool_max_size), or do less at the same time"
        )
    if not isinstance(error, exc.DBAPIError):
        return None
    if isinstance(error, exc.OperationalError | exc.DatabaseError | exc.InterfaceError):
        if isinstance(error.orig, _DRIVER_ERRORS):
            return _in_our_words(said(error))
        return _of_a_server(said(error), postgresql.busy(error.orig))
    return None


def _in_our_words(words: str) -> EventStoreError:
    if "decode to UTF-8" in words:
        return CorruptEventError(f"a text in the database was damaged: {words[:200]}")
    if "locked" in words or "busy" in words:
        return StoreBusyError(f"the database stayed locked for {BUSY_TIMEOUT_S:.0f} s: {words}")
    return StoreUnavailableError(f"the database refused to work: {words}")


def _of_a_server(words: str, busy: Literal["pool", "server"] | None) -> EventStoreError:
    if "NUL (0x00)" in words:
        return ConfigurationError(f"a name must not hold a NUL character: {words}")
    if busy == "pool":
        return StoreBusyError(f"the caller's pool had no connection to give: {words}")
    if busy == "server":
        return StoreBusyError(f"the database had too much to do: {words}")
    return StoreUnavailableError(f"the database refused to work: {words}")


def is_duplicate(error: exc.DBAPIError) -> bool:
    """Whether a table, or a row of that key, was made by somebody else in the meantime."""
    return isinstance(error, exc.IntegrityError) or postgresql.is_duplicate(error.orig)


def said(error: exc.SQLAlchemyError) -> str:
    """What the driver itself said, without the statement and what was in it."""
    return str(error.orig if isinstance(error, exc.DBAPIError) else error).strip()


def reclaim(conn: Connection, bytes_max: int) -> int:
    """Give free pages at the end of the file back to the file system; how many bytes that was.

    PostgreSQL's vacuum does so by itself, as far as it can; a file that an older version made
    without ``auto_vacuum=INCREMENTAL`` keeps its pages for rows to come.
    """
    if conn.dialect.name != "sqlite":
        return 0
    mode, size, free = (
        conn.exec_driver_sql(f"PRAGMA {name}").scalar_one()
        for name in ("auto_vacuum", "page_size", "freelist_count")
    )
    if mode != _INCREMENTAL or not free:
        return 0
    # To the driver itself: a page goes with each step of the statement, and SQLAlchemy closes
    # at the first one a cursor that has no columns.
    cursor = conn.connection.cursor()
    try:
        cursor.execute(f"PRAGMA incremental_vacuum({max(1, bytes_max // size)})").fetchall()
    finally:
        cursor.close()
    still_free = conn.exec_driver_sql("PRAGMA freelist_count").scalar_one()
    return int((free - still_free) * size)


def overwrites(conn: Connection, on: bool) -> None:
    """Whether what is deleted on this connection is overwritten in the file (SQLite)."""
    if conn.dialect.name == "sqlite":
        conn.exec_driver_sql(f"PRAGMA secure_delete = {'ON' if on else 'OFF'}").fetchall()


def file_bytes(conn: Connection) -> int | None:
    """How large an SQLite database is; ``None``: it is none."""
    if conn.dialect.name != "sqlite":
        return None
    pages, size = (
        conn.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("page_count", "page_size")
    )
    return int(pages * size)


def vacuum(conn: Connection, tables: Sequence[Table]) -> None:
    """Write an SQLite file anew, or give dead rows of these tables back to PostgreSQL.

    Not within a transaction. SQLite's writers wait meanwhile, PostgreSQL's do not.
    """
    if conn.dialect.name == "sqlite":
        conn.exec_driver_sql("VACUUM")
        return
    names: dict[str | None, str] = conn.get_execution_options().get("schema_translate_map", {})
    quote = conn.dialect.identifier_preparer.quote
    schema = f"{quote(names[None])}." if names.get(None) else ""
    conn.exec_driver_sql(f"VACUUM {', '.join(schema + quote(t.name) for t in tables)}")


def empty_log(conn: Connection) -> bool:
    """Move SQLite's write-ahead log into the file and cut it to nothing.

    Not within a transaction. False while somebody else reads: then it is there still.
    """
    if conn.dialect.name != "sqlite":
        return True
    conn.exec_driver_sql(f"PRAGMA busy_timeout = {_LOG_TIMEOUT_MS}")
    try:
        busy = conn.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()[0]
    finally:
        conn.exec_driver_sql(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_S * 1000)}")
    return not busy


def insert_if_new(table: Table) -> Mapping[str, Executable]:
    """For each dialect: insert rows, but for those whose key is taken."""
    return {
        "sqlite": sqlite.insert(table).on_conflict_do_nothing(),
        "postgresql": postgres.insert(table).on_conflict_do_nothing(),
    }
