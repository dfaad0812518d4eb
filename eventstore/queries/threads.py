"""Find and make threads: names, keys, generations, owners, and locks that prevent deletion.

A thread's key is a hash of its name and generation. Promises that no key is used twice, that a
name finds at most one thread that is not being deleted, and that the locks last until the commit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    Connection,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)

from eventstore.db.schema import (
    events,
    insert_if_new,
    threads,
    tombstones,
)
from eventstore.db.schema import (
    renewals as _renewals,
)
from eventstore.format import digests
from eventstore.format.checks import checked
from eventstore.limits import check_name
from eventstore.models import Position, SqlRow
from eventstore.queries import loading
from eventstore.queries.tombstones import former_threads, generations_after

PROBES: Final = 4
"""Keys tried at once for a name: its latest generation, and others that are still being deleted."""

_key: Any = bindparam("key")

_ns: Any = bindparam("ns")


def _last(column: Any, *conditions: Any) -> Any:
    """The value of a column in the last row of a log that meets these conditions."""
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
    threads.c.generation,
    threads.c.status,
    threads.c.active_at,
    threads.c.deleting_since,
    threads.c.owner,
    threads.c.reached,
    _last(events.c.seq).label("last_seq"),
    _last(events.c.digest).label("last_digest"),
).where(threads.c.thread_key.in_(_KEYS))

_LOCK_TOMBSTONE = (
    select(tombstones.c.generation)
    .where(tombstones.c.thread_key == _key)
    .with_for_update(read=True, key_share=True)
)

_PROBE = (
    select(
        threads.c.thread_key,
        threads.c.tenant,
        threads.c.thread_id,
        threads.c.deleting_since,
        threads.c.generation,
    )
    .where(threads.c.thread_key.in_(_KEYS))
    .with_for_update(read=True, key_share=True)
)

_THREAD = select(threads).where(threads.c.thread_key == _key)


def _probes(tenant: str, thread_id: str, first: int) -> dict[str, int]:
    return {f"k{n}": digests.thread_key(tenant, thread_id, first + n) for n in range(PROBES)}


def look_up(
    conn: Connection, tenant: str, thread_id: str, ns: str, marks: bool = False
) -> SqlRow | loading.ThreadRow | None:
    """The thread of that name that is not being deleted, with the end of its log ``ns``.

    Args:
        marks: also find the log's last fork and last base, unless the thread had former ones.

    Raises:
        ConfigurationError: no thread and no log can have these names.
    """
    _check_names(thread_id, ns)
    found = loading.find(conn, digests.thread_key(tenant, thread_id, 0), ns, marks=marks)
    if is_decided(found, tenant, thread_id):
        return found.thread
    return _look_up_later(conn, tenant, thread_id, ns)


def load(
    conn: Connection,
    tenant: str,
    thread_id: str,
    ns: str,
    fingerprint: str | None,
    generation: int,
    known: Callable[[int], tuple[int, int, int] | None] | None = None,
) -> loading.Loaded:
    """As :func:`look_up`, with what leads to the end of the log: see :func:`loading.load`.

    Args:
        generation: the one to look for first.
        known: the marks and the end of the bytes that the reader has of a thread, by its key.
    """
    _check_names(thread_id, ns, fingerprint)
    key = digests.thread_key(tenant, thread_id, generation)
    found = loading.load(conn, Position(key, ns, loading.END), fingerprint, known and known(key))
    if is_decided(found, tenant, thread_id) and (found.thread is not None or not generation):
        return found
    row = _look_up_later(conn, tenant, thread_id, ns)
    if row is None:
        return found._replace(thread=None)
    key = row.thread_key
    return loading.load(conn, Position(key, ns, loading.END), fingerprint, known and known(key))


def _check_names(thread_id: str, ns: str, fingerprint: str | None = None) -> None:
    names = (
        ("a thread_id", thread_id),
        ("a namespace", ns),
        ("a fingerprint", "" if fingerprint is None else fingerprint),
    )
    for what, name in names:
        if not isinstance(name, str) or not name.isprintable():  # nearly all are
            check_name(what, name)


def is_decided(found: loading.Loaded, tenant: str, thread_id: str) -> bool:
    """Whether what was found under the first key of a name tells if the thread exists."""
    row = found.thread
    if row is None:
        return not found.was_used
    return row.deleting_since is None and _has_name(row, tenant, thread_id)


def _look_up_later(conn: Connection, tenant: str, thread_id: str, ns: str) -> SqlRow | None:
    """A thread whose first key was used by a former thread, or is another's.

    The tombstones of the name are read only if nothing is found under the next keys, too, and then
    the generations after them are tried. (A generation between two deleted ones was restored from
    an archive.)
    """
    looked: set[int] = set()
    firsts = {0}
    while firsts:
        for first in sorted(firsts):
            probes = _probes(tenant, thread_id, first)
            for row in conn.execute(_LOOK_UP, {**probes, "ns": ns}).fetchall():
                if row.deleting_since is None and _has_name(row, tenant, thread_id):
                    return row
        looked |= firsts
        firsts = generations_after(conn, tenant, thread_id) - looked
    return None


def _has_name(row: SqlRow | loading.ThreadRow, tenant: str, thread_id: str) -> bool:
    """Whether a row found under a key of this name is this thread's.

    A row with another name is another thread's, whose key is the same by chance; unless that
    name does not give the key: then it is damaged, and the key says whose it is.
    """
    own = (row.tenant, row.thread_id)
    return own == (tenant, thread_id) or not digests.belongs(row.thread_key, *own, row.generation)


def thread_by_key(conn: Connection, thread_key: int) -> SqlRow | None:
    """The thread stored under a key, marked for deletion or not."""
    return conn.execute(_THREAD, {"key": thread_key}).first()


_INSERT_THREAD = insert(threads)


class NameTaken(Exception):
    """A thread of that name exists."""


class NoKeyFree(Exception):
    """Too many threads of that name are still being deleted."""


class Created(NamedTuple):
    """A thread that was just made.

    Attributes:
        tombstone_key: the key of its tombstone, should it be erased before its first event;
            ``None`` if there never was an erasure.
    """

    thread_key: int
    tombstone_key: int | None


def create_thread(conn: Connection, row: Mapping[str, Any]) -> Created:
    """Insert a thread under a key that no thread ever had.

    Rows under the possible keys are locked before the tombstones are read, so that a thread that
    is just being deleted is found in one or the other. (A thread that was made and deleted in
    between even so is found when the first event is appended: see ``append.append``.)

    Raises:
        NameTaken: a thread of that name exists.
        NoKeyFree: too many threads of that name are still being deleted.
    """
    name = (row["tenant"], row["thread_id"])
    first = 0
    while True:
        probes = _probes(*name, first)
        taken = conn.execute(_PROBE, probes).fetchall()
        former = former_threads(conn, *name, list(probes.values()))
        if former.generations <= first:
            break
        first = former.generations
    own = [each for each in taken if (each.tenant, each.thread_id) == name]
    if any(each.deleting_since is None for each in own):
        raise NameTaken
    if former.generations or own:
        # Restoring a thread from an archive deletes its tombstone or inserts a row under a key that
        # we may take. So lock the tombstone, then look again.
        newest = digests.thread_key(*name, max(former.generations - 1, 0))
        conn.execute(_LOCK_TOMBSTONE, {"key": newest}).first()
        if look_up(conn, *name, "") is not None:
            raise NameTaken
    keys = {each.thread_key for each in taken} | former.keys
    begins = max([first, *(each.generation + 1 for each in own)])
    for generation in range(begins, first + PROBES):
        key = probes[f"k{generation - first}"]
        if key not in keys:
            conn.execute(_INSERT_THREAD, {**row, "thread_key": key, "generation": generation})
            secret = former.secret
            return Created(key, None if secret is None else digests.tombstone_key(secret, key))
    raise NoKeyFree


_THERE = select(threads.c.thread_key).where(threads.c.thread_key == _key).with_for_update()

_LIVE = (
    select(threads.c.thread_key)
    .where(threads.c.thread_key == _key, threads.c.deleting_since.is_(None))
    .with_for_update(read=True, key_share=True)
)


_LIVE_WITH_EVENTS = (
    select(
        threads.c.thread_key,
        select(events.c.seq)
        .where(events.c.thread_key == threads.c.thread_key)
        .exists()
        .label("has_events"),
    )
    .where(threads.c.thread_key == _key, threads.c.deleting_since.is_(None))
    .with_for_update(read=True, key_share=True, of=threads)
)


def lock_with_events(conn: Connection, thread_key: int) -> bool | None:
    """Whether a thread has an event in any log, as each thread has; locks it against deletion.

    ``None`` if it does not exist or is being deleted.
    """
    row = conn.execute(_LIVE_WITH_EVENTS, {"key": thread_key}).first()
    return None if row is None else bool(row.has_events)


def is_live(conn: Connection, thread_key: int) -> bool:
    """Whether the thread exists and is not being deleted; locks it against deletion."""
    return conn.execute(_LIVE, {"key": thread_key}).first() is not None


def is_there(conn: Connection, thread_key: int) -> bool:
    """Whether a thread has a row; locks the row."""
    return conn.execute(_THERE, {"key": thread_key}).first() is not None


_ends = (
    select(events.c.ns.label("ns"), func.max(events.c.seq).label("seq"))
    .where(events.c.thread_key == _key)
    .group_by(events.c.ns)
    .subquery()
)

_NEWEST = select(events.c.recorded_at).where(
    events.c.thread_key == _key, events.c.ns == _ends.c.ns, events.c.seq == _ends.c.seq
)


def newest_recorded(conn: Connection, thread_key: int) -> int | None:
    """When the newest event at the end of a log was recorded; ``None``: there is none.

    Raises:
        CorruptEventError: an event holds what is no time.
    """
    rows = checked(conn.execute(_NEWEST, {"key": thread_key}).fetchall())
    return max((row.recorded_at for row in rows), default=None)


def last_recorded(conn: Connection, thread_key: int) -> int:
    """When the newest event of a thread was recorded; 0 if it has none."""
    return newest_recorded(conn, thread_key) or 0


# --- who runs a thread ------------------------------------------------------------------

_is_owned = threads.c.owner == bindparam("who")
_is_as_seen = and_(
    threads.c.status == bindparam("seen_status"),
    threads.c.owner.is_not_distinct_from(bindparam("seen_owner", type_=threads.c.owner.type)),
)
_is_longer = select(events.c.seq).where(
    events.c.thread_key == _key, events.c.ns == _ns, events.c.seq > bindparam("seen_seq")
)
_CLAIM = (
    update(threads)
    .where(threads.c.thread_key == _key, threads.c.deleting_since.is_(None), ~_is_longer.exists())
    .where(or_(_is_as_seen, _is_owned))
    .values(status="running", owner=bindparam("new_owner"))
)
_RELEASE = (
    update(threads)
    .where(threads.c.thread_key == _key, _is_owned)
    .values(status=bindparam("new_status"), owner=bindparam("new_owner"))
)


def claim(
    conn: Connection,
    thread_key: int,
    owner: str,
    seen_status: str,
    seen_owner: str | None,
    ns: str,
    seen_seq: int,
) -> bool:
    """Make a run the owner of a thread that goes on; false if that is not as it was seen."""
    seen = {
        "seen_status": seen_status,
        "seen_owner": seen_owner,
        "ns": ns,
        "seen_seq": seen_seq,
    }
    given = {"key": thread_key, "who": owner, "new_owner": owner, **seen}
    return conn.execute(_CLAIM, given).rowcount > 0


def release(
    conn: Connection, thread_key: int, owner: str, status: str, new_owner: str | None = None
) -> None:
    """Change the status of a thread whose run has ended, unless another run owns it by now."""
    given = {"key": thread_key, "who": owner, "new_status": status, "new_owner": new_owner}
    conn.execute(_RELEASE, given)


_of_process = _renewals.c.process == bindparam("who")
_COUNT_UP = (
    update(_renewals)
    .where(_of_process)
    .values(count=_renewals.c.count + 1, renewed_at=bindparam("now"))
)
_FORGET = delete(_renewals).where(_renewals.c.renewed_at < bindparam("before"))
_RENEWALS = select(_renewals.c.count).where(_of_process)


def renew(conn: Connection, process: str, now_us: int, forget_before_us: int) -> None:
    """Renew the leases of all runs of a process; forget processes that have long stopped."""
    if conn.execute(_COUNT_UP, {"who": process, "now": now_us}).rowcount == 0:
        conn.execute(_FORGET, {"before": forget_before_us})
        row = {"process": process, "count": 1, "renewed_at": now_us}
        conn.execute(insert_if_new(conn, _renewals), row)


def renewals(conn: Connection, process: str) -> int | None:
    """How often a process has renewed the leases of its runs; ``None`` if it is not known."""
    count: int | None = conn.execute(_RENEWALS, {"who": process}).scalar()
    return count
