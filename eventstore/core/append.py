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
from datetime import timedelta
from typing import Any, Final, NamedTuple

from eventstore import queries, telemetry
from eventstore.core.read import Reading
from eventstore.db.driver_errors import CommitInDoubt, RolledBack
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
from eventstore.format import digests, records
from eventstore.format.segments import payload_of, unseal
from eventstore.models import Addition, Event, Fork, Head, NewSnapshot, Position, Status
from eventstore.queries import Conflict, Connection

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
        ttl: timedelta | None = None,
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
        new = await self.append_after(head, events, status=status, metadata=metadata, ttl=ttl)
        return new.seq

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
        (new,) = await self.append_together(
            [Addition(head, events, snapshot)],
            status=status,
            metadata=metadata,
            ttl=ttl,
            now_us=now_us,
        )
        return new

    @telemetry.told_append
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
        attempts = await self._append(additions, status, metadata, seconds(ttl), now_us)
        if any(each.batch.forks for each in attempts):
            self.cache.forget(attempts[0].new.thread_key)
        else:
            for each in attempts:
                self.cache.appended(each.head, each.new, each.batch.events, each.snapshot)
        return [each.new for each in attempts]

    async def _append(
        self,
        additions: Sequence[Addition],
        status: Status | None,
        metadata: Mapping[str, Any] | None,
        ttl: int | None,
        now_us: int | None,
    ) -> list[_Attempt]:
        _check(additions)
        await self._keep_dictionary()
        now = self.now_us() if now_us is None else now_us
        # Of ends read at different moments, one that knows the thread tells where all logs are.
        head = next((each.head for each in additions if each.head.exists), additions[0].head)
        known = "" if head.exists else json_text(metadata or {})
        attempts = self._attempts(head, additions, status, now)

        def run(conn: Connection) -> list[_Attempt]:
            nonlocal attempts
            tombstone_key: int | None = head.thread_key
            if not head.exists:
                place, tombstone_key = self._place_for(conn, attempts[0].new, known, ttl)
                if place != head:  # our first key is another's, or the thread was made meanwhile
                    attempts = self._attempts(place, additions, status, now)
            elif any(each.head.seq == 0 for each in attempts):
                if not queries.threads.is_live(conn, head.thread_key):
                    raise ThreadNotFoundError(head.thread_id, self.tenant)
            self._insert(conn, attempts, tombstone_key)
            return attempts

        # Where an append is one statement, it needs no transaction around it.
        alone = attempts[0]
        plain = len(attempts) == 1 and alone.snapshot is None and not alone.batch.forks
        first = digests.thread_key(self.tenant, head.thread_id, 0)
        hopeful = plain and not head.exists and head.thread_key == first
        doubts = 0
        while True:
            try:
                if hopeful:
                    row = {
                        **self._thread_row(alone.new, known, ttl),
                        "thread_key": first,
                        "generation": 0,
                    }
                    done = await self.transactions.run(
                        "statement", queries.append.begin, row, alone.batch.events
                    )
                    if done:
                        return attempts
                    hopeful = False
                if plain and head.seq > 0:
                    return await self.transactions.run("statement", run)
                return await self.transactions.run("write", run)
            except (Conflict, _Refused, ConcurrencyError) as error:
                # What was in our way may be our own commit, if one is in doubt.
                if doubts and await self._holds(attempts[0]):
                    return attempts
                if hopeful:  # the name is in use, or was
                    hopeful = False
                    continue
                if isinstance(error, ConcurrencyError):
                    raise
                raise await self._why_refused(attempts) from error
            except CommitInDoubt as error:
                if await self._holds(attempts[0]):
                    return attempts
                doubts += 1
                await self.transactions.pause(doubts, error)

    def _attempts(
        self, place: Head, additions: Sequence[Addition], status: str | None, now: int
    ) -> list[_Attempt]:
        """All additions, to the thread that has a log ending at ``place``."""
        return [
            self._attempt(self._head_beside(place, each.head), each, status, now)
            for each in additions
        ]

    def _head_beside(self, place: Head, head: Head) -> Head:
        """The end of a log, in the thread that has another log ending at ``place``."""
        if head.ns == place.ns:
            return place
        key = place.thread_key
        if not head.exists:
            head = Head(
                head.thread_id, key, head.ns, 0, digests.genesis(key, head.ns), exists=False
            )
        elif head.thread_key != key:  # one of the two is of a former thread of that name
            raise ThreadNotFoundError(head.thread_id, self.tenant)
        return replace(head, exists=place.exists, status=place.status, active_us=place.active_us)

    def _attempt(self, head: Head, addition: Addition, status: str | None, now: int) -> _Attempt:
        events = addition.events
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
        touch = queries.append.Touch(status, new.active_us) if touches else None
        return _Attempt(head, batch, new, touch, addition.snapshot)

    def _insert(
        self, conn: Connection, attempts: Sequence[_Attempt], tombstone_key: int | None
    ) -> None:
        """Insert everything: events first, since forks may go on from any of them.

        All writers take the logs in one order and the thread's row last, so that no two of
        them wait for each other.
        """
        ordered = sorted(attempts, key=lambda each: each.head.ns)
        for each in ordered:
            touch = each.touch if each is ordered[-1] else None
            if not queries.append.append(conn, each.batch.events, touch, tombstone_key):
                if not each.head.exists:
                    raise RolledBack("a thread of that name came and went in the meantime")
                raise _Refused
        for fork in [fork for each in attempts for fork in each.batch.forks]:
            fault = queries.forks.insert_fork(conn, fork, self.tenant)
            if fault is not None:
                place = (fork["source_ns"], fork["source_seq"])
                thread_id = attempts[0].head.thread_id
                raise PositionNotFoundError(thread_id, *place, f"cannot fork there: {fault}")
        for each in attempts:
            if each.snapshot is not None:
                queries.snapshots.put_snapshot(conn, records.snapshot_row(each.new, each.snapshot))

    def _place_for(
        self, conn: Connection, new: Head, metadata: str, ttl: int | None
    ) -> tuple[Head, int | None]:
        """Make the thread of ``new``; the end of its log, empty, under the key that it got.

        Beside it the tombstone that must not be there: that of an erased thread of this key.
        """
        try:
            key, tombstone_key = queries.threads.create_thread(
                conn, self._thread_row(new, metadata, ttl)
            )
        except queries.threads.NameTaken as error:
            found = queries.threads.look_up(conn, self.tenant, new.thread_id, new.ns)
            made = records.head(self.tenant, new.thread_id, new.ns, found)
            if made.seq > 0:
                raise ConcurrencyError(new.thread_id, new.ns, 0, made.seq) from error
            return made, made.thread_key
        except Conflict as error:  # whose logs need not be in our way
            raise RolledBack("another writer made the thread at the same moment") from error
        except queries.threads.NoKeyFree as error:
            raise StoreBusyError(
                f"{queries.threads.PROBES} former threads named {new.thread_id!r} are still being "
                "deleted; call finish_deletions() or try again later"
            ) from error
        place = Head(new.thread_id, key, new.ns, 0, digests.genesis(key, new.ns), exists=False)
        return place, tombstone_key

    def _thread_row(self, new: Head, metadata: str, ttl: int | None) -> dict[str, Any]:
        return {
            "tenant": self.tenant,
            "thread_id": new.thread_id,
            "created_at": new.active_us,
            "active_at": new.active_us,
            "status": new.status,
            "ttl": ttl,
            "pinned": False,
            "deleting_since": None,
            "metadata": metadata,
            "pin": None,
            "deletion": None,
        }

    async def _why_refused(self, attempts: Sequence[_Attempt]) -> EventStoreError:
        for each in attempts:
            reason = await self._why_not(each.head, each.batch)
            if reason is not None:
                return reason
        return _another_history(attempts[0].head)

    async def _why_not(self, head: Head, batch: records.Batch) -> EventStoreError | None:
        """What is in the way of an append to one log; ``None`` where nothing is."""
        now = await self.head(head.thread_id, head.ns)
        if head.exists and (not now.exists or now.thread_key != head.thread_key):
            return ThreadNotFoundError(head.thread_id, self.tenant)
        if now.seq != head.seq:
            return ConcurrencyError(head.thread_id, head.ns, head.seq, now.seq)
        taken = await self.transactions.run(
            "read", queries.events.events_by_key, now.thread_key, head.ns, batch.keys
        )
        if taken:
            return DuplicateKeyError(head.thread_id, head.ns, taken[0].key, taken[0].seq)
        if len(set(batch.keys)) < len(batch.keys):
            twice = max(batch.keys, key=Counter(batch.keys).__getitem__)
            return DuplicateKeyError(head.thread_id, head.ns, twice, head.seq)
        return _another_history(head) if now.digest != head.digest else None

    async def _holds(self, attempt: _Attempt) -> bool:
        """Whether the log holds exactly these rows: the unknown commit went through.

        What was appended to others together with it went through, too.
        """
        head, last = attempt.head, attempt.new.seq
        # The last digest covers the others, which may have been trimmed by now.
        rows = await self.transactions.run(
            "read", queries.events.read_events, head.thread_key, head.ns, last - 1, last, 1
        )
        return [row.digest for row in rows] == attempt.batch.digests[-1:]

    async def _by_key(self, head: Head, events: Sequence[Event | Fork]) -> int | None:
        """The seq of the batch's last event, if the log holds the whole batch under its keys."""
        named = [e for e in events if isinstance(e, Event) and e.key is not None]
        keys = [event.key for event in named if event.key is not None]
        if not head.exists or not events or len(named) != len(events):
            return None
        rows = await self.transactions.run(
            "read", queries.events.events_by_key, head.thread_key, head.ns, keys
        )
        await self._learn(row.payload for row in rows)
        found = {row.key: row for row in rows}
        for event, key in zip(named, keys, strict=True):
            row = found.get(key)
            if row is None:
                return None
            payload = row.payload or await self._sealed_payload(head, row.seq, key)
            same = row.kind == event.kind and (
                not payload  # trimmed: nobody can tell any more
                or payload == self.codec.encode(event.data)
                or self.codec.decode(payload) == event.data
            )
            if not same:
                raise DuplicateKeyError(head.thread_id, head.ns, key, row.seq)
        return int(max(row.seq for row in rows))

    async def _keep_dictionary(self) -> None:
        """See to it that who reads this database finds what the codec compresses with."""
        dict_id = self.codec.writes_with
        if dict_id in self.stored_dictionaries or not (data := self.codec.own_dictionary(dict_id)):
            return

        def keep(conn: Connection) -> None:
            try:
                queries.dictionaries.keep_dictionary(conn, dict_id, data)
            except Conflict as error:
                raise RolledBack("another process kept the dictionary first") from error

        try:
            await self.transactions.run("idempotent_write", keep)
        except queries.dictionaries.OtherDictionary as error:
            raise ConfigurationError(
                f"payloads in this database are compressed with another dictionary {dict_id}; "
                "train yours with another dict_id"
            ) from error
        self.stored_dictionaries.add(dict_id)

    async def _sealed_payload(self, head: Head, seq: int, key: str) -> bytes:
        """The payload of an event that has a key and was sealed; nothing if it was trimmed."""
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
        """Store a snapshot of the state at ``head`` (outside an append, as a rebuild does)."""
        row = records.snapshot_row(head, snapshot)
        await self._keep_dictionary()

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


