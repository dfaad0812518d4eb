"""The limits that no library on the same machine can beat.

A limit on writing inserts the same rows as this library does, with one commit per superstep, into
one table of the same shape; it encodes, checks and derives nothing. The limit on reading
decompresses and unpacks payloads that are already in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Final, Protocol

import msgpack
import psycopg
import zstandard
from sqlalchemy import (
    BigInteger,
    Column,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    create_engine,
    insert,
    make_url,
)

from eventstore.codec.dictionaries import builtin
from eventstore.db.sqlite import sqlite_driver

Row = tuple[Any, ...]

COLUMNS: Final = 8


class Limit(Protocol):
    """A driver that inserts rows into one table of events.

    Attributes:
        name: its name in reports.
    """

    name: ClassVar[str]

    def __init__(self, target: str) -> None: ...

    def write(self, supersteps: Sequence[Sequence[Row]]) -> None:
        """Insert the rows, with one transaction and so one fsync per superstep."""

    def close(self) -> None:
        """Close the connection."""


class BareSqlite:
    """The SQLite driver alone, the same one that the library uses."""

    name: ClassVar[str] = "bare sqlite3"
    _TABLE: Final = (
        "CREATE TABLE events (thread_key INTEGER NOT NULL, ns TEXT NOT NULL, seq INTEGER NOT NULL,"
        " kind INTEGER NOT NULL, key TEXT, recorded_at INTEGER NOT NULL, digest BLOB NOT NULL,"
        " payload BLOB NOT NULL, PRIMARY KEY (thread_key, ns, seq))"
    )
    _INSERT: Final = f"INSERT INTO events VALUES ({', '.join('?' * COLUMNS)})"

    def __init__(self, target: str) -> None:
        self._connection = sqlite_driver().connect(target, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute(self._TABLE)

    def write(self, supersteps: Sequence[Sequence[Row]]) -> None:
        execute = self._connection.execute
        many = self._connection.executemany
        for rows in supersteps:
            execute("BEGIN IMMEDIATE")
            many(self._INSERT, rows)
            execute("COMMIT")

    def close(self) -> None:
        self._connection.close()


_POSTGRES_TABLE: Final = (
    "(thread_key bigint NOT NULL, ns text NOT NULL, seq bigint NOT NULL, kind smallint NOT NULL,"
    " key text, recorded_at bigint NOT NULL, digest bytea NOT NULL, payload bytea NOT NULL,"
    " PRIMARY KEY (thread_key, ns, seq))"
)


class BarePsycopg:
    """The PostgreSQL driver alone; a single row is its own transaction, in one round trip."""

    name: ClassVar[str] = "bare psycopg"
    _INSERT: Final = f"INSERT INTO bare_events VALUES ({', '.join(['%s'] * COLUMNS)})"

    def __init__(self, target: str) -> None:
        self._connection = psycopg.connect(target, autocommit=True)
        self._connection.execute("CREATE TABLE bare_events " + _POSTGRES_TABLE)

    def write(self, supersteps: Sequence[Sequence[Row]]) -> None:
        connection = self._connection
        for rows in supersteps:
            if len(rows) == 1:
                connection.execute(self._INSERT, rows[0])
            else:
                with connection.transaction(), connection.cursor() as cursor:
                    cursor.executemany(self._INSERT, rows)

    def close(self) -> None:
        self._connection.close()


class BareCore:
    """SQLAlchemy Core, which takes a connection from its pool for each superstep."""

    name: ClassVar[str] = "bare SQLAlchemy Core"

    def __init__(self, target: str) -> None:
        url = make_url(target).set(drivername="postgresql+psycopg")
        self._engine = create_engine(url, connect_args={"prepare_threshold": None})
        self._autocommit = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        types = (BigInteger, Text, BigInteger, SmallInteger, Text, BigInteger)
        names = ("thread_key", "ns", "seq", "kind", "key", "recorded_at", "digest", "payload")
        columns = zip(names, (*types, LargeBinary, LargeBinary), strict=True)
        table = Table("core_events", MetaData(), *(Column(*each) for each in columns))
        self._insert = insert(table)
        self._names = names
        with self._engine.begin() as conn:
            conn.exec_driver_sql("CREATE TABLE core_events " + _POSTGRES_TABLE)

    def write(self, supersteps: Sequence[Sequence[Row]]) -> None:
        for rows in supersteps:
            values = [dict(zip(self._names, row, strict=True)) for row in rows]
            if len(values) == 1:
                with self._autocommit.connect() as conn:
                    conn.execute(self._insert, values[0])
            else:
                with self._engine.begin() as conn:
                    conn.execute(self._insert, values)

    def close(self) -> None:
        self._engine.dispose()


@contextmanager
def opened(kind: type[Limit], target: str) -> Iterator[Limit]:
    """A limit on a database, closed at the end."""
    limit = kind(target)
    try:
        yield limit
    finally:
        limit.close()


def by_superstep(rows: Sequence[Row], sizes: Sequence[int]) -> list[list[Row]]:
    """Cut rows into supersteps whose sizes repeat in the given order."""
    if len(rows) % sum(sizes):
        raise ValueError(
            f"{len(rows)} rows cannot be divided into supersteps of {list(sizes)} rows"
        )
    groups, at = [], 0
    while at < len(rows):
        for size in sizes:
            groups.append(list(rows[at : at + size]))
            at += size
    return groups


def bare_decoder(payloads: Sequence[bytes]) -> Callable[[], list[Any]]:
    """A function that decodes the payloads with nothing but ``zstandard`` and ``msgpack``."""
    plain = zstandard.ZstdDecompressor()
    decompressors: dict[int, zstandard.ZstdDecompressor] = {}

    def decompressor(body: bytes) -> zstandard.ZstdDecompressor:
        number = zstandard.get_frame_parameters(body).dict_id
        if not number:
            return plain
        if number not in decompressors:
            data = zstandard.ZstdCompressionDict(builtin(number))
            decompressors[number] = zstandard.ZstdDecompressor(dict_data=data)
        return decompressors[number]

    # The decompressor of each payload is chosen before the clock starts.
    work = [(p[2:], decompressor(p[2:]).decompress if p[1] else bytes) for p in payloads]

    def loop() -> list[Any]:
        return [msgpack.unpackb(expand(body), strict_map_key=False) for body, expand in work]

    return loop
