"""Pruning: many small threads in one short transaction, and free pages afterwards.

Every decision about a thread is taken under the lock of its row.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

from eventstore import queries
from eventstore.core.part import Part
from eventstore.db import background, maintenance
from eventstore.errors import CorruptEventError
from eventstore.format import records
from eventstore.limits import check_number
from eventstore.models import SqlRow, ThreadInfo, to_micros
from eventstore.queries import Connection
from eventstore.retention_models import Deletion, Expired, Outcome

log = logging.getLogger(__name__)

_NO_WEIGHT: Final = queries.prune.Weight()


class _Judged(NamedTuple):
    """What is to become of a thread.

    Attributes:
        weight, tombstone: if it is to be pruned.
    """

    key: int
    outcome: Outcome
    weight: queries.prune.Weight = _NO_WEIGHT
    tombstone: Mapping[str, Any] | None = None


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
            seconds: about how long the transaction may take for reading, and then for deleting,
                while SQLite's other writers wait; longer if nobody else has written for long
                (:data:`eventstore.db.background.SHARE`). On PostgreSQL, where nobody waits, ten
                times as long.

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

        def attempt(conn: Connection) -> list[Outcome]:
            hold_s = self.transactions.background.lock_s(seconds)
            hold_s *= queries.prune.STRETCH[conn.dialect.name]
            found = self._judge_some(conn, batch, removed, keep_if, rows, hold_s)
            if not self.transactions.background.lock(conn):
                found = self._judge_some(conn, batch[: len(found)], removed, keep_if, rows, hold_s)
            return self._remove_judged(conn, found, removed, time.monotonic() + hold_s)

        outcomes = await self.transactions.run("background_write", attempt)
        for each, outcome in zip(batch, outcomes, strict=False):
            if outcome == "pruned":
                self.forget(each.thread_key)
        return outcomes

    def _judge_some(
        self,
        conn: Connection,
        batch: Sequence[Expired],
        removed: Collection[int],
        keep_if: Callable[[ThreadInfo], bool] | None,
        rows: int,
        seconds: float,
    ) -> list[_Judged]:
        """What is to become of the first threads of a batch, in so many rows and so much time."""
        found: list[_Judged] = []
        left, deadline = rows, time.monotonic() + seconds
        size = queries.prune.GROUPS[conn.dialect.name]
        for first in range(0, len(batch), size):
            group = batch[first : first + size]
            held = queries.prune.lock(conn, [each.thread_key for each in group])
            locked = queries.prune.there(
                conn, [e.thread_key for e in group if e.thread_key not in held]
            )
            sizes = queries.prune.weigh(conn, list(held))
            for each in group:
                key = each.thread_key
                row, size_of = held.get(key), sizes[key]
                if row is None:
                    found.append(_Judged(key, _absent(key, locked, removed)))
                elif _must_stay(each, row, size_of, keep_if):
                    found.append(_Judged(key, "kept"))
                elif size_of.needed or size_of.total > rows:
                    found.append(_Judged(key, "large"))
                elif size_of.total > left:
                    return found  # it is small enough for a transaction, but not for this one
                else:
                    left -= size_of.total
                    deletion = Deletion(
                        each.reason, each.policy, events=size_of.events, bytes=size_of.bytes
                    )
                    name = (row.tenant, row.thread_id)
                    tombstone = records.tombstone_row(
                        key, name, row.generation, deletion, self.now_us(), None
                    )
                    found.append(_Judged(key, "pruned", size_of, tombstone))
            if time.monotonic() >= deadline:
                break
        return found

    def _remove_judged(
        self, conn: Connection, found: Sequence[_Judged], removed: set[int], deadline: float
    ) -> list[Outcome]:
        """Remove threads until the deadline; the outcomes of those that were reached."""
        size = queries.prune.REMOVED[conn.dialect.name]
        done = 0
        while done < len(found):
            group = found[done : done + size]
            weights = {each.key: each.weight for each in group if each.tombstone}
            tombstones = [each.tombstone for each in group if each.tombstone]
            queries.prune.remove_rest(conn, weights, tombstones)
            removed.update(weights)
            done += size
            if time.monotonic() >= deadline:
                break
        return [each.outcome for each in found[:done]]

    @asynccontextmanager
    async def in_rounds(self) -> AsyncIterator[None]:
        """Many transactions of :meth:`prune` and :meth:`reclaim`, whose pages are written together.

        Meanwhile SQLite's write-ahead log grows by what a quarter of a second's work changes, and
        nobody else moves it into the file.
        """
        rounds = self.transactions.background
        rounds.begin_rounds()
        try:
            yield
        finally:
            rounds.end_rounds()
        if not self.is_server:
            await self.transactions.run("autocommit", background.move_log)

    async def reclaim(self, bytes_max: int, seconds: float = 0.02) -> int:
        """Give free pages of an SQLite file back to the file system, in one short step.

        Args:
            bytes_max: how much at most.
            seconds: as for :meth:`prune`.

        Returns:
            How many bytes that was; 0: there are no more free pages. On PostgreSQL always 0: its
            vacuum makes free space usable again.
        """
        check_number("bytes_max", bytes_max, 1)

        def attempt(conn: Connection) -> int:
            deadline = time.monotonic() + self.transactions.background.lock_s(seconds)
            self.transactions.background.lock(conn)
            return maintenance.reclaim(conn, bytes_max, deadline)

        return await self.transactions.run("background_write", attempt)


def _absent(key: int, locked: Collection[int], removed: Collection[int]) -> Outcome:
    if key in locked:
        return "kept"
    return "pruned" if key in removed else "gone"


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
