"""Delete a thread: mark it for deletion, then remove its rows in bounded batches.

The caller decides under the lock of :func:`lock` whether to mark it. Promises that after the mark
no reader sees the thread and no append to it succeeds, and that its row goes last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, insert, select, tuple_, update

from eventstore.db.schema import (
    events,
    forks,
    insert_if_new,
    segments,
    snapshots,
    threads,
    tombstones,
)
from eventstore.models import DELETION_MARK, SqlRow
from eventstore.queries.events import namespaces
from eventstore.queries.forks import dependants

_key: Any = bindparam("key")

_INSERT_EVENT = insert(events)

_LAST_SEQ: Final = 2**63 - 1

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
        if type(ns) is not str or type(last) is not int or last >= _LAST_SEQ:
            continue  # it is damaged: nobody can append to it
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


_EVENTS = select(events.c.seq).where(events.c.thread_key == _key)
_MARKS = _EVENTS.where(events.c.kind == DELETION_MARK)


def has_marks(conn: Connection, thread_key: int) -> bool:
    """Whether a thread's logs tell of its deletion, too: one ends with a mark, or all are gone.

    What the thread's row alone says may be damage.
    """
    found = conn.execute(select(_MARKS.exists(), ~_EVENTS.exists()), {"key": thread_key}).one()
    return any(found)


def _some_of(table: Any, *conditions: Any) -> Any:
    place = (table.c.ns, table.c.seq)
    some = select(*place).where(table.c.thread_key == _key, *conditions).limit(bindparam("page"))
    return delete(table).where(table.c.thread_key == _key, tuple_(*place).in_(some))


_REMOVE_SOME = [_some_of(segments), _some_of(snapshots)]

_REMOVE_EVENTS = _some_of(events, events.c.kind != DELETION_MARK)


def remove_some(conn: Connection, thread_key: int, page: int) -> bool:
    """Delete a page of a marked thread's segments or snapshots; false when there are none."""
    place = {"key": thread_key, "page": page}
    return any(conn.execute(remove, place).rowcount for remove in _REMOVE_SOME)


def remove_events(conn: Connection, thread_key: int, page: int) -> bool:
    """Delete a page of a marked thread's events; false when there are none.

    The marks that end its logs stay: they refuse the appends of writers that do not know yet.
    """
    return bool(conn.execute(_REMOVE_EVENTS, {"key": thread_key, "page": page}).rowcount)


def remove_rest(conn: Connection, thread_key: int, tombstone: Mapping[str, Any]) -> bool:
    """Delete all remaining rows of a thread, its own row last; false while a fork needs it."""
    if dependants(conn, thread_key, 1):
        return False
    for remove in _REMOVE_REST:
        conn.execute(remove, {"key": thread_key})
    # A thread that was restored may have left one.
    conn.execute(insert_if_new(conn, tombstones), tombstone)
    return True


_REMOVE_REST = [
    delete(table).where(table.c.thread_key == _key)
    for table in (snapshots, forks, segments, events)
]

_REMOVE_REST.append(delete(threads).where(threads.c.thread_key == _key))
