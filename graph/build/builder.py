"""Declaring a graph: nodes, edges and branches on a state.

Owns :class:`GraphBuilder`, the base of ``StateGraph``: what may be declared, in which forms, and
what is read from a function's signature and annotations. Promises that the runtime gets a checked
:class:`Topology` with one reducer (or none) for each state key, which later declarations do not
change. A graph that cannot run raises ``InvalidGraphError``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from types import GenericAlias, MappingProxyType
from typing import Any, Final, Protocol, Self

from eventstore import ConfigurationError
from eventstore.limits import check_name
from graph.build import callables
from graph.build.channels import Channel
from graph.build.foreign import taken_policy
from graph.build.options import refuse
from graph.build.schema import ROOT, StateSchema, is_schema
from graph.build.topology import Branch, Graph, Join, NodeSpec, Topology, check
from graph.errors import InvalidGraphError, InvalidTypeError
from graph.types import END, INTERRUPT, START, RetryPolicy, TimeoutPolicy

_RESERVED_NAMES: Final = frozenset({START, END, INTERRUPT})
# Checkpoint namespaces are written node:task|node:task.
_RESERVED_CHARACTERS: Final = "|:"


class Invocable(Protocol):
    """An object with a method ``invoke``: a Runnable of langchain-core, or a ToolNode."""

    @property
    def invoke(self) -> Callable[..., Any]:
        """Called with the state, and with ``config`` and ``runtime`` if it names them."""


Action = Callable[..., Any] | Graph | Invocable

PathMap = Mapping[Any, str] | Sequence[str] | None


class GraphBuilder:
    """Declares a graph: a shared state, nodes that read and update it, and edges between them."""

    def __init__(
        self,
        state_schema: Any,
        context_schema: Any = None,
        *,
        input_schema: Any = None,
        output_schema: Any = None,
        input: Any = None,
        output: Any = None,
        config_schema: Any = None,
    ) -> None:
        """Declare the state. ``input``, ``output`` and ``config_schema`` are older names of
        ``input_schema``, ``output_schema`` and ``context_schema``.

        Args:
            context_schema: the class of what callers pass as ``context`` and nodes find as
                ``runtime.context``: a ``TypedDict``, dataclass or pydantic model.
        """
        self._schemas: dict[Any, StateSchema] = {}
        self._channels: dict[str, Channel] = {}
        self._nodes: dict[str, NodeSpec] = {}
        self._edges: dict[str, list[str]] = {}
        self._branches: dict[str, list[Branch]] = {}
        self._joins: list[Join] = []
        self._state = self._add_schema(state_schema)
        self._default_retry: tuple[RetryPolicy, ...] = ()
        self._default_limits: dict[str, Any] = {}
        self._default_handler: NodeSpec | None = None
        self._input = self._add_schema(input_schema or input or state_schema)
        self._output = self._add_schema(output_schema or output or state_schema)
        self._context: type[Any] | None = (
            config_schema if context_schema is None else context_schema
        )

    @property
    def nodes(self) -> Mapping[str, NodeSpec]:
        """The nodes added so far, by name."""
        return MappingProxyType(self._nodes)

    @property
    def edges(self) -> set[tuple[str, str]]:
        """The edges added so far, as (from, to), without those that wait for several nodes."""
        return {(start, end) for start, ends in self._edges.items() for end in ends}

    @property
    def waiting_edges(self) -> set[tuple[tuple[str, ...], str]]:
        """The edges that wait for several nodes, as (from, to)."""
        return {(join.sources, join.target) for join in self._joins}

    @property
    def branches(self) -> dict[str, dict[str, Branch]]:
        """The conditional edges added so far, by node and name."""
        return {start: {each.name: each for each in all} for start, all in self._branches.items()}

    @property
    def state_schema(self) -> type[Any]:
        """The class that declares the state."""
        return self._state.cls

    @property
    def input_schema(self) -> type[Any]:
        """The class that declares the input."""
        return self._input.cls

    @property
    def output_schema(self) -> type[Any]:
        """The class that declares the output."""
        return self._output.cls

    @property
    def context_schema(self) -> type[Any] | None:
        """The class that declares the context."""
        return self._context

    def __class_getitem__(cls, types: Any) -> GenericAlias:
        """``StateGraph[State]``, for annotations: the same class."""
        return GenericAlias(cls, types)

    def _add_schema(self, declared: Any) -> StateSchema:
        if is_schema(declared) and declared in self._schemas:
            return self._schemas[declared]
        schema = StateSchema.of(declared)
        if self._channels and (ROOT in schema.channels) != (ROOT in self._channels):
            raise InvalidGraphError(
                f"{declared!r} cannot declare a state beside the other schemas of this graph; use "
                "classes with keys for all of them, or the same bare type"
            )
        for name, channel in schema.channels.items():
            known = self._channels.setdefault(name, channel)
            # A schema that only reads a key need not repeat its reducer.
            if channel.reducer is not None and not known.merges_like(channel):
                raise InvalidGraphError(
                    f"the state key '{name}' has two reducers: {known.fingerprint} and, in "
                    f"{schema.cls.__qualname__}, {channel.fingerprint}; give it the same one in "
                    "every schema"
                )
        self._schemas[declared] = schema
        return schema

    def _hinted(self, hint: Any) -> Any:
        """The annotation of a function's state, if it declares one with keys, as the graph's."""
        return hint if is_schema(hint) and ROOT not in self._channels else None

    def add_node(
        self,
        node: str | Action,
        action: Action | None = None,
        *,
        retry_policy: RetryPolicy | Sequence[RetryPolicy] | None = None,
        defer: bool = False,
        metadata: dict[str, Any] | None = None,
        input_schema: Any = None,
        destinations: Sequence[str] | Mapping[str, str] | None = None,
        timeout: float | timedelta | TimeoutPolicy | None = None,
        error_handler: Callable[..., Any] | None = None,
        retry: RetryPolicy | Sequence[RetryPolicy] | None = None,
        input: Any = None,
        **others: Any,
    ) -> Self:
        """Add a node: ``add_node("name", function)``, or ``add_node(function)``.

        Args:
            node: its name, or the function whose name it takes.
            action: a callable that takes the state (and ``config``, ``runtime`` and ``writer``,
                if it has parameters of these names) and returns an update, or a compiled graph.
            retry_policy: when to try again (older name: ``retry``).
            defer: run it only when nothing else is left to run.
            metadata: any values; shown in drawings.
            input_schema: the state class that the action receives (older name: ``input``). By
                default the one that annotates its first parameter, else the graph's.
            destinations: the nodes to which a ``Command`` that it returns may go, as names or as
                name → label. By default those of the annotation ``-> Command[Literal[…]]``.
            timeout: seconds that each attempt may take, or a :class:`~graph.TimeoutPolicy`. A
                longer one fails with ``NodeTimeoutError``, which the default retry policy retries.
                A coroutine is cancelled; a plain function runs on, and its result is discarded.
            error_handler: called in the same superstep when the last attempt has failed, with the
                state and, if it has a parameter ``error``, the :class:`~graph.NodeError`. What it
                returns takes the place of the node's result; only its ``Command`` says where to
                go on, the node's edges are not followed.
            others: options of LangGraph that are left out (``cache_policy``, …); only ``None`` is
                accepted.
        """
        refuse("add_node()", others)
        if not isinstance(node, str):
            if action is not None:
                raise InvalidGraphError(
                    "add_node(name, action): the name must be a string, not "
                    f"{type(node).__qualname__}"
                )
            action = node
            node = _name_of(action)
        self._check_name(node)
        if action is None:
            raise InvalidGraphError(f"node '{node}' has no action; add_node('{node}', function)")
        what = f"node '{node}'"
        is_graph, function, async_function = _resolve(what, action)
        hint = None if is_graph else callables.first_hint(function)
        declared = input_schema or input or self._hinted(hint)
        labels = dict(destinations) if isinstance(destinations, Mapping) else {}
        if destinations is None and not is_graph:
            ends = callables.command_ends(function)
        else:
            ends = (destinations,) if isinstance(destinations, str) else tuple(destinations or ())
        schema = self._state if declared is None else self._add_schema(declared)
        limits = _limits(what, timeout)
        handler = None
        if error_handler is not None:
            handler = self._handler(f"__error_handler__{node}", error_handler, schema)
        self._nodes[node] = NodeSpec(
            name=node,
            action=function,
            schema=schema,
            retry=_policies(what, retry_policy if retry_policy is not None else retry),
            defer=defer,
            metadata=metadata,
            ends=ends,
            accepts=frozenset()
            if is_graph
            else callables.accepted(function, what) | _wanted(action),
            is_async=not is_graph and callables.is_async(function),
            labels=labels,
            async_action=async_function,
            handler=handler,
            **limits,
        )
        return self

    def _handler(self, name: str, function: Any, schema: StateSchema) -> NodeSpec:
        """An error handler, as a node."""
        what = f"the error handler {name!r}"
        _, function, async_function = _resolve(what, function)
        hint = self._hinted(callables.first_hint(function))
        return NodeSpec(
            name=name,
            action=function,
            schema=schema if hint is None else self._add_schema(hint),
            accepts=callables.accepted(function, what, "error"),
            is_async=callables.is_async(function),
            async_action=async_function,
        )

    def _check_name(self, name: str) -> None:
        if not name:
            raise InvalidGraphError("a node needs a name; add_node('name', function)")
        try:
            check_name("the name of a node", name)
        except ConfigurationError as error:
            raise InvalidGraphError(str(error)) from error
        if name in _RESERVED_NAMES:
            raise InvalidGraphError(f"the name '{name}' is reserved; give the node another name")
        if name in self._nodes:
            raise InvalidGraphError(
                f"a node '{name}' exists already; give the second one another name"
            )
        for character in _RESERVED_CHARACTERS:
            if character in name:
                raise InvalidGraphError(
                    f"the node's name '{name}' must not contain '{character}', which separates the "
                    "parts of a checkpoint namespace"
                )

    def set_node_defaults(
        self,
        *,
        retry_policy: RetryPolicy | Sequence[RetryPolicy] | None = None,
        timeout: float | timedelta | TimeoutPolicy | None = None,
        error_handler: Callable[..., Any] | None = None,
        **others: Any,
    ) -> Self:
        """What nodes have that are added without a ``retry_policy``, ``timeout`` or
        ``error_handler`` of their own, before this call or after it.

        Args:
            others: options of LangGraph that are left out; only ``None`` is accepted.
        """
        refuse("set_node_defaults()", others)
        if retry_policy is not None:
            self._default_retry = _policies("set_node_defaults()", retry_policy)
        if timeout is not None:
            self._default_limits = _limits("set_node_defaults()", timeout)
        if error_handler is not None:
            self._default_handler = self._handler(
                "__default_error_handler__", error_handler, self._state
            )
        return self

    def _with_defaults(self, spec: NodeSpec) -> NodeSpec:
        spec = replace(spec, handler=spec.handler or self._default_handler)
        if isinstance(spec.action, Graph):
            return spec
        has_limits = spec.timeout_s is not None or spec.idle_timeout_s is not None
        return replace(
            spec,
            retry=spec.retry or self._default_retry,
            **({} if has_limits else self._default_limits),
        )

    def add_edge(self, start_key: str | Sequence[str], end_key: str) -> Self:
        """Run ``end_key`` after ``start_key``; for a list of nodes, once all of them have run."""
        sources = (start_key,) if isinstance(start_key, str) else tuple(dict.fromkeys(start_key))
        if not sources:
            raise InvalidGraphError(
                f"the edge to '{end_key}' has no source; name at least one node"
            )
        if END in sources:
            raise InvalidGraphError("END cannot be the start of an edge; nothing runs after it")
        if end_key == START:
            raise InvalidGraphError("START cannot be the end of an edge; it runs first, and once")
        if len(sources) == 1:
            targets = self._edges.setdefault(sources[0], [])
            if end_key not in targets:
                targets.append(end_key)
            return self
        if START in sources:
            raise InvalidGraphError(
                f"an edge cannot wait for START; leave it out of the list, or add "
                f"add_edge(START, '{end_key}') and the other edges one by one"
            )
        join = Join(sources, end_key)
        if join not in self._joins:
            self._joins.append(join)
        return self

    def add_conditional_edges(
        self, source: str, path: Callable[..., Any], path_map: PathMap = None
    ) -> Self:
        """Let ``path`` choose the next nodes from the state after ``source``.

        Args:
            source: the node (or ``START``) after which ``path`` is called.
            path: returns a name, a :class:`Send`, or a list of them.
            path_map: what ``path`` may return, as result → node or as a list of nodes. By default
                the values of its annotation ``-> Literal[…]``; without one, any node's name.
        """
        if source == END:
            raise InvalidGraphError("END cannot have conditional edges; nothing runs after it")
        what = f"the condition after '{source}'"
        _, function, async_function = _resolve(what, path)
        ends: dict[Hashable, str] | None
        if isinstance(path_map, Mapping):
            ends = dict(path_map)
        elif path_map is None:
            names = callables.literal_return(function)
            ends = None if names is None else {name: name for name in names}
        else:
            ends = {name: name for name in path_map}
        present = self._branches.setdefault(source, [])
        hint = callables.first_hint(function)
        present.append(
            Branch(
                path=function,
                ends=ends,
                name=_branch_name(source, path, {branch.name for branch in present}),
                accepts=callables.accepted(function, what),
                is_async=callables.is_async(function),
                schema=None if self._hinted(hint) is None else self._add_schema(hint),
                async_path=async_function,
            )
        )
        return self

    def add_sequence(
        self, nodes: Sequence[Callable[..., Any] | tuple[str, Callable[..., Any]]]
    ) -> Self:
        """Add nodes (functions, or (name, function) pairs) that run one after another."""
        if not nodes:
            raise InvalidGraphError("add_sequence() needs at least one node")
        previous: str | None = None
        for node in nodes:
            name, action = node if isinstance(node, tuple) else (_name_of(node), node)
            self.add_node(name, action)
            if previous is not None:
                self.add_edge(previous, name)
            previous = name
        return self

    def set_entry_point(self, key: str) -> Self:
        """The same as ``add_edge(START, key)``."""
        return self.add_edge(START, key)

    def set_conditional_entry_point(
        self, path: Callable[..., Any], path_map: PathMap = None
    ) -> Self:
        """The same as ``add_conditional_edges(START, path, path_map)``."""
        return self.add_conditional_edges(START, path, path_map)

    def set_finish_point(self, key: str) -> Self:
        """The same as ``add_edge(key, END)``."""
        return self.add_edge(key, END)

    def topology(self) -> Topology:
        """The graph as declared so far, checked; later declarations do not change it."""
        topology = Topology(
            nodes={name: self._with_defaults(spec) for name, spec in self._nodes.items()},
            edges={source: tuple(targets) for source, targets in self._edges.items()},
            branches={source: tuple(found) for source, found in self._branches.items()},
            joins=tuple(self._joins),
            channels=dict(self._channels),
            state=self._state,
            input=self._input,
            output=self._output,
            context=self._context,
        )
        check(topology)
        return topology


def _resolve(what: str, action: Any) -> tuple[bool, Any, Any]:
    """Whether an action is a compiled graph, what to call, and what async runs call instead."""
    if isinstance(action, Mapping):
        action = _parallel(what, action)
    if isinstance(action, Graph):
        return True, action, None
    invoke, ainvoke = getattr(action, "invoke", None), getattr(action, "ainvoke", None)
    if callable(invoke) and not isinstance(action, type) and (ainvoke or not callable(action)):
        return False, invoke, ainvoke
    if callable(action):
        return False, action, None
    raise InvalidTypeError(f"{what} must be a callable or a compiled graph, not {action!r:.100}")


def _wanted(action: Any) -> frozenset[str]:
    """The arguments that a Runnable of LangGraph's wants, which its ``invoke`` does not name."""
    return callables.INJECTED & frozenset(getattr(action, "func_accepts", ()))


