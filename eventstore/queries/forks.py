"""Record forks and find them from both ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select

from eventstore.db.schema import forks
from eventstore.models import Position, SqlRow
from eventstore.queries.events import head_seq
from eventstore.queries.lineage import beginning, floor
from eventstore.queries.threads import is_live, thread_by_key

_key: Any = bindparam("key")

_ns: Any = bindparam("ns")

_INSERT_FORKS = insert(forks)


def insert_fork(conn: Connection, row: Mapping[str, Any], tenant: str) -> str | None:
    """Record a fork whose event was just appended.

    Returns:
        Why not, or ``None``. The source's row is held, so that a deletion or a trim cannot miss
        us. (That of our own thread is: the event refers to it.)
    """
    source = Position(row["source_thread_key"], row["source_ns"], row["source_seq"])
    own = (row["thread_key"], row["ns"]) == source[:2]
    if own:
        last = row["seq"] - 1
    else:
        if not is_live(conn, source.thread_key):
            return "the thread that holds it is not there"
        found = thread_by_key(conn, source.thread_key)
        if found is None or found.tenant != tenant:
            return "the thread that holds it is not there"
        last = head_seq(conn, source.thread_key, source.ns)
    begins = beginning(conn, source.thread_key, source.ns)
    if begins is not None and source.seq < begins:
        return f"its history begins at seq {begins}; what was before was trimmed"
    if not 1 <= source.seq <= last and floor(conn, source) != source.seq:
        return f"its log ends at seq {last}"
    conn.execute(_INSERT_FORKS, row)
    return None


_FORKS_OF = select(forks).where(forks.c.thread_key == _key, forks.c.ns == _ns).order_by(forks.c.seq)


def forks_of(conn: Connection, thread_key: int, ns: str) -> Sequence[SqlRow]:
    """Every fork of a log, oldest first."""
    return conn.execute(_FORKS_OF, {"key": thread_key, "ns": ns}).fetchall()


_DEPENDANTS = (
    select(forks)
    .where(forks.c.source_thread_key == _key, forks.c.thread_key != _key)
    .limit(bindparam("page"))
)


def dependants(conn: Connection, thread_key: int, page: int) -> Sequence[SqlRow]:
    """Forks in other threads that refer to this one."""
    return conn.execute(_DEPENDANTS, {"key": thread_key, "page": page}).fetchall()
