"""The records of the log, all immutable: events, positions, heads, snapshots, threads, reports.

No I/O. :class:`RecordedEvent`, which is read in bulk, is a named tuple, because building a frozen
dataclass costs more than decoding a small payload; the others are frozen dataclasses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar, get_args

from eventstore.errors import ConfigurationError
from eventstore.limits import INT_MAX, check_moment, check_number, check_position, shown

FORK: Final = 0
"""Kind of the event after which a log goes on from another position."""

KIND_MAX: Final = 32767

DELETION_MARK: Final = -1
"""Kind of the mark that ends every log of a thread being deleted; readers never see it."""

SqlRow = Any
"""A row as SQLAlchemy gives it: its type takes other parameters in 2.0 than in 2.1."""

E = TypeVar("E")

Status = Literal["running", "waiting", "failed", "cancelled", "idle"]

STATUSES: Final[tuple[str, ...]] = get_args(Status)

RUNTIME: Final = "runtime"
"""Metadata that says what writes a thread, where that is not a graph of this library."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def check_status(status: object) -> None:
    """Check that a thread can have this status.

    Raises:
        ConfigurationError: it cannot.
    """
    if not isinstance(status, str) or status not in STATUSES:
        raise ConfigurationError(
            f"status must be one of {', '.join(STATUSES)}, not {shown(status)}"
        )


def to_micros(moment: datetime, what: str = "a moment") -> int:
    """Microseconds since 1970 UTC, exactly (a float would lose the last digit).

    Raises:
        ConfigurationError: it is no ``datetime``, or a naive one.
    """
    try:
        return (moment - _EPOCH) // _MICROSECOND
    except TypeError:
        check_moment(what, moment)
        raise


def from_micros(micros: int) -> datetime:
    """The inverse of :func:`to_micros`."""
    return _EPOCH + timedelta(microseconds=micros)


@dataclass(frozen=True, slots=True)
class Event:
    """An event to append.

    Attributes:
        kind: 1 … 32767; its meaning is the application's.
        data: any value that the codec can encode.
        key: the caller's name for the event, unique in its log. Appending events again
            under the same keys is harmless.
    """

    kind: int
    data: Any = None
    key: str | None = None

    def __post_init__(self) -> None:
        if type(self.kind) is not int or not 1 <= self.kind <= KIND_MAX:
            check_number("kind", self.kind, 1, KIND_MAX)  # an IntEnum is a number, too


class Position(NamedTuple):
    """A place in a log, independent of names: forks refer to it, checkpoint ids encode it."""

    thread_key: int
    ns: str
    seq: int


def check_at(what: str, at: Position) -> None:
    """Check that a position can be one; quick where it is.

    Raises:
        ConfigurationError: it cannot.
    """
    if type(at) is Position:
        key, ns, seq = at
        if type(key) is type(seq) is int and type(ns) is str and ns.isprintable():
            if 0 <= key <= INT_MAX and 0 <= seq <= INT_MAX:
                return
    check_position(what, at)


@dataclass(frozen=True, slots=True)
class Fork:
    """An event after which the log goes on from ``source``. It holds no copy of it.

    Attributes:
        source: a position in this log or another of the same tenant.
        data: whatever the application records about the decision.
    """

    source: Position
    data: Any = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """An event to append whose data is already packed, with the time at which it happened.

    Attributes:
        body: its data, packed by the codec of the store.
        recorded_us: when it happened, in microseconds since 1970 UTC.
        key: as that of an :class:`Event`.
        is_compressed: the body is stored as it is; compressing it would gain nothing.
    """

    kind: int
    body: bytes
    recorded_us: int
    key: str | None = None
    is_compressed: bool = False


