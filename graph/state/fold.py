"""State is the fold of events: ``state = reduce(apply, events)``. Pure: no I/O, no clock.

Owns the meaning of each event: values, frontier, joins, unfinished supersteps. Runs and replays use
the same :class:`Fold`, so they cannot differ. The only application code that it calls are reducers;
each gets all updates of its channel together, which makes folding a long log linear (see
``Channel.reduce``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from eventstore import Position, RecordedEvent
from eventstore.format.digests import origin
from graph.build.channels import MISSING, Channel, Missing
from graph.errors import ForeignThreadError
from graph.state.events import Data, Kind, unpack, updates_of
from graph.state.namespaces import lasting, moved, same_task
from graph.state.state import (
    COMMAND,
    INTERRUPT,
    NOTHING,
    NOWHERE,
    Asked,
    JoinKey,
    State,
    Task,
    checkpoint_id,
    initial,
)
from graph.types import START, Overwrite


def _original(at: Position) -> Position:
    """The original position of an event, also of a copy in the prefix of a fork."""
    return Position(*origin(at.thread_key, at.ns), at.seq)


_SPECIAL: Final = frozenset({"later", "sends", "joins"})
"""Keys that an event has only if its node's edges did more than name nodes."""


def _interrupted(source: str) -> str:
    """The source of an interrupt's checkpoint in a superstep that began with one of this source."""
    if source.startswith(INTERRUPT):
        return source
    return f"{INTERRUPT}/{source}" if source in ("update", "fork") else INTERRUPT


@lru_cache(maxsize=1_000)
def _task(node: str) -> Task:
    """The task of a node that reads the state. Cached: every checkpoint and replay needs it."""
    return Task(node)


