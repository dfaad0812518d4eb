"""Going back to a checkpoint of a subgraph, and editing inside one: the graphs above learn of it.

The name of a subgraph's log, or its run's first event, tells where in the log above the superstep
began that it ran for. So the root goes on from there by a fork, and takes the logs of its subgraphs
along as they stood; and what they ask then, or do not ask any more, is said above.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from eventstore import Position
from eventstore.format.digests import origin
from eventstore.format.namespaces import Level, join, split
from graph.errors import InvalidUpdateError
from graph.read import subgraphs
from graph.read.history import ReadableGraph
from graph.run.journal import LogJournal, Means
from graph.run.thread_log import ThreadLog, ns_of, position_of, thread_id_of
from graph.state import planner
from graph.state.events import Data, Kind, interrupt_data, waiting_data
from graph.state.fold import State
from graph.state.namespaces import Caller, beside, home_of, moved


@dataclass(frozen=True, slots=True)
class _Above:
    """One graph above a subgraph, and what it does there.

    Attributes:
        ns: its log.
        task: the task of it that the subgraph ran for.
    """

    ns: str
    task: int


@dataclass(frozen=True, slots=True)
class _Way:
    """From a checkpoint of a subgraph up to the root.

    Attributes:
        root: where the superstep of the root began in which the subgraph ran.
        levels: the graphs above, the root last.
        logs: where each log on the way stood, by name.
        asked: what the subgraph asks at its checkpoint: ids and values.
        stands: all of them stand there still.
    """

    root: Position
    levels: list[_Above]
    logs: Mapping[str, int]
    asked: list[Data]
    stands: bool


async def open_inside(
    top: ReadableGraph, config: Mapping[str, Any], means: Means, answers: bool
) -> LogJournal:
    """The journal of a run of the root that goes on where a subgraph's checkpoint was.

    Args:
        answers: the run answers interrupts: see :meth:`ThreadLog.open`.

    Raises:
        InvalidUpdateError: it does, and none is asked there.
    """
    thread_id, at = thread_id_of(config), position_of(config)
    subgraphs.graph_of(top, ns_of(config))  # else the config means nothing
    if at is not None:
        if answers:
            at = await _asked_since(_log(top, ns_of(config)), thread_id, at)
        way = await _way(top, thread_id, at)
        if not way.stands:
            if answers and not way.asked:
                raise InvalidUpdateError(planner.NOTHING_ASKED)
            fork = await _go_back(top, thread_id, way)
            if way.asked:
                await _ask_above(top, thread_id, way, fork)
    return await top.reader_on(top.core).log.open_end(thread_id, "", means)


async def _asked_since(log: ThreadLog, thread_id: str, at: Position) -> Position:
    end = (await log.core.head(thread_id, at.ns)).position
    return await log.asked_since(thread_id, at, end) if at[:2] == end[:2] else at


async def to_edit(top: ReadableGraph, config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the log that an edit of a subgraph's checkpoint goes to: its own where it
    stands there still, else that of a branch of the whole thread, which this records.
    """
    thread_id, ns, at = thread_id_of(config), ns_of(config), position_of(config)
    if at is not None:
        way = await _way(top, thread_id, at)
        if not way.stands:
            ns = moved(ns, "", await _go_back(top, thread_id, way))
    return {**config, "configurable": {"thread_id": thread_id, "checkpoint_ns": ns}}


async def edited(top: ReadableGraph, thread_id: str, ns: str, withdrawn: Collection[str]) -> None:
    """Say above that a subgraph was edited: it does not ask these questions any more."""
    core, logs = top.core, {}
    for depth in range(len(split(ns)), 0, -1):
        path = split(ns)[:depth]
        _, inner, _ = (
            await subgraphs.graph_of(top, join(path))
            .reader_on(core)
            .log.load(thread_id, None, join(path))
        )
        logs[join(path)] = inner.at.seq
        above = _log(top, join(path[:-1]))
        journal = await above.open_end(thread_id, join(path[:-1]), Means())
        home = home_of(journal.at.thread_key, journal.at.ns)
        began, task = _began(path[-1], inner, home, journal.state)
        waiting = journal.state.interrupts.get(task)
        if waiting is None or journal.state.began != began:
            return  # it has gone on meanwhile
        left = [each for each in waiting["interrupts"] if each["id"] not in withdrawn]
        known = {**journal.state.logs.get(task, {}), **logs}
        await _say(journal, {**waiting, "interrupts": left, "logs": known})


