"""Segments: find events to seal, replace their rows by a segment, and unseal them again.

Promises that the last event of a log always keeps a row of its own, so that appending and the
ends of logs have nothing to do with segments.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Connection, and_, bindparam, delete, func, insert, select, update

from eventstore.db.schema import events, segments, threads
from eventstore.errors import CorruptEventError
from eventstore.format import records
from eventstore.format.checks import checked
from eventstore.format.segments import EVENTS_MAX, Body, Segment, payload_of, unseal
from eventstore.models import SqlRow
from eventstore.queries.events import read_events, read_segments, runs

_key: Any = bindparam("key")
_ns: Any = bindparam("ns")
_first: Any = bindparam("first")
_last: Any = bindparam("last_seq")

# A row without a payload belongs to a sealed event that has a key, or is a deletion mark.
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
_LOCK: Final = (
    select(threads)
    .where(threads.c.thread_key == _key, threads.c.deleting_since.is_(None))
    # Appends lock the row too, for their foreign key; they need not wait for us.
    .with_for_update(key_share=True)
)
_between = and_(
    events.c.thread_key == _key, events.c.ns == _ns, events.c.seq.between(_first, _last)
)
_LAST_DIGEST = select(events.c.digest).where(
    events.c.thread_key == _key,
    events.c.ns == _ns,
    events.c.seq == _last,
    func.length(events.c.payload) > 0,
)
_CLEAR = delete(events).where(_between, events.c.key.is_(None), func.length(events.c.payload) > 0)
_EMPTY = (
    update(events)
    .where(
        events.c.thread_key == bindparam("at_key"),
        events.c.ns == bindparam("at_ns"),
        events.c.seq.between(_first, _last),
        events.c.key.is_not(None),
        func.length(events.c.payload) > 0,
    )
    .values(payload=b"")
)
_INSERT = insert(segments)
_DELETE = delete(segments).where(
    segments.c.thread_key == _key, segments.c.ns == _ns, segments.c.seq == _first
)
_INSERT_EVENT = insert(events)
_FILL = (
    update(events)
    .where(
        events.c.thread_key == bindparam("at_key"),
        events.c.ns == bindparam("at_ns"),
        events.c.seq == bindparam("at"),
    )
    .values(payload=bindparam("new_payload", type_=events.c.payload.type))
)


def sealable(conn: Connection, thread_key: int, older_than_us: int) -> Sequence[SqlRow]:
    """For each log: first and last event that has a row, the first too young to seal, and bytes.

    Raises:
        CorruptEventError: a namespace or a seq is damaged.
    """
    place = {"key": thread_key, "older_than": older_than_us}
    return checked(conn.execute(_SEALABLE, place).fetchall())


def lock(conn: Connection, thread_key: int) -> SqlRow | None:
    """A thread's row, locked against deletion, trimming and other sealers, not against appends."""
    return conn.execute(_LOCK, {"key": thread_key}).first()


def put(conn: Connection, thread_key: int, ns: str, segment: Segment) -> bool:
    """Replace the rows of events by the segment that holds them.

    False if some of the rows are gone, because others were first: then roll back.
    """
    place = {"key": thread_key, "ns": ns, "first": segment.seq, "last_seq": segment.last}
    if conn.execute(_LAST_DIGEST, place).scalar() != segment.digest:
        return False
    gone = conn.execute(_CLEAR, place).rowcount
    if gone < segment.events:
        at = {"at_key": thread_key, "at_ns": ns, "first": segment.seq, "last_seq": segment.last}
        gone += conn.execute(_EMPTY, at).rowcount
    if gone != segment.events:
        return False
    conn.execute(_INSERT, {"thread_key": thread_key, "ns": ns, **segment._asdict()})
    return True


def unseal_at(conn: Connection, thread_key: int, ns: str, seq: int) -> bool:
    """Replace the segment that holds ``seq`` by the rows of its events, so that a log can be cut
    within it; false if no segment holds ``seq``.

    Raises:
        CorruptEventError: the segment is damaged; roll back.
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
    row = row_of(event)
    if event.key is not None:
        at = {"at_key": thread_key, "at_ns": ns, "at": event.seq, "new_payload": row["payload"]}
        if conn.execute(_FILL, at).rowcount:
            return
    conn.execute(_INSERT_EVENT, {**row, "thread_key": thread_key, "ns": ns})


def row_of(event: Body) -> dict[str, Any]:
    """The row of an event, without the columns that name its log."""
    row = {name: getattr(event, name) for name in Body._fields if name != "body"}
    return {**row, "payload": payload_of(event)}


def rows_between(
    conn: Connection,
    thread_key: int,
    ns: str,
    first: int,
    last: int,
    damaged: list[Segment] | None = None,
) -> Iterator[dict[str, Any]]:
    """The events from ``first`` to ``last`` as rows, sealed or not, oldest first.

    Args:
        damaged: collects damaged segments, whose events are left out, in place of raising.

    Raises:
        CorruptEventError: a segment is damaged, and ``damaged`` is not given.
    """
    after = first - 1
    while page := _page(conn, (thread_key, ns), after, last, damaged is not None):
        for row in page:
            if isinstance(row, Segment):
                try:
                    bodies = unseal(row)
                except (CorruptEventError, *records.WRONG_TYPE):
                    if damaged is None:
                        raise
                    damaged.append(row)
                    continue
                found = [each for each in bodies if first <= each.seq <= last]
                yield from ({**row_of(each), "ns": ns} for each in found if each.seq > after)
            else:
                yield {**row._mapping, "ns": ns}
        after = records.end_of(page)


def _page(
    conn: Connection, log: tuple[int, str], after: int, last: int, tolerant: bool
) -> Sequence[SqlRow | Segment]:
    """The next events of a log; none where damage leaves no way to go on, if that is tolerated.

    Raises:
        CorruptEventError: there is no way to go on.
    """
    try:
        page = read_events(conn, *log, after, last, EVENTS_MAX)
        if page and not records.end_of(page) > after:
            raise CorruptEventError("the events are not in the order of their seqs")
    except CorruptEventError as error:
        if tolerant:
            return ()
        raise error.at(None, log[1], after) from error
    return page


class Seqs:
    """The seqs of a log's events, sealed or not."""

    def __init__(self, conn: Connection, thread_key: int, ns: str) -> None:
        found = runs(conn, thread_key, ns)
        self._firsts = [first for first, _ in found]
        self._lasts = [last for _, last in found]

    def __contains__(self, seq: int) -> bool:
        at = bisect_right(self._firsts, seq) - 1
        return at >= 0 and seq <= self._lasts[at]
