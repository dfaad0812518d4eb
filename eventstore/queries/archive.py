"""Archiving: read all rows of a thread for a file, and insert the rows of a file.

Rows are moved as they are stored. In a file a thread refers to no other thread: what it needs of
threads that it was forked from is included, as if its forks had been detached (see
:mod:`eventstore.queries.forks`), without writing anything.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from operator import itemgetter
from types import SimpleNamespace
from typing import Any, Final

from sqlalchemy import Connection, Table, bindparam, delete, func, insert, select, union, update

from eventstore.db.schema import (
    events,
    forks,
    insert_if_new,
    segments,
    snapshots,
    threads,
    tombstones,
)
from eventstore.errors import (
    ArchiveError,
    CorruptEventError,
    StoreBusyError,
    ThreadExistsError,
)
from eventstore.format import digests, records
from eventstore.format.archive.rows import (
    DICTIONARY,
    EVENT,
    FIELDS,
    FORK_LINK,
    LOG,
    SEGMENT,
    SNAPSHOT,
    THREAD,
    Record,
    Row,
    dictionaries_of,
)
from eventstore.format.checks import checked, checksum_of
from eventstore.models import Position, SqlRow
from eventstore.queries.dictionaries import keep_dictionary, read_dictionary
from eventstore.queries.forks import (
    Needed,
    events_needed,
    forks_needed,
    is_inside,
    needed,
    nested_ends,
)
from eventstore.queries.snapshots import snapshot_chain
from eventstore.queries.threads import look_up, thread_by_key
from eventstore.queries.tombstones import is_erased, last_generation

PAGE: Final = 256
"""Rows read or inserted at a time, if they are small."""

PAGE_BYTES: Final = 4 * 2**20
"""Bytes of payloads read or inserted at a time, unless a single row has more."""

_key: Any = bindparam("key")
_ns: Any = bindparam("ns")
_after: Any = bindparam("after")
_upto: Any = bindparam("upto")


def _between(table: Table, *columns: Any) -> Any:
    return (
        select(*columns)
        .where(
            table.c.thread_key == _key,
            table.c.ns == _ns,
            table.c.seq > _after,
            table.c.seq <= _upto,
        )
        .order_by(table.c.seq)
    )


def _rows(table: Table, tag: int) -> Any:
    return _between(table, *(table.c[name] for name in FIELDS[tag]))


def _sizes(table: Table) -> Any:
    return _between(table, table.c.seq, func.length(table.c.payload)).limit(PAGE)


_ROWS: Final = {
    EVENT: (_sizes(events), _rows(events, EVENT)),
    SEGMENT: (_sizes(segments), _rows(segments, SEGMENT)),
}
_event_digest = (
    select(events.c.digest)
    .where(events.c.thread_key == _key, events.c.ns == _ns, events.c.seq == snapshots.c.seq)
    .scalar_subquery()
)
_SNAPSHOT: Final = _rows(snapshots, SNAPSHOT).add_columns(_event_digest.label("event_digest"))
_LINKS = select(forks).where(forks.c.thread_key == _key)
_NAMES = union(
    *(select(t.c.ns).where(t.c.thread_key == _key) for t in (events, segments, snapshots, forks))
)
_SNAPSHOT_SEQS = (
    select(snapshots.c.seq)
    .where(snapshots.c.thread_key == _key, snapshots.c.ns == _ns)
    .order_by(snapshots.c.seq)
)


_MAX_SEQ: Final = 2**63 - 1


class _Log:
    """The sources of one log of a file.

    Attributes:
        own: the thread's log of that name, if it has one.
        needs: parts of other threads' logs.
        forks: rows by seq.
        snapshots: by seq, where each is stored and whether it becomes a base.
    """

    def __init__(self) -> None:
        self.own: Position | None = None
        self.needs: list[Needed] = []
        self.forks: dict[int, Row] = {}
        self.snapshots: dict[int, tuple[Position, bool]] = {}


def rows_of(conn: Connection, thread: SqlRow) -> Iterator[Record]:
    """All records of this thread's file, in order.

    Call it in one transaction that sees one state. History is followed through forks to its
    beginning, in whichever threads it is.
    """
    key = thread.thread_key
    yield THREAD, [thread._mapping[name] for name in FIELDS[THREAD]]
    written: set[int] = set()
    logs = _logs(conn, key)
    for ns in sorted(logs):
        yield LOG, [ns]
        for tag, row in _rows_of_log(conn, logs[ns]):
            for dict_id in dictionaries_of(tag, row) - written:
                data = read_dictionary(conn, dict_id)
                if data is not None:  # else the check of the row reports that it is missing
                    yield DICTIONARY, [dict_id, data]
                written.add(dict_id)
            yield tag, row


def _logs(conn: Connection, key: int) -> dict[str, _Log]:
    """The logs of a thread, and logs for what they need of other threads."""
    logs: dict[str, _Log] = {}
    for (ns,) in checked(conn.execute(_NAMES, {"key": key}).fetchall()):
        log = logs.setdefault(ns, _Log())
        log.own = Position(key, ns, _MAX_SEQ)
        for (seq,) in checked(conn.execute(_SNAPSHOT_SEQS, {"key": key, "ns": ns}).fetchall()):
            log.snapshots[seq] = (Position(key, ns, seq), False)
    needs: dict[Position, Needed] = {}
    rows = checked(conn.execute(_LINKS, {"key": key}).fetchall())
    places: list[tuple[str, SqlRow, Needed | None]] = [(r.ns, r, None) for r in rows]
    for ns, row, within in places:  # it grows while we iterate
        link = Position(row.source_thread_key, row.source_ns, row.source_seq)
        if within is not None and is_inside(within, link):
            link = link._replace(thread_key=key, ns=ns)
        elif link.thread_key != key:
            need = needs.get(link)
            if need is None:
                need = needs[link] = needed(conn, link)
                for part in (need, *(needed(conn, end) for end in nested_ends(conn, need))):
                    places += [(part.ns, each, part) for each in _gather(conn, part, logs)]
            link = link._replace(thread_key=key, ns=need.ns)
        logs.setdefault(ns, _Log()).forks.setdefault(row.seq, [row.seq, *link])
    return logs


def _gather(conn: Connection, need: Needed, logs: dict[str, _Log]) -> Sequence[SqlRow]:
    """Add what is needed of another thread's log; returns the forks among it."""
    log = logs.setdefault(need.ns, _Log())
    log.needs.append(need)
    if need.base is not None:
        for row in snapshot_chain(conn, need.base):
            at = need.base._replace(seq=row.seq)
            log.snapshots.setdefault(row.seq, (at, True))
    return checked(conn.execute(forks_needed(need)).fetchall())


