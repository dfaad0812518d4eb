"""Reads a thread in the form that users see: state snapshots, history, the audit trail.

Never writes, except ``rebuild``. History is lazy and newest first: the log is folded forward a
block at a time, each block from the nearest snapshot before it. So a listing of a thousand
checkpoints costs a few loads, one fold of the log, and the memory of one block.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Final

from eventstore import (
    LineageMovedError,
    Position,
    PositionNotFoundError,
    RecordedEvent,
    VerifyReport,
)
from eventstore.core.core import Core
from eventstore.core.read import MOVES_MAX
from eventstore.format.digests import is_prefix, origin
from eventstore.format.namespaces import child, token
from eventstore.models import from_micros
from graph.build.schema import MISSING, shown
from graph.build.topology import Graph
from graph.errors import InvalidConfigError, ReducerError, SchemaChangedError
from graph.read import subgraphs
from graph.run.address import Address
from graph.run.snapshots import stored_form
from graph.run.thread_log import ThreadLog
from graph.state import namespaces, planner
from graph.state.events import Data, Kind, by_key, unpack, updates_of
from graph.state.fold import Fold, State, Task, checkpoint_id, initial, task_id
from graph.types import AuditEntry, Interrupt, RunnableConfig, StateSnapshot, StateTask

BLOCK: Final = 128
"""Events per block of history; the states of a block are in memory together."""


class ReadableGraph(Graph):
    """A graph whose logs can be read."""

    @property
    @abstractmethod
    def core(self) -> Core:
        """The store of its threads.

        Raises:
            InvalidConfigError: it has no checkpointer.
        """

    @abstractmethod
    def reader_on(self, core: Core) -> Reader:
        """The reader of this graph's logs in a store."""

    @abstractmethod
    def output(self, state: State, keys: Sequence[str] | str | None = None) -> Any:
        """The part of a state that callers get: these keys, by default the output schema's."""


