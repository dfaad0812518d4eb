"""Which graphs are inside a graph: as its nodes, or called by the functions that are.

Owns the way from the name of a log to the graph that folds it. Reading needs that: a log does not
hold the code that made it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from eventstore.format.namespaces import split
from graph.build import callables
from graph.errors import InvalidConfigError
from graph.state.namespaces import CALL, called

if TYPE_CHECKING:
    from graph.app import CompiledGraph


def inside(graph: CompiledGraph, node: str) -> Mapping[str, CompiledGraph]:
    """The graphs that a node runs, by the name of their logs; found once for each node."""
    found = graph.inner.get(node)
    if found is None:
        spec = graph.topology.nodes.get(node)
        found = graph.inner[node] = {} if spec is None else _inside(node, spec.action)
    return found


def _inside(node: str, action: Any) -> dict[str, CompiledGraph]:
    from graph.app import CompiledGraph

    if isinstance(action, CompiledGraph):
        return {node: action}
    graphs = callables.leading_to(action, CompiledGraph)
    return {called(node, graph.name): graph for graph in graphs}


def graph_of(top: CompiledGraph, ns: str) -> CompiledGraph:
    """The graph whose log has this name.

    Raises:
        InvalidConfigError: the graph has none of that name (any more).
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
