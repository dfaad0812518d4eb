"""The event store: opens and ends transactions around the operations, and nothing else.

Values are encoded before a transaction opens and decoded after it has ended, so that a
slow value holds no lock. Errors of drivers leave here in our own words. An append whose
commit was lost with its connection is looked up before it is tried again (rule 3).
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, get_args

from sqlalchemy import URL, Connection, Engine, exc

from eventstore import chain, dialects, migrations, operations, records
from eventstore.codec import Codec
from eventstore.errors import (
    ConcurrencyError,
    ConfigurationError,
    CorruptEventError,
    DuplicateKeyError,
    EventStoreError,
    LineageMovedError,
    PositionNotFoundError,
    SerializationError,
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
    Lineage,
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
        self._turns = dialects.turns(self.engine)
        self._is_set_up = False
        self._closed = False

    # --- opening and closing ------------------------------------------------------------

    def setup(self) -> None:
        """Create or migrate the tables. Done at first use; safe from many processes at once."""
        if self._closed:
            raise StoreClosedError
        with self._transaction(write=False) as conn:
            missing = migrations.pending(conn)
        with self._turns, _translated():
            dialects.settle(self.engine)
        if missing:
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
        with self._turns, _translated(), self.engine.connect() as conn:
            dialects.begin(conn, write=write)
            with conn.begin():
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
        found = self._by_key(head, events)
        if found is not None:
            return found
        if head.seq != expected_seq:
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
        if chain.is_prefix(records.name("a namespace", head.ns)):
            raise ConfigurationError(f"the namespace {head.ns!r} is kept for what forks are given")
        now = self.now_us() if now_us is None else now_us
        known = _json(metadata or {})
        attempt = self._attempt(head, events, status, now)

        def run(conn: Connection) -> Head:
            nonlocal attempt
            if not head.exists:
                place = self._place_for(conn, attempt.new, known)
                if place != head:  # our first key is another's, or the thread was made meanwhile
                    attempt = self._attempt(place, events, status, now)
            elif head.seq == 0 and not operations.is_live(conn, head.thread_key):
                raise ThreadNotFoundError(head.thread_id, self.tenant)
            self._insert(conn, attempt, snapshot)
            return attempt.new

        for count in range(1, ATTEMPTS + 1):
            try:
                with self._write() as conn:
                    return run(conn)
            except (exc.IntegrityError, _Refused) as error:
                raise self._why_refused(attempt.head, attempt.batch) from error
            except _LostConnection as error:
                log.warning("connection lost while appending (attempt %d): %s", count, error)
                if self._holds(attempt):
                    return attempt.new
                if count == ATTEMPTS:
                    raise StoreUnavailableError(
                        f"connection lost {ATTEMPTS} times: {error}"
                    ) from error
                time.sleep(0.05 * 2**count)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _attempt(
        self, head: Head, events: Sequence[Event | Fork], status: str | None, now: int
    ) -> _Attempt:
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
        return _Attempt(head, batch, new, touches)

    def _insert(self, conn: Connection, attempt: _Attempt, snapshot: NewSnapshot | None) -> None:
        new = attempt.new
        if not operations.append_events(conn, attempt.batch.events):
            raise _Refused
        for fork in attempt.batch.forks:
            fault = operations.insert_fork(conn, fork, self.tenant)
            if fault is not None:
                place = (fork["source_ns"], fork["source_seq"])
                raise PositionNotFoundError(new.thread_id, *place, f"cannot fork there: {fault}")
        if snapshot is not None:
            operations.put_snapshot(conn, records.snapshot_row(new, snapshot))
        if attempt.touches:
            operations.touch_thread(conn, new.thread_key, new.status, new.active_us)

    def _place_for(self, conn: Connection, new: Head, metadata: str) -> Head:
        """Make the thread of ``new``; the end of its log, empty, under the key that it got."""
        row = {
            "tenant": self.tenant,
            "thread_id": new.thread_id,
            "created_at": new.active_us,
            "active_at": new.active_us,
            "status": new.status,
            "ttl": None,
            "pinned": False,
            "condemned_at": None,
            "metadata": metadata,
        }
        try:
            key = operations.create_thread(conn, row)
        except operations.NameTaken as error:
            found = operations.look_up(conn, self.tenant, new.thread_id, new.ns)
            made = records.head(self.tenant, new.thread_id, new.ns, found)
            if made.seq > 0:
                raise ConcurrencyError(new.thread_id, new.ns, 0, made.seq) from error
            return made
        except operations.NoKeyFree as error:
            raise StoreBusyError(
                f"{operations.PROBES} former threads named {new.thread_id!r} are still being "
                "deleted; call finish_deletions() or try again later"
            ) from error
        return Head(new.thread_id, key, new.ns, 0, chain.genesis(key, new.ns), exists=False)

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
        if len(set(batch.keys)) < len(batch.keys):
            twice = max(batch.keys, key=Counter(batch.keys).__getitem__)
            return DuplicateKeyError(head.thread_id, head.ns, twice, head.seq)
        return CorruptEventError("the event to append behind is not the one that was read").at(
            head.thread_id, head.ns, head.seq
        )

    def _holds(self, attempt: _Attempt) -> bool:
        """Whether the log holds exactly these rows: the unknown commit went through."""
        head, count = attempt.head, len(attempt.batch.events)
        with self._read() as conn:
            rows = operations.read_events(
                conn, head.thread_key, head.ns, head.seq, head.seq + count, count
            )
        return [row.digest for row in rows] == attempt.batch.digests

    def _by_key(self, head: Head, events: Sequence[Event | Fork]) -> int | None:
        """The seq of the batch's last event, if the log holds the whole batch under its keys."""
        named = [e for e in events if isinstance(e, Event) and e.key is not None]
        keys = [event.key for event in named if event.key is not None]
        if not head.exists or not events or len(named) != len(events):
            return None
        with self._read() as conn:
            rows = operations.events_by_key(conn, head.thread_key, head.ns, keys)
        found = {row.key: row for row in rows}
        for event, key in zip(named, keys, strict=True):
            row = found.get(key)
            if row is None:
                return None
            same = row.kind == event.kind and (
                row.payload == self.codec.encode(event.data)
                or self.codec.decode(row.payload) == event.data
            )
            if not same:
                raise DuplicateKeyError(head.thread_id, head.ns, key, row.seq)
        return int(max(row.seq for row in rows))

    # --- reading ------------------------------------------------------------------------

    def head(self, thread_id: str, ns: str = "") -> Head:
        """The end of a log; of a thread that is not there, an end at 0."""
        records.name("a thread_id", thread_id)
        records.name("a namespace", ns)
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
        last = records.head(self.tenant, thread_id, ns, row).seq
        first = max(after + 1, 1)
        span = operations.Span(row.thread_key, ns, first, last if upto is None else min(upto, last))
        return self._stream(thread_id, [span], own=row.thread_key)

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
        events = self._lineage(thread_id, head.thread_key, route, digest)
        return Replay(head, at, snapshot, events)

    def _lineage(
        self, thread_id: str, own: int, route: operations.Route, digest: bytes | None
    ) -> Iterator[RecordedEvent]:
        """The events of a route; each fork among them must lead from one span to the next."""
        come_from = route.snapshot
        for span in route.spans:
            link = digest if span.before == route.snapshot else None
            for event in self._stream(thread_id, [span], link, own):
                if event.kind == FORK:
                    claimed = _claim(*event.data["source"])
                    led = come_from is not None and _claim(*come_from) == claimed
                    if event.seq != span.first or not led:
                        raise CorruptEventError(
                            "the fork's link is missing, or leads elsewhere than the event says"
                        ).at(thread_id, event.ns, event.seq)
                yield event
            come_from = Position(span.thread_key, span.ns, span.last)

    def _check_position(self, conn: Connection, thread_id: str, at: Position) -> None:
        row = operations.thread_by_key(conn, at.thread_key)
        if row is None or row.tenant != self.tenant or row.condemned_at is not None:
            raise PositionNotFoundError(thread_id, at.ns, at.seq, "its thread is not there")
        last = operations.head_seq(conn, at.thread_key, at.ns)
        if not 1 <= at.seq <= last and operations.floor(conn, at) != at.seq:
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
        self,
        thread_id: str,
        spans: Sequence[operations.Span],
        digest: bytes | None = None,
        own: int | None = None,
    ) -> Iterator[RecordedEvent]:
        """The events of these spans.

        Args:
            digest: the link before the first event, if it is known.
            own: the key of the thread that is being read; the spans may be its ancestors'.
        """
        for key, ns, first, last in spans:
            reader = records.EventReader(self.codec, thread_id, key, ns, first - 1, digest)
            digest = None
            while reader.after < last:
                with self._read() as conn:
                    rows = operations.read_events(conn, key, ns, reader.after, last, PAGE)
                yield from reader.feed(rows)
                if not rows or reader.after != rows[-1].seq:
                    raise self._gap(thread_id, own, key, ns, reader.after + 1)

    def _gap(self, thread_id: str, own: int | None, key: int, ns: str, seq: int) -> EventStoreError:
        """Why an event that should follow does not: damage, or a thread deleted meanwhile."""
        with self._read() as conn:
            row = operations.thread_by_key(conn, key)
        if row is not None and row.condemned_at is None:
            return CorruptEventError(
                "the event is missing, or history no longer reaches back this far"
            ).at(thread_id, ns, seq)
        if own is None:
            own = self.head(thread_id).thread_key
        return (
            ThreadNotFoundError(thread_id, self.tenant)
            if own == key
            else LineageMovedError(thread_id)
        )

    def lineage(self, at: Position) -> Lineage:
        """What stands before a position in its log: its beginning, a fork, or a base."""
        with self._read() as conn:
            fork, _ = operations.marks(conn, at, "")
            source = operations.fork_source(conn, at.thread_key, at.ns, fork) if fork else None
            floor = operations.floor(conn, at)
        if floor is not None and floor >= (fork or 0):
            return Lineage(floor + 1, None, at._replace(seq=floor))
        return Lineage(fork or 1, source, None)

    def read_span(
        self, thread_id: str, after: Position, upto: int | None
    ) -> Iterator[RecordedEvent]:
        """Events behind a position of one log, up to seq ``upto`` or its end.

        The log may be another thread's of this tenant, as a fork's lineage is.
        """
        with self._read() as conn:
            row = operations.thread_by_key(conn, after.thread_key)
            if row is None or row.tenant != self.tenant:
                raise PositionNotFoundError(thread_id, *after[1:], "its thread is not there")
            if upto is None:
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
            found = operations.look_up(conn, self.tenant, thread_id, "")
            row = found and operations.thread_by_key(conn, found.thread_key)
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
        if limit < 1:
            raise ConfigurationError(f"limit must be at least 1, not {limit}")
        if prefix is not None:
            records.name("a prefix", prefix)
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
        found = []
        for row in rows:
            try:
                found.append(records.thread_info(row))
            except CorruptEventError as error:  # the others are to be seen all the same
                log.error("left out of the list: %s", error)
        return found

    def set_thread(self, thread_id: str, **values: Any) -> ThreadInfo:
        """Change ``metadata``, ``status``, ``ttl`` (seconds or ``None``) or ``pinned``.

        Raises:
            ThreadNotFoundError: no such thread.
            ConfigurationError: something else was given.
        """
        stored = _thread_values(values)
        with self._write() as conn:
            row = operations.look_up(conn, self.tenant, thread_id, "")
            if row is None:
                raise ThreadNotFoundError(thread_id, self.tenant)
            if stored:
                operations.update_thread(conn, row.thread_key, stored)
        return self.thread(thread_id)

    def delete_thread(
        self,
        thread_id: str,
        reason: str = "deleted",
        *,
        idle_since: datetime | None = None,
        keep_if: Callable[[ThreadInfo], bool] | None = None,
    ) -> bool:
        """Remove a thread whole: its logs, snapshots and links. Forks of it stay whole.

        A small thread that no fork needs goes in one transaction. Another is condemned
        first, from when on no reader sees it and no append succeeds; then forks get what
        they need of it; then it is removed in batches. If the process dies meanwhile,
        :meth:`finish_deletions` ends the work.

        Args:
            reason: kept in the tombstone.
            idle_since: leave the thread alone if it has an event after this moment.
            keep_if: leave it alone if this says so. Both are asked under the lock that
                seals its fate.

        Returns:
            Whether it was removed.

        Raises:
            ThreadNotFoundError: no such thread.
        """
        with self._write() as conn:
            found = operations.look_up(conn, self.tenant, thread_id, "")
            row = found and operations.hold(conn, found.thread_key)
            if row is None:
                raise ThreadNotFoundError(thread_id, self.tenant)
            key = row.thread_key
            if idle_since and operations.last_recorded(conn, key) > to_micros(idle_since):
                return False
            if keep_if is not None and keep_if(records.thread_info(row)):
                return False
            tombstone = self._tombstone(conn, row, reason)
            if tombstone["events"] <= DELETE_BATCH and operations.bury(conn, key, tombstone):
                return True
            operations.condemn(conn, key, self.now_us(), _NO_DIGEST)
        self._remove(tombstone)
        return True

    def finish_deletions(self, reason: str = "deleted") -> int:
        """End deletions that were cut short; returns how many threads were removed."""
        with self._read() as conn:
            keys = operations.condemned(conn, self.tenant)
        for key in keys:
            with self._read() as conn:
                row = operations.thread_by_key(conn, key)
                tombstone = row and self._tombstone(conn, row, reason)
            if tombstone:
                self._remove(tombstone)
        return len(keys)

    def _tombstone(self, conn: Connection, row: SqlRow, reason: str) -> dict[str, Any]:
        count, size = operations.totals(conn, row.thread_key)
        return {
            "thread_key": row.thread_key,
            "name_digest": chain.name_digest(row.tenant, row.thread_id),
            "life": row.life,
            "tenant": row.tenant,
            "deleted_at": self.now_us(),
            "reason": reason,
            "events": count,
            "bytes": size,
        }

    def _remove(self, tombstone: Mapping[str, Any]) -> None:
        """Remove a condemned thread. Forks first: what they still need is still there.

        Its key is never used again, so that others may do the same at the same time.
        """
        key = tombstone["thread_key"]
        self._rehome_all(key)
        with self._read() as conn:
            logs = operations.namespaces(conn, key)
        for ns, first, last in logs:
            for upto in range(first + DELETE_BATCH, last, DELETE_BATCH):
                with self._write() as conn:
                    operations.remove_events(conn, key, ns, upto - 1)
        with self._write() as conn:
            if operations.is_there(conn, key) and not operations.bury(conn, key, tombstone):
                raise AssertionError("a fork was made of a condemned thread")

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
        logs = []
        problems: list[str] = []
        with self._read() as conn:
            row = operations.look_up(conn, self.tenant, thread_id, "")
            if row is None:
                raise ThreadNotFoundError(thread_id, self.tenant)
            key = row.thread_key
            for ns, _, _ in operations.namespaces(conn, key):
                try:
                    records.name("a namespace", ns)
                    runs = operations.runs(conn, key, ns)
                except ValueError as error:
                    problems.append(f"namespace {ns!r}: a name or a seq was damaged: {error}")
                    continue
                snapshots = operations.snapshots_of(conn, key, ns)
                logs.append(_Log(ns, runs, snapshots, operations.forks_of(conn, key, ns)))
        events = 0
        for each in logs:
            try:
                events += self._verify_log(thread_id, key, each, problems)
            except records.WRONG_TYPE as error:
                problems.append(f"namespace {each.ns!r}: a column was damaged: {error}")
        return VerifyReport(
            thread_id,
            tuple(each.ns for each in logs),
            events,
            sum(len(each.snapshots) for each in logs),
            tuple(problems),
        )

    def _verify_log(self, thread_id: str, key: int, each: _Log, problems: list[str]) -> int:
        """Look through one log, note what is wrong, and return how many events are right."""
        linked = {
            fork.seq: _claim(fork.source_thread_key, fork.source_ns, fork.source_seq)
            for fork in each.forks
        }
        digests: dict[int, bytes] = {}
        for span, digest in self._verifiable(key, each.ns, each.runs, each.snapshots, problems):
            try:
                for event in self._stream(thread_id, [span], digest, key):
                    digests[event.seq] = event.digest
                    if event.kind == FORK and linked.get(event.seq) != _claim(
                        *event.data["source"]
                    ):
                        problems.append(f"{each.ns!r} seq {event.seq}: the fork's link is wrong")
            except CorruptEventError as error:
                problems.append(str(error))
        problems += _snapshot_problems(thread_id, each.ns, each.snapshots, digests)
        return len(digests)

    def _verifiable(
        self,
        key: int,
        ns: str,
        runs: Sequence[tuple[int, int]],
        snapshots: Sequence[SqlRow],
        problems: list[str],
    ) -> Iterator[tuple[operations.Span, bytes | None]]:
        """The runs of events that a log consists of, each with the link before it.

        A log begins at 1 or behind a base; what a fork was given of a deleted thread
        (a prefix) may also begin with an event that is there for its digest alone.
        """
        bases = {row.seq: row.digest for row in snapshots if row.is_base}
        for start, end in runs:
            digest = bases.get(start - 1)
            if digest is None and start > 1:
                if chain.origin(key, ns) == (key, ns):
                    problems.append(f"{ns!r}: the events before seq {start} are missing")
                start += 1
            yield operations.Span(key, ns, start, end), digest

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
                total[2] += self.codec.raw_size(row.start, row.stored)
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


