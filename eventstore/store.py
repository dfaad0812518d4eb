"""The event store as applications use it, by blocking. Its twin is ``AsyncEventStore``.

A thin shell: it opens and closes the database, and drives :class:`~eventstore.core.Core`.
What an operation means is said here, for both.
"""

from __future__ import annotations

import copy
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from eventstore.codec.codec import Codec
from eventstore.concurrency import Blocking, Concurrency, iterate_sync, run_sync
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
    from psycopg_pool import ConnectionPool
    from sqlalchemy import URL, Engine

    Target = str | os.PathLike[str] | URL | Engine | sqlite3.Connection | ConnectionPool[Any]


class EventStore:
    """An append-only log of events per thread, in SQLite or PostgreSQL.

    Args:
        target: a path (``"runs.db"``), ``":memory:"``, a SQLAlchemy URL, an ``Engine``, a
            ``sqlite3.Connection`` or a ``psycopg_pool.ConnectionPool``. What the caller made
            is never closed.
        tenant: threads of one tenant are not seen by another.
        durability: ``"full"`` survives power loss, ``"normal"`` any crash of the process (a
            crash of a PostgreSQL server may then lose the last moments).
        codec: turns values into bytes and back; register application types on it.
        clock: tells the time, timezone-aware.
        schema: the PostgreSQL schema that the tables are in, which has to be there;
            ``None``: the first of the connection's search path.
        pool_min_size, pool_max_size: connections to PostgreSQL that are kept open once they
            were needed, and that may be open at most. A caller's engine or pool has its own.
        pool_timeout: seconds to wait for one of them before ``StoreBusyError``.
        cache_bytes: stored bytes of the threads used last that graphs keep in memory, so as to
            read only what is new the next time; 0: none.
        read_only: write nothing, whatever is called: neither tables, where they are missing or
            of an older version, nor the mode of a file.

    Raises:
        ConfigurationError: the target cannot be opened.
        SchemaVersionError: the database was written by a newer version.

    Safe to share between threads of a process; other processes open the same database.
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
        engine, owned = engines.open_engine(target, options)
        self.database = Transactions(engine, owned=owned, now_us=self.now_us, read_only=read_only)
        self.core = Core(self.database, tenant, codec, clock, cache_bytes)
        self._is_guest = False
        self.concurrency: Concurrency = Blocking()
        self.engine = engine

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
            self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.engine.url!r}, tenant={self.tenant!r})"

    # --- reading ------------------------------------------------------------------------

    def head(self, thread_id: str, ns: str = "") -> Head:
        """The end of a log; of a thread that is not there, an end at 0."""
        return run_sync(self.core.head(thread_id, ns))

    def read(
        self, thread_id: str, ns: str = "", *, after: int = 0, upto: int | None = None
    ) -> Iterator[RecordedEvent]:
        """The events of a log, oldest first, verified and decoded, a page at a time.

        Args:
            after: begin behind this seq.
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
        """What to fold to know the state of a thread: the nearest snapshot, then the events.

        Args:
            upto: the position to reach, in any log of this tenant; ``None``: the end of this
                one. The lineage is followed through forks, into other threads too.
            fingerprint: snapshots with another one are not used, bases excepted.
            snapshots: ``False`` folds from as far back as the events go.

        Raises:
            PositionNotFoundError: ``upto`` names nothing that is there.
            CorruptEventError: while the events are read.
        """
        found = run_sync(self.core.replay(thread_id, ns, upto, fingerprint, snapshots))
        return replace(found, events=_flat(found.events))  # type: ignore[arg-type, return-value]

    def lineage(self, at: Position) -> Lineage:
        """What stands before a position in its log: its beginning, a fork, or a base."""
        return run_sync(self.core.lineage(at))

    def read_span(
        self, thread_id: str, after: Position, upto: int | None
    ) -> Iterator[RecordedEvent]:
        """Events behind a position of one log, up to seq ``upto`` or its end.

        The log may be another thread's of this tenant, as a fork's lineage is.

        Raises:
            PositionNotFoundError: the thread of that log is not there.
        """
        return _flat(run_sync(self.core.read_span(thread_id, after, upto)))

    def thread_at(self, thread_key: int) -> ThreadInfo | None:
        """The thread of this tenant stored under a key, unless it is being deleted."""
        return run_sync(self.core.thread_at(thread_key))

    def thread(self, thread_id: str) -> ThreadInfo:
        """What is known of one thread.

        Raises:
            ThreadNotFoundError: no such thread.
        """
        return run_sync(self.core.thread(thread_id))

    def threads(
        self,
        *,
        status: Status | None = None,
        prefix: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        after: ThreadInfo | None = None,
        limit: int = 100,
    ) -> list[ThreadInfo]:
        """One page of this tenant's threads, the most recently active first.

        Args:
            status, prefix, metadata: only threads that have this status, whose id begins
                like this, whose metadata has these values at its top level.
            after: the last thread of the page before.
            limit: threads in a page.
        """
        return run_sync(
            self.core.threads(
                status=status, prefix=prefix, metadata=metadata, after=after, limit=limit
            )
        )

    def thread_counts(self) -> dict[str, int]:
        """How many threads this tenant has, by status."""
        return run_sync(self.core.thread_counts())

    def namespaces(self, thread_id: str) -> list[str]:
        """The logs of a thread that have events, what forks were given included.

        Raises:
            ThreadNotFoundError: no such thread.
        """
        return run_sync(self.core.namespaces(thread_id))

    def snapshot_positions(self, thread_id: str, fingerprint: str, ns: str = "") -> list[Position]:
        """Where a log's usable snapshots are, oldest first; bases left out.

        Raises:
            ThreadNotFoundError: no such thread.
        """
        return run_sync(self.core.snapshot_positions(thread_id, fingerprint, ns))

    # --- appending ----------------------------------------------------------------------

    def append(
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
        """Append a batch, all or nothing, to a log that must end at ``expected_seq``.

        Args:
            thread_id: made with its first event (``expected_seq=0``).
            events: at least one.
            expected_seq: the seq of the last event that the caller knows of; 0: none.
            ns: which log of the thread; ``""`` is the root graph's.
            status: of the thread from now on; ``None`` leaves it.
            metadata: of the thread, JSON-like; heeded when it is made.
            ttl: how long retention keeps the thread after its last event, in place of what a
                policy says; heeded when it is made. In whole seconds, rounded up.

        Returns:
            The seq of the last event of the batch. Events that were appended before under
            the same keys are found, not appended again.

        Raises:
            ConcurrencyError: the log ends elsewhere. Nothing was stored.
            DuplicateKeyError: another event has the key. Nothing was stored.
            SerializationError: a value cannot be stored. Nothing was.
            ThreadNotFoundError: ``expected_seq`` is above 0 and there is no such thread.
        """
        return run_sync(
            self.core.append(
                thread_id, events, expected_seq, ns, status=status, metadata=metadata, ttl=ttl
            )
        )

    def append_after(
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
        """Append to the log whose end the caller has read, without reading it again.

        Args:
            snapshot: of the state after these events; stored in the same transaction.
            now_us: when; ``None`` asks the clock.

        Returns:
            The new end of the log.

        Raises:
            As :meth:`append`.
        """
        return run_sync(
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

    def append_together(
        self,
        additions: Sequence[Addition],
        *,
        status: Status | None = None,
        metadata: Mapping[str, Any] | None = None,
        ttl: timedelta | None = None,
        now_us: int | None = None,
    ) -> list[Head]:
        """Append to several logs of one thread in one transaction, all or nothing.

        Args:
            additions: each to another log. Their ends may have been read at different moments,
                some of them before the thread was there.
            now_us: when; ``None`` asks the clock.

        Returns:
            The new ends of the logs, in the same order.

        Raises:
            As :meth:`append`, naming the log that is in the way. Nothing was stored in any.
            ValueError: the heads are of several threads, or two of one log.
        """
        return run_sync(
            self.core.append_together(
                additions, status=status, metadata=metadata, ttl=ttl, now_us=now_us
            )
        )

    def fork(
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
        """Start a new thread that goes on from a position of another, without copying anything.

        Returns:
            The new thread's seq (1: the fork event).

        Raises:
            ThreadNotFoundError: no such source thread.
            PositionNotFoundError: the source's log does not reach that far.
            ThreadExistsError: the new thread is there already.
        """
        return run_sync(
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

    def put_snapshot(self, head: Head, snapshot: NewSnapshot) -> None:
        """Store a snapshot of the state at ``head`` (outside an append, as a rebuild does).

        Raises:
            ThreadNotFoundError: no such thread.
        """
        run_sync(self.core.put_snapshot(head, snapshot))

    def set_thread(self, thread_id: str, **values: Any) -> ThreadInfo:
        """Change ``metadata``, ``status``, ``ttl`` (seconds or ``None``) or ``pinned``.

        Raises:
            ThreadNotFoundError: no such thread.
            ConfigurationError: something else was given.
        """
        return run_sync(self.core.set_thread(thread_id, **values))

    # --- removing -----------------------------------------------------------------------

    def delete_thread(
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
        """Remove a thread whole: its logs, snapshots and links. Forks of it stay whole.

        A small thread that no fork needs goes in one transaction. Another is marked for deletion
        first, from when on no reader sees it and no append succeeds; then forks get what
        they need of it; then it is removed in batches. If the process dies meanwhile,
        :meth:`finish_deletions` ends the work.

        Args:
            reason: kept in the tombstone.
            idle_since: leave the thread alone if it has an event after this moment.
            keep_if: leave it alone if this says so.
            unchanged: leave it alone unless its logs are exactly these, and end at these seqs.
                All three are asked under the lock that seals its deletion.
            policy, asked_by: kept in the tombstone.
            erase: leave a tombstone that tells nothing of the name: what it keeps instead
                nobody can make without a secret of this database. Reason and who asked are
                kept as they are given: name nobody in them whom the law wants forgotten.

        Returns:
            Whether it was removed.

        Raises:
            ThreadNotFoundError: no such thread.
        """
        return run_sync(
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

    def finish_deletions(self, reason: str = "deleted") -> int:
        """End deletions that were cut short; returns how many threads were removed.

        Args:
            reason: for those of which it is not known any more why they were begun.

        Raises:
            CorruptEventError: of a thread that was damaged; the others were removed.
        """
        return run_sync(self.core.finish_deletions(reason))

    def delete_snapshots(self, thread_id: str) -> int:
        """Delete every snapshot that can be folded again; returns how many.

        Raises:
            ThreadNotFoundError: no such thread.
        """
        return run_sync(self.core.delete_snapshots(thread_id))

    # --- trimming -----------------------------------------------------------------------

    def trim_points(self, thread_id: str, ns: str = "") -> list[TrimPoint]:
        """Where a log can be cut, oldest first: at sound snapshots that no fork goes back behind.

        Raises:
            ThreadNotFoundError: there is no such thread.
        """
        return run_sync(self.core.trim_points(thread_id, ns))

    def trim(
        self,
        thread_id: str,
        seq: int,
        reason: str = "trimmed",
        *,
        keep_if: Callable[[ThreadInfo], bool] | None = None,
        dry_run: bool = False,
    ) -> Trimmed:
        """Remove what is before the last of the :meth:`trim_points` at or before ``seq``.

        The state stays, and so does the history from there on: the snapshot at that point becomes
        the base of the root's log. The events up to it go, with the logs of subgraphs that ran for
        them (if the snapshot has a ``step``, the sign of a graph: other logs never go, whatever
        their names are); forks of the thread are given what they need first. It is done in steps,
        each a transaction after which the thread is whole: whoever is killed leaves one that is
        trimmed less far. Where there is no such point nothing happens.

        Keys of events that go are forgotten: an append with such a key is stored again. Do not
        trim past what somebody may still send again.

        Args:
            reason: for the program's own log.
            keep_if: asked in each step's transaction; the thread is left as it is then if true.
            dry_run: only count what would go.

        Raises:
            ThreadNotFoundError: there is no such thread.
        """
        return run_sync(self.core.trim(thread_id, seq, reason, keep_if=keep_if, dry_run=dry_run))

    # --- archiving ----------------------------------------------------------------------

    def dump(self, thread_id: str) -> Dump:
        """One thread as a file, as it is at one moment; iterate over it, and close it after use.

        The file is complete in itself: every row of the thread as it is stored, what it needs
        of threads that it was forked from, and the application's dictionaries. All of it is
        verified on the way. It is made in one read transaction (on PostgreSQL at REPEATABLE
        READ), and waits in memory or, if it is large, in a temporary file.

        Raises:
            ThreadNotFoundError: no such thread.
            CorruptEventError: something of it does not verify.
        """
        return run_sync(self.core.dump(thread_id))

    def load(self, source: Source) -> ThreadInfo:
        """Put a thread back from a file, as it was: its name, key and generation, and every row.

        Everything is verified first, and then inserted in one transaction. Checkpoint ids go on
        working, and the tombstone that the thread left is gone.

        Args:
            source: what :meth:`dump` gave, a path, bytes, a binary file or an iterable of bytes.

        Raises:
            ArchiveDamagedError: it is not what was written. Nothing was loaded.
            ArchiveVersionError: it was written by a newer version. Nothing was loaded.
            ArchiveError: it cannot be loaded here (it is of another tenant, say).
            ThreadExistsError: a thread of that name is there.
            StoreBusyError: a thread of that key is still being removed.
        """
        if isinstance(source, Dump):
            return run_sync(self.core.load(source))
        with Dump.open(source) as dump:
            return run_sync(self.core.load(dump))

    # --- sealing ------------------------------------------------------------------------

    def seal(
        self,
        thread_id: str,
        older_than: datetime,
        *,
        keep_if: Callable[[ThreadInfo], bool] | None = None,
        dry_run: bool = False,
    ) -> Sealed:
        """Pack the events of a thread that were recorded before a moment, many into one row.

        Everybody reads them as before, and their digests stay what they are. The last event of
        each log, a remainder too small to be worth it, and whatever is younger than a minute
        are left as they are.

        Args:
            older_than: events from this moment on, and behind the first such one, stay rows.
            keep_if: leave the thread alone if this says so; asked under a lock.
            dry_run: only say what would be sealed.

        Raises:
            ThreadNotFoundError: no such thread.
            CorruptEventError: an event does not verify. What is before it may be sealed.
        """
        return run_sync(self.core.seal(thread_id, older_than, keep_if=keep_if, dry_run=dry_run))

    # --- retention: what may go, what must stay ----------------------------------------

    def with_tenant(self, tenant: str) -> Self:
        """The same store for the threads of another tenant.

        It shares everything with this one: closing it closes nothing, and it ends with this one.
        """
        twin = copy.copy(self)
        twin.core = self.core.for_tenant(tenant)
        twin._is_guest = True
        return twin

    def tenants(self) -> list[str]:
        """Every tenant that has a thread in this database, in order."""
        return run_sync(self.core.tenants())

    def pin(self, thread_id: str, reason: str, by: str) -> ThreadInfo:
        """Keep a thread whatever any policy says, until :meth:`unpin` (a legal hold, say).

        When it returns, no sweep prunes the thread any more: whoever decides a thread's deletion
        looks at this under the same lock.

        Raises:
            ThreadNotFoundError: no such thread, or it is being deleted.
            ConfigurationError: no reason, or nobody who wants it.
        """
        return run_sync(self.core.pin(thread_id, reason, by))

    def unpin(self, thread_id: str) -> ThreadInfo:
        """Let policies decide about a thread again.

        Raises:
            ThreadNotFoundError: no such thread.
        """
        return run_sync(self.core.unpin(thread_id))

    def set_ttl(self, thread_id: str, ttl: timedelta | None) -> ThreadInfo:
        """Give a thread its own time to live (whole seconds, rounded up), or that of its policy.

        Raises:
            ThreadNotFoundError: no such thread.
        """
        return run_sync(self.core.set_ttl(thread_id, ttl))

    def scan(
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
        """One page of threads in the order of their keys, which never change.

        Args:
            first, last: only keys from here to there.
            after: the key of the last thread of the page before.
            limit: threads in a page; the page that is empty is behind the last.
            all_tenants: everybody's, not only this tenant's.
            idle_before, created_before, with_ttl: only threads that, to the minute, have had no
                append since; or that are that old; or that have a ttl of their own. Of several,
                one is enough.
        """
        return run_sync(
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

    def prune(
        self,
        batch: Sequence[Expired],
        *,
        keep_if: Callable[[ThreadInfo], bool] | None = None,
        rows: int = 2000,
        seconds: float = 0.02,
    ) -> list[Outcome]:
        """Remove small threads that may go, as many as fit into one short transaction.

        Each is judged again under its lock, as by :meth:`delete_thread`, and goes whole or not
        at all. Nothing is waited for: a thread that somebody else has locked is kept.

        Args:
            batch: threads of any tenant, each at most once. Threads of the same time lie together
                in the database: in the order of their age they go faster.
            keep_if: leave a thread alone if this says so; asked under its lock.
            rows: deleted at most in this transaction.
            seconds: after which it is to end; looked at after every few threads.

        Returns:
            What became of the first of them, in their order, of one at least: the list ends
            where there was no more room, and the rest was not touched. Of what is ``large``,
            :meth:`delete_thread` removes any amount.
        """
        return run_sync(self.core.prune(batch, keep_if=keep_if, rows=rows, seconds=seconds))

    def descendants(self, thread_id: str) -> list[ThreadInfo]:
        """The threads that hold bytes of this one or refer to them, in the order of their keys.

        Forks and forks of forks, and threads that were given what they need of it. A fork whose
        history was trimmed behind the place where it was forked is not among them, nor what was
        given only a snapshot of a fork in between, although their states may hold data of this
        thread: nothing that is stored tells so any more.

        Raises:
            ThreadNotFoundError: no such thread.
        """
        return run_sync(self.core.descendants(thread_id))

    def tombstones(self, limit: int = 100, after: Tombstone | None = None) -> list[Tombstone]:
        """One page of what is left of this tenant's removed threads, the last removed first.

        Args:
            after: the last one of the page before.
        """
        return run_sync(self.core.tombstones(limit, after))

    def reclaim(self, bytes_max: int) -> int:
        """Give free pages of an SQLite file back to the file system, in one short step.

        Returns:
            How many bytes that was; 0: there is nothing (more) to give. On PostgreSQL always:
            its vacuum makes free space usable again.
        """
        return run_sync(self.core.reclaim(bytes_max))

    # --- retention: sweepers that share the work ----------------------------------------

    def claim_slice(
        self, holder: str, lease: timedelta, due: datetime, *, all_tenants: bool = False
    ) -> Slice | None:
        """Claim the part of the key space that has waited longest for a sweep.

        Args:
            holder: a name that no other sweeper has.
            lease: how long it is held unless renewed, by the store's clock.
            due: parts whose last sweep began at this moment or later are left out.
            all_tenants: claim it for a sweep of everybody's threads; else of this tenant's.

        Returns:
            One that nobody else gets meanwhile; ``None``: there is none.
        """
        return run_sync(self.core.claim_slice(holder, lease, due, all_tenants=all_tenants))

    def renew_slice(self, claimed: Slice, holder: str, lease: timedelta) -> bool:
        """Hold a slice longer, counted from now; false when it is somebody else's by now."""
        return run_sync(self.core.renew_slice(claimed, holder, lease))

    def release_slice(self, claimed: Slice, holder: str, swept_at: datetime | None = None) -> None:
        """Give a slice back, if the holder still has it.

        Args:
            swept_at: when its sweep began; ``None``: it did not come to its end.
        """
        run_sync(self.core.release_slice(claimed, holder, swept_at))

    def begin_sweep(self, holder: str, cutoff: datetime, policy: Mapping[str, Any]) -> str:
        """Record that a sweep begins, what it goes by and the moment it judges at; its id."""
        return run_sync(self.core.begin_sweep(holder, cutoff, policy))

    def end_sweep(self, sweep_id: str, counts: Mapping[str, Any]) -> None:
        """Record what a sweep did.

        Raises:
            ConfigurationError: no sweep of that id is on record.
        """
        run_sync(self.core.end_sweep(sweep_id, counts))

    def sweeps(self, limit: int = 20) -> list[SweepRecord]:
        """The sweeps of this database on record, the last first."""
        return run_sync(self.core.sweeps(limit))

    # --- inspecting ---------------------------------------------------------------------

    def verify(self, thread_id: str) -> VerifyReport:
        """Walk the digest chain of every log of a thread, decode everything, check every link.

        Raises:
            ThreadNotFoundError: no such thread.
        """
        return run_sync(self.core.verify(thread_id))

    def stats(self, thread_id: str | None = None) -> Stats:
        """How much is stored, for one thread or for all of this tenant's.

        Raises:
            ThreadNotFoundError: no such thread.
        """
        return run_sync(self.core.stats(thread_id))


def _flat(pages: Pages) -> Iterator[RecordedEvent]:
    for page in iterate_sync(pages):
        yield from page
