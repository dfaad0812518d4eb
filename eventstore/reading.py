"""Reading an event store: heads, events, replays, lineages.

What is read is verified and decoded page by page, each page in a transaction of its own: the
log only grows, so that a long read needs no long transaction. Reading never writes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from eventstore import chain, operations, records
from eventstore.database import Database
from eventstore.errors import (
    CorruptEventError,
    EventStoreError,
    LineageMovedError,
    PositionNotFoundError,
    ThreadNotFoundError,
)
from eventstore.events import (
    FORK,
    Head,
    Lineage,
    Position,
    RecordedEvent,
    Replay,
    Snapshot,
    ThreadInfo,
)
from eventstore.schema import SqlRow

if TYPE_CHECKING:
    from sqlalchemy import Connection

log = logging.getLogger(__name__)

PAGE: Final = 256
"""Events read at a time."""

_NO_SNAPSHOT: Final = "\0"
"""A fingerprint that no snapshot has."""


class Reading(Database):
    """What can be learned from a store."""

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
                    claimed = claim(*event.data["source"])
                    led = come_from is not None and claim(*come_from) == claimed
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


def claim(thread_key: int, ns: str, seq: int) -> tuple[int, str, int]:
    """A position by the log that it was first written to, wherever a copy of that stands now."""
    return (*chain.origin(thread_key, ns), seq)