class _Log(NamedTuple):
    """What ``verify`` looks at together: a log as it was at one moment, events excepted."""

    ns: str
    runs: list[tuple[int, int]]
    snapshots: Sequence[SqlRow]
    forks: Sequence[SqlRow]


class _Attempt(NamedTuple):
    """One try of an append: where, what, and the end of the log after it."""

    head: Head
    batch: records.Batch
    new: Head
    touches: bool


class _Refused(Exception):
    """The event to append behind was not there."""


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


def _claim(thread_key: int, ns: str, seq: int) -> tuple[int, str, int]:
    """A position by the log that it was first written to, wherever a copy of that stands now."""
    return (*chain.origin(thread_key, ns), seq)


def _snapshot_problems(
    thread_id: str, ns: str, rows: Sequence[SqlRow], digests: Mapping[int, bytes]
) -> Iterator[str]:
    """What is wrong with a log's snapshots, given the digests of its events."""
    present = {row.seq for row in rows}
    for row in rows:
        where = f"thread {thread_id!r}, namespace {ns!r}, snapshot at seq {row.seq}"
        if not records.verifies(row):
            yield f"{where}: does not match its checksum"
        elif row.rests_on is not None and row.rests_on not in present:
            yield f"{where}: rests on one at seq {row.rests_on}, which is missing"
        elif digests.get(row.seq, row.digest) != row.digest:
            yield f"{where}: was taken of another history"


