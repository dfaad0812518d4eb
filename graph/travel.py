"""Going back to a checkpoint of a subgraph: the graphs above it go back along with it.

The name of a subgraph's log, or its run's first event, tells where in the log above the superstep
began that it ran for. So the root goes on from there by a fork, and takes the logs of its subgraphs
along as they stood.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eventstore import Position
from eventstore.chain import is_prefix, origin, prefix_ns
from eventstore.core import Core
from graph import subgraphs
from graph.journal import LogJournal, Means
from graph.log import ns_of, position_of, thread_id_of
from graph.namespaces import join, moved, split

if TYPE_CHECKING:
    from graph.app import CompiledGraph


@dataclass(frozen=True, slots=True)
class _Way:
    """From the root to a checkpoint of a subgraph.

    Attributes:
        root: where the superstep of the root began in which the subgraph ran.
        task: the task of it that the subgraph ran for.
        logs: where each log on the way stood, by name.
        stands: all of them stand there still.
    """

    root: Position
    task: int
    logs: Mapping[str, int]
    stands: bool


async def open_inside(top: CompiledGraph, config: Mapping[str, Any], means: Means) -> LogJournal:
    """The journal of a run of the root that goes on where a subgraph's checkpoint was."""
    thread_id, at = thread_id_of(config), position_of(config)
    log = top.log_on(_core(top))
    subgraphs.graph_of(top, ns_of(config))  # else the config means nothing
    if at is not None:
        way = await _way(top, thread_id, at)
        if not way.stands:
            return await log.open_at(thread_id, way.root, {way.task: way.logs}, means)
    return await log.open_end(thread_id, "", means)


async def to_edit(top: CompiledGraph, config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the log that an edit of a subgraph's checkpoint goes to: its own where it
    stands there still, else that of a branch of the whole thread, which this records.
    """
    thread_id, ns, at = thread_id_of(config), ns_of(config), position_of(config)
    if at is not None and not (await _way(top, thread_id, at)).stands:
        journal = await open_inside(top, config, Means())
        await journal.branch(lambda _: False)
        ns = moved(ns, "", journal.at.seq)
    return {**config, "configurable": {"thread_id": thread_id, "checkpoint_ns": ns}}


async def _way(top: CompiledGraph, thread_id: str, at: Position) -> _Way:
    """The way to a checkpoint of a subgraph.

    Raises:
        InvalidConfigError: it is of another thread, and this one was not forked from there.
    """
    core = _core(top)
    home, own = origin(at.thread_key, at.ns)
    segments = split(own)
    logs: dict[str, int] = {}
    is_copy = is_prefix(at.ns)  # given to a fork when the thread that it came from was deleted
    stands, task, here = (await core.head(thread_id)).position[0] == home, 0, at
    for depth in range(len(segments), 0, -1):
        ns, above = join(segments[:depth]), join(segments[: depth - 1])
        log = subgraphs.graph_of(top, ns).log_on(core)
        _, state, _ = await log.load(thread_id, here, ns)
        _, end, _ = await log.load(thread_id, None, ns)
        stands = stands and (end.checkpoint == at if here is at else end.began == here.seq)
        logs[ns] = here.seq
        segment = segments[depth - 1]
        began, index, *_ = (state.call if segment.lasts else segment.mark).split(".")
        task = int(index)
        name = prefix_ns(home, above) if is_copy else above
        here = Position(at.thread_key, name, int(began, 16))
    log = top.log_on(core)
    _, end, _ = await log.load(thread_id, None)
    root = await log.resolve(thread_id, here) or here
    return _Way(root, task, logs, stands and end.began == here.seq)


def _core(top: CompiledGraph) -> Core:
    assert top._log is not None
    return top._log.core
