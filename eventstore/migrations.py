"""How a database comes to have the tables of today, from nothing or from any older version.

Migrations are ordered, named and append-only: one that has been released is never edited.
Each runs in one transaction together with the record that it ran. A database that carries
a migration unknown to us was written by a newer version and is not touched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection, inspect, select

from eventstore import schema
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


def pending(conn: Connection) -> list[str]:
    """Names of the migrations that this database lacks.

    Raises:
        SchemaVersionError: it has one that this version does not know.
        ConfigurationError: it has tables by our names that are not ours.
    """
    known = [name for name, _ in MIGRATIONS]
    if not inspect(conn).has_table(schema.migrations.name):
        taken = set(inspect(conn).get_table_names()) & {table.name for table in _FIRST_TABLES}
        if taken:
            raise ConfigurationError(
                f"the database already has tables named {', '.join(sorted(taken))}, which are "
                "not ours; give the event store a database of its own"
            )
        return known
    applied = set(conn.execute(select(schema.migrations.c.name)).scalars())
    unknown = sorted(applied - set(known))
    if unknown:
        raise SchemaVersionError(unknown[-1], known[-1])
    return [name for name in known if name not in applied]


def migrate(conn: Connection, now_us: int) -> list[str]:
    """Run what is pending, inside the caller's write transaction; returns the names.

    Several processes may do so at once: each looks again under its own lock.
    """
    missing = pending(conn)
    if not missing:
        return []
    schema.migrations.create(conn, checkfirst=True)
    for name, run in MIGRATIONS:
        if name in missing:
            run(conn)
            conn.execute(schema.migrations.insert().values(name=name, applied_at=now_us))
    return missing


__all__ = ["MIGRATIONS", "migrate", "pending"]
