"""One statement that finds a thread by its first key and reads what leads to a position of a log.

A round trip may cost more than all the rest of a load. So the thread, the end of its log, the
nearest usable snapshot with all that it rests on, and the first events after it come together. The
statement names one thread key. Promises to say when that key does not tell whether the thread
exists, because a thread of the name was deleted before; then :mod:`eventstore.queries.threads`
looks for it by its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from operator import itemgetter
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    Connection,
    Integer,
    Text,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    null,
    select,
    union_all,
)

from eventstore.db.prepared import Prepared
from eventstore.db.schema import Bytes, events, forks, secrets, snapshots, threads, tombstones
from eventstore.errors import CorruptEventError
from eventstore.models import Position
from eventstore.queries.events import FEW
from eventstore.queries.lineage import LINEAGE_MAX, Route, Stretch
from eventstore.queries.snapshots import USABLE

END: Final = 2**63 - 1
"""In place of a seq: the end of the log."""

_THREAD, _FORMER, _SNAPSHOT, _FORK, _EVENT = range(5)
_SEQ: Final = itemgetter(0)
_UNKNOWN: Final = -1
"""In place of a seq of a mark that the reader does not have."""

_key: Any = bindparam("key", type_=BigInteger)
_ns: Any = bindparam("ns", type_=events.c.ns.type)
_upto: Any = bindparam("upto", type_=BigInteger)
_known_fork: Any = bindparam("known_fork", type_=BigInteger)
_known_snapshot: Any = bindparam("known_snapshot", type_=BigInteger)
_after: Any = bindparam("after", type_=BigInteger)
_through: Any = bindparam("through", type_=BigInteger)

_EMPTY: Final[dict[str, Any]] = {
    **dict.fromkeys(
        ("n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9"), cast(null(), BigInteger)
    ),
    **dict.fromkeys(("t1", "t2", "t3", "t4"), cast(null(), Text)),
    **dict.fromkeys(("b1", "b2", "b3", "b4", "b5"), cast(null(), Bytes)),
}


class ThreadRow(NamedTuple):
    """A thread, with the end of one of its logs.

    Attributes:
        digest_at: of the event at the past position that was loaded; ``None``: it has no row.
    """

    thread_key: int
    generation: int
    active_at: int
    deleting_since: int | None
    last_seq: int | None
    fork: int | None
    snapshot: int | None
    base: int | None
    tenant: str
    thread_id: str
    status: str
    owner: str | None
    last_digest: bytes | None
    reached: int | None
    digest_at: bytes | None


class SnapshotRow(NamedTuple):
    """A snapshot, with the digest of its event if that is stored."""

    seq: int
    rests_on: int | None
    is_base: int
    fingerprint: str
    digest: bytes
    checksum: bytes
    additions: bytes
    payload: bytes
    event_digest: bytes | None


class EventRow(NamedTuple):
    """An event's row, as :func:`eventstore.queries.events.read_events` gives it."""

    seq: int
    kind: int
    key: str | None
    recorded_at: int
    digest: bytes
    payload: bytes


class Loaded(NamedTuple):
    """What one statement found under a thread's key.

    Attributes:
        thread: ``None`` if the key has none.
        was_used: a former thread had the key, or erasures make that uncertain.
        fork: where the last fork goes on from, if no usable snapshot is after it.
        chain: the last usable snapshot and all that it rests on, newest first.
        page: the first events after the snapshot, or from the one before the fork on.
        is_continued: what the reader knows was left out, and ``page`` is what comes after it.
    """

    thread: ThreadRow | None
    was_used: bool
    fork: Position | None
    chain: list[SnapshotRow]
    page: list[EventRow]
    is_continued: bool = False


def _row(what: int, **columns: Any) -> list[Any]:
    """The columns of one kind of row; all kinds have the same columns, most of them empty."""
    given = {**_EMPTY, **columns}
    return [literal_column(str(what)).label("what"), *(given[n].label(n) for n in _EMPTY)]


def _of_log(table: Any) -> Any:
    return and_(table.c.thread_key == _key, table.c.ns == _ns)


def _last(column: Any, *conditions: Any) -> Any:
    """The value of a column in the last row of the log that meets these conditions."""
    found = select(column).where(_of_log(column.table), *conditions)
    return found.order_by(column.table.c.seq.desc()).limit(literal_column("1")).scalar_subquery()


_PART = {
    "n1": threads.c.thread_key,
    "n2": threads.c.generation,
    "n3": threads.c.active_at,
    "n4": threads.c.deleting_since,
    "n5": _last(events.c.seq),
    "n9": threads.c.reached,
    "t1": threads.c.tenant,
    "t2": threads.c.thread_id,
    "t3": threads.c.status,
    "t4": threads.c.owner,
    "b1": _last(events.c.digest),
}
# The tombstone of an erased thread does not have its key: see the secrets of the database.
_used = (
    select(*_row(_FORMER)).where(tombstones.c.thread_key == _key),
    select(*_row(_FORMER)).select_from(secrets),
)


