"""What a compiled graph says of itself: its drawing, its subgraphs, and the schemas of its data.

Owns the methods for tools and people that look at a graph without running it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Self

from eventstore import AsyncEventStore, EventStore
from graph.build.drawing import DrawableGraph
from graph.build.schema import ROOT, StateSchema, is_schema
from graph.build.topology import Graph
from graph.calls import RunnableGraph
from graph.errors import DrawingError
from graph.savers import Saver, store_of


class DescribedGraph(RunnableGraph):
    """A graph that describes itself; the methods that run it are in ``CompiledGraph``."""

    def get_name(self, suffix: str | None = None, *, name: str | None = None) -> str:
        """The name of this graph, or another one, with a suffix."""
        found = name or self.name
        return found if suffix is None else f"{found}{suffix}"

    def get_graph(self, *_config: Any, xray: int | bool = False) -> DrawableGraph:
        """The graph as declared, to be drawn: ``get_graph().draw_mermaid()``."""
        return DrawableGraph.of(
            self.topology,
            xray=xray,
            interrupt_before=tuple(self._interrupt_before),
            interrupt_after=tuple(self._interrupt_after),
        )

    def with_checkpointer(self, checkpointer: EventStore | AsyncEventStore | Saver) -> Self:
        """The same graph with another checkpointer, which stores and reads its threads.

        Raises:
            InvalidConfigError: it is no checkpointer of this library.
        """
        bound = copy.copy(self)
        bound.checkpointer = checkpointer
        bound._last = None
        bound._log = bound.reader_on(store_of(checkpointer).core).log
        return bound

    def get_subgraphs(
        self, *, namespace: str | None = None, recurse: bool = False
    ) -> Iterator[tuple[str, Graph]]:
        """The graphs that are nodes of this one, with their paths.

        Args:
            namespace: only the one with this path.
            recurse: also those inside them, as ``outer|inner``.
        """
        for name, node in self.topology.nodes.items():
            if not isinstance(node.action, Graph):
                continue
            if namespace in (None, name):
                yield name, node.action
            below = namespace is not None and namespace.startswith(f"{name}|")
            if (recurse or below) and isinstance(node.action, DescribedGraph):
                rest = None if namespace is None else namespace.removeprefix(f"{name}|")
                found = node.action.get_subgraphs(namespace=rest, recurse=recurse)
                yield from ((f"{name}|{path}", graph) for path, graph in found)

    def get_input_jsonschema(self, *_config: Any) -> dict[str, Any]:
        """The JSON schema of the input.

        Raises:
            DrawingError: pydantic is not installed.
        """
        return _json_schema(self.topology.input)

    def get_output_jsonschema(self, *_config: Any) -> dict[str, Any]:
        """The JSON schema of the output.

        Raises:
            DrawingError: pydantic is not installed.
        """
        return _json_schema(self.topology.output)

    def get_context_jsonschema(self) -> dict[str, Any] | None:
        """The JSON schema of the context; ``None`` without a ``context_schema``.

        Raises:
            DrawingError: pydantic is not installed.
        """
        declared = self.topology.context
        return _json_schema(StateSchema.of(declared)) if is_schema(declared) else None


def _json_schema(schema: StateSchema) -> dict[str, Any]:
    try:
        from pydantic import TypeAdapter
    except ImportError as error:
        raise DrawingError(
            "a JSON schema needs pydantic; install graph-eventstore[pydantic]"
        ) from error
    declared = schema.annotations[ROOT] if ROOT in schema.channels else schema.cls
    found: dict[str, Any] = TypeAdapter(declared).json_schema()
    return found