def _rows_of_log(conn: Connection, log: _Log) -> Iterator[Record]:
    kept: set[int | None] = {None}
    for _, (at, as_base) in sorted(log.snapshots.items()):
        place = {"key": at.thread_key, "ns": at.ns, "after": at.seq - 1, "upto": at.seq}
        found = conn.execute(_SNAPSHOT, place).one()
        if not (found.is_base or as_base or (found.rests_on in kept and _is_sound(found))):
            continue  # it is disposable: replay makes it again
        kept.add(found.seq)
        values = {name: found._mapping[name] for name in FIELDS[SNAPSHOT]}
        values["is_base"] = found.is_base or as_base
        yield SNAPSHOT, list(values.values())
    for _, row in sorted(log.forks.items()):
        yield FORK_LINK, row
    if log.own is not None and not log.needs:
        # A segment precedes the emptied rows that its events keep for their keys.
        runs = [_run(conn, tag, log.own) for tag in (SEGMENT, EVENT)]
        yield from heapq.merge(*runs, key=lambda record: (record[1][0], record[0]))
        return
    needs = log.needs if log.own is None else [Needed(log.own, "", 1, None), *log.needs]
    shares = [events_needed(conn, need) for need in needs]
    by_seq = itemgetter("seq")
    for _, same in groupby(heapq.merge(*shares, key=by_seq), key=by_seq):
        event = next(same)
        yield EVENT, [event[name] for name in FIELDS[EVENT]]


def _is_sound(row: SqlRow) -> bool:
    """Whether a snapshot matches its checksum and the digest of its event, if that has a row."""
    return records.verifies(row) and row.event_digest in (None, row.digest)


def _run(conn: Connection, tag: int, log: Position) -> Iterator[Record]:
    """The rows of a table, in pages that are small in bytes, too."""
    sizes, statement = _ROWS[tag]
    after, upto = 0, log.seq
    while found := conn.execute(sizes, _place(log, after, upto)).fetchall():
        seqs = [seq for seq, _ in found]
        if not all(type(seq) is int and before < seq for before, seq in pairwise([after, *seqs])):
            raise CorruptEventError("the rows are not in the order of their seqs").at(
                None, log.ns, after
            )
        for last in _page_ends(found):
            rows = conn.execute(statement, _place(log, after, last))
            yield from ((tag, tuple(row)) for row in rows.fetchall())
            after = last


def _place(log: Position, after: int, upto: int) -> dict[str, Any]:
    return {"key": log.thread_key, "ns": log.ns, "after": after, "upto": upto}


def _page_ends(sizes: Sequence[SqlRow]) -> Iterator[int]:
    """The seq at the end of each page, given the seqs and the bytes of rows in order."""
    held = 0
    for (seq, size), (_, following) in pairwise([*sizes, (None, PAGE_BYTES + 1)]):
        held += size
        if held + following > PAGE_BYTES:
            yield seq
            held = 0


# --- insert -----------------------------------------------------------------------------

