"""Deleting: whole threads, and snapshots that can be folded again.

A thread is deleted whole or not at all, and forks of it stay whole (rules 5 and 6). Here one thread
is deleted, in bounded batches if it is large. Retention deletes many small threads at once: their
rows are removed in :mod:`eventstore.core.prune`.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any, Concatenate, Final, Literal, ParamSpec, TypeVar

from eventstore import queries
from eventstore.core.read import Reading
from eventstore.db import maintenance
from eventstore.errors import CorruptEventError, ThreadNotFoundError
from eventstore.format import records
from eventstore.limits import check_name
from eventstore.models import ThreadInfo, to_micros
from eventstore.queries import Connection
from eventstore.retention_models import Deletion

log = logging.getLogger(__name__)

T = TypeVar("T")
P = ParamSpec("P")

DELETE_BATCH: Final = 1_000
"""Events deleted in one transaction."""

LARGE_BATCH: Final = 50
"""Segments or snapshots deleted in one transaction: each may be as large as many events."""

_NO_DIGEST: Final = bytes(16)


class Deleting(Reading):
    """Deletes threads and snapshots.

    Attributes:
        overwrites: overwrite deleted bytes in the file (SQLite).
    """

    overwrites = False

    async def _write(
        self,
        operation: Callable[Concatenate[Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        if not self.overwrites:
            return await self.transactions.run("idempotent_write", operation, *args, **kwargs)

        def overwriting(conn: Connection) -> T:
            maintenance.overwrite_deleted(conn, True)
            try:
                return operation(conn, *args, **kwargs)
            finally:
                maintenance.overwrite_deleted(conn, False)

        return await self.transactions.run("idempotent_write", overwriting)

    async def delete_thread(
        self,
        thread_id: str,
        reason: str = "deleted",
        *,
        idle_since: datetime | None = None,
        keep_if: Callable[[ThreadInfo], bool] | None = None,
        unchanged: Mapping[str, int] | None = None,
        policy: str | None = None,
        asked_by: str | None = None,
        erase: bool = False,
    ) -> bool:
        """Delete a thread whole: its logs, snapshots and links. Forks of it stay whole.

        A small thread that no fork needs is deleted in one transaction. A larger one is first
        marked for deletion: from then on no reader sees it and no append succeeds. Then its forks
        get the bytes they need, and it is removed in batches. If the process dies meanwhile,
        :meth:`finish_deletions` ends the work.

        Args:
            reason: recorded in the tombstone.
            idle_since: keep the thread if it has an event after this moment.
            keep_if: keep it if this returns true.
            unchanged: keep it unless its logs are exactly these, and end at these seqs.
                All three are checked under the lock under which the deletion is decided.
            policy, asked_by: recorded in the tombstone.
            erase: leave a tombstone that does not reveal the name: it holds a digest that nobody
                can compute without a secret of this database. ``reason`` and ``asked_by`` are
                recorded as given: do not put names there that have to be forgotten.

        Returns:
            Whether it was deleted.

        Raises:
            ThreadNotFoundError: no such thread.
        """
        check_name("reason", reason)
        for what, text in (("policy", policy), ("asked_by", asked_by)):
            if text is not None:
                check_name(what, text)
        idle_us = None if idle_since is None else to_micros(idle_since, "idle_since")
        begun: list[tuple[int, dict[str, Any]]] = []
        secret = await self._secret() if erase else None

        def decide(conn: Connection) -> Literal["kept", "gone", "marked"]:
            found = queries.threads.look_up(conn, self.tenant, thread_id, "")
            row = found and queries.delete.lock(conn, found.thread_key)
            if row is None:
                raise ThreadNotFoundError(thread_id, self.tenant)
            key = row.thread_key
            if begun and begun[-1][0] != key:
                return "marked"  # the commit in doubt went through, and the name is in use again
            if idle_us is not None and queries.threads.last_recorded(conn, key) > idle_us:
                return "kept"
            if unchanged is not None and queries.events.ends(conn, key) != dict(unchanged):
                return "kept"
            if keep_if is not None and keep_if(records.thread_info(row)):
                return "kept"
            deletion = Deletion(
                reason, policy, asked_by, erase, *queries.events.totals(conn, key)[:2]
            )
            tombstone = records.tombstone_row(row, deletion, self.now_us(), secret)
            begun.append((key, tombstone))
            if deletion.events <= DELETE_BATCH and queries.delete.remove_rest(conn, key, tombstone):
                return "gone"
            queries.delete.mark_for_deletion(
                conn, key, self.now_us(), _NO_DIGEST, json.dumps(asdict(deletion))
            )
            return "marked"

        try:
            end = await self._write(decide)
        except ThreadNotFoundError:
            if not begun:
                raise
            end = "marked"  # the commit in doubt went through
        if end != "kept" and begun:
            self.cache.forget(begun[-1][0])
        if end == "marked":
            await self._remove(*begun[-1])
        return end != "kept"

    async def finish_deletions(self, reason: str = "deleted") -> int:
        """Finish deletions that were interrupted; returns how many threads were removed.

        Args:
            reason: for those whose own reason is not recorded.

        Raises:
            CorruptEventError: a thread is damaged; the others were removed.
        """

        def tombstone_of(conn: Connection, key: int) -> dict[str, Any] | None:
            row = queries.threads.thread_by_key(conn, key)
            if row is None:
                return None
            deletion = records.deletion(row) or Deletion(
                reason, None, None, False, *queries.events.totals(conn, key)[:2]
            )
            secret = queries.tombstones.secret(conn) if deletion.erase else None
            return records.tombstone_row(row, deletion, self.now_us(), secret)

        keys = await self.transactions.run("read", queries.delete.marked_for_deletion, self.tenant)
        damage: CorruptEventError | None = None
        for key in keys:
            try:
                tombstone = await self.transactions.run("read", tombstone_of, key)
                if tombstone:
                    await self._remove(key, tombstone)
            except CorruptEventError as error:
                log.error(
                    "cannot finish the deletion of the thread stored under key %d: %s",
                    key,
                    error,
                    extra={"thread_key": key},
                )
                damage = damage or error
        if damage is not None:
            raise damage
        return len(keys)

    async def _secret(self) -> bytes:
        """The secret that tombstones of erased threads are made with; created at first use."""
        found = await self.transactions.run("read", queries.tombstones.secret)
        if found is None:
            made = secrets.token_bytes(queries.tombstones.SECRET_BYTES)
            await self._write(queries.tombstones.make_secret, made)
            found = await self.transactions.run(
                "read", queries.tombstones.secret
            )  # another's may have been first
        if found is None:
            raise CorruptEventError("the secret for erasures was stored, but is not found")
        return found

    async def _remove(self, key: int, tombstone: Mapping[str, Any]) -> None:
        """Remove a thread marked for deletion, after giving its forks what they need of it.

        Its key is never used again, so several processes may do this at the same time.
        """
        while await self._write(_detach_one_fork, key):
            pass
        while await self._write(queries.delete.remove_some, key, LARGE_BATCH):
            pass
        logs = await self.transactions.run("read", queries.events.namespaces, key)
        for ns, first, last in logs:
            for upto in range(first + DELETE_BATCH, last, DELETE_BATCH):
                await self._write(queries.delete.remove_events, key, ns, upto - 1)

        def remove_rest(conn: Connection) -> None:
            if queries.threads.is_there(conn, key) and not queries.delete.remove_rest(
                conn, key, tombstone
            ):
                raise AssertionError("a fork was made of a thread marked for deletion")

        await self._write(remove_rest)

    async def delete_snapshots(self, thread_id: str) -> int:
        """Delete every snapshot that can be folded again; returns how many.

        Raises:
            ThreadNotFoundError: no such thread.
        """

        def drop(conn: Connection) -> int:
            return queries.snapshots.drop_snapshots(conn, self.key_of(conn, thread_id))

        return await self._write(drop)


def _detach_one_fork(conn: Connection, key: int) -> bool:
    """Give one fork of a thread what it needs of it; false when there is none."""
    forks = queries.forks.dependants(conn, key, 1)
    if forks:
        queries.forks.detach_fork(conn, forks[0])
    return bool(forks)
