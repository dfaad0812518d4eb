"""The chunks of a stream: what happens in a run, in the form of each stream mode."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

from eventstore.concurrency import Concurrency
from eventstore.format.namespaces import SEPARATOR
from eventstore.models import from_micros
from graph.errors import InvalidConfigError
from graph.read.history import ReadableGraph, Reader
from graph.run.driver import Run
from graph.run.journal import LogJournal
from graph.state.events import Data, Writes, by_key, unpack
from graph.state.fold import State, task_id
from graph.types import INTERRUPT, Interrupt, StreamMode

_MODES: Final = frozenset(get_args(StreamMode))


def modes_of(stream_mode: str | Sequence[str]) -> frozenset[str]:
    """The requested modes.

    Raises:
        InvalidConfigError: a mode is unknown.
    """
    modes = frozenset([stream_mode] if isinstance(stream_mode, str) else stream_mode)
    unknown = modes - _MODES
    if unknown:
        raise InvalidConfigError(
            f"unknown stream mode {', '.join(sorted(unknown))}; expected one of "
            f"{', '.join(sorted(_MODES))}"
        )
    return modes


@dataclass(frozen=True, slots=True)
class Form:
    """Which labels chunks have.

    Attributes:
        single: only one mode was requested, so chunks do not name it.
        subgraphs: chunks name the path of their graph.
    """

    single: bool
    subgraphs: bool

    def of(self, ns: str, mode: str, chunk: Any) -> Any:
        """A chunk with its labels, as the caller gets it."""
        path = tuple(ns.split(SEPARATOR)) if ns else ()
        if self.subgraphs:
            return (path, chunk) if self.single else (path, mode, chunk)
        return chunk if self.single else (mode, chunk)


async def chunks(
    graph: ReadableGraph,
    run: Run,
    reader: Reader | None,
    concurrency: Concurrency,
    kind: str,
    content: Any,
) -> list[tuple[str, Any]]:
    """The chunks, as (mode, chunk) pairs, for one item that the driver yields."""
    modes = run.options.modes
    if kind == "checkpoint":
        found = [("values", graph.output(content))] if "values" in modes else []
        if modes & {"checkpoints", "debug"} and reader is not None:
            found += await _checkpoint(run, reader, concurrency, content)
    elif kind == "custom":
        found = [("custom", content)]
    elif kind == "output":
        began, data = content
        writes = list(unpack(data["writes"]))
        found = [
            ("updates", {data["node"]: _update(writes)}),
            *_ended(began, data, result=by_key(writes)),
        ]
    elif kind == "error":
        began, data = content
        found = _ended(began, data, error=f"{data['type']}: {data['message']}")
    elif kind == "waiting":
        began, data, ran = content
        interrupts = tuple(Interrupt(each["value"], each["id"]) for each in data["interrupts"])
        found = [("updates", {INTERRUPT: interrupts})]
        if "values" in modes:
            found.append(("values", {**graph.output(run.state), INTERRUPT: interrupts}))
        found += _ended(began, data, interrupts=interrupts) if ran else []
    elif kind == "interrupt":
        found = [("updates", {INTERRUPT: content})]
    else:
        began, index, given = content
        node = began.frontier[index].node
        shown = {"id": task_id(began, index), "name": node, "input": given, "triggers": ()}
        found = [("tasks", shown), ("debug", _debug("task", began.step + 1, shown))]
    return [(mode, chunk) for mode, chunk in found if mode in modes]


async def _checkpoint(
    run: Run, reader: Reader, concurrency: Concurrency, state: State
) -> list[tuple[str, Any]]:
    assert isinstance(run.journal, LogJournal)
    snapshot = await concurrency.run(reader.snapshot(run.journal.thread_id, state, run.ns))
    shown = snapshot._asdict()
    return [("checkpoints", shown), ("debug", _debug("checkpoint", state.step, shown))]


def _update(writes: Writes) -> dict[str, Any] | list[dict[str, Any]] | None:
    """What a task wrote, in one dict; one by one where it wrote a key several times."""
    update = dict(writes)
    return update or None if len(update) == len(writes) else [{key: each} for key, each in writes]


def _ended(
    began: State,
    data: Data,
    result: Mapping[str, Any] | None = None,
    error: str | None = None,
    interrupts: tuple[Interrupt, ...] = (),
) -> list[tuple[str, Any]]:
    shown = {
        "id": task_id(began, data["task"]),
        "name": data["node"],
        "error": error,
        "result": result or {},
        "interrupts": [{"value": each.value, "id": each.id} for each in interrupts],
    }
    return [("tasks", shown), ("debug", _debug("task_result", began.step + 1, shown))]


def _debug(kind: str, step: int, payload: Mapping[str, Any]) -> dict[str, Any]:
    now = from_micros(time.time_ns() // 1000).isoformat()
    return {"type": kind, "step": step, "timestamp": now, "payload": payload}
