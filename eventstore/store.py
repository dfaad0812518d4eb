"""The event store as applications use it: reading, appending, removal, inspection in one.

Each of these is a part in a module of its own, over the same open database; here are only
the list of threads and what is said about each.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, get_args

from eventstore import listing, operations, records
from eventstore.appending import Appending, json_text
from eventstore.errors import ConfigurationError, CorruptEventError, ThreadNotFoundError
from eventstore.events import Status, ThreadInfo, to_micros
from eventstore.inspection import Inspection
from eventstore.removal import Removal

log = logging.getLogger(__name__)


class EventStore(Appending, Removal, Inspection):
    """An append-only log of events per thread, in SQLite or another SQL database.

    Args:
        target: a path (``"runs.db"``), ``":memory:"``, a SQLAlchemy URL, an ``Engine``, or a
            ``sqlite3.Connection``. What the caller made is never closed.
        tenant: threads of one tenant are not seen by another.
        durability: ``"full"`` survives power loss, ``"normal"`` any crash of the process.
        codec: turns values into bytes and back; register application types on it.
        clock: tells the time, timezone-aware.

    Raises:
        ConfigurationError: the target cannot be opened.
        SchemaVersionError: the database was written by a newer version.

    Safe to share between threads of a process; other processes open the same file.
    """

    def threads(
        self,
        *,
        status: Status | None = None,
        prefix: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        after: ThreadInfo | None = None,
        limit: int = 100,
    ) -> list[ThreadInfo]:
        """One page of this tenant's threads, the most recently active first.

        Args:
            status, prefix, metadata: only threads that have this status, whose id begins
                like this, whose metadata has these values at its top level.
            after: the last thread of the page before.
            limit: threads in a page.
        """
        if limit < 1:
            raise ConfigurationError(f"limit must be at least 1, not {limit}")
        if prefix is not None:
            records.name("a prefix", prefix)
        place = None if after is None else (to_micros(after.active_at), after.thread_key)
        with self._read() as conn:
            rows = listing.list_threads(
                conn,
                self.tenant,
                status=status,
                prefix=prefix,
                metadata=metadata or {},
                after=place,
                limit=limit,
            )
        found = []
        for row in rows:
            try:
                found.append(records.thread_info(row))
            except CorruptEventError as error:  # the others are to be seen all the same
                log.error("left out of the list: %s", error)
        return found

    def set_thread(self, thread_id: str, **values: Any) -> ThreadInfo:
        """Change ``metadata``, ``status``, ``ttl`` (seconds or ``None``) or ``pinned``.

        Raises:
            ThreadNotFoundError: no such thread.
            ConfigurationError: something else was given.
        """
        stored = _thread_values(values)
        with self._write() as conn:
            row = operations.look_up(conn, self.tenant, thread_id, "")
            if row is None:
                raise ThreadNotFoundError(thread_id, self.tenant)
            if stored:
                listing.update_thread(conn, row.thread_key, stored)
        return self.thread(thread_id)


def _thread_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """What ``set_thread`` was given, if it makes sense."""
    checks: dict[str, tuple[Callable[[Any], bool], str]] = {
        "metadata": (lambda value: isinstance(value, Mapping), "a mapping"),
        "status": (lambda value: value in get_args(Status), f"one of {get_args(Status)}"),
        "ttl": (
            lambda value: value is None or (type(value) is int and 0 <= value < 2**53),
            "seconds as a whole number, or None",
        ),
        "pinned": (lambda value: type(value) is bool, "True or False"),
    }
    for name, value in values.items():
        if name not in checks:
            raise ConfigurationError(f"a thread has no {name!r}; it has {', '.join(checks)}")
        fits, expected = checks[name]
        if not fits(value):
            raise ConfigurationError(f"{name} must be {expected}, not {value!r:.80}")
    stored = dict(values)
    if "metadata" in values:
        stored["metadata"] = json_text(values["metadata"])
    return stored