_INSERTS: Final = {
    SNAPSHOT: insert(snapshots),
    FORK_LINK: insert(forks),
    SEGMENT: insert(segments),
    EVENT: insert(events),
}
_INSERT_THREAD = insert(threads)
_NOTE_END = (
    update(threads)
    .where(threads.c.thread_key == _key)
    .values(
        reached=select(func.max(events.c.seq))
        .where(events.c.thread_key == _key, events.c.ns == "")
        .scalar_subquery()
    )
)
_DROP_TOMBSTONE = delete(tombstones).where(tombstones.c.thread_key == _key)


def insert_thread(
    conn: Connection, records: Iterator[Record], now_us: int, values: Mapping[str, Any]
) -> int | None:
    """Insert a thread from the checked records of a file, in the caller's transaction.

    Args:
        values: columns of the thread's row to set in place of the file's.

    Returns:
        The key of a placeholder row, if one was needed; remove it afterwards.

    Raises:
        ArchiveError: the thread was erased from this database.
        ThreadExistsError: a thread of that name exists.
        StoreBusyError: a thread of that key is still being deleted.
        Conflict: somebody else is making a thread of that name; try again.
        OtherDictionary: the id of one of the file's dictionaries is used by another one.
    """
    waiting: list[dict[str, Any]] = []
    held = 0  # bytes in the rows that wait
    ns, key, last_tag, placeholder = "", 0, LOG, None
    for tag, row in records:
        if tag == THREAD:
            thread = {**dict(zip(FIELDS[THREAD], row, strict=True)), **values}
            key = thread["thread_key"]
            placeholder = _insert_thread_row(conn, thread, now_us)
            continue
        if tag == DICTIONARY:
            keep_dictionary(conn, *row)
            continue
        if waiting and (tag != last_tag or len(waiting) == PAGE or held >= PAGE_BYTES):
            conn.execute(_INSERTS[last_tag], waiting)
            waiting, held = [], 0
        last_tag = tag
        if tag == LOG:
            ns = row[0]
        elif tag in _INSERTS:
            waiting.append(
                {**dict(zip(FIELDS[tag], row, strict=True)), "thread_key": key, "ns": ns}
            )
            held += sum(len(value) for value in row if type(value) is bytes)
    if waiting:
        conn.execute(_INSERTS[last_tag], waiting)
    conn.execute(_NOTE_END, {"key": key})
    return placeholder


def _insert_thread_row(conn: Connection, thread: Mapping[str, Any], now_us: int) -> int | None:
    """Insert the thread's row so that no other thread of its name can appear meanwhile.

    On SQLite nobody else writes meanwhile. On PostgreSQL others may be making a thread of that
    name, under the first key that was free when they looked. If that is the key of the tombstone
    that we delete, they have locked it and one of us waits for the other. If it is another key, we
    insert a placeholder there, which looks like a thread being deleted, and return its key.
    """
    key, generation = thread["thread_key"], thread["generation"]
    name = (thread["tenant"], thread["thread_id"])
    if is_erased(conn, key):
        raise ArchiveError(
            f"thread {name[1]!r} was erased from this database and cannot be loaded again; delete "
            "it from the archives, too (retention.erase does both)"
        )
    existing = thread_by_key(conn, key)
    if existing is not None and existing.deleting_since is not None:
        raise StoreBusyError(
            f"a former thread {name[1]!r} is still being deleted; call finish_deletions(), "
            "then load again"
        )
    if existing is not None or look_up(conn, *name, "") is not None:
        raise ThreadExistsError(name[1], name[0])
    checksum = checksum_of(SimpleNamespace(**thread))
    conn.execute(_INSERT_THREAD, {**thread, "checksum": checksum})
    last = last_generation(conn, *name)
    next_generation = 0 if last is None else last + 1
    placeholder = None
    if next_generation not in (generation, generation + 1):
        placeholder = digests.thread_key(*name, next_generation)
        mark = {"thread_key": placeholder, "generation": next_generation, "deleting_since": now_us}
        nothing = {"metadata": "{}", "pinned": False, "pin": None}
        conn.execute(_INSERT_THREAD, {**thread, **mark, **nothing})
    conn.execute(_DROP_TOMBSTONE, {"key": key})
    if _found(conn, name) is None and generation > 0:
        # Its former generations were in another database. The first key leads to the others.
        for former in sorted({0, generation - 1}):
            conn.execute(insert_if_new(conn, tombstones), tombstone_row(thread, former, now_us))
    if _found(conn, name) != key:
        raise ThreadExistsError(name[1], name[0])
    return placeholder


def _found(conn: Connection, name: tuple[str, str]) -> int | None:
    row = look_up(conn, *name, "")
    return None if row is None else int(row.thread_key)


def tombstone_row(thread: Mapping[str, Any], generation: int, now_us: int) -> dict[str, Any]:
    """The tombstone of a generation that was never here, next to one that was restored."""
    name = (thread["tenant"], thread["thread_id"])
    return {
        "thread_key": digests.thread_key(*name, generation),
        "name_digest": digests.name_digest(*name),
        "generation": generation,
        "tenant": name[0],
        "deleted_at": now_us,
        "reason": f"none: generation {thread['generation']} was restored from an archive",
        "events": 0,
        "bytes": 0,
    }
