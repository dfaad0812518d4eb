"""Append events to a log: directly after the event that the writer knows, or not at all.

On PostgreSQL an append and the change of the thread's status are one statement, which commits by
itself: one round trip in place of three or more to begin, insert and commit. Promises that a
second writer, a deleted thread and a log that was deleted and begun anew are all refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Connection,
    and_,
    bindparam,
    case,
    func,
    insert,
    literal_column,
    or_,
    select,
    text,
    update,
)

from eventstore.db.prepared import Change, Prepared
from eventstore.db.schema import events, forks, secrets, threads, tombstones
from eventstore.queries.tombstones import ERASURE

Row = Mapping[str, Any]

HIDDEN_ROWS: Final = 64
"""Rows after the last event of a log that an append looks at on SQLite. Each costs some 50 ns, and
there are none if nobody appended to another log since."""

_new = {c.key: bindparam(f"new_{c.key}", type_=c.type) for c in events.c}
_before = events.alias("before")
_is_behind = and_(
    _before.c.thread_key == _new["thread_key"],
    _before.c.ns == _new["ns"],
    _before.c.seq == _new["seq"] - literal_column("1"),
    _before.c.digest == bindparam("previous"),
)
# A key is for one generation: it is used up if a thread was made and deleted since we looked.
_no_erasure = ~select(secrets.c.name).where(secrets.c.name == ERASURE).exists()
_tombstone_key: Any = bindparam("tombstone_key", type_=BigInteger)
_is_unused = and_(
    ~select(tombstones.c.generation)
    .where(tombstones.c.thread_key.in_([_new["thread_key"], _tombstone_key]))
    .exists(),
    or_(_tombstone_key.is_not(None), _no_erasure),
)
# The same without having looked: tombstones of erased threads cannot be matched without a secret,
# so after any erasure this refuses every key.
_is_surely_unused = and_(
    ~select(tombstones.c.generation).where(tombstones.c.thread_key == _new["thread_key"]).exists(),
    _no_erasure,
)
_hidden = events.alias("hidden")
# On SQLite the table has an order of its own, in which rows were inserted. A damaged index that
# hides the end of a log is found by it, before an event is stored beside a hidden one. (The unary
# plus keeps SQLite from looking them up in that index.)
_hides_nothing = (
    ~select(literal_column("1"))
    .select_from(_hidden)
    .where(
        text(f"hidden.rowid > before.rowid AND hidden.rowid <= before.rowid + {HIDDEN_ROWS}"),
        text("+hidden.thread_key = before.thread_key AND +hidden.ns = before.ns"),
        text("+hidden.seq > before.seq"),
    )
    .exists()
)

_VARYING: Final = ("seq", "kind", "key", "recorded_at", "digest", "payload")
"""Columns that differ between the rows of an append."""


def _insert(*sources: Any, place: Any, rows: Any = None) -> Any:
    """Insert events: one, or those of ``rows``.

    Args:
        sources: conditions of the insertion.
        place: where the rows get their thread's key from: a table that is read there anyway, so
            that a database that is sharded by thread finds everything in one shard.
    """
    given = _new if rows is None else {name: rows.c[name] for name in _VARYING}
    columns = [place if name == "thread_key" else given.get(name, _new[name]) for name in _new]
    return insert(events).from_select(list(_new), select(*columns).where(*sources))


def _several() -> Any:
    columns = [events.c[name] for name in _VARYING]
    arrays = [bindparam(f"all_{c.key}", type_=ARRAY(c.type)) for c in columns]
    return func.unnest(*arrays).table_valued(*columns, name="several").render_derived()


_status: Any = bindparam("new_status", type_=threads.c.status.type)
_touch = update(threads).values(
    status=func.coalesce(_status, threads.c.status),
    owner=case(
        (_status.is_(None), threads.c.owner),
        else_=bindparam("new_owner", type_=threads.c.owner.type),
    ),
    active_at=bindparam("now"),
    reached=func.coalesce(
        bindparam("new_reached", type_=threads.c.reached.type), threads.c.reached
    ),
)
_TOUCH = Prepared(_touch.where(threads.c.thread_key == _new["thread_key"]))
_INSERT_MORE = Prepared(insert(events).values(_new))
_INSERT_FIRST = Prepared(_insert(_is_unused, place=_new["thread_key"]))


class Touch(NamedTuple):
    """What an append changes about its thread.

    Attributes:
        status: ``None`` leaves status and owner unchanged.
        owner: the run that goes on, if one does.
        reached: where the root log ends; ``None``: the append is to other logs.
    """

    status: str | None
    owner: str | None
    active_us: int
    reached: int | None

    @property
    def values(self) -> dict[str, Any]:
        """Parameters of the statement."""
        return {
            "new_status": self.status,
            "new_owner": self.owner,
            "now": self.active_us,
            "new_reached": self.reached,
        }


def append(
    conn: Connection, rows: Sequence[Row], touch: Touch | None, tombstone_key: int | None = None
) -> bool:
    """Insert rows after the event whose digest the first row continues; false if it is not there.

    A log's first event is inserted only if its thread was not made and deleted since the writer
    looked: there is no tombstone under its key or under ``tombstone_key`` and, if that is
    ``None``, there never was an erasure.

    The primary key refuses a second writer, the foreign key a thread that is gone, and the
    digest a log that was deleted and begun anew since the writer looked. On SQLite, rows that the
    index does not find are found if they follow closely.
    """
    several = len(rows) > 1
    if rows[0]["new_seq"] == 1:
        if not _INSERT_FIRST(conn, {**rows[0], "tombstone_key": tombstone_key}).changed:
            return False
    elif conn.dialect.name == "postgresql":
        return continuing(rows, touch)(conn)
    elif not _INSERT_NEXT(conn, rows[0]).changed:
        return False
    if several:
        _INSERT_MORE.many(conn, rows[1:])
    if touch is not None:
        _TOUCH(conn, {"new_thread_key": rows[0]["new_thread_key"], **touch.values})
    return True


_INSERT_NEXT = Prepared(_insert(_is_behind, _hides_nothing, place=_before.c.thread_key))


# --- the same as one statement ----------------------------------------------------------


@cache
def _continue(*, several: bool, touches: bool) -> Prepared:
    rows = _several() if several else None
    statement = _insert(_is_behind, place=_before.c.thread_key, rows=rows)
    if touches:
        is_last = select(_before.c.seq).where(_is_behind).exists()
        touched = _touch.where(threads.c.thread_key == _new["thread_key"], is_last)
        statement = statement.add_cte(touched.cte("touched"))
    return Prepared(statement)


def continuing(rows: Sequence[Row], touch: Touch | None) -> Change:
    """As :func:`append` on PostgreSQL, for a log that has events: a single statement."""
    several, given = len(rows) > 1, rows[0]
    if several:
        given = {**given, **_arrays(rows)}
    if touch is not None:
        given = {**given, **touch.values}
    statement = _continue(several=several, touches=touch is not None)
    return Change(statement, given, len(rows), given["new_thread_key"])


_thread = select(*(bindparam(f"row_{c.key}", type_=c.type) for c in threads.c))
_make = insert(threads).from_select(list(threads.c), _thread.where(_is_surely_unused))
_made = _make.returning(threads.c.thread_key).cte("made")
_MAKE = Prepared(_make)


@cache
def _begin(*, several: bool) -> Prepared:
    return Prepared(_insert(place=_made.c.thread_key, rows=_several() if several else None))


def begin(conn: Connection, thread: Row, rows: Sequence[Row]) -> bool:
    """Make a thread under the first key of its name, with its first events.

    Returns false if a deleted thread had that key, or if erasures make that uncertain; the primary
    key refuses a key that is in use. Then call :func:`eventstore.queries.threads.create_thread`.
    """
    if conn.dialect.name == "postgresql":
        return beginning(thread, rows)(conn)
    if not _MAKE(conn, {**rows[0], **_columns(thread)}).changed:
        return False
    if len(rows) > 1:
        _INSERT_MORE.many(conn, rows)
    else:
        _INSERT_MORE(conn, rows[0])
    return True


def beginning(thread: Row, rows: Sequence[Row]) -> Change:
    """As :func:`begin` on PostgreSQL: a single statement."""
    several = len(rows) > 1
    given = {**rows[0], **_columns(thread), **(_arrays(rows) if several else {})}
    return Change(_begin(several=several), given, len(rows), given["new_thread_key"])


def _columns(thread: Row) -> dict[str, Any]:
    return {f"row_{name}": value for name, value in thread.items()}


# The locks are taken one after the other: trimming and deleting hold the thread's row, so what
# they remove of the log is gone when the source's event is locked, and then nothing is inserted.
_held = (
    select(threads.c.thread_key)
    .where(threads.c.thread_key == _new["thread_key"], threads.c.deleting_since.is_(None))
    .with_for_update(read=True, key_share=True)
    .cte("held")
)
_origin = events.alias("origin")
_source = (
    select(_origin.c.seq)
    .join_from(_held, _origin, _origin.c.thread_key == _held.c.thread_key)
    .where(
        _origin.c.thread_key == _new["thread_key"],
        _origin.c.ns == _new["ns"],
        _origin.c.seq == bindparam("source_seq", type_=BigInteger),
        func.length(_origin.c.payload) > 0,  # neither sealed nor trimmed
    )
    .with_for_update(read=True, key_share=True, of=_origin)
    .cte("source")
)
_has_source = select(_source.c.seq).exists()
_is_fork = and_(select(_before.c.seq).where(_is_behind).exists(), _has_source)


@cache
def _fork(*, several: bool, touches: bool) -> Prepared:
    rows = _several() if several else None
    link = [_new["thread_key"], _new["ns"], _new["seq"], _new["thread_key"], _new["ns"]]
    columns = ["thread_key", "ns", "seq", "source_thread_key", "source_ns", "source_seq"]
    linked = insert(forks).from_select(columns, select(*link, _source.c.seq).where(_is_fork))
    statement = _insert(_is_behind, _has_source, place=_before.c.thread_key, rows=rows)
    statement = statement.add_cte(linked.cte("linked"))
    if touches:
        touched = _touch.where(threads.c.thread_key == _new["thread_key"], _is_fork)
        statement = statement.add_cte(touched.cte("touched"))
    return Prepared(statement)


def fork(conn: Connection, rows: Sequence[Row], touch: Touch | None, source_seq: int) -> bool:
    """As :func:`append` on PostgreSQL, where the first event is a fork within its own log.

    False also if the source's event is sealed or trimmed. Then append it, and record the fork
    with :func:`eventstore.queries.forks.insert_fork`, which knows why.
    """
    several = len(rows) > 1
    given = {**rows[0], **(_arrays(rows) if several else {}), "source_seq": source_seq}
    if touch is not None:
        given |= touch.values
    statement = _fork(several=several, touches=touch is not None)
    return statement(conn, given).changed == len(rows)


def _arrays(rows: Sequence[Row]) -> dict[str, list[Any]]:
    return {f"all_{name}": [row[f"new_{name}"] for row in rows] for name in _VARYING}
