"""Threads: finding and listing them, and changing what is recorded about one.

A full scan iterates in the order of thread keys, which never change, so that it can be split into
slices and continued where it stopped. Changes are made under the lock of the thread's row.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Self, TypeVar

from eventstore import queries
from eventstore.core.part import Part
from eventstore.errors import (
    ConfigurationError,
    CorruptEventError,
    ThreadNotFoundError,
)
from eventstore.format import digests, records
from eventstore.format.checks import metadata_text
from eventstore.limits import TTL_MAX, check_name, check_number, check_type, seconds_of, shown
from eventstore.models import (
    RUNTIME,
    STATUSES,
    Branch,
    Position,
    SqlRow,
    Status,
    ThreadDamage,
    ThreadInfo,
    check_at,
    check_status,
    to_micros,
)
from eventstore.queries import Connection
from eventstore.retention_models import Tombstone

_TTL_S_MAX: Final = int(TTL_MAX.total_seconds())

log = logging.getLogger(__name__)

T = TypeVar("T")

SCAN_PAGE_MIN: Final = 64
"""Rows of threads read at once by a scan, so that a single damaged key leads nobody astray."""

OnDamage = Callable[[ThreadDamage], object]
"""Called with a thread whose row is damaged."""


class Threads(Part):
    """Finds threads, and changes what is recorded about them."""

    def for_tenant(self, tenant: str) -> Self:
        """The same store for the threads of another tenant; everything else is shared."""
        twin = copy.copy(self)
        twin.tenant = check_name("a tenant", tenant)
        return twin

    # --- one thread ---------------------------------------------------------------------

    async def thread(self, thread_id: str) -> ThreadInfo:
        """What is known about one thread.

        Raises:
            ThreadNotFoundError: no such thread.
        """

        def look_up(conn: Connection) -> SqlRow | None:
            found = queries.threads.look_up(conn, self.tenant, thread_id, "")
            return found and queries.threads.thread_by_key(conn, found.thread_key)

        row = await self.transactions.run("read", look_up)
        if row is None:
            raise ThreadNotFoundError(thread_id, self.tenant)
        return records.thread_info(row)

    async def thread_at(self, thread_key: int) -> ThreadInfo | None:
        """The thread of this tenant stored under a key, unless it is being deleted."""
        if type(thread_key) is not int or thread_key.bit_length() > 63:
            check_number("thread_key", thread_key)
        row = await self.transactions.run("read", queries.threads.thread_by_key, thread_key)
        if row is None or row.tenant != self.tenant or row.deleting_since is not None:
            return None
        return records.thread_info(row)

    async def last_recorded_us(self, thread_id: str) -> int:
        """When the newest event of any log of a thread was recorded; 0 when it has none.

        A run that works in one log for long leaves the others unchanged: this tells whether
        anything in the thread is alive.
        """

        def look_up(conn: Connection) -> int:
            found = queries.threads.look_up(conn, self.tenant, thread_id, "")
            return queries.threads.last_recorded(conn, found.thread_key) if found else 0

        return await self.transactions.run("read", look_up)

    async def namespaces(self, thread_id: str) -> list[str]:
        """The logs of a thread that have events, including those given to it as a fork.

        Raises:
            ThreadNotFoundError: no such thread.
        """

        def look_up(conn: Connection) -> list[str]:
            key = self.key_of(conn, thread_id)
            return list(queries.events.ends(conn, key))

        return await self.transactions.run("read", look_up)

    async def descendants(self, thread_id: str) -> list[ThreadInfo]:
        """The threads that hold bytes of this one or refer to them, in the order of their keys.

        Forks and forks of forks, and threads that were given the bytes they need of it. A fork
        whose history was trimmed past the place where it was forked is not found, nor a thread
        that was given only a snapshot of a fork in between, although their states may contain
        data of this thread: nothing that is stored says so any more.

        Raises:
            ThreadNotFoundError: no such thread.
        """

        def look_up(conn: Connection) -> list[SqlRow]:
            keys = queries.forks.descendants(conn, self.key_of(conn, thread_id))
            rows = (queries.threads.thread_by_key(conn, key) for key in sorted(keys))
            return [row for row in rows if row is not None and row.deleting_since is None]

        return [records.thread_info(row) for row in await self.transactions.run("read", look_up)]

    async def branches(self, thread_id: str) -> list[Branch]:
        """The forks of a thread: its own root log's, oldest first, then those of threads that
        were forked from it, in the order of their keys.

        Raises:
            ThreadNotFoundError: no such thread.
        """

        def look_up(conn: Connection) -> list[Branch]:
            key, names = self.key_of(conn, thread_id), dict[int, str | None]()

            def name(of: int) -> str | None:
                if of not in names:
                    row = queries.threads.thread_by_key(conn, of)
                    names[of] = None
                    if row is not None and row.deleting_since is None:
                        names[of] = row.thread_id if row.tenant == self.tenant else None
                return names[of]

            rows = [
                *queries.forks.forks_of(conn, key, ""),
                *queries.forks.all_dependants(conn, key),
            ]
            found = []
            for row in rows:
                branched = name(row.thread_key)
                origin = digests.origin(row.source_thread_key, row.source_ns)
                source = Position(*origin, row.source_seq)
                if branched is not None:
                    at = Position(row.thread_key, row.ns, row.seq)
                    found.append(Branch(branched, at, source, name(source.thread_key)))
            return found

        return await self.transactions.run("read", look_up)

    async def fingerprints(self, at: Position) -> list[str]:
        """The fingerprints of the snapshots of a log up to a position, the newest first."""
        check_at("at", at)
        rows = await self.transactions.run(
            "read", queries.snapshots.snapshots_of, at.thread_key, at.ns
        )
        newest_first = (row.fingerprint for row in reversed(rows) if row.seq <= at.seq)
        return list(dict.fromkeys(newest_first))

    async def stored(self, found: Sequence[ThreadInfo]) -> dict[int, tuple[int, int]]:
        """How many events each of some threads has, and their stored bytes, by ``thread_key``."""
        check_type("found", found, Sequence)
        for each in found:
            check_type("a thread", each, ThreadInfo)

        def look_up(conn: Connection) -> dict[int, tuple[int, int]]:
            keys = [info.thread_key for info in found]
            return {key: queries.events.totals(conn, key)[:2] for key in keys}

        return await self.transactions.run("read", look_up)

    def key_of(self, conn: Connection, thread_id: str) -> int:
        """The key of a thread of this tenant.

        Raises:
            ThreadNotFoundError: no such thread.
        """
        row = queries.threads.look_up(conn, self.tenant, thread_id, "")
        if row is None:
            raise ThreadNotFoundError(thread_id, self.tenant)
        return int(row.thread_key)

    # --- changing it --------------------------------------------------------------------

    async def set_thread(self, /, thread_id: str, **values: Any) -> ThreadInfo:
        """Change ``metadata``, ``status``, ``ttl`` (seconds or ``None``) or ``pinned``.

        The metadata ``runtime``, which says what writes the thread, stays unless it is given.

        Raises:
            ThreadNotFoundError: no such thread.
            ConfigurationError: something else was given.
        """
        stored = _thread_values(values)
        if "metadata" in values:
            before = (await self.thread(thread_id)).metadata
            kept = {name: before[name] for name in (RUNTIME,) if name in before}
            stored["metadata"] = metadata_text({**kept, **values["metadata"]})
        return await (self._change(thread_id, stored) if stored else self.thread(thread_id))

    async def pin(self, thread_id: str, reason: str, by: str) -> ThreadInfo:
        """Keep a thread whatever any policy says, until :meth:`unpin` (a legal hold, say).

        When it returns, no sweep prunes the thread any more: every decision to delete a thread
        checks this under the same lock.

        Raises:
            ThreadNotFoundError: no such thread, or it is being deleted.
            ConfigurationError: the reason or the name of who asks is empty.
        """
        return await self._change(thread_id, records.pinned(reason, by, self.now_us()))

    async def unpin(self, thread_id: str) -> ThreadInfo:
        """Let policies decide about a thread again.

        Raises:
            ThreadNotFoundError: no such thread.
        """
        return await self._change(thread_id, {"pinned": False, "pin": None})

    async def set_ttl(self, thread_id: str, ttl: timedelta | None) -> ThreadInfo:
        """Give a thread its own time to live (whole seconds, rounded up); ``None``: its policy's.

        Raises:
            ThreadNotFoundError: no such thread.
        """
        return await self._change(thread_id, {"ttl": stored_ttl(ttl)})

    async def _change(self, thread_id: str, values: Mapping[str, Any]) -> ThreadInfo:
        """Change columns of a thread's row; the thread after it."""

        def change(conn: Connection) -> SqlRow:
            found = queries.threads.look_up(conn, self.tenant, thread_id, "")
            row = found and queries.listing.update_thread(conn, found.thread_key, values)
            if row is None:
                raise ThreadNotFoundError(thread_id, self.tenant)
            return row

        return records.thread_info(await self.transactions.run("idempotent_write", change))

    # --- lists --------------------------------------------------------------------------

    async def threads(
        self,
        *,
        status: Status | None = None,
        prefix: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        active_since: datetime | None = None,
        active_until: datetime | None = None,
        pinned: bool | None = None,
        after: ThreadInfo | tuple[datetime, int] | None = None,
        limit: int = 100,
        on_damage: OnDamage | None = None,
    ) -> list[ThreadInfo]:
        """One page of this tenant's threads, the most recently active first.

        The pages list no thread twice. A thread that becomes active after the first page moves
        to the front, and the pages that follow do not list it: they are for people, who look at
        the first ones. To miss no thread, begin again, or export all (``eventstore export``).

        A thread whose row is damaged is left out, and named in an error of the log.

        Args:
            status, prefix, metadata: only threads with this status, whose id begins with this
                prefix, whose metadata has these values at its top level.
            active_since, active_until: only threads whose last append was in this time, to the
                minute.
            pinned: only threads that are pinned, or are not.
            after: the last thread of the page before, or its ``active_at`` and ``thread_key``.
            limit: threads in a page.
            on_damage: called with each thread that is left out, in place of logging it.
        """
        check_limit(limit)
        if metadata is not None:
            check_type("metadata", metadata, Mapping)
        place = None if after is None else _place(after)
        if status is not None:
            check_status(status)
        if prefix is not None:
            check_name("a prefix", prefix)
        if pinned is not None:
            check_type("pinned", pinned, bool)
        since = None if active_since is None else to_micros(active_since, "active_since")
        until = None if active_until is None else to_micros(active_until, "active_until")
        found: list[ThreadInfo] = []
        while True:
            rows = await self.transactions.run(
                "read",
                queries.listing.list_threads,
                self.tenant,
                status=status,
                prefix=prefix,
                metadata=metadata or {},
                active_since=since,
                active_until=until,
                pinned=pinned,
                after=place,
                limit=limit,
            )
            found += _sound(rows, on_damage)
            if len(found) >= limit or len(rows) < limit:
                return found[:limit]
            place = (rows[-1].active_at, rows[-1].thread_key)

    async def thread_counts(self) -> dict[str, int]:
        """How many threads this tenant has, by status."""
        return await self.transactions.run("read", queries.listing.count_threads, self.tenant)

    async def tenants(self) -> list[str]:
        """Every tenant that has a thread in this database, in order."""
        return await self.transactions.run("read", queries.listing.tenants)

    async def scan(
        self,
        *,
        first: int = 0,
        last: int = 2**63 - 1,
        after: int | None = None,
        limit: int = 1000,
        all_tenants: bool = False,
        idle_before: datetime | None = None,
        created_before: datetime | None = None,
        with_ttl: bool = False,
        on_damage: OnDamage | None = None,
    ) -> list[ThreadInfo]:
        """One page of threads in the order of their keys, which never change.

        A thread whose row is damaged is left out, and named in an error of the log.

        Args:
            first, last: only keys in this range.
            after: the key of the last thread of the page before.
            limit: threads in a page; an empty page means that there are no more.
            all_tenants: the threads of all tenants, not only of this one.
            idle_before, created_before, with_ttl: only threads that, to the minute, have had no
                append since; or that are that old; or that have a ttl of their own. Of several,
                one is enough.
            on_damage: called with each thread that is left out, in place of logging it.
        """
        check_limit(limit)
        for what, number in (("first", first), ("last", last), ("after", after)):
            if number is not None:
                check_number(what, number)
        behind = first - 1 if after is None else max(first - 1, after)
        page = max(limit, SCAN_PAGE_MIN)
        while True:
            rows = await self.transactions.run(
                "read",
                queries.listing.scan,
                None if all_tenants else self.tenant,
                after=behind,
                last=last,
                idle_before=None if idle_before is None else to_micros(idle_before, "idle_before"),
                created_before=None
                if created_before is None
                else to_micros(created_before, "created_before"),
                with_ttl=with_ttl,
                limit=page,
            )
            found = [each for each in _sound(rows, on_damage) if each.thread_key > behind]
            if found or len(rows) < page:
                return found[:limit]
            # A page of damaged rows only is not the end.
            if not rows[-1].thread_key > behind:
                raise CorruptEventError(
                    "the table of threads is not in the order of its keys; run eventstore verify"
                )
            behind = rows[-1].thread_key

    async def tombstones(self, limit: int = 100, after: Tombstone | None = None) -> list[Tombstone]:
        """One page of what is kept of this tenant's deleted threads, the last deleted first.

        Args:
            after: the last one of the page before.
        """
        check_limit(limit)
        if after is not None:
            check_type("after", after, Tombstone)
        place = None if after is None else (to_micros(after.deleted_at), after.thread_key)
        rows = await self.transactions.run(
            "read", queries.listing.list_tombstones, self.tenant, place, limit
        )
        return list(sound_records(rows, records.tombstone))


