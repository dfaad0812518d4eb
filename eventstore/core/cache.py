"""The stored bytes that lead to the ends of logs, kept for who comes back: a bounded cache.

A thread is mostly run again by the process that ran it last. What it needs to know the state
(a snapshot and the events behind it) is kept here as it is stored: rows are never changed, and
whoever uses them asks the database for the log's end first, and verifies the digests from here
to there. So nothing stale can come of it, and values are decoded afresh for each reader.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from eventstore.models import Head, NewSnapshot, Position, Snapshot

BYTES: Final = 16 * 2**20
"""Stored bytes kept for one store, unless it is told otherwise."""

SHARE: Final = 4
"""No log takes more than one of so many parts of that."""

_ROW: Final = 200
_TAIL: Final = 1_000


class EventRow(NamedTuple):
    """An event's row, as :func:`eventstore.queries.events.read_events` gives it."""

    seq: int
    kind: int
    key: str | None
    recorded_at: int
    digest: bytes
    payload: bytes


@dataclass(frozen=True, slots=True)
class CachedLog:
    """What leads to the end of a log, within that log.

    Attributes:
        end: where it leads to.
        digest: of the event at ``end``.
        marks: the log's last fork and its last snapshot of this fingerprint.
        snapshot: to start at; ``None``: from nothing.
        link: digest of the event at the snapshot.
        rows: of the events behind it, up to ``end``.
        size: bytes that all this takes, about.
    """

    end: Position
    digest: bytes
    fingerprint: str
    marks: tuple[int | None, int | None]
    snapshot: Snapshot | None
    link: bytes | None
    rows: Sequence[Any]

    size: int = 0

    @classmethod
    def of(
        cls,
        head: Head,
        fingerprint: str,
        marks: tuple[int | None, int | None],
        snapshot: Snapshot | None,
        link: bytes | None,
        rows: Sequence[Any],
    ) -> CachedLog:
        """The tail that ends at ``head``; ``link`` is the digest of the snapshot's event."""
        size = _TAIL + _size(rows)
        if snapshot is not None:
            size += len(snapshot.state) + sum(map(len, snapshot.items))
        return cls(head.position, head.digest, fingerprint, marks, snapshot, link, rows, size)

    def behind(self, end: Position, digest: bytes, rows: Sequence[Any]) -> CachedLog:
        """This one with the events of ``rows`` added, which end there."""
        size = self.size + _size(rows)
        return replace(self, end=end, digest=digest, rows=[*self.rows, *rows], size=size)


def _size(rows: Sequence[Any]) -> int:
    """Bytes that rows take, about."""
    return sum(_ROW + len(row.payload) for row in rows)


class LogCache:
    """The tails of the logs that were used last; shared by threads."""

    def __init__(self, bytes_max: int = BYTES) -> None:
        self._max = bytes_max
        self._size = 0
        self._tails: OrderedDict[tuple[int, str], CachedLog] = OrderedDict()
        self._lock = threading.Lock()

    def get(
        self, head: Head, fingerprint: str, marks: tuple[int | None, int | None]
    ) -> CachedLog | None:
        """What is kept of a log, if it can lead to this end of it."""
        with self._lock:
            tail = self._tails.get((head.thread_key, head.ns))
        if tail is None or tail.end.seq > head.seq:
            return None
        return tail if (tail.fingerprint, tail.marks) == (fingerprint, marks) else None

    def keep(self, tail: CachedLog) -> None:
        """Keep this one for its log, and let go of what was used longest ago."""
        place = tail.end[:2]
        with self._lock:
            self._drop(place)
            if tail.size <= self._max // SHARE:
                self._tails[place] = tail
                self._size += tail.size
            while self._size > self._max:
                self._drop(next(iter(self._tails)))

    def forget(self, thread_key: int) -> None:
        """Keep nothing of a thread."""
        with self._lock:
            for place in [place for place in self._tails if place[0] == thread_key]:
                self._drop(place)

    def appended(
        self, old: Head, new: Head, rows: Sequence[Mapping[str, Any]], snapshot: NewSnapshot | None
    ) -> None:
        """Go on with a log to which the rows of a batch were appended, none of them a fork."""
        with self._lock:
            tail = self._tails.get((old.thread_key, old.ns))
        if tail is None or (tail.end, tail.digest) != (old.position, old.digest):
            return
        if snapshot is None:
            self.keep(tail.behind(new.position, new.digest, [_event_row(row) for row in rows]))
        elif snapshot.fingerprint == tail.fingerprint:
            self.keep(_at_snapshot(tail, new, snapshot))

    def _drop(self, place: tuple[int, str]) -> None:
        tail = self._tails.pop(place, None)
        self._size -= tail.size if tail else 0


def _event_row(row: Mapping[str, Any]) -> EventRow:
    return EventRow(*(row[f"new_{name}"] for name in EventRow._fields))


def _at_snapshot(tail: CachedLog, new: Head, taken: NewSnapshot) -> CachedLog:
    before = tail.snapshot
    rests_on = before is not None and taken.rests_on == before.position.seq
    items = (*(before.items if before is not None and rests_on else ()), taken.items)
    snapshot = Snapshot(new.position, taken.fingerprint, False, taken.state, items)
    return CachedLog.of(new, tail.fingerprint, (tail.marks[0], new.seq), snapshot, new.digest, [])
