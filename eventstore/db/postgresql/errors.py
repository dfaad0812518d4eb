"""What PostgreSQL's error codes and psycopg's errors mean for another attempt."""

from __future__ import annotations

import sys
from typing import Final, Literal

from sqlalchemy import exc

_ROLLED_BACK: Final = ("40001", "40P01")  # serialization failure, deadlock
_NOT_AS_PREPARED: Final = ("26000", "42P05")  # a prepared statement does not exist, or exists
_LOST: Final = (
    "25006",  # read-only: a standby, after a failover
    "25P03",  # the server ended the session: a transaction was idle for too long
    "40003",  # the server does not know how the transaction ended
    "57P01",  # shut down by an administrator
    "57P02",  # shut down by the crash of another session
    "57P03",  # starting up or shutting down
    "57P05",  # the session was idle for too long
)
_BUSY: Final = ("53300", "55P03", "57014")  # too many clients, a lock or statement timed out
_DUPLICATE: Final = (
    "23505",  # a row with the same key, in our tables or in the server's catalogue
    "42P07",  # a table
    "42710",  # another object
    "42701",  # a column
    "XX000",  # "tuple concurrently updated": two sessions changed the same object
)
_FULL: Final = ("too many clients", "too many connections", "connection slots")
_PERMANENT: Final = (
    "authentication failed",
    "no password supplied",
    "does not exist",
    "pg_hba.conf",
    "permission denied",
    "certificate",
)
"""Messages of refusals that another attempt cannot change. Psycopg gives no code for a connection
that was not made; a message in another language counts as a lost connection."""


def _sqlstate(error: BaseException | None) -> str | None:
    """The server's code for an error of psycopg; ``None``: it has none."""
    code: str | None = getattr(error, "sqlstate", None)
    return code


def again(error: BaseException | None) -> bool:
    """Whether the transaction was rolled back for certain, and may succeed when repeated."""
    return _sqlstate(error) in _ROLLED_BACK or lacks_statement(error)


def lacks_statement(error: BaseException | None) -> bool:
    """Whether the server's prepared statements are not those that the driver believes to be there.

    Somebody deallocated them, a proxy leads to another session, or a migration changed the type
    of a result. The statement was not executed.
    """
    code = _sqlstate(error)
    if code == "0A000":  # any feature that is not supported; the message may be in any language
        diagnosis = getattr(error, "diag", None)
        return getattr(diagnosis, "source_function", None) == "RevalidateCachedQuery"
    return code in _NOT_AS_PREPARED


def lost(error: BaseException | None) -> bool:
    """Whether the connection is useless now, though another one may work.

    It was lost, or could not be opened, or leads to a server that has become read-only.
    """
    code = _sqlstate(error)
    if code is not None:
        return code in _LOST or code.startswith("08")
    psycopg = sys.modules.get("psycopg")
    if psycopg is None or not isinstance(error, psycopg.OperationalError) or _of_pool(error):
        return False
    return not any(phrase in str(error) for phrase in (*_PERMANENT, *_FULL))


def disconnected(reason: str, error: BaseException) -> exc.DisconnectionError:
    """What tells a pool that a connection was lost, and that those of its age were lost, too."""
    found = exc.DisconnectionError(f"{reason}: {error}")
    found.invalidate_pool = True
    return found


def refused_by_client(error: BaseException | None, statement: str | None) -> bool:
    """Whether the driver failed on a statement without an answer of the server.

    Either it refused the statement (too many parameters, a value too large to send), which
    another attempt cannot change, or the connection was lost: then it is invalidated.
    """
    return statement is not None and _sqlstate(error) is None


def busy(error: BaseException | None) -> Literal["pool", "server"] | None:
    """What stayed overloaded during the whole wait."""
    if _of_pool(error):
        return "pool" if type(error).__name__ in ("PoolTimeout", "TooManyRequests") else None
    if _sqlstate(error) in _BUSY or any(phrase in str(error) for phrase in _FULL):
        return "server"
    return None


def is_duplicate(error: BaseException | None) -> bool:
    """Whether the object to create exists, or is being created by another session."""
    return _sqlstate(error) in _DUPLICATE


def _of_pool(error: BaseException | None) -> bool:
    return type(error).__module__.startswith("psycopg_pool")
