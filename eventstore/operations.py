"""Every database operation, written once, as a function that takes a connection first.

Callers open and end the transaction; nothing here commits, retries, encodes or decodes, so
the same functions serve the synchronous and the asynchronous store. Statements are built
once, when the module is loaded: SQLAlchemy then finds them compiled, which halves the cost
of a small append. Every write names one thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    Connection,
    bindparam,
    case,
    delete,
    exc,
    func,
    insert,
    literal_column,
    or_,
    select,
    tuple_,
    union_all,
    update,
)

from eventstore import chain, graves
from eventstore.events import CONDEMNED, Position
from eventstore.schema import (
    SqlRow,
    dictionaries,
    events,
    forks,
    segments,
    snapshots,
    threads,
    tombstones,
)
from eventstore.segments import Segment

Conflict = exc.IntegrityError
"""What the database says when a key is taken or a row referred to is gone."""

PROBES: Final = 4
"""Keys looked at for a name: that of its latest life, and of others still being removed."""

_LAST_SEQ: Final = 2**63 - 1

LINEAGE_MAX: Final = 100_000
"""Forks of forks of forks … followed before a log counts as damaged."""

# --- finding a thread and the ends of its logs ------------------------------------------

_key: Any = bindparam("key")
_ns: Any = bindparam("ns")
_seq: Any = bindparam("seq")
_upto: Any = bindparam("upto")
_fingerprint: Any = bindparam("fingerprint", type_=snapshots.c.fingerprint.type)


def _usable(fingerprint: Any) -> Any:
    return or_(snapshots.c.fingerprint == fingerprint, snapshots.c.is_base)


def _last(column: Any, *conditions: Any) -> Any:
    """The value of a column in the last row of a log that fulfils these conditions."""
    table = column.table
    return (
        select(column)
        .where(table.c.thread_key == threads.c.thread_key, table.c.ns == _ns, *conditions)
        .order_by(table.c.seq.desc())
        .limit(literal_column("1"))
        .scalar_subquery()
    )


_KEYS = [bindparam(f"k{n}", type_=BigInteger) for n in range(PROBES)]
_LOOK_UP = select(
    threads.c.thread_key,
    threads.c.tenant,
    threads.c.thread_id,
    threads.c.status,
    threads.c.active_at,
    threads.c.condemned_at,
    _last(events.c.seq).label("last_seq"),
    _last(events.c.digest).label("last_digest"),
).where(threads.c.thread_key.in_(_KEYS))
_LOOK_UP_MARKS = _LOOK_UP.add_columns(
    _last(forks.c.seq).label("last_fork"),
    _last(snapshots.c.seq, _usable(_fingerprint)).label("last_snapshot"),
)
_HOLD_GRAVE = (
    select(tombstones.c.life)
    .where(tombstones.c.thread_key == _key)
    .with_for_update(read=True, key_share=True)
)
_PROBE = (
    select(
        threads.c.thread_key,
        threads.c.tenant,
        threads.c.thread_id,
        threads.c.condemned_at,
        threads.c.life,
    )
    .where(threads.c.thread_key.in_(_KEYS))
    .with_for_update(read=True, key_share=True)
)
_THREAD = select(threads).where(threads.c.thread_key == _key)


def _probes(tenant: str, thread_id: str, first: int) -> dict[str, int]:
    return {f"k{n}": chain.thread_key(tenant, thread_id, first + n) for n in range(PROBES)}


def look_up(
    conn: Connection, tenant: str, thread_id: str, ns: str, fingerprint: str | None = None
) -> SqlRow | None:
    """The thread of that name that is not being deleted, with where its log ``ns`` ends.

    With a ``fingerprint`` comes where the log's last fork and last usable snapshot are, too.
    Names used again are rare: only where nothing is found are there further looks, at what
    became of former threads of that name, and at the lives after those. (A life that follows
    on a dead one and precedes another was restored from an archive.)
    """
    statement = _LOOK_UP if fingerprint is None else _LOOK_UP_MARKS
    values = {"ns": ns} if fingerprint is None else {"ns": ns, "fingerprint": fingerprint}
    looked: set[int] = set()
    firsts = {0}
    while firsts:
        for first in sorted(firsts):
            probes = _probes(tenant, thread_id, first)
            for row in conn.execute(statement, {**probes, **values}).fetchall():
                if row.condemned_at is None and (row.tenant, row.thread_id) == (tenant, thread_id):
                    return row
        looked |= firsts
        firsts = graves.lives_after(conn, tenant, thread_id) - looked
    return None


def thread_by_key(conn: Connection, thread_key: int) -> SqlRow | None:
    """The thread stored under a key, condemned or not."""
    return conn.execute(_THREAD, {"key": thread_key}).first()


_INSERT_THREAD = insert(threads)


class NameTaken(Exception):
    """A thread of that name is there already."""


class NoKeyFree(Exception):
    """Too many threads of that name are still being removed."""


class Created(NamedTuple):
    """A thread that was just made.

    Attributes:
        grave: what its tombstone would be stored under if it had been erased before anyone
            looked; ``None``: there never was an erasure.
    """

    thread_key: int
    grave: int | None


def create_thread(conn: Connection, row: Mapping[str, Any]) -> Created:
    """Insert a thread under a key that no thread ever had.

    The rows in the way are locked first, and only then the tombstones are read: a thread in
    the way that was just being removed is found in one or the other. (One that comes and
    goes behind our back even so is met by the first event: see ``inserting.append``.)
    """
    name = (row["tenant"], row["thread_id"])
    first = 0
    while True:
        probes = _probes(*name, first)
        taken = conn.execute(_PROBE, probes).fetchall()
        buried = graves.buried(conn, *name, list(probes.values()))
        if buried.lives <= first:
            break
        first = buried.lives
    own = [each for each in taken if (each.tenant, each.thread_id) == name]
    if any(each.condemned_at is None for each in own):
        raise NameTaken
    if buried.lives or own:
        # Whoever restores a thread takes its grave away, or puts a row in our way: so hold the
        # one, and then look again.
        newest = chain.thread_key(*name, max(buried.lives - 1, 0))
        conn.execute(_HOLD_GRAVE, {"key": newest}).first()
        if look_up(conn, *name, "") is not None:
            raise NameTaken
    keys = {each.thread_key for each in taken} | buried.keys
    begins = max([first, *(each.life + 1 for each in own)])
    for life in range(begins, first + PROBES):
        key = probes[f"k{life - first}"]
        if key not in keys:
            conn.execute(_INSERT_THREAD, {**row, "thread_key": key, "life": life})
            secret = buried.secret
            return Created(key, None if secret is None else chain.grave(secret, key))
    raise NoKeyFree


# --- appending --------------------------------------------------------------------------

_INSERT_EVENT = insert(events)
_INSERT_FORKS = insert(forks)
_INSERT_SNAPSHOT = insert(snapshots)
_DROP_SNAPSHOT = delete(snapshots).where(
    snapshots.c.thread_key == _key,
    snapshots.c.ns == _ns,
    snapshots.c.seq == _seq,
    snapshots.c.is_base.is_(False),
)
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
_EVENTS_BY_KEY = (
    select(events.c.seq, events.c.kind, events.c.key, events.c.payload)
    .where(
        events.c.thread_key == _key,
        events.c.ns == _ns,
        events.c.key.in_(bindparam("names", expanding=True)),
    )
    .order_by(events.c.seq)
)
_HEAD = select(
    select(func.max(events.c.seq))
    .where(events.c.thread_key == _key, events.c.ns == _ns)
    .scalar_subquery(),
    select(func.max(segments.c.last))
    .where(segments.c.thread_key == _key, segments.c.ns == _ns)
    .scalar_subquery(),
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
_THERE = select(threads.c.thread_key).where(threads.c.thread_key == _key).with_for_update()
_LIVE = (
    select(threads.c.thread_key)
    .where(threads.c.thread_key == _key, threads.c.condemned_at.is_(None))
    .with_for_update(read=True, key_share=True)
)


def insert_fork(conn: Connection, row: Mapping[str, Any], tenant: str) -> str | None:
    """Record a fork whose event was just appended.

    Returns:
        Why not, or ``None``. The source's row is held, so that a deletion or a trim cannot miss
        us. (That of our own thread is: the event refers to it.)
    """
    source = Position(row["source_thread_key"], row["source_ns"], row["source_seq"])
    own = (row["thread_key"], row["ns"]) == source[:2]
    if own:
        last = row["seq"] - 1
    else:
        if not is_live(conn, source.thread_key):
            return "the thread that holds it is not there"
        found = thread_by_key(conn, source.thread_key)
        if found is None or found.tenant != tenant:
            return "the thread that holds it is not there"
        last = head_seq(conn, source.thread_key, source.ns)
    begins = beginning(conn, source.thread_key, source.ns)
    if begins is not None and source.seq < begins:
        return f"its history begins at seq {begins}; what was before was trimmed"
    if not 1 <= source.seq <= last and floor(conn, source) != source.seq:
        return f"its log ends at seq {last}"
    conn.execute(_INSERT_FORKS, row)
    return None


def is_live(conn: Connection, thread_key: int) -> bool:
    """Whether the thread is there and not being deleted, holding it so until the commit."""
    return conn.execute(_LIVE, {"key": thread_key}).first() is not None


def is_there(conn: Connection, thread_key: int) -> bool:
    """Whether a thread has a row, held until the commit where it has."""
    return conn.execute(_THERE, {"key": thread_key}).first() is not None


def put_snapshot(conn: Connection, row: Mapping[str, Any]) -> None:
    """Store a snapshot in place of a disposable one at the same position."""
    place = {"key": row["thread_key"], "ns": row["ns"], "seq": row["seq"]}
    conn.execute(_DROP_SNAPSHOT, place)
    conn.execute(_INSERT_SNAPSHOT, row)


def head_seq(conn: Connection, thread_key: int, ns: str) -> int:
    """The last seq of a log, 0 when it is empty."""
    row, sealed = conn.execute(_HEAD, {"key": thread_key, "ns": ns}).one()
    return max(row or 0, sealed or 0)


def read_events(
    conn: Connection, thread_key: int, ns: str, after: int, upto: int, page: int
) -> Sequence[SqlRow | Segment]:
    """One page of a log without a gap, oldest first: rows of events, or what is sealed.

    A page that does not begin behind ``after`` is one behind a gap.
    """
    place = {"key": thread_key, "ns": ns, "after": after, "upto": upto}
    rows = conn.execute(_EVENTS_BETWEEN, {**place, "page": page}).fetchall()
    if rows and rows[-1].seq - after == len(rows) and all(map(_PAYLOAD, rows)):
        return rows
    # A row without a payload stands for a sealed event that has a key.
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
    behind = [row for row in rows if row.seq > end]
    if sealed and behind and behind[-1].seq - end == len(behind) and all(map(_PAYLOAD, behind)):
        return [*sealed, *behind]
    return sealed or rows


_PAYLOAD = itemgetter(5)


def read_segments(
    conn: Connection, thread_key: int, ns: str, after: int, upto: int, page: int = SEGMENTS_PAGE
) -> list[Segment]:
    """Segments of a log that hold events behind ``after``, up to ``upto``, oldest first."""
    place = {"key": thread_key, "ns": ns, "after": after, "upto": upto, "page": page}
    return [Segment(*row) for row in conn.execute(_SEGMENTS_BETWEEN, place)]


def events_by_key(
    conn: Connection, thread_key: int, ns: str, keys: Iterable[str]
) -> Sequence[SqlRow]:
    """The events that bear one of these keys."""
    return conn.execute(
        _EVENTS_BY_KEY, {"key": thread_key, "ns": ns, "names": list(keys)}
    ).fetchall()


_KEYS_OF = select(events.c.seq, events.c.key).where(
    events.c.thread_key == _key, events.c.ns == _ns, events.c.key.is_not(None)
)


def keys_of(conn: Connection, thread_key: int, ns: str) -> dict[int, str]:
    """The keys that events of a log are found by, sealed ones included."""
    rows = conn.execute(_KEYS_OF, {"key": thread_key, "ns": ns})
    return {row.seq: row.key for row in rows}


# --- replaying --------------------------------------------------------------------------


class Span(NamedTuple):
    """A run of events, ``first`` to ``last``, of one log."""

    thread_key: int
    ns: str
    first: int
    last: int

    @property
    def before(self) -> Position:
        """The position that it goes on from within its log."""
        return Position(self.thread_key, self.ns, self.first - 1)


class Route(NamedTuple):
    """How to reach a position: from this snapshot (or nothing) through these spans."""

    snapshot: Position | None
    spans: list[Span]


_MARKS = select(
    select(func.max(forks.c.seq))
    .where(forks.c.thread_key == _key, forks.c.ns == _ns, forks.c.seq <= _upto)
    .scalar_subquery(),
    select(func.max(snapshots.c.seq))
    .where(
        snapshots.c.thread_key == _key,
        snapshots.c.ns == _ns,
        snapshots.c.seq <= _upto,
        _usable(_fingerprint),
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
    return fork, snapshot


def fork_source(conn: Connection, thread_key: int, ns: str, seq: int) -> Position | None:
    """Where the fork recorded at this place goes on from."""
    row: SqlRow = conn.execute(_FORK_AT, {"key": thread_key, "ns": ns, "seq": seq}).first()
    if row is None:
        return None
    return Position(row.source_thread_key, row.source_ns, row.source_seq)


def trace(
    conn: Connection,
    at: Position,
    fingerprint: str | None,
    known: tuple[int | None, int | None] | None = None,
) -> Route:
    """Walk back along the lineage to the nearest usable snapshot, or to the beginning.

    ``known`` spares the first look at a log whose marks the caller has just read.
    """
    spans: list[Span] = []
    for _ in range(LINEAGE_MAX):
        fork, snapshot = known or marks(conn, at, fingerprint)
        known = None
        if snapshot is not None and (fork is None or snapshot >= fork):
            spans.append(Span(at.thread_key, at.ns, snapshot + 1, at.seq))
            start: Position | None = Position(at.thread_key, at.ns, snapshot)
            break
        spans.append(Span(at.thread_key, at.ns, fork or 1, at.seq))
        source = fork and fork_source(conn, at.thread_key, at.ns, fork)
        if not source:
            start = None
            break
        at = source
    else:
        raise RecursionError(f"more than {LINEAGE_MAX} forks of forks")
    spans.reverse()
    return Route(start, [span for span in spans if span.first <= span.last])


def _snapshot_chain() -> Any:
    """The links are found by number alone: payloads are not dragged through the recursion."""
    own = (snapshots.c.thread_key == _key, snapshots.c.ns == _ns)
    links = (
        select(snapshots.c.seq, snapshots.c.rests_on)
        .where(*own, snapshots.c.seq == _seq)
        .cte("links", recursive=True)
    )
    links = links.union_all(
        select(snapshots.c.seq, snapshots.c.rests_on).where(
            *own,
            snapshots.c.seq == links.c.rests_on,
            snapshots.c.seq < links.c.seq,  # so that damage cannot send us in a circle
        )
    )
    event = (
        select(events.c.digest)
        .where(events.c.thread_key == _key, events.c.ns == _ns, events.c.seq == _seq)
        .scalar_subquery()
    )
    return (
        select(snapshots, event.label("event_digest"))
        .join_from(links, snapshots, snapshots.c.seq == links.c.seq)
        .where(*own)
        .order_by(snapshots.c.seq.desc())
    )


_SNAPSHOT_CHAIN = _snapshot_chain()


def snapshot_checksum(row: SqlRow) -> bytes:
    """What a snapshot's checksum must be, going by the rest of its row."""
    place = (row.seq, row.rests_on)
    return chain.checksum(row.digest, place, row.fingerprint, row.additions, row.payload)


