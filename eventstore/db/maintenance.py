"""The space of a database (free pages, dead rows, bytes to overwrite), its check and its clock.

Each function works on SQLite and on PostgreSQL, which differ most here.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from sqlalchemy import BigInteger, Connection, Table, cast, exc, extract, func, select, text

from eventstore.db import sqlite
from eventstore.models import DatabaseReport

_LOG_TIMEOUT_MS: Final = 2000
_INCREMENTAL: Final = 2  # of PRAGMA auto_vacuum


def reclaim(conn: Connection, bytes_max: int, deadline: float) -> int:
    """Give free pages at the end of the file back to the file system; returns how many bytes.

    Ends at the deadline, by ``time.monotonic``, but after one page at the earliest.

    PostgreSQL's vacuum does so by itself, as far as it can; a file made by an older version
    without ``auto_vacuum=INCREMENTAL`` keeps its free pages for new rows.
    """
    if conn.dialect.name != "sqlite":
        return 0
    mode, size, free = (
        conn.exec_driver_sql(f"PRAGMA {name}").scalar_one()
        for name in ("auto_vacuum", "page_size", "freelist_count")
    )
    if mode != _INCREMENTAL or not free:
        return 0
    # Sent to the driver directly: each step of the statement frees a page, and SQLAlchemy would
    # close a cursor without columns at the first step.
    cursor = conn.connection.cursor()
    try:
        for _ in cursor.execute(f"PRAGMA incremental_vacuum({max(1, bytes_max // size)})"):
            if time.monotonic() >= deadline:
                break
    finally:
        cursor.close()
    still_free = conn.exec_driver_sql("PRAGMA freelist_count").scalar_one()
    return int((free - still_free) * size)


def overwrite_deleted(conn: Connection, on: bool) -> None:
    """Overwrite deleted bytes of this connection in the file, or stop doing so (SQLite)."""
    if conn.dialect.name == "sqlite":
        conn.exec_driver_sql(f"PRAGMA secure_delete = {'ON' if on else 'OFF'}").fetchall()


def file_bytes(conn: Connection) -> int | None:
    """The size of an SQLite database; ``None`` on PostgreSQL."""
    if conn.dialect.name != "sqlite":
        return None
    pages, size = (
        conn.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("page_count", "page_size")
    )
    return int(pages * size)


def vacuum(conn: Connection, tables: Sequence[Table]) -> list[str]:
    """Rewrite an SQLite file, or free the dead rows of these tables on PostgreSQL.

    Not within a transaction. SQLite's writers wait meanwhile, PostgreSQL's do not.

    Returns:
        PostgreSQL's warnings: it skips a table that this role may not vacuum.
    """
    if conn.dialect.name == "sqlite":
        conn.exec_driver_sql("VACUUM")
        return []
    names: dict[str | None, str] = conn.get_execution_options().get("schema_translate_map", {})
    quote = conn.dialect.identifier_preparer.quote
    schema = f"{quote(names[None])}." if names.get(None) else ""
    driver = conn.connection.driver_connection
    assert driver is not None
    warnings: list[str] = []

    def collect(notice: Any) -> None:
        if notice.severity_nonlocalized == "WARNING":
            warnings.append(notice.message_primary)

    driver.add_notice_handler(collect)
    try:
        conn.exec_driver_sql(f"VACUUM {', '.join(schema + quote(t.name) for t in tables)}")
    finally:
        driver.remove_notice_handler(collect)
    return warnings


# Vacuum keeps rows that the oldest snapshot in use may see. The server shows the age of snapshots
# to every role, other than what is run in them.
_MARK: Final = text("SELECT CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS xid) AS text)")
_OLDER: Final = text("""
    SELECT who FROM (
        SELECT 'a transaction of process ' || pid AS who, age(backend_xmin) AS age
        FROM pg_stat_activity
        WHERE pid NOT IN (SELECT pid FROM pg_stat_progress_vacuum)
            AND pid <> pg_backend_pid() AND (datid IS NULL OR datname = current_database())
        UNION ALL
        SELECT 'the prepared transaction ' || gid, age(transaction)
        FROM pg_prepared_xacts WHERE database = current_database()
        UNION ALL
        SELECT 'the replication slot ' || slot_name, age(xmin) FROM pg_replication_slots
    ) AS found
    WHERE age > age(CAST(:mark AS xid))
