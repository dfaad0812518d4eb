"""Giving a fork what it still needs of a thread that is about to go.

Operations over a connection that the caller opened; they move stored bytes and decode
nothing, so that a process without the application's types and reducers can do it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, bindparam, insert, select, update

from eventstore.db.schema import events, forks, segments, snapshots, threads
from eventstore.format import digests, records
from eventstore.format.segments import EVENTS_MAX, Segment
from eventstore.models import Position, SqlRow
from eventstore.queries.lineage import Route, base_digest, trace
from eventstore.queries.segments import rows_between, seqs_of
from eventstore.queries.snapshots import snapshot_chain, snapshots_of

WHOLE_MAX: Final = 1_000
"""Events that a fork is given of a deleted thread without a thought: nothing of its history
is lost then, and no snapshot has to be believed."""

_COPY_EVENT = insert(events)
_COPY_SEGMENT = insert(segments)
_COPY_FORK = insert(forks)
_COPY_SNAPSHOT = insert(snapshots)
_at_key: Any = bindparam("at_key")
_HOLD_THREAD = (
    select(threads.c.thread_key)
    .where(threads.c.thread_key == _at_key)
    .with_for_update(read=True, key_share=True)
)
_link = (
    forks.c.thread_key == _at_key,
    forks.c.ns == bindparam("at_ns"),
    forks.c.seq == bindparam("at_seq"),
)
_HOLD_LINK = select(forks).where(*_link).with_for_update()
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
    """What a fork needs of the log that it goes on from.

    Attributes:
        source: where it goes on from.
        ns: where the fork's thread is to keep it.
        first: the events from this seq to the source's, and the forks among them;
        base: this snapshot, and what it rests on.
    """

    source: Position
    ns: str
    first: int
    base: Position | None


def needed(conn: Connection, source: Position) -> Needed:
    """What a fork needs of its source: the nearest snapshot and the events from there on.

    A branch abandoned between the two comes along: a run without gaps keeps the digest chain
    whole. A short history is given whole. Nobody here knows which code reads the fork: a
    snapshot is taken only if the code that made the source's newest made it too, and if it is
    sound.
    """
    route = _trusted_route(conn, source)
    own = [s for s in route.spans if (s.thread_key, s.ns) == source[:2]]
    base = route.snapshot
    if base is not None and base[:2] != source[:2]:
        base = None
    first = min([span.first for span in own], default=source.seq + 1)
    if base is not None:
        first = min(first, base.seq + 1)
    elif first > 1:
        # Before the fork event that the needed run begins with: where history was trimmed up to
        # there, the base has its digest.
        before = source._replace(seq=first - 1)
        if base_digest(conn, before) is not None:
            base = before
        else:
            first -= 1
    return Needed(source, digests.prefix_ns(source.thread_key, source.ns), first, base)


def is_inside(need: Needed, link: Position) -> bool:
    """Whether a fork among the needed events goes on from what is needed of the same log.

    A branch abandoned before that keeps pointing at the thread that it points at.
    """
    return link[:2] == need.source[:2] and link.seq >= need.first - 1


def detach_fork(conn: Connection, fork: SqlRow) -> None:
    """Give a fork the stored bytes that it still needs of its source, as a prefix of its own.

    They are copied undecoded, and damage as it is. Others may be doing the same, or be deleting
    the fork: whoever holds its link does it, the others find nothing left to do. (Its thread's
    row first, then the link: the order in which a deletion takes them.)
    """
    if conn.execute(_HOLD_THREAD, {"at_key": fork.thread_key}).first() is None:
        return
    place = {"at_key": fork.thread_key, "at_ns": fork.ns, "at_seq": fork.seq}
    held = conn.execute(_HOLD_LINK, place).first()
    if held is None or held.source_thread_key != fork.source_thread_key:
        return
    need = needed(conn, Position(held.source_thread_key, held.source_ns, held.source_seq))
    present = seqs_of(conn, fork.thread_key, need.ns)
    _copy_events(conn, fork.thread_key, need, present)
    _copy_forks(conn, fork.thread_key, need, present)
    if need.base is not None:
        _copy_base(conn, fork.thread_key, need.ns, need.base)
    new = {"new_key": fork.thread_key, "new_ns": need.ns, "new_seq": need.source.seq}
    conn.execute(_RELINK, {**place, **new})


def _trusted_route(conn: Connection, source: Position) -> Route:
    whole = trace(conn, source, None)
    newest = snapshots_of(conn, source.thread_key, source.ns)[-1:]
    if not newest or sum(span.last - span.first for span in whole.spans) < WHOLE_MAX:
        return whole
    route = trace(conn, source, newest[0].fingerprint)
    if route.snapshot is not None and route.snapshot[:2] == source[:2]:
        links = snapshot_chain(conn, route.snapshot)
        if links[-1].rests_on is not None or not all(map(records.verifies, links)):
            return whole
    return route


def _copy_events(conn: Connection, thread_key: int, need: Needed, present: set[int]) -> None:
    place = {"thread_key": thread_key, "ns": need.ns}
    damaged: list[Segment] = []
    for row in events_needed(conn, need, damaged):
        if row["seq"] not in present:
            conn.execute(_COPY_EVENT, {**row, **place})
    for segment in damaged:  # which stays damage, and is in nobody's way
        if segment.events <= EVENTS_MAX and not {segment.seq, segment.last} <= present:
            conn.execute(_COPY_SEGMENT, {**segment._asdict(), **place})


def events_needed(
    conn: Connection, need: Needed, damaged: list[Segment] | None = None
) -> Iterator[dict[str, Any]]:
    """The needed events, oldest first, as rows of their own even where they are sealed.

    Args:
        damaged: takes the segments that were damaged, and that are copied as they are.

    Raises:
        CorruptEventError: a segment was damaged, and nobody takes it.
    """
    source = need.source
    return rows_between(conn, source.thread_key, source.ns, need.first, source.seq, damaged)


def _copy_forks(conn: Connection, thread_key: int, need: Needed, present: set[int]) -> None:
    rows = conn.execute(
        forks_needed(need)
        # Held, so that a link cannot be changed, by the deletion of what it leads to, between
        # our look at it and our copy of it.
        .with_for_update(read=True)
    ).fetchall()
    for row in rows:
        if row.seq in present:
            continue
        copy = {**row._mapping, "thread_key": thread_key, "ns": need.ns}
        # What points before `first` is given what it needs in its turn, as long as it is there.
        if is_inside(need, Position(row.source_thread_key, row.source_ns, row.source_seq)):
            copy |= {"source_thread_key": thread_key, "source_ns": need.ns}
        conn.execute(_COPY_FORK, copy)


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
        if row.seq not in present:
            copy = {**row._mapping, "thread_key": thread_key, "ns": ns, "is_base": True}
            del copy["event_digest"]
            conn.execute(_COPY_SNAPSHOT, copy)
