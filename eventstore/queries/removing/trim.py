"""Trim a log: survey what the decision needs, then delete old events, snapshots and logs.

:mod:`eventstore.core.trim` decides what may go. The caller holds the lock on the thread's row for
the functions that write.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, and_, bindparam, delete, func, select, union_all, update

from eventstore.db.schema import events, forks, segments, snapshots
from eventstore.format.checks import checked
from eventstore.format.namespaces import Link
from eventstore.models import SqlRow
from eventstore.queries.events import head_seq
from eventstore.queries.lineage import beginning
from eventstore.queries.segments import unseal_at

NAMES_MAX: Final = 500
"""Logs, or snapshots, named in one statement."""

_key: Any = bindparam("of")
_ns: Any = bindparam("log")
_seq: Any = bindparam("at")
_names: Any = bindparam("names", expanding=True)
_seqs: Any = bindparam("seqs", expanding=True)

# --- survey -----------------------------------------------------------------------------


class Kept(NamedTuple):
    """A snapshot without its content.

    Attributes:
        recorded_at: of the event that it was taken at; ``None`` if that event is gone.
    """

    seq: int
    fingerprint: str
    is_base: bool
    rests_on: int | None
    step: int | None
    digest: bytes
    checksum: bytes
    recorded_at: int | None


class Survey(NamedTuple):
    """What the trim of a log depends on, read at one moment.

    Attributes:
        head: seq of its last event.
        base: seq at which its history begins; 0 if it was never trimmed.
        snapshots: of the log, oldest first.
        links: the forks in this thread that go on from logs of this thread.
        events: the number of events in each of the thread's other logs, by name.
    """

    head: int
    base: int
    snapshots: Sequence[Kept]
    links: Sequence[Link]
    events: dict[str, int]


def _recorded_at() -> Any:
    own = (events.c.thread_key == _key, events.c.ns == _ns, events.c.seq == snapshots.c.seq)
    row = select(events.c.recorded_at).where(*own).scalar_subquery()
    sealed = (
        select(func.max(segments.c.recorded_at))
        .where(
            segments.c.thread_key == _key,
            segments.c.ns == _ns,
            segments.c.seq <= snapshots.c.seq,
            segments.c.last >= snapshots.c.seq,
        )
        .scalar_subquery()
    )
    return func.coalesce(row, sealed).label("recorded_at")


_SNAPSHOTS = (
    select(*(snapshots.c[name] for name in Kept._fields[:-1]), _recorded_at())
    .where(snapshots.c.thread_key == _key, snapshots.c.ns == _ns)
    .order_by(snapshots.c.seq)
)
_LINKS = select(forks.c.ns, forks.c.seq, forks.c.source_ns, forks.c.source_seq).where(
    forks.c.source_thread_key == _key, forks.c.thread_key == _key
)
_stretches = union_all(
    select(events.c.ns, events.c.seq, events.c.seq.label("last")).where(
        events.c.thread_key == _key
    ),
    select(segments.c.ns, segments.c.seq, segments.c.last).where(segments.c.thread_key == _key),
    # A prefix, copied when a fork was detached, may be a snapshot alone.
    select(snapshots.c.ns, snapshots.c.seq + 1, snapshots.c.seq).where(
        snapshots.c.thread_key == _key
    ),
).subquery()
_LOGS = select(_stretches.c.ns, func.sum(_stretches.c.last - _stretches.c.seq + 1)).group_by(
    _stretches.c.ns
)


def survey(conn: Connection, thread_key: int, ns: str) -> Survey:
    """Read what the trim of a log depends on.

    Raises:
        CorruptEventError: a row holds what nobody stored there.
    """
    place = {"of": thread_key, "log": ns}
    kept = [Kept._make(row) for row in checked(conn.execute(_SNAPSHOTS, place).fetchall())]
    links = [Link(*row) for row in checked(conn.execute(_LINKS, place).fetchall())]
    logs = {name: int(count) for name, count in conn.execute(_LOGS, place) if isinstance(name, str)}
    logs.pop(ns, None)
    head, base = head_seq(conn, thread_key, ns), beginning(conn, thread_key, ns) or 0
    return Survey(head, base, kept, links, logs)


_SNAPSHOT = select(snapshots).where(
    snapshots.c.thread_key == _key, snapshots.c.ns == _ns, snapshots.c.seq == _seq
)
_DIGEST = select(events.c.digest).where(
    events.c.thread_key == _key, events.c.ns == _ns, events.c.seq == _seq
)


def snapshot(conn: Connection, thread_key: int, ns: str, seq: int) -> SqlRow | None:
    """A snapshot's whole row."""
    return conn.execute(_SNAPSHOT, {"of": thread_key, "log": ns, "at": seq}).first()


def event_digest(conn: Connection, thread_key: int, ns: str, seq: int) -> bytes | None:
    """The digest of an event that has a row of its own."""
    return conn.execute(_DIGEST, {"of": thread_key, "log": ns, "at": seq}).scalar()


# --- cut --------------------------------------------------------------------------------


class Size(NamedTuple):
    """A number of events and snapshots, and the stored bytes of both."""

    events: int = 0
    snapshots: int = 0
    bytes: int = 0

    def plus(self, other: Size) -> Size:
        """The sum of both."""
        return Size(*(one + two for one, two in zip(self, other, strict=True)))


