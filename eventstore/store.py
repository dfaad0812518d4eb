"""The event store for sync code. ``AsyncEventStore`` is the same for async code.

A thin shell: it opens and closes the database and runs the operations of
:class:`~eventstore.core.core.Core`, whose modules say what each of them means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from eventstore.cache import BYTES
from eventstore.closing import Closing
from eventstore.codec.codec import Codec
from eventstore.concurrency import Blocking, iterate_sync, run_sync
from eventstore.core.core import Core
from eventstore.core.read import Pages
from eventstore.db import engines
from eventstore.db.options import Durability, Options, PoolOptions
from eventstore.db.transactions import Transactions
from eventstore.leases import RUN_LEASE_S
from eventstore.models import Position, RecordedEvent, Replay
from eventstore.shell import Shell, sync_method

if TYPE_CHECKING:
    Engine = engines.SyncEngine
    Target = engines.Target


class EventStore(Shell, Closing):
    """An append-only log of events per thread, in SQLite or PostgreSQL.

    Args:
        target: a path (``"runs.db"``), ``":memory:"``, a SQLAlchemy URL, an ``Engine``, a
            ``sqlite3.Connection`` or a ``psycopg_pool.ConnectionPool``. Objects that the caller
            made are never closed.
        tenant: one tenant never sees the threads of another.
        durability: ``"full"`` survives power loss, ``"normal"`` any crash of the process (a
            crash of a PostgreSQL server may then lose the last moments).
        codec: turns values into bytes and back; register application types on it.
        clock: tells the time, timezone-aware.
        schema: the PostgreSQL schema of the tables, which must exist; ``None``: the first of the
            connection's search path.
        pool_min_size: connections to PostgreSQL that stay open once they were needed.
        pool_max_size: connections that may be open at most. A caller's engine or pool has its own
            limits.
        pool_timeout: seconds to wait for a connection before ``StoreBusyError``.
        cache_bytes: size of the log cache: stored bytes of the threads used last, so that graphs
            read only what is new; 0: no cache. Half as much again is used for old checkpoints
            that were read last, and a quarter for snapshots that were decoded last.
        run_lease_s: a run of a graph that shows no sign of life for so many seconds counts as
            dead, and a run that waits for its thread goes on; 2 at least. Living runs show it by
            a row that each process renews four times in that time, while it has long runs.
        read_only: refuse everything that writes, including creating or migrating tables and
            changing the journal mode of a file.
        allow_other_tables: set up the tables in a SQLite file that holds those of another
            application. Otherwise such a file is refused: its path was probably a mistake.

    Raises:
        ConfigurationError: the target cannot be opened.
        SchemaVersionError: the database was written by a newer version.

    Safe to share between threads of a process; other processes may open the same database.
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
        engine, owned = engines.open_engine(target, options)
        database = Transactions(engine, owned=owned, now_us=self.now_us, read_only=read_only)
        super().__init__(database, Blocking(), tenant, codec, clock, cache_bytes, run_lease_s)
        self._engine = engine

    @property
    def engine(self) -> Engine:
        """The engine, for statements and listeners of your own."""
        self.database.lender.release()  # it is there for everybody who uses the engine
        return self._engine

    def setup(self) -> None:
        """Create or migrate the tables. Done at first use; safe from many processes at once."""
        run_sync(self.database.setup())

    def pending(self) -> list[str]:
        """Names of the migrations that the database lacks; runs none of them.

        Raises:
            SchemaVersionError: it was written by a newer version.
        """
        return run_sync(self.database.pending())

    def close(self) -> None:
        """Close every connection that this store opened. A second call does nothing."""
        if not self._is_guest:
            self.core.leases.close()
            self.database.close()

    def read(
        self, thread_id: str, ns: str = "", *, after: int = 0, upto: int | None = None
    ) -> Iterator[RecordedEvent]:
        """The events of a log, oldest first, verified and decoded, a page at a time.

        Args:
            after: start after this seq.
            upto: end with this seq; ``None``: with the last one there is now.

        Raises:
            ThreadNotFoundError: no such thread, or deleted while being read.
            CorruptEventError: an event does not verify or decode.
        """
        return _flat(run_sync(self.core.read(thread_id, ns, after, upto)))

    def replay(
        self,
        thread_id: str,
        ns: str = "",
        *,
        upto: Position | None = None,
        fingerprint: str = "",
        snapshots: bool = True,
    ) -> Replay[Iterator[RecordedEvent]]:
        """What to fold to get the state of a thread: the nearest snapshot, then the events.

        Args:
            upto: the position to reach, in any log of this tenant; ``None``: the end of this
                one. The lineage is followed through forks, into other threads too.
            fingerprint: snapshots with another one are not used, except bases.
            snapshots: ``False`` starts as far back as the events go.

        Raises:
            PositionNotFoundError: no event is at ``upto``.
            CorruptEventError: while the events are read.
        """
        found = run_sync(self.core.replay(thread_id, ns, upto, fingerprint, snapshots))
        return replace(found, events=_flat(found.events))  # type: ignore[arg-type, return-value]

    def read_span(
        self, thread_id: str, after: Position, upto: int | None
    ) -> Iterator[RecordedEvent]:
        """Events after a position of one log, up to seq ``upto`` or its end.

        The log may belong to another thread of this tenant, as in the lineage of a fork.

        Raises:
            PositionNotFoundError: the thread of that log does not exist.
        """
        return _flat(run_sync(self.core.read_span(thread_id, after, upto)))

    # --- reading ------------------------------------------------------------------------

    head = sync_method(Core.head)
    lineage = sync_method(Core.lineage)
    thread_at = sync_method(Core.thread_at)
    thread = sync_method(Core.thread)
    threads = sync_method(Core.threads)
    thread_counts = sync_method(Core.thread_counts)
    namespaces = sync_method(Core.namespaces)
    branches = sync_method(Core.branches)
    stored = sync_method(Core.stored)
    snapshot_positions = sync_method(Core.snapshot_positions)

    # --- appending ----------------------------------------------------------------------

    append = sync_method(Core.append)
    append_after = sync_method(Core.append_after)
    append_together = sync_method(Core.append_together)
    fork = sync_method(Core.fork)
    put_snapshot = sync_method(Core.put_snapshot)
    set_thread = sync_method(Core.set_thread)

    # --- deleting and trimming ----------------------------------------------------------

    delete_thread = sync_method(Core.delete_thread)
    finish_deletions = sync_method(Core.finish_deletions)
    delete_snapshots = sync_method(Core.delete_snapshots)
    trim_points = sync_method(Core.trim_points)
    trim = sync_method(Core.trim)

    # --- archiving and sealing ----------------------------------------------------------

    dump = sync_method(Core.dump)
    load = sync_method(Core.load)
    seal = sync_method(Core.seal)

    # --- retention ----------------------------------------------------------------------

    pin = sync_method(Core.pin)
    unpin = sync_method(Core.unpin)
    set_ttl = sync_method(Core.set_ttl)
    descendants = sync_method(Core.descendants)
    tombstones = sync_method(Core.tombstones)
    reclaim = sync_method(Core.reclaim)
    sweeps = sync_method(Core.sweeps)

    # --- verifying and measuring --------------------------------------------------------

    verify = sync_method(Core.verify)
    check_database = sync_method(Core.check_database)
    stats = sync_method(Core.stats)


def _flat(pages: Pages) -> Iterator[RecordedEvent]:
    for page in iterate_sync(pages):
        yield from page