@cache
def _find(*, marks: bool) -> Prepared:
    last_fork = _last(forks.c.seq)
    last_base = _last(snapshots.c.seq, snapshots.c.is_base)
    given = {"n6": func.coalesce(last_fork, 0), "n8": func.coalesce(last_base, 0)} if marks else {}
    thread = select(*_row(_THREAD, **_PART, **given)).where(threads.c.thread_key == _key)
    return Prepared(union_all(thread, *_used))


def _events(*conditions: Any) -> Any:
    """Some events of the log, oldest first."""
    columns = {"n1": "seq", "n2": "kind", "n3": "recorded_at", "t1": "key", "b1": "digest"}
    given = {name: events.c[column] for name, column in columns.items()}
    page = (
        select(*_row(_EVENT, **given, b2=events.c.payload))
        .where(_of_log(events), *conditions)
        .order_by(events.c.seq)
        .limit(literal_column(str(FEW)))
        .subquery("page")
    )
    return select(*page.c)


@cache
def _load(*, past: bool) -> Prepared:
    """The statement; ``past``: with what tells whether a past position is still there.

    The base is the last one of the log then, and else only the snapshot to start at if it is one.
    """
    last_fork = _last(forks.c.seq, forks.c.seq <= _upto)
    last_snapshot = _last(snapshots.c.seq, snapshots.c.seq <= _upto, USABLE)
    marks = select(
        func.coalesce(last_fork, literal_column("0")).label("fork"),
        func.coalesce(last_snapshot, literal_column("0")).label("snapshot"),
    ).cte("marks")
    of_these = () if past else (snapshots.c.seq == marks.c.snapshot,)
    columns = {**_PART, "n6": marks.c.fork, "n7": marks.c.snapshot}
    columns["n8"] = _last(snapshots.c.seq, *of_these, snapshots.c.is_base)
    if past:
        columns["b2"] = _last(events.c.digest, events.c.seq == _upto)
    thread = select(*_row(_THREAD, **columns)).where(threads.c.thread_key == _key)
    is_known = and_(marks.c.fork == _known_fork, marks.c.snapshot == _known_snapshot)
    links = (
        select(snapshots.c.seq, snapshots.c.rests_on)
        .where(_of_log(snapshots), snapshots.c.seq == marks.c.snapshot)
        .where(marks.c.snapshot >= marks.c.fork, ~is_known)
        .cte("links", recursive=True)
    )
    links = links.union_all(
        select(snapshots.c.seq, snapshots.c.rests_on).where(
            _of_log(snapshots),
            snapshots.c.seq == links.c.rests_on,
            snapshots.c.seq < links.c.seq,  # so that damage cannot make it endless
        )
    )
    of_snapshot = events.alias("of_snapshot")
    its_digest = select(of_snapshot.c.digest).where(
        _of_log(of_snapshot), of_snapshot.c.seq == snapshots.c.seq
    )
    chain = select(
        *_row(
            _SNAPSHOT,
            n1=snapshots.c.seq,
            n2=snapshots.c.rests_on,
            n3=cast(snapshots.c.is_base, Integer),
            t1=snapshots.c.fingerprint,
            b1=snapshots.c.digest,
            b2=snapshots.c.checksum,
            b3=snapshots.c.additions,
            b4=snapshots.c.payload,
            b5=its_digest.scalar_subquery(),
        )
    ).where(_of_log(snapshots), snapshots.c.seq == links.c.seq)
    source = select(
        *_row(
            _FORK,
            n1=forks.c.seq,
            n2=forks.c.source_thread_key,
            n3=forks.c.source_seq,
            t1=forks.c.source_ns,
        )
    ).where(_of_log(forks), forks.c.seq == marks.c.fork, marks.c.fork > marks.c.snapshot)
    # The event before a fork has the digest that the fork continues.
    before_fork = marks.c.fork - literal_column("2")
    begins = case((marks.c.snapshot >= marks.c.fork, marks.c.snapshot), else_=before_fork)
    start = select(case((is_known, _after), else_=begins)).select_from(marks).scalar_subquery()
    page = _events(events.c.seq > start, events.c.seq <= _through)
    return Prepared(union_all(thread, *_used, chain, source, page))


@cache
def _span() -> Prepared:
    thread = select(*_row(_THREAD, **_PART)).where(threads.c.thread_key == _key)
    return Prepared(union_all(thread, _events(events.c.seq > _after, events.c.seq <= _through)))


def find(conn: Connection, thread_key: int, ns: str, *, marks: bool = False) -> Loaded:
    """The thread under a key, with the end of one of its logs.

    Args:
        marks: with the log's last fork and last base (0: there is none).
    """
    return _loaded(_find(marks=marks)(conn, {"key": thread_key, "ns": ns}).rows)


