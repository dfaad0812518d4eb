"""What a compiled graph says of itself: its drawing, its subgraphs, and the schemas of its data.

Owns the methods for tools and people that look at a graph without running it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cached_property, partial
from typing import Any, Self, cast

from eventstore import AsyncEventStore, EventStore
from eventstore.concurrency import run_sync
from graph.build.drawing import DrawableGraph
from graph.build.schema import ROOT, StateSchema, is_schema
from graph.build.topology import Graph, NodeSpec
from graph.calls import RunnableGraph
from graph.errors import DrawingError
from graph.run.runners import AsyncRunner, Runner, SyncRunner
from graph.savers import Saver
from graph.types import START, Runtime


class Node:
    """A node of a compiled graph by itself, for tests: ``app.nodes["name"].invoke(state)``.

    Attributes:
        name: its name.
        metadata: as declared.
    """

    def __init__(self, spec: NodeSpec) -> None:
        self.name = spec.name
        self.metadata = spec.metadata
        self._spec = spec

    def __repr__(self) -> str:
        return f"Node({self.name!r})"

    def invoke(self, state: Any, config: Any = None, *, runtime: Runtime[Any] | None = None) -> Any:
        """What the node returns for this state; nothing is recorded, and no edge is followed."""
        if isinstance(self._spec.action, Graph):
            return cast(Any, self._spec.action).invoke(state, config)
        return run_sync(self._called(SyncRunner(), state, config, runtime))

    async def ainvoke(
        self, state: Any, config: Any = None, *, runtime: Runtime[Any] | None = None
    ) -> Any:
        """:meth:`invoke` for async code."""
        if isinstance(self._spec.action, Graph):
            return await cast(Any, self._spec.action).ainvoke(state, config)
        return await self._called(AsyncRunner(), state, config, runtime)

    async def _called(
        self, runner: Runner, state: Any, config: Any, runtime: Runtime[Any] | None
    ) -> Any:
        spec = self._spec
        runtime = runtime or Runtime()
        extras = {"config": config or {}, "runtime": runtime, "writer": runtime.stream_writer}
        passed = {name: value for name, value in extras.items() if name in spec.accepts}
        action: Any = spec.action
        is_async = spec.is_async
        if spec.async_action is not None and runner.is_async:
            action, is_async = spec.async_action, True
        return await runner.call(f"node {spec.name!r}", is_async, partial(action, state, **passed))


class DescribedGraph(RunnableGraph):
    """A graph that describes itself; the methods that run it are in ``CompiledGraph``.

    Attributes:
        builder: the :class:`~graph.StateGraph` that it was compiled from.
        store, cache: always ``None``: there is no long-term store and no node cache.
        debug: always false.
    """

    builder: Any = None
    store: None = None
    cache: None = None
    debug = False

    @cached_property
    def nodes(self) -> dict[str, Node | None]:
        """The nodes by name, each to be called by itself; ``START``, too, with ``None``."""
        return {START: None} | {name: Node(spec) for name, spec in self.topology.nodes.items()}

    @property
    def channels(self) -> dict[str, Any]:
        """How each key of the state merges updates, by name."""
        return dict(self.topology.channels)

    @property
    def context_schema(self) -> type[Any] | None:
        """The class that declares the context."""
        return self.topology.context

    @property
    def interrupt_before_nodes(self) -> list[str]:
        """The nodes before which runs pause."""
        return sorted(self._interrupt_before)

    @property
    def interrupt_after_nodes(self) -> list[str]:
        """The nodes after which runs pause."""
        return sorted(self._interrupt_after)

    @property
    def input_schema(self) -> Any:
        """:meth:`get_input_schema`, as an attribute."""
        return self.get_input_schema()

    @property
    def output_schema(self) -> Any:
        """:meth:`get_output_schema`, as an attribute."""
        return self.get_output_schema()

    def get_input_schema(self, *_config: Any) -> Any:
        """A pydantic model of the input.

        Raises:
            DrawingError: pydantic is not installed.
        """
        return _model(self.topology.input, f"{self.name}Input")

    def get_output_schema(self, *_config: Any) -> Any:
        """A pydantic model of the output.

        Raises:
            DrawingError: pydantic is not installed.
        """
        return _model(self.topology.output, f"{self.name}Output")

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


def _pydantic() -> Any:
    try:
        import pydantic
    except ImportError as error:
        raise DrawingError(
            "a JSON schema needs pydantic; install graph-eventstore[pydantic]"
        ) from error
    return pydantic


def _declared(schema: StateSchema) -> Any:
    return schema.annotations[ROOT] if ROOT in schema.channels else schema.cls


def _json_schema(schema: StateSchema) -> dict[str, Any]:
    found: dict[str, Any] = _pydantic().TypeAdapter(_declared(schema)).json_schema()
    return found


def _model(schema: StateSchema, name: str) -> Any:
    pydantic, declared = _pydantic(), _declared(schema)
    if isinstance(declared, type) and issubclass(declared, pydantic.BaseModel):
        return declared
    return pydantic.create_model(name, __base__=pydantic.RootModel[declared])