def snapshot_chain(conn: Connection, at: Position) -> Sequence[SqlRow]:
    """A snapshot and all that it rests on, newest first, with its event's digest beside."""
    return conn.execute(
        _SNAPSHOT_CHAIN, {"key": at.thread_key, "ns": at.ns, "seq": at.seq}
    ).fetchall()


_DROP_SNAPSHOTS = delete(snapshots).where(
    snapshots.c.thread_key == _key, snapshots.c.is_base.is_(False)
)


def drop_snapshots(conn: Connection, thread_key: int) -> int:
    """Delete every disposable snapshot of a thread; returns how many there were."""
    return conn.execute(_DROP_SNAPSHOTS, {"key": thread_key}).rowcount


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
        func.length(events.c.payload) > 0,  # the last event of a trimmed log leaves its row
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
    """The base below which a log has no events any more, as seen from a position."""
    place = {"key": at.thread_key, "ns": at.ns, "upto": at.seq}
    return conn.execute(_FLOOR, place).scalar()


def beginning(conn: Connection, thread_key: int, ns: str) -> int | None:
    """The base at which the history of a trimmed log begins; ``None`` for one that is whole.

    What a fork was given of other threads (a prefix) may have gaps, and no one beginning.
    """
    if chain.is_prefix(ns):
        return None
    return floor(conn, Position(thread_key, ns, _LAST_SEQ))


