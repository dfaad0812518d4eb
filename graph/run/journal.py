"""The journal of one run: appends its events to the log, and folds its state from them.

Owns the state of a run, which is always the fold of what was recorded, and *when* events are
appended: at once (``sync``), beside the next superstep (``async``), or at the end (``exit``).
Nothing else in this package writes to the store. A fork also forks the logs of subgraphs as they
were at its source, in the same transaction.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final, Protocol, TypedDict

from eventstore import (
    Addition,
    CorruptEventError,
    Fork,
    Head,
    NewSnapshot,
    Position,
    SerializationError,
)
from eventstore.concurrency import Blocking, Concurrency
from eventstore.core.core import Core
from eventstore.format.digests import genesis, origin
from eventstore.format.namespaces import split
from eventstore.leases import Lease
from eventstore.models import Prepared, Status
from graph.build.channels import Channel
from graph.errors import InvalidGraphError, ReducerError
from graph.run.recent import Recorded
from graph.run.snapshots import SnapshotTaker
from graph.run.status import Draft, Stops, status_of
from graph.state.events import Data, Kind, note
from graph.state.fold import Fold, parts
from graph.state.namespaces import beside, lasting, moved
from graph.state.state import NOWHERE, State, initial
from graph.types import START, Durability

BEHIND_MAX: Final = 8
"""How many records a run with ``durability="async"`` may be ahead of the log. A crash loses these,
and the running tasks.
"""


@dataclass(frozen=True, slots=True)
class Means:
    """How a run's journals write.

    Attributes:
        concurrency: how a run waits for the store, and starts work in parallel.
        durability: when events are written.
        forbidden: returns the reason why the run may no longer write, if there is one.
        together: with ``exit``: the journals of the run and its subgraphs, by namespace.
        recorded: for a replay check: up to which seq to read the logs of subgraphs, by name.
        lease: the run's claim on its thread; an edit has none.
    """

    concurrency: Concurrency = field(default_factory=Blocking)
    durability: Durability = "sync"
    forbidden: Callable[[], str | None] = lambda: None
    together: dict[str, LogJournal] = field(default_factory=dict)
    recorded: Mapping[str, int] = field(default_factory=dict)
    lease: Lease | None = None


class Journal(Protocol):
    """Records a run's events; ``state`` is always the fold of what was recorded."""

    state: State

    @property
    def busy_with(self) -> tuple[int, str | None] | None:
        """Seq and owner of the head if another run was active when this was opened."""

    async def record(self, drafts: Sequence[Draft], stops: Stops) -> State:
        """Record events, all or nothing, and return the state after them."""

    async def branch(self, stops: Stops) -> None:
        """Record a fork, if the run continues from an older checkpoint."""

    async def flush(self) -> None:
        """Return when everything recorded is durable (with ``exit``: the whole run's)."""


class NoJournal:
    """The journal of a graph without a checkpointer: the fold alone, nothing stored."""

    def __init__(self, channels: Mapping[str, Channel], now_us: Callable[[], int]) -> None:
        self._channels = channels
        self._now_us = now_us
        self.state = initial(channels)
        self.busy_with = None

    async def record(self, drafts: Sequence[Draft], stops: Stops) -> State:
        """Fold the events."""
        folding = Fold(self._channels, self.state)
        now = self._now_us()
        for seq, (kind, data) in enumerate(drafts, self.state.at.seq + 1):
            folding.feed(kind, data, NOWHERE._replace(seq=seq), now)
        try:
            self.state = folding.state()
        except ReducerError as error:
            cause, _ = _of_the_reducer(error, self.state, drafts)
            raise cause from None
        return self.state

    async def branch(self, stops: Stops) -> None:
        """Do nothing: without a log there is no older checkpoint."""

    async def flush(self) -> None:
        """Do nothing: nothing is stored."""


