"""A graph as declared and checked: nodes, edges, branches, joins and channels.

Owns the frozen records that the builder makes and the runtime reads, and their check. Promises
that a checked topology is consistent: every name in it is a node (or ``START`` or ``END`` where
these are allowed). Otherwise ``InvalidGraphError`` says how to fix the declaration. A node that
nothing leads to is a warning.
"""

from __future__ import annotations

import difflib
import functools
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from graph.build import callables
from graph.build.channels import Channel, initial_values
from graph.build.schema import StateSchema, to_writes
from graph.errors import InvalidGraphError
from graph.types import END, START, RetryPolicy


@dataclass(frozen=True)
class NodeSpec:
    """A node as declared.

    Attributes:
        action: the callable, or the compiled graph that runs as a node.
        schema: the state class that the action receives.
        retry: policies in order; the first that applies to an error decides.
        defer: run only when nothing else is left to run.
        ends: the declared destinations of a ``Command`` that it returns.
        accepts: which of ``config``, ``runtime`` and ``writer`` the action takes besides the state.
        is_async: calling it gives an awaitable.
        labels: texts for the drawn edges to ``ends``.
        timeout_s: seconds that an attempt may take; ``None``: no limit.
        idle_timeout_s: seconds that it may take without progress; ``None``: no limit.
        heartbeat_only: only ``runtime.heartbeat()`` counts as progress.
        handler: what runs when the last attempt has failed.
        async_action: what async runs call instead of ``action``, if it has an async form.
    """

    name: str
    action: Callable[..., Any] | Graph
    schema: StateSchema
    retry: tuple[RetryPolicy, ...] = ()
    defer: bool = False
    metadata: dict[str, Any] | None = None
    ends: tuple[str, ...] = ()
    accepts: frozenset[str] = frozenset()
    is_async: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    timeout_s: float | None = None
    async_action: Callable[..., Any] | None = None
    idle_timeout_s: float | None = None
    heartbeat_only: bool = False
    handler: NodeSpec | None = None


@dataclass(frozen=True)
class Branch:
    """Conditional edges of one source.

    Attributes:
        path: chooses the next nodes from the state.
        ends: what ``path`` may return, and the node that each result stands for; ``None``: it
            returns the names of any nodes.
        schema: the state class that ``path`` receives; ``None``: that of the source node.
        async_path: what async runs call instead of ``path``, if it has an async form.
    """

    path: Callable[..., Any]
    ends: dict[Hashable, str] | None
    name: str
    accepts: frozenset[str] = frozenset()
    is_async: bool = False
    schema: StateSchema | None = None
    async_path: Callable[..., Any] | None = None


@dataclass(frozen=True)
class Join:
    """An edge that waits for all its sources."""

    sources: tuple[str, ...]
    target: str


@dataclass(frozen=True)
class Topology:
    """A checked graph: everything that the runtime reads of the declaration."""

    nodes: dict[str, NodeSpec]
    edges: dict[str, tuple[str, ...]]
    branches: dict[str, tuple[Branch, ...]]
    joins: tuple[Join, ...]
    channels: dict[str, Channel]
    state: StateSchema
    input: StateSchema
    output: StateSchema
    context: type[Any] | None = None

    @functools.cached_property
    def showing(self) -> Mapping[str, Callable[[Any], Any]]:
        """By key: makes what nodes and callers get of its value (``Channel.show``)."""
        return {name: each.show for name, each in self.channels.items() if each.show is not None}

    def triggers(self, node: str, is_sent: bool = False) -> tuple[str, ...]:
        """What makes a node run, under LangGraph's names for it."""
        if is_sent:
            return ("__pregel_push",)
        joins = (f"join:{'+'.join(j.sources)}:{node}" for j in self.joins if j.target == node)
        return (f"branch:to:{node}", *joins)

    def initial_values(self) -> dict[str, Any]:
        """The state before any write."""
        return initial_values(self.channels.values())

    def to_writes(self, update: Any) -> list[tuple[str, Any]]:
        """The (key, update) pairs of what a node returned; a node may write every channel."""
        return to_writes(update, self.channels)

    def schemas(self) -> Iterator[StateSchema]:
        """Every schema in the graph, each once."""
        branches = (branch.schema for each in self.branches.values() for branch in each)
        nodes = (node.schema for node in self.nodes.values())
        found = [self.state, self.input, self.output, *nodes, *filter(None, branches)]
        yield from {id(schema): schema for schema in found}.values()