def load(
    conn: Connection,
    at: Position,
    fingerprint: str | None,
    known: tuple[int, int, int] | None = None,
) -> Loaded:
    """What leads to a position of a log, as far as one statement can read it.

    Args:
        at: its seq is :data:`END` for the end of the log.
        known: the seqs of the last fork and of the last snapshot (0: there is none) of bytes that
            the reader has, and the seq where these end. If the two are still the last ones, only
            the events after them are read.
    """
    fork, snapshot, after = known or (_UNKNOWN, _UNKNOWN, 0)
    values = {
        "key": at.thread_key,
        "ns": at.ns,
        "upto": at.seq,
        "through": at.seq,
        "fingerprint": fingerprint,
        "known_fork": fork,
        "known_snapshot": snapshot,
        "after": after,
    }
    found = _loaded(_load(past=at.seq != END)(conn, values).rows)
    row = found.thread
    if known is not None and row is not None and (row.fork, row.snapshot) == known[:2]:
        return found._replace(is_continued=True)
    return found


def span(
    conn: Connection, after: Position, upto: int | None
) -> tuple[ThreadRow | None, Sequence[EventRow]]:
    """The thread of a position, its event, and the first ones after it, up to ``upto`` or the end.

    No events where the first one is sealed or missing.
    """
    through = END if upto is None else upto
    values = {"key": after.thread_key, "ns": after.ns, "after": after.seq - 1, "through": through}
    found = _loaded(_span()(conn, values).rows)
    return found.thread, _run(found.page, after.seq + 1)


def _loaded(rows: Sequence[Any]) -> Loaded:
    thread, was_used, fork = None, False, None
    chain: list[SnapshotRow] = []
    page: list[EventRow] = []
    for what, n1, n2, n3, n4, n5, n6, n7, n8, n9, t1, t2, t3, t4, b1, b2, b3, b4, b5 in rows:
        if what == _EVENT:
            page.append(EventRow(n1, n2, t1, n3, b1, b2))
        elif what == _THREAD:
            thread = ThreadRow(n1, n2, n3, n4, n5, n6, n7, n8, t1, t2, t3, t4, b1, n9, b2)
        elif what == _SNAPSHOT:
            chain.append(SnapshotRow(n1, n2, n3, t1, b1, b2, b3, b4, b5))
        elif what == _FORK:
            if [type(n2), type(t1), type(n3)] != [int, str, int]:
                raise CorruptEventError(f"the link of the fork at seq {n1!r:.40} is damaged")
            fork = Position(n2, t1, n3)
        else:
            was_used = True
    if len(page) > 1:
        page.sort(key=_SEQ)
    if len(chain) > 1:
        chain.sort(key=_SEQ, reverse=True)
    return Loaded(thread, was_used, fork, chain, page)


def trace(
    conn: Connection, at: Position, fingerprint: str | None, loaded: Loaded
) -> tuple[Route, list[SnapshotRow], list[Sequence[EventRow]]]:
    """The route to a position that was loaded; each fork on it costs one statement.

    Returns:
        The route, its snapshot with all that it rests on, and for each stretch its first events,
        as far as they were read.
    """
    stretches: list[Stretch] = []
    pages: list[Sequence[EventRow]] = []
    visited: set[Position] = set()
    start: Position | None = None
    while True:
        if at in visited:
            raise CorruptEventError("the history goes in a circle: the link of a fork is damaged")
        if len(visited) == LINEAGE_MAX:
            raise CorruptEventError(f"the history goes through more than {LINEAGE_MAX} forks")
        visited.add(at)
        row = loaded.thread
        fork, snapshot = (0, 0) if row is None else (row.fork, row.snapshot)
        if type(fork) is not int or type(snapshot) is not int:
            raise CorruptEventError(f"a row stands at the invalid seq {fork or snapshot!r:.40}")
        is_start = 0 < snapshot >= fork
        first = snapshot + 1 if is_start else fork or 1
        if first <= at.seq:
            stretches.append(Stretch(at.thread_key, at.ns, first, at.seq))
            pages.append(_run(loaded.page, first))
        if is_start:
            start = at._replace(seq=snapshot)
            break
        if loaded.fork is None:
            break
        at = loaded.fork
        loaded = load(conn, at, fingerprint)
    stretches.reverse()
    pages.reverse()
    return Route(start, stretches), loaded.chain if start else [], pages


def _run(page: Sequence[EventRow], first: int) -> Sequence[EventRow]:
    """These events, if they begin with the first one, or with that before it, and all are there."""
    if not page or not first - 1 <= page[0].seq <= first:
        return ()
    is_run = page[-1].seq - page[0].seq == len(page) - 1
    return page if is_run and all(row.payload for row in page) else ()
