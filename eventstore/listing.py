"""Operations that list and count: threads by what is said of them, payloads by their size.

Like :mod:`eventstore.operations`, functions over a connection that the caller opened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, and_, bindparam, func, literal, or_, select, tuple_, update

from eventstore import dialects
from eventstore.events import CONDEMNED
from eventstore.schema import SqlRow, events, snapshots, threads

_key: Any = bindparam("key")
_ns: Any = bindparam("ns")
_seq: Any = bindparam("seq")


def list_threads(
    conn: Connection,
    tenant: str,
    *,
    status: str | None,
    prefix: str | None,
    metadata: Mapping[str, Any],
    after: tuple[int, int] | None,
    limit: int,
) -> Sequence[SqlRow]:
    """One page of threads, the most recently active first."""
    query = select(threads).where(threads.c.tenant == tenant, threads.c.condemned_at.is_(None))
    if status is not None:
        query = query.where(threads.c.status == status)
    if prefix is not None:
        begins = func.substr(threads.c.thread_id, 1, len(prefix))
        query = query.where(threads.c.thread_id >= prefix, begins == prefix)
    for name, value in metadata.items():
        query = query.where(dialects.holds(conn, threads.c.metadata, name, value))
    if after is not None:
        place = tuple_(threads.c.active_at, threads.c.thread_key)
        query = query.where(place < tuple_(literal(after[0]), literal(after[1])))
    order = (threads.c.active_at.desc(), threads.c.thread_key.desc())
    return conn.execute(query.order_by(*order).limit(limit)).fetchall()


def update_thread(conn: Connection, thread_key: int, values: Mapping[str, Any]) -> None:
    """Change what is said about a thread."""
    conn.execute(update(threads).where(threads.c.thread_key == thread_key).values(dict(values)))


_SIZES = (
    select(
        events.c.ns,
        events.c.seq,
        func.length(events.c.payload).label("stored"),
        func.substr(events.c.payload, 1, bindparam("prefix")).label("start"),
    )
    .where(
        events.c.thread_key == _key,
        or_(events.c.ns > _ns, and_(events.c.ns == _ns, events.c.seq > _seq)),
        events.c.kind != CONDEMNED,
    )
    .order_by(events.c.ns, events.c.seq)
    .limit(bindparam("page"))
)
_SNAPSHOT_SIZES = select(
    func.count(),
    func.coalesce(
        func.sum(func.length(snapshots.c.payload) + func.length(snapshots.c.additions)), 0
    ),
).where(snapshots.c.thread_key == _key)
_THREAD_KEYS = (
    select(threads.c.thread_key)
    .where(
        threads.c.tenant == bindparam("tenant"),
        threads.c.condemned_at.is_(None),
        threads.c.thread_key > _key,
    )
    .order_by(threads.c.thread_key)
    .limit(bindparam("page"))
)


def payload_sizes(
    conn: Connection, thread_key: int, after: tuple[str, int], page: int, prefix: int
) -> Sequence[SqlRow]:
    """Length and first bytes of payloads: enough to know what they unpack to."""
    return conn.execute(
        _SIZES,
        {"key": thread_key, "ns": after[0], "seq": after[1], "page": page, "prefix": prefix},
    ).fetchall()


def snapshot_sizes(conn: Connection, thread_key: int) -> tuple[int, int]:
    """How many snapshots a thread has, and their bytes."""
    count, size = conn.execute(_SNAPSHOT_SIZES, {"key": thread_key}).one()
    return count, int(size or 0)


def thread_keys(conn: Connection, tenant: str, after: int, page: int) -> Sequence[int]:
    """Keys of a tenant's threads, in order."""
    return (
        conn.execute(_THREAD_KEYS, {"tenant": tenant, "key": after, "page": page}).scalars().all()
    )
