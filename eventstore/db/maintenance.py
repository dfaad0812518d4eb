"""Looking after the space of a database: free pages, dead rows, and bytes that must be gone.

Each function works on SQLite and on PostgreSQL, which differ most in this.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, Table

from eventstore.db import sqlite

_LOG_TIMEOUT_MS: Final = 2000
_INCREMENTAL: Final = 2  # of PRAGMA auto_vacuum


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


def overwrite_deleted(conn: Connection, on: bool) -> None:
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
        conn.exec_driver_sql(f"PRAGMA busy_timeout = {int(sqlite.BUSY_TIMEOUT_S * 1000)}")
    return not busy
