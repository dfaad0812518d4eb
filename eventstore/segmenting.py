"""Operations that put events into segments and take them out again.

Like :mod:`eventstore.operations`, functions over a connection that the caller opened. In each
log the segments hold the oldest events that are there, and its last event is a row of its own:
appending and the ends of logs have nothing to do with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, and_, bindparam, delete, func, insert, select, update

from eventstore.operations import read_segments
from eventstore.schema import SqlRow, events, segments, threads
from eventstore.segments import Body, Segment, payload_of, unseal

_key: Any = bindparam("key")
_ns: Any = bindparam("ns")
_first: Any = bindparam("first")
_last: Any = bindparam("last_seq")

# A row without a payload stands for a sealed event that has a key, or ends a condemned log.
_own = and_(events.c.thread_key == _key, func.length(events.c.payload) > 0)
_young = func.min(events.c.seq).filter(events.c.recorded_at >= bindparam("older_than"))
_SEALABLE = (
    select(
        events.c.ns,
        func.min(events.c.seq).label("first"),
        func.max(events.c.seq).label("last"),
        _young.label("young"),
        func.sum(func.length(events.c.payload)).label("bytes"),
    )
    .where(_own)
    .group_by(events.c.ns)
    .order_by(events.c.ns)
)
_HOLD: Final = (
    select(threads)
    .where(threads.c.thread_key == _key, threads.c.condemned_at.is_(None))
    # Appends hold the row too, for their foreign key: they need not wait.
    .with_for_update(key_share=True)
)
_between = and_(
    events.c.thread_key == _key, events.c.ns == _ns, events.c.seq.between(_first, _last)
)
_CLEAR = delete(events).where(_between, events.c.key.is_(None), func.length(events.c.payload) > 0)
_EMPTY = (
    update(events)
    .where(_between, events.c.key.is_not(None), func.length(events.c.payload) > 0)
    .values(payload=b"")
)
_INSERT = insert(segments)
_DELETE = delete(segments).where(
    segments.c.thread_key == _key, segments.c.ns == _ns, segments.c.seq == _first
)
_INSERT_EVENT = insert(events)
_FILL = (
    update(events)
    .where(events.c.thread_key == _key, events.c.ns == _ns, events.c.seq == bindparam("at"))
    .values(payload=bindparam("new_payload", type_=events.c.payload.type))
)


def sealable(conn: Connection, thread_key: int, older_than_us: int) -> Sequence[SqlRow]:
    """Of each log: first and last event with a row, the first that is too young, their bytes."""
    return conn.execute(_SEALABLE, {"key": thread_key, "older_than": older_than_us}).fetchall()


def hold(conn: Connection, thread_key: int) -> SqlRow | None:
    """A thread's row, held against deletion, trimming and other sealers, not against writers."""
    return conn.execute(_HOLD, {"key": thread_key}).first()


def put(conn: Connection, thread_key: int, ns: str, segment: Segment) -> bool:
    """Put a segment in the place of the rows that it holds.

    False when they are not all there any more: others were first, and nothing is to be kept.
    """
    place = {"key": thread_key, "ns": ns, "first": segment.seq, "last_seq": segment.last}
    gone = conn.execute(_CLEAR, place).rowcount
    if gone < segment.events:
        gone += conn.execute(_EMPTY, place).rowcount
    if gone != segment.events:
        return False
    conn.execute(_INSERT, {"thread_key": thread_key, "ns": ns, **segment._asdict()})
    return True


def unseal_at(conn: Connection, thread_key: int, ns: str, seq: int) -> bool:
    """Give the events of the segment that holds ``seq`` rows of their own again.

    So that a log can be cut within it; false when no segment holds it. What is sealed behind it
    must go with it, or be unsealed too: segments stand before rows.

    Raises:
        CorruptEventError: the segment was damaged; nothing is to be kept of this transaction.
    """
    found = read_segments(conn, thread_key, ns, seq - 1, seq, 1)
    if not found:
        return False
    segment = found[0]
    conn.execute(_DELETE, {"key": thread_key, "ns": ns, "first": segment.seq})
    for event in unseal(segment):
        _put_row(conn, thread_key, ns, event)
    return True


def _put_row(conn: Connection, thread_key: int, ns: str, event: Body) -> None:
    payload = payload_of(event)
    if event.key is not None:
        at = {"key": thread_key, "ns": ns, "at": event.seq, "new_payload": payload}
        if conn.execute(_FILL, at).rowcount:
            return
    row = {name: getattr(event, name) for name in Body._fields if name != "body"}
    conn.execute(_INSERT_EVENT, {**row, "thread_key": thread_key, "ns": ns, "payload": payload})
