"""Who wrote a state key, at which event, and what it had read: from a value to its cause.

Owns the search. It follows the lineage backwards, if it can to the input of the run that wrote the
key last, and folds from there, so that outputs which a later input withdrew count as not written.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from eventstore import Position, RecordedEvent
from eventstore.core.core import Core
from eventstore.explain import describe
from eventstore.explain.states import is_of_run, keys_of
from eventstore.explain.trail import trail
from graph.build.channels import MISSING, Channel
from graph.state.events import Data, Kind, unpack, updates_of
from graph.state.fold import Fold
from graph.state.state import NOWHERE, Task

PAGE: Final = 200
"""Events read at once, and so at least."""

EVENTS_MAX: Final = 1_000
"""Events that a search reads before it says how far it came."""


@dataclass(frozen=True, slots=True, eq=False)
class Write:
    """A write of a state key, as the fold applied it.

    Attributes:
        at: the event that wrote it.
        kind: ``input``, ``output``, ``resume`` or ``update``.
        node: the node that wrote it; empty for an input.
        value: the update, before the key's reducer merged it.
        read: the checkpoint that the node read; ``None`` for an input.
        argument: what its task was sent; ``MISSING`` if it read the state.
    """

    at: Position
    kind: str
    node: str
    value: Any
    recorded_us: int
    read: Position | None
    argument: Any = MISSING


@dataclass(frozen=True, slots=True)
class Blame:
    """The writes that were found.

    Attributes:
        writes: by key, oldest first; of a key with a reducer all since it was overwritten, as
            far as was searched.
        earlier: where the search can go on; ``None``: it saw the whole history.
        searched: the number of events.
    """

    writes: dict[str, list[Write]]
    earlier: Position | None
    searched: int


async def blame(
    core: Core,
    thread_id: str,
    at: Position,
    keys: Collection[str] = (),
    events_max: int = EVENTS_MAX,
) -> Blame:
    """Who wrote keys of the state at a position.

    Args:
        keys: search until each was found; none: the newest page alone is searched.
        events_max: events to read at most.
    """
    events: list[RecordedEvent] = []
    here: Position | None = at
    size = PAGE
    while True:
        page = await trail(core, thread_id, here, min(size, events_max - len(events)))  # type: ignore[arg-type]
        events += page.events
        here, size = page.earlier, size * 2
        ends = here is None or len(events) >= events_max or not page.events
        first = _run_begins(events)
        # Only an input withdraws outputs: behind the last one, all that was written counts.
        segment = events if first is None or here is None else events[: first + 1]
        found = writes_in(segment[::-1])
        if ends or not keys or all(key in found for key in keys):
            return Blame(found, here, len(events))


def _run_begins(events: Sequence[RecordedEvent]) -> int | None:
    """The index of the earliest input among events that are newest first."""
    inputs = (n for n, event in enumerate(events) if describe.kind_of(event) == "input")
    return max(inputs, default=None)


def writes_in(events: Sequence[RecordedEvent]) -> dict[str, list[Write]]:
    """The writes that a fold of events applies, by key.

    Args:
        events: along a lineage, oldest first; best from an input on.
    """
    events = [event for event in events if is_of_run(event)]
    fold = Fold({key: Channel(key, _collected, list) for key in keys_of(events)})
    for event in events:
        data = _traced(event, fold)
        if event.kind == Kind.RESUME:
            asked = set(fold.interrupts)
            data = {**data, "answers": [a for a in data["answers"] if a["task"] in asked]}
        fold.feed(event.kind, data, event.position, event.recorded_us)
    state = fold.state()
    found = {key: list(value) for key, value in state.values.items()}
    for index in sorted(state.pending):
        for key, value in unpack(state.pending[index]):
            found.setdefault(key, []).extend(getattr(value, "value", value))
    return found


def _collected(value: list[Write], update: list[Write]) -> list[Write]:
    return value + update


def _traced(event: RecordedEvent, fold: Fold) -> Data:
    """The data of an event with writes in place of the values that it writes."""
    data: Data = event.data
    if event.kind == Kind.FORK:
        return data
    kind = describe.kind_of(event)
    read = None if kind == "input" or fold.checkpoint == NOWHERE else fold.checkpoint

    def traced(part: Data) -> Data:
        if "writes" not in part:
            return part
        node, argument = str(part.get("node", "")), MISSING
        if kind == "output" and part["task"] < len(fold.frontier):
            task: Task = fold.frontier[part["task"]]
            argument = task.arg
        pairs = part["writes"].items() if isinstance(part["writes"], dict) else part["writes"]
        return {
            **part,
            "writes": [
                [key, [Write(event.position, kind, node, value, event.recorded_us, read, argument)]]
                for key, value in pairs
            ],
        }

    if "updates" in data:
        return {**data, "updates": [traced(part) for part in updates_of(data)]}
    return traced(data)
