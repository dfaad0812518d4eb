"""Going back to a checkpoint of a subgraph, and editing one: keeps the graphs above consistent.

The name of a subgraph's log, or the first event of its run, locates the superstep of the graph
above that it ran for. The root is forked at that superstep, and takes the logs of its subgraphs
along as they were then. The graphs above record the interrupts that are pending again or withdrawn.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from eventstore import Position
from eventstore.format.digests import origin
from eventstore.format.namespaces import Level, join, split
from graph.errors import InvalidUpdateError
from graph.read import subgraphs
from graph.read.history import ReadableGraph
from graph.run.address import Address
from graph.run.journal import LogJournal, Means
from graph.run.thread_log import ThreadLog
from graph.state import planner
from graph.state.events import Data, Kind, interrupt_data, waiting_data
from graph.state.namespaces import Caller, beside, home_of, moved
from graph.state.state import State


@dataclass(frozen=True, slots=True)
class _Above:
    """A graph above a subgraph.

    Attributes:
        ns: its log.
        task: the index of its task that the subgraph ran for.
    """

    ns: str
    task: int


@dataclass(frozen=True, slots=True)
class _PathToRoot:
    """The graphs from a checkpoint of a subgraph up to the root.

    Attributes:
        root: where the root's superstep began in which the subgraph ran.
        levels: the graphs above, the root last.
        logs: the seq of each log on the path at that time, by name.
        interrupts: those pending at the checkpoint: ids and values.
        current: whether all these graphs are still there, so that no fork is needed.
    """

    root: Position
    levels: list[_Above]
    logs: Mapping[str, int]
    interrupts: list[Data]
    current: bool


async def open_inside(
    top: ReadableGraph, address: Address, means: Means, resumes: bool
) -> LogJournal:
    """The journal of a run of the root that continues from a checkpoint of a subgraph.

    Args:
        resumes: the run has resume values: see :meth:`ThreadLog.open`.

    Raises:
        InvalidUpdateError: it has, and no interrupt is pending there.
    """
    thread_id, at = address.thread_id, address.position
    subgraphs.graph_of(top, address.ns)  # raises if there is no such subgraph
    if at is not None:
        if resumes:
            at = await _asked_since(_log(top, address.ns), thread_id, at)
        path = await _path_to_root(top, thread_id, at)
        if not path.current:
            if resumes and not path.interrupts:
                raise InvalidUpdateError(planner.NOTHING_ASKED)
            fork = await _go_back(top, thread_id, path)
            if path.interrupts:
                await _record_interrupts_above(top, thread_id, path, fork)
    return await top.log_on(top.core).open_end(thread_id, "", means)


async def _asked_since(log: ThreadLog, thread_id: str, at: Position) -> Position:
    end = (await log.core.head(thread_id, at.ns)).position
    return await log.asked_since(thread_id, at, end) if at[:2] == end[:2] else at


async def to_edit(top: ReadableGraph, address: Address) -> Address:
    """The log that an edit of a subgraph's checkpoint goes to: its own if that still ends there,
    else the one in a branch of the whole thread, which this records.
    """
    thread_id, ns, at = address.thread_id, address.ns, address.position
    if at is not None:
        path = await _path_to_root(top, thread_id, at)
        if not path.current:
            ns = moved(ns, "", await _go_back(top, thread_id, path))
    return Address(thread_id, ns)


async def edited(top: ReadableGraph, thread_id: str, ns: str, withdrawn: Collection[str]) -> None:
    """Record in the graphs above that an edit of a subgraph withdrew these interrupts."""
    core, logs = top.core, {}
    for depth in range(len(split(ns)), 0, -1):
        path = split(ns)[:depth]
        _, inner, _ = (
            await subgraphs.graph_of(top, join(path)).log_on(core).load(thread_id, None, join(path))
        )
        logs[join(path)] = inner.at.seq
        above = _log(top, join(path[:-1]))
        journal = await above.open_end(thread_id, join(path[:-1]), Means())
        home = home_of(journal.at.thread_key, journal.at.ns)
        began, task = _began(path[-1], inner, home, journal.state)
        waiting = journal.state.interrupts.get(task)
        if waiting is None or journal.state.began != began:
            return  # it has continued meanwhile
        left = [each for each in waiting["interrupts"] if each["id"] not in withdrawn]
        known = {**journal.state.logs.get(task, {}), **logs}
        await _record_waiting(journal, {**waiting, "interrupts": left, "logs": known})


async def _go_back(top: ReadableGraph, thread_id: str, path: _PathToRoot) -> int:
    """Record the branch; returns the seq of its fork in the log of the root."""
    log, task = top.log_on(top.core), path.levels[-1].task
    journal = await log.open_at(thread_id, path.root, {task: path.logs}, Means())
    await journal.branch(lambda _: True)
    return journal.at.seq


async def _record_interrupts_above(
    top: ReadableGraph, thread_id: str, path: _PathToRoot, fork: int
) -> None:
    """Record the pending interrupts of a subgraph in each graph above it."""
    logs = {moved(ns, "", fork): 1 for ns in path.logs}
    for level in path.levels:
        ns = moved(level.ns, "", fork)
        log = _log(top, ns)
        journal = await log.open_end(thread_id, ns, Means())
        node = journal.state.frontier[level.task].node
        below = {name: seq for name, seq in logs.items() if len(split(name)) > len(split(ns))}
        waiting = waiting_data(level.task, node, path.interrupts)
        await _record_waiting(journal, {**waiting, "logs": below})


async def _record_waiting(journal: LogJournal, waiting: Data) -> None:
    data = interrupt_data(journal.state.step + 1, [waiting])
    await journal.record([(Kind.INTERRUPT, data)], lambda _: True)


async def _path_to_root(top: ReadableGraph, thread_id: str, at: Position) -> _PathToRoot:
    """The path from a checkpoint of a subgraph up to the root.

    Raises:
        InvalidConfigError: it belongs to another thread, from which this one was not forked.
    """
    core = top.core
    home, own = origin(at.thread_key, at.ns)
    path = split(own)
    logs: dict[str, int] = {}
    levels: list[_Above] = []
    interrupts: list[Data] = []
    is_own = (await core.head(thread_id)).thread_key == home
    current, here = is_own, at
    _, end, _ = await _log(top, own).load(thread_id, None, own)
    for depth in range(len(path), 0, -1):
        ns, above = join(path[:depth]), join(path[: depth - 1])
        _, state, _ = await _log(top, ns).load(thread_id, here, ns)
        if here is at:
            interrupts = [
                {"id": name, "value": each["value"]}
                for name, each in planner.pending_interrupts(state).items()
            ]
        if here is at:
            current = current and end.checkpoint == at and end.resumed == state.resumed
        else:
            current = current and end.began == here.seq
        logs[ns] = here.seq
        _, end, _ = await _log(top, above).load(thread_id, None, above)
        began, task = _began(path[depth - 1], state, home_of(home, above), end if is_own else None)
        here = beside(at, above, began)
        levels.append(_Above(above, task))
    root = await top.log_on(core).resolve(thread_id, here) or here
    return _PathToRoot(root, levels, logs, interrupts, current and end.began == here.seq)


def _began(level: Level, state: State, home: str, end: State | None) -> tuple[int, int]:
    """The superstep of the graph above that a subgraph ran for: its first seq, and the task.

    Args:
        level: the last level of the subgraph's namespace.
        home: the digest of the log above (see :func:`home_of`).
        end: the current state of that log, if it is the thread's own.
    """
    if level.began is not None:
        return level.began, int(level.mark.split(".")[1])
    caller = Caller.read(state.call)
    if end is not None and state.call == end.caller(caller.task, caller.call):
        return end.began, caller.task
    if caller.home == home:
        return caller.began, caller.task
    # It began before the fork with which this branch of the log above begins, and continues there.
    return int(level.mark, 16), caller.task


def _log(top: ReadableGraph, ns: str) -> ThreadLog:
    """The logs of the graph that folds the log ``ns``."""
    return subgraphs.graph_of(top, ns).log_on(top.core)
