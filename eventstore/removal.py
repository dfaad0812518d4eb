"""Removing from an event store: threads whole, and snapshots that can be folded again.

A thread is removed whole or not at all, and forks of it stay whole (rules 5 and 6).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from eventstore import chain, operations, records, rehoming
from eventstore.errors import ThreadNotFoundError
from eventstore.events import ThreadInfo, to_micros
from eventstore.reading import Reading
from eventstore.schema import SqlRow

if TYPE_CHECKING:
    from sqlalchemy import Connection

DELETE_BATCH: Final = 1_000
"""Events deleted in one transaction."""

_NO_DIGEST: Final = bytes(16)


class Removal(Reading):
    """What can be taken out of a store."""

    async def delete_thread(
        self,
        thread_id: str,
        reason: str = "deleted",
        *,
        idle_since: datetime | None = None,
        keep_if: Callable[[ThreadInfo], bool] | None = None,
    ) -> bool:
        """Remove a thread whole: its logs, snapshots and links. Forks of it stay whole."""
        begun: list[dict[str, Any]] = []

        def seal(conn: Connection) -> Literal["kept", "gone", "condemned"]:
            found = operations.look_up(conn, self.tenant, thread_id, "")
            row = found and operations.hold(conn, found.thread_key)
            if row is None:
                raise ThreadNotFoundError(thread_id, self.tenant)
            key = row.thread_key
            if begun and begun[-1]["thread_key"] != key:
                return "condemned"  # a commit in doubt went through, and the name is in use again
            if idle_since and operations.last_recorded(conn, key) > to_micros(idle_since):
                return "kept"
            if keep_if is not None and keep_if(records.thread_info(row)):
                return "kept"
            tombstone = self._tombstone(conn, row, reason)
            begun.append(tombstone)
            if tombstone["events"] <= DELETE_BATCH and operations.bury(conn, key, tombstone):
                return "gone"
            operations.condemn(conn, key, self.now_us(), _NO_DIGEST)
            return "condemned"

        try:
            fate = await self.transactor.write_again(seal)
        except ThreadNotFoundError:
            if not begun:
                raise
            fate = "condemned"  # a commit in doubt went through
        if fate != "kept" and begun:
            self.tails.forget(begun[-1]["thread_key"])
        if fate == "condemned":
            await self._remove(begun[-1])
        return fate != "kept"

    async def finish_deletions(self, reason: str = "deleted") -> int:
        """End deletions that were cut short; returns how many threads were removed."""

        def look(conn: Connection, key: int) -> dict[str, Any] | None:
            row = operations.thread_by_key(conn, key)
            return row and self._tombstone(conn, row, reason)

        keys = await self.transactor.read(operations.condemned, self.tenant)
        for key in keys:
            tombstone = await self.transactor.read(look, key)
            if tombstone:
                await self._remove(tombstone)
        return len(keys)

    def _tombstone(self, conn: Connection, row: SqlRow, reason: str) -> dict[str, Any]:
        count, size, _ = operations.totals(conn, row.thread_key)
        return {
            "thread_key": row.thread_key,
            "name_digest": chain.name_digest(row.tenant, row.thread_id),
            "life": row.life,
            "tenant": row.tenant,
            "deleted_at": self.now_us(),
            "reason": reason,
            "events": count,
            "bytes": size,
        }

    async def _remove(self, tombstone: Mapping[str, Any]) -> None:
        """Remove a condemned thread. Forks first: what they still need is still there.

        Its key is never used again, so that others may do the same at the same time.
        """
        key = tombstone["thread_key"]
        while await self.transactor.write_again(_rehome_one, key):
            pass
        logs = await self.transactor.read(operations.namespaces, key)
        for ns, first, last in logs:
            for upto in range(first + DELETE_BATCH, last, DELETE_BATCH):
                await self.transactor.write_again(operations.remove_events, key, ns, upto - 1)

        def bury(conn: Connection) -> None:
            if operations.is_there(conn, key) and not operations.bury(conn, key, tombstone):
                raise AssertionError("a fork was made of a condemned thread")

        await self.transactor.write_again(bury)

    async def delete_snapshots(self, thread_id: str) -> int:
        """Delete every snapshot that can be folded again; returns how many."""

        def drop(conn: Connection) -> int:
            row = operations.look_up(conn, self.tenant, thread_id, "")
            if row is None:
                raise ThreadNotFoundError(thread_id, self.tenant)
            return operations.drop_snapshots(conn, row.thread_key)

        return await self.transactor.write_again(drop)


def _rehome_one(conn: Connection, key: int) -> bool:
    """Give one fork of a thread what it needs of it; false when there is none."""
    forks = operations.dependants(conn, key, 1)
    if forks:
        rehoming.rehome(conn, forks[0])
    return bool(forks)
