"""The chunks of a stream: what happens in a run, in the form of each stream mode."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, get_args

from eventstore.concurrency import Concurrency
from eventstore.core.core import Core
from eventstore.format.namespaces import Level, split
from eventstore.models import from_micros
from graph.build.channels import MISSING
from graph.build.schema import ROOT
from graph.errors import InvalidConfigError
from graph.read.history import ReadableGraph, Reader
from graph.run.driver import Run
from graph.run.journal import LogJournal
from graph.state.events import Data, Writes, by_key, unpack
from graph.state.namespaces import CALL
from graph.state.state import State, task_id
from graph.types import INTERRUPT, Interrupt, StateSnapshot, StateTask, StreamMode

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
        nodes: the nodes of the graph that the caller streams.
        version: ``v2``: each chunk is a dict that names all of this.
    """

    single: bool
    subgraphs: bool
    nodes: Collection[str] = ()
    version: str = "v1"

    def of(self, ns: str, mode: str, chunk: Any) -> Any:
        """A chunk with its labels, as the caller gets it."""
        path = tuple(self._level(level) for level in split(ns)) if ns else ()
        if self.version == "v2":
            part = {"type": mode, "ns": path, "data": chunk}
            if mode != "values":
                return part
            has = isinstance(chunk, Mapping) and INTERRUPT in chunk
            interrupts = chunk[INTERRUPT] if has else ()
            data = {k: v for k, v in chunk.items() if k != INTERRUPT} if has else chunk
            return {**part, "data": data, "interrupts": interrupts}
        if self.subgraphs:
            return (path, chunk) if self.single else (path, mode, chunk)
        return chunk if self.single else (mode, chunk)

    def _level(self, level: Level) -> str:
        """A level of a path: the node and its task, also where a function calls the graph."""
        if level.name in self.nodes:
            return str(level)
        return str(level._replace(name=level.name.rpartition(CALL)[0] or level.name))


async def chunks(
    graph: ReadableGraph,
    run: Run,
    core: Core | None,
    concurrency: Concurrency,
    kind: str,
    content: Any,
) -> list[tuple[str, Any]]:
    """The chunks, as (mode, chunk) pairs, for one item that the driver yields."""
    modes = run.options.modes
    if kind == "checkpoint":
        found = []
        if "values" in modes and _has_new_values(graph, run):
            found.append(("values", graph.output(content, _streamed_keys(graph, run))))
        if modes & {"checkpoints", "debug"} and core is not None:
            found += await _checkpoint(run, graph.reader_on(core), concurrency, content)
    elif kind == "custom":
        found = [("custom", content)]
    elif kind == "output":
        began, data, streamed = content
        writes = list(unpack(data) if streamed is None else streamed)
        result = by_key(writes)
        found = _ended(began, data, result=result.get(ROOT, result))
        if writes or "above" not in data:  # else it only commands the graph above
            update = _update(writes, run.options.output_keys)
            found.insert(0, ("updates", {data.get("handler", data["node"]): update}))
    elif kind == "error":
        began, data, error = content
        found = _ended(began, data, error=error)
    elif kind == "waiting":
        began, data, ran = content
        interrupts = tuple(Interrupt(each["value"], each["id"]) for each in data["interrupts"])
        found = [("updates", {INTERRUPT: interrupts})]
        if "values" in modes:
            found.append(
                (
                    "values",
                    with_interrupts(
                        graph.output(run.state, _streamed_keys(graph, run)), interrupts
                    ),
                )
            )
        found += _ended(began, data, interrupts=interrupts) if ran else []
    elif kind == "interrupt":
        found = [("updates", {INTERRUPT: content})]
    else:
        began, index, given = content
        node = began.frontier[index].node
        triggers = graph.topology.triggers(node, began.frontier[index].arg is not MISSING)
        shown = {"id": task_id(began, index), "name": node, "input": given, "triggers": triggers}
        found = [("tasks", shown), ("debug", _debug("task", began.step + 1, shown))]
    return [(mode, chunk) for mode, chunk in found if mode in modes]