_BASE_DIGEST = select(snapshots.c.digest).where(
    snapshots.c.thread_key == _key,
    snapshots.c.ns == _ns,
    snapshots.c.seq == _seq,
    snapshots.c.is_base,
)


def base_digest(conn: Connection, at: Position) -> bytes | None:
    """The link that stands before the events behind a base; ``None`` if there is none here."""
    place = {"key": at.thread_key, "ns": at.ns, "seq": at.seq}
    return conn.execute(_BASE_DIGEST, place).scalar()


def can_be_reached(conn: Connection, at: Position) -> bool:
    """Whether a position is there, and what the events before it in its log begin behind.

    Of what leads to it through a fork nothing is said.
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
    """Whether an event is not there because its thread was trimmed."""
    begins = beginning(conn, thread_key, ns)
    if begins is not None:
        return seq <= begins
    # A whole log may have gone with what it belonged to in the log above.
    empty = bool(ns) and not head_seq(conn, thread_key, ns)
    return empty and beginning(conn, thread_key, "") is not None


def _edges(what: int, step: int) -> Any:
    """The events of a log with none on one side of them."""
    beside = events.alias()
    neighbour = (
        select(beside.c.seq)
        .where(
            beside.c.thread_key == events.c.thread_key,
            beside.c.ns == events.c.ns,
            beside.c.seq == events.c.seq + step,
        )
        .exists()
    )
    return select(
        literal_column(str(what)).label("what"), events.c.seq, events.c.seq.label("last")
    ).where(events.c.thread_key == _key, events.c.ns == _ns, ~neighbour)


# One statement: others may be sealing meanwhile, or trimming.
_RUNS = union_all(
    _edges(0, -1),
    _edges(1, +1),
    select(literal_column("2"), segments.c.seq, segments.c.last).where(
        segments.c.thread_key == _key, segments.c.ns == _ns
    ),
).order_by("what", "seq")


def runs(conn: Connection, thread_key: int, ns: str) -> list[tuple[int, int]]:
    """First and last seq of each run of events without a gap: of one, in a log that is whole."""
    edges: tuple[list[tuple[int, int]], ...] = ([], [], [])
    for what, first, last in conn.execute(_RUNS, {"key": thread_key, "ns": ns}):
        edges[what].append((first, last))
    starts, ends, sealed = edges
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
    select(_stretches.c.ns, func.min(_stretches.c.seq), func.max(_stretches.c.last))
    .group_by(_stretches.c.ns)
    .order_by(_stretches.c.ns)
)
_SNAPSHOTS_OF = (
    select(snapshots)
    .where(snapshots.c.thread_key == _key, snapshots.c.ns == _ns)
    .order_by(snapshots.c.seq)
)
_FORKS_OF = select(forks).where(forks.c.thread_key == _key, forks.c.ns == _ns).order_by(forks.c.seq)


def namespaces(conn: Connection, thread_key: int) -> Sequence[SqlRow]:
    """The logs of a thread, each with its first and last seq."""
    return conn.execute(_NAMESPACES, {"key": thread_key}).fetchall()


def ends(conn: Connection, thread_key: int) -> dict[str, int]:
    """The last seq of each log of a thread."""
    return {ns: last for ns, _, last in namespaces(conn, thread_key)}


def snapshots_of(conn: Connection, thread_key: int, ns: str) -> Sequence[SqlRow]:
    """Every snapshot of a log, oldest first."""
    return conn.execute(_SNAPSHOTS_OF, {"key": thread_key, "ns": ns}).fetchall()


def forks_of(conn: Connection, thread_key: int, ns: str) -> Sequence[SqlRow]:
    """Every fork of a log, oldest first."""
    return conn.execute(_FORKS_OF, {"key": thread_key, "ns": ns}).fetchall()


# --- deleting ---------------------------------------------------------------------------

_HOLD = (
    select(threads)
    .where(threads.c.thread_key == _key, threads.c.condemned_at.is_(None))
    .with_for_update()
)
_CONDEMN = (
    update(threads)
    .where(threads.c.thread_key == _key)
    .values(condemned_at=bindparam("now"), fate=bindparam("said"))
)
_ends = (
    select(events.c.ns.label("ns"), func.max(events.c.seq).label("seq"))
    .where(events.c.thread_key == _key)
    .group_by(events.c.ns)
    .subquery()
)
_NEWEST = select(events.c.recorded_at).where(
    events.c.thread_key == _key, events.c.ns == _ends.c.ns, events.c.seq == _ends.c.seq
)
_CONDEMNED = select(threads.c.thread_key).where(threads.c.condemned_at.is_not(None))
_DEPENDANTS = (
    select(forks)
    .where(forks.c.source_thread_key == _key, forks.c.thread_key != _key)
    .limit(bindparam("page"))
)


def last_recorded(conn: Connection, thread_key: int) -> int:
    """When the newest event of a thread was recorded; 0 when it has none."""
    return max((row.recorded_at for row in conn.execute(_NEWEST, {"key": thread_key})), default=0)


def hold(conn: Connection, thread_key: int) -> SqlRow | None:
    """A thread's row, locked for a change of its fate; ``None`` when that is already sealed."""
    return conn.execute(_HOLD, {"key": thread_key}).first()


