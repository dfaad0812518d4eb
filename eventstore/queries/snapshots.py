"""Snapshots: store, read and drop them.

A snapshot may rest on older ones. Promises that a base is never dropped or replaced here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, or_, select

from eventstore.db.schema import events, snapshots
from eventstore.format.checks import checked
from eventstore.models import Position, SqlRow

_key: Any = bindparam("key")

_ns: Any = bindparam("ns")

_seq: Any = bindparam("seq")

_fingerprint: Any = bindparam("fingerprint", type_=snapshots.c.fingerprint.type)

USABLE = or_(snapshots.c.fingerprint == _fingerprint, snapshots.c.is_base)
"""The condition that replay may start at a snapshot: made by the same code, or a base."""

_INSERT_SNAPSHOT = insert(snapshots)

_DROP_SNAPSHOT = delete(snapshots).where(
    snapshots.c.thread_key == _key,
    snapshots.c.ns == _ns,
    snapshots.c.seq == _seq,
    snapshots.c.is_base.is_(False),
)


def put_snapshot(conn: Connection, row: Mapping[str, Any]) -> None:
    """Store a snapshot, in place of a disposable one at the same position."""
    place = {"key": row["thread_key"], "ns": row["ns"], "seq": row["seq"]}
    conn.execute(_DROP_SNAPSHOT, place)
    conn.execute(_INSERT_SNAPSHOT, row)


def _snapshot_chain() -> Any:
    """The recursion reads seqs alone, not payloads."""
    own = (snapshots.c.thread_key == _key, snapshots.c.ns == _ns)
    links = (
        select(snapshots.c.seq, snapshots.c.rests_on)
        .where(*own, snapshots.c.seq == _seq)
        .cte("links", recursive=True)
    )
    links = links.union_all(
        select(snapshots.c.seq, snapshots.c.rests_on).where(
            *own,
            snapshots.c.seq == links.c.rests_on,
            snapshots.c.seq < links.c.seq,  # so that damage cannot make it endless
        )
    )
    event = (
        select(events.c.digest)
        .where(events.c.thread_key == _key, events.c.ns == _ns, events.c.seq == _seq)
        .scalar_subquery()
    )
    return (
        select(snapshots, event.label("event_digest"))
        .join_from(links, snapshots, snapshots.c.seq == links.c.seq)
        .where(*own)
        .order_by(snapshots.c.seq.desc())
    )


_SNAPSHOT_CHAIN = _snapshot_chain()


def snapshot_chain(conn: Connection, at: Position) -> Sequence[SqlRow]:
    """A snapshot and all that it rests on, newest first, with the digest of its event."""
    return conn.execute(
        _SNAPSHOT_CHAIN, {"key": at.thread_key, "ns": at.ns, "seq": at.seq}
    ).fetchall()


_DROP_SNAPSHOTS = delete(snapshots).where(
    snapshots.c.thread_key == _key, snapshots.c.is_base.is_(False)
)


def drop_snapshots(conn: Connection, thread_key: int) -> int:
    """Delete every disposable snapshot of a thread; returns their number."""
    return conn.execute(_DROP_SNAPSHOTS, {"key": thread_key}).rowcount


_SNAPSHOTS_OF = (
    select(*(c for c in snapshots.c if c.key not in ("additions", "payload")))
    .where(snapshots.c.thread_key == _key, snapshots.c.ns == _ns)
    .order_by(snapshots.c.seq)
)


def snapshots_of(conn: Connection, thread_key: int, ns: str) -> Sequence[SqlRow]:
    """Every snapshot of a log without its content, oldest first."""
    return checked(conn.execute(_SNAPSHOTS_OF, {"key": thread_key, "ns": ns}).fetchall())
