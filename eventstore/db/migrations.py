"""Migrations: how a database gets its tables, from nothing or from any older version.

Migrations are ordered, named and append-only: one that has been released is never edited.
Each runs in one transaction together with the record that it ran. A database that carries
a migration unknown to us was written by a newer version and is not touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, Final

from sqlalchemy import Column, Connection, Table, create_mock_engine, exc, inspect, select
from sqlalchemy.schema import CreateIndex

from eventstore.db import driver_errors, schema
from eventstore.db.driver_errors import RolledBack
from eventstore.db.options import ALONE
from eventstore.errors import ConfigurationError, SchemaVersionError

_OTHERS_SHOWN: Final = 5

_FIRST_TABLES = (
    schema.threads,
    schema.events,
    schema.snapshots,
    schema.forks,
    schema.tombstones,
)


_RETENTION_TABLES = (
    schema.segments,
    schema.dictionaries,
    schema.secrets,
    schema.slices,
    schema.sweeps,
)
_RETENTION_COLUMNS = (
    schema.threads.c.pin,
    schema.threads.c.deletion,
    schema.snapshots.c.step,
    schema.tombstones.c.policy,
    schema.tombstones.c.asked_by,
)


_VACUUMED_SOON = (schema.threads, schema.events, schema.segments, schema.snapshots)
_VACUUM_SOON = ", ".join(
    f"{prefix}autovacuum_vacuum_{name} = {value}"
    for prefix in ("", "toast.")
    for name, value in (("scale_factor", 0.02), ("threshold", 1000))
)
"""Rows that a sweep deletes are vacuumed when 2 % of a table is dead, not 20 %: of ten million
events that is 200,000. Payloads are out of line, in TOAST tables with settings of their own."""


def _create_tables(conn: Connection) -> None:
    """Every table as it is today, in a new database."""
    if conn.dialect.name == "sqlite":
        for statement in _statements_of_sqlite():
            conn.exec_driver_sql(statement)
    else:
        _create_all(conn)
        _vacuum_soon(conn)


def _create_all(conn: Any) -> None:
    tables = [table for table in schema.metadata.sorted_tables if table is not schema.migrations]
    schema.metadata.create_all(conn, tables=tables, checkfirst=False)


@cache
def _statements_of_sqlite() -> list[str]:
    """Written once: a process may open any number of stores in memory."""
    statements: list[str] = []

    def add(statement: Any, *_: Any) -> None:
        statements.append(str(statement.compile(dialect=engine.dialect)))

    engine = create_mock_engine("sqlite://", add)
    _create_all(engine)
    return statements


def _vacuum_soon(conn: Connection) -> None:
    for table in _VACUUMED_SOON if conn.dialect.name == "postgresql" else ():
        conn.exec_driver_sql(f"ALTER TABLE {_quoted(conn, table)} SET ({_VACUUM_SOON})")


def _add_retention(conn: Connection) -> None:
    """The tables and columns for sealing, trimming, erasing and sharing sweeps."""
    schema.metadata.create_all(conn, tables=_RETENTION_TABLES, checkfirst=False)
    _add_columns(conn, _RETENTION_COLUMNS)
    for index in schema.tombstones.indexes:
        conn.execute(CreateIndex(index, if_not_exists=True))
    _vacuum_soon(conn)


def _add_run_leases(conn: Connection) -> None:
    """The owner of a running thread, and the counters by which owners show that they live."""
    schema.renewals.create(conn, checkfirst=True)
    _add_columns(conn, [schema.threads.c.owner])


def _add_thread_checksum(conn: Connection) -> None:
    """The checksum of a thread's row; rows that are there have none until they are changed."""
    _add_columns(conn, (schema.threads.c.checksum,))


def _add_reached(conn: Connection) -> None:
    """Where the log of a thread ended when its row was changed last; not known of older rows."""
    _add_columns(conn, (schema.threads.c.reached,))


def _add_columns(conn: Connection, columns: Iterable[Column[Any]]) -> None:
    """Add columns, all of them nullable, to tables that were created without them."""
    look, schema_name = inspect(conn), _schema_of(conn)
    prepare = conn.dialect.identifier_preparer
    for column in columns:
        if column.name in {c["name"] for c in look.get_columns(column.table.name, schema_name)}:
            continue
        table = _quoted(conn, column.table)
        name, kind = prepare.quote(column.name), column.type.compile(conn.dialect)
        conn.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN {name} {kind}")


def _quoted(conn: Connection, table: Table) -> str:
    """The name of a table with its schema, for a statement in text."""
    prepare, schema_name = conn.dialect.identifier_preparer, _schema_of(conn)
    name = prepare.quote(table.name)
    return name if schema_name is None else f"{prepare.quote(schema_name)}.{name}"


def _note_later_generations(conn: Connection) -> None:
    """Note whether a thread may exist whose first key nothing tells of.

    A thread that is restored leaves a tombstone under the first key of its name. Older versions
    left none.
    """
    later = select(schema.threads.c.thread_key).where(schema.threads.c.generation > 1).limit(1)
    if conn.execute(later).first() is not None:
        conn.execute(schema.secrets.insert().values(name="later_generations", value=b""))


