"""The tables, defined once for all databases.

Shaped for sharding by thread: in the tables that belong to threads, every primary key, unique
index and foreign key begins with ``thread_key``, the database numbers nothing, and no
foreign key crosses threads. Not supported on Citus yet: docs/decisions/databases.md lists the
obstacles. Times are microseconds since 1970 UTC.

On SQLite, ``events`` is a rowid table: rows of a few hundred bytes that arrive for many
threads in turn would leave a clustered tree half empty, and large ones (``snapshots``)
spill out of it. The small tables are clustered.

On PostgreSQL, text is compared byte by byte, as on SQLite, whatever the database's locale;
and payloads, which are compressed already, are not compressed again.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from sqlalchemy import (
    DDL,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Executable,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    event,
)
from sqlalchemy import Text as AnyText


class Bytes(LargeBinary):
    """Bytes that are passed to and from the driver unchanged.

    ``LargeBinary`` converts each value in Python, which is half the cost of reading a row.
    """

    cache_ok = True

    def bind_processor(self, _dialect: Any) -> None:
        return None

    def result_processor(self, _dialect: Any, _coltype: Any) -> None:
        return None


class Flag(Boolean):
    """A boolean; what a damaged row of SQLite holds in its place is passed on, to be judged."""

    cache_ok = True

    def result_processor(self, dialect: Any, _coltype: Any) -> Any:
        return None if dialect.supports_native_boolean else _flag


def _flag(value: Any) -> Any:
    return bool(value) if type(value) is int and value in (0, 1) else value


metadata = MetaData()

# On SQLite an INTEGER PRIMARY KEY is the address of the row: it needs no second tree.
Text = AnyText().with_variant(AnyText(collation="C"), "postgresql")
_Key = BigInteger().with_variant(Integer, "sqlite")

migrations = Table(
    "eventstore_migrations",
    metadata,
    Column("name", Text, primary_key=True),
    Column("applied_at", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

threads = Table(
    "threads",
    metadata,
    Column("thread_key", _Key, primary_key=True, autoincrement=False),
    Column("tenant", Text, nullable=False),
    Column("thread_id", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("active_at", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("ttl", BigInteger),
    Column("pinned", Flag, nullable=False),
    Column("condemned_at", BigInteger, key="deleting_since"),
    Column("metadata", Text, nullable=False),  # JSON
    # How many threads of this name there were before.
    Column("life", Integer, nullable=False, key="generation"),
    Column("pin", Text),  # JSON: reason, who requested it, since when
    Column("fate", Text, key="deletion"),  # JSON: what its tombstone will record
    Column("owner", Text),  # the run that is under way: see eventstore/leases.py
    Column("checksum", Bytes),  # of what appends never change; NULL: of an older version
    # Where the root log ended when an append changed this row last: if it ends before that now,
    # an index is damaged, or events were lost.
    Column("reached", BigInteger),
    Index("threads_by_activity", "tenant", "active_at", "thread_key"),
)

events = Table(
    "events",
    metadata,
    Column("thread_key", BigInteger, ForeignKey("threads.thread_key"), primary_key=True),
    Column("ns", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", SmallInteger, nullable=False),
    Column("key", Text),
    Column("recorded_at", BigInteger, nullable=False),
    Column("digest", Bytes, nullable=False),
    Column("payload", Bytes, nullable=False),
)

# Partial, so that events without a key (nearly all) cost nothing here.
_has_key = events.c.key.is_not(None)
_by_key = Index(
    "events_by_key",
    events.c.thread_key,
    events.c.ns,
    events.c.key,
    unique=True,
    sqlite_where=_has_key,
)


@event.listens_for(events, "before_create")
def _make_partial(_table: Table, conn: Connection, **_options: Any) -> None:
    # Said here and not above, which would import that dialect for programs on SQLite, too.
    if conn.dialect.name == "postgresql":
        _by_key.dialect_kwargs["postgresql_where"] = _has_key


# Old events, many in one row. In each log they are the oldest ones; the last event of a log is
# never among them.
segments = Table(
    "segments",
    metadata,
    Column("thread_key", BigInteger, ForeignKey("threads.thread_key"), primary_key=True),
    Column("ns", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),  # of its first event
    Column("last", BigInteger, nullable=False),  # seq of its last event
    Column("link", Bytes, nullable=False),  # the digest before its first event
    Column("digest", Bytes, nullable=False),  # of its last event
    Column("recorded_at", BigInteger, nullable=False),  # of its last event
    Column("raw", BigInteger, nullable=False),  # bytes of its events' bodies, uncompressed
    Column("payload", Bytes, nullable=False),
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("thread_key", BigInteger, ForeignKey("threads.thread_key"), primary_key=True),
    Column("ns", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("fingerprint", Text, nullable=False),
    Column("is_base", Flag, nullable=False),
    Column("rests_on", BigInteger),
    Column("step", BigInteger),  # how many checkpoints there were, as the layer above counts
    Column("digest", Bytes, nullable=False),  # of the event at seq: the chain goes on here
    Column("checksum", Bytes, nullable=False),
    Column("additions", Bytes, nullable=False),
    Column("payload", Bytes, nullable=False),
)

forks = Table(
    "forks",
    metadata,
    Column("thread_key", BigInteger, ForeignKey("threads.thread_key"), primary_key=True),
    Column("ns", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("source_thread_key", BigInteger, nullable=False),
    Column("source_ns", Text, nullable=False),
    Column("source_seq", BigInteger, nullable=False),
    Index("forks_by_source", "source_thread_key", "source_ns", "source_seq"),
    sqlite_with_rowid=False,
)

tombstones = Table(
    "tombstones",
    metadata,
    Column("thread_key", BigInteger, primary_key=True, autoincrement=False),
    Column("name_digest", Bytes, nullable=False),
    Column("life", Integer, nullable=False, key="generation"),
    Column("tenant", Text, nullable=False),
    Column("deleted_at", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("events", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("policy", Text),  # name of the policy that removed it
    Column("asked_by", Text),  # who requested it
    Index("tombstones_by_name", "name_digest", "generation"),
    Index("tombstones_by_time", "tenant", "deleted_at", "thread_key"),
    sqlite_with_rowid=False,
)

# --- tables that belong to no thread ----------------------------------------------------

dictionaries = Table(
    "dictionaries",
    metadata,
    Column("dict_id", BigInteger, primary_key=True, autoincrement=False),
    Column("data", Bytes, nullable=False),
)

# How often each process has renewed the leases of its runs.
renewals = Table(
    "eventstore_renewals",
    metadata,
    Column("process", Text, primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("renewed_at", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

secrets = Table(
    "eventstore_secrets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Bytes, nullable=False),
    sqlite_with_rowid=False,
)

# The key space in slices, for sweepers that share the work; once for each scope: a tenant
# (`=` and its name), or all tenants (`*`). A sweep in one scope does not count in the others.
slices = Table(
    "retention_slices",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("slice", Integer, primary_key=True, autoincrement=False),
    Column("holder", Text, nullable=False),
    Column("lease_until", BigInteger, nullable=False),
    Column("swept_at", BigInteger, nullable=False),  # when its last sweep began; 0: never
    sqlite_with_rowid=False,
)

sweeps = Table(
    "retention_sweeps",
    metadata,
    Column("sweep_id", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
    Column("cutoff", BigInteger, nullable=False),  # the moment it judges threads at
    Column("policy", Text, nullable=False),  # JSON
    Column("counts", Text, nullable=False),  # JSON
    Index("retention_sweeps_by_time", "started_at"),
    sqlite_with_rowid=False,
)


def _store_uncompressed(table: Table, *columns: str) -> None:
    for column in columns:
        change = DDL(f"ALTER TABLE %(fullname)s ALTER COLUMN {column} SET STORAGE EXTERNAL")  # type: ignore[no-untyped-call]
        event.listen(table, "after_create", change.execute_if(dialect="postgresql"))


_store_uncompressed(events, "payload")
_store_uncompressed(segments, "payload")
_store_uncompressed(snapshots, "additions", "payload")


def insert_if_new(conn: Connection, table: Table) -> Executable:
    """A statement that inserts rows, except those whose key exists."""
    return _insert_if_new(conn.dialect.name, table)


@cache
def _insert_if_new(dialect: str, table: Table) -> Executable:
    # Importing the other dialect would take long, and is of no use.
    insert = import_module(f"sqlalchemy.dialects.{dialect}").insert
    statement: Executable = insert(table).on_conflict_do_nothing()
    return statement