class RecordedEvent(NamedTuple):
    """An event as read from a log.

    Attributes:
        seq: 1, 2, 3, … without gaps, within (thread, namespace).
        kind: the application's, or :data:`FORK`.
        data: the decoded payload.
        key: the caller's name for it; ``None``: it has none.
        recorded_us: when it was recorded, in microseconds since 1970 UTC.
        digest: 16 bytes that chain this event to the one before it.
        size: stored bytes of the payload.
        thread_key, ns: the log that holds it (the lineage of a fork runs through several logs).
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
        """Its place in its log."""
        return Position(self.thread_key, self.ns, self.seq)


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a log as a writer last read it; an append names it.

    Attributes:
        seq: of the last event, 0 for an empty log.
        digest: of the last event; of an empty log, the one that its chain begins with.
        exists: whether the thread has a row yet.
        status, owner, active_us: as stored, so that an append writes them only when they change.
        written: stored bytes of the events appended; set on the head that an append returns.
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
    owner: str | None = None

    @property
    def position(self) -> Position:
        """Where the log ends."""
        return Position(self.thread_key, self.ns, self.seq)


@dataclass(frozen=True, slots=True)
class NewSnapshot:
    """A snapshot to store together with the append that led to its state.

    Attributes:
        fingerprint: identifies the code that folded it; code with another one ignores it.
        state: the encoded state, without the list items in ``items``.
        items: the encoded items added to append-only lists since the snapshot at ``rests_on``.
        rests_on: seq of the snapshot that this one continues, in the same log; ``None``: it is
            complete in itself.
        step: how many checkpoints there were up to this one, as the layer above counts. It also
            states that the thread's other logs are named by the rule of
            :mod:`eventstore.format.namespaces`: a trim at this snapshot removes those that had
            ended by then. ``None``: other logs follow no rule, and a trim never removes them.
    """

    fingerprint: str
    state: bytes
    items: bytes
    rests_on: int | None = None
    step: int | None = None

    @property
    def size(self) -> int:
        """Its encoded size in bytes."""
        return len(self.state) + len(self.items)


@dataclass(frozen=True, slots=True)
class Addition:
    """What to append to one log, in one transaction with additions to others of the thread.

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
    """A snapshot as read: its state, and the items of all snapshots it rests on, oldest first.

    Attributes:
        position: the checkpoint it materializes.
        state, items: encoded as they were given, and verified against their checksums.
    """

    position: Position
    fingerprint: str
    is_base: bool
    state: bytes
    items: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Replay(Generic[E]):
    """What to fold to get the state at a position: a snapshot, then the events after it.

    Attributes:
        head: the end of the log that was requested (not of the position), for appending.
        position: the position that the events lead to.
        snapshot: start here; ``None``: start from nothing.
        events: along the lineage, oldest first; an iterator, or an asynchronous one, that can be
            read once.
        cached: the same as stored bytes, if worth caching: see ``eventstore.cache``.
    """

    head: Head
    position: Position
    snapshot: Snapshot | None
    events: E
    cached: Any = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where a run of events in a log comes from.

    Attributes:
        first: seq of its first event.
        source: the position that its first event, a fork, goes on from; ``None``: it is no fork.
        base: the checkpoint after which it begins, if the events before that were trimmed.
    """

    first: int
    source: Position | None
    base: Position | None


@dataclass(frozen=True, slots=True)
class Branch:
    """A fork: where a log leaves another one, or goes back in its own.

    Attributes:
        thread_id: the thread that branched off.
        at: the fork's event, after which that thread's log goes on.
        source: the position that it goes on from.
        source_thread_id: the thread that holds it; ``None``: that thread was deleted since.
    """

    thread_id: str
    at: Position
    source: Position
    source_thread_id: str | None


@dataclass(frozen=True, slots=True)
class Pin:
    """Why a thread is kept whatever any policy says (a legal hold, say).

    Attributes:
        at: when it was pinned, UTC.
    """

    reason: str
    by: str
    at: datetime


@dataclass(frozen=True, slots=True)
class ThreadInfo:
    """A thread, as ``thread()`` and ``threads()`` return it.

    Attributes:
        status: ``running``, ``waiting``, ``failed`` or ``idle``, as the layer above set it.
        active_at: time of the last append, to the minute.
        ttl: seconds since the last activity after which retention may prune it; ``None``: the
            policy decides.
        pinned: keep it whatever the policy says.
        metadata: given when the thread was created.
        thread_key: the number under which everything of this thread is stored.
        pin: why it is pinned, if a reason was recorded.
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
class ThreadDamage:
    """A thread whose row is damaged, as far as the row says which one it is.

    Attributes:
        thread_key: where its row stands.
        tenant, thread_id: its names; one of them may be what is damaged.
        problem: what is wrong, in a sentence that names the thread.
    """

    thread_key: int
    tenant: str
    thread_id: str
    problem: str


@dataclass(frozen=True, slots=True)
class Stats:
    """How much is stored, for one thread or for all of a tenant.

    Attributes:
        raw_bytes: of the payloads before compression.
        stored_bytes: of the payloads as stored.
        snapshot_bytes: of the snapshots as stored.
        sealed_events: how many of the events are in segments.
        damaged: threads that could not be measured, by name; the numbers leave them out.
    """

    threads: int
    events: int
    raw_bytes: int
    stored_bytes: int
    snapshots: int
    snapshot_bytes: int
    sealed_events: int = 0
    damaged: tuple[str, ...] = ()

    def plus(self, other: Stats) -> Stats:
        """The sum of both."""
        return Stats(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))

    @property
    def ratio(self) -> float:
        """Raw bytes per stored byte."""
        return self.raw_bytes / self.stored_bytes if self.stored_bytes else 1.0


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The result of ``verify()``.

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
        """Whether there are no problems."""
        return not self.problems


@dataclass(frozen=True, slots=True)
class DatabaseReport:
    """The result of ``check_database()``.

    Attributes:
        problems: one sentence each; empty when nothing was found.
        checked_by: what checked it; ``None``: nothing could, and ``note`` says why.
    """

    problems: tuple[str, ...]
    checked_by: str | None
    note: str | None = None

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not self.problems
