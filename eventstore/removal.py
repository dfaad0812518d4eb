"""Removing from an event store: threads whole, and snapshots that can be folded again.

A thread is removed whole or not at all, and forks of it stay whole (rules 5 and 6).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

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

    def delete_thread(
        self,
        thread_id: str,
        reason: str = "deleted",
        *,
        idle_since: datetime | None = None,
        keep_if: Callable[[ThreadInfo], bool] | None = None,
    ) -> bool:
        """Remove a thread whole: its logs, snapshots and links. Forks of it stay whole.

        A small thread that no fork needs goes in one transaction. Another is condemned
        first, from when on no reader sees it and no append succeeds; then forks get what
        they need of it; then it is removed in batches. If the process dies meanwhile,
        :meth:`finish_deletions` ends the work.

        Args:
            reason: kept in the tombstone.
            idle_since: leave the thread alone if it has an event after this moment.
            keep_if: leave it alone if this says so. Both are asked under the lock that
                seals its fate.

        Returns:
            Whether it was removed.

        Raises:
            ThreadNotFoundError: no such thread.
        """
        with self._write() as conn:
            found = operations.look_up(conn, self.tenant, thread_id, "")
            row = found and operations.hold(conn, found.thread_key)
            if row is None:
                raise ThreadNotFoundError(thread_id, self.tenant)
            key = row.thread_key
            if idle_since and operations.last_recorded(conn, key) > to_micros(idle_since):
                return False
            if keep_if is not None and keep_if(records.thread_info(row)):
                return False
            tombstone = self._tombstone(conn, row, reason)
            if tombstone["events"] <= DELETE_BATCH and operations.bury(conn, key, tombstone):
                return True
            operations.condemn(conn, key, self.now_us(), _NO_DIGEST)
        self._remove(tombstone)
        return True

    def finish_deletions(self, reason: str = "deleted") -> int:
        """End deletions that were cut short; returns how many threads were removed."""
        with self._read() as conn:
            keys = operations.condemned(conn, self.tenant)
        for key in keys:
            with self._read() as conn:
                row = operations.thread_by_key(conn, key)
                tombstone = row and self._tombstone(conn, row, reason)
            if tombstone:
                self._remove(tombstone)
        return len(keys)

    def _tombstone(self, conn: Connection, row: SqlRow, reason: str) -> dict[str, Any]:
        count, size = operations.totals(conn, row.thread_key)
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

    def _remove(self, tombstone: Mapping[str, Any]) -> None:
        """Remove a condemned thread. Forks first: what they still need is still there.

        Its key is never used again, so that others may do the same at the same time.
        """
        key = tombstone["thread_key"]
        self._rehome_all(key)
        with self._read() as conn:
            logs = operations.namespaces(conn, key)
        for ns, first, last in logs:
            for upto in range(first + DELETE_BATCH, last, DELETE_BATCH):
                with self._write() as conn:
                    operations.remove_events(conn, key, ns, upto - 1)
        with self._write() as conn:
            if operations.is_there(conn, key) and not operations.bury(conn, key, tombstone):
                raise AssertionError("a fork was made of a condemned thread")

    def _rehome_all(self, key: int) -> None:
        while True:
            with self._write() as conn:
                forks = operations.dependants(conn, key, 1)
                if not forks:
                    return
                rehoming.rehome(conn, forks[0])

    def delete_snapshots(self, thread_id: str) -> int:
        """Delete every snapshot that can be folded again; returns how many."""
        with self._write() as conn:
            row = operations.look_up(conn, self.tenant, thread_id, "")
            if row is None:
                raise ThreadNotFoundError(thread_id, self.tenant)
            return operations.drop_snapshots(conn, row.thread_key)