_before = and_(events.c.thread_key == _key, events.c.ns == _ns, events.c.seq <= _seq)
_sealed_before = and_(segments.c.thread_key == _key, segments.c.ns == _ns, segments.c.last <= _seq)
_of_logs = {
    table: and_(table.c.thread_key == _key, table.c.ns.in_(_names))
    for table in (events, segments, snapshots, forks)
}
_these = and_(snapshots.c.thread_key == _key, snapshots.c.ns == _ns, snapshots.c.seq.in_(_seqs))
_rows = select(func.count(), func.coalesce(func.sum(func.length(events.c.payload)), 0)).where(
    func.length(events.c.payload) > 0
)
_sealed = select(
    func.coalesce(func.sum(segments.c.last - segments.c.seq + 1), 0),
    func.coalesce(func.sum(func.length(segments.c.payload)), 0),
)
_held = select(
    func.count(),
    func.coalesce(
        func.sum(func.length(snapshots.c.payload) + func.length(snapshots.c.additions)), 0
    ),
)
_BYTES_BEFORE = (_rows.where(_before), _sealed.where(_sealed_before))
_ACROSS = select(
    segments.c.seq, segments.c.last, func.length(segments.c.payload).label("bytes")
).where(
    segments.c.thread_key == _key,
    segments.c.ns == _ns,
    segments.c.seq <= _seq,
    segments.c.last > _seq,
)
_SIZE_OF_LOGS = (_rows.where(_of_logs[events]), _sealed.where(_of_logs[segments]))
_SIZE_HELD = _held.where(_these)
_SIZE_HELD_OF_LOGS = _held.where(_of_logs[snapshots])


def size(
    conn: Connection,
    thread_key: int,
    ns: str,
    seq: int,
    dropped: Iterable[int],
    logs: Iterable[str],
) -> Size:
    """What a cut removes: events up to ``seq``, these snapshots, and these whole logs.

    Of the events up to ``seq`` it counts the bytes alone: the caller knows their number.
    """
    place = {"of": thread_key, "log": ns, "at": seq}
    stored = sum(int(conn.execute(each, place).one()[1]) for each in _BYTES_BEFORE)
    for across in conn.execute(_ACROSS, place):
        stored += across.bytes * (seq - across.seq + 1) // (across.last - across.seq + 1)
    found = Size(0, 0, stored)
    for seqs in _parts(dropped):
        count, stored = conn.execute(_SIZE_HELD, {**place, "seqs": seqs}).one()
        found = found.plus(Size(0, int(count), int(stored)))
    for names in _parts(logs):
        for statement in _SIZE_OF_LOGS:
            count, stored = conn.execute(statement, {"of": thread_key, "names": names}).one()
            found = found.plus(Size(int(count), 0, int(stored)))
        place_of = {"of": thread_key, "names": names}
        count, stored = conn.execute(_SIZE_HELD_OF_LOGS, place_of).one()
        found = found.plus(Size(0, int(count), int(stored)))
    return found


_MAKE_BASE = update(snapshots).where(_these).values(is_base=True)
_DROP = delete(snapshots).where(_these)
_DELETE_LINKS = delete(forks).where(
    forks.c.thread_key == _key, forks.c.ns == _ns, forks.c.seq <= _seq
)
_REMOVE = delete(events).where(_before)
_REMOVE_SEALED = delete(segments).where(_sealed_before)
_EMPTY = (
    update(events)
    .where(events.c.thread_key == _key, events.c.ns == _ns, events.c.seq == _seq)
    .values(payload=b"")
)
_REMOVE_LOGS = [delete(table).where(condition) for table, condition in _of_logs.items()]


def make_base(conn: Connection, thread_key: int, ns: str, seqs: Collection[int]) -> bool:
    """Make snapshots bases of their log; false if one of them is gone."""
    count = 0
    for part in _parts(seqs):
        count += conn.execute(_MAKE_BASE, {"of": thread_key, "log": ns, "seqs": part}).rowcount
    return count == len(seqs)


def cut(conn: Connection, thread_key: int, ns: str, seq: int, *, is_end: bool) -> None:
    """Delete the events of a log up to ``seq``, with the links of their forks.

    If the log ends there (``is_end``), the last event keeps its row, emptied: the next append
    continues its seq and digest.

    Raises:
        CorruptEventError: a segment with events on both sides is damaged.
    """
    place = {"of": thread_key, "log": ns, "at": seq}
    conn.execute(_DELETE_LINKS, place)
    if conn.execute(_ACROSS, place).first() is not None:
        unseal_at(conn, thread_key, ns, seq)
    conn.execute(_REMOVE_SEALED, place)
    conn.execute(_REMOVE, {**place, "at": seq - 1} if is_end else place)
    if is_end:
        conn.execute(_EMPTY, place)


def drop(
    conn: Connection, thread_key: int, ns: str, dropped: Iterable[int], logs: Iterable[str]
) -> None:
    """Delete snapshots of a log, and whole other logs of the thread."""
    for seqs in _parts(dropped):
        conn.execute(_DROP, {"of": thread_key, "log": ns, "seqs": seqs})
    for names in _parts(logs):
        for statement in _REMOVE_LOGS:
            conn.execute(statement, {"of": thread_key, "names": names})


def _parts(values: Iterable[Any]) -> Iterator[list[Any]]:
    left = iter(values)
    while part := list(islice(left, NAMES_MAX)):
        yield part