class Reader:
    """Reads the logs of one graph in one store."""

    def __init__(self, log: ThreadLog, graph: ReadableGraph) -> None:
        self.log = log
        self._graph = graph
        self._keys = graph.topology.state.keys
        self._names: dict[int, str] = {}

    # --- single states ------------------------------------------------------------------

    async def state(self, address: Address, inner: bool = False) -> StateSnapshot:
        """The state at an address. A past checkpoint is shown with the results of its tasks.

        Args:
            inner: include the states of running subgraphs.
        """
        thread_id = address.thread_id
        for _ in range(MOVES_MAX):
            state, replay = await self.log.read(address)
            if replay.head.exists:
                self._names[replay.head.thread_key] = thread_id
            if replay.position == replay.head.position:
                return await self.snapshot(thread_id, state, address.ns, inner, current=True)
            entry = _Entry(state)
            try:
                await self._add_following(thread_id, entry)
            except LineageMovedError:
                continue  # trimmed meanwhile, perhaps beyond this checkpoint
            return await self._past(thread_id, entry, inner)
        raise LineageMovedError(thread_id)

    async def _past(self, thread_id: str, entry: _Entry, inner: bool = False) -> StateSnapshot:
        """A past checkpoint: the nodes that were next then, and what became of them."""
        shown = await self.snapshot(thread_id, entry.closed(), inner=inner, then=entry.state)
        return shown._replace(next=tuple(task.node for _, task in planner.due(entry.state)))

    async def snapshot(
        self,
        thread_id: str,
        state: State,
        ns: str = "",
        inner: bool = False,
        current: bool = False,
        then: State | None = None,
    ) -> StateSnapshot:
        """The public form of a state.

        Args:
            current: the state is the current one of its log.
            then: for a past checkpoint: its state without the later results of its tasks.
        """
        if not state.started:
            place = {"thread_id": thread_id, **({"checkpoint_ns": ns} if ns else {})}
            return StateSnapshot({}, (), {"configurable": place}, None, None, None)
        tasks = [
            StateTask(
                id=task_id(state, index),
                name=task.node,
                path=("edge", task.node) if task.arg is MISSING else ("send", index),
                error=_error(state.errors.get(index)),
                interrupts=_interrupts(state.interrupts.get(index)),
                state=await self._inside(thread_id, then or state, index, task, inner, current)
                if subgraphs.inside(self._graph, task.node)
                else None,
                result=_result(state.pending.get(index)),
            )
            for index, task in enumerate(state.frontier)
        ]
        try:
            values = planner.shown(self._graph.topology, then or state, live=current)
        except ReducerError as error:
            at = state.at
            raise error.at(thread_id, at.ns, at.seq, error.node or "") from error.__cause__
        source = {"source": state.source, "step": state.step, "run_id": state.run_id}
        return StateSnapshot(
            values=shown(values, self._keys),
            next=tuple(task.name for task in tasks if task.result is None),
            config=await self._config(thread_id, state.checkpoint),
            metadata={**state.metadata, **source},
            created_at=from_micros(state.created_us).isoformat(),
            parent_config=state.parent and await self._config(thread_id, state.parent),
            tasks=tuple(tasks),
            interrupts=tuple(each for task in tasks for each in task.interrupts),
        )

    async def _inside(
        self, thread_id: str, state: State, index: int, task: Task, inner: bool, current: bool
    ) -> RunnableConfig | StateSnapshot | None:
        """The subgraph of a task: its state, or the config that reads it."""
        if index in state.pending:
            return None
        known = state.logs.get(index, {})
        own = origin(state.at.thread_key, state.at.ns)[1]
        for name, graph in subgraphs.inside(self._graph, task.node).items():
            if graph.checkpointer is False:
                continue
            if graph.checkpointer is True:
                ns = namespaces.memory(own, name, state.branch)
            else:
                ns = child(own, name, token(state.began, index))
            place: dict[str, Any] = {"thread_id": thread_id, "checkpoint_ns": ns}
            if not current and ns not in known:
                continue
            if not inner:
                return {"configurable": place}
            reader = graph.reader_on(self.log.core)
            at = None if current else namespaces.beside(state.at, ns, known[ns])
            _, found, _ = await reader.log.load(thread_id, at, ns)
            if found.started:
                return await reader.snapshot(thread_id, found, ns, inner, current)
        return None

    async def _config(self, thread_id: str, at: Position) -> RunnableConfig:
        """The config that reads a position, by the name of its own thread while that exists."""
        owner = self._names.get(at.thread_key)
        if owner is None:
            found = await self.log.core.thread_at(at.thread_key)
            owner = self._names[at.thread_key] = found.thread_id if found else thread_id
        return {
            "configurable": {
                "thread_id": owner,
                "checkpoint_ns": at.ns,
                "checkpoint_id": checkpoint_id(at),
            }
        }

    # --- history ------------------------------------------------------------------------

    async def history(
        self, thread_id: str, before: Position | None, ns: str = ""
    ) -> AsyncGenerator[StateSnapshot, None]:
        """Every checkpoint, newest first.

        First all of the thread's own log, abandoned branches included. Then, if the thread was
        forked from another one, the lineage that led to the fork.
        """
        moves = 0
        while True:
            try:
                async with aclosing(self._spans(thread_id, before, ns)) as spans:
                    async for span in spans:
                        async with aclosing(self._entries(thread_id, span)) as entries:
                            async for entry in entries:
                                shown = await self._past(thread_id, entry)
                                before, moves = entry.state.checkpoint, 0
                                yield shown
                return
            except (LineageMovedError, PositionNotFoundError):
                moves += 1  # something was trimmed or deleted; continue with the rest
                if moves == MOVES_MAX:
                    raise

    async def _spans(
        self, thread_id: str, before: Position | None, ns: str
    ) -> AsyncGenerator[_Span, None]:
        """Spans of events without a fork inside, newest first, up to ``before``."""
        core = self.log.core
        head, begins = await core.end(thread_id, ns)
        if head.exists:
            self._names[head.thread_key] = thread_id
        at: Position | None = head.position
        own = at
        found = before is None
        while at is not None and at.seq > 0:
            lineage, begins = begins or await core.lineage(at), None
            span = _Span(at._replace(seq=lineage.first), at.seq, lineage.source, lineage.base)
            if not found and before is not None and span.holds(before):
                found = True
                span = replace(span, last=before.seq - 1)
            if found:
                yield span
            inside = own is not None and at[:2] == own[:2]
            if inside and lineage.base is None and lineage.first > 1:
                at = at._replace(seq=lineage.first - 1)
            else:
                at = lineage.source

    async def _entries(self, thread_id: str, span: _Span) -> AsyncGenerator[_Entry, None]:
        log, last = self.log, span.last
        while last >= span.first.seq:
            first = max(span.first.seq, last - BLOCK + 1)
            start = await self._state_before(thread_id, span, first)
            after = span.first._replace(seq=first - 1)
            entries = [_Entry(start)]
            folding = Fold(log.channels, start)
            async with aclosing(await log.core.read_span(thread_id, after, last)) as pages:
                async for page in pages:
                    for event in page:
                        for entry in reversed(entries):
                            if entry.state.began != entries[-1].state.began:
                                break
                            entry.add(event)
                        if folding.feed(event.kind, event.data, event.position, event.recorded_us):
                            entries.append(_Entry(await self._reduced(folding, thread_id)))
            if len(entries) > 1:
                state = await self._reduced(folding, thread_id)
                await self._add_following(thread_id, entries[-1], state)
            for entry in reversed(entries[1:]):
                yield entry
            last = first - 1
        if span.base is not None and span.base.seq <= last:
            entry = _Entry(await self._state_before(thread_id, span, span.first.seq))
            await self._add_following(thread_id, entry)
            yield entry

    async def _reduced(self, folding: Fold, thread_id: str) -> State:
        try:
            state = folding.state()
            self.log.refuse_other_forms(thread_id, state)
            return state
        except ReducerError:
            await self.log.load(thread_id, folding.at, folding.at.ns)  # raises it with its place
            raise

    async def _state_before(self, thread_id: str, span: _Span, first: int) -> State:
        if first > span.first.seq:
            upto: Position | None = span.first._replace(seq=first - 1)
        else:
            upto = span.source or span.base
        if upto is None:
            return initial(self.log.channels)
        return (await self.log.load(thread_id, upto))[1]

    async def _add_following(
        self, thread_id: str, entry: _Entry, state: State | None = None
    ) -> None:
        """Add the events after a state, by default the entry's own, that belong to its
        superstep.
        """
        state = state or entry.state
        if not state.frontier or entry.full:
            return
        async with aclosing(await self.log.core.read_span(thread_id, state.at, None)) as pages:
            async for page in pages:
                for event in page:
                    if event.kind not in _OF_SUPERSTEP or event.data["step"] != state.step + 1:
                        return
                    entry.add(event)
                    if entry.full:
                        return

    # --- audit --------------------------------------------------------------------------

    async def audit(self, thread_id: str, ns: str = "") -> AsyncGenerator[AuditEntry, None]:
        """The entries of one of the thread's own logs, oldest first."""
        async with aclosing(await self.log.core.read(thread_id, ns)) as pages:
            async for page in pages:
                for event in page:
                    yield _audit_entry(event)

    # --- folding again ------------------------------------------------------------------

    async def replayed(self, address: Address, seq: int | None = None) -> StateSnapshot:
        """The state at an address, or at an event of its log, folded from the first event."""
        log, thread_id, ns = self.log, address.thread_id, address.ns
        if seq is None:
            at = await log.resolve(thread_id, address.position)
        else:
            at = (await log.core.head(thread_id, ns)).position._replace(seq=seq)
        replay, state, _ = await log.load(thread_id, at, ns, snapshots=False)
        current = replay.position == replay.head.position
        return await self.snapshot(thread_id, state, ns, current=current)

    async def rebuild(self, thread_id: str) -> int:
        """Delete every snapshot, and store new ones at the ends of logs where one is due.

        Returns:
            The number of snapshots deleted.
        """
        core = self.log.core
        dropped = await core.delete_snapshots(thread_id)
        for ns in await core.namespaces(thread_id):
            graph = self._graph_of(ns)
            if graph is not None:
                replay, state, taker = await graph.reader_on(core).log.load(
                    thread_id, None, ns, False
                )
                snapshot = taker.take(state) if state.settled else None
                if snapshot is not None:
                    await core.put_snapshot(replay.head, snapshot)
        return dropped

    def _graph_of(self, ns: str) -> ReadableGraph | None:
        """The graph that folds a log; ``None`` if this graph has no such subgraph."""
        if is_prefix(ns):
            return None
        try:
            return subgraphs.graph_of(self._graph, ns)
        except InvalidConfigError:
            return None

    async def verify(self, thread_id: str) -> VerifyReport:
        """Check the digests as the store does, and that every usable snapshot equals its replay."""
        report = await self.log.core.verify(thread_id)
        if not report.ok:
            return report
        problems: list[str] = []
        for ns in report.namespaces:
            graph = self._graph_of(ns)
            if graph is not None:
                problems += await graph.reader_on(self.log.core)._differing(thread_id, ns)
        return replace(report, problems=tuple(problems))

    async def _differing(self, thread_id: str, ns: str) -> list[str]:
        log, where = self.log, f" of {ns}" if ns else ""
        problems = []
        for at in await log.core.snapshot_positions(thread_id, log.fingerprint, ns):
            try:
                quick, whole = [
                    (await log.load(thread_id, at, ns, snapshots))[1] for snapshots in (True, False)
                ]
            except (ReducerError, SchemaChangedError) as error:
                problems.append(str(error))
                continue
            # Compare stored bytes: some values have no reliable equality (NaN, arrays).
            forms = {stored_form(log.core.codec, replace(s, parent=None)) for s in (quick, whole)}
            if len(forms) > 1:
                problems.append(
                    f"the snapshot at seq {at.seq}{where} differs from the fold of its events"
                )
        return problems


