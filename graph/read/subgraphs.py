"""Finds the graphs inside a graph: its nodes, and those that its nodes' functions call.

Owns the mapping from the name of a log to the graph that folds it, which readers need: a log does
not contain the code that made it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from eventstore.format.namespaces import split
from graph.build import callables
from graph.build.topology import Graph
from graph.errors import InvalidConfigError
from graph.state.namespaces import CALL, called

G = TypeVar("G", bound=Graph)


def inside(graph: G, node: str) -> Mapping[str, G]:
    """The graphs that a node runs, by the names of their logs; cached in ``graph.inner``."""
    found = graph.inner.get(node)
    if found is None:
        spec = graph.topology.nodes.get(node)
        found = graph.inner[node] = {} if spec is None else _inside(node, spec.action)
    return cast(Mapping[str, G], found)  # all graphs of a program have the same class


def _inside(node: str, action: Any) -> dict[str, Graph]:
    if isinstance(action, Graph):
        return {node: action}
    graphs = callables.leading_to(action, Graph)
    return {called(node, graph.name): graph for graph in graphs}


def graph_of(top: G, ns: str) -> G:
    """The graph that folds the log ``ns``.

    Raises:
        InvalidConfigError: the graph has no such subgraph.
    """
    graph = top
    for level in split(ns):
        nodes = graph.topology.nodes
        node = level.name if level.name in nodes else level.name.rpartition(CALL)[0]
        found = inside(graph, node)
        if level.name not in found:
            raise InvalidConfigError(
                f"checkpoint_ns {ns!r}: the graph {graph.name!r} has no subgraph {level.name!r} "
                f"in node {node!r}; it has {', '.join(map(repr, found)) or 'none'}"
            )
        graph = found[level.name]
    return graph