async def _checkpoint(
    run: Run, reader: Reader, concurrency: Concurrency, state: State
) -> list[tuple[str, Any]]:
    assert isinstance(run.journal, LogJournal)
    thread_id, found = run.journal.thread_id, []
    if run.input is not None and state.source == "input":
        before, data = run.input
        shown = await concurrency.run(reader.before_input(thread_id, before, state, data))
        coming = tuple(task._replace(result=None) for task in shown.tasks)
        found.append(shown._replace(tasks=coming))
    found.append(await concurrency.run(reader.snapshot(thread_id, run.resumed or state, run.ns)))
    run.input = run.resumed = None
    return [chunk for snapshot in found for chunk in _checkpoint_chunks(snapshot)]


def _checkpoint_chunks(snapshot: StateSnapshot) -> list[tuple[str, Any]]:
    metadata = snapshot.metadata or {}
    shown = {
        "config": snapshot.config,
        "parent_config": snapshot.parent_config,
        "values": snapshot.values,
        "metadata": metadata,
        "next": list(snapshot.next),
        "tasks": [_task(task) for task in snapshot.tasks],
    }
    return [("checkpoints", shown), ("debug", _debug("checkpoint", metadata["step"], shown))]


def _task(task: StateTask) -> dict[str, Any]:
    """A task as chunks of ``checkpoints`` show it."""
    shown: dict[str, Any] = {"id": task.id, "name": task.name, "state": task.state}
    if task.error is not None:
        return {**shown, "error": task.error}
    if task.result:
        shown["result"] = task.result
    return {**shown, "interrupts": tuple(asdict(each) for each in task.interrupts)}


def _has_new_values(graph: ReadableGraph, run: Run) -> bool:
    """Whether something that the caller sees was written since the last chunk of ``values``."""
    keys = _streamed_keys(graph, run)
    wanted = [keys] if isinstance(keys, str) else keys
    return run.written is None or not run.written.isdisjoint(wanted)


def _streamed_keys(graph: ReadableGraph, run: Run) -> Sequence[str] | str:
    """The keys of chunks of ``values``: by default all, those of private schemas, too."""
    keys = run.options.output_keys
    return tuple(graph.topology.channels) if keys is None else keys


def with_interrupts(output: Any, interrupts: Any) -> dict[str, Any]:
    """The output of an interrupted run."""
    return {**(output if isinstance(output, Mapping) else {}), INTERRUPT: interrupts}


def _update(writes: Writes, keys: Sequence[str] | str | None) -> Any:
    """What a task wrote, in one dict; one by one where it wrote a key several times."""
    if isinstance(keys, str):
        return next((value for key, value in writes if key == keys), None)
    if keys is not None:
        writes = [(key, value) for key, value in writes if key in keys]
    if writes and writes[0][0] == ROOT:
        return writes[0][1] if len(writes) == 1 else [each for _, each in writes]
    update = dict(writes)
    return update or None if len(update) == len(writes) else [{key: each} for key, each in writes]


def _ended(
    began: State,
    data: Data,
    result: Mapping[str, Any] | None = None,
    error: BaseException | None = None,
    interrupts: tuple[Interrupt, ...] = (),
) -> list[tuple[str, Any]]:
    shown = {
        "id": task_id(began, data["task"]),
        "name": data.get("handler", data["node"]),
        "error": error,
        "result": result or {},
        "interrupts": [{"value": each.value, "id": each.id} for each in interrupts],
    }
    return [("tasks", shown), ("debug", _debug("task_result", began.step + 1, shown))]


def _debug(kind: str, step: int, payload: Mapping[str, Any]) -> dict[str, Any]:
    now = from_micros(time.time_ns() // 1000).isoformat()
    return {"type": kind, "step": step, "timestamp": now, "payload": payload}
