"""State is the fold of events: ``state = reduce(apply, events)``. Pure: no I/O, no clock.

Owns what each event means: values, frontier, joins, unfinished supersteps. The live run
and every replay go through the same :class:`Fold`, so they cannot differ. Of user code
only reducers are called; they see all updates of a channel together, which makes folding
a long log linear (see ``Channel.reduce``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from eventstore import Position, RecordedEvent
from eventstore.chain import origin
from graph.events import Data, Kind, unpack
from graph.schema import MISSING, Channel
from graph.types import START


def checkpoint_id(at: Position) -> str:
    """Opaque text that locates a checkpoint by itself and sorts by age within its thread."""
    return f"{at.thread_key:016x}-{at.seq:010x}"


def _original(at: Position) -> Position:
    """Where an event was first written, which a copy of it in a fork's prefix still tells."""
    return Position(*origin(at.thread_key, at.ns), at.seq)


NOWHERE: Final = Position(0, "", 0)
"""Where a log stands before its first event."""

_SPECIAL: Final = frozenset({"later", "sends", "joins"})
"""What an event holds only when its node's edges did more than name nodes."""

JoinKey = tuple[str, tuple[str, ...], bool]


@dataclass(frozen=True, slots=True)
class Task:
    """A node that is to run in the next superstep.

    Attributes:
        arg: what :class:`~graph.types.Send` gave; ``MISSING`` when it reads the state.
    """

    node: str
    arg: Any = MISSING


@lru_cache(maxsize=1_000)
def _task(node: str) -> Task:
    """The task of a node that reads the state; there is one for each checkpoint and replay."""
    return Task(node)


@dataclass(frozen=True, slots=True)
class State:
    """All that is known of a run at a position. Never changed; values are shared.

    Attributes:
        at: position of the last event folded in.
        checkpoint: the last position at which a superstep was complete.
        parent: the checkpoint before that, in the lineage.
        step: of the last complete superstep; the first input makes 0.
        values: the channels.
        frontier: the tasks of the coming superstep, in the order in which they are merged.
        pending: outputs of those of them that have finished, by index in the frontier.
        errors: failures of those that have not.
        joins: who has arrived at each join that still waits for others.
        later: deferred nodes that wait until nothing else is to be run.
        last: the nodes whose writes made this checkpoint.
        source: ``input``, ``loop``, ``update`` or ``fork``: what made this checkpoint.
        run_id: the caller's name for the run, or else the checkpoint that its input made.
    """

    at: Position = NOWHERE
    checkpoint: Position = NOWHERE
    parent: Position | None = None
    step: int = -1
    values: Mapping[str, Any] = field(default_factory=dict)
    frontier: tuple[Task, ...] = ()
    pending: Mapping[int, Data] = field(default_factory=dict)
    errors: Mapping[int, Data] = field(default_factory=dict)
    joins: Mapping[JoinKey, frozenset[str]] = field(default_factory=dict)
    later: frozenset[str] = frozenset()
    last: tuple[str, ...] = ()
    source: str = ""
    run_id: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    created_us: int = 0

    @property
    def started(self) -> bool:
        """Whether there is anything to show: at least one event."""
        return self.checkpoint.seq > 0


def initial(channels: Mapping[str, Channel]) -> State:
    """The state before the first event: reducers' channels hold their empty value."""
    return State(
        values={name: c.initial() for name, c in channels.items() if c.initial is not None}
    )


