"""What retention asks of a store: what may go, what must stay, and removing what is over.

Decisions about a thread are taken under the lock of its row. Who goes over all threads does so
in the order of their keys, which never change, so that the way can be cut in slices and taken
up again where it was left.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Self

from eventstore import queries
from eventstore.core.append import seconds as stored_ttl
from eventstore.core.read import Reading
from eventstore.db import maintenance
from eventstore.errors import ConfigurationError, CorruptEventError, ThreadNotFoundError
from eventstore.format import records
from eventstore.models import SqlRow, ThreadInfo, to_micros
from eventstore.queries import Connection
from eventstore.retention_models import Deletion, Expired, Outcome, Tombstone

log = logging.getLogger(__name__)

GROUP: Final = 8
"""Threads that are locked, looked at and removed together; the time is looked at in between."""


class Retaining(Reading):
    """What a store does for whoever decides what may be forgotten."""

    def for_tenant(self, tenant: str) -> Self:
        """The same for the threads of another tenant; everything else is shared."""
        twin = copy.copy(self)
        twin.tenant = records.name("a tenant", tenant)
        return twin

    # --- what is said about a thread ----------------------------------------------------

    async def pin(self, thread_id: str, reason: str, by: str) -> ThreadInfo:
        """Keep a thread whatever any policy says."""
        return await self.change_thread(thread_id, records.pinned(reason, by, self.now_us()))

    async def unpin(self, thread_id: str) -> ThreadInfo:
        """Let policies decide about a thread again."""
        return await self.change_thread(thread_id, {"pinned": False, "pin": None})

    async def set_ttl(self, thread_id: str, ttl: timedelta | None) -> ThreadInfo:
        """Give a thread its own time to live, or ``None``: that of its policy."""
        return await self.change_thread(thread_id, {"ttl": stored_ttl(ttl)})

    async def change_thread(self, thread_id: str, values: Mapping[str, Any]) -> ThreadInfo:
        """Change columns of a thread's row; what it says then."""

        def change(conn: Connection) -> SqlRow:
            found = queries.threads.look_up(conn, self.tenant, thread_id, "")
            row = found and queries.listing.update_thread(conn, found.thread_key, values)
            if row is None:
                raise ThreadNotFoundError(thread_id, self.tenant)
            return row

        return records.thread_info(await self.transactions.run("idempotent_write", change))

    # --- what there is ------------------------------------------------------------------

    async def tenants(self) -> list[str]:
        """Every tenant that has a thread, in order."""
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
    ) -> list[ThreadInfo]:
        """One page of threads in the order of their keys."""
        if limit < 1:
            raise ConfigurationError(f"limit must be at least 1, not {limit}")
        behind = first - 1 if after is None else max(first - 1, after)
        while True:
            rows = await self.transactions.run(
                "read",
                queries.listing.scan,
                None if all_tenants else self.tenant,
                after=behind,
                last=last,
                idle_before=None if idle_before is None else to_micros(idle_before),
                created_before=None if created_before is None else to_micros(created_before),
                with_ttl=with_ttl,
                limit=limit,
            )
            found = self.infos(rows)
            if found or len(rows) < limit:
                return found
            behind = rows[-1].thread_key  # a page of nothing but damage is not the end

    def infos(self, rows: Sequence[SqlRow]) -> list[ThreadInfo]:
        """What is known of threads; the damaged ones are left out, and the log says so."""
        found = []
        for row in rows:
            try:
                found.append(records.thread_info(row))
            except CorruptEventError as error:  # the others are to be seen all the same
                log.error(
                    "left out of the list: %s",
                    error,
                    extra={"tenant": row.tenant, "thread_id": row.thread_id},
                )
        return found

    async def descendants(self, thread_id: str) -> list[ThreadInfo]:
        """The threads that hold bytes of this one or refer to them, in the order of their keys."""

        def look(conn: Connection) -> list[SqlRow]:
            found = queries.threads.look_up(conn, self.tenant, thread_id, "")
            if found is None:
                raise ThreadNotFoundError(thread_id, self.tenant)
            keys = queries.ancestry.descendants(conn, found.thread_key)
            rows = (queries.threads.thread_by_key(conn, key) for key in sorted(keys))
            return [row for row in rows if row is not None and row.deleting_since is None]

        return [records.thread_info(row) for row in await self.transactions.run("read", look)]

    async def tombstones(self, limit: int = 100, after: Tombstone | None = None) -> list[Tombstone]:
        """One page of what was removed of this tenant's, the last first."""
        if limit < 1:
            raise ConfigurationError(f"limit must be at least 1, not {limit}")
        place = None if after is None else (to_micros(after.deleted_at), after.thread_key)
        rows = await self.transactions.run(
            "read", queries.listing.list_tombstones, self.tenant, place, limit
        )
        return [records.tombstone(row) for row in rows]

    # --- removing what is over ----------------------------------------------------------

    async def prune(
        self,
        batch: Sequence[Expired],
        *,
        keep_if: Callable[[ThreadInfo], bool] | None = None,
        rows: int = 2000,
        seconds: float = 0.02,
    ) -> list[Outcome]:
        """Remove small threads that may go, as many as fit into one short transaction."""
        keys = [each.thread_key for each in batch]
        if len(set(keys)) < len(keys):
            raise ValueError(f"thread {max(keys, key=keys.count)} is in the batch twice")
        if rows < 1:
            raise ConfigurationError(f"rows must be at least 1, not {rows}")
        former: set[int] = set()  # as far as we know: a commit may be in doubt

        def sweep(conn: Connection) -> list[Outcome]:
            outcomes: list[Outcome] = []
            left, stop_at = rows, time.monotonic() + seconds
            for first in range(0, len(batch), GROUP):
                group = batch[first : first + GROUP]
                ends, used = self._prune(conn, group, former, keep_if, (left, rows))
                outcomes += ends
                left -= used
                if len(ends) < len(group) or time.monotonic() >= stop_at:
                    break
            return outcomes

        outcomes = await self.transactions.run("idempotent_write", sweep)
        for each, outcome in zip(batch, outcomes, strict=False):
            if outcome == "pruned":
                self.cache.forget(each.thread_key)
        return outcomes

    def _prune(
        self,
        conn: Connection,
        group: Sequence[Expired],
        former: set[int],
        keep_if: Callable[[ThreadInfo], bool] | None,
        room: tuple[int, int],
    ) -> tuple[list[Outcome], int]:
        """Prune those of a group for which there is room; how each ended, and the rows it took.

        Stops at the first that is small enough for a transaction, but not for what is left.
        """
        left, most = room
        held = queries.prune.hold(conn, [each.thread_key for each in group])
        busy = queries.prune.there(conn, [e.thread_key for e in group if e.thread_key not in held])
        weights = queries.prune.weigh(conn, list(held))
        outcomes: list[Outcome] = []
        doomed: dict[int, queries.prune.Weight] = {}
        tombstones = []
        for each in group:
            key = each.thread_key
            row, weight = held.get(key), weights[key]
            if row is None:
                outcomes.append(
                    "pruned" if key in former and key not in busy else _absent(key, busy)
                )
                continue
            if _must_stay(each, row, weight, keep_if):
                outcomes.append("kept")
                continue
            if weight.needed or weight.total > most:
                outcomes.append("large")
                continue
            if weight.total > left:
                break
            left -= weight.total
            doomed[key] = weight
            deletion = Deletion(each.reason, each.policy, events=weight.events, bytes=weight.bytes)
            tombstones.append(records.tombstone_row(row, deletion, self.now_us(), None))
            outcomes.append("pruned")
        queries.prune.remove_rest(conn, doomed, tombstones)
        former.update(doomed)
        return outcomes, room[0] - left

    async def reclaim(self, bytes_max: int) -> int:
        """Give free pages of an SQLite file back to the file system; how many bytes that was."""
        if bytes_max < 1:
            raise ConfigurationError(f"bytes_max must be at least 1, not {bytes_max}")
        return await self.transactions.run("idempotent_write", maintenance.reclaim, bytes_max)


def _absent(key: int, busy: Collection[int]) -> Outcome:
    return "kept" if key in busy else "gone"


def _must_stay(
    each: Expired,
    row: SqlRow,
    weight: queries.prune.Weight,
    keep_if: Callable[[ThreadInfo], bool] | None,
) -> bool:
    """Whether a thread that was listed is not to go after all."""
    if each.idle_since is not None and weight.newest > to_micros(each.idle_since):
        return True
    if each.unchanged is not None and weight.ends != dict(each.unchanged):
        return True
    if keep_if is None:
        return False
    try:
        return keep_if(records.thread_info(row))
    except CorruptEventError as error:
        log.error("kept: %s", error, extra={"tenant": row.tenant, "thread_id": row.thread_id})
        return True