class Fold:
    """Folds events into a state: call :meth:`feed` for each event, then :meth:`state`.

    Writes to a channel with a reducer are collected, and reduced when :meth:`state` is called: the
    same result as one at a time, in one pass.
    """

    __slots__ = (
        "_channels",
        "_overwritten",
        "_run_began",
        "_updates",
        "above",
        "at",
        "began",
        "branch",
        "call",
        "checkpoint",
        "created_us",
        "ended",
        "errors",
        "first",
        "forms",
        "frontier",
        "interrupts",
        "joins",
        "kept",
        "last",
        "later",
        "logs",
        "metadata",
        "parent",
        "pending",
        "resume_values",
        "run_id",
        "source",
        "stands_on",
        "step",
        "values",
        "version",
    )

    def __init__(self, channels: Mapping[str, Channel], state: State | None = None) -> None:
        state = state or initial(channels)
        self._channels = channels
        self._updates: dict[str, list[Any]] = {}
        self._overwritten: set[str] = set()
        self.at, self.checkpoint, self.parent = state.at, state.checkpoint, state.parent
        self.step, self.frontier = state.step, state.frontier
        self.values = dict(state.values)
        self.pending, self.errors = dict(state.pending), dict(state.errors)
        self.joins, self.later = dict(state.joins), state.later
        self.last, self.source = state.last, state.source
        self.run_id, self.metadata = state.run_id, state.metadata
        self.created_us = state.created_us
        self.interrupts, self.resume_values = dict(state.interrupts), dict(state.resume_values)
        self.logs, self.kept = dict(state.logs), dict(state.kept)
        self.began, self.first, self.branch = state.began, state.first, state.branch
        self.call, self.above, self.ended = state.call, state.above, dict(state.ended)
        self.forms, self.version = state.forms, state.version
        self.stands_on = state.stands_on
        self._run_began = NOWHERE

    def feed(self, kind: int, data: Data, at: Position, recorded_us: int) -> bool:
        """Fold one event; returns whether its position is a checkpoint."""
        before, self.at = self.at, at
        if "forms" in data:
            self.forms, self.version = {**self.forms, **data["forms"]}, data.get("version")
        if kind == Kind.OUTPUT:
            if len(self.frontier) == 1 and not (self.logs or "logs" in data or "above" in data):
                self._write(data)  # as below, of a task that is alone
                self.last = (data["node"],)
                self._advance((data,))
                self._complete(recorded_us, "loop", self.step + 1)
                return True
            self._finish(data)
            if len(self.pending) < len(self.frontier):
                return False
            outputs = self._write_pending()
            self.last = tuple(dict.fromkeys(output["node"] for output in outputs))
            self._advance(outputs)
            self._complete(recorded_us, "loop", self.step + 1)
        elif kind == Kind.INPUT:
            self._write(data)
            self.joins, self.later, self.above = {}, frozenset(), None
            self.run_id, self._run_began = data.get("run", ""), at
            self._called(data.get("call", ""), before)
            self.metadata = data.get("metadata", {})
            self.last = (START,)
            self._advance([{**data, "node": START}] if "joins" in data else [data])
            continues = "command" in data and self.checkpoint.seq > 0
            source = COMMAND if continues else "input"
            step = self.step + 1 if self.source != "fork" else self._next_step(before)
            self._complete(recorded_us, source, data.get("step", step), before)
        elif kind == Kind.ERROR:
            self.errors[data["task"]] = data
            self._note_logs(data)
            return False
        elif kind == Kind.INTERRUPT:
            for waiting in data["tasks"]:
                self._note_logs(waiting)
                without_logs = {name: each for name, each in waiting.items() if name != "logs"}
                self.interrupts[waiting["task"]] = without_logs
                self.errors.pop(waiting["task"], None)
            # It takes the place of the checkpoint where the superstep began.
            self._mark(recorded_us, _interrupted(self.source), self.stands_on)
        elif kind == Kind.RESUME:
            self._resume(data)
            return False
        elif kind == Kind.UPDATE:
            # The writes of finished tasks are kept; their targets are replaced.
            self._arrive(self._write_pending())
            updates = updates_of(data)
            for update in updates:
                self._write(update)
            self.metadata = data.get("metadata", self.metadata)
            self.last = tuple(dict.fromkeys(update["node"] for update in updates))
            self.later, self.above = frozenset(), None
            self._advance(updates)
            self._complete(recorded_us, "update", self._next_step(before), before)
        elif kind == Kind.FORK:
            self._fork()
            if not _original(at).ns:  # as in LangGraph a fork is a step of its own
                self.step += 1
            self._mark(recorded_us, "fork")
        else:
            raise ForeignThreadError(
                f"event {at.seq} of this thread is of kind {kind}, which no graph of this library "
                "writes; LangGraph wrote the thread through an EventStoreSaver, or an application "
                "wrote events of its own: continue it with what wrote it, or pass another thread_id"
            )
        return True

    def _called(self, call: str, before: Position) -> None:
        """Note which call a run of a subgraph with ``checkpointer=True`` is for."""
        if not (call or self.call):
            return
        if not same_task(self.call, call):
            self.ended = {}
        elif self.call:
            self.ended[self.call] = before
        self.call = call

    def _finish(self, output: Data) -> None:
        task = output["task"]
        self.pending[task] = output
        self.errors.pop(task, None)
        self.interrupts.pop(task, None)
        self.logs.pop(task, None)
        if "logs" in output:
            self.kept |= output["logs"]

    def _note_logs(self, data: Data) -> None:
        if "logs" in data:
            self.logs[data["task"]] = data["logs"]

    def _resume(self, data: Data) -> None:
        """Apply resume values, and perhaps writes and more tasks, to the unfinished superstep."""
        for resumed in data["answers"]:
            task, key = resumed["task"], resumed.get("nth", resumed["id"])
            waiting = self.interrupts.pop(task)
            pending = {each["id"]: each for each in waiting["interrupts"]}
            found = Asked(pending.pop(resumed["id"])["value"], resumed["value"])
            self.resume_values[task] = {**self.resume_values.get(task, {}), key: found}
            left = list(pending.values())
            if left:
                self.interrupts[task] = {**waiting, "interrupts": left}
        if "writes" in data:
            self._write(data)
        if "to" in data:
            there = {task.node for task in self.frontier if task.arg is MISSING}
            added = [_task(node) for node in sorted(data["to"]) if node not in there]
            added += [Task(node, arg) for node, arg in data.get("sends", ())]
            self.frontier = (*self.frontier, *added)
            self.later = self.later.union(data.get("later", ()))

    def _fork(self) -> None:
        """Rename the logs of subgraphs, which the fork continues under names of this branch."""
        fork, (_, own) = self.at.seq, origin(self.at.thread_key, self.at.ns)
        self.kept = {moved(ns, own, fork): 1 for ns in self.kept}
        self.logs = {
            task: {moved(ns, own, fork): 1 for ns in logs} for task, logs in self.logs.items()
        }
        self.began = self.branch = fork  # `first` stays: it is the same superstep

    def _write(self, data: Data) -> None:
        channels, updates = self._channels, self._updates
        writes = data["writes"]
        plain = type(writes) is dict and "overwrite" not in data
        for key, value in writes.items() if plain else unpack(data):
            channel = channels.get(key)
            if channel is None or channel.reducer is None:
                self.values[key] = value
            elif type(value) is Overwrite:
                updates[key] = [value]
                self._overwritten.add(key)
            elif key not in self._overwritten:
                if key in updates:
                    updates[key].append(value)
                else:
                    updates[key] = [value]

    def _write_pending(self) -> list[Data]:
        """Apply finished outputs in the order of the frontier, not of finishing."""
        pending = self.pending
        outputs = [pending[index] for index in sorted(pending)]
        self.above = next((output["above"] for output in outputs if "above" in output), self.above)
        for output in outputs:
            self._write(output)
        return outputs

    def _arrive(self, outputs: Iterable[Data]) -> list[JoinKey]:
        """Note which nodes arrived at which joins in a superstep; returns the complete joins."""
        arrived: dict[JoinKey, set[str]] = {}
        for output in outputs:
            for target, names, late in output.get("joins", ()):
                if late and target in self.later:
                    continue  # already due; further arrivals change nothing
                key = (target, tuple(names), late)
                arrived.setdefault(key, set(self.joins.get(key, ()))).add(output["node"])
        complete = [key for key, nodes in arrived.items() if nodes.issuperset(key[1])]
        for key, nodes in arrived.items():
            self.joins[key] = frozenset(nodes)
        for key in complete:
            del self.joins[key]
        return complete

    def _advance(self, outputs: Sequence[Data]) -> None:
        """Set the frontier to the targets of these outputs."""
        if self.above is not None:
            self.frontier, self.later = (), frozenset()
            return
        if len(outputs) == 1 and not self.later and outputs[0].keys().isdisjoint(_SPECIAL):
            targets = outputs[0]["to"]
            self.frontier = (
                (_task(targets[0]),) if len(targets) == 1 else tuple(map(_task, sorted(targets)))
            )
            return
        nodes: set[str] = set()
        later = set(self.later)
        sends: list[Task] = []
        for output in outputs:
            nodes.update(output["to"])
            if "later" in output:
                later.update(output["later"])
            if "sends" in output:
                sends += [Task(node, arg) for node, arg in output["sends"]]
        for target, _, late in self._arrive(outputs):
            (later if late else nodes).add(target)
        if not nodes and not sends:
            nodes, later = later, set()
        self.frontier = (*map(_task, sorted(nodes)), *sends)
        self.later = frozenset(later)

    def _next_step(self, before: Position) -> int:
        """The step of a write by a caller: that of a fork before it, which only says from where."""
        forked = self.source == "fork" and self.checkpoint == before and not _original(before).ns
        return self.step if forked else self.step + 1

    def _complete(
        self, recorded_us: int, source: str, step: int, before: Position = NOWHERE
    ) -> None:
        forked = self.source == "fork" and self.checkpoint == before
        if self.logs:
            for logs in self.logs.values():  # of tasks that will not finish
                self.kept |= lasting(logs, origin(self.at.thread_key, self.at.ns)[1])
        self._overwritten.clear()
        for unfinished in (
            self.pending,
            self.errors,
            self.interrupts,
            self.resume_values,
            self.logs,
        ):
            unfinished.clear()
        self.first, self.began, self.step = self.at, self.at.seq, step
        if forked:  # the fork only says what this continues from
            self._mark(recorded_us, source, self.stands_on)
        else:
            self._mark(recorded_us, source)

    def _mark(
        self, recorded_us: int, source: str, stands_on: Position | Missing | None = MISSING
    ) -> None:
        """Make this position a checkpoint."""
        self.parent = self.checkpoint if self.checkpoint.seq else None
        self.stands_on = self.parent if stands_on is MISSING else stands_on
        self.checkpoint = self.at
        self.created_us, self.source = recorded_us, source

    def state(self) -> State:
        """The state after the events so far.

        Raises:
            ReducerError: a reducer cannot merge what was written; its cause is the reducer's error.
        """
        for key, updates in self._updates.items():
            channel, value = self._channels[key], self.values.get(key, MISSING)
            try:
                self.values[key] = channel.reduce(value, updates)
            except Exception as error:
                raise channel.failure(value, updates) from error
        self._updates = {}
        if not self.run_id and self._run_began.seq:
            self.run_id = checkpoint_id(_original(self._run_began))
        return State(
            self.at,
            self.checkpoint,
            self.parent,
            self.step,
            dict(self.values),
            self.frontier,
            dict(self.pending) if self.pending else NOTHING,
            dict(self.errors) if self.errors else NOTHING,
            dict(self.joins) if self.joins else NOTHING,
            self.later,
            self.last,
            self.source,
            self.run_id,
            self.metadata,
            self.created_us,
            dict(self.interrupts) if self.interrupts else NOTHING,
            dict(self.resume_values) if self.resume_values else NOTHING,
            dict(self.logs) if self.logs else NOTHING,
            dict(self.kept) if self.kept else NOTHING,
            self.began,
            self.first,
            self.branch,
            self.call,
            self.above,
            dict(self.ended) if self.ended else NOTHING,
            self.forms,
            self.version,
            self.stands_on,
        )


def parts(pending: Mapping[int, Data], kind: int, data: Data, key: str) -> list[Data]:
    """What an event applies that writes to a key, in order, if these outputs were pending before
    it: outputs of tasks and updates.
    """
    outputs = {**pending, data["task"]: data} if kind == Kind.OUTPUT else dict(pending)
    found = (
        [outputs[task] for task in sorted(outputs)] if kind in (Kind.OUTPUT, Kind.UPDATE) else []
    )
    if kind != Kind.OUTPUT:
        found += updates_of(data)
    return [
        part
        for part in found
        for name, _ in (unpack(part) if "writes" in part else ())
        if name == key
    ]


def apply(channels: Mapping[str, Channel], state: State, event: RecordedEvent) -> State:
    """The state after one more event; ``fold`` is this, repeated."""
    return fold(channels, state, [event])


def fold(
    channels: Mapping[str, Channel], state: State | None, events: Iterable[RecordedEvent]
) -> State:
    """The state after these events, starting from ``state`` (``None``: from nothing)."""
    folding = Fold(channels, state)
    for event in events:
        folding.feed(event.kind, event.data, event.position, event.recorded_us)
    return folding.state()
