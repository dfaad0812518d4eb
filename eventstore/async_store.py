"""The event store for async code: the same operations as ``EventStore``, to be awaited.

A thin shell over :class:`~eventstore.core.core.Core`. On PostgreSQL it awaits an asynchronous
driver. On SQLite a whole operation runs on one of the store's own threads, with the driver of the
synchronous store: a driver that goes to another thread for every statement costs several times as
much.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import datetime
from typing import TYPE_CHECKING

from eventstore.cache import BYTES
from eventstore.closing import AsyncClosing
from eventstore.codec.codec import Codec
from eventstore.concurrency import iterate
from eventstore.core.core import Core
from eventstore.core.read import Pages
from eventstore.db import engines
from eventstore.db.options import Durability, Options, PoolOptions
from eventstore.db.transactions import Transactions
from eventstore.leases import RUN_LEASE_S
from eventstore.models import Position, RecordedEvent, Replay
from eventstore.shell import Shell, async_method

if TYPE_CHECKING:
    Engine = engines.AnyEngine
    Target = engines.AsyncTarget


class AsyncEventStore(Shell, AsyncClosing):
    """An append-only log of events per thread, in SQLite or PostgreSQL, for ``async`` code.

    Args:
        target: as for :class:`~eventstore.EventStore`; also an ``AsyncEngine``, an
            ``aiosqlite.Connection`` to a file (of which only the file's name is used), or a
            ``psycopg_pool.AsyncConnectionPool``. Objects that the caller made are never closed.

    Further arguments are those of :class:`~eventstore.EventStore`.

    May be used in any number of event loops, also one after the other: on PostgreSQL each gets
    connections of its own. A caller's ``AsyncEngine`` or pool belongs to the event loop that first
    uses it, and any other one is refused with ``ConfigurationError``. An operation whose task is
    cancelled has happened whole, or not at all.
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
        run_lease_s: float = RUN_LEASE_S,
        read_only: bool = False,
        allow_other_tables: bool = False,
    ) -> None:
        pool = PoolOptions(pool_min_size, pool_max_size, pool_timeout)
        options = Options(durability, schema, pool, read_only, allow_other_tables)
        engine, owned = engines.open_async_engine(target, options)
        database = Transactions(
            engine,
            owned=owned,
            now_us=self.now_us,
            read_only=read_only,
            reopen=lambda: engines.reopen(target, options),
        )
        super().__init__(database, database.asyncio, tenant, codec, clock, cache_bytes, run_lease_s)
        self._engine = engine

    @property
    def engine(self) -> Engine:
        """The engine, for statements and listeners of your own; that of SQLite is a sync one."""
        self.database.lender.release()  # it is there for everybody who uses the engine
        return self._engine

    async def setup(self) -> None:
        """Create or migrate the tables. Done at first use; safe from many processes at once."""
        await self.concurrency.run(self.database.setup())

    async def pending(self) -> list[str]:
        """Names of the migrations that the database lacks; runs none of them."""
        return await self.concurrency.run(self.database.pending())

    async def close(self) -> None:
        """Close every connection that this store opened. A second call does nothing."""
        if not self._is_guest:
            self.core.leases.close()
            await self.database.aclose()

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
        """What to fold to get the state of a thread: the nearest snapshot, then the events."""
        found = await self.concurrency.run(
            self.core.replay(thread_id, ns, upto, fingerprint, snapshots)
        )
        return Replay(found.head, found.position, found.snapshot, self._flat(found.events))

    async def read_span(
        self, thread_id: str, after: Position, upto: int | None
    ) -> AsyncGenerator[RecordedEvent, None]:
        """Events after a position of one log, up to seq ``upto`` or its end."""
        pages = await self.concurrency.run(self.core.read_span(thread_id, after, upto))
        async with aclosing(self._flat(pages)) as events:
            async for event in events:
                yield event

    # --- reading ------------------------------------------------------------------------

    head = async_method(Core.head)
    lineage = async_method(Core.lineage)
    thread_at = async_method(Core.thread_at)
    thread = async_method(Core.thread)
    threads = async_method(Core.threads)
    thread_counts = async_method(Core.thread_counts)
    namespaces = async_method(Core.namespaces)
    branches = async_method(Core.branches)
    stored = async_method(Core.stored)
    snapshot_positions = async_method(Core.snapshot_positions)

    # --- appending ----------------------------------------------------------------------

    append = async_method(Core.append)
    append_after = async_method(Core.append_after)
    append_together = async_method(Core.append_together)
    fork = async_method(Core.fork)
    put_snapshot = async_method(Core.put_snapshot)
    set_thread = async_method(Core.set_thread)

    # --- deleting and trimming ----------------------------------------------------------

    delete_thread = async_method(Core.delete_thread)
    finish_deletions = async_method(Core.finish_deletions)
    delete_snapshots = async_method(Core.delete_snapshots)
    trim_points = async_method(Core.trim_points)
    trim = async_method(Core.trim)

    # --- archiving and sealing ----------------------------------------------------------

    dump = async_method(Core.dump)
    load = async_method(Core.load)
    seal = async_method(Core.seal)

    # --- retention ----------------------------------------------------------------------

    pin = async_method(Core.pin)
    unpin = async_method(Core.unpin)
    set_ttl = async_method(Core.set_ttl)
    descendants = async_method(Core.descendants)
    tombstones = async_method(Core.tombstones)
    reclaim = async_method(Core.reclaim)
    sweeps = async_method(Core.sweeps)

    # --- verifying and measuring --------------------------------------------------------

    verify = async_method(Core.verify)
    check_database = async_method(Core.check_database)
    stats = async_method(Core.stats)

    async def _flat(self, pages: Pages) -> AsyncGenerator[RecordedEvent, None]:
        # Closed explicitly, here and above: the event loop closes an abandoned generator later,
        # and in another task.
        async with aclosing(iterate(self.concurrency, pages)) as found:
            async for page in found:
                for event in page:
                    yield event
