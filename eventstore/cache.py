"""The log cache, the past cache and the body cache: bytes of the logs used last, in bounded memory.

The log cache holds what leads to the end of a log; the past cache, to earlier positions that were
read; the body cache, what snapshots were decoded to.

A thread is usually run again by the process that ran it last. A snapshot and the events after it
are kept as they are stored. Of a log that is read again, the reader may keep a snapshot of its
own instead, of what it folded up to the end (:meth:`CachedLog.folded`).

Events are never changed, and readers first read the log's end, or the event at an earlier position,
from the database, and compare the digest, which depends on all events before: so nothing stale can
be used. Only bytes are kept, and values are decoded anew for each reader: so nobody sees what
another one changed in place.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from eventstore.codec.codec import Codec
from eventstore.models import Head, NewSnapshot, Position, Snapshot
from eventstore.queries.loading import EventRow
from eventstore.workers import renew_in_children

BYTES: Final = 16 * 2**20
"""Stored bytes kept for one store by default."""

SHARE: Final = 4
"""One log may take one in so many parts of that."""

ENDS: Final = 1_024
"""Ends of logs that a store remembers; each takes less than a kilobyte."""

BODIES_SHARE: Final = 4
"""The body cache takes one in so many parts more."""

PAST_SHARE: Final = 2
"""The past cache takes one in so many parts more."""

_ROW: Final = 200
_OVERHEAD: Final = 2_000


class Live(NamedTuple):
    """What a reader keeps of the end of a log beside its bytes, and gets back as it is.

    Attributes:
        digest: of the event at that end: elsewhere it is of no use.
        content: objects of the reader.
        size: approximate bytes that they take.
    """

    digest: bytes
    content: Any
    size: int


class Marks(NamedTuple):
    """What tells that a log is as it was, besides the digest of its end.

    Attributes:
        fork: seq of its last fork.
        snapshot: seq of its last usable snapshot.
        is_base: trimming has made that the base, and nothing exists before it.
    """

    fork: int | None
    snapshot: int | None
    is_base: bool = False


class CachedLog(NamedTuple):
    """The stored bytes that lead to the end of a log, within that log, or to an earlier position.

    Attributes:
        end: the position that they lead to.
        digest: of the event at ``end``.
        marks: of the log up to there, and of this fingerprint.
        snapshot: where to start, as it is stored or as a reader made it; ``None``: from nothing.
        link: digest of the event at the snapshot.
        rows: of the events after it, up to ``end``; ``None``: there are too many to cache.
        notes: what a reader keeps with a snapshot that it made; ``None``: it is a stored one.
        was_found: whether this was in the cache when it was looked for.
        is_large: a snapshot that the reader made was too large to keep.
        live: what the reader keeps of the log's end besides.
        is_past: they lead to a position that was asked for, not to the end of the log.
        size: approximate bytes that all this takes.
    """

    end: Position
    digest: bytes
    fingerprint: str
    marks: Marks
    snapshot: Snapshot | None
    link: bytes | None
    rows: Sequence[Any] | None
    notes: Any = None
    was_found: bool = False
    is_large: bool = False
    live: Live | None = None
    is_past: bool = False
    size: int = 0

    @property
    def live_size(self) -> int:
        """Approximate bytes that ``live`` takes."""
        return 0 if self.live is None else self.live.size

    @classmethod
    def of(
        cls,
        end: Position,
        digest: bytes,
        fingerprint: str,
        marks: Marks,
        snapshot: Snapshot | None,
        link: bytes | None,
        rows: Sequence[Any] | None,
    ) -> CachedLog:
        """The bytes that lead to ``end``; ``link`` is the digest of the snapshot's event."""
        size = _OVERHEAD + _size(rows or ()) + _size_of(snapshot)
        return cls(end, digest, fingerprint, marks, snapshot, link, rows, size=size)

    def extended(self, end: Position, digest: bytes, rows: Sequence[Any]) -> CachedLog:
        """With the events of ``rows`` added, which end at ``end``."""
        size = self.size - self.live_size + _size(rows)
        rows = [*(self.rows or ()), *rows]
        return self._replace(end=end, digest=digest, rows=rows, live=None, size=size)

    def folded(self, snapshot: Snapshot, notes: Any) -> CachedLog:
        """The same log, starting from a snapshot of its end that the reader made."""
        size = _OVERHEAD + _size_of(snapshot) + self.live_size
        return self._replace(snapshot=snapshot, link=self.digest, rows=[], notes=notes, size=size)


