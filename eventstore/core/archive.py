"""Archiving: writing a thread to a file, and loading it again.

The file is written within one read transaction, to memory or a temporary file, so that it shows
the thread at one moment, and a slow reader of the file holds no transaction open. It is loaded in
one transaction, and so is there whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from eventstore import queries
from eventstore.core.part import Stopped
from eventstore.core.read import Reading
from eventstore.core.threads import stored_ttl
from eventstore.db.driver_errors import CommitInDoubt
from eventstore.errors import ArchiveError, ThreadExistsError, ThreadNotFoundError
from eventstore.format import records
from eventstore.format.archive.dump import Dump, Source
from eventstore.format.archive.header import Header
from eventstore.format.archive.rows import DICTIONARY
from eventstore.format.archive.writer import Writer
from eventstore.models import ThreadInfo
from eventstore.queries import Conflict, Connection

_CONFLICTS_MAX: Final = 5


class Archiving(Reading):
    """Dumps and loads threads."""

    async def dump(self, thread_id: str) -> Dump:
        """One thread as a file, as it is at one moment; iterate over it, and close it after use.

        The file is complete in itself: every row of the thread as it is stored, the rows it needs
        of threads that it was forked from, and the application's dictionaries. All of it is
        verified on the way. It is made in one read transaction (on PostgreSQL at REPEATABLE
        READ), and is kept in memory or, if it is large, in a temporary file.

        Raises:
            ThreadNotFoundError: no such thread.
            CorruptEventError: something in it does not verify.
        """
        archived_us = self.now_us()
        codec = self.codec.without_types()

        def write(conn: Connection) -> Dump:
            found = queries.threads.look_up(conn, self.tenant, thread_id, "")
            row = found and queries.threads.thread_by_key(conn, found.thread_key)
            if row is None:
                raise ThreadNotFoundError(thread_id, self.tenant)
            ends = queries.events.ends(conn, row.thread_key)
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
                    if self.should_stop():
                        raise Stopped
                    if tag == DICTIONARY:
                        codec.add_dictionary(*values, write=False)
                    writer.put(tag, values)
                return writer.finish()
            finally:
                writer.close()

        return await self.transactions.run("snapshot_read", write)

    async def load(
        self,
        source: Source,
        *,
        pin: tuple[str, str] | None = None,
        ttl: timedelta | None = None,
    ) -> ThreadInfo:
        """Load a thread from a file, as it was: its name, key and generation, and every row.

        Everything is verified first, and then inserted in one transaction. Checkpoint ids work as
        before, and the tombstone that the thread left is removed.

        Args:
            source: a :class:`Dump`, a path, bytes, a binary file or an iterable of bytes.
            pin: pin it from the first moment on: the reason, and who asks for it.
            ttl: a time to live of its own, in place of the archived one.

        Raises:
            ArchiveDamagedError: it is not what was written. Nothing was loaded.
            ArchiveVersionError: it was written by a newer version. Nothing was loaded.
            ArchiveError: it cannot be loaded here (it is of another tenant, say).
            ThreadExistsError: a thread of that name exists.
            StoreBusyError: a thread of that key is still being removed.
        """
        if isinstance(source, Dump):
            return await self._load(source, pin, ttl)
        with await self.transactions.concurrency.call(Dump.open, source) as dump:
            return await self._load(dump, pin, ttl)

    async def _load(
        self, dump: Dump, pin: tuple[str, str] | None, ttl: timedelta | None
    ) -> ThreadInfo:
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
        dump.verify(codec)  # before a transaction opens: a damaged file holds no lock
        placeholder = await self._insert(dump, values)
        self.forget(header.thread_key)
        if placeholder is not None:
            await self._remove_placeholder(header, placeholder)
        return await self.thread(header.thread_id)

    async def _insert(self, dump: Dump, values: Mapping[str, Any]) -> int | None:
        """Insert everything in one transaction; the key of a placeholder to remove afterwards."""
        header, in_doubt, conflicts = dump.header, 0, 0

        def insert(conn: Connection) -> int | None:
            rows = dump.records(self.codec, checked=True)
            return queries.archive.insert_thread(conn, rows, self.now_us(), values)

        while True:
            try:
                return await self.transactions.run("write", insert)
            except ThreadExistsError:
                if in_doubt and await self._is_ours(header):
                    return None  # the commit in doubt went through
                raise
            except queries.dictionaries.OtherDictionary as error:
                raise ArchiveError(
                    f"dictionary id {error.dict_id} of the archived thread is already used by "
                    "another dictionary in this database; load the thread into another database"
                ) from error
            except Conflict as error:
                conflicts += 1
                if conflicts > _CONFLICTS_MAX:
                    raise ArchiveError(
                        f"thread {header.thread_id!r} cannot be inserted: its rows conflict with "
                        "others in this database"
                    ) from error
            except CommitInDoubt as error:
                in_doubt += 1
                await self.transactions.pause(in_doubt, error)

    async def _is_ours(self, header: Header) -> bool:
        def look(conn: Connection) -> bool:
            found = queries.threads.look_up(conn, header.tenant, header.thread_id, "")
            if found is None or found.thread_key != header.thread_key:
                return False
            ends = queries.events.ends(conn, header.thread_key)
            return ends == {ns: last for ns, last in header.logs.items() if last}

        return await self.transactions.run("read", look)

    async def _remove_placeholder(self, header: Header, key: int) -> None:
        """Turn the row that reserved the name meanwhile into a tombstone."""

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
