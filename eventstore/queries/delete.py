"""Delete a thread: mark it for deletion, then remove its rows in bounded batches.

The caller decides under the lock of :func:`lock` whether to mark it. Promises that after the mark
no reader sees the thread and no append to it succeeds, and that its row goes last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, tuple_, update

from eventstore.db.schema import events, forks, segments, snapshots, threads, tombstones
from eventstore.models import DELETION_MARK, SqlRow
from eventstore.queries.events import namespaces
from eventstore.queries.forks import dependants

_key: Any = bindparam("key")

_ns: Any = bindparam("ns")

_upto: Any = bindparam("upto")

_INSERT_EVENT = insert(events)

_LOCK = (
    select(threads)
    .where(threads.c.thread_key == _key, threads.c.deleting_since.is_(None))
    .with_for_update()
)

_MARK_FOR_DELETION = (
    update(threads)
    .where(threads.c.thread_key == _key)
    .values(deleting_since=bindparam("now"), deletion=bindparam("details"))
)

_MARKED_FOR_DELETION = select(threads.c.thread_key).where(threads.c.deleting_since.is_not(None))


def lock(conn: Connection, thread_key: int) -> SqlRow | None:
    """A thread's row, locked; ``None`` if it is gone or marked for deletion."""
    return conn.execute(_LOCK, {"key": thread_key}).first()


def mark_for_deletion(
    conn: Connection, thread_key: int, now_us: int, digest: bytes, deletion: str
) -> None:
    """Hide a locked thread from all readers, and end each of its logs with a mark.

    A writer that does not know yet names the seq that the mark has, and the primary key refuses
    it: so appending a single event need not look at ``threads``.

    Args:
        deletion: JSON for the tombstone, stored for the process that ends the deletion, perhaps
            another one.
    """
    conn.execute(_MARK_FOR_DELETION, {"key": thread_key, "now": now_us, "details": deletion})
    for ns, _, last in namespaces(conn, thread_key):
        mark = {
            "thread_key": thread_key,
            "ns": ns,
            "seq": last + 1,
            "kind": DELETION_MARK,
            "key": None,
            "recorded_at": now_us,
            "digest": digest,
            "payload": b"",
        }
        conn.execute(_INSERT_EVENT, mark)


def marked_for_deletion(conn: Connection, tenant: str | None = None) -> Sequence[int]:
    """Keys of the threads that are marked for deletion and still have rows."""
    query = (
        _MARKED_FOR_DELETION
        if tenant is None
        else _MARKED_FOR_DELETION.where(threads.c.tenant == tenant)
    )
    return conn.execute(query).scalars().all()


_REMOVE = delete(events).where(
    events.c.thread_key == _key, events.c.ns == _ns, events.c.seq <= _upto
)

_REMOVE_SEALED = delete(segments).where(
    segments.c.thread_key == _key, segments.c.ns == _ns, segments.c.last <= _upto
)


def remove_events(conn: Connection, thread_key: int, ns: str, upto: int) -> int:
    """Delete the events up to a seq from a log of a marked thread; returns the number of rows."""
    place = {"key": thread_key, "ns": ns, "upto": upto}
    sealed = conn.execute(_REMOVE_SEALED, place).rowcount
    return sealed + conn.execute(_REMOVE, place).rowcount


def _some_of(table: Any) -> Any:
    place = (table.c.ns, table.c.seq)
    some = select(*place).where(table.c.thread_key == _key).limit(bindparam("page"))
    return delete(table).where(table.c.thread_key == _key, tuple_(*place).in_(some))


_REMOVE_SOME = [_some_of(segments), _some_of(snapshots)]


def remove_some(conn: Connection, thread_key: int, page: int) -> bool:
    """Delete a page of a marked thread's segments or snapshots; false when there are none."""
    return any(
        conn.execute(remove, {"key": thread_key, "page": page}).rowcount for remove in _REMOVE_SOME
    )


def remove_rest(conn: Connection, thread_key: int, tombstone: Mapping[str, Any]) -> bool:
    """Delete all remaining rows of a thread, its own row last; false while a fork needs it."""
    if dependants(conn, thread_key, 1):
        return False
    for remove in _REMOVE_REST:
        conn.execute(remove, {"key": thread_key})
    conn.execute(_INSERT_TOMBSTONE, tombstone)
    return True


_REMOVE_REST = [
    delete(table).where(table.c.thread_key == _key)
    for table in (snapshots, forks, segments, events)
]

_REMOVE_REST.append(delete(threads).where(threads.c.thread_key == _key))

_INSERT_TOMBSTONE = insert(tombstones)
