"""Which threads hold bytes of another one, or refer to them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, bindparam, func, or_, select

from eventstore.db.schema import forks
from eventstore.format import digests
from eventstore.models import Position
from eventstore.queries.lineage import trace

_key: Any = bindparam("key")
_prefix: Any = bindparam("prefix", type_=forks.c.ns.type)
_CHILDREN = select(forks).where(forks.c.source_thread_key == _key, forks.c.thread_key != _key)
_size = func.length(_prefix)
_GIVEN = (
    select(forks.c.thread_key)
    .where(
        forks.c.thread_key != _key,
        or_(
            func.substr(forks.c.source_ns, 1, _size) == _prefix,
            func.substr(forks.c.ns, 1, _size) == _prefix,
        ),
    )
    .distinct()
)


def descendants(conn: Connection, thread_key: int) -> set[int]:
    """Keys of the threads whose history leads into this one.

    Its forks; threads that were given bytes of it, or of a fork of it that is gone; and their
    forks in turn, if they were made behind the place where it came in. A thread whose history
    before a base is gone tells nothing of what was before, and what was forked from behind
    that base counts as a descendant of all that its source descends from.
    """
    given = {"key": thread_key, "prefix": digests.prefix_ns(thread_key, "")}
    found = set(conn.execute(_GIVEN, given).scalars())
    todo = [thread_key, *found]
    while todo:
        for link in conn.execute(_CHILDREN, {"key": todo.pop()}).fetchall():
            source = Position(link.source_thread_key, link.source_ns, link.source_seq)
            if link.thread_key not in found and _leads_into(conn, source, thread_key):
                found.add(link.thread_key)
                todo.append(link.thread_key)
    return found - {thread_key}


def _leads_into(conn: Connection, at: Position, thread_key: int) -> bool:
    """Whether what leads to a position begins with, or goes through, events of a thread."""
    route = trace(conn, at, None)
    if route.snapshot is not None:
        return True
    return any(digests.origin(span.thread_key, span.ns)[0] == thread_key for span in route.spans)