Materialize = Callable[
    [Head, SnapshotTaker, Mapping[int, Mapping[str, int]], Sequence[Fork | Prepared], State],
    Awaitable[tuple[NewSnapshot | None, SnapshotTaker]],
]
"""Makes a snapshot that is due; see :meth:`graph.run.loading.Loader.materialize`."""


class _Claim(TypedDict, total=False):
    """The arguments of an append that make the run the owner of its thread."""

    owner: str
    exclusive: bool


@dataclass(frozen=True, slots=True)
class _Batch:
    """The events of one record, and the state after them."""

    events: list[Fork | Prepared]
    state: State
    status: Status | None
    now_us: int
    beside: list[Addition]


class LogJournal:
    """The journal of one run on one log.

    Attributes:
        earlier: for a subgraph with ``checkpointer=True``: the states after earlier calls of the
            same task.
        is_assumed: nobody has been asked where the log ends, and nothing has been written.
        is_sent: the database was asked to write; if that failed, it may have happened.
    """

    def __init__(
        self,
        core: Core,
        channels: Mapping[str, Channel],
        head: Head,
        state: State,
        taker: SnapshotTaker,
        means: Means,
        materialize: Materialize | None = None,
        *,
        recorded: Recorded | None = None,
        fork_from: Position | None = None,
        metadata: Mapping[str, Any] | None = None,
        ttl: timedelta | None = None,
        version: str | None = None,
    ) -> None:
        self.core = core
        self.state = state
        self._inherited = state.pending
        self.means = means
        self.busy_with = (head.seq, head.owner) if head.status == "running" else None
        self.earlier: dict[str, State] = {}
        self.is_assumed = self.is_sent = False
        self._channels = channels
        self._head = head
        self._at = head.position
        self._taker = taker
        self._materialize = materialize
        self._recorded = recorded
        self._logs = state.logs
        self._fork_from = fork_from
        self._metadata = metadata or {}
        self._ttl = ttl
        self._version = version
        self._tells_forms = True
        self._lock = threading.Lock()
        self._waiting: list[_Batch] = []
        self._writer: Awaitable[None] | None = None
        self._unwritten = 0
        self._writes = False
        self._failure: BaseException | None = None

    @property
    def thread_id(self) -> str:
        """The thread that the log belongs to."""
        return self._head.thread_id

    @property
    def digest(self) -> bytes:
        """Of the last event that is written."""
        return self._head.digest

    @property
    def is_written(self) -> bool:
        """Whether everything recorded is durable.

        Raises:
            Exception: the error that prevented writing.
        """
        if self._failure is not None:
            raise self._failure
        with self._lock:
            return not self._writes

    @property
    def at(self) -> Position:
        """The end of the log, including what is recorded but not written yet."""
        return self._at

    def as_of(self, state: State) -> LogJournal:
        """The same log, read as of an earlier state."""
        past = LogJournal(self.core, self._channels, self._head, state, self._taker, self.means)
        past._at = self._at
        return past

    def taken_over(self, means: Means, reason: str) -> LogJournal:
        """The same journal for another run, with its unwritten events; this one records no more.

        Args:
            reason: why this one may no longer record.
        """
        new = copy.copy(self)
        new.means = means
        new._recorded = copy.copy(self._recorded)
        self.means = replace(self.means, forbidden=lambda: reason)
        if means.together.get(self._at.ns) is self:
            means.together[self._at.ns] = new
        return new

    async def record(self, drafts: Sequence[Draft], stops: Stops) -> State:
        """Append the events in one transaction, after a fork if the run continues from the past.

        Raises:
            ConcurrencyError: another writer was first; nothing was stored.
            SerializationError: a value cannot be stored; nothing was stored.
        """
        reason = self.means.forbidden()
        if reason is not None:
            raise InvalidGraphError(reason)
        if self._tells_forms and drafts:
            drafts = self._declared(drafts)
        batch = self._batch(drafts, stops)
        # The forks of subgraphs' logs must be written before a subgraph continues from them.
        if self.means.durability == "exit" and not batch.beside:
            self._keep(batch)
            self.means.together.setdefault(self._at.ns, self)
        elif self.means.durability == "async" and _may_wait(drafts):
            self._keep(batch)
            await self._write_beside()
        else:
            if self._writer is not None or self.means.durability == "exit":
                await self.flush()
            await self.means.concurrency.run(self._write([batch], drafts, stops))
        return self.state

    @property
    def goes_back(self) -> bool:
        """Whether the next event continues from an older checkpoint."""
        return self._fork_from is not None

    async def branch(self, stops: Stops) -> None:
        """Append the fork alone, so that the thread continues from the older checkpoint."""
        if self._fork_from is not None:
            await self.record([], stops)

    async def claim(self) -> bool:
        """Make the run the owner of its thread, if what it recorded has not; see
        :meth:`eventstore.leases.Leases.claim`. A thread that does not exist cannot be claimed.
        """
        lease = self.means.lease
        if lease is None or lease.is_held or self._at.ns or not self._head.exists:
            return True
        claimed = await self.means.concurrency.run(self.core.leases.claim(lease, self._head))
        if claimed:
            lease.has_begun = True
            self._head = replace(self._head, status="running", owner=lease.owner)
        return claimed

    async def flush(self) -> None:
        """Return when everything recorded is durable.

        With ``exit`` this is for the journal of the root: all logs of the run are written
        together, in one transaction.

        Raises:
            Exception: the error that prevented writing.
        """
        if self.means.durability == "exit":
            if not split(self._at.ns):
                await self.means.concurrency.run(self._write_together())
            return
        if self._writer is not None:
            await self._writer
        if self._failure is not None:
            raise self._failure

    def _declared(self, drafts: Sequence[Draft]) -> Sequence[Draft]:
        """These, the first of a run with how its keys are declared, where that is news.

        Of logs that end with the call of their subgraph nobody needs to know.
        """
        self._tells_forms = False
        if not all(level.lasts for level in split(self._at.ns)):
            return drafts
        forms = {name: channel.form for name, channel in self._channels.items()}
        if self._version == self.state.version:
            known = self.state.forms
            forms = {key: form for key, form in forms.items() if known.get(key) != form}
        if not forms:
            return drafts
        version = {} if self._version is None else {"version": self._version}
        (kind, data), *rest = drafts
        return [(kind, {**data, "forms": forms, **version}), *rest]

    # --- making batches -----------------------------------------------------------------

    def _batch(self, drafts: Sequence[Draft], stops: Stops) -> _Batch:
        now = self.core.now_us()
        # Packed now, so that a value that cannot be stored fails alone.
        bodies = [self.core.codec.pack(data) for _, data in drafts]
        events: list[Fork | Prepared] = [
            Prepared(int(kind), body, now) for (kind, _), body in zip(drafts, bodies, strict=True)
        ]
        beside: list[Addition] = []
        if self._fork_from is not None:
            events.insert(0, Fork(self._fork_from))
            beside = self._taken_along(self._fork_from, drafts)
        state = self._fold(drafts, bodies, now)
        # The status of a thread is that of its root.
        status = None if self._at.ns else status_of(state, stops, drafts)
        return _Batch(events, state, status, now, beside)

    def _fold(self, drafts: Sequence[Draft], bodies: Sequence[bytes], now: int) -> State:
        """The state after these events: from their bodies, as every later replay folds them.

        So no later node sees a type that is not stored, or what a node changes in place in the
        objects that it returned.

        Raises:
            SerializationError: a value cannot be read again.
        """
        folding = Fold(self._channels, self.state)
        at = self._at
        if self._fork_from is not None:
            at = at._replace(seq=at.seq + 1)
            folding.feed(Kind.FORK, {}, at, now)
        for (kind, data), body in zip(drafts, bodies, strict=True):
            at = at._replace(seq=at.seq + 1)
            try:
                folding.feed(kind, self.core.codec.unpack(body, own=True), at, now)
            except CorruptEventError as error:
                reason = f"it could not be read again: {error.reason}"
                raise SerializationError("", type(data).__name__, reason) from error
        try:
            return folding.state()
        except ReducerError as error:
            cause, part = _of_the_reducer(error, self.state, drafts)
            if any(part is each for each in self._inherited.values()):
                first = self.state.checkpoint.seq + 1
                raise error.at(self.thread_id, self._at.ns, first, part["node"]) from cause
            raise cause from None

    def _taken_along(self, source: Position, drafts: Sequence[Draft]) -> list[Addition]:
        """Forks of the logs of subgraphs, from where they ended at the source of the fork."""
        fork = self._at.seq + 1
        above = origin(source.thread_key, source.ns)[1]
        logs = dict(self.state.kept)
        # Resume values are for the tasks of the superstep; other events replace these tasks.
        keeps = not drafts or drafts[0][0] == Kind.RESUME
        for found in self.state.logs.values():
            logs |= found if keeps else lasting(found, above)
        # What a task used last goes before what was kept of the same log, perhaps by the name that
        # it had on another branch.
        sources = {moved(ns, above, fork): beside(source, ns, seq) for ns, seq in logs.items()}
        return [Addition(self._empty(ns), [Fork(at)]) for ns, at in sorted(sources.items())]

    def _empty(self, ns: str) -> Head:
        """The head of a log of this thread that has no events yet."""
        return replace(
            self._head, ns=ns, seq=0, digest=genesis(self._head.thread_key, ns), written=0
        )

    def _advance(self, batch: _Batch) -> None:
        if self.state.call in batch.state.ended:
            self.earlier.setdefault(self.state.call, self.state)
        self._taker.folded(self._channels, self.state, batch.state)
        if self._recorded is not None:
            bodies = (event.body for event in batch.events if isinstance(event, Prepared))
            self._recorded.follow(self.state, batch.state, bodies)
        self.state, self._fork_from = batch.state, None
        self._at = self._at._replace(seq=self._at.seq + len(batch.events))

    # --- writing them -------------------------------------------------------------------

    async def _write(
        self, batches: list[_Batch], drafts: Sequence[Draft] = (), stops: Stops | None = None
    ) -> None:
        """Append batches in one transaction, and a snapshot after them if one is due.

        Args:
            drafts, stops: of a batch that has not advanced the state yet. It does so here, so that
                no cancellation comes between.
        """
        main, beside = await self._addition(batches)
        self.is_sent = True
        heads = await self.core.append_together(
            [main, *beside],
            status=batches[-1].status,
            metadata=self._metadata,
            ttl=self._ttl,
            now_us=batches[-1].now_us,
            **self._claim(batches[-1].status),
        )
        before = self._head
        self._written(heads[0], main)
        if stops is not None:
            if heads[0].thread_key != self._at.thread_key:  # the first choice of key was taken
                self._at = self._at._replace(thread_key=heads[0].thread_key)
                batches = [self._batch(drafts, stops)]
            self._advance(batches[0])
        self._remember(before, main.snapshot)

    def _remember(self, before: Head, snapshot: NewSnapshot | None) -> None:
        """Keep in memory where the log ends now, if everything recorded is written.

        Args:
            before: where it ended before the last append.
            snapshot: stored by that append.
        """
        state, end = self.state, self._head
        if self._recorded is not None and not state.frontier and state.at == end.position:
            self.core.ends.put(self.core.tenant, end)
            self._recorded.keep(before, end, state, self._taker, snapshot is not None)

    def _claim(self, status: Status | None) -> _Claim:
        """The owner that the thread's row is to name; noted before it is written."""
        lease = self.means.lease
        if lease is None or status is None:
            return {}
        exclusive = lease.is_exclusive and not lease.has_begun
        lease.thread_key = self._head.thread_key
        lease.is_held = lease.is_held or status == "running"
        return {"owner": lease.owner, "exclusive": exclusive}

    async def _addition(self, batches: list[_Batch]) -> tuple[Addition, list[Addition]]:
        events = [event for batch in batches for event in batch.events]
        last, snapshot = batches[-1], None
        if self._materialize and self._taker.is_due(last.state) and last.state.stays:
            snapshot, self._taker = await self._materialize(
                self._head, self._taker, self._logs, events, last.state
            )
        beside = [addition for batch in batches for addition in batch.beside]
        return Addition(self._head, events, snapshot), beside

    def _written(self, head: Head, addition: Addition) -> None:
        if addition.snapshot is None:
            self._taker.saw(head.written, len(addition.events))
        self._head, self.is_assumed = head, False
        lease = self.means.lease
        if lease is not None and not head.ns:
            lease.thread_key, lease.has_begun = head.thread_key, True
            lease.is_held, lease.taken_from = head.status == "running", None

    def _keep(self, batch: _Batch) -> None:
        if self._failure is not None:
            raise self._failure
        self._advance(batch)
        with self._lock:
            self._waiting.append(batch)
            self._unwritten += 1

    async def _write_beside(self) -> None:
        """Start writing what waits, and wait for it if the run is too far ahead."""
        with self._lock:
            behind, begins = self._unwritten, not self._writes
            self._writes = True
        if begins:
            self._writer = self.means.concurrency.spawn(self._drain())
        if behind >= BEHIND_MAX:
            await self.flush()

    async def _drain(self) -> None:
        """Write everything that waits, in one transaction at a time, until nothing is left."""
        while True:
            with self._lock:
                batches, self._waiting = self._waiting, []
                self._writes = bool(batches)
            if not batches:
                return
            try:
                await self.means.concurrency.run(self._write(batches))
            except BaseException as error:  # the next record or flush must raise it
                self._failure = error
                return
            with self._lock:
                self._unwritten -= len(batches)

    async def _write_together(self) -> None:
        """Append the unwritten events of all logs of the run in one transaction."""
        journals = [
            self,
            *(each for each in list(self.means.together.values()) if each is not self),
        ]
        kept = [(each, each._waiting) for each in journals if each._waiting]
        if not kept:
            return
        mains, besides = [], []
        for journal, batches in kept:
            main, beside = await journal._addition(batches)
            mains.append(main)
            besides += beside
        last = self._waiting[-1] if self._waiting else kept[0][1][-1]
        heads = await self.core.append_together(
            [*mains, *besides],
            status=last.status,
            **self._claim(last.status),
            metadata=self._metadata,
            ttl=self._ttl,
            now_us=last.now_us,
        )
        for (journal, _), main, head in zip(kept, mains, heads, strict=False):
            journal._waiting, journal._unwritten = [], 0
            before = journal._head
            journal._written(head, main)
            journal._remember(before, main.snapshot)


def _of_the_reducer(
    error: ReducerError, state: State, drafts: Sequence[Draft]
) -> tuple[BaseException, Data]:
    """What a reducer raised at an update that was to be recorded, and the update: as with nodes,
    it is its own error.
    """
    (*others, (kind, data)) = drafts
    pending = {**state.pending, **{each["task"]: each for of, each in others if of == Kind.OUTPUT}}
    found = parts(pending, kind, data, error.key)
    part = found[min(error.nth, len(found) - 1)] if found else data
    cause = error.__cause__ or error
    note(cause, f"{error}, when what node {part.get('node', START)!r} wrote was to be recorded")
    return cause, part


def _may_wait(drafts: Sequence[Draft]) -> bool:
    """Whether the run may continue before these are durable: outputs of tasks, and nothing else."""
    return bool(drafts) and all(kind == Kind.OUTPUT for kind, _ in drafts)
