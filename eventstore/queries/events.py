"""Read the events of a log, by position or key, as rows or as sealed segments; count and measure.

Knows where sealed events are, so that nobody else has to: a page holds rows or segments without
a gap. A sealed event that has a key leaves an emptied row behind, by which its key is found.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    Connection,
    Float,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    select,
    text,
    union_all,
)

from eventstore.db.prepared import Prepared
from eventstore.db.schema import events, segments
from eventstore.errors import CorruptEventError
from eventstore.format.checks import checked
from eventstore.format.segments import Segment
from eventstore.limits import INT_MAX
from eventstore.models import DELETION_MARK, SqlRow

_key: Any = bindparam("key")

_ns: Any = bindparam("ns")

_upto: Any = bindparam("upto")

_EVENTS_BETWEEN = (
    select(
        events.c.seq,
        events.c.kind,
        events.c.key,
        events.c.recorded_at,
        events.c.digest,
        events.c.payload,
    )
    .where(
        events.c.thread_key == _key,
        events.c.ns == _ns,
        events.c.seq > bindparam("after"),
        events.c.seq <= _upto,
    )
    .order_by(events.c.seq)
    .limit(bindparam("page"))
)

PAGE_BYTES: Final = 8 * 2**20
"""Bytes of payloads read at a time, unless a few events have more."""

FEW: Final = 64
"""Events that are read without asking how large they are."""


def _light(page: Any) -> Any:
    """The first rows of a page that together have no more than ``PAGE_BYTES``.

    Drivers for PostgreSQL hold all rows of an answer in memory; that for SQLite, one at a time.
    """
    size = func.length(events.c.payload)
    before = func.sum(size).over(order_by=events.c.seq) - size
    rows = page.add_columns(before.label("before")).subquery()
    columns = [rows.c[column.name] for column in page.selected_columns]
    return select(*columns).where(rows.c.before < PAGE_BYTES).order_by(rows.c.seq)


_LIGHT_EVENTS_BETWEEN = _light(_EVENTS_BETWEEN)

_EVENTS_BY_KEY = (
    select(events.c.seq, events.c.kind, events.c.key, events.c.payload)
    .where(
        events.c.thread_key == _key,
        events.c.ns == _ns,
        events.c.key.in_(bindparam("names", expanding=True)),
        events.c.key >= bindparam("first"),
        events.c.key <= bindparam("last"),
    )
    .order_by(events.c.seq)
)

_last_row = select(func.max(events.c.seq)).where(events.c.thread_key == _key, events.c.ns == _ns)
_last_sealed = select(func.max(segments.c.last)).where(
    segments.c.thread_key == _key, segments.c.ns == _ns
)
_HEAD = select(_last_row.scalar_subquery(), _last_sealed.scalar_subquery())
_LAST_EVENT = select(
    _last_row.where(events.c.kind != DELETION_MARK).scalar_subquery(),
    _last_sealed.scalar_subquery(),
)

SEGMENTS_PAGE: Final = 4
"""Segments read at a time."""

_SEGMENTS_BETWEEN = (
    select(*(segments.c[name] for name in Segment._fields))
    .where(
        segments.c.thread_key == _key,
        segments.c.ns == _ns,
        segments.c.last > bindparam("after"),
        segments.c.seq <= _upto,
    )
    .order_by(segments.c.seq)
    .limit(bindparam("page"))
)


def head_seq(conn: Connection, thread_key: int, ns: str) -> int:
    """The last seq of a log, 0 when it is empty."""
    ends = conn.execute(_HEAD, {"key": thread_key, "ns": ns}).one()
    return max((seq_or_none(seq) or 0 for seq in ends), default=0)


def seq_or_none(value: Any) -> int | None:
    """A seq that a row claims.

    Raises:
        CorruptEventError: it is none.
    """
    if value is not None and type(value) is not int:
        raise CorruptEventError(f"a row stands at the invalid seq {value!r:.40}")
    return value


_HIDDEN = text(
    "SELECT min(seq) FROM events AS hidden WHERE rowid > (SELECT rowid FROM events WHERE"
    " thread_key = :key AND ns = :ns AND seq = :seq) AND rowid <= :rows + (SELECT rowid FROM"
    " events WHERE thread_key = :key AND ns = :ns AND seq = :seq)"
    " AND +thread_key = :key AND +ns = :ns AND +seq > :seq"
)


def hidden_seq(conn: Connection, thread_key: int, ns: str, seq: int, rows: int) -> int | None:
    """The seq of an event after the last one of a log that the index does not find.

    Only SQLite's table has an order of its own: ``rows`` rows after the last event are looked at.
    """
    if conn.dialect.name != "sqlite":
        return None
    place = {"key": thread_key, "ns": ns, "seq": seq, "rows": rows}
    found: int | None = conn.execute(_HIDDEN, place).scalar()
    return found


def last_event(conn: Connection, thread_key: int, ns: str) -> int:
    """The last seq of a log, without the mark at its end if its thread is marked for deletion.

    0 if it is empty or damaged.
    """
    ends = conn.execute(_LAST_EVENT, {"key": thread_key, "ns": ns}).one()
    return max((seq for seq in ends if type(seq) is int), default=0)


def read_events(
    conn: Connection, thread_key: int, ns: str, after: int, upto: int, page: int
) -> Sequence[SqlRow | Segment]:
    """One page of a log without a gap, oldest first: rows of events, segments, or both.

    If the page does not begin with the event after ``after``, that event is missing.
    """
    place = {"key": thread_key, "ns": ns, "after": after, "upto": upto}
    rows = _rows_between(conn, {**place, "page": page})
    if rows and rows[-1].seq - after == len(rows) and all(map(_PAYLOAD, rows)):
        return rows
    # A row without a payload belongs to a sealed event that has a key.
    run = 0
    while run < len(rows) and rows[run].seq == after + 1 + run and rows[run].payload:
        run += 1
    if run:
        return rows[:run]
    sealed = read_segments(conn, thread_key, ns, after, upto)
    end = after
    for number, segment in enumerate(sealed):
        if segment.seq > end + 1:
            return sealed[: number or 1]
        end = segment.last
    later = [row for row in rows if row.seq > end]
    if sealed and later and later[-1].seq - end == len(later) and all(map(_PAYLOAD, later)):
        return [*sealed, *later]
    return sealed or rows


def _rows_between(conn: Connection, place: dict[str, Any]) -> list[SqlRow]:
    """Rows of events, bounded in number and in bytes."""
    few = min(place["page"], place["upto"] - place["after"]) <= FEW
    if few or conn.dialect.name != "sqlite":
        statement = _EVENTS_BETWEEN if few else _LIGHT_EVENTS_BETWEEN
        return list(conn.execute(statement, place))
    with conn.execute(_EVENTS_BETWEEN, place) as result:
        rows: list[SqlRow] = []
        held = 0
        while held < PAGE_BYTES and (part := result.fetchmany(FEW)):
            rows += part
            held += sum(len(row.payload) for row in part if type(row.payload) is bytes)
        return rows


_PAYLOAD = itemgetter(5)


def read_segments(
    conn: Connection, thread_key: int, ns: str, after: int, upto: int, page: int = SEGMENTS_PAGE
) -> list[Segment]:
    """Segments of a log that hold events after ``after``, up to ``upto``, oldest first."""
    place = {"key": thread_key, "ns": ns, "after": after, "upto": upto, "page": page}
    found = [Segment(*row) for row in conn.execute(_SEGMENTS_BETWEEN, place)]
    for segment in found:  # the rest is judged where it is unsealed
        if type(segment.seq) is not int or type(segment.last) is not int:
            raise CorruptEventError(f"a segment ends at the invalid seq {segment.last!r:.40}")
    return found


KEYS_PAGE: Final = 1_000
"""Keys named in one statement; drivers take 65,535 parameters, or fewer."""


def events_by_key(
    conn: Connection, thread_key: int, ns: str, keys: Sequence[str]
) -> Sequence[SqlRow]:
    """The events that have one of these keys, page by page of the keys.

    A page also names the span of its keys: where PostgreSQL knows nothing of a new table, it would
    else read the whole log, and compare each event with each key once it prepared the statement.
    """
    found: list[SqlRow] = []
    names = sorted(keys)
    for start in range(0, len(names), KEYS_PAGE):
        page = names[start : start + KEYS_PAGE]
        place = {"key": thread_key, "ns": ns, "names": page, "first": page[0], "last": page[-1]}
        found += conn.execute(_EVENTS_BY_KEY, place)
    return found


_KEYS_BETWEEN = Prepared(
    select(events.c.seq, events.c.kind, events.c.key)
    .where(
        events.c.thread_key == _key,
        events.c.ns == _ns,
        events.c.key >= bindparam("first"),
        events.c.key < bindparam("end"),
        events.c.seq > bindparam("after"),
        events.c.seq <= _upto,
    )
    .order_by(events.c.key)
)


def keys_between(
    conn: Connection, thread_key: int, ns: str, span: tuple[str, str], after: int, upto: int
) -> Sequence[SqlRow]:
    """Seq, kind and key of the events whose keys lie in a span of texts, sealed ones included."""
    place = {"key": thread_key, "ns": ns, "first": span[0], "end": span[1]}
    return _KEYS_BETWEEN(conn, {**place, "after": after, "upto": upto}).rows


_KEYED_ROWS = select(
    events.c.seq, events.c.key, events.c.kind, events.c.recorded_at, events.c.digest
).where(events.c.thread_key == _key, events.c.ns == _ns, events.c.key.is_not(None))


def keyed_rows(
    conn: Connection, thread_key: int, ns: str
) -> dict[int, tuple[str, int, int, bytes]]:
    """Key, kind, time and digest of the rows of a log's events that have a key, by their seqs.

    A sealed event, too, keeps a row for its key.
    """
    rows = conn.execute(_KEYED_ROWS, {"key": thread_key, "ns": ns})
    return {seq: (key, kind, at, digest) for seq, key, kind, at, digest in rows}


def _edges(what: int, step: int) -> Any:
    """The events of a log that have no neighbour on one side."""
    beside = events.alias()
    end: Any = literal_column(str(step * INT_MAX))
    is_within = events.c.seq < end if step > 0 else events.c.seq > end
    neighbour = (
        select(beside.c.seq)
        .where(
            beside.c.thread_key == events.c.thread_key,
            beside.c.ns == events.c.ns,
            # PostgreSQL refuses to compute a number that it cannot store.
            beside.c.seq == case((is_within, events.c.seq + step)),
        )
        .exists()
    )
    return select(
        literal_column(str(what)).label("what"), events.c.seq, events.c.seq.label("last")
    ).where(events.c.thread_key == _key, events.c.ns == _ns, ~neighbour)


# One statement, because others may be sealing or trimming meanwhile.
_RUNS = union_all(
    _edges(0, -1),
    _edges(1, +1),
    select(literal_column("2"), segments.c.seq, segments.c.last).where(
        segments.c.thread_key == _key, segments.c.ns == _ns
    ),
).order_by("what", "seq")


def runs(conn: Connection, thread_key: int, ns: str) -> list[tuple[int, int]]:
    """First and last seq of each run of events without a gap; a complete log has one run."""
    edges: tuple[list[tuple[int, int]], ...] = ([], [], [])
    for what, first, last in conn.execute(_RUNS, {"key": thread_key, "ns": ns}):
        if type(first) is not int or type(last) is not int:
            raise CorruptEventError(f"a row stands at the invalid seq {first!r:.40}")
        edges[what].append((first, last))
    starts, ends, sealed = edges
    if len(starts) != len(ends):
        raise CorruptEventError("the index of events is damaged")
    found = [(start, end) for (start, _), (end, _) in zip(starts, ends, strict=True)]
    if not sealed:
        return found
    merged: list[tuple[int, int]] = []
    for first, last in sorted([*found, *sealed]):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


_stretches = union_all(
    select(events.c.ns, events.c.seq, events.c.seq.label("last")).where(
        events.c.thread_key == _key
    ),
    select(segments.c.ns, segments.c.seq, segments.c.last).where(segments.c.thread_key == _key),
).subquery()

_NAMESPACES = (
    select(
        _stretches.c.ns,
        func.min(_stretches.c.seq).label("first"),
        func.max(_stretches.c.last).label("last"),
    )
    .group_by(_stretches.c.ns)
    .order_by(_stretches.c.ns)
)


def namespaces(conn: Connection, thread_key: int) -> Sequence[SqlRow]:
    """The logs of a thread, each with its first and last seq, sorted by name.

    Nothing of it is checked: a damaged row may claim a name or a seq of any kind.
    """
    return conn.execute(_NAMESPACES, {"key": thread_key}).fetchall()


def ends(conn: Connection, thread_key: int) -> dict[str, int]:
    """The last seq of each log of a thread.

    Raises:
        CorruptEventError: a name or a seq is damaged.
    """
    return {ns: last for ns, _, last in checked(namespaces(conn, thread_key))}


_other = events.alias()
_names = (
    select(func.min(events.c.ns).label("ns"))
    .where(events.c.thread_key == _key, events.c.ns > _ns)
    .cte("names", recursive=True)
)
_next_name = select(func.min(_other.c.ns)).where(
    _other.c.thread_key == _key, _other.c.ns > _names.c.ns
)
# One name after another, so that the events themselves are not read.
_all_names = _names.union_all(select(_next_name.scalar_subquery()).where(_names.c.ns.is_not(None)))
_LOGS_AFTER = select(_all_names.c.ns).where(_all_names.c.ns.is_not(None))


def logs_after(conn: Connection, thread_key: int, ns: str) -> list[str]:
    """The names of a thread's logs that sort after this one, those of logs inside it among them."""
    names = conn.execute(_LOGS_AFTER, {"key": thread_key, "ns": ns}).scalars()
    return sorted(name for name in names if type(name) is str)


