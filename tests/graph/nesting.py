"""Graphs inside graphs, whose values tell what ran and in which order.

All share one key, ``path``: each node appends its name to it. A node whose name ends with ``?``
asks its own name and appends the answer; one whose name is in ``failing`` raises. So the path of
an undisturbed run is the list of its nodes, and whatever ran twice or not at all shows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict

from eventstore import EventStore
from eventstore.format.namespaces import split
from graph import START, CompiledGraph, RunnableConfig, StateGraph, interrupt
from tests.graph.kit import Boom, Calls, on


class Path(TypedDict, total=False):
    path: list[str]


Part = str | tuple[str, Any]


class Walk:
    """Makes nodes and graphs; ``calls`` and ``failing`` are shared by all of them."""

    def __init__(self, *failing: str) -> None:
        self.calls = Calls()
        self.failing = set(failing)

    def node(self, name: str) -> Callable[[Path], Path]:
        """A node that appends its name, asks or fails."""

        def run(state: Path) -> Path:
            self.calls.add(name)
            if name in self.failing:
                raise Boom(name)
            said = f"{name}{interrupt(name)}" if name.endswith("?") else name
            return {"path": [*state.get("path", []), said]}

        return run

    def line(self, *parts: Part, **options: Any) -> CompiledGraph:
        """Nodes one after another: names, or names with a graph or a function."""
        graph = StateGraph(Path)
        graph.add_sequence(
            [(part, self.node(part)) if isinstance(part, str) else part for part in parts]
        )
        graph.add_edge(START, parts[0] if isinstance(parts[0], str) else parts[0][0])
        return graph.compile(**options)

    def taken(self) -> dict[str, int]:
        """How often each node was called since this was asked last."""
        counts = dict(self.calls.counts)
        self.calls.counts.clear()
        return counts


def calling(inner: CompiledGraph) -> Callable[[Path], Path]:
    """A node that calls a graph with its own path."""

    def node(state: Path) -> Path:
        found = inner.invoke({"path": state.get("path", [])})
        return {"path": found["path"]}

    return node


def below(app: CompiledGraph, config: RunnableConfig) -> list[str]:
    """The names of the logs of a thread besides the root's and those of other threads."""
    report = app.verify(config)
    assert report.ok, report.problems
    return [ns for ns in report.namespaces if ns and not ns.startswith("~")]


def inside(config: RunnableConfig, ns: str, checkpoint_id: str | None = None) -> RunnableConfig:
    """The config of a subgraph's log."""
    found = on(config["configurable"]["thread_id"], checkpoint_id)
    found["configurable"]["checkpoint_ns"] = ns
    return found


def child_of(app: CompiledGraph, config: RunnableConfig, task: int = 0) -> Any:
    """The state of the subgraph of a task that is under way."""
    return app.get_state(config, subgraphs=True).tasks[task].state


def check_whole(store: EventStore, app: CompiledGraph, thread_id: str) -> None:
    """The store finds nothing wrong, and the logs of the thread have no gaps."""
    assert store.verify(thread_id).ok
    for ns in ["", *below(app, on(thread_id))]:
        assert len(split(ns)) == (ns.count("|") + 1 if ns else 0)
        seqs = [entry.seq for entry in app.events(inside(on(thread_id), ns))]
        assert seqs == list(range(1, len(seqs) + 1))