def _json(metadata: Mapping[str, Any]) -> str:
    """The metadata of a thread as JSON text."""
    if not isinstance(metadata, Mapping):
        raise ConfigurationError(f"metadata must be a mapping, not {metadata!r:.80}")
    for name, value in metadata.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise SerializationError(
                f"metadata[{name!r}]", type(value).__name__, f"it has to be JSON: {error}"
            ) from error
    return json.dumps(dict(metadata), ensure_ascii=True)


def _thread_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """What ``set_thread`` was given, if it makes sense."""
    checks: dict[str, tuple[Callable[[Any], bool], str]] = {
        "metadata": (lambda value: isinstance(value, Mapping), "a mapping"),
        "status": (lambda value: value in get_args(Status), f"one of {get_args(Status)}"),
        "ttl": (
            lambda value: value is None or (type(value) is int and 0 <= value < 2**53),
            "seconds as a whole number, or None",
        ),
        "pinned": (lambda value: type(value) is bool, "True or False"),
    }
    for name, value in values.items():
        if name not in checks:
            raise ConfigurationError(f"a thread has no {name!r}; it has {', '.join(checks)}")
        fits, expected = checks[name]
        if not fits(value):
            raise ConfigurationError(f"{name} must be {expected}, not {value!r:.80}")
    stored = dict(values)
    if "metadata" in values:
        stored["metadata"] = _json(values["metadata"])
    return stored
