"""A graph as it was compiled, and the options of its calls: before anything runs.

Owns what ``compile`` was given, where the graph's threads are (in its own store, or in that of the
graph around it), and what a call's config and arguments come to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast, get_args

from eventstore import AsyncEventStore, EventStore
from eventstore.core.core import Core
from graph.build.options import refuse_left_out
from graph.build.schema import is_schema
from graph.build.topology import Graph, Topology
from graph.build.types_registry import register_types
from graph.checkpoints import Checkpoints
from graph.errors import InvalidConfigError, InvalidContextError
from graph.langchain import register
from graph.read import streaming
from graph.read.history import ReadableGraph
from graph.run.address import (
    as_seen_by_caller,
    merged,
    named_thread,
)
from graph.run.driver import Run
from graph.run.journal import LogJournal
from graph.run.scope import Scope, current
from graph.run.tasks import Options
from graph.run.thread_log import ThreadLog
from graph.savers import Saver, store_of
from graph.state.events import note
from graph.state.namespaces import UNNAMED
from graph.types import (
    Durability,
    RunnableConfig,
)

RECURSION_LIMIT: Final = 10_007
"""The default for the supersteps of one call."""

Nodes = Sequence[str] | str | None


class ConfiguredGraph(ReadableGraph):
    """What a graph was compiled with.

    Attributes:
        step_timeout: the seconds that the tasks of a superstep may take; set it on the graph.
    """

    def __init__(
        self,
        topology: Topology,
        *,
        checkpointer: EventStore | AsyncEventStore | Saver | bool | None = None,
        interrupt_before: Sequence[str] = (),
        interrupt_after: Sequence[str] = (),
        name: str | None = None,
        version: str | None = None,
        snapshot_each_run: bool = False,
        reuse_state: bool = False,
        cancel_siblings: bool = False,
    ) -> None:
        register(type(self))
        self.topology = topology
        self.name = name or UNNAMED
        self._version = version
        self._snapshot_each_run = snapshot_each_run
        self._reuse_state = reuse_state
        self._cancel_siblings = cancel_siblings
        self.step_timeout: float | None = None
        self._config: RunnableConfig = {}
        self._interrupt_before = frozenset(interrupt_before)
        self._interrupt_after = frozenset(interrupt_after)
        self.inner: dict[str, Mapping[str, Graph]] = {}
        self._last: ThreadLog | None = None
        self._log: ThreadLog | None = None
        self.checkpointer = checkpointer

    @property
    def checkpointer(self) -> Any:
        """Stores the threads; another one may be set.

        Raises:
            InvalidCheckpointerError: what is set is none of this library.
        """
        return self._checkpointer

    @checkpointer.setter
    def checkpointer(self, given: Any) -> None:
        keeps_no_log = given is None or isinstance(given, bool)
        self._log = None if keeps_no_log else self.log_on(store_of(given).core)
        self._checkpointer = given
        if isinstance(given, Checkpoints):
            given.serve(self)

    @property
    def core(self) -> Core:
        """The store of its threads.

        Raises:
            InvalidConfigError: it has no checkpointer.
        """
        if self._log is None:
            raise InvalidConfigError(
                "this graph has no checkpointer; compile it with one: "
                "compile(checkpointer=SqliteSaver('runs.db'))"
            )
        return self._log.core

    def log_on(self, core: Core) -> ThreadLog:
        """Folds this graph's logs in a store. The last one is kept, with its caches."""
        log = self._last
        if log is None or log.core is not core:
            register_types(core.codec, self.topology)
            log = ThreadLog(
                core,
                self.topology.channels,
                self._version,
                self._snapshot_each_run,
                self._reuse_state,
            )
            self._last = log
        return log

    def _scope(self, config: Mapping[str, Any] | None, is_node: bool = False) -> Scope | None:
        """The task that a run is for, if the run is inside another graph.

        A graph with a checkpointer of its own that a node calls is not inside the graph of that
        node if the config names another thread, or if that graph uses another store or none.
        """
        scope = current()
        if scope is None or is_node or self._log is None:
            return scope
        own, around = named_thread(config or {}), named_thread(scope.config)
        above = scope.host.journal
        here = isinstance(above, LogJournal) and above.core is self._log.core
        return scope if here and own in (None, around) else None

    def _place(self, scope: Scope | None) -> ThreadLog | None:
        """The logs of a run: this graph's own, or those of the graph around it."""
        if scope is None:
            if self.checkpointer is True:
                raise InvalidConfigError(
                    "checkpointer=True is for a subgraph, which uses its parent's checkpointer; "
                    "compile this graph with a checkpointer of its own"
                )
            return self._log
        above = scope.host.journal
        if self.checkpointer is False or not isinstance(above, LogJournal):
            return None
        return self.log_on(above.core)

    def _options(
        self,
        config: Mapping[str, Any] | None,
        context: Any,
        durability: Durability | None,
        others: Mapping[str, Any] | None = None,
        *,
        modes: frozenset[str] = frozenset(),
        subgraphs: bool = False,
        before: Nodes = None,
        after: Nodes = None,
        is_node: bool = False,
    ) -> Options:
        """The options of a run: from the call, from ``compile``, and from the run around it."""
        others = others or {}
        _refuse_unknown(others)
        durability = durability or "sync"
        output_keys, asked = others.get("output_keys"), others.get("stream_mode") or "values"
        if asked != "values":
            modes = streaming.modes_of(asked)
        for key in [output_keys] if isinstance(output_keys, str) else output_keys or ():
            if key not in self.topology.channels:
                raise InvalidConfigError(
                    f"output_keys names {key!r}, which is not a key of the state; its keys are "
                    f"{', '.join(map(repr, self.topology.channels))}"
                )
        if durability not in get_args(Durability):
            known = ", ".join(map(repr, get_args(Durability)))
            raise InvalidConfigError(f"durability must be one of {known}, not {durability!r}")
        config = of_caller(config or {})
        scope = self._scope(config, is_node)
        around = None if scope is None else cast(Run, scope.host).options
        config = merged(merged(_around(scope), self._config), config or {})
        listener = None
        if around is not None:
            durability = around.durability
            listener = around.listener
            if listener is None and around.subgraphs:
                listener = cast(Run, cast(Scope, scope).host).forward_chunk
        heard = around.modes if listener is not None and around is not None else frozenset()
        limit = config.get("recursion_limit", RECURSION_LIMIT)
        if limit < 1:
            raise InvalidConfigError(f"recursion_limit must be at least 1, not {limit}")
        return Options(
            config=config,
            modes=modes | heard,
            own_modes=modes,
            recursion_limit=limit,
            max_concurrency=config.get("max_concurrency"),
            interrupt_before=self._interrupt_before if before is None else _names(before),
            interrupt_after=self._interrupt_after if after is None else _names(after),
            graph=self.name,
            context=self._context(context, around),
            durability=durability,
            subgraphs=subgraphs or bool(others.get("subgraphs")),
            listener=listener,
            scope=scope,
            output_keys=output_keys,
            version=others.get("version") or "v1",
            step_timeout_s=self.step_timeout,
            cancel_siblings=self._cancel_siblings,
        )

    def _context(self, given: Any, around: Options | None) -> Any:
        schema = self.topology.context
        if given is None:
            return None if around is None else around.context
        if schema is None or not isinstance(given, Mapping) or not is_schema(schema):
            return given
        if issubclass(schema, dict):
            return given
        try:
            return schema(**given)
        except TypeError as error:
            raise InvalidContextError(
                f"the context does not fit {schema.__qualname__}: {error}"
            ) from error
        except ValueError as error:  # a ValidationError of pydantic
            note(error, f"in the context, which is to fit {schema.__qualname__}")
            raise


