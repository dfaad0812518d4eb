"""Rows <-> records: encode before a transaction opens, verify and decode after it ends.

Pure functions over rows, bytes and the codec. Promises that everything read is verified here:
every event against the digest chain, every snapshot against its checksum.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from eventstore.codec.codec import Codec
from eventstore.errors import ConfigurationError, CorruptEventError
from eventstore.format import checks, digests
from eventstore.format.checks import FIRST_US, LAST_US
from eventstore.format.segments import Segment, covered, unseal
from eventstore.limits import KEY_BYTES_MAX, check_name, check_position
from eventstore.models import (
    FORK,
    Event,
    Fork,
    Head,
    NewSnapshot,
    Position,
    Prepared,
    RecordedEvent,
    Snapshot,
    SqlRow,
    ThreadInfo,
    from_micros,
)
from eventstore.retention_models import Deletion, SweepRecord, Tombstone

WRONG_TYPE = (struct.error, TypeError, AttributeError, ValueError, OverflowError)
"""What using the value of a damaged column may raise."""


class Batch(NamedTuple):
    """The rows of one append, as :func:`eventstore.queries.append.append` takes them."""

    events: list[dict[str, Any]]
    forks: list[dict[str, Any]]

    @property
    def size(self) -> int:
        """Stored bytes of the payloads."""
        return sum(len(row["new_payload"]) for row in self.events)

    @property
    def keys(self) -> list[str]:
        """The keys of its events."""
        return [row["new_key"] for row in self.events if row["new_key"] is not None]

    @property
    def digests(self) -> list[bytes]:
        """The digests of its events, which distinguish these rows from any others."""
        return [row["new_digest"] for row in self.events]


def encode(
    codec: Codec, head: Head, events: Sequence[Event | Fork | Prepared], now_us: int
) -> Batch:
    """The rows that append ``events`` after ``head``.

    Raises:
        SerializationError: a value cannot be stored.
    """
    batch = Batch([], [])
    previous = head.digest
    for seq, event in enumerate(events, head.seq + 1):
        if isinstance(event, Fork):
            check_position("the source of a fork", event.source)
            kind, key = FORK, None
            data = {"source": list(event.source), "data": event.data}
            batch.forks.append(_fork_row(head, seq, event.source))
            body, at_us = codec.pack(data), now_us
        elif isinstance(event, Prepared):
            kind, key, body, at_us = event.kind, event.key, event.body, event.recorded_us
        elif isinstance(event, Event):
            kind, key = event.kind, event.key
            if key is not None:
                check_name("a key", key, KEY_BYTES_MAX)
            body, at_us = codec.pack(event.data), now_us
        else:
            raise ConfigurationError(
                f"events to append must be Event or Fork, not {type(event).__name__}"
            )
        digest = digests.link(previous, seq, kind, key, at_us, body)
        is_compressed = isinstance(event, Prepared) and event.is_compressed
        payload = codec.plain(body) if is_compressed else codec.compressed(body)
        batch.events.append(
            {
                "new_thread_key": head.thread_key,
                "new_ns": head.ns,
                "new_seq": seq,
                "new_kind": kind,
                "new_key": key,
                "new_recorded_at": at_us,
                "new_digest": digest,
                "new_payload": payload,
                "previous": previous,
            }
        )
        previous = digest
    return batch


def _fork_row(head: Head, seq: int, source: Position) -> dict[str, Any]:
    return {
        "thread_key": head.thread_key,
        "ns": head.ns,
        "seq": seq,
        "source_thread_key": source.thread_key,
        "source_ns": source.ns,
        "source_seq": source.seq,
    }


def snapshot_row(head: Head, snapshot: NewSnapshot) -> dict[str, Any]:
    """The row of a snapshot of the state at ``head``.

    Raises:
        ConfigurationError: its fingerprint cannot be stored as text.
    """
    check_name("a fingerprint", snapshot.fingerprint)
    place = (head.seq, snapshot.rests_on)
    checksum = digests.checksum(
        head.digest, place, snapshot.fingerprint, snapshot.items, snapshot.state
    )
    return {
        "thread_key": head.thread_key,
        "ns": head.ns,
        "seq": head.seq,
        "fingerprint": snapshot.fingerprint,
        "is_base": False,
        "rests_on": snapshot.rests_on,
        "step": snapshot.step,
        "digest": head.digest,
        "checksum": checksum,
        "additions": snapshot.items,
        "payload": snapshot.state,
    }


def verifies(row: SqlRow) -> bool:
    """Whether a snapshot's row matches its checksum."""
    place = (row.seq, row.rests_on)
    try:
        checksum = digests.checksum(row.digest, place, row.fingerprint, row.additions, row.payload)
        return bool(checksum == row.checksum)
    except WRONG_TYPE:
        return False