class Graph(ABC):
    """A graph that can run, as far as code that finds it inside another graph needs it.

    Attributes:
        name: names it in drawings, and its log if a function calls it.
        checkpointer: stores its threads; for a subgraph also ``True``, ``False`` or ``None``.
        inner: a cache of the graphs that each of its nodes runs.
    """

    topology: Topology
    name: str
    checkpointer: Any
    inner: dict[str, Mapping[str, Graph]]

    @abstractmethod
    async def nested(self, input: Any, keys: Mapping[str, Channel], runner: Any) -> Any:
        """Run as the node of the current task; returns its values of the parent's keys."""


def check_known(topology: Topology, name: Any, where: str, *also: str) -> None:
    """Refuse a name that is neither a node nor one of ``also``, and suggest the nearest."""
    if name in topology.nodes or name in also:
        return
    close = difflib.get_close_matches(str(name), [*topology.nodes, *also], n=1)
    remedy = f"did you mean '{close[0]}'?" if close else f"call add_node('{name}', …) first"
    raise InvalidGraphError(f"{where} '{name}', which is not a node; {remedy}")


def check(topology: Topology) -> None:
    """Refuse a graph that cannot run.

    Raises:
        InvalidGraphError: an unknown name, or no entry point.
    """
    _check_names(topology)
    _warn_of_unreachable(topology)


def _check_names(topology: Topology) -> None:
    for source, targets in topology.edges.items():
        check_known(topology, source, "an edge starts at", START)
        for target in targets:
            check_known(topology, target, f"the edge from '{source}' goes to", END)
    for join in topology.joins:
        for source in join.sources:
            check_known(topology, source, f"the edge to '{join.target}' waits for")
        check_known(topology, join.target, f"the edge from {list(join.sources)} goes to", END)
    for source, branches in topology.branches.items():
        check_known(topology, source, "conditional edges start at", START)
        for branch in branches:
            for target in (branch.ends or {}).values():
                check_known(topology, target, f"'{branch.name}' after '{source}' leads to", END)
    for node in topology.nodes.values():
        for target in node.ends:
            check_known(topology, target, f"a Command of '{node.name}' goes to", END)
    if not topology.edges.get(START) and not topology.branches.get(START):
        raise InvalidGraphError(
            "the graph has no entry point; add_edge(START, 'name of the first node')"
        )


def _warn_of_unreachable(topology: Topology) -> None:
    """Warn of unreachable nodes.

    Only if all routes are known: no conditional edges without declared ends, and no code that
    might use ``Send`` or an undeclared ``Command``.
    """
    ways: dict[str, set[str]] = {source: set(to) for source, to in topology.edges.items()}
    for join in topology.joins:
        for source in join.sources:
            ways.setdefault(source, set()).add(join.target)
    for source, branches in topology.branches.items():
        for branch in branches:
            if branch.ends is None:
                return
            ways.setdefault(source, set()).update(branch.ends.values())
    reached: set[str] = set()
    to_visit = [START]
    while to_visit:
        name = to_visit.pop()
        if name not in reached:
            reached.add(name)
            node = topology.nodes.get(name)
            to_visit.extend([*ways.get(name, ()), *(node.ends if node else ())])
    lost = [name for name in topology.nodes if name not in reached]
    if not lost or any(_may_go_anywhere(node) for node in topology.nodes.values()):
        return
    if any(callables.may_route(b.path) for each in topology.branches.values() for b in each):
        return
    warnings.warn(
        f"no edge leads to {', '.join(map(repr, lost))}; add one, remove the node, or, if a "
        "Command leads there, declare it: add_node(…, destinations=[…]) on the node that does",
        stacklevel=4,
    )


def _may_go_anywhere(node: NodeSpec) -> bool:
    """Whether a node could go where nothing declares that it goes.

    A nested graph may: by a ``Command(graph=Command.PARENT)`` of one of its nodes.
    """
    if node.handler is not None:
        return True
    if node.ends:
        return False
    if isinstance(node.action, Graph):
        return any(
            _may_go_anywhere(replace(inner, ends=()))
            for inner in node.action.topology.nodes.values()
        )
    return callables.may_route(node.action)
