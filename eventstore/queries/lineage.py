"""Follow history back through forks: the route from a snapshot, or the beginning, to a position.

Promises that a route names every event that replay needs, oldest first, and that following it
ends even if forks are damaged. Also finds where a trimmed log begins.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, bindparam, func, select, true

from eventstore.db.prepared import Prepared
from eventstore.db.schema import events, forks, segments, snapshots
from eventstore.errors import CorruptEventError
from eventstore.format import digests
from eventstore.format.checks import checked
from eventstore.models import Lineage, Position
from eventstore.queries.events import head_seq, read_events, seq_or_none
from eventstore.queries.snapshots import USABLE

_LAST_SEQ: Final = 2**63 - 1

LINEAGE_MAX: Final = 100_000
"""Forks followed one after the other before the history counts as damaged."""

NOT_KEPT: Final = (
    "this part of the log was not kept when the thread that recorded it was deleted or trimmed; "
    "choose a later checkpoint"
)
"""Why a position in a prefix is missing."""

_key: Any = bindparam("key")

_ns: Any = bindparam("ns")

_seq: Any = bindparam("seq")

_upto: Any = bindparam("upto")


class Stretch(NamedTuple):
    """A run of events, ``first`` to ``last``, of one log."""

    thread_key: int
    ns: str
    first: int
    last: int

    @property
    def before(self) -> Position:
        """The position before its first event, in the same log."""
        return Position(self.thread_key, self.ns, self.first - 1)


class Route(NamedTuple):
    """How replay reaches a position: from a snapshot, or from nothing, through these stretches."""

    snapshot: Position | None
    stretches: list[Stretch]


_MARKS = select(
    select(func.max(forks.c.seq))
    .where(forks.c.thread_key == _key, forks.c.ns == _ns, forks.c.seq <= _upto)
    .scalar_subquery(),
    select(func.max(snapshots.c.seq))
    .where(
        snapshots.c.thread_key == _key,
        snapshots.c.ns == _ns,
        snapshots.c.seq <= _upto,
        USABLE,
    )
    .scalar_subquery(),
)

_FORK_AT = select(forks).where(forks.c.thread_key == _key, forks.c.ns == _ns, forks.c.seq == _seq)


def marks(conn: Connection, at: Position, fingerprint: str | None) -> tuple[int | None, int | None]:
    """The last fork and the last usable snapshot of a log, up to a position.

    Without a ``fingerprint`` only bases are usable.
    """
    place = {"key": at.thread_key, "ns": at.ns, "upto": at.seq, "fingerprint": fingerprint}
    fork, snapshot = conn.execute(_MARKS, place).one()
    return seq_or_none(fork), seq_or_none(snapshot)


def fork_source(conn: Connection, thread_key: int, ns: str, seq: int) -> Position | None:
    """The position that the fork at this seq goes on from; ``None`` if there is no fork."""
    place = {"key": thread_key, "ns": ns, "seq": seq}
    for row in checked(conn.execute(_FORK_AT, place).fetchall()):
        return Position(row.source_thread_key, row.source_ns, row.source_seq)
    return None


def trace(
    conn: Connection,
    at: Position,
    fingerprint: str | None,
    known: tuple[int | None, int | None] | None = None,
) -> Route:
    """Walk back to the nearest usable snapshot, or to the beginning.

    Args:
        known: the marks of the first log, if the caller has just read them; saves a query.
    """
    stretches: list[Stretch] = []
    visited: set[Position] = set()
    while len(visited) < LINEAGE_MAX:
        if at in visited:
            raise CorruptEventError("the history goes in a circle: the link of a fork is damaged")
        visited.add(at)
        fork, snapshot = known or marks(conn, at, fingerprint)
        known = None
        if snapshot is not None and (fork is None or snapshot >= fork):
            stretches.append(Stretch(at.thread_key, at.ns, snapshot + 1, at.seq))
            start: Position | None = Position(at.thread_key, at.ns, snapshot)
            break
        stretches.append(Stretch(at.thread_key, at.ns, fork or 1, at.seq))
        source = fork and fork_source(conn, at.thread_key, at.ns, fork)
        if not source:
            start = None
            break
        at = source
    else:
        raise CorruptEventError(f"the history goes through more than {LINEAGE_MAX} forks")
    stretches.reverse()
    return Route(start, [stretch for stretch in stretches if stretch.first <= stretch.last])


_FLOOR = select(func.max(snapshots.c.seq)).where(
    snapshots.c.thread_key == _key,
    snapshots.c.ns == _ns,
    snapshots.c.seq <= _upto,
    snapshots.c.is_base,
    ~select(events.c.seq)
    .where(
        events.c.thread_key == snapshots.c.thread_key,
        events.c.ns == snapshots.c.ns,
        events.c.seq == snapshots.c.seq,
        func.length(events.c.payload) > 0,  # the last event of a trimmed log leaves an empty row
    )
    .exists(),
    ~select(segments.c.seq)
    .where(
        segments.c.thread_key == snapshots.c.thread_key,
        segments.c.ns == snapshots.c.ns,
        segments.c.seq <= snapshots.c.seq,
        segments.c.last >= snapshots.c.seq,
    )
    .exists(),
)


def floor(conn: Connection, at: Position) -> int | None:
    """The last base up to a position whose own event was trimmed; ``None`` if there is none."""
    place = {"key": at.thread_key, "ns": at.ns, "upto": at.seq}
    return seq_or_none(conn.execute(_FLOOR, place).scalar())


_fork = (
    select(forks)
    .where(forks.c.thread_key == _key, forks.c.ns == _ns, forks.c.seq <= _upto)
    .order_by(forks.c.seq.desc())
    .limit(1)
    .subquery("fork")
)
_floor = select(_FLOOR.scalar_subquery().label("floor")).subquery("trimmed")
_BEGINS = Prepared(
    select(
        _fork.c.seq,
        _fork.c.source_thread_key,
        _fork.c.source_ns,
        _fork.c.source_seq,
        _floor.c.floor,
    ).select_from(_floor.outerjoin(_fork, true()))
)


def begins(conn: Connection, at: Position) -> Lineage:
    """What the events up to a position begin with: the start of the log, a fork, or a base."""
    place = {"key": at.thread_key, "ns": at.ns, "upto": at.seq}
    row = _BEGINS(conn, place).first
    trimmed = seq_or_none(row.floor)
    if trimmed is not None and trimmed >= (seq_or_none(row.seq) or 0):
        return Lineage(trimmed + 1, None, at._replace(seq=trimmed))
    if row.seq is None:
        return Lineage(1, None, None)
    source = Position(row.source_thread_key, row.source_ns, row.source_seq)
    if [*map(type, source)] != [int, str, int]:
        raise CorruptEventError(f"the link of the fork at seq {row.seq} is damaged")
    return Lineage(row.seq, source, None)


def beginning(conn: Connection, thread_key: int, ns: str) -> int | None:
    """The base at which the history of a trimmed log begins; ``None`` if it was never trimmed.

    A prefix, copied when a fork was detached, may have gaps, and so has no single beginning.
    """
    if digests.is_prefix(ns):
        return None
    return floor(conn, Position(thread_key, ns, _LAST_SEQ))


_BASE_DIGEST = select(snapshots.c.digest).where(
    snapshots.c.thread_key == _key,
    snapshots.c.ns == _ns,
    snapshots.c.seq == _seq,
    snapshots.c.is_base,
)


def base_digest(conn: Connection, at: Position) -> bytes | None:
    """The digest at a base, which the next event continues; ``None`` if no base is here."""
    place = {"key": at.thread_key, "ns": at.ns, "seq": at.seq}
    return conn.execute(_BASE_DIGEST, place).scalar()


def can_be_reached(conn: Connection, at: Position) -> bool:
    """Whether a position exists, and so does the event or base that its run of events follows.

    Does not look beyond the nearest fork.
    """
    fork, base = marks(conn, at, None)
    if base is not None and base >= (fork or 0):
        return base == at.seq or bool(read_events(conn, *at[:2], at.seq - 1, at.seq, 1))
    first = fork or 1
    needed = {at.seq, first - 1} - {0}
    if base_digest(conn, at._replace(seq=first - 1)) is not None:
        needed.discard(first - 1)
    return all(read_events(conn, *at[:2], seq - 1, seq, 1) for seq in needed)


def is_trimmed(conn: Connection, thread_key: int, ns: str, seq: int) -> bool:
    """Whether an event is missing because its thread was trimmed."""
    begins = beginning(conn, thread_key, ns)
    if begins is not None:
        return seq <= begins
    # Trimming the log above deletes whole logs that belonged to trimmed events.
    empty = bool(ns) and not head_seq(conn, thread_key, ns)
    return empty and beginning(conn, thread_key, "") is not None