def condemn(conn: Connection, thread_key: int, now_us: int, digest: bytes, fate: str) -> None:
    """Take a held thread out of everybody's sight and end each of its logs with a mark.

    A writer that has not noticed will name the seq that the mark now has, and be refused by
    the primary key: so the append of a single event needs no look at ``threads``. The fate is
    for whoever ends the deletion, perhaps another process: what its tombstone is to say.
    """
    conn.execute(_CONDEMN, {"key": thread_key, "now": now_us, "said": fate})
    for ns, _, last in namespaces(conn, thread_key):
        mark = {
            "thread_key": thread_key,
            "ns": ns,
            "seq": last + 1,
            "kind": CONDEMNED,
            "key": None,
            "recorded_at": now_us,
            "digest": digest,
            "payload": b"",
        }
        conn.execute(_INSERT_EVENT, mark)


def condemned(conn: Connection, tenant: str | None = None) -> Sequence[int]:
    """Threads whose deletion has begun and not ended."""
    query = _CONDEMNED if tenant is None else _CONDEMNED.where(threads.c.tenant == tenant)
    return conn.execute(query).scalars().all()


def dependants(conn: Connection, thread_key: int, page: int) -> Sequence[SqlRow]:
    """Forks in other threads that refer to this one."""
    return conn.execute(_DEPENDANTS, {"key": thread_key, "page": page}).fetchall()