def _size_of(snapshot: Snapshot | None) -> int:
    return 0 if snapshot is None else len(snapshot.state) + sum(map(len, snapshot.items))


def _size(rows: Sequence[Any]) -> int:
    """Approximate bytes that rows take."""
    return sum(_ROW + len(row.payload) for row in rows)


class LogCache:
    """The logs used last, each with its stored bytes; shared by the threads of a process."""

    def __init__(self, bytes_max: int = BYTES) -> None:
        self._max = bytes_max
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Begin empty, at first and in a forked process."""
        self._size = 0
        self._logs: OrderedDict[tuple[int, str] | Position, CachedLog] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, head: Head, fingerprint: str, marks: Marks) -> CachedLog | None:
        """The cached bytes of a log, if they can lead to this end of it."""
        with self._lock:
            cached = self._logs.get((head.thread_key, head.ns))
        if cached is None or cached.end.seq > head.seq:
            return None
        return cached if (cached.fingerprint, cached.marks) == (fingerprint, marks) else None

    def at_end(self, head: Head, fingerprint: str) -> CachedLog | None:
        """The cached bytes of a log, if they are a reader's snapshot at this end of it."""
        with self._lock:
            cached = self._logs.get((head.thread_key, head.ns))
        if cached is None or cached.notes is None or cached.rows:
            return None
        found = (cached.end, cached.digest, cached.fingerprint)
        if found != (head.position, head.digest, fingerprint):
            return None
        return cached._replace(was_found=True)

    def known(
        self, thread_key: int, ns: str, fingerprint: str | None
    ) -> tuple[int, int, int] | None:
        """The marks of a log whose bytes are cached (0: there is none), and the seq of its end."""
        with self._lock:
            cached = self._logs.get((thread_key, ns))
        if cached is None or cached.fingerprint != fingerprint:
            return None
        marks = cached.marks
        return marks.fork or 0, marks.snapshot or 0, cached.end.seq

    def put(self, cached: CachedLog) -> bool:
        """Cache a log, and drop those that were used longest ago; false if it is too large."""
        place = cached.end if cached.is_past else cached.end[:2]
        fits = cached.rows is not None and cached.size <= self._max // SHARE
        with self._lock:
            self._drop(place)
            if fits:
                self._logs[place] = cached
                self._size += cached.size
            while self._size > self._max:
                self._drop(next(iter(self._logs)))
        return fits

    def forget(self, thread_key: int) -> None:
        """Drop the logs of a thread."""
        with self._lock:
            for place in [place for place in self._logs if place[0] == thread_key]:
                self._drop(place)

    def appended(
        self, old: Head, new: Head, rows: Sequence[Mapping[str, Any]], snapshot: NewSnapshot | None
    ) -> None:
        """Add the rows that were appended to a log, none of them a fork."""
        with self._lock:
            cached = self._logs.get((old.thread_key, old.ns))
        if cached is None or (cached.end, cached.digest) != (old.position, old.digest):
            return
        if snapshot is None:
            self.put(cached.extended(new.position, new.digest, [_event_row(row) for row in rows]))
        elif snapshot.fingerprint == cached.fingerprint and cached.notes is None:
            self.put(_at_snapshot(cached, new, snapshot))

    def start_at(
        self, before: Head, end: Head, snapshot: Snapshot, notes: Any, is_stored: bool
    ) -> None:
        """Let a log start from a snapshot of its end that its writer made.

        Args:
            before, end: the end of the log before the last append to it, and after.
            is_stored: that append stored a snapshot, too.
        """
        with self._lock:
            cached = self._logs.get((end.thread_key, end.ns))
        if cached is None or cached.fingerprint != snapshot.fingerprint:
            return
        found, marks = (cached.end, cached.digest), cached.marks
        if is_stored and found == (before.position, before.digest):
            marks = Marks(marks.fork, end.seq)
        elif found != (end.position, end.digest):
            return
        here = CachedLog.of(
            end.position, end.digest, snapshot.fingerprint, marks, snapshot, end.digest, []
        )
        self.put(here._replace(notes=notes))

    def keep(self, end: Head, live: Live) -> None:
        """Keep objects of a reader with a log that is cached up to this end, if there is room."""
        with self._lock:
            cached = self._logs.get((end.thread_key, end.ns))
        if cached is None or (cached.end, cached.digest) != (end.position, end.digest):
            return
        size = cached.size - cached.live_size + live.size
        if size <= self._max // SHARE:
            self.put(cached._replace(live=live, size=size))

    def _drop(self, place: tuple[int, str] | Position) -> None:
        cached = self._logs.pop(place, None)
        self._size -= cached.size if cached else 0


