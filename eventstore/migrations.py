"""How a database comes to have the tables of today, from nothing or from any older version.

Migrations are ordered, named and append-only: one that has been released is never edited.
Each runs in one transaction together with the record that it ran. A database that carries
a migration unknown to us was written by a newer version and is not touched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection, exc, inspect, select

from eventstore import dialects, schema
from eventstore.errors import ConfigurationError, SchemaVersionError

_FIRST_TABLES = (
    schema.threads,
    schema.events,
    schema.snapshots,
    schema.forks,
    schema.tombstones,
)


def _create_tables(conn: Connection) -> None:
    schema.metadata.create_all(conn, tables=_FIRST_TABLES, checkfirst=False)


MIGRATIONS: Final[tuple[tuple[str, Callable[[Connection], None]], ...]] = (
    ("0001_log", _create_tables),
)


class Overtaken(Exception):
    """Another process was setting the database up at the same time: look again."""


def pending(conn: Connection) -> list[str]:
    """Names of the migrations that this database lacks.

    Raises:
        SchemaVersionError: it has one that this version does not know.
        ConfigurationError: it has tables by our names that are not ours, or no such schema.
    """
    known = [name for name, _ in MIGRATIONS]
    schema_name = _schema_of(conn)
    look = inspect(conn)
    if not look.has_table(schema.migrations.name, schema_name):
        if schema_name is not None and schema_name not in look.get_schema_names():
            raise ConfigurationError(
                f"the database has no schema {schema_name!r}; create it first, and let the user "
                "of the event store create tables in it"
            )
        taken = {t.name for t in _FIRST_TABLES if look.has_table(t.name, schema_name)}
        # Looked at once more, as all of them may have been made between one look and the next.
        if taken and not inspect(conn).has_table(schema.migrations.name, schema_name):
            raise ConfigurationError(
                f"the database already has tables named {', '.join(sorted(taken))}, which are "
                "not ours; give the event store a database of its own, or on PostgreSQL a schema"
            )
        if not taken:
            return known
    applied = set(conn.execute(select(schema.migrations.c.name)).scalars())
    unknown = sorted(applied - set(known))
    if unknown:
        raise SchemaVersionError(unknown[-1], known[-1])
    return [name for name in known if name not in applied]


def _schema_of(conn: Connection) -> str | None:
    names: dict[str | None, str] = conn.get_execution_options().get("schema_translate_map", {})
    return names.get(None)


def migrate(conn: Connection, now_us: int) -> list[str]:
    """Run what is pending, inside the caller's write transaction; returns the names.

    Several processes may do so at once. On SQLite each looks again under its own lock. On
    PostgreSQL the note that a migration ran is written first: it lets one process in, and the
    others wait for that one and are then refused, as they are by a table that is there.

    Raises:
        Overtaken: others were first; nothing of this transaction is to be kept.
    """
    missing = pending(conn)
    if not missing:
        return []
    try:
        schema.migrations.create(conn, checkfirst=True)
        for name, run in MIGRATIONS:
            if name in missing:
                conn.execute(schema.migrations.insert().values(name=name, applied_at=now_us))
                run(conn)
    except exc.DBAPIError as error:
        if dialects.is_duplicate(error):
            raise Overtaken from error
        raise
    return missing


__all__ = ["MIGRATIONS", "Overtaken", "migrate", "pending"]
