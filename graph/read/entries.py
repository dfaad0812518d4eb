"""Checkpoints while a history is listed: spans of a log, and each state with what came of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

from eventstore import Position, RecordedEvent
from eventstore.format.digests import origin
from graph.build.channels import MISSING
from graph.state import planner
from graph.state.events import Data, Kind, updates_of
from graph.state.state import State
from graph.types import StateSnapshot

OF_FORK: Final = frozenset({Kind.INPUT, Kind.UPDATE, Kind.RESUME})
"""What a fork is recorded with; a fork alone is where a run continues from the past."""


OF_SUPERSTEP: Final = frozenset({Kind.OUTPUT, Kind.ERROR, Kind.INTERRUPT, Kind.RESUME})
"""The kinds of events inside an incomplete superstep."""


@dataclass(frozen=True, slots=True)
class Span:
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
class Entry:
    """The state at a checkpoint, and the later results of its tasks.

    Attributes:
        replaced: a later checkpoint stands for this one: of an interrupt in the same superstep, or
            of what continued from this fork.
        input: the data of the input event that made it.
        before: the state without that input; ``None`` if no input made it.
        edited: what an edit wrote in the name of its tasks.
    """

    state: State
    pending: dict[int, Data] = field(default_factory=dict)
    errors: dict[int, Data] = field(default_factory=dict)
    replaced: bool = False
    input: Data = field(default_factory=dict)
    before: State | None = None
    edited: dict[int, Data] = field(default_factory=dict)

    def look_at(self, event: RecordedEvent) -> None:
        """Note whether an event after this checkpoint made one that stands for it."""
        if event.kind == Kind.INTERRUPT and event.data["step"] == self.state.step + 1:
            self.replaced = True
        is_next = event.seq == self.state.checkpoint.seq + 1
        if self.state.source == "fork" and is_next and event.kind in OF_FORK:
            self.replaced = True
        if event.kind == Kind.UPDATE:
            for part in updates_of(event.data):
                for index, task in planner.due(self.state):
                    if task.node == part["node"] and task.arg is MISSING:
                        self.edited[index] = part

    @property
    def full(self) -> bool:
        """Whether every task has a result."""
        return all(i in self.pending for i, _ in planner.due(self.state))

    def add(self, event: RecordedEvent) -> None:
        if event.kind == Kind.OUTPUT:
            self.pending[event.data["task"]] = event.data
        elif event.kind == Kind.ERROR:
            self.errors[event.data["task"]] = event.data

    def closed(self, every: bool = False) -> State:
        """The state with the results; of a task that failed and then finished both, or one."""
        if not (self.pending or self.errors or self.edited):
            return self.state
        pending = {**self.state.pending, **self.pending}
        errors = {**self.state.errors, **self.errors}
        if not every:
            pending = {**self.edited, **pending}
        else:
            errors = {i: data for i, data in errors.items() if i not in pending}
        return self.state._replace(pending=pending, errors=errors)


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
