"""What the graph's tests share: configs, a state with every kind of key, and call counting."""

from __future__ import annotations

import io
import logging
import operator
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, TypedDict

from eventstore import Position
from eventstore.concurrency import run_sync
from graph import (
    END,
    START,
    CompiledGraph,
    RunnableConfig,
    StateGraph,
    StateSnapshot,
    interrupt,
)
from graph.run.address import Address
from graph.run.journal import Means
from graph.state.state import State
from tests.awaited import finish

Node = Callable[[Any], Any]


def on(thread_id: str, checkpoint_id: str | None = None, **more: Any) -> RunnableConfig:
    """A config for a thread; ``more`` goes beside ``configurable``."""
    place: dict[str, Any] = {"thread_id": thread_id}
    if checkpoint_id is not None:
        place["checkpoint_id"] = checkpoint_id
    config: RunnableConfig = {"configurable": place}
    config.update(more)  # type: ignore[typeddict-item]
    return config


def id_of(snapshot: StateSnapshot | RunnableConfig) -> str:
    """The checkpoint id of a snapshot or of a config."""
    config = snapshot.config if isinstance(snapshot, StateSnapshot) else snapshot
    found: str = config["configurable"]["checkpoint_id"]
    return found


class Trail(TypedDict, total=False):
    """A list that grows, a sum, and two keys that hold one value."""

    log: Annotated[list[Any], operator.add]
    total: Annotated[int, operator.add]
    note: str
    data: dict[str, Any]


def standing(app: CompiledGraph, config: RunnableConfig) -> State:
    """The state in which a run at this config would find the thread."""
    assert app._log is not None
    return finish(app.checkpointer, app._log.open(Address.of(config), Means()), run_sync).state


def replayed(
    app: CompiledGraph, thread_id: str, snapshots: bool, at: Position | None = None
) -> State:
    """The state of a thread, from the nearest snapshot or from its first event on.

    Args:
        at: the position of the state, by default the end.
    """
    log = app._log
    assert log is not None

    async def load() -> State:
        replay = await log.core.replay(
            thread_id, upto=at, fingerprint=log.fingerprint, snapshots=snapshots
        )
        return (await log.fold(replay))[0]

    return finish(app.checkpointer, load(), run_sync)


class Calls:
    """Counts how often each node was called; thread-safe, as nodes run side by side."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, name: str) -> int:
        """Count a call and return how many there were."""
        with self._lock:
            self.counts[name] += 1
            return self.counts[name]


class Boom(Exception):
    """What a test's node raises on purpose."""


def steps(
    names: Iterable[str], checkpointer: Any = None, calls: Calls | None = None, **options: Any
) -> CompiledGraph:
    """Nodes one after another, each logging its name."""
    graph = StateGraph(Trail)
    before = START
    for name in names:
        graph.add_node(name, logs(name, calls))
        graph.add_edge(before, name)
        before = name
    graph.add_edge(before, END)
    return graph.compile(checkpointer=checkpointer, **options)


def logs(name: str, calls: Calls | None = None) -> Callable[[Trail], dict[str, Any]]:
    """A node that logs its name and adds 1 to the total."""

    def node(state: Trail) -> dict[str, Any]:
        if calls is not None:
            calls.add(name)
        return {"log": [name], "total": 1}

    return node


def asks(name: str, calls: Calls | None = None, questions: int = 1) -> Node:
    """A node that asks so many questions in order and logs its name with the answers."""

    def node(state: Trail) -> dict[str, Any]:
        if calls is not None:
            calls.add(name)
        return {"log": [[name, *(interrupt(f"{name}{n}") for n in range(questions))]]}

    return node


def side_by_side(nodes: Mapping[str, Node], checkpointer: Any, **options: Any) -> CompiledGraph:
    """Nodes of one superstep."""
    declared = StateGraph(Trail)
    for name, node in nodes.items():
        declared.add_node(name, node)
        declared.add_edge(START, name)
    return declared.compile(checkpointer, **options)


def shape(snapshots: Iterable[StateSnapshot]) -> list[tuple[Any, tuple[str, ...]]]:
    """What of snapshots is compared: values and what was next."""
    return [(snapshot.values, snapshot.next) for snapshot in snapshots]


@contextmanager
def logged_at_debug() -> Iterator[io.StringIO]:
    """Everything that anybody logs meanwhile. (`caplog` would keep that of earlier examples.)"""
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(logging.Formatter("%(name)s %(message)s %(args)s"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
