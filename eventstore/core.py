"""Everything an event store can do, as coroutines over a transactor: its parts in one.

Reading, appending, removal and inspection are parts in modules of their own; here are only
the list of threads and what is said about each. Nobody calls this but the two shells
(:mod:`eventstore.store`, :mod:`eventstore.async_store`), whose docstrings say what each
operation means, and ``graph``, which composes operations.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, get_args

from eventstore import listing, operations, records
from eventstore.appending import Appending, json_text
from eventstore.errors import ConfigurationError, CorruptEventError, ThreadNotFoundError
from eventstore.events import Status, ThreadInfo, to_micros
from eventstore.inspection import Inspection
from eventstore.removal import Removal

if TYPE_CHECKING:
    from sqlalchemy import Connection

log = logging.getLogger(__name__)


class Core(Appending, Removal, Inspection):
    """The operations of an event store, written once."""

    async def threads(
        self,
        *,
        status: Status | None = None,
        prefix: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        after: ThreadInfo | None = None,
        limit: int = 100,
    ) -> list[ThreadInfo]:
        """One page of this tenant's threads, the most recently active first."""
        if limit < 1:
            raise ConfigurationError(f"limit must be at least 1, not {limit}")
        if prefix is not None:
            records.name("a prefix", prefix)
        place = None if after is None else (to_micros(after.active_at), after.thread_key)
        rows = await self.transactor.read(
            listing.list_threads,
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
                log.error(
                    "left out of the list: %s",
                    error,
                    extra={"tenant": self.tenant, "thread_id": row.thread_id},
                )
        return found

    async def thread_counts(self) -> dict[str, int]:
        """How many threads this tenant has, by status."""
        return await self.transactor.read(listing.count_threads, self.tenant)

    async def set_thread(self, thread_id: str, **values: Any) -> ThreadInfo:
        """Change ``metadata``, ``status``, ``ttl`` (seconds or ``None``) or ``pinned``."""
        stored = _thread_values(values)

        def change(conn: Connection) -> None:
            row = operations.look_up(conn, self.tenant, thread_id, "")
            if row is None:
                raise ThreadNotFoundError(thread_id, self.tenant)
            if stored:
                listing.update_thread(conn, row.thread_key, stored)

        await self.transactor.write_again(change)
        return await self.thread(thread_id)


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
