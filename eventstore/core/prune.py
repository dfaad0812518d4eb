"""Pruning: many small threads in one short transaction, and free pages afterwards.

Every decision about a thread is taken under the lock of its row.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence

from eventstore import queries
from eventstore.core.part import Part
from eventstore.db import maintenance
from eventstore.errors import CorruptEventError
from eventstore.format import records
from eventstore.limits import check_number
from eventstore.models import SqlRow, ThreadInfo, to_micros
from eventstore.queries import Connection
from eventstore.retention_models import Deletion, Expired, Outcome

log = logging.getLogger(__name__)


class Pruning(Part):
    """Removes threads whose time is over."""

    async def prune(
        self,
        batch: Sequence[Expired],
        *,
        keep_if: Callable[[ThreadInfo], bool] | None = None,
        rows: int = 2000,
        seconds: float = 0.02,
    ) -> list[Outcome]:
        """Remove small threads that may go, as many as fit into one short transaction.

        Each is judged again under its lock, as by :meth:`delete_thread`, and removed whole or not
        at all. It waits for nothing: a thread that somebody else has locked is kept. Nor does it
        wait for the disk on SQLite: until the next durable commit (a sweep ends with one), a power
        failure may bring threads back, whole.

        Args:
            batch: threads of any tenant, each at most once. Threads of the same age lie together
                in the database: in the order of their age they are removed faster.
            keep_if: keep a thread if this returns true; called under its lock.
            rows: rows deleted at most in this transaction.
            seconds: end the transaction after this time; checked after every few threads. On
                PostgreSQL, where writers do not wait for it, after ten times as long.

        Returns:
            The outcome of the first threads of the batch, in their order, of one at least: the
            list ends where there was no more room, and the rest was not touched.
            :meth:`delete_thread` removes a thread that is ``large``.
        """
        keys = [each.thread_key for each in batch]
        if len(set(keys)) < len(keys):
            raise ValueError(f"thread key {max(keys, key=keys.count)} is in the batch twice")
        check_number("rows", rows, 1)
        removed: set[int] = set()  # pruned by an attempt whose commit is in doubt

        def prune_groups(conn: Connection) -> list[Outcome]:
            outcomes: list[Outcome] = []
            size, stretch = (
                each[conn.dialect.name] for each in (queries.prune.GROUPS, queries.prune.STRETCH)
            )
            left, deadline = rows, time.monotonic() + seconds * stretch
            for first in range(0, len(batch), size):
                group = batch[first : first + size]
                ends, used = self._prune(conn, group, removed, keep_if, (left, rows))
                outcomes += ends
                left -= used
                if len(ends) < len(group) or time.monotonic() >= deadline:
                    break
            return outcomes

        outcomes = await self.transactions.run("background_write", prune_groups)
        for each, outcome in zip(batch, outcomes, strict=False):
            if outcome == "pruned":
                self.cache.forget(each.thread_key)
        return outcomes

    def _prune(
        self,
        conn: Connection,
        group: Sequence[Expired],
        removed: set[int],
        keep_if: Callable[[ThreadInfo], bool] | None,
        room: tuple[int, int],
    ) -> tuple[list[Outcome], int]:
        """Prune the threads of a group for which there is room; their outcomes, and rows used.

        Stops at the first that is small enough for a transaction, but not for what is left.
        """
        left, most = room
        held = queries.prune.lock(conn, [each.thread_key for each in group])
        locked = queries.prune.there(
            conn, [e.thread_key for e in group if e.thread_key not in held]
        )
        sizes = queries.prune.weigh(conn, list(held))
        outcomes: list[Outcome] = []
        pruned: dict[int, queries.prune.Weight] = {}
        tombstones = []
        for each in group:
            key = each.thread_key
            row, size = held.get(key), sizes[key]
            if row is None:
                outcomes.append(
                    "pruned" if key in removed and key not in locked else _absent(key, locked)
                )
                continue
            if _must_stay(each, row, size, keep_if):
                outcomes.append("kept")
                continue
            if size.needed or size.total > most:
                outcomes.append("large")
                continue
            if size.total > left:
                break
            left -= size.total
            pruned[key] = size
            deletion = Deletion(each.reason, each.policy, events=size.events, bytes=size.bytes)
            name = (row.tenant, row.thread_id)
            tombstones.append(
                records.tombstone_row(key, name, row.generation, deletion, self.now_us(), None)
            )
            outcomes.append("pruned")
        queries.prune.remove_rest(conn, pruned, tombstones)
        removed.update(pruned)
        return outcomes, room[0] - left

    async def reclaim(self, bytes_max: int) -> int:
        """Give free pages of an SQLite file back to the file system, in one short step.

        Returns:
            How many bytes that was; 0: there are no more free pages. On PostgreSQL always 0: its
            vacuum makes free space usable again.
        """
        check_number("bytes_max", bytes_max, 1)
        return await self.transactions.run("background_write", maintenance.reclaim, bytes_max)


def _absent(key: int, locked: Collection[int]) -> Outcome:
    return "kept" if key in locked else "gone"


def _must_stay(
    each: Expired,
    row: SqlRow,
    size: queries.prune.Weight,
    keep_if: Callable[[ThreadInfo], bool] | None,
) -> bool:
    """Whether a thread that was listed must be kept after all."""
    if each.idle_since is not None and size.newest > to_micros(each.idle_since):
        return True
    if each.unchanged is not None and size.ends != dict(each.unchanged):
        return True
    try:
        info = records.thread_info(row)
        return keep_if is not None and keep_if(info)
    except CorruptEventError as error:
        log.error("kept: %s", error, extra={"tenant": row.tenant, "thread_id": row.thread_id})
        return True