class Fold:
    """Folds events into a state; feed it any number, then ask for the state.

    Writes to a channel with a reducer are gathered and reduced when the state is asked for:
    the same result as one at a time, at the cost of one pass.
    """

    __slots__ = (
        "_channels",
        "_run_began",
        "_updates",
        "at",
        "checkpoint",
        "created_us",
        "errors",
        "frontier",
        "joins",
        "last",
        "later",
        "metadata",
        "parent",
        "pending",
        "run_id",
        "source",
        "step",
        "values",
    )

    def __init__(self, channels: Mapping[str, Channel], state: State | None = None) -> None:
        state = state or initial(channels)
        self._channels = channels
        self._updates: dict[str, list[Any]] = {}
        self.at, self.checkpoint, self.parent = state.at, state.checkpoint, state.parent
        self.step, self.frontier = state.step, state.frontier
        self.values = dict(state.values)
        self.pending, self.errors = dict(state.pending), dict(state.errors)
        self.joins, self.later = dict(state.joins), state.later
        self.last, self.source = state.last, state.source
        self.run_id, self.metadata = state.run_id, state.metadata
        self.created_us = state.created_us
        self._run_began = NOWHERE

    def feed(self, kind: int, data: Data, at: Position, recorded_us: int) -> bool:
        """Fold one event in; whether its position is a checkpoint."""
        self.at = at
        if kind == Kind.OUTPUT:
            self.pending[data["task"]] = data
            self.errors.pop(data["task"], None)
            if len(self.pending) < len(self.frontier):
                return False
            outputs = self._write_pending()
            if len(outputs) == 1:
                self.last = (data["node"],)
            else:
                self.last = tuple(dict.fromkeys(output["node"] for output in outputs))
            self._advance(outputs)
            self._complete(recorded_us, "loop", self.step + 1)
        elif kind == Kind.INPUT:
            self._write(data)
            self.joins, self.later = {}, frozenset()
            self.run_id, self._run_began = data.get("run", ""), at
            self.metadata = data.get("metadata", {})
            self.last = (START,)
            self._advance([{**data, "node": START}] if "joins" in data else [data])
            self._complete(recorded_us, "input", self.step + 1)
        elif kind == Kind.ERROR:
            self.errors[data["task"]] = data
            return False
        elif kind == Kind.UPDATE:
            # What tasks had finished is kept; what they led to is replaced.
            self._arrive(self._write_pending())
            self._write(data)
            self.metadata = data.get("metadata", self.metadata)
            self.last = (data["node"],)
            self.later = frozenset()
            self._advance([data])
            self._complete(recorded_us, "update", self.step + 1)
        elif kind == Kind.FORK:
            self._complete(recorded_us, "fork", self.step)
        else:
            raise ValueError(f"kind {kind} is not an event of a run")
        return True

    def _write(self, data: Data) -> None:
        channels, updates = self._channels, self._updates
        for key, value in unpack(data["writes"]):
            channel = channels.get(key)
            if channel is None or channel.reducer is None:
                self.values[key] = value
            else:
                updates.setdefault(key, []).append(value)

    def _write_pending(self) -> list[Data]:
        """Apply finished outputs in the frontier's order, whatever order they finished in."""
        pending = self.pending
        outputs = [pending[index] for index in sorted(pending)]
        for output in outputs:
            self._write(output)
        return outputs

    def _arrive(self, outputs: Iterable[Data]) -> list[JoinKey]:
        """Note who arrived at which joins in one superstep; returns the joins now complete."""
        arrived: dict[JoinKey, set[str]] = {}
        for output in outputs:
            for target, names, late in output.get("joins", ()):
                if late and target in self.later:
                    continue  # due already: whoever comes again comes for nothing
                key = (target, tuple(names), late)
                arrived.setdefault(key, set(self.joins.get(key, ()))).add(output["node"])
        complete = [key for key, nodes in arrived.items() if nodes.issuperset(key[1])]
        for key, nodes in arrived.items():
            self.joins[key] = frozenset(nodes)
        for key in complete:
            del self.joins[key]
        return complete

    def _advance(self, outputs: Sequence[Data]) -> None:
        """Make the frontier that these outputs lead to."""
        if len(outputs) == 1 and not self.later and outputs[0].keys().isdisjoint(_SPECIAL):
            self.frontier = tuple(map(_task, sorted(outputs[0]["to"])))
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

    def _complete(self, recorded_us: int, source: str, step: int) -> None:
        self.pending, self.errors = {}, {}
        self.parent = self.checkpoint if self.checkpoint.seq else None
        self.checkpoint = self.at
        self.created_us, self.source, self.step = recorded_us, source, step

    def state(self) -> State:
        """The state so far."""
        for key, updates in self._updates.items():
            self.values[key] = self._channels[key].reduce(self.values.get(key, MISSING), updates)
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
            dict(self.pending),
            dict(self.errors),
            dict(self.joins),
            self.later,
            self.last,
            self.source,
            self.run_id,
            self.metadata,
            self.created_us,
        )


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