_OF_SUPERSTEP: Final = frozenset({Kind.OUTPUT, Kind.ERROR, Kind.INTERRUPT, Kind.RESUME})
"""The kinds of events inside an incomplete superstep."""


@dataclass(frozen=True, slots=True)
class _Span:
    """Events ``first`` to ``last`` of one log; ``source`` and ``base`` are those of its lineage."""

    first: Position
    last: int
    source: Position | None
    base: Position | None

    def holds(self, at: Position) -> bool:
        beginning = self.base or self.first
        same = origin(*at[:2]) == origin(*self.first[:2])  # also true for a copy in a fork
        return same and beginning.seq <= at.seq <= self.last


@dataclass(slots=True)
class _Entry:
    """The state at a checkpoint, and the later results of its tasks."""

    state: State
    pending: dict[int, Data] = field(default_factory=dict)
    errors: dict[int, Data] = field(default_factory=dict)

    @property
    def full(self) -> bool:
        """Whether every task has a result."""
        return all(i in self.pending for i, _ in planner.due(self.state))

    def add(self, event: RecordedEvent) -> None:
        if event.kind == Kind.OUTPUT:
            self.pending[event.data["task"]] = event.data
        elif event.kind == Kind.ERROR:
            self.errors[event.data["task"]] = event.data

    def closed(self) -> State:
        pending = {**self.state.pending, **self.pending}
        errors = {**self.state.errors, **self.errors}
        errors = {i: data for i, data in errors.items() if i not in pending}
        return replace(self.state, pending=pending, errors=errors)


