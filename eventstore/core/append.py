"""Appending: batches of events, forks and snapshots.

An application that cannot know whether its append went through sends it again under the same keys:
the batch is then found, not stored twice.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from eventstore import queries, telemetry
from eventstore.core.insertion import Inserting
from eventstore.errors import (
    ConcurrencyError,
    CorruptEventError,
    DuplicateKeyError,
    PositionNotFoundError,
    ThreadExistsError,
    ThreadNotFoundError,
)
from eventstore.format import records
from eventstore.format.segments import payload_of, unseal
from eventstore.limits import (
    check_name,
    check_number,
    check_type,
)
from eventstore.models import (
    Addition,
    Event,
    Fork,
    Head,
    NewSnapshot,
    Position,
    Prepared,
    Status,
)
from eventstore.queries import Conflict, Connection

log = logging.getLogger(__name__)


class Appending(Inserting):
    """Adds to logs."""

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
        """Append a batch, all or nothing, to a log that must end at ``expected_seq``.

        Args:
            thread_id: created with its first event (``expected_seq=0``).
            events: at least one.
            expected_seq: the seq of the last event that the caller knows; 0: none.
            ns: which log of the thread; ``""`` is the root graph's.
            status: the thread's status from now on; ``None`` leaves it unchanged.
            metadata: the thread's metadata, JSON-like; used only when it is created.
            ttl: how long retention keeps the thread after its last event, in place of what a
                policy says; used only when it is created. In whole seconds, rounded up.

        Returns:
            The seq of the last event of the batch. Events that were appended before under
            the same keys are found, not appended again.

        Raises:
            ConcurrencyError: the log ends elsewhere. Nothing was stored.
            DuplicateKeyError: another event has the key. Nothing was stored.
            SerializationError: a value cannot be stored. Nothing was stored.
            ThreadNotFoundError: ``expected_seq`` is above 0 and there is no such thread.
        """
        check_number("expected_seq", expected_seq, None)
        if not isinstance(events, list | tuple):
            check_type("events", events, Sequence)
        if not (isinstance(thread_id, str) and isinstance(ns, str)):
            check_name("a thread_id", thread_id)
            check_name("a namespace", ns)
        last = None if status is not None else self.ends.get(self.tenant, thread_id, ns)
        if last is not None and last.seq == expected_seq:
            try:
                new = await self.append_after(last, events, ttl=ttl)
            except (ConcurrencyError, DuplicateKeyError):
                found = await self.find_batch(await self.head(thread_id, ns), events)
                if found is None:
                    raise
                return found
            except (ThreadNotFoundError, CorruptEventError) as error:
                log.debug(
                    "thread %r is looked up anew: %s",
                    thread_id,
                    error,
                    extra={"thread_id": thread_id, "ns": ns, "seq": expected_seq},
                )
            else:
                self.ends.put(self.tenant, new)
                return new.seq
        head = await self.head(thread_id, ns)
        found = await self.find_batch(head, events)
        if found is not None:
            return found
        if head.seq != expected_seq:
            if not head.exists:
                raise ThreadNotFoundError(thread_id, self.tenant)
            telemetry.conflict()
            raise ConcurrencyError(thread_id, ns, expected_seq, head.seq)
        new = await self.append_after(head, events, status=status, metadata=metadata, ttl=ttl)
        self.ends.put(self.tenant, new)
        return new.seq

    async def find_batch(self, head: Head, events: Sequence[Event | Fork]) -> int | None:
        """The seq of the last event, if the log already holds the whole batch under its keys."""
        named = [e for e in events if isinstance(e, Event) and e.key is not None]
        keys = [event.key for event in named if event.key is not None]
        if not head.exists or not events or len(named) != len(events):
            return None
        rows = await self.transactions.run(
            "read", queries.events.events_by_key, head.thread_key, head.ns, keys
        )
        await self._load_dictionaries(row.payload for row in rows)
        found = {row.key: row for row in rows}
        for event, key in zip(named, keys, strict=True):
            row = found.get(key)
            if row is None:
                return None
            payload = row.payload or await self._sealed_payload(head, row.seq, key)
            same = row.kind == event.kind and (
                not payload  # trimmed: it cannot be compared any more
                or payload == self.codec.encode(event.data)
                or self.codec.decode(payload) == event.data
            )
            if not same:
                raise DuplicateKeyError(head.thread_id, head.ns, key, row.seq)
        return int(max(row.seq for row in rows))

    async def _sealed_payload(self, head: Head, seq: int, key: str) -> bytes:
        """The payload of a sealed event that has a key; empty if it was trimmed."""
        found = await self.transactions.run(
            "read", queries.events.read_segments, head.thread_key, head.ns, seq - 1, seq, 1
        )
        for event in unseal(found[0]) if found else ():
            if event.seq == seq:
                return payload_of(event)
        # It may have left its segment since its row was read.
        rows = await self.transactions.run(
            "read", queries.events.events_by_key, head.thread_key, head.ns, [key]
        )
        if rows and rows[0].payload:
            return bytes(rows[0].payload)
        if await self.transactions.run(
            "read", queries.lineage.is_trimmed, head.thread_key, head.ns, seq
        ):
            return b""
        raise CorruptEventError("the event has no payload").at(head.thread_id, head.ns, seq)

    async def append_after(
        self,
        head: Head,
        events: Sequence[Event | Fork | Prepared],
        *,
        status: Status | None = None,
        metadata: Mapping[str, Any] | None = None,
        ttl: timedelta | None = None,
        snapshot: NewSnapshot | None = None,
        now_us: int | None = None,
    ) -> Head:
        """Append to a log whose end the caller has read, without reading it again.

        Args:
            snapshot: of the state after these events; stored in the same transaction.
            now_us: the time of the events; ``None`` asks the clock.

        Returns:
            The new end of the log.

        Raises:
            As :meth:`append`.
        """
        (new,) = await self.append_together(
            [Addition(head, events, snapshot)],
            status=status,
            metadata=metadata,
            ttl=ttl,
            now_us=now_us,
        )
        return new

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
        """Start a new thread that goes on from a position of another, without copying anything.

        Returns:
            The new thread's seq (1: the fork event).

        Raises:
            ThreadNotFoundError: no such source thread.
            PositionNotFoundError: the source's log does not reach that far.
            ThreadExistsError: the new thread exists already.
        """
        check_number("source_seq", source_seq, None)
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
        return (await self.append_after(head, [event], metadata=metadata, ttl=ttl)).seq

    async def put_snapshot(self, head: Head, snapshot: NewSnapshot) -> None:
        """Store a snapshot of the state at ``head``, apart from any append, as a rebuild does.

        Raises:
            ThreadNotFoundError: no such thread.
        """
        check_type("head", head, Head)
        check_type("snapshot", snapshot, NewSnapshot)
        row = records.snapshot_row(head, snapshot)
        await self._store_dictionary()

        def put(conn: Connection) -> None:
            if not queries.threads.is_live(conn, head.thread_key):
                raise ThreadNotFoundError(head.thread_id, self.tenant)
            queries.snapshots.put_snapshot(conn, row)

        with telemetry.snapshot(self.tenant, head, snapshot):
            try:
                await self.transactions.run("idempotent_write", put)
            except Conflict:
                log.debug(
                    "another writer stored the snapshot of thread %r at %d first",
                    head.thread_id,
                    head.seq,
                    extra={"thread_id": head.thread_id, "ns": head.ns, "seq": head.seq},
                )
            else:
                telemetry.stored(snapshot)
