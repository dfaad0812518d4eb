"""What a thread's log tells its readers: state snapshots, history, the audit trail.

Reads only. History is lazy and newest first: the log is folded forward a block at a time,
each from the nearest snapshot before it, so that listing a thousand checkpoints costs a
handful of loads and one fold of the log, and the memory of one block.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Final

from eventstore import Position, RecordedEvent, VerifyReport
from eventstore.events import from_micros
from graph.events import Data, Kind, unpack
from graph.fold import Fold, State, checkpoint_id, initial
from graph.log import ThreadLog
from graph.planner import own
from graph.schema import MISSING
from graph.types import AuditEntry, RunnableConfig, StateSnapshot, StateTask

BLOCK: Final = 128
"""Events folded at once while history is listed; their states are held together."""


class Reader:
    """Reads one graph's threads in the form that its users see."""

    def __init__(self, log: ThreadLog, keys: tuple[str, ...]) -> None:
        self._log = log
        self._keys = keys
        self._names: dict[int, str] = {}

    # --- single states ------------------------------------------------------------------

    async def state(self, config: Mapping[str, Any]) -> StateSnapshot:
        """The state where ``config`` points; past checkpoints with what came of their tasks."""
        thread_id, state, current = await self._log.read(config)
        if current:
            return await self.snapshot(thread_id, state)
        entry = _Entry(state)
        await self._add_following(thread_id, entry)
        return await self._past(thread_id, entry)

    async def _past(self, thread_id: str, entry: _Entry) -> StateSnapshot:
        """A checkpoint of the past: what was next then, and what came of it."""
        shown = await self.snapshot(thread_id, entry.closed())
        return shown._replace(next=tuple(task.node for task in entry.state.frontier))

    async def snapshot(self, thread_id: str, state: State) -> StateSnapshot:
        """The public form of a state as it stands."""
        if not state.started:
            empty: RunnableConfig = {"configurable": {"thread_id": thread_id}}
            return StateSnapshot({}, (), empty, None, None, None)
        name = checkpoint_id(state.checkpoint)
        tasks = tuple(
            StateTask(
                id=f"{name}/{index}",
                name=task.node,
                path=("edge", task.node) if task.arg is MISSING else ("send", index),
                error=_error(state.errors.get(index)),
                result=_result(state.pending.get(index)),
            )
            for index, task in enumerate(state.frontier)
        )
        source = {"source": state.source, "step": state.step, "run_id": state.run_id}
        return StateSnapshot(
            values={key: own(state.values[key]) for key in self._keys if key in state.values},
            next=tuple(task.name for task in tasks if task.result is None),
            config=await self._config(thread_id, state.checkpoint),
            metadata={**state.metadata, **source},
            created_at=from_micros(state.created_us).isoformat(),
            parent_config=state.parent and await self._config(thread_id, state.parent),
            tasks=tasks,
        )

    async def _config(self, thread_id: str, at: Position) -> RunnableConfig:
        """The config that reads a position: in its own thread's name, while that is there."""
        owner = self._names.get(at.thread_key)
        if owner is None:
            found = await self._log.core.thread_at(at.thread_key)
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
        self, thread_id: str, before: Position | None
    ) -> AsyncGenerator[StateSnapshot, None]:
        """Every checkpoint, newest first.

        All of the thread's own log, branches left behind included; then, where the thread
        was forked from another, the lineage that led to the fork.
        """
        async with aclosing(self._spans(thread_id, before)) as spans:
            async for span in spans:
                async with aclosing(self._entries(thread_id, span)) as entries:
                    async for entry in entries:
                        yield await self._past(thread_id, entry)

    async def _spans(self, thread_id: str, before: Position | None) -> AsyncGenerator[_Span, None]:
        """Runs of events without a fork inside, newest first, cut off at ``before``."""
        core = self._log.core
        at: Position | None = (await core.head(thread_id)).position
        own = at
        found = before is None
        while at is not None and at.seq > 0:
            lineage = await core.lineage(at)
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
        log, last = self._log, span.last
        while last >= span.first.seq:
            first = max(span.first.seq, last - BLOCK + 1)
            start = await self._state_before(thread_id, span, first)
            after = span.first._replace(seq=first - 1)
            entries = [_Entry(start)]
            folding = Fold(log.channels, start)
            async with aclosing(await log.core.read_span(thread_id, after, last)) as pages:
                async for page in pages:
                    for event in page:
                        entries[-1].add(event)
                        if folding.feed(event.kind, event.data, event.position, event.recorded_us):
                            entries.append(_Entry(folding.state()))
            if len(entries) > 1:
                await self._add_following(thread_id, entries[-1], folding.state())
            for entry in reversed(entries[1:]):
                yield entry
            last = first - 1
        if span.base is not None and span.base.seq <= last:
            entry = _Entry(await self._state_before(thread_id, span, span.first.seq))
            await self._add_following(thread_id, entry)
            yield entry

    async def _state_before(self, thread_id: str, span: _Span, first: int) -> State:
        if first > span.first.seq:
            upto: Position | None = span.first._replace(seq=first - 1)
        else:
            upto = span.source or span.base
        if upto is None:
            return initial(self._log.channels)
        return (await self._log.load(thread_id, upto))[1]

    async def _add_following(
        self, thread_id: str, entry: _Entry, state: State | None = None
    ) -> None:
        """Add the events behind a state (the entry's own, or where reading it has come to), as
        long as they belong to its superstep.
        """
        state = state or entry.state
        if not state.frontier or entry.full:
            return
        async with aclosing(await self._log.core.read_span(thread_id, state.at, None)) as pages:
            async for page in pages:
                for event in page:
                    is_of_task = event.kind in (Kind.OUTPUT, Kind.ERROR)
                    if not is_of_task or event.data["step"] != state.step + 1:
                        return
                    entry.add(event)
                    if entry.full:
                        return

    # --- audit --------------------------------------------------------------------------

    async def audit(self, thread_id: str) -> AsyncGenerator[AuditEntry, None]:
        """The thread's own log, oldest first, line by line."""
        async with aclosing(await self._log.core.read(thread_id)) as pages:
            async for page in pages:
                for event in page:
                    yield _audit_entry(event)

    async def verify(self, thread_id: str) -> VerifyReport:
        """The store's checks, and that every snapshot in use equals the fold of its events."""
        log = self._log
        report = await log.core.verify(thread_id)
        if not report.ok:
            return report
        problems = []
        for at in await log.core.snapshot_positions(thread_id, log.fingerprint):
            replays = [
                await log.core.replay(
                    thread_id, upto=at, fingerprint=log.fingerprint, snapshots=snapshots
                )
                for snapshots in (True, False)
            ]
            quick, whole = [(await log.fold(replay))[0] for replay in replays]
            if replace(quick, parent=None) != replace(whole, parent=None):
                problems.append(f"the snapshot at seq {at.seq} differs from the fold of its events")
        return replace(report, problems=tuple(problems))


