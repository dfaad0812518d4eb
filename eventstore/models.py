"""The facts that the log deals in, as immutable records. No behaviour to speak of, no I/O.

What is read in bulk (:class:`RecordedEvent`) is a named tuple, because building a frozen
dataclass costs more than decoding a small payload; the rest are frozen dataclasses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar

FORK: Final = 0
"""Kind of the event that says: this log goes on from another position."""

DELETION_MARK: Final = -1
"""Kind of the mark that ends every log of a thread being deleted; no reader ever sees it."""

SqlRow = Any
"""A row as SQLAlchemy gives it: its type takes other parameters in 2.0 than in 2.1."""

E = TypeVar("E")

Status = Literal["running", "waiting", "failed", "idle"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_micros(moment: datetime) -> int:
    """Microseconds since 1970 UTC, exactly (a float would lose the last digit)."""
    return (moment - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """The inverse of :func:`to_micros`."""
    return _EPOCH + timedelta(microseconds=micros)


@dataclass(frozen=True, slots=True)
class Event:
    """Something to be appended.

    Attributes:
        kind: 1 … 32767, a meaning that the application gives.
        data: any value that the codec takes.
        key: the caller's name for the event, unique in its log. Appending events again
            under the same keys is harmless.
    """

    kind: int
    data: Any = None
    key: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.kind <= 32767:
            raise ValueError(f"kind must be between 1 and 32767, not {self.kind}")


class Position(NamedTuple):
    """A place in a log, independent of names: what forks refer to and checkpoints encode."""

    thread_key: int
    ns: str
    seq: int


@dataclass(frozen=True, slots=True)
class Fork:
    """An event that says: from here on this log continues ``source``. Holds no copy of it.

    Attributes:
        source: the position gone back to, in this log or another of the same tenant.
        data: anything the application wants to remember about the decision.
    """

    source: Position
    data: Any = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """An event that is appended some time after it happened: encoded, and with its own time.

    Attributes:
        payload: its data, as the codec of the store has encoded it.
        recorded_us: when it happened, in microseconds since 1970 UTC.
    """

    kind: int
    payload: bytes
    recorded_us: int


class RecordedEvent(NamedTuple):
    """An event as the log holds it.

    Attributes:
        seq: 1, 2, 3, … without gaps, within (thread, namespace).
        kind: what the application gave, or :data:`FORK`.
        data: the decoded payload.
        key: the caller's name for it, if it has one.
        recorded_us: when, in microseconds since 1970 UTC.
        digest: 16 bytes that chain this event to the one before it.
        size: stored bytes of the payload.
        thread_key, ns: the log that holds it (a fork's lineage runs through several).
    """

    seq: int
    kind: int
    data: Any
    key: str | None
    recorded_us: int
    digest: bytes
    size: int
    thread_key: int
    ns: str

    @property
    def recorded_at(self) -> datetime:
        """When it was recorded, UTC."""
        return from_micros(self.recorded_us)

    @property
    def position(self) -> Position:
        """Where it stands."""
        return Position(self.thread_key, self.ns, self.seq)


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a log as a writer last saw it; appending names it.

    Attributes:
        seq: of the last event, 0 for an empty log.
        digest: of the last event, or the log's first link.
        exists: whether the thread has a row yet.
        status, active_us: as stored, so that an append writes them only when they change.
        written: stored bytes of the events that the append added, which returned this.
    """

    thread_id: str
    thread_key: int
    ns: str
    seq: int
    digest: bytes
    exists: bool
    status: str = "idle"
    active_us: int = 0
    written: int = 0

    @property
    def position(self) -> Position:
        """Where the log ends."""
        return Position(self.thread_key, self.ns, self.seq)


@dataclass(frozen=True, slots=True)
class NewSnapshot:
    """A materialized checkpoint to be stored beside the append that led to it.

    Attributes:
        fingerprint: of the code that folded it; another fingerprint will ignore it.
        state: the encoded state, without what ``items`` holds.
        items: encoded: what was added to growing lists since the snapshot at ``rests_on``.
        rests_on: seq of the snapshot that this one continues, in the same log; ``None``
            when it stands alone.
        step: how many checkpoints there were up to this one, as the layer above counts. It also
            says that the thread's other logs are named by the rule of
            :mod:`eventstore.format.namespaces`: a trim at this snapshot takes those along that are
            over by then. Leave it ``None``
            where logs have names of their own; then none of them ever goes.
    """

    fingerprint: str
    state: bytes
    items: bytes
    rests_on: int | None = None
    step: int | None = None

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return len(self.state) + len(self.items)


@dataclass(frozen=True, slots=True)
class Addition:
    """What is appended to one log, in one transaction with what others of the thread get.

    Attributes:
        head: the end of the log, as the caller read it.
        events: at least one.
        snapshot: of the state after these events.
    """

    head: Head
    events: Sequence[Event | Fork | Prepared]
    snapshot: NewSnapshot | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot as read: its own state, and the items of all that it rests on, oldest first.

    Attributes:
        position: the checkpoint it materializes.
        state, items: encoded, as they were given; verified against their checksums.
    """

    position: Position
    fingerprint: str
    is_base: bool
    state: bytes
    items: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Replay(Generic[E]):
    """What to fold to know the state at a position: a snapshot, then the events after it.

    Attributes:
        head: the end of the log that was asked for (not of the position), for appending.
        position: the position that the events lead to.
        snapshot: start here; ``None``: start from nothing.
        events: along the lineage, oldest first; streams (an iterator, or an asynchronous
            one), and can be read once.
        tail: the same as stored, where it is worth keeping: see ``eventstore.core.cache``.
    """

    head: Head
    position: Position
    snapshot: Snapshot | None
    events: E
    tail: Any = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Lineage:
    """What a run of events in a log goes back to.

    Attributes:
        first: seq of its first event.
        source: where the fork that it begins with goes on from; ``None``: it is no fork.
        base: the checkpoint behind which it begins, when what was before is gone.
    """

    first: int
    source: Position | None
    base: Position | None


@dataclass(frozen=True, slots=True)
class Pin:
    """Why a thread is kept whatever any policy says (a legal hold, say).

    Attributes:
        at: since when, UTC.
    """

    reason: str
    by: str
    at: datetime


@dataclass(frozen=True, slots=True)
class ThreadInfo:
    """What ``threads()`` lists.

    Attributes:
        status: ``running``, ``waiting``, ``failed`` or ``idle``, as the layer above set it.
        active_at: of the last append, to the minute.
        ttl: seconds since the last activity after which retention may prune; ``None``: as
            the policy says.
        pinned: kept whatever the policy says.
        metadata: what the thread was created with.
        thread_key: the number under which everything of this thread is stored.
        pin: why it is pinned, where that was said.
    """

    thread_id: str
    tenant: str
    created_at: datetime
    active_at: datetime
    status: str
    ttl: int | None
    pinned: bool
    metadata: Mapping[str, Any] = field(default_factory=dict)
    thread_key: int = 0
    pin: Pin | None = None


@dataclass(frozen=True, slots=True)
class Stats:
    """How much is stored, for one thread or for all of a tenant.

    Attributes:
        raw_bytes: of the payloads before compression.
        stored_bytes: of the payloads as stored.
        snapshot_bytes: of the snapshots as stored.
        sealed_events: how many of the events are in segments.
    """

    threads: int
    events: int
    raw_bytes: int
    stored_bytes: int
    snapshots: int
    snapshot_bytes: int
    sealed_events: int = 0

    @property
    def ratio(self) -> float:
        """How many raw bytes one stored byte stands for."""
        return self.raw_bytes / self.stored_bytes if self.stored_bytes else 1.0


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What ``verify`` found.

    Attributes:
        problems: one sentence each; empty when everything verifies and decodes.
    """

    thread_id: str
    namespaces: tuple[str, ...]
    events: int
    snapshots: int
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems
