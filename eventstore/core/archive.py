"""Taking a thread out of a store as a file, and putting it back.

The file is written within one read transaction, to memory or a temporary file, so that it
shows the thread as it was at one moment, and a slow reader of it holds no transaction open.
It is put back in one transaction, and so is there whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from eventstore import queries
from eventstore.core.append import seconds as stored_ttl
from eventstore.core.read import Reading
from eventstore.db.driver_errors import CommitInDoubt
from eventstore.errors import ArchiveError, ThreadExistsError, ThreadNotFoundError
from eventstore.format import records
from eventstore.format.archive.dump import Dump
from eventstore.format.archive.header import Header
from eventstore.format.archive.rows import DICTIONARY
from eventstore.format.archive.writer import Writer
from eventstore.models import ThreadInfo
from eventstore.queries import Conflict, Connection

_CONFLICTS_MAX: Final = 5


class Archiving(Reading):
    """How threads leave a store and come back."""

    async def dump(self, thread_id: str) -> Dump:
        """One thread as a file, as it is at one moment; close it after use."""
        archived_us = self.now_us()
        codec = self.codec.without_types()

        def write(conn: Connection) -> Dump:
            found = queries.threads.look_up(conn, self.tenant, thread_id, "")
            row = found and queries.threads.thread_by_key(conn, found.thread_key)
            if row is None:
                raise ThreadNotFoundError(thread_id, self.tenant)
            ends = {ns: last for ns, _, last in queries.events.namespaces(conn, row.thread_key)}
            info = records.thread_info(row)
            header = Header(
                tenant=row.tenant,
                thread_id=row.thread_id,
                thread_key=row.thread_key,
                generation=row.generation,
                created_us=row.created_at,
                active_us=row.active_at,
                archived_us=archived_us,
                logs={},
                ends=ends,
                events=0,
                snapshots=0,
                segments=0,
                forks=0,
                raw_bytes=0,
                stored_bytes=0,
                pin=json.loads(row.pin or "{}") if info.pinned else None,
            )
            writer = Writer(header, codec)
            try:
                for tag, values in queries.archive.rows_of(conn, row):
                    if tag == DICTIONARY:
                        codec.add_dictionary(*values, write=False)
                    writer.put(tag, values)
                return writer.finish()
            finally:
                writer.close()

        return await self.transactions.run("snapshot_read", write)

    async def load(
        self,
        dump: Dump,
        *,
        pin: tuple[str, str] | None = None,
        ttl: timedelta | None = None,
    ) -> ThreadInfo:
        """Put a thread back from a file, under the name, key and generation that it had.

        Args:
            pin: why it is to be pinned from the first moment on, and who wants it.
            ttl: a time to live of its own, in place of what it had.
        """
        values: dict[str, Any] = {} if ttl is None else {"ttl": stored_ttl(ttl)}
        if pin is not None:
            values |= records.pinned(*pin, self.now_us())
        header = dump.header
        if header.tenant != self.tenant:
            raise ArchiveError(
                f"thread {header.thread_id!r} is of tenant {header.tenant!r}, and this store is "
                f"for {self.tenant!r}; open the store with that tenant"
            )
        codec = self.codec.without_types()
        dump.verify(codec)  # before a transaction opens, so that a damaged file disturbs nobody
        kept = await self._put_back(dump, values)
        self.cache.forget(header.thread_key)
        if kept is not None:
            await self._remove_placeholder(header, kept)
        return await self.thread(header.thread_id)

    async def _put_back(self, dump: Dump, values: Mapping[str, Any]) -> int | None:
        """Insert everything in one transaction; the key of a row to be removed afterwards."""
        header, doubts, conflicts = dump.header, 0, 0

        def insert(conn: Connection) -> int | None:
            rows = dump.records(self.codec, checked=True)
            return queries.archive.insert_thread(conn, rows, self.now_us(), values)

        while True:
            try:
                return await self.transactions.run("write", insert)
            except ThreadExistsError:
                if doubts and await self._is_ours(header):
                    return None  # the commit in doubt went through
                raise
            except queries.dictionaries.OtherDictionary as error:
                raise ArchiveError(
                    "the archived thread needs a dictionary whose number another one has in this "
                    "database; load it into a database of its own"
                ) from error
            except Conflict as error:
                conflicts += 1
                if conflicts > _CONFLICTS_MAX:
                    raise ArchiveError(f"thread {header.thread_id!r} cannot be inserted") from error
            except CommitInDoubt as error:
                doubts += 1
                await self.transactions.pause(doubts, error)

    async def _is_ours(self, header: Header) -> bool:
        def look(conn: Connection) -> bool:
            found = queries.threads.look_up(conn, header.tenant, header.thread_id, "")
            if found is None or found.thread_key != header.thread_key:
                return False
            logs = queries.events.namespaces(conn, header.thread_key)
            return {ns: last for ns, _, last in logs} == {n: e for n, e in header.logs.items() if e}

        return await self.transactions.run("read", look)

    async def _remove_placeholder(self, header: Header, key: int) -> None:
        """Turn the row that kept others away into a tombstone."""

        def remove_rest(conn: Connection) -> None:
            row = queries.threads.thread_by_key(conn, key)
            if row is not None:
                thread = {
                    "tenant": header.tenant,
                    "thread_id": header.thread_id,
                    "generation": header.generation,
                }
                tombstone = queries.archive.tombstone_row(thread, row.generation, self.now_us())
                queries.delete.remove_rest(conn, key, tombstone)

        await self.transactions.run("idempotent_write", remove_rest)
