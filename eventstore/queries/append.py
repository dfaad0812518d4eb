"""Append events to a log: directly after the event that the writer knows, or not at all.

On PostgreSQL an append and the change of the thread's status are one statement, which commits by
itself: one round trip in place of three or more to begin, insert and commit. Promises that a
second writer, a deleted thread and a log that was deleted and begun anew are all refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import (
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
from sqlalchemy.dialects.postgresql import ARRAY

from eventstore.db.schema import events, secrets, threads, tombstones
from eventstore.queries.tombstones import ERASURE

Row = Mapping[str, Any]

HIDDEN_ROWS: Final = 64
"""Rows after the last event of a log that an append looks at on SQLite. Each costs some 50 ns, and
there are none if nobody appended to another log since."""

_key: Any = bindparam("key")
_new = {c.key: bindparam(f"new_{c.key}", type_=c.type) for c in events.c}
_before = events.alias("before")
_is_behind = and_(
    _before.c.thread_key == _new["thread_key"],
    _before.c.ns == _new["ns"],
    _before.c.seq == _new["seq"] - 1,
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
_columns = list(events.c)
_BEGIN = (
    insert(events)
    .from_select(_columns, select(*_new.values()).where(_is_unused))
    .returning(events.c.seq)
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
_CONTINUE = (
    insert(events)
    .from_select(
        _columns, select(*_new.values()).select_from(_before).where(_is_behind, _hides_nothing)
    )
    .returning(events.c.seq)
)
_APPEND_MORE = insert(events).values(_new)
_status: Any = bindparam("new_status", type_=threads.c.status.type)
_touch = update(threads).values(
    status=func.coalesce(_status, threads.c.status),
    owner=case(
        (_status.is_(None), threads.c.owner),
        else_=bindparam("new_owner", type_=threads.c.owner.type),
    ),
    active_at=bindparam("now"),
)
_TOUCH = _touch.where(threads.c.thread_key == _key)


class Touch(NamedTuple):
    """What an append changes about its thread.

    Attributes:
        status: ``None`` leaves status and owner unchanged.
        owner: the run that goes on, if one does.
    """

    status: str | None
    owner: str | None
    active_us: int

    @property
    def values(self) -> dict[str, Any]:
        """Parameters of the statement."""
        return {"new_status": self.status, "new_owner": self.owner, "now": self.active_us}


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
    if conn.dialect.name == "postgresql" and rows[0]["new_seq"] > 1:
        return _append_at_once(conn, rows, touch)
    if rows[0]["new_seq"] > 1:
        first = conn.execute(_CONTINUE, rows[0]).first()
    else:
        first = conn.execute(_BEGIN, {**rows[0], "tombstone_key": tombstone_key}).first()
    if first is None:
        return False
    if len(rows) > 1:
        conn.execute(_APPEND_MORE, rows[1:])
    if touch is not None:
        key = rows[0]["new_thread_key"]
        conn.execute(_TOUCH, {"key": key, **touch.values})
    return True


# --- the same as one statement ----------------------------------------------------------

_VARYING = ("seq", "kind", "key", "recorded_at", "digest", "payload")
"""Columns that differ between the rows of an append."""


def _appended(source: Any, condition: Any) -> Any:
    """Insert the rows of ``source`` if the condition is true."""
    values = [getattr(source.c, c.key) if c.key in _VARYING else _new[c.key] for c in _columns]
    return (
        insert(events)
        .from_select(_columns, select(*values).select_from(source).where(condition))
        .returning(events.c.seq)
        .cte("appended")
    )


def _counted(appended: Any, *others: Any) -> Any:
    statement = select(func.count()).select_from(appended)
    return statement.add_cte(*others) if others else statement


def _continue(source: Any, *, touches: bool) -> Any:
    appended = _appended(source, select(_before.c.seq).where(_is_behind).exists())
    if not touches:
        return _counted(appended)
    is_new = select(appended.c.seq).exists()
    touched = _touch.where(threads.c.thread_key == _new["thread_key"], is_new).cte("touched")
    return _counted(appended, touched)


def _begin(source: Any) -> Any:
    row = [bindparam(f"row_{c.key}", type_=c.type) for c in threads.c]
    made = (
        insert(threads)
        .from_select(list(threads.c), select(*row).where(_is_surely_unused))
        .returning(threads.c.thread_key)
        .cte("made")
    )
    return _counted(_appended(source, select(made.c.thread_key).exists()))


def _one() -> Any:
    return select(*(_new[name].label(name) for name in _VARYING)).subquery("one")


def _several() -> Any:
    columns = [events.c[name] for name in _VARYING]
    arrays = [bindparam(f"all_{c.key}", type_=ARRAY(c.type)) for c in columns]
    return func.unnest(*arrays).table_valued(*columns, name="several").render_derived()


_AT_ONCE = {
    (several, touches): _continue(_several() if several else _one(), touches=touches)
    for several in (False, True)
    for touches in (False, True)
}
_BEGIN_AT_ONCE = {True: _begin(_several()), False: _begin(_one())}
_MAKE = (
    insert(threads)
    .from_select(
        list(threads.c),
        select(*(bindparam(f"row_{c.key}", type_=c.type) for c in threads.c)).where(
            _is_surely_unused
        ),
    )
    .returning(threads.c.thread_key)
)


def begin(conn: Connection, thread: Row, rows: Sequence[Row]) -> bool:
    """Make a thread under the first key of its name, with its first events.

    Returns false if a deleted thread had that key, or if erasures make that uncertain; the primary
    key refuses a key that is in use. Then call :func:`eventstore.queries.threads.create_thread`.
    """
    given = {**rows[0], **{f"row_{name}": value for name, value in thread.items()}}
    if conn.dialect.name == "postgresql":
        several = len(rows) > 1
        if several:
            given |= _arrays(rows)
        return conn.execute(_BEGIN_AT_ONCE[several], given).scalar() == len(rows)
    if conn.execute(_MAKE, given).first() is None:
        return False
    conn.execute(_APPEND_MORE, rows if len(rows) > 1 else rows[0])
    return True


def _arrays(rows: Sequence[Row]) -> dict[str, list[Any]]:
    return {f"all_{name}": [row[f"new_{name}"] for row in rows] for name in _VARYING}


def _append_at_once(conn: Connection, rows: Sequence[Row], touch: Touch | None) -> bool:
    several, touches = len(rows) > 1, touch is not None
    given = {**rows[0], **_arrays(rows)} if several else dict(rows[0])
    if touch is not None:
        given |= touch.values
    return conn.execute(_AT_ONCE[several, touches], given).scalar() == len(rows)