""")


def mark(conn: Connection) -> str | None:
    """Now, as PostgreSQL counts transactions; ``None`` on SQLite."""
    if conn.dialect.name == "sqlite":
        return None
    return str(conn.execute(_MARK).scalar_one())


def older_than(conn: Connection, mark: str) -> list[str]:
    """What may still see rows that were deleted before the mark, so that vacuum keeps them."""
    return list(conn.execute(_OLDER, {"mark": mark}).scalars())


def empty_log(conn: Connection) -> bool:
    """Move SQLite's write-ahead log into the file and truncate it.

    Not within a transaction. False if another connection is reading: then it is not truncated.
    """
    if conn.dialect.name != "sqlite":
        return True
    conn.exec_driver_sql(f"PRAGMA busy_timeout = {_LOG_TIMEOUT_MS}")
    try:
        busy = conn.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()[0]
    finally:
        conn.exec_driver_sql(f"PRAGMA busy_timeout = {int(sqlite.BUSY_TIMEOUT_S * 1000)}")
    return not busy


_NOW = select(cast(extract("epoch", func.clock_timestamp()) * 1_000_000, BigInteger))


def now_us(conn: Connection) -> int:
    """The time by PostgreSQL's clock, in microseconds since 1970 UTC."""
    return int(conn.execute(_NOW).scalar_one())


PROBLEMS_MAX: Final = 100
"""Problems that a check reports at most."""


_STEPS: Final = 100_000
"""SQLite's virtual machine runs so many instructions, a few milliseconds, between two looks at
``should_stop``.
"""

_STOPPED: Final = DatabaseReport((), None, "stopped before its end")


def check(
    conn: Connection, tables: Sequence[Table], should_stop: Callable[[], bool]
) -> DatabaseReport:
    """The database's own check of these tables and their indexes; it reads all of them."""
    if conn.dialect.name != "sqlite":
        return _checked_by_amcheck(conn, tables, should_stop)
    driver: Any = conn.connection.driver_connection
    driver.set_progress_handler(should_stop, _STEPS)
    try:
        problems = tuple(_sqlite_problems(conn))
    finally:
        driver.set_progress_handler(None, 0)
    return _STOPPED if should_stop() else DatabaseReport(problems, "integrity_check")


def _sqlite_problems(conn: Connection) -> Iterator[str]:
    try:
        for (line,) in conn.exec_driver_sql(f"PRAGMA integrity_check({PROBLEMS_MAX})"):
            if line != "ok":
                yield f"integrity_check: {line}"
        lacking = conn.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
        for table, count in Counter(str(row[0]) for row in lacking).items():
            yield f"foreign_key_check: {count} rows of {table} belong to no thread"
    except exc.DatabaseError as error:
        yield f"the check itself failed: {error.orig}"


_AMCHECK: Final = (
    "SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'amcheck'"
)
_INDEXES: Final = """
    SELECT i.indexrelid::regclass::text, i.indrelid::regclass::text
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
    WHERE i.indrelid = CAST(%(table)s AS regclass) AND a.amname = 'btree' AND i.indisvalid
    ORDER BY 1"""


def _checked_by_amcheck(
    conn: Connection, tables: Sequence[Table], should_stop: Callable[[], bool]
) -> DatabaseReport:
    where = conn.exec_driver_sql(_AMCHECK).scalar()
    if where is None:
        return DatabaseReport(
            (), None, "amcheck is not installed: CREATE EXTENSION amcheck, as a superuser"
        )
    names: dict[str | None, str] = conn.get_execution_options().get("schema_translate_map", {})
    quote = conn.dialect.identifier_preparer.quote
    schema = f"{quote(names[None])}." if names.get(None) else ""
    problems: list[str] = []
    for table in tables:
        name = schema + quote(table.name)
        for index, _ in conn.exec_driver_sql(_INDEXES, {"table": name}).fetchall():
            if should_stop():
                return _STOPPED
            try:
                conn.exec_driver_sql(
                    f"SELECT {where}.bt_index_check(CAST(%(index)s AS regclass), true)",
                    {"index": index},
                ).fetchall()
            except exc.DBAPIError as error:
                if "permission denied" in str(error.orig):
                    return DatabaseReport(
                        (), None, f"this user may not call amcheck: {str(error.orig).strip()}"
                    )
                problems.append(f"amcheck of {index}: {str(error.orig).splitlines()[0]}")
    return DatabaseReport(tuple(problems[:PROBLEMS_MAX]), "amcheck")
