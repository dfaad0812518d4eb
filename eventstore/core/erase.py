"""Erasing: a thread's rows, its name in tombstones, and its bytes in the file.

Deleting leaves bytes where rows were. On SQLite an erasure overwrites the deleted bytes, empties
the write-ahead log and rewrites the file, because pages that were split earlier hold further
copies. On PostgreSQL dead rows stay until a vacuum, and in its write-ahead log and backups for as
long as these are kept.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from eventstore import queries
from eventstore.core.delete import Deleting
from eventstore.db import maintenance, schema
from eventstore.errors import StoreBusyError, StoreUnavailableError
from eventstore.format import digests, records
from eventstore.models import SqlRow, ThreadInfo
from eventstore.queries import Connection

VACUUM_BYTES_MAX: Final = 2**30
"""Files up to this size are rewritten by default."""

OLDER_S_MAX: Final = 10.0
"""How long to wait for transactions that may still see the deleted rows (PostgreSQL)."""

OLDER_LOOK_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Erased:
    """What was done about the bytes that deleting leaves behind.

    Attributes:
        vacuumed: whether the file was rewritten (on PostgreSQL: the tables vacuumed).
        log_emptied: whether SQLite's write-ahead log is empty.
        problem: why it was not vacuumed, or not all of it, although it should have been.
    """

    vacuumed: bool
    log_emptied: bool
    problem: str | None = None


class Erasing(Deleting):
    """Deletes so that no copy is left, as far as the database allows."""

    async def erase_thread(self, thread_id: str, reason: str, by: str, **conditions: Any) -> bool:
        """As ``delete_thread(erase=True)``, overwriting the deleted bytes."""
        twin = self._overwriting()
        return await twin.delete_thread(thread_id, reason, asked_by=by, erase=True, **conditions)

    async def finish_erasures(self, reason: str) -> int:
        """As ``finish_deletions``, overwriting the deleted bytes."""
        return await self._overwriting().finish_deletions(reason)

    async def hide_tombstones(
        self, thread_id: str, reason: str, by: str, generations: Mapping[int, tuple[int, int]]
    ) -> int:
        """Make the tombstones of a name stop revealing it.

        Args:
            generations: of threads that only archives held, with their events and bytes.

        Returns:
            How many tombstones of earlier threads there were.
        """
        secret = await self._secret()
        name = (self.tenant, thread_id)

        def hide(conn: Connection) -> int:
            known = {
                row.generation: {c.key: row._mapping[c] for c in schema.tombstones.c}
                for row in queries.tombstones.known(conn, *name)
            }
            for generation in {*known, *generations}:
                events, size = generations.get(generation, (0, 0))
                nothing = {
                    "thread_key": digests.thread_key(*name, generation),
                    "generation": generation,
                    "tenant": self.tenant,
                    "deleted_at": self.now_us(),
                    "events": events,
                    "bytes": size,
                    "policy": None,
                }
                row = {**nothing, **known.get(generation, {}), "reason": reason, "asked_by": by}
                queries.tombstones.hide(conn, row, secret, name)
            return len(known)

        return await self._overwriting()._write(hide)

    async def vacuum(self, vacuum: bool | None = None) -> Erased:
        """Remove the copies that deleting left behind, as far as the database allows.

        Args:
            vacuum: whether to rewrite the file; ``None``: if it is no larger than
                ``VACUUM_BYTES_MAX``, and not on PostgreSQL.
        """
        if vacuum is None:
            size = await self.transactions.run("read", maintenance.file_bytes)
            vacuum = size is not None and size <= VACUUM_BYTES_MAX
        problem = await self._vacuum() if vacuum else None
        log_emptied = await self.transactions.run("autocommit", maintenance.empty_log)
        return Erased(vacuum and problem is None, log_emptied, problem)

    async def _vacuum(self) -> str | None:
        """Vacuum the tables; why bytes of deleted rows may remain, or ``None``."""
        run, waited_s = self.transactions.run, 0.0
        try:
            mark, older = await run("read", maintenance.mark), list[str]()
            while mark is not None and waited_s < OLDER_S_MAX:
                older = await run("read", maintenance.older_than, mark)
                if not older:
                    break
                await self.transactions.concurrency.sleep(OLDER_LOOK_S)
                waited_s += OLDER_LOOK_S
            problems = await run("autocommit", maintenance.vacuum, _TABLES)
        except (StoreBusyError, StoreUnavailableError) as error:  # the erasure itself is done
            return str(error)
        problems += [f"{who} began before the end of the erasure" for who in older]
        return "; ".join(problems) or None

    def _overwriting(self) -> Self:
        twin = copy.copy(self)
        twin.overwrites = True
        return twin

    async def former_generations(self, thread_id: str) -> set[int]:
        """The generations of a name that were deleted, including erased ones."""
        return await self.transactions.run(
            "read", queries.tombstones.generations_of, self.tenant, thread_id
        )

    async def target(self, thread_id: str) -> ThreadInfo | None:
        """What an erasure has to know of a thread, even if its row is damaged; ``None``: none."""

        def look_up(conn: Connection) -> SqlRow | None:
            found = queries.threads.look_up(conn, self.tenant, thread_id, "")
            return found and queries.threads.thread_by_key(conn, found.thread_key)

        row = await self.transactions.run("read", look_up)
        return row and records.salvaged(row, self.tenant, thread_id)

    async def holders(self, thread_id: str, generations: Collection[int]) -> list[ThreadInfo]:
        """Threads that hold bytes of any generation of a name, or refer to them.

        Args:
            generations: further ones, which only archives hold.
        """

        def look_up(conn: Connection) -> list[SqlRow]:
            found = queries.threads.look_up(conn, self.tenant, thread_id, "")
            keys = set() if found is None else {int(found.thread_key)}
            known = {*generations, *queries.tombstones.generations_of(conn, self.tenant, thread_id)}
            keys |= {digests.thread_key(self.tenant, thread_id, generation) for generation in known}
            holding = {each for key in keys for each in queries.forks.descendants(conn, key)} - keys
            rows = (queries.threads.thread_by_key(conn, key) for key in sorted(holding))
            return [row for row in rows if row is not None and row.deleting_since is None]

        rows = await self.transactions.run("read", look_up)
        return [records.salvaged(row, str(row.tenant), str(row.thread_id)) for row in rows]


_TABLES: Final = (
    schema.threads,
    schema.events,
    schema.segments,
    schema.snapshots,
    schema.forks,
    schema.tombstones,
)
