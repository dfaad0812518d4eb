"""Opening an engine for whatever a store was given: a path, a URL, an engine, a connection, a pool;
and lending its connections.

Decides between SQLite and PostgreSQL; how each is opened and set up is in
:mod:`eventstore.db.sqlite` and :mod:`eventstore.db.postgresql`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import URL, Connection, Engine, exc, make_url

from eventstore.db import sqlite
from eventstore.db.connection_string import is_pairs, postgresql_url
from eventstore.db.options import ALONE, Backend, Options
from eventstore.db.postgresql import borrowing, opening
from eventstore.errors import ConfigurationError

if TYPE_CHECKING:
    from aiosqlite import Connection as AiosqliteConnection
    from psycopg_pool import AsyncConnectionPool, ConnectionPool
    from sqlalchemy.ext.asyncio import AsyncEngine

    Target = str | os.PathLike[str] | URL | Engine | sqlite3.Connection | ConnectionPool[Any]
    SyncEngine = Engine
    AnyEngine = Engine | AsyncEngine
    AsyncTarget = Target | AsyncEngine | AiosqliteConnection | AsyncConnectionPool[Any]


def open_engine(target: Target, options: Options) -> tuple[Engine, bool]:
    """An engine for ``target``, and whether we made it, and so may dispose of it.

    ``target`` is a path, a SQLAlchemy URL, an engine, a ``psycopg_pool.ConnectionPool`` or a
    ``sqlite3.Connection``. Of a connection to a file only the file's name is used, so that its
    owner's transactions and settings stay untouched; a connection to a database in memory is used
    itself, and never closed.

    Raises:
        ConfigurationError: it is none of these, or cannot be opened.
    """
    engine, owned = _open(target, options)
    if options.schema is None:
        return engine, owned
    if engine.dialect.name == "sqlite":
        raise ConfigurationError("SQLite has no schemas; leave schema= out, it is for PostgreSQL")
    return engine.execution_options(schema_translate_map={None: options.schema}), owned


def _open(target: Any, options: Options) -> tuple[Engine, bool]:
    durability = options.durability
    if isinstance(target, Engine):
        if target.dialect.name == "sqlite":
            sqlite.adopt(target, durability)
        else:
            _check_driver(target)
        return target, False
    if isinstance(target, sqlite3.Connection):
        return sqlite.around_connection(target, durability)
    if _is_of("psycopg_pool", target, "ConnectionPool"):
        return borrowing.around_pool(target), False
    url = _url(target)
    if url.get_backend_name() == "sqlite":
        engine = sqlite.open_engine(url, durability, read_only=options.read_only)
        # Someone who passes a connection or an engine knows what else is in the file.
        return engine.execution_options(**{ALONE: not options.allow_other_tables}), True
    with _opening(url):
        return opening.open_engine(url, options.pool, durability), True


def backend_of(target: Any) -> Backend:
    """The database that ``target`` leads to; opens nothing.

    Raises:
        ConfigurationError: no event store can be opened on it.
    """
    if isinstance(target, Engine) or _is_of("sqlalchemy", target, "AsyncEngine"):
        name = target.dialect.name
    elif isinstance(target, sqlite3.Connection) or _is_of("aiosqlite", target, "Connection"):
        name = "sqlite"
    elif _is_pool(target):
        name = "postgresql"
    else:
        url = _url(target)
        if url.get_backend_name() != "sqlite":
            _check_name(url)
        name = url.get_backend_name()
    return "sqlite" if name == "sqlite" else "postgresql"


def open_async_engine(target: Any, options: Options) -> tuple[Engine | AsyncEngine, bool]:
    """An engine for an event loop: asynchronous, unless its driver would use a thread per call.

    ``target`` may also be an ``AsyncEngine``, a ``psycopg_pool.AsyncConnectionPool`` or an
    ``aiosqlite.Connection`` to a file.
    """
    if _is_of("aiosqlite", target, "Connection"):
        if options.read_only:
            raise ConfigurationError("read_only needs the file's path, not a connection to it")
        return sqlite.around_aiosqlite(target, options.durability), True
    found = _open_async(target, options)
    if found is None:
        return open_engine(target, options)
    engine, owned = found
    if options.schema is not None:
        engine = engine.execution_options(schema_translate_map={None: options.schema})
    return engine, owned


def reopen(target: Any, options: Options) -> AsyncEngine:
    """Another asynchronous engine for a URL, with connections of its own."""
    engine, _ = open_async_engine(target, options)
    assert not isinstance(engine, Engine)
    return engine


def _open_async(target: Any, options: Options) -> tuple[AsyncEngine, bool] | None:
    if _is_of("sqlalchemy", target, "AsyncEngine"):  # importing it would need greenlet
        if target.dialect.name != "postgresql":
            raise ConfigurationError(
                "an AsyncEngine must be for PostgreSQL; for SQLite pass a path, a URL or a sync "
                "engine, which is faster there"
            )
        _check_driver(target.sync_engine)
        return target, False
    if isinstance(target, str | os.PathLike | URL):
        url = _url(target)
        if url.get_backend_name() != "sqlite":
            with _opening(url):
                return opening.open_async_engine(url, options.pool, options.durability), True
    if _is_of("psycopg_pool", target, "AsyncConnectionPool"):
        return borrowing.around_async_pool(target), False
    return None


def _is_of(module: str, target: object, name: str) -> bool:
    """Whether this is an object of a library that we do not import just to check."""
    return any(
        each.__name__ == name and each.__module__.partition(".")[0] == module
        for each in type(target).__mro__
    )


def _is_pool(target: object) -> bool:
    names = ("ConnectionPool", "AsyncConnectionPool")
    return any(_is_of("psycopg_pool", target, name) for name in names)


def _check_name(url: URL) -> None:
    if not opening.is_url_of_ours(url):
        raise ConfigurationError(
            f"cannot open an event store on {url.drivername!r}; expected a path, sqlite:///path or "
            "postgresql://user:password@host:port/database"
        )


@contextmanager
def _opening(url: URL) -> Iterator[None]:
    _check_name(url)
    try:
        yield
    except ImportError as error:
        raise ConfigurationError(
            f"PostgreSQL needs psycopg 3: pip install 'graph-eventstore[postgres]' ({error})"
        ) from error


def _check_driver(engine: Engine) -> None:
    if (engine.dialect.name, engine.dialect.driver) != ("postgresql", "psycopg"):
        raise ConfigurationError(
            "an engine must be for SQLite, or for PostgreSQL through psycopg 3, not for "
            f"{engine.dialect.name}+{engine.dialect.driver}"
        )


def _url(target: str | os.PathLike[str] | URL) -> URL:
    """The URL of a target that is a name; one of SQLite names a file, or memory expressly."""
    url = target if isinstance(target, URL) else _parsed(target)
    if url.get_backend_name() == "sqlite":
        if url.drivername not in ("sqlite", "sqlite+pysqlite"):
            raise ConfigurationError(
                f"SQLite is opened with Python's own driver, not {url.drivername!r}; start the "
                "URL with sqlite:///"
            )
        if url.host is not None:
            raise ConfigurationError(
                "a URL of SQLite has three slashes before a relative path (sqlite:///runs.db) and "
                "four before an absolute one; this one has two"
            )
        if url.database is not None and not url.database.strip():
            raise ConfigurationError(
                f"the URL names no file; {_EXPECTED}, or :memory: for a database in memory"
            )
    return url


_EXPECTED: Final = (
    "expected a path, sqlite:///path or postgresql://user:password@host:port/database"
)


def _parsed(target: str | os.PathLike[str]) -> URL:
    if target is None:
        raise ConfigurationError(
            f"an event store cannot be opened on None (an environment variable that is not set?); "
            f"{_EXPECTED}"
        )
    if not isinstance(target, str | os.PathLike):
        kind = f"{type(target).__module__}.{type(target).__qualname__}"
        raise ConfigurationError(
            f"an event store cannot be opened on a {kind}; expected a path, a URL, a SQLAlchemy "
            "engine, a sqlite3.Connection or a psycopg_pool.ConnectionPool, and with "
            "AsyncEventStore also an AsyncEngine, an aiosqlite.Connection or an AsyncConnectionPool"
        )
    text = os.fsdecode(target)
    if not text.strip():
        raise ConfigurationError(
            f"an event store cannot be opened on an empty text (an environment variable that is "
            f"not set?); {_EXPECTED}, or :memory: for a database in memory"
        )
    if "\0" in text:
        raise ConfigurationError(f"the path or URL contains a NUL character; {_EXPECTED}")
    if text == ":memory:":
        return URL.create("sqlite")
    if is_pairs(text):
        return postgresql_url(text)
    if "://" not in text:
        return URL.create("sqlite", database=text)
    try:
        return make_url(text.strip())  # a line break at the end, if it was read from a file
    except (exc.ArgumentError, ValueError) as error:  # the text may contain a password: not shown
        raise ConfigurationError(f"cannot read the database URL; {_EXPECTED}") from error


# --- lending connections ----------------------------------------------------------------


class Lender:
    """Lends the connections of an engine, each for one transaction (:class:`Loan`).

    May keep the one that came back last, for the next transaction: to give it back to its pool and
    to take it again would be a tenth of an append's time. The pool counts it as lent. None is kept
    where somebody listens to the pool.

    Args:
        keeps: whether it keeps one; only where nobody else uses the pool.

    Attributes:
        kept: the connection that is kept, if there is one; it has no transaction.
        pinned: the connection that :meth:`pin` keeps, if there is one; it reads.
    """

    def __init__(self, engine: Engine, *, keeps: bool) -> None:
        self.engine = engine
        self.kept: list[Connection] = []
        self.pinned: list[Connection] = []
        self.keeps = keeps
        self._may_keep = keeps

    def release(self) -> None:
        """Give the one that is kept back to the pool."""
        while self.kept:
            with suppress(IndexError):  # a transaction was faster
                self.kept.pop().close()
        self.unpin()

    def pin(self) -> bool:
        """Keep SQLite's write-ahead log from being moved into the file, until :meth:`unpin`.

        A connection that goes on reading does: what it sees must stay there.

        Returns:
            Whether it begins to.
        """
        if self.pinned or not self.keeps:
            return False
        conn = self.engine.connect()
        raw: Any = conn.connection.dbapi_connection
        raw.execute("BEGIN")
        raw.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
        self.pinned.append(conn)
        if not self.keeps:  # any more
            self.unpin()
        return True

    def unpin(self) -> None:
        """Let the log be moved again."""
        with suppress(IndexError):
            conn = self.pinned.pop()
            raw: Any = conn.connection.dbapi_connection
            raw.rollback()
            conn.close()

    def pause(self) -> None:
        """Keep none."""
        self.keeps = False
        self.release()

    def resume(self) -> None:
        """Keep one again."""
        self.keeps = self._may_keep

    def close(self) -> None:
        """Keep none any more."""
        self._may_keep = False
        self.pause()

    def forget(self) -> list[Connection]:
        """The kept connections, which another process uses, too; they must not be freed."""
        kept, self.kept, self.pinned = self.kept + self.pinned, [], []
        return kept


class Loan:
    """A connection without a transaction, for the block of a ``with`` statement."""

    __slots__ = ("_conn", "_lender")

    def __init__(self, lender: Lender) -> None:
        self._lender = lender

    def __enter__(self) -> Connection:
        try:
            kept = self._lender.kept.pop()
        except IndexError:
            kept = None
        self._conn = self._lender.engine.connect() if kept is None else kept
        return self._conn

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        lender, conn = self._lender, self._conn
        heard = lender.engine.pool.dispatch
        if error or not lender.keeps or lender.kept or heard.checkout or heard.checkin:
            conn.close()
            return
        lender.kept.append(conn)
        if not lender.keeps:  # any more: it was paused meanwhile
            lender.release()
