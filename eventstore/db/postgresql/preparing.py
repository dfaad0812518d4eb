"""Prepared statements: which connections of ours may have them, and what they are called.

The server parses and plans a prepared statement once, which costs as much as executing a small
one. It belongs to a session. Behind a proxy that gives each transaction another session, a
statement that was prepared is not there, or is there already.

So statements are prepared only where a connection leads to the server itself: the server tells a
client its process at the beginning, and a proxy makes that up or tells nothing. Should a proxy
pass it on, the server refuses the first statement that is missing. Nothing was executed then, the
open connections prepare no more, and the transaction is tried again. A statement is called by a
digest of its text, so that one of another client under its name is the same statement.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Final, Literal

from sqlalchemy import URL, Connection, Engine, event, exc

from eventstore.db.postgresql.errors import disconnected, lacks_statement
from eventstore.errors import ConfigurationError

Threshold = int | Literal["auto"] | None
"""After how many uses a statement is prepared; ``None``: never."""

LOOK_AT: Final = 2
"""The use of a connection at which it is found out where it leads, by a round trip. One that is
used only once does not pay for that."""

THRESHOLD: Final = 1
"""As psycopg's ``prepare_threshold``. Preparing takes a round trip, and many of the statements that
are executed once are never executed again."""

DECIDES: Final = "eventstore_decides"
"""Execution option of engines for which :func:`decide` was called."""

# Written so that a proxy that looks for the plain call, to answer it itself, does not find it.
_WHO: Final = "SELECT 0 + pg_backend_pid()"

_USES: Final = "eventstore_uses"
_TRUSTED: Final = "eventstore_trusted"


def threshold_of(url: URL) -> Threshold:
    """What the query of a URL says of ``prepare_threshold``; by default ``"auto"``.

    Raises:
        ConfigurationError: it is neither a number nor ``none`` nor ``auto``.
    """
    text = url.query.get("prepare_threshold", "auto")
    if isinstance(text, str) and text.lower() == "auto":
        return "auto"
    if isinstance(text, str) and text.lower() == "none":
        return None
    if isinstance(text, str) and text.isdecimal():
        return int(text)
    raise ConfigurationError(
        "prepare_threshold in the database URL must be a number of uses, 'none' or 'auto', not "
        f"{text!r}"
    )


def decide(engine: Engine, threshold: Threshold) -> None:
    """Let each connection of an engine prepare statements as long as they are found again.

    Args:
        threshold: what the connections begin with; ``"auto"``: they prepare none at first.
    """
    dialect = engine.dialect
    errors: Any = dialect.loaded_dbapi.Error
    doubts = 0

    def leads_to_server(connection: Any, record: Any) -> bool:
        cursor = connection.cursor()
        try:
            cursor.execute(_WHO)
            (process,) = cursor.fetchone()
        except errors as error:
            if dialect.is_disconnect(error, connection, cursor):
                raise disconnected("a connection was lost", error) from error
            return False
        finally:
            cursor.close()
        return bool(process == record.driver_connection.info.backend_pid)

    def begin(_connection: Any, record: Any) -> None:
        record.info[_USES], record.info[_TRUSTED] = 0, doubts

    def check(connection: Any, record: Any, _proxy: Any) -> None:
        info = record.info
        info[_USES] += 1
        if info[_TRUSTED] != doubts:
            record.driver_connection.prepare_threshold = None
        elif info[_USES] == LOOK_AT and threshold == "auto" and leads_to_server(connection, record):
            record.driver_connection.prepare_threshold = THRESHOLD

    def doubt(context: Any) -> None:
        nonlocal doubts
        if lacks_statement(context.original_exception):
            doubts += 1

    event.listen(engine.pool, "connect", begin)
    event.listen(engine.pool, "checkout", check)
    event.listen(engine, "handle_error", doubt)


def is_useless(conn: Connection, error: BaseException) -> bool:
    """Whether a caller's connection has statements prepared in another way than it remembers.

    It stays as its caller configured it, but a new one has to take its place.
    """
    if conn.engine.get_execution_options().get(DECIDES) or not isinstance(error, exc.DBAPIError):
        return False
    return lacks_statement(error.orig)


def name_of(statement: bytes, types: tuple[int, ...]) -> bytes:
    """What a prepared statement is called, by its text and the types of its parameters."""
    found = blake2b(statement, digest_size=20)
    found.update(repr(types).encode())
    return b"eventstore_" + found.hexdigest().encode()
