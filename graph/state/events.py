"""The events of a run: their kinds, and the plain data of each.

Data is stored as dictionaries with readable keys, so that the log can be read without this code
(the compression dictionary makes the names nearly free). Every event contains the routing decisions
that it caused, so replay calls no edge and no node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from eventstore import FORK
from graph.types import Overwrite

Data = dict[str, Any]
Writes = Sequence[tuple[str, Any]]


class Kind(IntEnum):
    """The kind of an event of a run. The numbers are stored: never change one."""

    FORK = FORK
    INPUT = 1
    OUTPUT = 2
    ERROR = 3
    INTERRUPT = 4
    RESUME = 5
    UPDATE = 6


@dataclass(frozen=True, slots=True)
class Goto:
    """The targets of a node's edges.

    Attributes:
        to: nodes triggered for the next superstep.
        later: deferred nodes, triggered once nothing else is left to run.
        sends: (node, argument) pairs, in the order in which they were issued.
        joins: (target, sources, deferred) of each join at which the node arrived.
    """

    to: tuple[str, ...] = ()
    later: tuple[str, ...] = ()
    sends: tuple[tuple[str, Any], ...] = ()
    joins: tuple[tuple[str, tuple[str, ...], bool], ...] = ()

    def data(self) -> Data:
        """The event data of this: without empty parts."""
        data: Data = {"to": list(self.to)}
        if self.later:
            data["later"] = list(self.later)
        if self.sends:
            data["sends"] = [[node, arg] for node, arg in self.sends]
        if self.joins:
            data["joins"] = [[target, list(names), late] for target, names, late in self.joins]
        return data


def _pack(writes: Writes) -> Data:
    """The event data of writes: ``writes``, and the keys in it that ``overwrite`` their value."""
    replaced = [key for key, value in writes if type(value) is Overwrite]
    if replaced:
        kept = [(k, v) for k, v in writes if k not in replaced or type(v) is Overwrite]
        writes = [(k, v.value if type(v) is Overwrite else v) for k, v in kept]
    packed = dict(writes)
    same = len(packed) == len(writes)
    data: Data = {"writes": packed if same else [[key, value] for key, value in writes]}
    return {**data, "overwrite": replaced} if replaced else data


def unpack(data: Data) -> Iterable[tuple[str, Any]]:
    """The (key, value) pairs that an event wrote, in order."""
    writes = data["writes"]
    pairs = writes.items() if isinstance(writes, dict) else ((key, value) for key, value in writes)
    if "overwrite" not in data:
        return pairs
    return ((key, Overwrite(v) if key in data["overwrite"] else v) for key, v in pairs)


def by_key(writes: Iterable[tuple[str, Any]]) -> Data:
    """Writes as readers see them; all values of a key that was written several times are under
    ``"$writes"``, as in LangGraph.
    """
    values: dict[str, list[Any]] = {}
    for key, value in writes:
        values.setdefault(key, []).append(value)
    return {
        key: found[0] if len(found) == 1 else {"$writes": found} for key, found in values.items()
    }


def input_data(
    run: str | None, writes: Writes, goto: Goto, metadata: Mapping[str, Any], call: str = ""
) -> Data:
    """A run began.

    Args:
        run: the caller's id of the run; by default the run is identified by its first checkpoint.
        call: for a subgraph with ``checkpointer=True``: the call by the task above that this run
            is for (see :class:`namespaces.Caller`).
    """
    data = {**_pack(writes), **goto.data()}
    if run is not None:
        data["run"] = run
    if call:
        data["call"] = call
    return {**data, "metadata": dict(metadata)} if metadata else data


def output_data(
    step: int, task: int, node: str, writes: Writes, goto: Goto, above: Data | None = None
) -> Data:
    """A task finished.

    Args:
        above: its command for the graph above, which ends this graph.
    """
    data = {"step": step, "task": task, "node": node, **_pack(writes), **goto.data()}
    return data if above is None else {**data, "above": above}


def error_data(step: int, task: int, node: str, error: BaseException, attempts: int) -> Data:
    """A task failed for good, after this many attempts."""
    name, message = named(error)
    return {
        "step": step,
        "task": task,
        "node": node,
        "type": name,
        "message": message,
        "attempts": attempts,
    }


def named(error: BaseException) -> tuple[str, str]:
    """The type and the message under which an error is recorded."""
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__"):
        name = f"{kind.__module__}.{name}"
    try:
        message = str(error)
    except Exception as raised:  # the error is the application's, and so is its text
        message = f"(its text cannot be read: {type(raised).__name__})"
    return name, message[:MESSAGE_MAX]


def note(error: BaseException, text: str) -> None:
    """Add a note to an error of the application, unless its class refuses notes."""
    with suppress(Exception):
        error.add_note(text)


def interrupt_data(step: int, tasks: Sequence[Data]) -> Data:
    """The run is interrupted: these tasks wait (see :func:`waiting_data`)."""
    return {"step": step, "tasks": list(tasks)}


def waiting_data(task: int, node: str, interrupts: Sequence[Mapping[str, Any]]) -> Data:
    """A task waits for resume values.

    Args:
        interrupts: the ``id`` and ``value`` of each interrupt. Those of the node itself also have
            ``nth``, the index of the call of ``interrupt()``; the others come from a subgraph.
            Empty if a subgraph pauses at ``interrupt_before`` or ``interrupt_after``.
    """
    return {"task": task, "node": node, "interrupts": [dict(each) for each in interrupts]}


def resume_data(
    step: int, resumed: Sequence[Data], writes: Writes, goto: Goto, by: Any = None
) -> Data:
    """A ``Command(resume=…)`` arrived.

    Args:
        resumed: the resume values: each with the ``task``, ``id`` and perhaps ``nth`` of its
            interrupt, and the ``value``.
        writes, goto: the update and the targets of the same command.
        by: who answered, if the metadata of the call says it.
    """
    data: Data = {"step": step, "answers": list(resumed)}
    if isinstance(by, str):
        data["by"] = by
    if writes:
        data |= _pack(writes)
    return data if goto == Goto() else {**data, **goto.data()}


def update_data(updates: Sequence[tuple[str, Writes, Goto]], metadata: Mapping[str, Any]) -> Data:
    """Someone edited the state as if these nodes had written it, side by side."""
    parts = [{"node": node, **_pack(writes), **goto.data()} for node, writes, goto in updates]
    data: Data = parts[0] if len(parts) == 1 else {"updates": parts}
    return {**data, "metadata": dict(metadata)} if metadata else data


def updates_of(data: Data) -> list[Data]:
    """The updates that an update event holds."""
    found: list[Data] = data.get("updates", [data])
    return found


MESSAGE_MAX: Final = 10_000
"""Characters kept of an error's message."""
