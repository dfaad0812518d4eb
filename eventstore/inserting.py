"""How events get into a log: behind the event that their writer knows, or not at all.

Operations over a connection, as in :mod:`eventstore.operations`. On PostgreSQL an append and
the change of status that goes with it are one statement, which commits by itself: one round
trip, where beginning, inserting and committing take three and more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    and_,
    bindparam,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY

from eventstore.schema import events, threads, tombstones

Row = Mapping[str, Any]

_key: Any = bindparam("key")
_new = {c.name: bindparam(f"new_{c.name}", type_=c.type) for c in events.c}
_behind = or_(
    # A first event, unless of a thread that was made and deleted before anyone looked: keys
    # are for one life only.
    and_(
        _new["seq"] == 1,
        ~select(tombstones.c.life).where(tombstones.c.thread_key == _new["thread_key"]).exists(),
    ),
    select(events.c.digest)
    .where(
        events.c.thread_key == _new["thread_key"],
        events.c.ns == _new["ns"],
        events.c.seq == _new["seq"] - 1,
        events.c.digest == bindparam("previous"),
    )
    .exists(),
)
_APPEND = (
    insert(events)
    .from_select(list(events.c), select(*_new.values()).where(_behind))
    .returning(events.c.seq)
)
_APPEND_MORE = insert(events).values(_new)
_touch = update(threads).values(status=bindparam("new_status"), active_at=bindparam("now"))
_TOUCH = _touch.where(threads.c.thread_key == _key)


class Touch(NamedTuple):
    """What an append changes about its thread."""

    status: str
    active_us: int


def append(conn: Connection, rows: Sequence[Row], touch: Touch | None) -> bool:
    """Insert rows behind the event whose digest the first continues; false if it is not there.

    The primary key refuses a second writer, the foreign key a thread that is gone, and the
    digest a log that has been deleted and begun anew since the writer looked.
    """
    if conn.dialect.name == "postgresql":
        return _append_at_once(conn, rows, touch)
    if conn.execute(_APPEND, rows[0]).first() is None:
        return False
    if len(rows) > 1:
        conn.execute(_APPEND_MORE, rows[1:])
    if touch is not None:
        key = rows[0]["new_thread_key"]
        conn.execute(_TOUCH, {"key": key, "new_status": touch.status, "now": touch.active_us})
    return True


# --- the same as one statement ----------------------------------------------------------

_VARYING = ("seq", "kind", "key", "digest", "payload")
"""Columns that differ between the rows of an append."""


def _at_once(source: Any, *, touches: bool) -> Any:
    values = [getattr(source.c, c.name) if c.name in _VARYING else _new[c.name] for c in events.c]
    appended = (
        insert(events)
        .from_select(list(events.c), select(*values).where(_behind))
        .returning(events.c.seq)
        .cte("appended")
    )
    statement = select(func.count()).select_from(appended)
    if touches:
        is_new = select(appended.c.seq).exists()
        touched = _touch.where(threads.c.thread_key == _new["thread_key"], is_new).cte("touched")
        statement = statement.add_cte(touched)
    return statement


def _one() -> Any:
    return select(*(_new[name].label(name) for name in _VARYING)).subquery("one")


def _several() -> Any:
    columns = [events.c[name] for name in _VARYING]
    arrays = [bindparam(f"all_{c.name}", type_=ARRAY(c.type)) for c in columns]
    return func.unnest(*arrays).table_valued(*columns, name="several").render_derived()


_ONE = {touches: _at_once(_one(), touches=touches) for touches in (False, True)}
_SEVERAL = {touches: _at_once(_several(), touches=touches) for touches in (False, True)}


def _append_at_once(conn: Connection, rows: Sequence[Row], touch: Touch | None) -> bool:
    given = dict(rows[0])
    statements = _ONE
    if len(rows) > 1:
        statements = _SEVERAL
        given |= {f"all_{name}": [row[f"new_{name}"] for row in rows] for name in _VARYING}
    if touch is not None:
        given |= {"new_status": touch.status, "now": touch.active_us}
    return conn.execute(statements[touch is not None], given).scalar() == len(rows)