def sound_records(rows: Sequence[SqlRow], decoded: Callable[[SqlRow], T]) -> Iterator[T]:
    """What rows say; damaged ones are left out and logged."""
    for row in rows:
        try:
            yield decoded(row)
        except CorruptEventError as error:
            log.error("left out of the list: %s", error, extra={"thread_id": error.thread_id})


def _place(after: ThreadInfo | tuple[datetime, int]) -> tuple[int, int]:
    """Where a page of threads begins: behind this one."""
    if isinstance(after, ThreadInfo):
        return to_micros(after.active_at), after.thread_key
    check_type("after", after, tuple)
    if len(after) != 2:
        raise ConfigurationError(f"after must be (active_at, thread_key), not {shown(after)}")
    active_at, key = after
    return to_micros(active_at, "after"), check_number("thread_key", key)


def check_limit(limit: int) -> None:
    """Refuse an empty page."""
    check_number("limit", limit, 1)


def _sound(rows: Sequence[SqlRow], on_damage: OnDamage | None) -> list[ThreadInfo]:
    """The threads of rows; damaged ones are left out and reported, so that the others show."""
    found = []
    for row in rows:
        try:
            found.append(records.thread_info(row))
        except CorruptEventError as error:
            damage = ThreadDamage(row.thread_key, row.tenant, row.thread_id, str(error))
            (on_damage or log_damage)(damage)
    return found