_REMOVE = delete(events).where(
    events.c.thread_key == _key, events.c.ns == _ns, events.c.seq <= _upto
)


_REMOVE_SEALED = delete(segments).where(
    segments.c.thread_key == _key, segments.c.ns == _ns, segments.c.last <= _upto
)


def remove_events(conn: Connection, thread_key: int, ns: str, upto: int) -> int:
    """Delete the beginning of a condemned thread's log; returns how many rows that were."""
    place = {"key": thread_key, "ns": ns, "upto": upto}
    sealed = conn.execute(_REMOVE_SEALED, place).rowcount
    return sealed + conn.execute(_REMOVE, place).rowcount


# A sealed event that has a key leaves a row without a payload behind.
_has_payload = case((func.length(events.c.payload) > 0, 1), else_=0)
_TOTALS = select(
    func.sum(_has_payload), func.sum(func.length(events.c.payload)), func.count()
).where(events.c.thread_key == _key, events.c.kind != CONDEMNED)
_SEALED_TOTALS = select(
    func.coalesce(func.sum(segments.c.last - segments.c.seq + 1), 0),
    func.coalesce(func.sum(segments.c.raw), 0),
    func.coalesce(func.sum(func.length(segments.c.payload)), 0),
    func.count(),
).where(segments.c.thread_key == _key)