def snapshot(at: Position, rows: Sequence[SqlRow]) -> Snapshot:
    """A snapshot from its row and the rows that it rests on, newest first.

    Raises:
        CorruptEventError: a row is missing or damaged.
    """
    if not rows or rows[-1].rests_on is not None:
        raise CorruptEventError("a snapshot that this one rests on is missing")
    if not all(map(verifies, rows)):
        raise CorruptEventError("the snapshot does not match its checksum")
    top = rows[0]
    if top.event_digest not in (None, top.digest):
        raise CorruptEventError("the snapshot belongs to another history")
    items = tuple(row.additions for row in reversed(rows))
    return Snapshot(at, top.fingerprint, top.is_base, top.payload, items)


def head(tenant: str, thread_id: str, ns: str, row: SqlRow | None) -> Head:
    """The end of a log, from the row that looking its thread up returned.

    Raises:
        CorruptEventError: the last event's row is damaged.
    """
    if row is None:
        key = digests.thread_key(tenant, thread_id, 0)  # a later generation has another key
        return Head(thread_id, key, ns, 0, digests.genesis(key, ns), exists=False)
    is_seq, is_digest = type(row.last_seq) is int, type(row.last_digest) is bytes
    if row.last_seq is not None and not (is_seq and is_digest):
        damage = CorruptEventError("the row of the log's last event holds an invalid value")
        raise damage.at(thread_id, ns, row.last_seq if is_seq else 0)
    if not ns:
        checks.check_reached(thread_id, row.reached, row.last_seq or 0)
    try:
        checks.check_moment("active_at", row.active_at)
        checks.check_status(row.status)
    except CorruptEventError as error:
        raise CorruptEventError(
            f"the row of thread {thread_id!r} is damaged: {error.reason}", thread_id=thread_id
        ) from error
    return Head(
        thread_id,
        row.thread_key,
        ns,
        row.last_seq or 0,
        row.last_digest or digests.genesis(row.thread_key, ns),
        exists=True,
        status=row.status,
        active_us=row.active_at,
        owner=row.owner,
    )


def thread_info(row: SqlRow) -> ThreadInfo:
    """A thread's facts from its row.

    Raises:
        CorruptEventError: the row is damaged; it names the thread as far as the row does.
    """
    try:
        metadata, pin = checks.check_thread(row)
    except CorruptEventError as error:
        name = row.thread_id if isinstance(row.thread_id, str) else None
        raise CorruptEventError(
            f"the row of thread {row.thread_id!r:.200} is damaged: {error.reason}", thread_id=name
        ) from error
    return ThreadInfo(
        thread_id=row.thread_id,
        tenant=row.tenant,
        created_at=from_micros(row.created_at),
        active_at=from_micros(row.active_at),
        status=row.status,
        ttl=row.ttl,
        pinned=row.pinned,
        metadata=metadata,
        thread_key=row.thread_key,
        pin=pin,
    )


def salvaged(row: SqlRow, tenant: str, thread_id: str) -> ThreadInfo:
    """What an erasure has to know of a thread whose row may be damaged.

    A damaged thread counts as pinned unless its row says without doubt that it is not.
    """
    try:
        return thread_info(row)
    except CorruptEventError:
        never = from_micros(0)
        doubtful = row.pinned is not False or row.pin is not None
        return ThreadInfo(
            thread_id, tenant, never, never, "failed", None, doubtful, thread_key=row.thread_key
        )


