"""SQLAlchemy's dialects for psycopg, of engines that borrow their connections from a caller's pool.

Used by :mod:`eventstore.db.postgresql.borrowing`. SQLAlchemy imports this module by its name when
such an engine is made, so that a program on SQLite need not import the dialects.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg, PGDialectAsync_psycopg


class Borrowing(PGDialect_psycopg):
    """Returns a connection to the pool that it came from, instead of closing it.

    A useless one is closed first, and the pool opens another.
    """

    supports_statement_cache = True
    give_back: Any = None

    def on_connect(self) -> Any:
        return None  # SQLAlchemy's would add another handler for notices at every use

    def do_close(self, dbapi_connection: Any) -> None:
        self.give_back(dbapi_connection)

    def do_terminate(self, dbapi_connection: Any) -> None:
        self.give_back(dbapi_connection, closed=True)

    @classmethod
    def get_async_dialect_cls(cls, url: URL) -> type[Any]:
        return _AsyncBorrowing


class _AsyncBorrowing(PGDialectAsync_psycopg):
    supports_statement_cache = True
    give_back: Any = None
    on_connect = Borrowing.on_connect
    do_close = Borrowing.do_close
    do_terminate = Borrowing.do_terminate
