"""The state of a run at a position, and what it consists of. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from eventstore import Position
from eventstore.format.digests import origin
from graph.build.channels import MISSING, Channel
from graph.state.events import Data
from graph.state.namespaces import Caller, home_of

NOWHERE: Final = Position(0, "", 0)
"""The position of a log before its first event."""

NOTHING: Final[Mapping[Any, Any]] = MappingProxyType({})
"""An empty mapping, which all states share."""

COMMAND: Final = "command"
"""The source of a checkpoint that a ``Command`` made which was the input of a thread that had ended
its runs before."""

INTERRUPT: Final = "interrupt"
"""The source of an interrupt's checkpoint, alone or before that of its superstep."""

JoinKey = tuple[str, tuple[str, ...], bool]


@dataclass(frozen=True, slots=True)
class Task:
    """A node that is to run in the next superstep.

    Attributes:
        arg: the argument of a :class:`~graph.types.Send`; ``MISSING`` if the node reads the state.
    """

    node: str
    arg: Any = MISSING


class Asked(NamedTuple):
    """An interrupt as it was shown, and its resume value; ``MISSING`` while it waits for one."""

    shown: Any
    answer: Any = MISSING


class State(NamedTuple):
    """Everything about a run at a position. Never changed; values are shared.

    Attributes:
        at: position of the last event folded in.
        checkpoint: the last position at which a superstep was complete or interrupted.
        parent: the checkpoint before that, in the lineage.
        step: of the last complete superstep; the first input makes 0.
        values: the channels.
        frontier: the tasks of the coming superstep, in the order in which they are merged.
        pending: the outputs of its finished tasks, by index in the frontier.
        errors: the failures of its failed tasks, by index.
        interrupts: the pending interrupts of its waiting tasks, by index.
        resume_values: the resumed interrupts of its tasks, by index: each by its ``nth``, or by
            its id if it is of a subgraph.
        logs: where the logs of subgraphs ended when their task failed or was interrupted, by
            index and name.
        kept: where the logs of subgraphs with ``checkpointer=True`` ended, by name.
        began: the seq at which the coming superstep began, or of the fork that went back to it.
        first: where it began originally, perhaps in the log that this one was forked from.
        branch: the seq of this log's last fork, or 0.
        joins: the nodes that have arrived at each incomplete join.
        later: deferred nodes, which run when nothing else is left to run.
        last: the nodes whose writes led to this checkpoint.
        source: what made this checkpoint: ``input``, ``command``, ``loop``, ``interrupt``
            (``interrupt/update`` in a superstep that began with an edit), ``update`` or ``fork``.
        run_id: the caller's id of the run; by default the checkpoint that its input made.
        call: in the log of a subgraph with ``checkpointer=True``: the call that the run is for.
        ended: in such a log: where the runs for earlier calls of the same task ended.
        above: a node's command for the graph above, which ends this run.
        forms: how each key was declared when a run last began (``Channel.form``), if recorded.
        version: the version of the graph that declared them.
        stands_on: the parent that is shown: not that of a fork or interrupt which is listed only on
            request.
    """

    at: Position = NOWHERE
    checkpoint: Position = NOWHERE
    parent: Position | None = None
    step: int = -1
    values: Mapping[str, Any] = NOTHING
    frontier: tuple[Task, ...] = ()
    pending: Mapping[int, Data] = NOTHING
    errors: Mapping[int, Data] = NOTHING
    joins: Mapping[JoinKey, frozenset[str]] = NOTHING
    later: frozenset[str] = frozenset()
    last: tuple[str, ...] = ()
    source: str = ""
    run_id: str = ""
    metadata: Mapping[str, Any] = NOTHING
    created_us: int = 0
    interrupts: Mapping[int, Data] = NOTHING
    resume_values: Mapping[int, Mapping[int | str, Asked]] = NOTHING
    logs: Mapping[int, Mapping[str, int]] = NOTHING
    kept: Mapping[str, int] = NOTHING
    began: int = 0
    first: Position = NOWHERE
    branch: int = 0
    call: str = ""
    above: Data | None = None
    ended: Mapping[str, Position] = NOTHING
    forms: Mapping[str, str] = NOTHING
    version: str | None = None
    stands_on: Position | None = None

    def caller(self, task: int, call: int) -> str:
        """Identifies a task's nth call of a subgraph with ``checkpointer=True``, as text (see
        :class:`namespaces.Caller`).
        """
        key, ns = origin(self.first.thread_key, self.first.ns)
        return str(Caller(home_of(key, ns), self.first.seq, task, call))

    @property
    def settled(self) -> bool:
        """Whether nothing of the coming superstep has happened yet."""
        return self.at == self.checkpoint and not (self.pending or self.errors or self.interrupts)

    @property
    def stays(self) -> bool:
        """Whether a snapshot of it can be made: it is settled, and its parent is in the same log.

        A parent in another log may move with it.
        """
        here, parent, stands_on = self.at[:2], self.parent, self.stands_on
        return (
            self.settled
            and (parent is None or parent[:2] == here)
            and (stands_on is None or stands_on[:2] == here)
        )

    @property
    def resumed(self) -> set[tuple[int, int | str]]:
        """The interrupts of the coming superstep that have a resume value."""
        return {(task, key) for task, known in self.resume_values.items() for key in known}

    @property
    def started(self) -> bool:
        """Whether the log has at least one event."""
        return self.checkpoint.seq > 0


def initial(channels: Mapping[str, Channel]) -> State:
    """The state before the first event: channels with a reducer have their empty value."""
    return State(
        values={name: c.initial() for name, c in channels.items() if c.initial is not None}
    )


def checkpoint_id(at: Position, seq: int | None = None) -> str:
    """Opaque text that locates a checkpoint without an index and sorts by age in its thread.

    Args:
        seq: of another event of the same log.
    """
    return f"{at.thread_key:016x}-{at.seq if seq is None else seq:010x}"


def task_id(state: State, task: int) -> str:
    """Identifies a task while its superstep lasts, also after failures and interrupts."""
    return f"{checkpoint_id(state.checkpoint, state.began)}/{task}"