def _parallel(what: str, actions: Mapping[str, Any]) -> Any:
    """A dict of actions as one, as chains of langchain-core have them: each gets the state."""
    try:
        from langchain_core.runnables import RunnableParallel
    except ImportError as error:
        raise InvalidTypeError(
            f"{what} is a dict, which needs langchain-core; install graph-eventstore[messages], or "
            "write a function that returns the dict"
        ) from error
    return RunnableParallel(actions)


def _name_of(action: Any) -> str:
    """The name of a function, object or class; empty for a lambda."""
    for found in (getattr(action, "__name__", None), getattr(action, "name", None)):
        if isinstance(found, str):
            return "" if found == "<lambda>" else found
    return type(action).__name__ if callable(action) else ""


def _branch_name(source: str, path: Any, taken: Collection[str]) -> str:
    name = _name_of(path)
    if name:
        if name in taken:
            raise InvalidGraphError(
                f"'{source}' has conditional edges by '{name}' already; pass another name="
            )
        return name
    names = ("condition", *(f"condition_{n}" for n in range(2, len(taken) + 2)))
    return next(candidate for candidate in names if candidate not in taken)


def _policies(what: str, retry: Any) -> tuple[RetryPolicy, ...]:
    retry = taken_policy(retry)  # a sequence of its own kind
    policies = tuple(retry or ()) if isinstance(retry, Sequence | None) else (retry,)
    policies = tuple(map(taken_policy, policies))
    for policy in policies:
        if not isinstance(policy, RetryPolicy):
            raise InvalidTypeError(
                f"{what}: a retry policy must be a RetryPolicy, not {policy!r:.100}"
            )
    return policies


def _limits(what: str, timeout: Any) -> dict[str, Any]:
    """The fields of a node that a ``timeout`` sets."""
    if not hasattr(timeout, "run_timeout"):
        return {"timeout_s": _seconds(what, timeout)}
    if timeout.refresh_on not in ("auto", "heartbeat"):
        raise InvalidGraphError(
            f"{what}: refresh_on must be 'auto' or 'heartbeat', not {timeout.refresh_on!r}"
        )
    return {
        "timeout_s": _seconds(what, timeout.run_timeout),
        "idle_timeout_s": _seconds(what, timeout.idle_timeout),
        "heartbeat_only": timeout.refresh_on == "heartbeat",
    }


def _seconds(what: str, timeout: float | timedelta | None) -> float | None:
    if timeout is None:
        return None
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else float(timeout)
    if not seconds > 0:
        raise InvalidGraphError(f"{what}: the timeout must be more than 0 s, not {seconds:g}")
    return seconds