class Totals(NamedTuple):
    """Of a thread: its events, the stored bytes of their payloads, the rows that hold them."""

    events: int
    bytes: int
    rows: int


def totals(conn: Connection, thread_key: int) -> Totals:
    """How much a thread holds."""
    count, size, rows = conn.execute(_TOTALS, {"key": thread_key}).one()
    sealed = sealed_totals(conn, thread_key)
    return Totals(
        int(count or 0) + sealed.events, int(size or 0) + sealed.stored, rows + sealed.rows
    )


class SealedTotals(NamedTuple):
    """Of a thread's segments: events, bytes of their bodies, stored bytes, rows."""

    events: int
    raw: int
    stored: int
    rows: int


def sealed_totals(conn: Connection, thread_key: int) -> SealedTotals:
    """How much of a thread is sealed."""
    return SealedTotals(*map(int, conn.execute(_SEALED_TOTALS, {"key": thread_key}).one()))


def _some_of(table: Any) -> Any:
    place = (table.c.ns, table.c.seq)
    some = select(*place).where(table.c.thread_key == _key).limit(bindparam("page"))
    return delete(table).where(table.c.thread_key == _key, tuple_(*place).in_(some))


_REMOVE_SOME = [_some_of(segments), _some_of(snapshots)]


def remove_some(conn: Connection, thread_key: int, page: int) -> bool:
    """Delete some segments or snapshots of a condemned thread; false when there are none."""
    return any(
        conn.execute(remove, {"key": thread_key, "page": page}).rowcount for remove in _REMOVE_SOME
    )


