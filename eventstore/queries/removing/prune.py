"""Delete many small threads in one transaction.

Each function serves a group of threads: reading takes one statement for the group, deleting one
for each thread and table, sent together. Promises that no write names two threads, and that no
lock is waited for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Connection,
    bindparam,
    delete,
    func,
    insert,
    literal,
    null,
    select,
    union_all,
)

from eventstore.db.prepared import Prepared
from eventstore.db.schema import events, forks, segments, snapshots, threads, tombstones
from eventstore.models import SqlRow

GROUPS: Final[Mapping[str, int]] = {"sqlite": 8, "postgresql": 16}
"""Threads that one statement reads, by dialect: each is a round trip on PostgreSQL."""

REMOVED: Final[Mapping[str, int]] = {"sqlite": 8, "postgresql": 1_000}
"""Threads that are removed between two looks at the clock."""

STRETCH: Final[Mapping[str, int]] = {"sqlite": 1, "postgresql": 10}
"""How many times as long a transaction may take where writers of other threads do not wait."""

_LEAVES: Final = (snapshots, forks, segments, events)
"""The tables that hold rows of a thread besides its own, in the order of deletion."""

_NEEDED: Final = "needed"


def _rows_of(table: Any, keys: Any, **columns: Any) -> Any:
    """The number of rows of a table for each thread, and these further columns."""
    given = {"ns": null(), "last": null(), "newest": null(), "events": null(), "bytes": null()}
    given |= columns
    query = select(
        literal(table.name).label("what"),
        table.c.thread_key.label("thread_key"),
        func.count().label("rows"),
        *(value.label(name) for name, value in given.items()),
    ).where(table.c.thread_key.in_(keys))
    return query.group_by(table.c.thread_key, *([table.c.ns] if "ns" in columns else []))


class _Group:
    """The statements that read a number of threads; each has a place for each key."""

    def __init__(self, size: int) -> None:
        self._places = [f"key_{number}" for number in range(size)]
        keys: Any = [bindparam(place, type_=BigInteger) for place in self._places]
        are_meant = (threads.c.thread_key.in_(keys), threads.c.deleting_since.is_(None))
        self.lock = Prepared(select(threads).where(*are_meant).with_for_update(skip_locked=True))
        self.there = Prepared(select(threads.c.thread_key).where(*are_meant))
        dependant = forks.alias("dependant")
        needed = select(
            literal(_NEEDED),
            dependant.c.source_thread_key,
            func.count(),
            *(null() for _ in range(5)),
        ).where(
            dependant.c.source_thread_key.in_(keys),
            dependant.c.thread_key != dependant.c.source_thread_key,
        )
        self.weigh = Prepared(
            union_all(
                _rows_of(
                    events,
                    keys,
                    ns=events.c.ns,
                    last=func.max(events.c.seq),
                    newest=func.max(events.c.recorded_at),
                    events=func.count(func.nullif(func.length(events.c.payload), 0)),
                    bytes=func.sum(func.length(events.c.payload)),
                ),
                _rows_of(
                    segments,
                    keys,
                    events=func.sum(segments.c.last - segments.c.seq + 1),
                    bytes=func.sum(func.length(segments.c.payload)),
                ),
                _rows_of(snapshots, keys),
                _rows_of(forks, keys),
                needed.group_by(dependant.c.source_thread_key),
            )
        )

    def placed(self, keys: Sequence[int]) -> Mapping[str, int]:
        """Keys in their places; the first one fills those that are left."""
        return dict.fromkeys(self._places, keys[0]) | dict(zip(self._places, keys, strict=False))


@cache
def _group(dialect: str) -> _Group:
    return _Group(GROUPS[dialect])


@dataclass(slots=True)
class Weight:
    """The rows and bytes of a thread.

    Attributes:
        rows: the number of rows by table name; tables without rows are left out.
        ends: the last seq of each log.
        newest: when its newest event was recorded; 0 if it has none.
        events, bytes: the number of events, and the stored bytes of their payloads.
        needed: whether forks in other threads refer to it.
    """

    rows: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    ends: dict[str, int] = field(default_factory=dict)
    newest: int = 0
    events: int = 0
    bytes: int = 0
    needed: bool = False

    @property
    def total(self) -> int:
        """Rows to delete, the thread's own included."""
        return 1 + sum(self.rows.values())


def lock(conn: Connection, keys: Sequence[int]) -> dict[int, SqlRow]:
    """The rows of these threads, locked, without those that are gone or locked by somebody else.

    A writer locks the row of its thread during an append, and another sweeper does while it
    decides. We wait for neither, so that those who wait for us can never deadlock with us.
    """
    group = _group(conn.dialect.name)
    return {row.thread_key: row for row in group.lock(conn, group.placed(keys)).rows}


def there(conn: Connection, keys: Sequence[int]) -> Collection[int]:
    """Those of these threads that exist and are not being deleted."""
    if not keys:
        return ()
    group = _group(conn.dialect.name)
    return {key for (key,) in group.there(conn, group.placed(keys)).rows}


def weigh(conn: Connection, keys: Sequence[int]) -> Mapping[int, Weight]:
    """The weight of locked threads, which stays true until the transaction ends."""
    found: dict[int, Weight] = defaultdict(Weight)
    if not keys:
        return found
    group = _group(conn.dialect.name)
    rows_found = group.weigh(conn, group.placed(keys)).rows
    for what, key, rows, ns, last, newest, count, size in rows_found:
        weight = found[key]
        if what == _NEEDED:
            weight.needed = True
            continue
        weight.rows[what] += rows
        weight.events += count or 0
        weight.bytes += int(size or 0)
        if ns is not None:
            weight.ends[ns] = last
            weight.newest = max(weight.newest, newest)
    return found


_DELETE = {
    table.name: Prepared(delete(table).where(table.c.thread_key == bindparam("key")))
    for table in (*_LEAVES, threads)
}
_INSERT_TOMBSTONES = Prepared(insert(tombstones))


def remove_rest(
    conn: Connection, weights: Mapping[int, Weight], tombstones: Sequence[Mapping[str, Any]]
) -> None:
    """Delete locked threads that no fork needs, and insert these tombstones."""
    if not weights:
        return
    for table in _LEAVES:
        keys = [{"key": key} for key, weight in weights.items() if table.name in weight.rows]
        if keys:
            _DELETE[table.name].many(conn, keys)
    _DELETE[threads.name].many(conn, [{"key": key} for key in weights])
    _INSERT_TOMBSTONES.many(conn, tombstones)
