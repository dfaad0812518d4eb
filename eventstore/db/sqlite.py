"""SQLite: the driver, engines for files and memory, journal mode, transactions, errors.

SQLite 3.7.0 to 3.51.2 can lose committed data in WAL mode when another connection checkpoints
at the wrong moment (https://www.sqlite.org/wal.html#walresetbug). We depend on a driver that
carries a fixed SQLite; where there is only an affected one, files stay in rollback-journal mode,
and the log says so.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, Transaction, create_engine, event
from sqlalchemy.pool import QueuePool, SingletonThreadPool

from eventstore.db.options import READS, Durability, Mode
from eventstore.errors import (
    ConfigurationError,
    CorruptEventError,
    EventStoreError,
    StoreBusyError,
    StoreUnavailableError,
)

try:
    import pysqlite3
except ImportError:  # no wheel for this platform
    pysqlite3 = None

log = logging.getLogger(__name__)

BUSY_TIMEOUT_S: Final = 30.0

_WAITED_S: Final = 0.0009
"""A transaction that took longer to begin had to wait."""

_LOOKS: Final = 4
"""Transactions that look often after one that took long to begin. The reason may have been another
thread of this process, which had the interpreter's lock: then they find the file's lock free."""

_LOOKS_CONTENDED: Final = 256
"""The same after one that found the lock taken."""

_PAUSE_MIN_S: Final = 0.0002
_PAUSE_MAX_S: Final = 0.02

_WAL_ATTEMPTS: Final = 200
_READY: Final = "eventstore_ready"

_PAGE_BYTES_MIN: Final = 512
_NO_DATABASE: Final = (
    "the file is not an SQLite database (or it is encrypted); pass the path of a database that an "
    "event store made, or a path where there is no file yet"
)

ERRORS: Final = tuple({sqlite3.Error, (pysqlite3 or sqlite3).Error})
"""The base classes of errors of drivers for SQLite."""


def wal_is_safe(version: tuple[int, ...]) -> bool:
    """Whether this SQLite is free of the WAL-reset bug (fixed in 3.51.3, 3.50.7 and 3.44.6)."""
    return (
        version >= (3, 51, 3)
        or (3, 50, 7) <= version < (3, 51)
        or (3, 44, 6) <= version < (3, 45)
        or version < (3, 7)
    )


def sqlite_driver() -> ModuleType:
    """The driver for files that we open ourselves: one whose SQLite has no known bug."""
    if pysqlite3 is not None and not wal_is_safe(sqlite3.sqlite_version_info):
        module: ModuleType = pysqlite3.dbapi2
        return module
    return sqlite3


# --- engines ----------------------------------------------------------------------------


def open_engine(url: URL, durability: Durability, *, read_only: bool = False) -> Engine:
    """An engine of our own, for a file or for memory."""
    return _open(_for_reading(url) if read_only else url, sqlite_driver(), durability)


def adopt(engine: Engine, durability: Durability) -> None:
    """Set up a caller's engine.

    Raises:
        ConfigurationError: each thread would see a database of its own.
    """
    if isinstance(engine.pool, SingletonThreadPool):
        raise ConfigurationError(
            "with this engine every thread would see a database of its own; create it with "
            "poolclass=StaticPool, or pass ':memory:' instead of an engine"
        )
    _tune(engine, "checkout", durability)  # it may have pooled connections before


def around_connection(
    connection: sqlite3.Connection, durability: Durability
) -> tuple[Engine, bool]:
    """An engine for a caller's connection, and whether we opened its connections ourselves.

    For a file only its name is used; a database in memory has only the caller's connection.
    """
    cursor = connection.cursor()
    cursor.row_factory = None
    path = next(row[2] for row in cursor.execute("PRAGMA database_list") if row[1] == "main")
    if not path and connection.row_factory is not None:
        raise ConfigurationError("a connection to a database in memory must not have a row_factory")
    if path:
        return _open_file(path, durability), True
    return _open(URL.create("sqlite"), sqlite3, durability, lambda: connection), False


def around_aiosqlite(connection: Any, durability: Durability) -> Engine:
    """An engine for the file of a caller's ``aiosqlite.Connection``, which stays the caller's.

    Its name is looked up when we first connect: that has to be awaited, and the caller has to
    have opened the connection by then.
    """

    async def look_up() -> str:
        async with connection.execute("PRAGMA database_list") as cursor:
            return str(next(row[2] for row in await cursor.fetchall() if row[1] == "main"))

    def connect() -> sqlite3.Connection:
        if _is_in_event_loop():
            raise ConfigurationError(
                "an event store on an aiosqlite connection blocks an event loop when it is used "
                "with sync calls; use its async methods, or pass the file's path"
            )
        path = asyncio.run(look_up())  # aiosqlite works with any event loop
        if not path:
            raise ConfigurationError(
                "an aiosqlite connection to memory cannot be shared with the event store; pass "
                "':memory:' instead, or connect to a file"
            )
        return sqlite3.connect(
            path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )

    return _open(URL.create("sqlite"), sqlite3, durability, connect, is_file=True)


def _is_in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _open_file(path: str, durability: Durability) -> Engine:
    """An engine for a file that a connection of the caller has open.

    Two copies of the SQLite library on one file in one process drop each other's locks
    (https://www.sqlite.org/howtocorrupt.html, 2.2.1): use the caller's copy.
    """
    return _open(URL.create("sqlite", database=path), sqlite3, durability)


def _open(
    url: URL,
    module: ModuleType,
    durability: Durability,
    creator: Callable[[], Any] | None = None,
    *,
    is_file: bool = False,
) -> Engine:
    memory = not is_file and url.database in (None, "", ":memory:")
    if not memory and url.database is not None and not url.database.startswith("file:"):
        if Path(url.database).is_dir():
            raise ConfigurationError(
                f"{url.database!r} is a directory; pass the path of a file in it, such as "
                f"{str(Path(url.database) / 'runs.db')!r}"
            )
        folder = Path(url.database).absolute().parent
        if not folder.is_dir():
            raise ConfigurationError(
                f"cannot create {url.database!r}: the directory {str(folder)!r} does not exist"
            )
    # A database in memory has one connection, so its pool is also its lock.
    sizes: dict[str, Any] = {"pool_size": 1, "max_overflow": 0} if memory else {"pool_size": 16}
    if creator is not None:
        sizes["creator"] = creator
    engine = create_engine(
        url,
        module=module,
        poolclass=QueuePool,
        pool_timeout=BUSY_TIMEOUT_S,
        pool_reset_on_return=None,  # we end our transactions, and must not end a caller's
        hide_parameters=True,  # payloads and names have no place in messages or logs
        connect_args={
            "timeout": BUSY_TIMEOUT_S,
            "isolation_level": None,
            "check_same_thread": False,
        },
        **sizes,
    )
    if not memory and creator is None:
        event.listen(engine, "do_connect", _refuse_other_files)
    _tune(engine, "connect", durability)
    if creator is None or is_file:
        event.listen(engine, "connect", _tolerate_damaged_text)
    return engine


def _refuse_other_files(_dialect: Any, _record: Any, args: Any, _options: Any) -> None:
    # SQLite takes a file that is shorter than its header for an empty one, and overwrites it.
    # The file must not be opened to look: closing it would release the locks that all
    # connections of this process hold (https://www.sqlite.org/howtocorrupt.html, 2.2).
    with suppress(OSError):
        if 0 < Path(args[0]).stat().st_size < _PAGE_BYTES_MIN:
            raise StoreUnavailableError(_NO_DATABASE)


def _for_reading(url: URL) -> URL:
    """The same file, opened so that SQLite itself refuses to write; it must exist."""
    path = url.database
    if path in (None, "", ":memory:"):
        return url
    if not path.startswith("file:"):
        if not Path(path).is_file():
            raise ConfigurationError(f"there is no database file {path!r}")
        path = f"file:{quote(str(Path(path).absolute()))}"
    return url.set(database=path, query={**url.query, "mode": "ro", "uri": "true"})


def _tune(engine: Engine, when: Literal["connect", "checkout"], dur: Durability) -> None:
    def prepare(connection: Any, record: Any, _proxy: Any = None) -> None:
        if not record.info.get(_READY):
            _set_up_connection(connection, dur)
            record.info[_READY] = True

    event.listen(engine, when, prepare)


def _tolerate_damaged_text(connection: Any, _record: Any) -> None:
    # Otherwise one undecodable name would fail every query that reads it, and hide the threads
    # beside it. Decoded like this it equals no name, and the digest chain reveals the damage.
    connection.text_factory = _decode


def _decode(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


def _set_up_connection(connection: Any, durability: Durability) -> None:
    connection.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_S * 1000)}")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA synchronous = {durability.upper()}")


# --- transactions -----------------------------------------------------------------------


def beginner(engine: Engine) -> Callable[[Connection, Mode], Transaction]:
    """The function that begins a transaction on a connection of this engine.

    A read keeps one consistent view; a write takes the lock at once (one that reads first could
    be refused half-way). BEGIN is sent to the driver directly: an event hook would make
    SQLAlchemy look for hooks at every statement, a fifth of the cost of a small append.
    """
    module: Any = engine.dialect.dbapi or sqlite3
    safe = wal_is_safe(module.sqlite_version_info)
    take_lock = _WriteLock().take

    def begin(conn: Connection, mode: Mode) -> Transaction:
        raw: Any = conn.connection.dbapi_connection
        if raw.in_transaction:
            raise StoreBusyError(
                "the owner of this connection has a transaction open; end it first"
            )
        try:
            if mode in READS or mode == "background_write":
                raw.execute("BEGIN")
            elif mode != "autocommit":
                take_lock(raw)
        except ERRORS as error:
            if raw.in_transaction:  # it was interrupted at its end
                raw.rollback()
            raise translate(str(error)) from error
        if not safe:
            _refuse_wal(raw, module.sqlite_version)
        return conn.begin()

    return begin


class _WriteLock:
    """The wait for the lock of a file's writers.

    SQLite looks for it again after 1, 2, 5, 10, 15, 20, 25 ms and so on. A writer beside a process
    that takes it often, for a few milliseconds each time, would find it taken again and again. So
    for a while after a writer had to wait, writers look more often: after a seventh of their wait.
    """

    def __init__(self) -> None:
        self._looks = 0

    def take(self, raw: Any) -> None:
        """Begin a transaction that writes."""
        if self._looks:
            self._looks -= 1
            self._take_soon(raw)
            return
        began = time.monotonic()
        try:
            raw.execute("BEGIN IMMEDIATE")
        finally:
            if time.monotonic() - began > _WAITED_S:
                self._looks = _LOOKS

    def _take_soon(self, raw: Any) -> None:
        began = time.monotonic()
        raw.execute("PRAGMA busy_timeout = 0")
        try:
            while True:
                try:
                    raw.execute("BEGIN IMMEDIATE")
                except ERRORS as error:
                    waited = time.monotonic() - began
                    if "locked" not in str(error) or waited > BUSY_TIMEOUT_S:
                        raise
                    self._looks = _LOOKS_CONTENDED
                else:
                    return
                time.sleep(min(max(waited / 7, _PAUSE_MIN_S), _PAUSE_MAX_S))
        finally:
            raw.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_S * 1000)}")


def roll_back(conn: Connection) -> None:
    """Roll back a transaction whose commit failed.

    SQLite keeps a transaction open whose commit was refused (busy, disk full, interrupted): it
    would hold the write lock, and make the connection useless for the next caller.
    """
    raw: Any = None if conn.invalidated else conn.connection.dbapi_connection
    if getattr(raw, "in_transaction", False):
        raw.rollback()


# --- journal mode -----------------------------------------------------------------------


def settle(conn: Connection) -> None:
    """Put the file into the journal mode that we rely on; called before it is migrated.

    Raises:
        StoreBusyError: other connections used the file all the time.
    """
    module: Any = conn.dialect.dbapi or sqlite3
    version = tuple(module.sqlite_version_info)
    safe = wal_is_safe(version)
    raw: Any = conn.connection.dbapi_connection
    if raw.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None:
        raw.execute("PRAGMA auto_vacuum = INCREMENTAL")  # has an effect only before the first table
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


def may_lack_log(conn: Connection) -> bool:
    """Whether a file without tables was written with a write-ahead log: a copy may lack that.

    A store that nobody closed, as after ``kill -9``, may have all its content in there.
    """
    raw: Any = conn.connection.dbapi_connection
    return _ask(raw, "PRAGMA journal_mode") == "wal" and _ask(raw, "PRAGMA page_count") == "1"


def _switch_journal(connection: Any, wanted: str) -> None:
    # Changing the mode needs exclusive use of the file, and SQLite answers "locked" at once,
    # whatever busy_timeout is, when two processes open a new file together.
    for attempt in range(_WAL_ATTEMPTS):
        try:
            mode = _ask(connection, f"PRAGMA journal_mode = {wanted}")
        except ERRORS as error:
            if "locked" not in str(error):
                raise translate(str(error)) from error
            time.sleep(0.005 + 0.0005 * attempt)
        else:
            if mode != wanted:  # read-only, or a file system without shared memory
                log.warning(
                    "this database stays in journal mode %s", mode, extra={"journal_mode": mode}
                )
            return
    raise StoreBusyError(
        f"the database stayed in use by other connections, so its journal mode cannot be set to "
        f"{wanted}; try again when they are closed"
    )


def _refuse_wal(connection: Any, version: str) -> None:
    if _ask(connection, "PRAGMA journal_mode") == "wal":
        connection.rollback()
        raise ConfigurationError(
            f"another process put this file into WAL mode, which SQLite {version} in this "
            "process cannot use safely (the WAL-reset bug); install pysqlite3 here"
        )


def ask(conn: Connection, name: str) -> str:
    """What a PRAGMA says."""
    return _ask(conn.connection.dbapi_connection, f"PRAGMA {name}")


def _ask(connection: Any, statement: str) -> str:
    return str(connection.execute(statement).fetchone()[0]).lower()


# --- errors -----------------------------------------------------------------------------


_MALFORMED: Final = ("malformed", "integer overflow")
"""What SQLite says of pages or values that nobody stored there."""


def translate(words: str) -> EventStoreError:
    """What an error of SQLite means, by its words."""
    if "file is not a database" in words:
        return StoreUnavailableError(_NO_DATABASE)
    if "decode to UTF-8" in words:
        return CorruptEventError(f"a text in the database is damaged: {words[:200]}")
    if any(each in words for each in _MALFORMED):
        return CorruptEventError(
            f"the database file is damaged: {words}; run eventstore verify, and restore a backup "
            "(a copy made without its -wal file looks like this, too)"
        )
    if "locked" in words or "busy" in words:
        return StoreBusyError(f"the database stayed locked for {BUSY_TIMEOUT_S:.0f} s: {words}")
    if "readonly" in words:
        words += (
            "; to read a file, SQLite also writes beside it: make the file and its folder writable"
        )
    return StoreUnavailableError(f"SQLite failed: {words}")
