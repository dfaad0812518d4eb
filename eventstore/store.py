"""The event store: opens and ends transactions around the operations, and nothing else.

Values are encoded before a transaction opens and decoded after it has ended, so that a
slow value holds no lock. Errors of drivers leave here in our own words. An append whose
commit was lost with its connection is looked up before it is tried again (rule 3).
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from sqlalchemy import URL, Connection, Engine, exc

from eventstore import chain, dialects, migrations, operations, records
from eventstore.codec import Codec
from eventstore.errors import (
    ConcurrencyError,
    ConfigurationError,
    CorruptEventError,
    DuplicateKeyError,
    EventStoreError,
    PositionNotFoundError,
    StoreBusyError,
    StoreClosedError,
    StoreUnavailableError,
    ThreadExistsError,
    ThreadNotFoundError,
)
from eventstore.events import (
    FORK,
    Event,
    Fork,
    Head,
    NewSnapshot,
    Position,
    RecordedEvent,
    Replay,
    Snapshot,
    Stats,
    Status,
    ThreadInfo,
    VerifyReport,
    to_micros,
)
from eventstore.schema import SqlRow

log = logging.getLogger(__name__)

T = TypeVar("T")

PAGE: Final = 256
"""Events read at a time."""

DELETE_BATCH: Final = 1_000
"""Events deleted in one transaction."""

ATTEMPTS: Final = 5
"""Tries of one append, while connections keep getting lost."""

ACTIVE_EVERY_US: Final = 60_000_000
"""``active_at`` is rewritten once a minute at most."""

_HEADER_BYTES: Final = 32


def _utc_now() -> datetime:
    return datetime.now(UTC)


class EventStore:
    """An append-only log of events per thread, in SQLite or another SQL database.

    Args:
        target: a path (``"runs.db"``), ``":memory:"``, a SQLAlchemy URL, an ``Engine``, or a
            ``sqlite3.Connection``. What the caller made is never closed.
        tenant: threads of one tenant are not seen by another.
        durability: ``"full"`` survives power loss, ``"normal"`` any crash of the process.
        codec: turns values into bytes and back; register application types on it.
        clock: tells the time, timezone-aware.

    Raises:
        ConfigurationError: the target cannot be opened.
        SchemaVersionError: the database was written by a newer version.

    Safe to share between threads of a process; other processes open the same file.
    """

    def __init__(
        self,
        target: str | os.PathLike[str] | URL | Engine | sqlite3.Connection = ":memory:",
        *,
        tenant: str = "default",
        durability: dialects.Durability = "full",
        codec: Codec | None = None,
        clock: Callable[[], datetime] = _utc_now,
    ) -> None:
        self.tenant = tenant
        self.codec = codec or Codec()
        self._clock = clock
        self.engine, self._owned = dialects.open_engine(target, durability)
        self._is_set_up = False
        self._closed = False

    # --- opening and closing ------------------------------------------------------------

    def setup(self) -> None:
        """Create or migrate the tables. Done at first use; safe from many processes at once."""
        if self._closed:
            raise StoreClosedError
        with self._transaction(write=False) as conn:
            missing = migrations.pending(conn)
        if missing:
            with _translated():
                dialects.settle(self.engine)
            with self._transaction(write=True) as conn:
                migrations.migrate(conn, self.now_us())
        self._is_set_up = True

    def close(self) -> None:
        """Close every connection that this store opened. A second call does nothing."""
        if not self._closed and self._owned:
            self.engine.dispose()
        self._closed = True

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
        return f"EventStore({self.engine.url!r}, tenant={self.tenant!r})"

    def now_us(self) -> int:
        """What the store's clock says, in microseconds since 1970 UTC."""
        return to_micros(self._clock())

    def _read(self) -> AbstractContextManager[Connection]:
        if not self._is_set_up or self._closed:
            self.setup()
        return self._transaction(write=False)

    def _write(self) -> AbstractContextManager[Connection]:
        if not self._is_set_up or self._closed:
            self.setup()
        return self._transaction(write=True)

    @contextmanager
    def _transaction(self, *, write: bool) -> Iterator[Connection]:
        with _translated(), self.engine.begin() as conn:
            dialects.begin(conn, write=write)
            yield conn

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
    ) -> int:
        """Append a batch, all or nothing, to a log that must end at ``expected_seq``.

        Args:
            thread_id: made with its first event (``expected_seq=0``).
            events: at least one.
            expected_seq: the seq of the last event that the caller knows of; 0: none.
            ns: which log of the thread; ``""`` is the root graph's.
            status: of the thread from now on; ``None`` leaves it.
            metadata: of the thread, JSON-like; heeded when it is made.

        Returns:
            The seq of the last event of the batch. Events that were appended before under
            the same keys are found, not appended again.

        Raises:
            ConcurrencyError: the log ends elsewhere. Nothing was stored.
            DuplicateKeyError: another event has the key. Nothing was stored.
            SerializationError: a value cannot be stored. Nothing was.
            ThreadNotFoundError: ``expected_seq`` is above 0 and there is no such thread.
        """
        head = self.head(thread_id, ns)
        if head.seq != expected_seq:
            found = self._by_key(head, events)
            if found is not None:
                return found
            if not head.exists:
                raise ThreadNotFoundError(thread_id, self.tenant)
            raise ConcurrencyError(thread_id, ns, expected_seq, head.seq)
        return self.append_after(head, events, status=status, metadata=metadata).seq

    def append_after(
        self,
        head: Head,
        events: Sequence[Event | Fork],
        *,
        status: Status | None = None,
        metadata: Mapping[str, Any] | None = None,
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
        if not events:
            raise ValueError("an append needs at least one event")
        now = self.now_us() if now_us is None else now_us
        batch = records.encode(self.codec, head, events, now)
        touches = head.exists and (
            (status or head.status) != head.status or now - head.active_us >= ACTIVE_EVERY_US
        )
        new = replace(
            head,
            seq=head.seq + len(events),
            digest=batch.digests[-1],
            exists=True,
            status=status or head.status,
            active_us=now if touches or not head.exists else head.active_us,
            written=batch.size,
        )

        def run(conn: Connection) -> Head:
            written, after = batch, new
            if not head.exists:
                key = self._create(conn, new, metadata or {})
                if key != head.thread_key:  # another name has our first key, or had it
                    moved = replace(head, thread_key=key, digest=chain.genesis(key, head.ns))
                    written = records.encode(self.codec, moved, events, now)
                    after = replace(new, thread_key=key, digest=written.digests[-1])
            elif head.seq == 0 and not operations.is_live(conn, head.thread_key):
                raise ThreadNotFoundError(head.thread_id, self.tenant)
            operations.insert_events(conn, written.events)
            for fork in written.forks:
                if not operations.insert_fork(conn, fork):
                    raise self._source_gone(head, fork)
            if snapshot is not None:
                operations.put_snapshot(conn, records.snapshot_row(after, snapshot))
            if touches:
                operations.touch_thread(conn, after.thread_key, after.status, now)
            return after

        return self._append(run, head, batch, new)

    def _append(
        self, run: Callable[[Connection], Head], head: Head, batch: records.Batch, new: Head
    ) -> Head:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with self._write() as conn:
                    return run(conn)
            except exc.IntegrityError as error:
                raise self._why_refused(head, batch) from error
            except _LostConnection as error:
                log.warning("connection lost while appending (attempt %d): %s", attempt, error)
                if self._holds(head, batch):
                    return new
                if attempt == ATTEMPTS:
                    raise StoreUnavailableError(
                        f"connection lost {ATTEMPTS} times: {error}"
                    ) from error
                time.sleep(0.05 * 2**attempt)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _create(self, conn: Connection, head: Head, metadata: Mapping[str, Any]) -> int:
        row = {
            "tenant": self.tenant,
            "thread_id": head.thread_id,
            "created_at": head.active_us,
            "active_at": head.active_us,
            "status": head.status,
            "ttl": None,
            "pinned": False,
            "condemned_at": None,
            "metadata": dict(metadata),
        }
        try:
            return operations.create_thread(conn, row)
        except operations.NameTaken as error:
            raise ConcurrencyError(head.thread_id, head.ns, 0, 1) from error
        except operations.NoKeyFree as error:
            raise StoreBusyError(
                f"{operations.PROBES} former threads named {head.thread_id!r} are still being "
                "deleted; call finish_deletions() or try again later"
            ) from error

    def _why_refused(self, head: Head, batch: records.Batch) -> EventStoreError:
        now = self.head(head.thread_id, head.ns)
        if head.exists and (not now.exists or now.thread_key != head.thread_key):
            return ThreadNotFoundError(head.thread_id, self.tenant)
        if now.seq != head.seq:
            return ConcurrencyError(head.thread_id, head.ns, head.seq, now.seq)
        with self._read() as conn:
            taken = operations.events_by_key(conn, now.thread_key, head.ns, batch.keys)
        if taken:
            return DuplicateKeyError(head.thread_id, head.ns, taken[0].key, taken[0].seq)
        twice = [key for key in batch.keys if batch.keys.count(key) > 1]
        if twice:
            return DuplicateKeyError(head.thread_id, head.ns, twice[0], head.seq)
        return ConcurrencyError(head.thread_id, head.ns, head.seq, now.seq)

    def _holds(self, head: Head, batch: records.Batch) -> bool:
        """Whether the log holds exactly these rows: the unknown commit went through."""
        current = self.head(head.thread_id, head.ns)
        if not current.exists:
            return False
        count = len(batch.events)
        with self._read() as conn:
            rows = operations.read_events(
                conn, current.thread_key, head.ns, head.seq, head.seq + count, count
            )
        return [row.digest for row in rows] == batch.digests

    def _by_key(self, head: Head, events: Sequence[Event | Fork]) -> int | None:
        """The seq of the batch's last event, if the log holds the whole batch under its keys."""
        keys = [event.key for event in events if isinstance(event, Event) and event.key]
        if not head.exists or not events or len(keys) != len(events):
            return None
        with self._read() as conn:
            rows = operations.events_by_key(conn, head.thread_key, head.ns, keys)
        found = {row.key: row for row in rows}
        for event in events:
            assert isinstance(event, Event) and event.key
            row = found.get(event.key)
            if row is None:
                return None
            same = row.kind == event.kind and (
                row.payload == self.codec.encode(event.data)
                or self.codec.decode(row.payload) == event.data
            )
            if not same:
                raise DuplicateKeyError(head.thread_id, head.ns, event.key, row.seq)
        return int(max(row.seq for row in rows))

    def _source_gone(self, head: Head, fork: Mapping[str, Any]) -> EventStoreError:
        return PositionNotFoundError(
            head.thread_id,
            fork["source_ns"],
            fork["source_seq"],
            "the thread that this fork goes on from has been deleted",
        )

    # --- reading ------------------------------------------------------------------------

    def head(self, thread_id: str, ns: str = "") -> Head:
        """The end of a log; of a thread that is not there, an end at 0."""
        with self._read() as conn:
            row = operations.look_up(conn, self.tenant, thread_id, ns)
        return records.head(self.tenant, thread_id, ns, row)

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
        with self._read() as conn:
            row = operations.look_up(conn, self.tenant, thread_id, ns)
            if row is None:
                raise ThreadNotFoundError(thread_id, self.tenant)
            first = max(after + 1, 1)
        last = row.last_seq or 0
        span = operations.Span(row.thread_key, ns, first, last if upto is None else min(upto, last))
        return self._stream(thread_id, [span])

    def replay(
        self,
        thread_id: str,
        ns: str = "",
        *,
        upto: Position | None = None,
        fingerprint: str = "",
        snapshots: bool = True,
    ) -> Replay:
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
        with self._read() as conn:
            row = operations.look_up(conn, self.tenant, thread_id, ns, fingerprint)
            head = records.head(self.tenant, thread_id, ns, row)
            at = upto or head.position
            if upto is None or upto == head.position:
                marks = None if row is None else (row.last_fork, row.last_snapshot)
            else:
                self._check_position(conn, thread_id, at)
                marks = None
            rows: Sequence[SqlRow] = ()
            chosen = fingerprint if snapshots else _NO_SNAPSHOT
            route = operations.trace(conn, at, chosen, marks if snapshots else None)
            if route.snapshot is not None:
                rows = operations.snapshot_chain(conn, route.snapshot)
        snapshot, digest = self._snapshot(thread_id, route.snapshot, rows)
        if route.snapshot is not None and snapshot is None:
            return self.replay(thread_id, ns, upto=upto, snapshots=False)
        events = self._stream(thread_id, route.spans, digest)
        return Replay(head, at, snapshot, events)

    def _check_position(self, conn: Connection, thread_id: str, at: Position) -> None:
        row = operations.thread_by_key(conn, at.thread_key)
        if row is None or row.tenant != self.tenant or row.condemned_at is not None:
            raise PositionNotFoundError(thread_id, at.ns, at.seq, "its thread is not there")
        last = operations.head_seq(conn, at.thread_key, at.ns)
        if not 1 <= at.seq <= last:
            raise PositionNotFoundError(row.thread_id, at.ns, at.seq, f"the log ends at seq {last}")

    def _snapshot(
        self, thread_id: str, at: Position | None, rows: Sequence[SqlRow]
    ) -> tuple[Snapshot | None, bytes | None]:
        """A snapshot with its event's digest; a damaged one that is not a base is passed over."""
        if at is None:
            return None, None
        try:
            return records.snapshot(at, rows), rows[0].digest
        except CorruptEventError as error:
            if rows and rows[0].is_base:
                raise error.at(thread_id, at.ns, at.seq) from error
            log.warning("unusable snapshot of thread %r at %d: %s", thread_id, at.seq, error)
            return None, None

    def _stream(
        self, thread_id: str, spans: Sequence[operations.Span], digest: bytes | None = None
    ) -> Iterator[RecordedEvent]:
        """The events of these spans; ``digest`` is the link before the first, if it is known."""
        for key, ns, first, last in spans:
            reader = records.EventReader(self.codec, thread_id, key, ns, first - 1, digest)
            digest = None
            while reader.after < last:
                with self._read() as conn:
                    rows = operations.read_events(conn, key, ns, reader.after, last, PAGE)
                yield from reader.feed(rows)
                if not rows or reader.after != rows[-1].seq:
                    raise self._gap(thread_id, key, ns, reader.after + 1)

    def _gap(self, thread_id: str, key: int, ns: str, seq: int) -> EventStoreError:
        with self._read() as conn:
            row = operations.thread_by_key(conn, key)
        if row is None or row.condemned_at is not None:
            return ThreadNotFoundError(thread_id, self.tenant)
        return CorruptEventError(
            "the event is missing, or history no longer reaches back this far",
            thread_id=thread_id, ns=ns, seq=seq,
        )  # fmt: skip

    def marks(
        self, at: Position, fingerprint: str = ""
    ) -> tuple[Position | None, Position | None, Position | None]:
        """What stands before a position in its log: last fork, its source, last usable snapshot."""
        with self._read() as conn:
            fork, snapshot = operations.marks(conn, at, fingerprint)
            source = fork and operations.fork_source(conn, at.thread_key, at.ns, fork)
        return (
            at._replace(seq=fork) if fork else None,
            source or None,
            at._replace(seq=snapshot) if snapshot else None,
        )

    def read_span(
        self, thread_id: str, after: Position, upto: int | None
    ) -> Iterator[RecordedEvent]:
        """Events behind a position of one log, up to seq ``upto`` or its end.

        The log may be another thread's of this tenant, as a fork's lineage is.
        """
        if upto is None:
            with self._read() as conn:
                upto = operations.head_seq(conn, after.thread_key, after.ns)
        span = operations.Span(after.thread_key, after.ns, after.seq + 1, upto)
        return self._stream(thread_id, [span])

    def thread_at(self, thread_key: int) -> ThreadInfo | None:
        """The thread of this tenant stored under a key, unless it is being deleted."""
        with self._read() as conn:
            row = operations.thread_by_key(conn, thread_key)
        if row is None or row.tenant != self.tenant or row.condemned_at is not None:
            return None
        return records.thread_info(row)

    # --- forks and snapshots ------------------------------------------------------------

    def fork(
        self,
        source_thread_id: str,
        source_seq: int,
        thread_id: str,
        *,
        ns: str = "",
        data: Any = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> int:
        """Start a new thread that goes on from a position of another, without copying anything.

        Returns:
            The new thread's seq (1: the fork event).

        Raises:
            ThreadNotFoundError: no such source thread.
            PositionNotFoundError: the source's log does not reach that far.
            ThreadExistsError: the new thread is there already.
        """
        source = self.head(source_thread_id, ns)
        if not source.exists:
            raise ThreadNotFoundError(source_thread_id, self.tenant)
        if not 1 <= source_seq <= source.seq:
            raise PositionNotFoundError(
                source_thread_id, ns, source_seq, f"the log ends at seq {source.seq}"
            )
        head = self.head(thread_id, ns)
        if head.exists:
            raise ThreadExistsError(thread_id, self.tenant)
        event = Fork(Position(source.thread_key, ns, source_seq), data)
        return self.append_after(head, [event], metadata=metadata).seq

    def put_snapshot(self, head: Head, snapshot: NewSnapshot) -> None:
        """Store a snapshot of the state at ``head`` (outside an append, as a rebuild does)."""
        row = records.snapshot_row(head, snapshot)
        try:
            with self._write() as conn:
                if not operations.is_live(conn, head.thread_key):
                    raise ThreadNotFoundError(head.thread_id, self.tenant)
                operations.put_snapshot(conn, row)
        except exc.IntegrityError:
            log.debug("another writer stored a snapshot at %s first", head.position)

    def delete_snapshots(self, thread_id: str) -> int:
        """Delete every snapshot that can be folded again; returns how many."""
        with self._write() as conn:
            row = operations.look_up(conn, self.tenant, thread_id, "")
            if row is None:
                raise ThreadNotFoundError(thread_id, self.tenant)
            return operations.drop_snapshots(conn, row.thread_key)

    def snapshot_positions(self, thread_id: str, fingerprint: str, ns: str = "") -> list[Position]:
        """Where a log's usable snapshots are, oldest first; bases left out.

        Raises:
            ThreadNotFoundError: no such thread.
        """
        key = self.thread(thread_id).thread_key
        with self._read() as conn:
            rows = operations.snapshots_of(conn, key, ns)
        return [
            Position(key, ns, row.seq)
            for row in rows
            if row.fingerprint == fingerprint and not row.is_base
        ]

    # --- threads ------------------------------------------------------------------------

    def thread(self, thread_id: str) -> ThreadInfo:
        """What is known of one thread.

        Raises:
            ThreadNotFoundError: no such thread.
        """
        with self._read() as conn:
            row = operations.look_up(conn, self.tenant, thread_id, "")
        if row is None:
            raise ThreadNotFoundError(thread_id, self.tenant)
        return records.thread_info(row)

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
        place = None if after is None else (to_micros(after.active_at), after.thread_key)
        with self._read() as conn:
            rows = operations.list_threads(
                conn,
                self.tenant,
                status=status,
                prefix=prefix,
                metadata=metadata or {},
                after=place,
                limit=limit,
            )
        return [records.thread_info(row) for row in rows]

    def set_thread(self, thread_id: str, **values: Any) -> ThreadInfo:
        """Change ``metadata``, ``status``, ``ttl`` (seconds or ``None``) or ``pinned``.

        Raises:
            ThreadNotFoundError: no such thread.
            ConfigurationError: something else was given.
        """
        unknown = set(values) - {"metadata", "status", "ttl", "pinned"}
        if unknown:
            raise ConfigurationError(
                f"a thread has no {', '.join(sorted(unknown))}; it has metadata, status, ttl, "
                "pinned"
            )
        with self._write() as conn:
            row = operations.look_up(conn, self.tenant, thread_id, "")
            if row is None:
                raise ThreadNotFoundError(thread_id, self.tenant)
            if values:
                operations.update_thread(conn, row.thread_key, values)
        return self.thread(thread_id)

    def delete_thread(
        self, thread_id: str, reason: str = "deleted", *, idle_since: datetime | None = None
    ) -> bool:
        """Remove a thread whole: its logs, snapshots and links. Forks of it stay whole.

        First it is condemned, from when on no reader sees it and no append succeeds; then
        forks get what they need of it; then it is removed in batches. If the process dies
        meanwhile, :meth:`finish_deletions` ends the work.

        Args:
            reason: kept in the tombstone.
            idle_since: leave the thread alone if it has an event after this moment; looked
                at under the same lock that condemns it.

        Returns:
            Whether it was removed; ``False`` only because of ``idle_since``.

        Raises:
            ThreadNotFoundError: no such thread.
        """
        with self._write() as conn:
            row = operations.look_up(conn, self.tenant, thread_id, "")
            if row is None:
                raise ThreadNotFoundError(thread_id, self.tenant)
            key = row.thread_key
            if not operations.hold(conn, key):
                raise ThreadNotFoundError(thread_id, self.tenant)
            if idle_since and operations.last_recorded(conn, key) > to_micros(idle_since):
                return False
            operations.condemn(conn, key, self.now_us(), _NO_DIGEST)
        self._remove(key, reason)
        return True

    def finish_deletions(self, reason: str = "deleted") -> int:
        """End deletions that were cut short; returns how many threads were removed."""
        with self._read() as conn:
            keys = operations.condemned(conn, self.tenant)
        for key in keys:
            self._remove(key, reason)
        return len(keys)

    def _remove(self, key: int, reason: str) -> None:
        self._rehome_all(key)
        count, size = 0, 0
        with self._read() as conn:
            logs = operations.namespaces(conn, key)
        for row in self._sizes(key):
            count, size = count + 1, size + row.stored
        for ns, first, last in logs:
            for upto in range(first + DELETE_BATCH, last, DELETE_BATCH):
                with self._write() as conn:
                    operations.remove_events(conn, key, ns, upto - 1)
        tombstone = {
            "thread_key": key,
            "deleted_at": self.now_us(),
            "tenant": self.tenant,
            "reason": reason,
            "events": count,
            "bytes": size,
        }
        buried = False
        while not buried:
            with self._write() as conn:
                buried = operations.bury(conn, key, tombstone)
            if not buried:
                self._rehome_all(key)

    def _rehome_all(self, key: int) -> None:
        while True:
            with self._write() as conn:
                forks = operations.dependants(conn, key, 1)
                if not forks:
                    return
                operations.rehome(conn, forks[0])

    # --- looking after what is stored ---------------------------------------------------

    def verify(self, thread_id: str) -> VerifyReport:
        """Walk the digest chain of every log of a thread, decode everything, check every link.

        Raises:
            ThreadNotFoundError: no such thread.
        """
        with self._read() as conn:
            row = operations.look_up(conn, self.tenant, thread_id, "")
            if row is None:
                raise ThreadNotFoundError(thread_id, self.tenant)
            logs = operations.namespaces(conn, row.thread_key)
        problems: list[str] = []
        events = snapshots = 0
        for ns, _, last in logs:
            with self._read() as conn:
                rows = operations.snapshots_of(conn, row.thread_key, ns)
                forks = operations.forks_of(conn, row.thread_key, ns)
            snapshots += len(rows)
            problems += self._verify_snapshots(thread_id, ns, rows)
            linked = {fork.seq for fork in forks}
            for span, digest in _runs(row.thread_key, ns, last, rows):
                try:
                    for event in self._stream(thread_id, [span], digest):
                        events += 1
                        if event.kind == FORK and event.seq not in linked:
                            problems.append(f"{ns!r} seq {event.seq}: the fork has no link")
                except CorruptEventError as error:
                    problems.append(str(error))
        return VerifyReport(
            thread_id, tuple(ns for ns, _, _ in logs), events, snapshots, tuple(problems)
        )

    def _verify_snapshots(self, thread_id: str, ns: str, rows: Sequence[SqlRow]) -> Iterator[str]:
        present = {row.seq for row in rows}
        for row in rows:
            where = f"thread {thread_id!r}, namespace {ns!r}, snapshot at seq {row.seq}"
            if not records.verifies(row):
                yield f"{where}: does not match its checksum"
                continue
            if row.rests_on is not None and row.rests_on not in present:
                yield f"{where}: rests on one at seq {row.rests_on}, which is missing"
            with self._read() as conn:
                event = operations.read_events(conn, row.thread_key, ns, row.seq - 1, row.seq, 1)
            if event and event[0].digest != row.digest:
                yield f"{where}: was taken of another history"

    def stats(self, thread_id: str | None = None) -> Stats:
        """How much is stored, for one thread or for all of this tenant's.

        Raises:
            ThreadNotFoundError: no such thread.
        """
        total = [0] * 6
        for key in self._keys(thread_id):
            total[0] += 1
            for row in self._sizes(key):
                total[1] += 1
                total[2] += self.codec.raw_size(row.start) if row.stored else 0
                total[3] += row.stored
            with self._read() as conn:
                count, size = operations.snapshot_sizes(conn, key)
            total[4] += count
            total[5] += size
        return Stats(*total)

    def _keys(self, thread_id: str | None) -> Iterator[int]:
        if thread_id is not None:
            yield self.thread(thread_id).thread_key
            return
        after = -1
        while True:
            with self._read() as conn:
                page = operations.thread_keys(conn, self.tenant, after, PAGE)
            if not page:
                return
            yield from page
            after = page[-1]

    def _sizes(self, key: int) -> Iterator[SqlRow]:
        after = ("", 0)
        while True:
            with self._read() as conn:
                rows = operations.payload_sizes(conn, key, after, PAGE, _HEADER_BYTES)
            if not rows:
                return
            yield from rows
            after = (rows[-1].ns, rows[-1].seq)


class _LostConnection(StoreUnavailableError):
    """The connection went away inside a transaction: whether it was committed is unknown."""


_NO_DIGEST: Final = bytes(16)

_NO_SNAPSHOT: Final = "\0"
"""A fingerprint that no snapshot has."""


@contextmanager
def _translated() -> Iterator[None]:
    """Drivers' errors in our words; ``IntegrityError`` is for the operation to explain."""
    try:
        yield
    except exc.IntegrityError:
        raise
    except exc.SQLAlchemyError as error:
        if dialects.is_lost_connection(error):
            raise _LostConnection(str(error)) from error
        ours = dialects.translate(error)
        if ours is None:
            raise
        raise ours from error


def _runs(
    key: int, ns: str, last: int, snapshots: Sequence[SqlRow]
) -> Iterator[tuple[operations.Span, bytes | None]]:
    """The parts of a log that must be whole: from its beginning, or from each base on."""
    bases = [row for row in snapshots if row.is_base and row.rests_on is None]
    if not bases:
        yield operations.Span(key, ns, 1, last), None
        return
    ends = [*(row.seq for row in bases[1:]), last]
    for base, end in zip(bases, ends, strict=True):
        yield operations.Span(key, ns, base.seq + 1, end), base.digest