@dataclass(frozen=True, slots=True)
class _Span:
    """Events ``first`` to ``last`` of one log, which began as its ``Lineage`` says."""

    first: Position
    last: int
    source: Position | None
    base: Position | None

    def holds(self, at: Position) -> bool:
        beginning = self.base or self.first
        return at[:2] == self.first[:2] and beginning.seq <= at.seq <= self.last


@dataclass(slots=True)
class _Entry:
    """A checkpoint's state, gathering what its tasks went on to do."""

    state: State
    pending: dict[int, Data] = field(default_factory=dict)
    errors: dict[int, Data] = field(default_factory=dict)

    @property
    def full(self) -> bool:
        """Whether every task has come to something."""
        return len(self.pending) == len(self.state.frontier)

    def add(self, event: RecordedEvent) -> None:
        if event.kind == Kind.OUTPUT:
            self.pending[event.data["task"]] = event.data
        elif event.kind == Kind.ERROR:
            self.errors[event.data["task"]] = event.data

    def closed(self) -> State:
        errors = {i: data for i, data in self.errors.items() if i not in self.pending}
        return replace(self.state, pending=self.pending, errors=errors)


def _audit_entry(event: RecordedEvent) -> AuditEntry:
    data = event.data
    sends = (node for node, _ in data.get("sends", ()))
    joins = (target for target, _, _ in data.get("joins", ()))
    return AuditEntry(
        seq=event.seq,
        kind=Kind(event.kind).name.lower(),
        recorded_at=event.recorded_at.isoformat(),
        step=data.get("step"),
        node=data.get("node"),
        writes=dict(unpack(data.get("writes", {}))),
        goto=(*data.get("to", ()), *data.get("later", ()), *sends, *joins),
        data=data,
    )


def _error(data: Data | None) -> str | None:
    return None if data is None else f"{data['type']}: {data['message']}"


def _result(data: Data | None) -> dict[str, Any] | None:
    return None if data is None else dict(unpack(data["writes"]))
