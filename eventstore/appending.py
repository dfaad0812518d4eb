"""Appending to an event store: batches, forks and snapshots, each in one transaction.

Everything is encoded before the transaction opens. The caller names the end of the log that
it knows; of two writers one wins. An append whose commit was lost with its connection is
looked up before it is tried again, so that it happens once (rule 3).
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from eventstore import chain, inserting, operations, records, telemetry
from eventstore.errors import (
    ConcurrencyError,
    ConfigurationError,
    CorruptEventError,
    DuplicateKeyError,
    EventStoreError,
    PositionNotFoundError,
    SerializationError,
    StoreBusyError,
    ThreadExistsError,
    ThreadNotFoundError,
)
from eventstore.events import Event, Fork, Head, NewSnapshot, Position, Status
from eventstore.operations import Conflict
from eventstore.reading import Reading
from eventstore.transactor import Interrupted, LostConnection

if TYPE_CHECKING:
    from sqlalchemy import Connection

log = logging.getLogger(__name__)

ACTIVE_EVERY_US: Final = 60_000_000
"""``active_at`` is rewritten once a minute at most."""


class Appending(Reading):
    """What can be added to a store."""

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
        head = await self.head(thread_id, ns)
        found = await self._by_key(head, events)
        if found is not None:
            return found
        if head.seq != expected_seq:
            if not head.exists:
                raise ThreadNotFoundError(thread_id, self.tenant)
            telemetry.conflict()
            raise ConcurrencyError(thread_id, ns, expected_seq, head.seq)
        return (await self.append_after(head, events, status=status, metadata=metadata)).seq

    @telemetry.told_append
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
        attempt = await self._append(head, events, status, metadata, snapshot, now_us)
        if attempt.batch.forks:
            self.tails.forget(attempt.new.thread_key)
        else:
            self.tails.appended(attempt.head, attempt.new, attempt.batch.events, snapshot)
        return attempt.new

    async def _append(
        self,
        head: Head,
        events: Sequence[Event | Fork],
        status: Status | None,
        metadata: Mapping[str, Any] | None,
        snapshot: NewSnapshot | None,
        now_us: int | None,
    ) -> _Attempt:
        if not events:
            raise ValueError("an append needs at least one event")
        if chain.is_prefix(records.name("a namespace", head.ns)):
            raise ConfigurationError(f"the namespace {head.ns!r} is kept for what forks are given")
        now = self.now_us() if now_us is None else now_us
        known = "" if head.exists else json_text(metadata or {})
        attempt = self._attempt(head, events, status, now)

        def run(conn: Connection) -> _Attempt:
            nonlocal attempt
            if not head.exists:
                place = self._place_for(conn, attempt.new, known)
                if place != head:  # our first key is another's, or the thread was made meanwhile
                    attempt = self._attempt(place, events, status, now)
            elif head.seq == 0 and not operations.is_live(conn, head.thread_key):
                raise ThreadNotFoundError(head.thread_id, self.tenant)
            self._insert(conn, attempt, snapshot)
            return attempt

        # Where an append is one statement, it needs no transaction around it.
        plain = snapshot is None and not attempt.batch.forks
        first = chain.thread_key(self.tenant, head.thread_id, 0)
        hopeful = plain and not head.exists and head.thread_key == first
        doubts = 0
        while True:
            try:
                if hopeful:
                    row = {**self._thread_row(attempt.new, known), "thread_key": first, "life": 0}
                    done = await self.transactor.write_alone(
                        inserting.begin, row, attempt.batch.events
                    )
                    if done:
                        return attempt
                    hopeful = False
                if plain and head.seq > 0:
                    return await self.transactor.write_alone(run)
                return await self.transactor.write(run)
            except (Conflict, _Refused, ConcurrencyError) as error:
                # What was in our way may be our own commit, if one is in doubt.
                if doubts and await self._holds(attempt):
                    return attempt
                if hopeful:  # the name is in use, or was
                    hopeful = False
                    continue
                if isinstance(error, ConcurrencyError):
                    raise
                raise await self._why_refused(attempt.head, attempt.batch) from error
            except LostConnection as error:
                if await self._holds(attempt):
                    return attempt
                doubts += 1
                await self.transactor.pause(doubts, error)

    def _attempt(
        self, head: Head, events: Sequence[Event | Fork], status: str | None, now: int
    ) -> _Attempt:
        batch = records.encode(self.codec, head, events, now)
        late = now - head.active_us >= ACTIVE_EVERY_US
        touches = head.exists and (late or (status or head.status) != head.status)
        new = replace(
            head,
            seq=head.seq + len(events),
            digest=batch.digests[-1],
            exists=True,
            status=status or head.status,
            active_us=now if late or not head.exists else head.active_us,
            written=batch.size,
        )
        touch = inserting.Touch(new.status, new.active_us) if touches else None
        return _Attempt(head, batch, new, touch)

    def _insert(self, conn: Connection, attempt: _Attempt, snapshot: NewSnapshot | None) -> None:
        new = attempt.new
        if not inserting.append(conn, attempt.batch.events, attempt.touch):
            if not attempt.head.exists:
                raise Interrupted("a thread of that name came and went in the meantime")
            raise _Refused
        for fork in attempt.batch.forks:
            fault = operations.insert_fork(conn, fork, self.tenant)
            if fault is not None:
                place = (fork["source_ns"], fork["source_seq"])
                raise PositionNotFoundError(new.thread_id, *place, f"cannot fork there: {fault}")
        if snapshot is not None:
            operations.put_snapshot(conn, records.snapshot_row(new, snapshot))

    def _place_for(self, conn: Connection, new: Head, metadata: str) -> Head:
        """Make the thread of ``new``; the end of its log, empty, under the key that it got."""
        try:
            key = operations.create_thread(conn, self._thread_row(new, metadata))
        except operations.NameTaken as error:
            found = operations.look_up(conn, self.tenant, new.thread_id, new.ns)
            made = records.head(self.tenant, new.thread_id, new.ns, found)
            if made.seq > 0:
                raise ConcurrencyError(new.thread_id, new.ns, 0, made.seq) from error
            return made
        except Conflict as error:  # whose logs need not be in our way
            raise Interrupted("another writer made the thread at the same moment") from error
        except operations.NoKeyFree as error:
            raise StoreBusyError(
                f"{operations.PROBES} former threads named {new.thread_id!r} are still being "
                "deleted; call finish_deletions() or try again later"
            ) from error
        return Head(new.thread_id, key, new.ns, 0, chain.genesis(key, new.ns), exists=False)

    def _thread_row(self, new: Head, metadata: str) -> dict[str, Any]:
        return {
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

    async def _why_refused(self, head: Head, batch: records.Batch) -> EventStoreError:
        now = await self.head(head.thread_id, head.ns)
        if head.exists and (not now.exists or now.thread_key != head.thread_key):
            return ThreadNotFoundError(head.thread_id, self.tenant)
        if now.seq != head.seq:
            return ConcurrencyError(head.thread_id, head.ns, head.seq, now.seq)
        taken = await self.transactor.read(
            operations.events_by_key, now.thread_key, head.ns, batch.keys
        )
        if taken:
            return DuplicateKeyError(head.thread_id, head.ns, taken[0].key, taken[0].seq)
        if len(set(batch.keys)) < len(batch.keys):
            twice = max(batch.keys, key=Counter(batch.keys).__getitem__)
            return DuplicateKeyError(head.thread_id, head.ns, twice, head.seq)
        return CorruptEventError("the event to append behind is not the one that was read").at(
            head.thread_id, head.ns, head.seq
        )

    async def _holds(self, attempt: _Attempt) -> bool:
        """Whether the log holds exactly these rows: the unknown commit went through."""
        head, count = attempt.head, len(attempt.batch.events)
        rows = await self.transactor.read(
            operations.read_events, head.thread_key, head.ns, head.seq, head.seq + count, count
        )
        return [row.digest for row in rows] == attempt.batch.digests

    async def _by_key(self, head: Head, events: Sequence[Event | Fork]) -> int | None:
        """The seq of the batch's last event, if the log holds the whole batch under its keys."""
        named = [e for e in events if isinstance(e, Event) and e.key is not None]
        keys = [event.key for event in named if event.key is not None]
        if not head.exists or not events or len(named) != len(events):
            return None
        rows = await self.transactor.read(operations.events_by_key, head.thread_key, head.ns, keys)
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
        source = await self.head(source_thread_id, ns)
        if not source.exists:
            raise ThreadNotFoundError(source_thread_id, self.tenant)
        if not 1 <= source_seq <= source.seq:
            raise PositionNotFoundError(
                source_thread_id, ns, source_seq, f"the log ends at seq {source.seq}"
            )
        head = await self.head(thread_id, ns)
        if head.exists:
            raise ThreadExistsError(thread_id, self.tenant)
        event = Fork(Position(source.thread_key, ns, source_seq), data)
        return (await self.append_after(head, [event], metadata=metadata)).seq

    async def put_snapshot(self, head: Head, snapshot: NewSnapshot) -> None:
        """Store a snapshot of the state at ``head`` (outside an append, as a rebuild does)."""
        row = records.snapshot_row(head, snapshot)

        def put(conn: Connection) -> None:
            if not operations.is_live(conn, head.thread_key):
                raise ThreadNotFoundError(head.thread_id, self.tenant)
            operations.put_snapshot(conn, row)

        with telemetry.snapshot(self.tenant, head, snapshot):
            try:
                await self.transactor.write_again(put)
            except Conflict:
                log.debug(
                    "another writer stored the snapshot of thread %r at %d first",
                    head.thread_id,
                    head.seq,
                    extra={"thread_id": head.thread_id, "ns": head.ns, "seq": head.seq},
                )
            else:
                telemetry.stored(snapshot)


class _Attempt(NamedTuple):
    """One try of an append: where, what, and the end of the log after it."""

    head: Head
    batch: records.Batch
    new: Head
    touch: inserting.Touch | None


class _Refused(Exception):
    """The event to append behind was not there."""


def json_text(metadata: Mapping[str, Any]) -> str:
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
