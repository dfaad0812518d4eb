"""The events of a run: their kinds, and the plain data that each holds.

Data is kept as dictionaries with readable keys (compressed with a dictionary the names cost
next to nothing), so that the log can be read without this code. Everything that decides
what runs next is in the event that decided it, so replaying needs no edge and no node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from eventstore import FORK

Data = dict[str, Any]
Writes = Sequence[tuple[str, Any]]


class Kind(IntEnum):
    """What an event of a run says. Numbers are stored: never change one."""

    FORK = FORK
    INPUT = 1
    OUTPUT = 2
    ERROR = 3
    UPDATE = 6


@dataclass(frozen=True, slots=True)
class Goto:
    """Where edges led.

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
        """What of this goes into an event: only what is not empty."""
        data: Data = {"to": list(self.to)}
        if self.later:
            data["later"] = list(self.later)
        if self.sends:
            data["sends"] = [[node, arg] for node, arg in self.sends]
        if self.joins:
            data["joins"] = [[target, list(names), late] for target, names, late in self.joins]
        return data


def _pack(writes: Writes) -> Data | list[list[Any]]:
    packed = dict(writes)
    return packed if len(packed) == len(writes) else [[key, value] for key, value in writes]


def unpack(writes: Data | list[list[Any]]) -> Iterable[tuple[str, Any]]:
    """The (key, value) pairs of recorded writes, in order."""
    return writes.items() if isinstance(writes, dict) else ((key, value) for key, value in writes)


def input_data(run: str | None, writes: Writes, goto: Goto, metadata: Mapping[str, Any]) -> Data:
    """A run began; it is named by its checkpoint unless the caller named it."""
    data = {"writes": _pack(writes), **goto.data()}
    if run is not None:
        data["run"] = run
    return {**data, "metadata": dict(metadata)} if metadata else data


def output_data(step: int, task: int, node: str, writes: Writes, goto: Goto) -> Data:
    """A task finished."""
    return {"step": step, "task": task, "node": node, "writes": _pack(writes), **goto.data()}


def error_data(step: int, task: int, node: str, error: BaseException, attempts: int) -> Data:
    """A task failed, after so many attempts."""
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__"):
        name = f"{kind.__module__}.{name}"
    return {
        "step": step,
        "task": task,
        "node": node,
        "type": name,
        "message": str(error)[:MESSAGE_MAX],
        "attempts": attempts,
    }


def update_data(node: str, writes: Writes, goto: Goto, metadata: Mapping[str, Any]) -> Data:
    """Someone edited the state as if ``node`` had written it."""
    data = {"node": node, "writes": _pack(writes), **goto.data()}
    return {**data, "metadata": dict(metadata)} if metadata else data


MESSAGE_MAX: Final = 10_000
"""Characters kept of an error's message."""
