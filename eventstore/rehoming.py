"""Giving a fork what it still needs of a thread that is about to go.

Operations over a connection that the caller opened; they move stored bytes and decode
nothing, so that a process without the application's types and reducers can do it.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection, bindparam, insert, select, update

from eventstore import chain, records
from eventstore.events import Position
from eventstore.operations import Route, snapshot_chain, snapshots_of, trace
from eventstore.schema import SqlRow, events, forks, snapshots, threads

WHOLE_MAX: Final = 1_000
"""Events that a fork is given of a deleted thread without a thought: nothing of its history
is lost then, and no snapshot has to be believed."""

_COPY_EVENT = insert(events)
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


def rehome(conn: Connection, fork: SqlRow) -> None:
    """Give a fork the stored bytes that it still needs of its source, as a prefix of its own.

    That is the nearest snapshot and the run of events from there to the fork point, copied
    undecoded. A branch abandoned between the two comes along: a run without gaps keeps the
    digest chain whole. A short history is given whole. Nobody here knows which code reads
    the fork: a snapshot is taken only if the code that made the source's newest made it too,
    and if it is sound.

    Others may be doing the same, or be deleting the fork: whoever holds its link does it,
    the others find nothing left to do. (Its thread's row first, then the link: the order in
    which a deletion takes them.)
    """
    if conn.execute(_HOLD_THREAD, {"at_key": fork.thread_key}).first() is None:
        return
    place = {"at_key": fork.thread_key, "at_ns": fork.ns, "at_seq": fork.seq}
    held = conn.execute(_HOLD_LINK, place).first()
    if held is None or held.source_thread_key != fork.source_thread_key:
        return
    source = Position(held.source_thread_key, held.source_ns, held.source_seq)
    ns = chain.prefix_ns(source.thread_key, source.ns)
    route = _trusted_route(conn, source)
    own = [s for s in route.spans if (s.thread_key, s.ns) == source[:2]]
    start = route.snapshot
    if start is not None and start[:2] != source[:2]:
        start = None
    first = min([span.first for span in own], default=source.seq + 1)
    if start is not None:
        first = min(first, start.seq + 1)
    elif first > 1:
        first -= 1  # its digest is the link to the fork event that the needed run begins with
    present = set(
        conn.execute(
            select(events.c.seq).where(events.c.thread_key == fork.thread_key, events.c.ns == ns)
        ).scalars()
    )
    _copy_events(conn, fork.thread_key, ns, source, first, present)
    _copy_forks(conn, fork.thread_key, ns, source, first, present)
    if start is not None:
        _copy_base(conn, fork.thread_key, ns, start)
    conn.execute(
        _RELINK,
        {
            **place,
            "new_key": fork.thread_key,
            "new_ns": ns,
            "new_seq": source.seq,
        },
    )


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


def _copy_events(
    conn: Connection, thread_key: int, ns: str, source: Position, first: int, present: set[int]
) -> None:
    rows = conn.execute(
        select(events).where(
            events.c.thread_key == source.thread_key,
            events.c.ns == source.ns,
            events.c.seq.between(first, source.seq),
        )
    )
    for row in rows.mappings():
        if row["seq"] not in present:
            conn.execute(_COPY_EVENT, {**row, "thread_key": thread_key, "ns": ns})


def _copy_forks(
    conn: Connection, thread_key: int, ns: str, source: Position, first: int, present: set[int]
) -> None:
    rows = conn.execute(
        select(forks)
        .where(
            forks.c.thread_key == source.thread_key,
            forks.c.ns == source.ns,
            forks.c.seq.between(first, source.seq),
        )
        # Held, so that a link cannot be changed, by the deletion of what it leads to, between
        # our look at it and our copy of it.
        .with_for_update(read=True)
    ).mappings()
    for row in rows.fetchall():
        if row["seq"] in present:
            continue
        copy = {**row, "thread_key": thread_key, "ns": ns}
        inside = (row["source_thread_key"], row["source_ns"]) == (source.thread_key, source.ns)
        # A branch abandoned before `first` keeps pointing at the thread that goes: whoever
        # asks for it is told that it is gone, instead of being given another state.
        if inside and row["source_seq"] >= first - 1:
            copy |= {"source_thread_key": thread_key, "source_ns": ns}
        conn.execute(_COPY_FORK, copy)


def _copy_base(conn: Connection, thread_key: int, ns: str, at: Position) -> None:
    present = {row.seq for row in snapshots_of(conn, thread_key, ns)}
    for row in snapshot_chain(conn, at):
        if row.seq not in present:
            copy = {**row._mapping, "thread_key": thread_key, "ns": ns, "is_base": True}
            del copy["event_digest"]
            conn.execute(_COPY_SNAPSHOT, copy)
