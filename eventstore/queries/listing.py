"""List, search, change and count threads; list tombstones; measure payloads.

Every list is paged: by activity for people, by key for retention, so that sweepers can share the
work and resume it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Final

from sqlalchemy import Connection, and_, bindparam, func, literal, or_, select, tuple_, update

from eventstore.db.schema import events, snapshots, threads, tombstones
from eventstore.errors import ConfigurationError, CorruptEventError
from eventstore.format.checks import checksum_of
from eventstore.models import SqlRow

_key: Any = bindparam("key")
_ns: Any = bindparam("ns")
_seq: Any = bindparam("seq")


def list_threads(
    conn: Connection,
    tenant: str,
    *,
    status: str | None,
    prefix: str | None,
    metadata: Mapping[str, Any],
    active_since: int | None,
    active_until: int | None,
    pinned: bool | None,
    after: tuple[int, int] | None,
    limit: int,
) -> list[SqlRow]:
    """One page of threads, the most recently active first."""
    is_filtered = bool(metadata) or any(each is not None for each in (status, prefix, pinned))
    query = select(threads).where(
        _of_tenant(conn, tenant, is_filtered), threads.c.deleting_since.is_(None)
    )
    if status is not None:
        query = query.where(threads.c.status == status)
    if active_since is not None:
        query = query.where(threads.c.active_at >= active_since)
    if active_until is not None:
        query = query.where(threads.c.active_at <= active_until)
    if pinned is not None:
        query = query.where(threads.c.pinned.is_(pinned))
    if prefix is not None:
        begins = func.substr(threads.c.thread_id, 1, len(prefix))
        query = query.where(threads.c.thread_id >= prefix, begins == prefix)
    for name, value in metadata.items():
        query = query.where(threads.c.metadata.contains(_as_stored(name, value), autoescape=True))
    order = (threads.c.active_at.desc(), threads.c.thread_key.desc())
    query = query.order_by(*order).limit(limit)
    found: list[SqlRow] = []
    while True:
        page = query
        if after is not None:
            place = tuple_(threads.c.active_at, threads.c.thread_key)
            page = query.where(place < tuple_(literal(after[0]), literal(after[1])))
        rows = conn.execute(page).fetchall()
        last = (rows[-1].active_at, rows[-1].thread_key) if rows else None
        if last is not None and after is not None and not _rank(last) < _rank(after):
            raise CorruptEventError(
                "the index of threads by their activity is damaged; run eventstore verify"
            )
        found += [row for row in rows if _has(row, metadata)] if metadata else rows
        if len(rows) < limit or len(found) >= limit:
            return found[:limit]
        after = last


_MANY: Final = 5_000
"""Threads of a tenant from which on SQLite reads the table rather than their index."""

_PROBE = select(func.count()).select_from(
    select(threads.c.thread_key)
    .where(threads.c.tenant == bindparam("tenant"))
    .limit(_MANY)
    .subquery()
)


def _of_tenant(conn: Connection, tenant: str, reads_all: bool) -> Any:
    """The condition that a thread is of a tenant.

    Args:
        reads_all: every row of the tenant may have to be looked at. SQLite would look them up one
            by one in the order of their index, which takes ten times as long as reading the table;
            an expression makes it do that, unless they are few.
    """
    if reads_all and conn.dialect.name == "sqlite":
        if conn.execute(_PROBE, {"tenant": tenant}).scalar_one() >= _MANY:
            return threads.c.tenant + "" == tenant
    return threads.c.tenant == tenant


def _rank(place: tuple[Any, int]) -> tuple[int, Any, int]:
    """A place in the order by activity, which SQLite gives to values of any type."""
    active_at, key = place
    kind = 0 if isinstance(active_at, int | float) else 1 if isinstance(active_at, str) else 2
    return kind, active_at, key


_SEARCHABLE: Final = (str, int, float, bool, type(None))


def _as_stored(name: str, value: Any) -> str:
    """Text that stored metadata contains if it has this value, and rarely otherwise.

    The database filters by this text, and `_has` checks the rest in Python: databases differ in
    what their JSON functions make of numbers and booleans, and in which text they accept.
    """
    if type(value) not in _SEARCHABLE:
        raise ConfigurationError(
            f"metadata can be searched for text, numbers, True, False and None, not {value!r}"
        )
    return f"{json.dumps(name)}: {'' if type(value) is float else json.dumps(value)}"


def _has(row: SqlRow, wanted: Mapping[str, Any]) -> bool:
    """Whether metadata holds exactly these values: 1 is neither 1.0 nor true."""
    try:
        stored = json.loads(row.metadata)
        return all(
            name in stored and type(stored[name]) is type(value) and stored[name] == value
            for name, value in wanted.items()
        )
    except (TypeError, ValueError, RecursionError):  # damaged: list the others all the same
        return False


def update_thread(conn: Connection, thread_key: int, values: Mapping[str, Any]) -> SqlRow | None:
    """Change columns of a thread's row; the row afterwards, or ``None`` if the thread is gone.

    The row is locked first, which waits for a transaction that is deciding the thread's deletion.
    So either that transaction sees the change, or the change reports that the thread is gone. A
    row that does not match its checksum keeps it, and so is still known to be damaged.
    """
    place = (threads.c.thread_key == thread_key, threads.c.deleting_since.is_(None))
    before = conn.execute(select(threads).where(*place).with_for_update(key_share=True)).first()
    if before is None:
        return None
    changed = {**values, **({"owner": None} if "status" in values else {})}
    if before.checksum is None or before.checksum == checksum_of(before):
        changed["checksum"] = checksum_of(SimpleNamespace(**{**before._mapping, **values}))
    return conn.execute(update(threads).where(*place).values(changed).returning(threads)).first()


# --- for retention: in key order, so that sweepers can share the work and resume it ------


def scan(
    conn: Connection,
    tenant: str | None,
    *,
    after: int,
    last: int,
    idle_before: int | None,
    created_before: int | None,
    with_ttl: bool,
    limit: int,
) -> Sequence[SqlRow]:
    """One page of threads in key order that meet any of the conditions."""
    query = select(threads).where(
        threads.c.thread_key > after,
        threads.c.thread_key <= last,
        threads.c.deleting_since.is_(None),
    )
    if tenant is not None:
        # SQLite would use the index that begins with the tenant, and sort all of the tenant's rows
        # for each page. An expression makes it scan the table, which is in the right order.
        of = threads.c.tenant + "" if conn.dialect.name == "sqlite" else threads.c.tenant
        query = query.where(of == tenant)
    either = []
    if idle_before is not None:
        either.append(threads.c.active_at <= idle_before)
    if created_before is not None:
        either.append(threads.c.created_at <= created_before)
    if with_ttl:
        either.append(threads.c.ttl.is_not(None))
    if either:
        query = query.where(or_(*either))
    return conn.execute(query.order_by(threads.c.thread_key).limit(limit)).fetchall()


def _tenants() -> Any:
    """Step from each tenant to the next along the index: as many steps as there are tenants."""
    found = select(func.min(threads.c.tenant).label("tenant")).cte("found", recursive=True)
    following = (
        select(func.min(threads.c.tenant))
        .where(threads.c.tenant > found.c.tenant)
        .scalar_subquery()
    )
    # (A union without duplicates ends even if the index is out of order.)
    found = found.union(select(following).where(found.c.tenant.is_not(None)))
    return select(found.c.tenant).where(found.c.tenant.is_not(None)).order_by(found.c.tenant)


_TENANTS = _tenants()


def tenants(conn: Connection) -> list[str]:
    """Every tenant that has a thread, including threads being deleted."""
    return list(conn.execute(_TENANTS).scalars())


def list_tombstones(
    conn: Connection, tenant: str, after: tuple[int, int] | None, limit: int
) -> Sequence[SqlRow]:
    """One page of tombstones, latest first."""
    query = select(tombstones).where(tombstones.c.tenant == tenant)
    if after is not None:
        place = tuple_(tombstones.c.deleted_at, tombstones.c.thread_key)
        query = query.where(place < tuple_(literal(after[0]), literal(after[1])))
    order = (tombstones.c.deleted_at.desc(), tombstones.c.thread_key.desc())
    return conn.execute(query.order_by(*order).limit(limit)).fetchall()


def count_threads(conn: Connection, tenant: str) -> dict[str, int]:
    """The number of a tenant's threads by status."""
    query = (
        select(threads.c.status, func.count())
        .where(_of_tenant(conn, tenant, reads_all=True), threads.c.deleting_since.is_(None))
        .group_by(threads.c.status)
    )
    return {row[0]: row[1] for row in conn.execute(query)}


