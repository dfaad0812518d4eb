"""Sealing: packing old events, many into one row.

A segment is made outside any transaction, from verified rows, and then replaces them in one short
transaction: a process that is killed leaves either the rows or the segment, and two sealers at
once do no harm. Payloads are only decompressed, not decoded: neither the types nor the reducers
of the application are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from eventstore import queries
from eventstore.core.read import Reading
from eventstore.errors import CorruptEventError, ThreadNotFoundError
from eventstore.format import digests, records
from eventstore.format.segments import BODIES_MAX, EVENTS_MAX, Body, Segment, is_old, seal
from eventstore.models import SqlRow, ThreadInfo, to_micros
from eventstore.queries import Conflict, Connection

EVENTS_MIN: Final = 16
"""Fewer events than this stay rows: a segment of them would save too little."""

SETTLED_US: Final = 60_000_000
"""Younger events are never sealed: their writer may still look for their rows."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """What was sealed in a thread, or would be.

    Attributes:
        events: how many events were sealed.
        segments: into how many rows.
        bytes_before, bytes_after: stored bytes of the payloads; after a dry run, ``bytes_after``
            is what the segments would take.
    """

    events: int = 0
    segments: int = 0
    bytes_before: int = 0
    bytes_after: int = 0


class _Moved(Exception):
    """The rows are gone: another process sealed, trimmed or deleted."""


class Sealing(Reading):
    """Packs the old part of logs."""

    async def seal(
        self,
        thread_id: str,
        older_than: datetime,
        *,
        keep_if: Callable[[ThreadInfo], bool] | None = None,
        dry_run: bool = False,
    ) -> Sealed:
        """Pack the events of a thread that were recorded before a moment, many into one row.

        They are read as before, and their digests stay the same. The last event of each log, a
        remainder too small to be worth it, and events younger than a minute stay rows.

        Args:
            older_than: events from this moment on, and all after the first such one, stay rows.
            keep_if: leave the thread as it is if this returns true; called under a lock.
            dry_run: only count what would be sealed.

        Raises:
            ThreadNotFoundError: no such thread.
            CorruptEventError: an event does not verify. Events before it may have been sealed.
        """
        moment = min(to_micros(older_than, "older_than"), self.now_us() - SETTLED_US)

        def survey(conn: Connection) -> tuple[int, Sequence[SqlRow]]:
            key = self.key_of(conn, thread_id)
            return key, queries.segments.sealable(conn, key, moment)

        key, logs = await self.transactions.run("read", survey)
        done = Sealed()
        try:
            for ns, first, last, young, _ in logs:
                # The last event of a log always has a row of its own.
                upto = min(last - 1, last if young is None else young - 1)
                link: bytes | None = None
                while upto - first + 1 >= EVENTS_MIN and not self.should_stop():
                    segment, before = await self._segment(thread_id, key, ns, first, upto, link)
                    if segment is None:
                        break
                    first, link = segment.last + 1, segment.digest
                    if before is None:
                        continue
                    if not dry_run:
                        await self._put(thread_id, key, ns, segment, keep_if)
                    done = replace(
                        done,
                        events=done.events + segment.events,
                        segments=done.segments + 1,
                        bytes_before=done.bytes_before + before,
                        bytes_after=done.bytes_after + len(segment.payload),
                    )
        except _Moved:
            pass  # the next sweep seals the rest
        except Conflict as error:
            raise CorruptEventError("its events are stored as rows and in a segment at once").at(
                thread_id, ns, first
            ) from error
        if done.events and not dry_run:
            self.forget(key)
        return done

    async def _segment(
        self, thread_id: str, key: int, ns: str, first: int, upto: int, link: bytes | None
    ) -> tuple[Segment | None, int | None]:
        """A segment that begins with an event, and the stored bytes that it replaces.

        If the event is in a segment already: that one, and ``None``. ``None``: it cannot be sealed.
        """

        def look(conn: Connection) -> tuple[bytes | None, Sequence[SqlRow | Segment]]:
            known = link or _link_before(conn, key, ns, first)
            return known, queries.events.read_events(conn, key, ns, first - 1, upto, EVENTS_MAX)

        known, rows = await self.transactions.run("read", look)
        if known is None:  # an event given to a fork for its digest alone
            return None, None
        if not rows or rows[0].seq > first:
            raise _Moved
        if isinstance(rows[0], Segment):
            return rows[0], None
        await self._load_dictionaries(row.payload for row in rows)
        try:
            segment = await self.transactions.concurrency.call(self._packed, rows, known)
        except CorruptEventError as error:
            raise error.at(thread_id, ns, first) from error
        if segment is None:
            return None, None
        return segment, sum(len(row.payload) for row in rows[: segment.events])

    def _packed(self, rows: Sequence[SqlRow], link: bytes) -> Segment | None:
        events = list(self._events(rows, link))
        # A few events are worth a segment if a large one after them would prevent it for good.
        ends_early = 0 < len(events) < len(rows) and not is_old(rows[len(events)].payload)
        return seal(link, events) if len(events) >= EVENTS_MIN or ends_early else None

    def _events(self, rows: Sequence[SqlRow], link: bytes) -> Iterator[Body]:
        """The events of these rows with their bodies, verified, as many as fit into a segment."""
        size = 0
        for seq, kind, name, recorded_us, digest, payload in rows:
            if is_old(payload):
                return
            body = self.codec.body(payload)
            size += len(body)
            if size > BODIES_MAX and size > len(body):
                return
            if digests.link(link, seq, kind, name, recorded_us, body) != digest:
                raise CorruptEventError(f"seq {seq}: the stored bytes do not match the chain")
            link = digest
            yield Body(seq, kind, name, recorded_us, digest, body)

    async def _put(
        self,
        thread_id: str,
        key: int,
        ns: str,
        segment: Segment,
        keep_if: Callable[[ThreadInfo], bool] | None,
    ) -> None:
        def run(conn: Connection) -> None:
            row = queries.segments.lock(conn, key)
            if row is None:
                raise ThreadNotFoundError(thread_id, self.tenant)
            if keep_if is not None and keep_if(records.thread_info(row)):
                raise _Moved
            if not queries.segments.put(conn, key, ns, segment) and not _holds(
                conn, key, ns, segment
            ):
                raise _Moved

        await self.transactions.run("idempotent_write", run)


def _holds(conn: Connection, key: int, ns: str, segment: Segment) -> bool:
    """Whether this very segment is stored: the commit in doubt went through."""
    found = queries.events.read_segments(conn, key, ns, segment.seq - 1, segment.seq, 1)
    return bool(found) and found[0] == segment


def _link_before(conn: Connection, key: int, ns: str, first: int) -> bytes | None:
    """The digest before the first event of a log that has a row."""
    if first == 1:
        return digests.genesis(key, ns)
    sealed = queries.events.read_segments(conn, key, ns, first - 2, first - 1, 1)
    if sealed:
        return sealed[0].digest if sealed[0].last == first - 1 else None
    bases = [row for row in queries.snapshots.snapshots_of(conn, key, ns) if row.is_base]
    return next((row.digest for row in bases if row.seq == first - 1), None)