def bury(conn: Connection, thread_key: int, tombstone: Mapping[str, Any]) -> bool:
    """Delete what is left of a thread, the row last; false while a fork still needs it."""
    if conn.execute(_DEPENDANTS, {"key": thread_key, "page": 1}).first() is not None:
        return False
    for remove in _BURY:
        conn.execute(remove, {"key": thread_key})
    conn.execute(_INSERT_TOMBSTONE, tombstone)
    return True


_BURY = [
    delete(table).where(table.c.thread_key == _key)
    for table in (snapshots, forks, segments, events)
]
_BURY.append(delete(threads).where(threads.c.thread_key == _key))
_INSERT_TOMBSTONE = insert(tombstones)

# --- dictionaries -----------------------------------------------------------------------

_DICTIONARY = select(dictionaries.c.data).where(dictionaries.c.dict_id == bindparam("dict_id"))


class OtherDictionary(Exception):
    """Another dictionary of the same number is in use."""


def read_dictionary(conn: Connection, dict_id: int) -> bytes | None:
    """The dictionary of this number, if any payload was ever written with it."""
    data: bytes | None = conn.execute(_DICTIONARY, {"dict_id": dict_id}).scalar()
    return data


def keep_dictionary(conn: Connection, dict_id: int, data: bytes) -> None:
    """Keep what payloads are about to be compressed with, unless it is kept already.

    Raises:
        OtherDictionary: another one has the number.
        Conflict: somebody else keeps it at the same moment.
    """
    known = read_dictionary(conn, dict_id)
    if known is None:
        conn.execute(insert(dictionaries), {"dict_id": dict_id, "data": data})
    elif known != data:
        raise OtherDictionary