# A sealed event that has a key leaves a row without a payload.
_has_payload = case((func.length(events.c.payload) > 0, 1), else_=0)

_TOTALS = select(
    func.sum(_has_payload), func.sum(func.length(events.c.payload)), func.count()
).where(events.c.thread_key == _key, events.c.kind != DELETION_MARK)


def _sum(column: Any) -> Any:
    """A sum that damaged values do not overflow, so that their thread can be deleted."""
    return func.coalesce(func.sum(cast(column, Float)), 0)


_SEALED_TOTALS = select(
    _sum(segments.c.last) - _sum(segments.c.seq) + func.count(),
    _sum(segments.c.raw),
    _sum(func.length(segments.c.payload)),
    func.count(),
).where(segments.c.thread_key == _key)


class Totals(NamedTuple):
    """A thread's events, the stored bytes of their payloads, and the rows that hold them."""

    events: int
    bytes: int
    rows: int


def totals(conn: Connection, thread_key: int) -> Totals:
    """The size of a thread."""
    count, size, rows = conn.execute(_TOTALS, {"key": thread_key}).one()
    sealed = sealed_totals(conn, thread_key)
    return Totals(
        int(count or 0) + sealed.events, int(size or 0) + sealed.stored, rows + sealed.rows
    )


_TOTAL_MAX: Final = 2**62
"""More than this only a damaged row claims, and no column of a tombstone holds much more."""


class SealedTotals(NamedTuple):
    """The events in a thread's segments, the bytes of their bodies, stored bytes, and rows."""

    events: int
    raw: int
    stored: int
    rows: int


def sealed_totals(conn: Connection, thread_key: int) -> SealedTotals:
    """The size of the sealed part of a thread."""
    found = conn.execute(_SEALED_TOTALS, {"key": thread_key}).one()
    return SealedTotals(*(max(0, min(int(value), _TOTAL_MAX)) for value in found))
