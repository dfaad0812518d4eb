"""The event store for event loops: the twin of ``EventStore``, over the same operations.

A thin shell over :class:`~eventstore.core.Core`; what each operation means and raises is said
in :mod:`eventstore.store`, and a test holds that both have the same. On PostgreSQL it awaits
an asynchronous driver. On SQLite a whole operation runs on one of the store's own threads,
with the same driver as the synchronous store: a driver that goes to another thread for every
statement costs several times as much.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from eventstore.codec.codec import Codec
from eventstore.concurrency import Concurrency, iterate
from eventstore.core.cache import BYTES
from eventstore.core.core import Core
from eventstore.core.read import Pages
from eventstore.core.seal import Sealed
from eventstore.core.trim import Trimmed, TrimPoint
from eventstore.db import engines
from eventstore.db.options import Durability, Options, PoolOptions
from eventstore.db.transactions import Transactions
from eventstore.format.archive.dump import Dump, Source
from eventstore.models import (
    Addition,
    Event,
    Fork,
    Head,
    Lineage,
    NewSnapshot,
    Position,
    RecordedEvent,
    Replay,
    Stats,
    Status,
    ThreadInfo,
    VerifyReport,
)
from eventstore.retention_models import Expired, Outcome, Slice, SweepRecord, Tombstone

if TYPE_CHECKING:
    from aiosqlite import Connection as AiosqliteConnection
    from psycopg_pool import AsyncConnectionPool
    from sqlalchemy.ext.asyncio import AsyncEngine

    from eventstore import store

    Target = store.Target | AsyncEngine | AiosqliteConnection | AsyncConnectionPool[Any]


class AsyncEventStore:
    """An append-only log of events per thread, in SQLite or PostgreSQL, for ``async`` code.

    Args:
        target: as for :class:`~eventstore.EventStore`; also an ``AsyncEngine``, an
            ``aiosqlite.Connection`` to a file (of which only the file's name is used), or a
            ``psycopg_pool.AsyncConnectionPool``. What the caller made is never closed.
        tenant, durability, …: as for :class:`~eventstore.EventStore`.

    Belongs to the event loop that first uses it. An operation whose task is cancelled has
    happened whole, or not at all.
    """

    def __init__(
        self,
        target: Target = ":memory:",
        *,
        tenant: str = "default",
        durability: Durability = "full",
        codec: Codec | None = None,
        clock: Callable[[], datetime] | None = None,
        schema: str | None = None,
        pool_min_size: int = 5,
        pool_max_size: int = 20,
        pool_timeout: float = 30.0,
        cache_bytes: int = BYTES,
        read_only: bool = False,
    ) -> None:
        pool = PoolOptions(pool_min_size, pool_max_size, pool_timeout)
        options = Options(durability, schema, pool, read_only)
        engine, owned = engines.open_async_engine(target, options)
        self.database = Transactions(engine, owned=owned, now_us=self.now_us, read_only=read_only)
        self.core = Core(self.database, tenant, codec, clock, cache_bytes)
        self.concurrency: Concurrency = self.database.asyncio
        self._is_guest = False

    @property
    def tenant(self) -> str:
        """Whose threads these are."""
        return self.core.tenant

    @property
    def codec(self) -> Codec:
        """What turns values into bytes and back."""
        return self.core.codec

    def now_us(self) -> int:
        """What the store's clock says, in microseconds since 1970 UTC."""
        return self.core.now_us()

    async def setup(self) -> None:
        """Create or migrate the tables. Done at first use; safe from many processes at once."""
        await self.concurrency.run(self.database.setup())

    async def pending(self) -> list[str]:
        """Names of the migrations that the database lacks; runs none of them."""
        return await self.concurrency.run(self.database.pending())

    async def close(self) -> None:
        """Close every connection that this store opened. A second call does nothing."""
        if not self._is_guest:
            await self.database.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.database.engine.url!r}, tenant={self.tenant!r})"

    async def _flat(self, pages: Pages) -> AsyncGenerator[RecordedEvent, None]:
        # Closed by hand, here and below: what is dropped half-way the event loop closes later,
        # and in a task of its own.
        async with aclosing(iterate(self.concurrency, pages)) as found:
            async for page in found:
                for event in page:
                    yield event

    # --- reading ------------------------------------------------------------------------

    async def head(self, thread_id: str, ns: str = "") -> Head:
        """The end of a log; of a thread that is not there, an end at 0."""
        return await self.concurrency.run(self.core.head(thread_id, ns))

    async def read(
        self, thread_id: str, ns: str = "", *, after: int = 0, upto: int | None = None
    ) -> AsyncGenerator[RecordedEvent, None]:
        """The events of a log, oldest first, verified and decoded, a page at a time."""
        pages = await self.concurrency.run(self.core.read(thread_id, ns, after, upto))
        async with aclosing(self._flat(pages)) as events:
            async for event in events:
                yield event

    async def replay(
        self,
        thread_id: str,
        ns: str = "",
        *,
        upto: Position | None = None,
        fingerprint: str = "",
        snapshots: bool = True,
    ) -> Replay[AsyncGenerator[RecordedEvent, None]]:
        """What to fold to know the state of a thread: the nearest snapshot, then the events."""
        found = await self.concurrency.run(
            self.core.replay(thread_id, ns, upto, fingerprint, snapshots)
        )
        return Replay(found.head, found.position, found.snapshot, self._flat(found.events))

    async def lineage(self, at: Position) -> Lineage:
        """What stands before a position in its log: its beginning, a fork, or a base."""
        return await self.concurrency.run(self.core.lineage(at))

    async def read_span(
        self, thread_id: str, after: Position, upto: int | None
    ) -> AsyncGenerator[RecordedEvent, None]:
        """Events behind a position of one log, up to seq ``upto`` or its end."""
        pages = await self.concurrency.run(self.core.read_span(thread_id, after, upto))
        async with aclosing(self._flat(pages)) as events:
            async for event in events:
                yield event

    async def thread_at(self, thread_key: int) -> ThreadInfo | None:
        """The thread of this tenant stored under a key, unless it is being deleted."""
        return await self.concurrency.run(self.core.thread_at(thread_key))

    async def thread(self, thread_id: str) -> ThreadInfo:
        """What is known of one thread."""
        return await self.concurrency.run(self.core.thread(thread_id))

    async def threads(
        self,
        *,
        status: Status | None = None,
        prefix: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        after: ThreadInfo | None = None,
        limit: int = 100,
    ) -> list[ThreadInfo]:
        """One page of this tenant's threads, the most recently active first."""
        return await self.concurrency.run(
            self.core.threads(
                status=status, prefix=prefix, metadata=metadata, after=after, limit=limit
            )
        )

    async def thread_counts(self) -> dict[str, int]:
        """How many threads this tenant has, by status."""
        return await self.concurrency.run(self.core.thread_counts())

    async def namespaces(self, thread_id: str) -> list[str]:
        """The logs of a thread that have events, what forks were given included."""
        return await self.concurrency.run(self.core.namespaces(thread_id))

    async def snapshot_positions(
        self, thread_id: str, fingerprint: str, ns: str = ""
    ) -> list[Position]:
        """Where a log's usable snapshots are, oldest first; bases left out."""
        return await self.concurrency.run(self.core.snapshot_positions(thread_id, fingerprint, ns))

    # --- appending ----------------------------------------------------------------------

    async def append(
        self,
        thread_id: str,
        events: Sequence[Event | Fork],
        expected_seq: int,
        ns: str = "",
        *,
        status: Status | None = None,
        metadata: Mapping[str, Any] | None = None,
        ttl: timedelta | None = None,
    ) -> int:
        """Append a batch, all or nothing, to a log that must end at ``expected_seq``."""
        return await self.concurrency.run(
            self.core.append(
                thread_id, events, expected_seq, ns, status=status, metadata=metadata, ttl=ttl
            )
        )

    async def append_after(
        self,
        head: Head,
        events: Sequence[Event | Fork],
        *,
        status: Status | None = None,
        metadata: Mapping[str, Any] | None = None,
        ttl: timedelta | None = None,
        snapshot: NewSnapshot | None = None,
        now_us: int | None = None,
    ) -> Head:
        """Append to the log whose end the caller has read, without reading it again."""
        return await self.concurrency.run(
            self.core.append_after(
                head,
                events,
                status=status,
                metadata=metadata,
                ttl=ttl,
                snapshot=snapshot,
                now_us=now_us,
            )
        )

    async def append_together(
        self,
        additions: Sequence[Addition],
        *,
        status: Status | None = None,
        metadata: Mapping[str, Any] | None = None,
        ttl: timedelta | None = None,
        now_us: int | None = None,
    ) -> list[Head]:
        """Append to several logs of one thread in one transaction, all or nothing."""
        return await self.concurrency.run(
            self.core.append_together(
                additions, status=status, metadata=metadata, ttl=ttl, now_us=now_us
            )
        )

    async def fork(
        self,
        source_thread_id: str,
        source_seq: int,
        thread_id: str,
        *,
        ns: str = "",
        data: Any = None,
        metadata: Mapping[str, Any] | None = None,
        ttl: timedelta | None = None,
    ) -> int:
        """Start a new thread that goes on from a position of another, without copying anything."""
        return await self.concurrency.run(
            self.core.fork(
                source_thread_id,
                source_seq,
                thread_id,
                ns=ns,
                data=data,
                metadata=metadata,
                ttl=ttl,
            )
        )

    async def put_snapshot(self, head: Head, snapshot: NewSnapshot) -> None:
        """Store a snapshot of the state at ``head`` (outside an append, as a rebuild does)."""
        await self.concurrency.run(self.core.put_snapshot(head, snapshot))

    async def set_thread(self, thread_id: str, **values: Any) -> ThreadInfo:
        """Change ``metadata``, ``status``, ``ttl`` (seconds or ``None``) or ``pinned``."""
        return await self.concurrency.run(self.core.set_thread(thread_id, **values))

    # --- removing -----------------------------------------------------------------------

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
        """Remove a thread whole: its logs, snapshots and links. Forks of it stay whole."""
        return await self.concurrency.run(
            self.core.delete_thread(
                thread_id,
                reason,
                idle_since=idle_since,
                keep_if=keep_if,
                unchanged=unchanged,
                policy=policy,
                asked_by=asked_by,
                erase=erase,
            )
        )

    async def finish_deletions(self, reason: str = "deleted") -> int:
        """End deletions that were cut short; returns how many threads were removed."""
        return await self.concurrency.run(self.core.finish_deletions(reason))

    async def delete_snapshots(self, thread_id: str) -> int:
        """Delete every snapshot that can be folded again; returns how many."""
        return await self.concurrency.run(self.core.delete_snapshots(thread_id))

    # --- trimming -----------------------------------------------------------------------

    async def trim_points(self, thread_id: str, ns: str = "") -> list[TrimPoint]:
        """Where a log can be cut, oldest first: at sound snapshots, unless a fork forbids it."""
        return await self.concurrency.run(self.core.trim_points(thread_id, ns))

    async def trim(
        self,
        thread_id: str,
        seq: int,
        reason: str = "trimmed",
        *,
        keep_if: Callable[[ThreadInfo], bool] | None = None,
        dry_run: bool = False,
    ) -> Trimmed:
        """Remove what is before the last of the :meth:`trim_points` at or before ``seq``."""
        return await self.concurrency.run(
            self.core.trim(thread_id, seq, reason, keep_if=keep_if, dry_run=dry_run)
        )

    # --- archiving ----------------------------------------------------------------------

    async def dump(self, thread_id: str) -> Dump:
        """One thread as a file, as it is at one moment; iterate over it, and close it after use."""
        return await self.concurrency.run(self.core.dump(thread_id))

    async def load(self, source: Source) -> ThreadInfo:
        """Put a thread back from a file, as it was: its name, key and generation, and every row."""
        if isinstance(source, Dump):
            return await self.concurrency.run(self.core.load(source))
        with await asyncio.to_thread(Dump.open, source) as dump:
            return await self.concurrency.run(self.core.load(dump))

    # --- sealing ------------------------------------------------------------------------

    async def seal(
        self,
        thread_id: str,
        older_than: datetime,
        *,
        keep_if: Callable[[ThreadInfo], bool] | None = None,
        dry_run: bool = False,
    ) -> Sealed:
        """Pack the events of a thread that were recorded before a moment, many into one row."""
        return await self.concurrency.run(
            self.core.seal(thread_id, older_than, keep_if=keep_if, dry_run=dry_run)
        )

    # --- retention: what may go, what must stay ----------------------------------------

    def with_tenant(self, tenant: str) -> Self:
        """The same store for the threads of another tenant."""
        twin = copy.copy(self)
        twin.core = self.core.for_tenant(tenant)
        twin._is_guest = True
        return twin

    async def tenants(self) -> list[str]:
        """Every tenant that has a thread in this database, in order."""
        return await self.concurrency.run(self.core.tenants())

    async def pin(self, thread_id: str, reason: str, by: str) -> ThreadInfo:
        """Keep a thread whatever any policy says, until :meth:`unpin` (a legal hold, say)."""
        return await self.concurrency.run(self.core.pin(thread_id, reason, by))

    async def unpin(self, thread_id: str) -> ThreadInfo:
        """Let policies decide about a thread again."""
        return await self.concurrency.run(self.core.unpin(thread_id))

    async def set_ttl(self, thread_id: str, ttl: timedelta | None) -> ThreadInfo:
        """Give a thread its own time to live (whole seconds, rounded up), or that of its policy."""
        return await self.concurrency.run(self.core.set_ttl(thread_id, ttl))

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
        """One page of threads in the order of their keys, which never change."""
        return await self.concurrency.run(
            self.core.scan(
                first=first,
                last=last,
                after=after,
                limit=limit,
                all_tenants=all_tenants,
                idle_before=idle_before,
                created_before=created_before,
                with_ttl=with_ttl,
            )
        )

    async def prune(
        self,
        batch: Sequence[Expired],
        *,
        keep_if: Callable[[ThreadInfo], bool] | None = None,
        rows: int = 2000,
        seconds: float = 0.02,
    ) -> list[Outcome]:
        """Remove small threads that may go, as many as fit into one short transaction."""
        return await self.concurrency.run(
            self.core.prune(batch, keep_if=keep_if, rows=rows, seconds=seconds)
        )

    async def descendants(self, thread_id: str) -> list[ThreadInfo]:
        """The threads that hold bytes of this one or refer to them, in the order of their keys."""
        return await self.concurrency.run(self.core.descendants(thread_id))

    async def tombstones(self, limit: int = 100, after: Tombstone | None = None) -> list[Tombstone]:
        """One page of what is left of this tenant's removed threads, the last removed first."""
        return await self.concurrency.run(self.core.tombstones(limit, after))

    async def reclaim(self, bytes_max: int) -> int:
        """Give free pages of an SQLite file back to the file system, in one short step."""
        return await self.concurrency.run(self.core.reclaim(bytes_max))

    # --- retention: sweepers that share the work ----------------------------------------

    async def claim_slice(
        self, holder: str, lease: timedelta, due: datetime, *, all_tenants: bool = False
    ) -> Slice | None:
        """Claim the part of the key space that has waited longest for a sweep."""
        return await self.concurrency.run(
            self.core.claim_slice(holder, lease, due, all_tenants=all_tenants)
        )

    async def renew_slice(self, claimed: Slice, holder: str, lease: timedelta) -> bool:
        """Hold a slice longer, counted from now; false when it is somebody else's by now."""
        return await self.concurrency.run(self.core.renew_slice(claimed, holder, lease))

    async def release_slice(
        self, claimed: Slice, holder: str, swept_at: datetime | None = None
    ) -> None:
        """Give a slice back, if the holder still has it."""
        await self.concurrency.run(self.core.release_slice(claimed, holder, swept_at))

    async def begin_sweep(self, holder: str, cutoff: datetime, policy: Mapping[str, Any]) -> str:
        """Record that a sweep begins, what it goes by and the moment it judges at; its id."""
        return await self.concurrency.run(self.core.begin_sweep(holder, cutoff, policy))

    async def end_sweep(self, sweep_id: str, counts: Mapping[str, Any]) -> None:
        """Record what a sweep did."""
        await self.concurrency.run(self.core.end_sweep(sweep_id, counts))

    async def sweeps(self, limit: int = 20) -> list[SweepRecord]:
        """The sweeps of this database on record, the last first."""
        return await self.concurrency.run(self.core.sweeps(limit))

    # --- inspecting ---------------------------------------------------------------------

    async def verify(self, thread_id: str) -> VerifyReport:
        """Walk the digest chain of every log of a thread, decode everything, check every link."""
        return await self.concurrency.run(self.core.verify(thread_id))

    async def stats(self, thread_id: str | None = None) -> Stats:
        """How much is stored, for one thread or for all of this tenant's."""
        return await self.concurrency.run(self.core.stats(thread_id))