def pinned(reason: str, by: str, now_us: int) -> dict[str, Any]:
    """The columns of a thread's row that pin it.

    Raises:
        ConfigurationError: the reason, or who pins it, is empty or cannot be stored as text.
    """
    for what, text in (("reason", reason), ("by", by)):
        if not check_name(what, text).strip():
            raise ConfigurationError(f"pinning a thread needs a non-empty {what}")
    pin = {"reason": reason, "by": by, "at": now_us}
    return {"pinned": True, "pin": json.dumps(pin)}


def deletion(row: SqlRow) -> Deletion | None:
    """The facts for a thread's tombstone, recorded when it was marked for deletion, if it was.

    Raises:
        CorruptEventError: the row is damaged.
    """
    try:
        if checks.check_moment("the mark for deletion", row.deleting_since) <= 0:
            raise CorruptEventError("the mark for deletion is no time")  # one flipped bit makes 0
        if row.checksum is not None and row.checksum != checks.checksum_of(row):
            raise CorruptEventError("it does not match its checksum")
        if row.deletion is None:
            return None
        found = Deletion(**json.loads(row.deletion))
        checks.check_kinds(found)
        return found
    except (CorruptEventError, RecursionError, *WRONG_TYPE) as error:
        raise CorruptEventError(
            f"the row of thread {row.thread_id!r:.200}, which is being deleted, is damaged: {error}"
        ) from error


def tombstone_row(
    key: int,
    name: tuple[str, str],
    generation: int,
    deletion: Deletion,
    now_us: int,
    secret: bytes | None,
) -> dict[str, Any]:
    """The tombstone of a thread; with a ``secret`` it does not reveal the thread's name.

    Args:
        name: its tenant and its thread_id.
    """
    digest = digests.name_digest(*name)
    if secret is not None:
        key = digests.tombstone_key(secret, key)
        digest = digests.keyed_name_digest(secret, *name)
    return {
        "thread_key": key,
        "name_digest": digest,
        "generation": generation,
        "tenant": name[0],
        "deleted_at": now_us,
        "reason": deletion.reason,
        "events": deletion.events,
        "bytes": deletion.bytes,
        "policy": deletion.policy,
        "asked_by": deletion.asked_by,
    }


def tombstone(row: SqlRow) -> Tombstone:
    """A tombstone from its row.

    Raises:
        CorruptEventError: the row is damaged.
    """
    try:
        found = Tombstone(
            row.thread_key,
            row.name_digest,
            row.tenant,
            from_micros(row.deleted_at),
            row.reason,
            row.events,
            row.bytes,
            row.policy,
            row.asked_by,
        )
        checks.check_kinds(found)
    except (CorruptEventError, *WRONG_TYPE) as error:
        raise CorruptEventError(
            f"the tombstone under key {row.thread_key!r:.40} is damaged: {error}"
        ) from error
    return found


def sweep(row: SqlRow) -> SweepRecord:
    """A recorded sweep from its row.

    Raises:
        CorruptEventError: the row is damaged.
    """
    try:
        finished = None if row.finished_at is None else from_micros(row.finished_at)
        found = SweepRecord(
            row.sweep_id,
            row.holder,
            from_micros(row.started_at),
            finished,
            from_micros(row.cutoff),
            json.loads(row.policy),
            json.loads(row.counts),
        )
        checks.check_kinds(found)
    except (CorruptEventError, RecursionError, *WRONG_TYPE) as error:
        raise CorruptEventError(
            f"the record of sweep {row.sweep_id!r:.40} is damaged: {error}"
        ) from error
    return found