def of_caller(config: Mapping[str, Any]) -> Mapping[str, Any]:
    scope = current()
    return config if scope is None else as_seen_by_caller(config, scope.inner_ns)


def _around(scope: Scope | None) -> Mapping[str, Any]:
    """The config that a call in a node inherits from the run around it.

    All of it for a run inside that one; without its run id and checkpoint for an independent run.
    """
    outside = current()
    if outside is None:
        return {}
    of_run = ("checkpoint_id", "checkpoint_ns")
    own = ("run_name", "callbacks") if scope is not None else ("run_name", "callbacks", "run_id")
    inherited = {name: each for name, each in outside.config.items() if name not in own}
    if scope is not None:
        return inherited
    place = dict(inherited.get("configurable") or {})
    return {**inherited, "configurable": {n: v for n, v in place.items() if n not in of_run}}


def _refuse_unknown(options: Mapping[str, Any]) -> None:
    """Refuse unknown options, except those of LangGraph that have no effect here.

    Raises:
        InvalidConfigError: names the options.
    """
    refuse_left_out(options)
    idle = {"debug": (True, False), "version": ("v1", "v2")}
    unknown = [
        name
        for name, value in options.items()
        if not (
            value is None
            or value == ()
            or name in ("output_keys", "subgraphs", "stream_mode")
            or value in idle.get(name, ())
        )
    ]
    if unknown:
        raise InvalidConfigError(
            f"unknown options {', '.join(map(repr, unknown))}; this call does not have them"
        )


def _names(nodes: Sequence[str] | str) -> frozenset[str]:
    return frozenset([nodes] if isinstance(nodes, str) else nodes)