async def selected(
    found: AsyncGenerator[StateSnapshot, None], wanted: Mapping[str, Any], limit: int | None
) -> AsyncGenerator[StateSnapshot, None]:
    """At most ``limit`` of the snapshots whose metadata contains ``wanted``."""
    count = 0
    if limit is not None and limit <= 0:
        return
    async with aclosing(found):
        async for snapshot in found:
            if wanted.items() <= (snapshot.metadata or {}).items():
                yield snapshot
                count += 1
                if count == limit:
                    return


def _audit_entry(event: RecordedEvent) -> AuditEntry:
    data = event.data
    parts = updates_of(data) if event.kind == Kind.UPDATE else [data]
    writes: list[tuple[str, Any]] = []
    goto: list[str] = []
    for part in parts:
        writes += unpack(part) if "writes" in part else ()
        sends = (node for node, _ in part.get("sends", ()))
        joins = (target for target, _, _ in part.get("joins", ()))
        goto += (*part.get("to", ()), *part.get("later", ()), *sends, *joins)
    return AuditEntry(
        seq=event.seq,
        kind=Kind(event.kind).name.lower(),
        recorded_at=event.recorded_at.isoformat(),
        step=data.get("step"),
        node=", ".join(part["node"] for part in parts) if "node" in parts[0] else None,
        writes=by_key(writes),
        goto=tuple(goto),
        data=data,
    )


def _interrupts(data: Data | None) -> tuple[Interrupt, ...]:
    found = data["interrupts"] if data else ()
    return tuple(Interrupt(each["value"], each["id"]) for each in found)


def _error(data: Data | None) -> str | None:
    return None if data is None else f"{data['type']}: {data['message']}"


def _result(data: Data | None) -> dict[str, Any] | None:
    return None if data is None else by_key(unpack(data))
