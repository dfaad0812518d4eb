"""Forks: record them, find them from both ends, and detach them from their source.

A fork goes on from a position in another log, by reference. Before the thread that it refers to
is trimmed or deleted, the fork is given the stored bytes that it still needs, as a prefix of its
own. These functions copy stored bytes and decode nothing, so that a process without the
application's types and reducers can run them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, bindparam, func, insert, or_, select, update

from eventstore.db.schema import events, forks, segments, snapshots, threads
from eventstore.errors import CorruptEventError
from eventstore.format import digests, namespaces, records
from eventstore.format.checks import checked, is_storable
from eventstore.format.segments import EVENTS_MAX, Segment
from eventstore.models import Position, SqlRow
from eventstore.queries.events import head_seq, last_event, logs_after
from eventstore.queries.lineage import (
    NOT_KEPT,
    Route,
    Stretch,
    base_digest,
    beginning,
    can_be_reached,
    floor,
    trace,
)
from eventstore.queries.segments import Seqs, rows_between
from eventstore.queries.snapshots import snapshot_chain, snapshots_of
from eventstore.queries.threads import is_live, thread_by_key

WHOLE_MAX: Final = 1_000
"""Histories of up to this many events are copied whole when a fork is detached: nothing of the
fork's history is lost then, and no snapshot has to be trusted. So many events of nested logs are
copied beside them."""

_key: Any = bindparam("key")
_ns: Any = bindparam("ns")

# --- record and find --------------------------------------------------------------------

_INSERT_FORK = insert(forks)
_FORKS_OF = select(forks).where(forks.c.thread_key == _key, forks.c.ns == _ns).order_by(forks.c.seq)
_held = forks.alias("held")
# The index by source is not believed alone: a damaged entry of it must not make a thread
# undeletable for good.
_is_held = (
    select(_held.c.seq)
    .where(
        _held.c.thread_key == forks.c.thread_key,
        _held.c.ns == forks.c.ns,
        _held.c.seq == forks.c.seq,
        _held.c.source_thread_key == _key,
    )
    .exists()
)
_has_thread = (
    select(threads.c.thread_key).where(threads.c.thread_key == forks.c.thread_key).exists()
)
_dependants = select(forks).where(
    forks.c.source_thread_key == _key, forks.c.thread_key != _key, _has_thread
)
_DEPENDANTS = _dependants.where(_is_held).limit(bindparam("page"))
_DOUBTFUL = _dependants.where(~_is_held).limit(1)
_ALL_DEPENDANTS = _dependants.order_by(forks.c.thread_key, forks.c.ns, forks.c.seq)


def insert_fork(conn: Connection, row: Mapping[str, Any], tenant: str) -> str | None:
    """Record a fork whose event was just appended.

    Returns:
        The reason why it is refused, or ``None``. The source thread's row is locked, so that no
        deletion or trim can miss the fork. (The fork's own thread is locked by its event.)
    """
    source = Position(row["source_thread_key"], row["source_ns"], row["source_seq"])
    own = (row["thread_key"], row["ns"]) == source[:2]
    if own:
        last = row["seq"] - 1
    else:
        if not is_live(conn, source.thread_key):
            return "its thread does not exist"
        found = thread_by_key(conn, source.thread_key)
        if found is None or found.tenant != tenant:
            return "its thread does not exist"
        last = head_seq(conn, source.thread_key, source.ns)
    begins = beginning(conn, source.thread_key, source.ns)
    if begins is not None and source.seq < begins:
        return f"its history begins at seq {begins}; earlier events were trimmed"
    if digests.is_prefix(source.ns) and not can_be_reached(conn, source):
        return NOT_KEPT
    if not 1 <= source.seq <= last and floor(conn, source) != source.seq:
        return f"its log ends at seq {last}"
    conn.execute(_INSERT_FORK, row)
    return None


def forks_of(conn: Connection, thread_key: int, ns: str) -> Sequence[SqlRow]:
    """Every fork of a log, oldest first."""
    return checked(conn.execute(_FORKS_OF, {"key": thread_key, "ns": ns}).fetchall())


_BY_SOURCE = select(forks.c.thread_key, forks.c.ns, forks.c.seq).where(
    forks.c.source_thread_key == _key,
    forks.c.source_ns == _ns,
    forks.c.source_seq == bindparam("seq"),
)


def is_found_by_source(conn: Connection, fork: SqlRow) -> bool:
    """Whether the index by source finds a fork, as trimming and deleting its source must."""
    place = {"key": fork.source_thread_key, "ns": fork.source_ns, "seq": fork.source_seq}
    found = conn.execute(_BY_SOURCE, place).fetchall()
    return (fork.thread_key, fork.ns, fork.seq) in [tuple(row) for row in found]


def dependants(conn: Connection, thread_key: int, page: int) -> Sequence[SqlRow]:
    """Some of the forks in other threads that refer to this one."""
    return conn.execute(_DEPENDANTS, {"key": thread_key, "page": page}).fetchall()


def has_doubtful_dependants(conn: Connection, thread_key: int) -> bool:
    """Whether the index of forks by their source names a fork of this thread that is not there.

    It may be there under another place, and need this thread: the index or the fork is damaged.
    """
    return conn.execute(_DOUBTFUL, {"key": thread_key}).first() is not None


def all_dependants(conn: Connection, thread_key: int) -> Sequence[SqlRow]:
    """All forks in other threads that refer to this one, in the order in which to lock them."""
    return checked(conn.execute(_ALL_DEPENDANTS, {"key": thread_key}).fetchall())


# --- descendants ------------------------------------------------------------------------

_prefix: Any = bindparam("prefix", type_=forks.c.ns.type)
_size = func.length(_prefix)
_DETACHED = (
    select(forks.c.thread_key)
    .where(
        forks.c.thread_key != _key,
        or_(
            func.substr(forks.c.source_ns, 1, _size) == _prefix,
            func.substr(forks.c.ns, 1, _size) == _prefix,
        ),
    )
    .distinct()
)


def descendants(conn: Connection, thread_key: int) -> set[int]:
    """Keys of the threads whose history leads back into this one.

    These are its forks, the threads that were given bytes of it or of one of its forks, and
    their forks in turn, where they begin after the place at which its history came in. If the
    history of a thread before a base is gone, nobody knows what was there: then forks behind
    that base count as descendants of everything that the thread descends from.
    """
    given = {"key": thread_key, "prefix": digests.prefix_ns(thread_key, "")}
    found = set(conn.execute(_DETACHED, given).scalars())
    todo = [thread_key, *found]
    while todo:
        for fork in all_dependants(conn, todo.pop()):
            source = Position(fork.source_thread_key, fork.source_ns, fork.source_seq)
            if fork.thread_key not in found and _leads_into(conn, source, thread_key):
                found.add(fork.thread_key)
                todo.append(fork.thread_key)
    return found - {thread_key}


def _leads_into(conn: Connection, at: Position, thread_key: int) -> bool:
    """Whether the history of a position holds, or may hold, events of a thread."""
    try:
        route = trace(conn, at, None)
    except CorruptEventError:
        return True  # it may
    if route.snapshot is not None:
        return True
    origins = (digests.origin(each.thread_key, each.ns) for each in route.stretches)
    return any(key == thread_key for key, _ in origins)


# --- detach -----------------------------------------------------------------------------

_COPY_EVENT = insert(events)
_COPY_SEGMENT = insert(segments)
_COPY_SNAPSHOT = insert(snapshots)
_at_key: Any = bindparam("at_key")
_LOCK_THREAD = (
    select(threads.c.thread_key)
    .where(threads.c.thread_key == _at_key)
    .with_for_update(read=True, key_share=True)
)
_link = (
    forks.c.thread_key == _at_key,
    forks.c.ns == bindparam("at_ns"),
    forks.c.seq == bindparam("at_seq"),
)
_LOCK_LINK = select(forks).where(*_link).with_for_update()
_RELINK = (
    update(forks)
    .where(*_link)
    .values(
        source_thread_key=bindparam("new_key"),
        source_ns=bindparam("new_ns"),
        source_seq=bindparam("new_seq"),
    )
)


class Needed(NamedTuple):
    """The part of a log that a fork of it needs.

    Attributes:
        source: the position that the fork goes on from.
        ns: the namespace in which the fork's thread keeps the copy.
        first: seq of the first event needed, up to ``source.seq``, with the forks among them.
        base: the snapshot needed, with those that it rests on; ``None`` if there is none.
        lineage: those of the needed events that lead to ``source``; others were abandoned.
    """

    source: Position
    ns: str
    first: int
    base: Position | None
    lineage: Sequence[Stretch] = ()


def needed(conn: Connection, source: Position) -> Needed:
    """What a fork needs of its source: the nearest snapshot and the events from there on.

    A branch that was abandoned between the two is included: a run without gaps keeps the digest
    chain whole. A short history is included whole. Which code reads the fork is not known here,
    so a snapshot is used only if it is sound and was made by the same code as the newest
    snapshot of the source.
    """
    route = _trusted_route(conn, source)
    own = [s for s in route.stretches if (s.thread_key, s.ns) == source[:2]]
    base = route.snapshot
    if base is not None and base[:2] != source[:2]:
        base = None
    first = min([stretch.first for stretch in own], default=source.seq + 1)
    if base is not None:
        first = min(first, base.seq + 1)
    elif first > 1:
        # The digest chain needs the digest before the first event: that of the event there, or of
        # the base if history was trimmed up to there.
        before = source._replace(seq=first - 1)
        if base_digest(conn, before) is not None:
            base = before
        else:
            first -= 1
    return Needed(source, digests.prefix_ns(source.thread_key, source.ns), first, base, own)


def _trusted_route(conn: Connection, source: Position) -> Route:
    whole = trace(conn, source, None)
    newest = snapshots_of(conn, source.thread_key, source.ns)[-1:]
    if not newest or sum(stretch.last - stretch.first for stretch in whole.stretches) < WHOLE_MAX:
        return whole
    route = trace(conn, source, newest[0].fingerprint)
    if route.snapshot is not None and route.snapshot[:2] == source[:2]:
        chain = snapshot_chain(conn, route.snapshot)
        if chain[-1].rests_on is not None or not all(map(records.verifies, chain)):
            return whole
    return route


def nested_ends(conn: Connection, need: Needed) -> list[Position]:
    """The ends of the nested logs that belong to the events that a fork needs.

    To go back to a position among these events may take the nested log that was in use there. The
    logs of the newest events come first, ``WHOLE_MAX`` events at most.
    """
    key, ns, _ = need.source
    left = WHOLE_MAX
    found: list[Position] = []
    for began, names in sorted(namespaces.nested(logs_after(conn, key, ns), ns).items())[::-1]:
        if not any(stretch.first - 1 <= began < stretch.last for stretch in need.lineage):
            continue  # of an abandoned branch, or of what came after the fork
        ends = [Position(key, name, last_event(conn, key, name)) for name in names]
        left -= sum(end.seq for end in ends)
        if left < 0:
            break
        found += [end for end in ends if end.seq]
    return found


def is_inside(need: Needed, source: Position) -> bool:
    """Whether a fork among the needed events goes on from another of the needed events.

    One that goes on from before them belongs to an abandoned branch; its source stays the same.
    """
    return source[:2] == need.source[:2] and source.seq >= need.first - 1


def detach_fork(conn: Connection, fork: SqlRow) -> None:
    """Give a fork the stored bytes that it still needs of its source, as prefixes of its own.

    They are copied without decoding; damaged bytes stay damaged. Several processes may detach a
    fork at once, or delete its thread meanwhile: the one that locks the link does the work, the
    others find nothing left to do. (The thread's row is locked before the link, as deleting does.)
    """
    if conn.execute(_LOCK_THREAD, {"at_key": fork.thread_key}).first() is None:
        return
    place = {"at_key": fork.thread_key, "at_ns": fork.ns, "at_seq": fork.seq}
    held = conn.execute(_LOCK_LINK, place).first()
    if held is None or held.source_thread_key != fork.source_thread_key:
        return
    if type(held.source_ns) is not str or type(held.source_seq) is not int:
        # It is damaged and leads nowhere; from now on it needs nothing of the other thread.
        conn.execute(_RELINK, {**place, "new_key": fork.thread_key, "new_ns": "", "new_seq": 0})
        return
    source = Position(held.source_thread_key, held.source_ns, held.source_seq)
    need = _needed_or_all(conn, source)
    _copy(conn, fork.thread_key, need)
    for end in nested_ends(conn, need):
        _copy(conn, fork.thread_key, _needed_or_all(conn, end))
    new = {"new_key": fork.thread_key, "new_ns": need.ns, "new_seq": need.source.seq}
    conn.execute(_RELINK, {**place, **new})


def _needed_or_all(conn: Connection, source: Position) -> Needed:
    try:
        return needed(conn, source)
    except CorruptEventError:  # what there is has to do; readers of the fork report the damage
        return Needed(source, digests.prefix_ns(*source[:2]), 1, None)


def _copy(conn: Connection, thread_key: int, need: Needed) -> None:
    """Copy what is needed of one log."""
    present = Seqs(conn, thread_key, need.ns)
    _copy_events(conn, thread_key, need, present)
    _copy_forks(conn, thread_key, need, present)
    if need.base is not None:
        _copy_base(conn, thread_key, need.ns, need.base)


def _copy_events(conn: Connection, thread_key: int, need: Needed, present: Seqs) -> None:
    place = {"thread_key": thread_key, "ns": need.ns}
    damaged: list[Segment] = []
    for row in events_needed(conn, need, damaged):
        if row["seq"] not in present:
            conn.execute(_COPY_EVENT, {**row, **place})
    for segment in damaged:  # copied as they are: readers of these events report the damage
        is_present = segment.seq in present and segment.last in present
        if segment.events <= EVENTS_MAX and not is_present and is_storable(segment):
            conn.execute(_COPY_SEGMENT, {**segment._asdict(), **place})


def events_needed(
    conn: Connection, need: Needed, damaged: list[Segment] | None = None
) -> Iterator[dict[str, Any]]:
    """The needed events, oldest first, as rows of their own even if they are sealed.

    Args:
        damaged: collects damaged segments, in place of raising.

    Raises:
        CorruptEventError: a segment is damaged, and ``damaged`` is not given.
    """
    source = need.source
    return rows_between(conn, source.thread_key, source.ns, need.first, source.seq, damaged)


def _copy_forks(conn: Connection, thread_key: int, need: Needed, present: Seqs) -> None:
    rows = conn.execute(
        forks_needed(need)
        # Locked, so that deleting what a link leads to cannot change the link between our reading
        # it and our copying it.
        .with_for_update(read=True)
    ).fetchall()
    for row in rows:
        if row.seq in present:
            continue
        copy = {**row._mapping, "thread_key": thread_key, "ns": need.ns}
        # A link to before `first` stays; it is detached in turn when its source is deleted.
        if is_inside(need, Position(row.source_thread_key, row.source_ns, row.source_seq)):
            copy |= {"source_thread_key": thread_key, "source_ns": need.ns}
        conn.execute(_INSERT_FORK, copy)


def forks_needed(need: Needed) -> Any:
    """The query for the forks among the needed events."""
    return select(forks).where(
        forks.c.thread_key == need.source.thread_key,
        forks.c.ns == need.source.ns,
        forks.c.seq.between(need.first, need.source.seq),
    )


def _copy_base(conn: Connection, thread_key: int, ns: str, at: Position) -> None:
    present = {row.seq for row in snapshots_of(conn, thread_key, ns)}
    for row in snapshot_chain(conn, at):
        if row.seq not in present and is_storable(row):
            copy = {**row._mapping, "thread_key": thread_key, "ns": ns, "is_base": True}
            del copy["event_digest"]
            conn.execute(_COPY_SNAPSHOT, copy)