class _Attempt(NamedTuple):
    """One try of an append to one log: where, what, and the end of the log after it."""

    head: Head
    batch: records.Batch
    new: Head
    touch: queries.append.Touch | None
    snapshot: NewSnapshot | None


class _Refused(Exception):
    """The event to append behind was not there."""


def _check(additions: Sequence[Addition]) -> None:
    """Whether these can be appended together, as far as that can be said without looking."""
    if not additions or not all(each.events for each in additions):
        raise ValueError("an append needs at least one event")
    heads = [each.head for each in additions]
    for head in heads:
        if digests.is_prefix(records.name("a namespace", head.ns)):
            raise ConfigurationError(f"the namespace {head.ns!r} is kept for what forks are given")
        if head.thread_id != heads[0].thread_id:
            raise ValueError(
                "what is appended together must be of one thread, not of "
                f"{heads[0].thread_id!r} and {head.thread_id!r}"
            )
    names = [head.ns for head in heads]
    if len(set(names)) < len(names):
        twice = max(names, key=names.count)
        raise ValueError(
            f"namespace {twice!r} is given twice; give each log all its events at once"
        )


def _another_history(head: Head) -> CorruptEventError:
    return CorruptEventError("the event to append behind is not the one that was read").at(
        head.thread_id, head.ns, head.seq
    )


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


def seconds(ttl: timedelta | None) -> int | None:
    """A time to live as it is stored: whole seconds, rounded up."""
    if ttl is None:
        return None
    if not isinstance(ttl, timedelta) or ttl < timedelta(0):
        raise ConfigurationError(f"ttl must be a timedelta that is not negative, not {ttl!r:.80}")
    return -(-ttl // timedelta(seconds=1))