def log_damage(damage: ThreadDamage) -> None:
    """Report a damaged row to the log."""
    log.error(
        "left out of the list: %s",
        damage.problem,
        extra={"tenant": damage.tenant, "thread_id": damage.thread_id},
    )


def _thread_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that ``set_thread`` changes, checked."""
    checks: dict[str, tuple[Callable[[Any], bool], str]] = {
        "metadata": (lambda value: isinstance(value, Mapping), "a mapping"),
        "status": (lambda value: value in STATUSES, f"one of {', '.join(STATUSES)}"),
        "ttl": (
            lambda value: value is None or (type(value) is int and 0 <= value <= _TTL_S_MAX),
            f"whole seconds up to {TTL_MAX.days} days, or None",
        ),
        "pinned": (lambda value: type(value) is bool, "True or False"),
    }
    for name, value in values.items():
        if name not in checks:
            raise ConfigurationError(f"a thread has no {name!r}; it has {', '.join(checks)}")
        fits, expected = checks[name]
        if not fits(value):
            raise ConfigurationError(f"{name} must be {expected}, not {shown(value)}")
    stored = dict(values)
    if "metadata" in values:
        stored["metadata"] = metadata_text(values["metadata"])
    if values.get("pinned") is False:
        stored["pin"] = None
    return stored


def stored_ttl(ttl: timedelta | None) -> int | None:
    """A time to live as it is stored: whole seconds, rounded up."""
    return None if ttl is None else seconds_of("ttl", ttl)