_SIZES = (
    select(
        events.c.ns,
        events.c.seq,
        func.length(events.c.payload).label("stored"),
        func.substr(events.c.payload, 1, bindparam("prefix")).label("start"),
    )
    .where(
        events.c.thread_key == _key,
        or_(events.c.ns > _ns, and_(events.c.ns == _ns, events.c.seq > _seq)),
        # A sealed event that has a key leaves a row without a payload, and so does the last event
        # of a trimmed log.
        func.length(events.c.payload) > 0,
    )
    .order_by(events.c.ns, events.c.seq)
    .limit(bindparam("page"))
)
_SNAPSHOT_SIZES = select(
    func.count(),
    func.coalesce(
        func.sum(func.length(snapshots.c.payload) + func.length(snapshots.c.additions)), 0
    ),
).where(snapshots.c.thread_key == _key)


def payload_sizes(
    conn: Connection, thread_key: int, after: tuple[str, int], page: int, prefix: int
) -> Sequence[SqlRow]:
    """Length and first bytes of payloads: enough to know their uncompressed size."""
    return conn.execute(
        _SIZES,
        {"key": thread_key, "ns": after[0], "seq": after[1], "page": page, "prefix": prefix},
    ).fetchall()


def snapshot_sizes(conn: Connection, thread_key: int) -> tuple[int, int]:
    """The number and bytes of a thread's snapshots."""
    count, size = conn.execute(_SNAPSHOT_SIZES, {"key": thread_key}).one()
    return count, int(size or 0)