class PastCache(LogCache):
    """What the past positions read last lead to, each as a snapshot that a reader made.

    People who look at the history of a thread, or go back in it, read the same checkpoints again.
    """

    def known_at(self, at: Position, fingerprint: str | None) -> tuple[int, int, int] | None:
        """As :meth:`known`, of a past position: the event at it is to be read."""
        with self._lock:
            cached = self._logs.get(at)
        if cached is None or cached.fingerprint != fingerprint:
            return None
        marks = cached.marks
        return marks.fork or 0, marks.snapshot or 0, at.seq - 1

    def get_at(self, at: Position, digest: bytes | None, fingerprint: str) -> CachedLog | None:
        """What leads to a past position, if the event there has this digest."""
        with self._lock:
            cached = self._logs.get(at)
        if cached is None or (cached.digest, cached.fingerprint) != (digest, fingerprint):
            return None
        return cached._replace(was_found=True)


class BodyCache:
    """Bodies of the payloads decoded last, by the bytes of the payload: so they are never stale.

    A snapshot's payloads are read with each later checkpoint that rests on it. Shared by the
    threads of a process.
    """

    def __init__(self, bytes_max: int = BYTES // BODIES_SHARE) -> None:
        self._max = bytes_max
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Begin empty, at first and in a forked process."""
        self._size = 0
        self._bodies: OrderedDict[bytes, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def decode(self, codec: Codec, payload: bytes) -> tuple[Any, bytes]:
        """The value of a payload, and a body that ``codec.unpack(body, own=True)`` reads."""
        with self._lock:
            body = self._bodies.get(payload)
            if body is not None:
                self._bodies.move_to_end(payload)
        if body is not None:
            return codec.unpack(body, own=True), body
        value, body = codec.decode_for_own(payload)
        size = _entry(payload, body)
        if size <= self._max // SHARE:
            with self._lock:
                if payload not in self._bodies:
                    self._bodies[payload] = body
                    self._size += size
                while self._size > self._max:
                    self._size -= _entry(*self._bodies.popitem(last=False))
        return value, body


def _entry(payload: bytes, body: bytes) -> int:
    """Approximate bytes that an entry of the body cache takes."""
    return _ROW + len(payload) + len(body)


def _event_row(row: Mapping[str, Any]) -> EventRow:
    return EventRow(*(row[f"new_{name}"] for name in EventRow._fields))


def _at_snapshot(cached: CachedLog, new: Head, taken: NewSnapshot) -> CachedLog:
    before = cached.snapshot
    rests_on = before is not None and taken.rests_on == before.position.seq
    items = (*(before.items if before is not None and rests_on else ()), taken.items)
    snapshot = Snapshot(new.position, taken.fingerprint, False, taken.state, items)
    marks = Marks(cached.marks.fork, new.seq)
    return CachedLog.of(
        new.position, new.digest, cached.fingerprint, marks, snapshot, new.digest, []
    )


class LogEnds:
    """Where the logs end that were appended to last by ``append``: it need not look again.

    One that is out of date does no harm: the database refuses to append behind it.
    """

    def __init__(self) -> None:
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Begin empty, at first and in a forked process."""
        self._ends: OrderedDict[tuple[str, str, str], Head] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, tenant: str, thread_id: str, ns: str) -> Head | None:
        """The end of a log as it was after the last append."""
        with self._lock:
            return self._ends.get((tenant, thread_id, ns))

    def put(self, tenant: str, head: Head) -> None:
        """Remember the end of a log, and forget that of the one appended to longest ago."""
        place = (tenant, head.thread_id, head.ns)
        with self._lock:
            self._ends[place] = head
            self._ends.move_to_end(place)
            if len(self._ends) > ENDS:
                self._ends.popitem(last=False)
