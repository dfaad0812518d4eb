"""The event store for event loops: the twin of ``EventStore``, over the same operations.

A thin shell over :class:`~eventstore.core.Core`; what each operation means and raises is said
in :mod:`eventstore.store`, and a test holds that both have the same. On PostgreSQL it awaits
an asynchronous driver. On SQLite a whole operation runs on one of the store's own threads,
with the same driver as the synchronous store: a driver that goes to another thread for every
statement costs several times as much.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from eventstore import dialects
from eventstore.async_database import open_database
from eventstore.codec import Codec
from eventstore.core import Core
from eventstore.driving import perform_each
from eventstore.events import (
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
from eventstore.postgresql import PoolOptions
from eventstore.reading import Pages
from eventstore.tails import BYTES

if TYPE_CHECKING:
    from aiosqlite import Connection as AiosqliteConnection
    from psycopg_pool import AsyncConnectionPool
    from sqlalchemy.ext.asyncio import AsyncEngine

    from eventstore import store

    Target = store.Target | AsyncEngine | AiosqliteConnection | AsyncConnectionPool[Any]

T = TypeVar("T")


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
        durability: dialects.Durability = "full",
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
        options = dialects.Options(durability, schema, pool, read_only)
        self.database = open_database(target, options, self.now_us)
        self.core = Core(self.database, tenant, codec, clock, cache_bytes)

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
        await self._perform(self.database.setup())

    async def pending(self) -> list[str]:
        """Names of the migrations that the database lacks; runs none of them."""
        return await self._perform(self.database.pending())

    async def close(self) -> None:
        """Close every connection that this store opened. A second call does nothing."""
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

    async def _perform(self, operation: Awaitable[T]) -> T:
        return await self.database.perform(operation)

    async def _flat(self, pages: Pages) -> AsyncGenerator[RecordedEvent, None]:
        # Closed by hand, here and below: what is dropped half-way the event loop closes later,
        # and in a task of its own.
        async with aclosing(perform_each(self.database.perform, pages)) as found:
            async for page in found:
                for event in page:
                    yield event

    # --- reading ------------------------------------------------------------------------

    async def head(self, thread_id: str, ns: str = "") -> Head:
        """The end of a log; of a thread that is not there, an end at 0."""
        return await self._perform(self.core.head(thread_id, ns))

    async def read(
        self, thread_id: str, ns: str = "", *, after: int = 0, upto: int | None = None
    ) -> AsyncGenerator[RecordedEvent, None]:
        """The events of a log, oldest first, verified and decoded, a page at a time."""
        pages = await self._perform(self.core.read(thread_id, ns, after, upto))
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
        found = await self._perform(self.core.replay(thread_id, ns, upto, fingerprint, snapshots))
        return Replay(found.head, found.position, found.snapshot, self._flat(found.events))

    async def lineage(self, at: Position) -> Lineage:
        """What stands before a position in its log: its beginning, a fork, or a base."""
        return await self._perform(self.core.lineage(at))

    async def read_span(
        self, thread_id: str, after: Position, upto: int | None
    ) -> AsyncGenerator[RecordedEvent, None]:
        """Events behind a position of one log, up to seq ``upto`` or its end."""
        pages = await self._perform(self.core.read_span(thread_id, after, upto))
        async with aclosing(self._flat(pages)) as events:
            async for event in events:
                yield event

    async def thread_at(self, thread_key: int) -> ThreadInfo | None:
        """The thread of this tenant stored under a key, unless it is being deleted."""
        return await self._perform(self.core.thread_at(thread_key))

    async def thread(self, thread_id: str) -> ThreadInfo:
        """What is known of one thread."""
        return await self._perform(self.core.thread(thread_id))

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
        return await self._perform(
            self.core.threads(
                status=status, prefix=prefix, metadata=metadata, after=after, limit=limit
            )
        )

    async def thread_counts(self) -> dict[str, int]:
        """How many threads this tenant has, by status."""
        return await self._perform(self.core.thread_counts())

    async def namespaces(self, thread_id: str) -> list[str]:
        """The logs of a thread that have events, what forks were given included."""
        return await self._perform(self.core.namespaces(thread_id))

    async def snapshot_positions(
        self, thread_id: str, fingerprint: str, ns: str = ""
    ) -> list[Position]:
        """Where a log's usable snapshots are, oldest first; bases left out."""
        return await self._perform(self.core.snapshot_positions(thread_id, fingerprint, ns))

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
    ) -> int:
        """Append a batch, all or nothing, to a log that must end at ``expected_seq``."""
        return await self._perform(
            self.core.append(thread_id, events, expected_seq, ns, status=status, metadata=metadata)
        )

    async def append_after(
        self,
        head: Head,
        events: Sequence[Event | Fork],
        *,
        status: Status | None = None,
        metadata: Mapping[str, Any] | None = None,
        snapshot: NewSnapshot | None = None,
        now_us: int | None = None,
    ) -> Head:
        """Append to the log whose end the caller has read, without reading it again."""
        return await self._perform(
            self.core.append_after(
                head, events, status=status, metadata=metadata, snapshot=snapshot, now_us=now_us
            )
        )

    async def append_together(
        self,
        additions: Sequence[Addition],
        *,
        status: Status | None = None,
        metadata: Mapping[str, Any] | None = None,
        now_us: int | None = None,
    ) -> list[Head]:
        """Append to several logs of one thread in one transaction, all or nothing."""
        return await self._perform(
            self.core.append_together(additions, status=status, metadata=metadata, now_us=now_us)
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
    ) -> int:
        """Start a new thread that goes on from a position of another, without copying anything."""
        return await self._perform(
            self.core.fork(
                source_thread_id, source_seq, thread_id, ns=ns, data=data, metadata=metadata
            )
        )

    async def put_snapshot(self, head: Head, snapshot: NewSnapshot) -> None:
        """Store a snapshot of the state at ``head`` (outside an append, as a rebuild does)."""
        await self._perform(self.core.put_snapshot(head, snapshot))

    async def set_thread(self, thread_id: str, **values: Any) -> ThreadInfo:
        """Change ``metadata``, ``status``, ``ttl`` (seconds or ``None``) or ``pinned``."""
        return await self._perform(self.core.set_thread(thread_id, **values))

    # --- removing -----------------------------------------------------------------------

    async def delete_thread(
        self,
        thread_id: str,
        reason: str = "deleted",
        *,
        idle_since: datetime | None = None,
        keep_if: Callable[[ThreadInfo], bool] | None = None,
    ) -> bool:
        """Remove a thread whole: its logs, snapshots and links. Forks of it stay whole."""
        return await self._perform(
            self.core.delete_thread(thread_id, reason, idle_since=idle_since, keep_if=keep_if)
        )

    async def finish_deletions(self, reason: str = "deleted") -> int:
        """End deletions that were cut short; returns how many threads were removed."""
        return await self._perform(self.core.finish_deletions(reason))

    async def delete_snapshots(self, thread_id: str) -> int:
        """Delete every snapshot that can be folded again; returns how many."""
        return await self._perform(self.core.delete_snapshots(thread_id))

    # --- inspecting ---------------------------------------------------------------------

    async def verify(self, thread_id: str) -> VerifyReport:
        """Walk the digest chain of every log of a thread, decode everything, check every link."""
        return await self._perform(self.core.verify(thread_id))

    async def stats(self, thread_id: str | None = None) -> Stats:
        """How much is stored, for one thread or for all of this tenant's."""
        return await self._perform(self.core.stats(thread_id))