class EventReader:
    """Verifies and decodes the rows of a run of events, page by page.

    Args:
        after: the run begins after this seq.
        digest: of the event at ``after``; if it is not known (``None``), the row of that event
            must come first.
        upto: the run ends with this seq, wherever the rows end.
    """

    def __init__(
        self,
        codec: Codec,
        thread_id: str,
        key: int,
        ns: str,
        after: int,
        digest: bytes | None,
        upto: int,
    ) -> None:
        self._codec = codec
        self._upto = upto
        self._place = (thread_id, ns)
        self._log = (key, ns)
        self._digest = digests.genesis(key, ns) if after == 0 else digest
        self.after = after if self._digest is not None else after - 1
        """Rows after this seq come next."""

    def lacks_link(self, rows: Sequence[SqlRow | Segment]) -> bool:
        """Whether neither the digest before the first event is known nor the row that has it."""
        return self._digest is None and not (rows and rows[0].seq <= self.after + 1)

    def begin(self, digest: bytes | None) -> None:
        """Verify from this digest on, if there is one."""
        if digest is not None:
            self._digest, self.after = digest, self.after + 1

    def feed(self, rows: Sequence[SqlRow | Segment]) -> Iterator[RecordedEvent]:
        """The events of a page, up to a gap.

        Raises:
            CorruptEventError: an event does not verify or decode; names the first one.
        """
        key, ns = self._log
        body_of, unpack = self._codec.body, self._codec.unpack
        for row in rows:
            if isinstance(row, Segment):
                if not row.seq <= self.after + 1 <= row.last:
                    return
                yield from self._unsealed(row)
                continue
            seq, kind, name, recorded_us, digest, payload = row
            if seq != self.after + 1:
                return
            if self._digest is None:
                self._digest, self.after = digest, seq
                continue
            if not payload:  # it was trimmed, and its row marks the end of the log
                return
            try:
                body = body_of(payload)
                content = covered(payload, body)
                if digests.link(self._digest, seq, kind, name, recorded_us, content) != digest:
                    raise CorruptEventError("the stored bytes do not match the digest chain")
                if not FIRST_US <= recorded_us <= LAST_US:
                    raise CorruptEventError("the event's time is not a moment")
                data = unpack(body)
            except CorruptEventError as error:
                raise error.at(*self._place, seq) from error
            except WRONG_TYPE as error:
                damage = CorruptEventError(f"a column holds an invalid value: {error}")
                raise damage.at(*self._place, seq) from error
            self._digest, self.after = digest, seq
            yield RecordedEvent(seq, kind, data, name, recorded_us, digest, len(payload), key, ns)

    def _unsealed(self, segment: Segment) -> Iterator[RecordedEvent]:
        """The next events of a segment, which is verified as a whole."""
        key, ns = self._log
        try:
            events = unseal(segment)
            known = (
                segment.link if self.after < segment.seq else events[self.after - segment.seq][4]
            )
            if self._digest not in (None, known):
                raise CorruptEventError("the segment does not match the digest chain")
        except CorruptEventError as error:
            raise error.at(*self._place, max(segment.seq, self.after + 1)) from error
        except WRONG_TYPE as error:
            damage = CorruptEventError(f"a segment holds an invalid value: {error}")
            raise damage.at(*self._place, segment.seq) from error
        share = len(segment.payload) / max(1, segment.raw)
        for seq, kind, name, recorded_us, digest, body in events[self.after + 1 - segment.seq :]:
            if seq > self._upto:
                return
            if self._digest is None:
                self._digest, self.after = digest, seq
                continue
            try:
                if not FIRST_US <= recorded_us <= LAST_US:
                    raise CorruptEventError("the event's time is not a moment")
                data = self._codec.unpack(body)
            except CorruptEventError as error:
                raise error.at(*self._place, seq) from error
            self._digest, self.after = digest, seq
            size = round(len(body) * share)
            yield RecordedEvent(seq, kind, data, name, recorded_us, digest, size, key, ns)


def end_of(rows: Sequence[SqlRow | Segment]) -> int:
    """The seq of the last event in a page."""
    return rows[-1].last if isinstance(rows[-1], Segment) else int(rows[-1].seq)


def is_run(rows: Sequence[SqlRow | Segment], first: int, last: int) -> bool:
    """Whether a page holds all events from ``first`` to ``last`` and ends there."""
    if not rows or end_of(rows) != last or rows[0].seq > first:
        return False
    return (
        sum(row.events if isinstance(row, Segment) else 1 for row in rows) == last - rows[0].seq + 1
    )