async def _go_back(top: ReadableGraph, thread_id: str, way: _Way) -> int:
    """Record the branch; returns the seq of its fork in the log of the root."""
    log, task = top.reader_on(top.core).log, way.levels[-1].task
    journal = await log.open_at(thread_id, way.root, {task: way.logs}, Means())
    await journal.branch(lambda _: True)
    return journal.at.seq


async def _ask_above(top: ReadableGraph, thread_id: str, way: _Way, fork: int) -> None:
    """Record in each graph above that what a subgraph asks is asked of it."""
    logs = {moved(ns, "", fork): 1 for ns in way.logs}
    for level in way.levels:
        ns = moved(level.ns, "", fork)
        log = _log(top, ns)
        journal = await log.open_end(thread_id, ns, Means())
        node = journal.state.frontier[level.task].node
        below = {name: seq for name, seq in logs.items() if len(split(name)) > len(split(ns))}
        await _say(journal, {**waiting_data(level.task, node, way.asked), "logs": below})


async def _say(journal: LogJournal, waiting: Data) -> None:
    data = interrupt_data(journal.state.step + 1, [waiting])
    await journal.record([(Kind.INTERRUPT, data)], lambda _: True)


async def _way(top: ReadableGraph, thread_id: str, at: Position) -> _Way:
    """The way to a checkpoint of a subgraph.

    Raises:
        InvalidConfigError: it is of another thread, and this one was not forked from there.
    """
    core = top.core
    home, own = origin(at.thread_key, at.ns)
    path = split(own)
    logs: dict[str, int] = {}
    levels: list[_Above] = []
    asked: list[Data] = []
    is_own = (await core.head(thread_id)).thread_key == home
    stands, here = is_own, at
    _, end, _ = await _log(top, own).load(thread_id, None, own)
    for depth in range(len(path), 0, -1):
        ns, above = join(path[:depth]), join(path[: depth - 1])
        _, state, _ = await _log(top, ns).load(thread_id, here, ns)
        if here is at:
            asked = [
                {"id": name, "value": each["value"]}
                for name, each in planner.questions(state).items()
            ]
        if here is at:
            stands = stands and end.checkpoint == at and end.answered == state.answered
        else:
            stands = stands and end.began == here.seq
        logs[ns] = here.seq
        _, end, _ = await _log(top, above).load(thread_id, None, above)
        began, task = _began(path[depth - 1], state, home_of(home, above), end if is_own else None)
        here = beside(at, above, began)
        levels.append(_Above(above, task))
    root = await top.reader_on(core).log.resolve(thread_id, here) or here
    return _Way(root, levels, logs, asked, stands and end.began == here.seq)


def _began(level: Level, state: State, home: str, end: State | None) -> tuple[int, int]:
    """Where the superstep began that a log's run is for, in the log above, and for which task.

    Args:
        home: names the log above.
        end: as that log stands now, where it is the thread's own.
    """
    if level.began is not None:
        return level.began, int(level.mark.split(".")[1])
    caller = Caller.read(state.call)
    if end is not None and state.call == end.caller(caller.task, caller.call):
        return end.began, caller.task
    if caller.home == home:
        return caller.began, caller.task
    # It began before the fork that this branch of the log above begins with, and goes on there.
    return int(level.mark, 16), caller.task


def _log(top: ReadableGraph, ns: str) -> ThreadLog:
    """The threads of the graph that folds this log."""
    return subgraphs.graph_of(top, ns).reader_on(top.core).log
