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
from eventstore.format import digests, records
from eventstore.limits import check_name
from eventstore.models import SqlRow, ThreadInfo, to_micros
from eventstore.queries import Conflict, Connection
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
            CorruptEventError: a condition depends on a damaged row, or a policy asks for the
                deletion and a damaged fork may need the thread. Nothing was deleted.
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
            if keep_if is not None and keep_if(
                records.salvaged(row, self.tenant, thread_id) if erase else records.thread_info(row)
            ):
                return "kept"
            if policy is not None and queries.forks.has_doubtful_dependants(conn, key):
                raise CorruptEventError(
                    f"kept thread {thread_id!r}: a damaged link of a fork may need it; run "
                    "eventstore verify, or delete it by name",
                    thread_id=thread_id,
                )
            deletion = Deletion(
                reason, policy, asked_by, erase, *queries.events.totals(conn, key)[:2]
            )
            name = (self.tenant, thread_id)
            tombstone = records.tombstone_row(
                key, name, _generation(row, *name), deletion, self.now_us(), secret
            )
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
            self.forget(begun[-1][0])
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
            deletion = records.deletion(row)
            if deletion is None:
                if not queries.delete.has_marks(conn, key):
                    raise CorruptEventError(
                        f"the row of thread {row.thread_id!r:.200}, which is being deleted, is "
                        "damaged: none of its logs ends with a mark, nothing was deleted; restore "
                        "a backup"
                    )
                totals = queries.events.totals(conn, key)[:2]
                deletion = Deletion(reason, None, None, False, *totals)
            secret = queries.tombstones.secret(conn) if deletion.erase else None
            name = (row.tenant, row.thread_id)
            if not digests.belongs(key, *name, row.generation):
                raise CorruptEventError("the name of a thread that is being deleted is damaged")
            return records.tombstone_row(key, name, row.generation, deletion, self.now_us(), secret)

        keys = await self.transactions.run("read", queries.delete.marked_for_deletion, self.tenant)
        damage: CorruptEventError | None = None
        finished = 0
        for key in keys:
            if self.should_stop():
                break
            try:
                tombstone = await self.transactions.run("read", tombstone_of, key)
                if tombstone:
                    await self._remove(key, tombstone)
                finished += 1
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
        return finished

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
        await self._detach_all_forks(key)
        for remove, page in (
            (queries.delete.remove_some, LARGE_BATCH),
            (queries.delete.remove_events, DELETE_BATCH),
        ):
            more = True
            while more:
                if self.should_stop():
                    return  # finish_deletions() goes on
                more = await self._write(remove, key, page)

        def remove_rest(conn: Connection) -> None:
            if queries.threads.is_there(conn, key) and not queries.delete.remove_rest(
                conn, key, tombstone
            ):
                raise AssertionError("a fork was made of a thread marked for deletion")

        try:
            await self._write(remove_rest)
        except Conflict as error:
            raise CorruptEventError(
                f"rows of the thread stored under key {key} cannot be removed: a table or an index "
                "is damaged; run eventstore verify"
            ) from error

    async def _detach_all_forks(self, key: int) -> None:
        """Give the forks of a thread marked for deletion what they need of it, one by one.

        Raises:
            CorruptEventError: a fork depends on the thread even so.
        """
        detached: set[tuple[Any, ...]] = set()
        while fork := await self._write(_detach_one_fork, key):
            if fork in detached:
                raise CorruptEventError(
                    f"a fork in the thread stored under key {fork[0]} cannot be detached: the "
                    "table of forks is damaged; run eventstore verify"
                )
            detached.add(fork)

    async def delete_snapshots(self, thread_id: str) -> int:
        """Delete every snapshot that can be folded again; returns how many.

        Raises:
            ThreadNotFoundError: no such thread.
        """

        def drop(conn: Connection) -> int:
            return queries.snapshots.drop_snapshots(conn, self.key_of(conn, thread_id))

        return await self._write(drop)


def _detach_one_fork(conn: Connection, key: int) -> tuple[Any, ...] | None:
    """Give one fork of a thread what it needs of it; ``None`` when there is none."""
    forks = queries.forks.dependants(conn, key, 1)
    if not forks:
        return None
    queries.forks.detach_fork(conn, forks[0])
    return tuple(forks[0])


def _generation(row: SqlRow, tenant: str, thread_id: str) -> int:
    """The generation of a thread of this name, even if its row says another."""
    if digests.belongs(row.thread_key, tenant, thread_id, row.generation):
        return int(row.generation)
    found = digests.generation_of(row.thread_key, tenant, thread_id)
    if found is None:
        raise CorruptEventError(
            f"the generation of thread {thread_id!r} is damaged", thread_id=thread_id
        )
    return found