MIGRATIONS: Final[tuple[tuple[str, Callable[[Connection], None]], ...]] = (
    ("0001_log", _create_tables),
    ("0002_retention", _add_retention),
    ("0003_run_leases", _add_run_leases),
    ("0004_thread_checksum", _add_thread_checksum),
    ("0005_first_keys", _note_later_generations),
    ("0006_thread_reached", _add_reached),
)
"""A new database gets the first, which creates all tables, and a record of the others."""


def pending(conn: Connection) -> list[str]:
    """Names of the migrations that this database lacks.

    Raises:
        SchemaVersionError: it has one that this version does not know.
        ConfigurationError: tables of our names exist that are not ours, or the schema does not.
    """
    known = [name for name, _ in MIGRATIONS]
    if _is_untouched(conn):
        return known
    schema_name = _schema_of(conn)
    look = inspect(conn)
    if not look.has_table(schema.migrations.name, schema_name):
        if schema_name is not None and schema_name not in look.get_schema_names():
            raise ConfigurationError(
                f"the database has no schema {schema_name!r}; create it first, and allow the user "
                "of the event store to create tables in it"
            )
        taken = {t.name for t in _FIRST_TABLES if look.has_table(t.name, schema_name)}
        # Checked again, as all of them may have been created between the two checks.
        if taken and not inspect(conn).has_table(schema.migrations.name, schema_name):
            raise ConfigurationError(
                f"the database already has tables named {', '.join(sorted(taken))}, which are "
                "not ours; give the event store a database of its own, or on PostgreSQL a schema"
            )
        if not taken:
            _refuse_others(conn)
            return known
    applied = set(conn.execute(select(schema.migrations.c.name)).scalars())
    unknown = sorted(applied - set(known))
    if unknown:
        raise SchemaVersionError(unknown[-1], known[-1])
    return [name for name in known if name not in applied]


def _is_untouched(conn: Connection) -> bool:
    """Whether a database of SQLite never had a table."""
    if conn.dialect.name != "sqlite":
        return False
    return conn.exec_driver_sql("PRAGMA schema_version").scalar() == 0


def _refuse_others(conn: Connection) -> None:
    """Check that a file that is not set up is empty, if the store asks for one of its own."""
    if not conn.get_execution_options().get(ALONE):
        return
    found = inspect(conn)
    others = sorted({*found.get_table_names(), *found.get_view_names()})
    if others:
        named = ", ".join(others[:_OTHERS_SHOWN]) + (", …" if len(others) > _OTHERS_SHOWN else "")
        raise ConfigurationError(
            f"the file holds tables of another application ({named}) and no event store; pass "
            "another path, or allow_other_tables=True to keep both in this file"
        )


LACKS_LOG: Final = (
    "the file was last used with a write-ahead log; if it is a copy, copy the -wal file beside the "
    "original, too, or make the copy with VACUUM INTO"
)


def demand_none(missing: list[str], may_lack_log: bool) -> None:
    """Check that a store that only reads can use a database.

    Args:
        may_lack_log: it may be a copy of a file without its write-ahead log.

    Raises:
        ConfigurationError: there are migrations to run.
    """
    if not missing:
        return
    if may_lack_log:
        raise ConfigurationError(f"there is no event store in this file: {LACKS_LOG}")
    if len(missing) == len(MIGRATIONS):
        raise ConfigurationError(
            "there is no event store in this database, and it was opened for reading only; open "
            "it once for writing, or run `eventstore migrate`, to set one up"
        )
    raise ConfigurationError(
        "the database was made by an older version of graph-eventstore, and was opened for "
        f"reading only; it lacks {', '.join(missing)}: run `eventstore migrate`"
    )


def _schema_of(conn: Connection) -> str | None:
    names: dict[str | None, str] = conn.get_execution_options().get("schema_translate_map", {})
    return names.get(None)


def migrate(conn: Connection, now_us: int) -> list[str]:
    """Run pending migrations inside the caller's write transaction; returns their names.

    Several processes may do so at once. On SQLite each checks again under its own lock. On
    PostgreSQL the record that a migration ran is inserted first: it lets one process in, and the
    others wait for that one and are then refused, as they are by a table that exists.

    Raises:
        RolledBack: another process was first.
    """
    missing = pending(conn)
    if not missing:
        return []
    try:
        is_new = len(missing) == len(MIGRATIONS)
        schema.migrations.create(conn, checkfirst=True)
        for name, run in MIGRATIONS:
            if name in missing:
                conn.execute(schema.migrations.insert().values(name=name, applied_at=now_us))
                if run is _create_tables or not is_new:
                    run(conn)
    except exc.DBAPIError as error:
        if driver_errors.is_duplicate(error):
            raise RolledBack("another process was setting the database up") from error
        raise
    return missing
