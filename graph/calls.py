"""How a call of a graph becomes a run: its options, its place, its trace, what listeners see.

Owns what every public call of :class:`~graph.app.CompiledGraph` does between its arguments and the
driver. Each is written once, as a coroutine, for sync and async callers.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, Final, TypeVar, cast, get_args

from eventstore import AsyncEventStore, EventStore, telemetry
from eventstore.concurrency import (
    Asyncio,
    Blocking,
    Concurrency,
    discard,
    run_sync,
)
from eventstore.core.core import Core
from graph.build.schema import Channel, StateSchema, is_schema
from graph.build.topology import Graph, Topology
from graph.build.types_registry import register_types
from graph.errors import InvalidConfigError
from graph.read import streaming, subgraphs, time_travel
from graph.read.history import ReadableGraph, Reader
from graph.run import invocation
from graph.run.driver import Run
from graph.run.invocation import CONFLICT_TIMEOUT_S, Call, OnConflict
from graph.run.journal import LogJournal, Means
from graph.run.runners import Runner, SyncRunner
from graph.run.scope import Scope, current
from graph.run.tasks import Options
from graph.run.thread_log import ThreadLog, ns_of, position_of, thread_id_of
from graph.savers import Saver, store_of
from graph.state import planner
from graph.state.fold import State
from graph.types import (
    INTERRUPT,
    Durability,
    RunnableConfig,
    StateSnapshot,
    StateUpdate,
)

T = TypeVar("T")

RUN: Final = telemetry.Operation("graph.run", "Time from a call of a graph to its end or stop.")

RECURSION_LIMIT: Final = 25
"""Supersteps of one call, unless the config says otherwise."""

Nodes = Sequence[str] | str | None


class Calls(ReadableGraph):
    """A graph that can be called; the public calls are in ``CompiledGraph``."""

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
    ) -> None:
        self.topology = topology
        self.name = name or "graph"
        self.checkpointer = checkpointer
        self._version = version
        self._snapshot_each_run = snapshot_each_run
        self._config: RunnableConfig = {}
        self._interrupt_before = frozenset(interrupt_before)
        self._interrupt_after = frozenset(interrupt_after)
        self.inner: dict[str, Mapping[str, Graph]] = {}
        self._last: Reader | None = None
        self._log: ThreadLog | None = None
        if checkpointer is not None and not isinstance(checkpointer, bool):
            self._log = self.reader_on(store_of(checkpointer).core).log

    @property
    def core(self) -> Core:
        """The store that keeps its threads.

        Raises:
            InvalidConfigError: it keeps none.
        """
        if self._log is None:
            raise InvalidConfigError(
                "this graph has no checkpointer; compile it with one: "
                "compile(checkpointer=SqliteSaver('runs.db'))"
            )
        return self._log.core

    def reader_on(self, core: Core) -> Reader:
        """Reads them. Kept for the store that was used last, since it learns names of threads."""
        found = self._last
        if found is None or found.log.core is not core:
            register_types(core.codec, self.topology)
            log = ThreadLog(core, self.topology.channels, self._version, self._snapshot_each_run)
            found = Reader(log, self)
            self._last = found
        return found

    def _call(
        self,
        runner: Runner,
        input: Any,
        options: Options,
        on_conflict: OnConflict,
        conflict_timeout_s: float,
        is_node: bool = False,
    ) -> Call:
        invocation.check_conflict(on_conflict)
        scope = options.scope
        log = self._place(scope)
        concurrency = require_blocking(log) if isinstance(runner, SyncRunner) else looping(log)
        inside = scope is None and log is not None and ns_of(options.config)
        return Call(
            self.topology,
            self.name,
            log,
            input,
            options.config,
            options,
            runner,
            concurrency,
            on_conflict,
            conflict_timeout_s,
            scope,
            is_node,
            self.checkpointer is True,
            partial(time_travel.open_inside, self) if inside else None,
        )

    def _scope(self, config: Mapping[str, Any] | None, is_node: bool = False) -> Scope | None:
        """The task that a run is for, if it is inside another graph.

        A graph with a checkpointer of its own is not, wherever it is called, if it is called with
        a thread of its own, or if the graph around it keeps its threads elsewhere or not at all.
        """
        scope = current()
        if scope is None or is_node or self._log is None:
            return scope
        own = ((config or {}).get("configurable") or {}).get("thread_id")
        around = scope.config.get("configurable", {}).get("thread_id")
        above = scope.host.journal
        here = isinstance(above, LogJournal) and above.core is self._log.core
        return scope if here and own in (None, around) else None

    def _place(self, scope: Scope | None) -> ThreadLog | None:
        """Where the log of a run is."""
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
        return self.reader_on(above.core).log

    async def _run(self, call: Call) -> dict[str, Any]:
        with self._span(call) as span:
            started = await invocation.start(call)
            try:
                async with started as chunks:
                    async for kind, content in chunks:
                        if call.options.modes:
                            await self._shown(call, started.run, kind, content)
            finally:
                _tell_logs(call, started.run)
            if call.scope is not None:
                await invocation.finish_inside(started.run, call.scope)
            _tell_end(span, started.run)
        return self._result(started.run)

    def _result(self, run: Run) -> dict[str, Any]:
        output = self.output(run.state)
        return {**output, INTERRUPT: list(run.interrupts)} if run.interrupts else output

    def _stream(self, call: Call, single: bool) -> AsyncGenerator[Any, None]:
        span = self._span(call)
        return span.over(self._streamed(call, single, span))

    async def _streamed(
        self, call: Call, single: bool, span: telemetry.Span
    ) -> AsyncGenerator[Any, None]:
        started = await invocation.start(call)
        form = streaming.Form(single, call.options.subgraphs)
        try:
            async with started as chunks:
                async for kind, content in chunks:
                    for ns, mode, chunk in await self._shown(call, started.run, kind, content):
                        yield form.of(ns, mode, chunk)
        finally:
            _tell_logs(call, started.run)
        if call.scope is not None:
            await invocation.finish_inside(started.run, call.scope)
        _tell_end(span, started.run)

    async def _shown(
        self, call: Call, run: Run, kind: str, content: Any
    ) -> list[tuple[str, str, Any]]:
        """What the listeners of this call get to see; those of graphs around it are told."""
        if kind == "inside":
            return [content] if content[1] in call.options.own_modes else []
        found = []
        reader = None if call.log is None else self.reader_on(call.log.core)
        for mode, chunk in await streaming.chunks(
            self, run, reader, call.concurrency, kind, content
        ):
            if mode in call.options.own_modes:
                found.append((run.ns, mode, chunk))
            if call.options.listener is not None:
                call.options.listener(run.ns, mode, chunk)
        return found

    def _span(self, call: Call) -> telemetry.Span:
        """A run in a trace."""
        if not telemetry.on:
            return telemetry.NOTHING
        facts: dict[str, str] = {}
        if call.scope is None and call.log is not None:
            thread_id = (call.config.get("configurable") or {}).get("thread_id")
            facts = {telemetry.THREAD: telemetry.named(thread_id)}
        return RUN.begin(facts, {"graph.name": self.name})

    def _options(
        self,
        config: Mapping[str, Any] | None,
        context: Any,
        durability: Durability,
        *,
        modes: frozenset[str] = frozenset(),
        subgraphs: bool = False,
        before: Nodes = None,
        after: Nodes = None,
        is_node: bool = False,
    ) -> Options:
        """How a call behaves: as it says, as the graph was compiled, as the graph around it."""
        if durability not in get_args(Durability):
            known = ", ".join(map(repr, get_args(Durability)))
            raise InvalidConfigError(f"durability must be one of {known}, not {durability!r}")
        scope = self._scope(config, is_node)
        around = None if scope is None else cast(Run, scope.host).options
        merged = merged_config(merged_config(_around(scope), self._config), config or {})
        listener = None
        if around is not None:
            durability = around.durability
            listener = around.listener
            if listener is None and around.subgraphs:
                listener = cast(Run, cast(Scope, scope).host).hear
        heard = around.modes if listener is not None and around is not None else frozenset()
        return Options(
            config=merged,
            modes=modes | heard,
            own_modes=modes,
            recursion_limit=merged.get("recursion_limit", RECURSION_LIMIT),
            max_concurrency=merged.get("max_concurrency"),
            interrupt_before=self._interrupt_before if before is None else _names(before),
            interrupt_after=self._interrupt_after if after is None else _names(after),
            graph=self.name,
            context=self._context(context, around),
            durability=durability,
            subgraphs=subgraphs,
            listener=listener,
            scope=scope,
        )

    def _context(self, given: Any, around: Options | None) -> Any:
        schema = self.topology.context
        if given is None:
            return None if around is None else around.context
        if schema is None or not isinstance(given, Mapping) or not is_schema(schema):
            return given
        return given if issubclass(schema, dict) else StateSchema.of(schema).coerce(given)

    def output(self, state: State) -> dict[str, Any]:
        """What callers get of a state."""
        keys, values = self.topology.output.keys, planner.shown(self.topology, state)
        return {key: planner.own(values[key]) for key in keys if key in values}

    def _history(
        self,
        config: RunnableConfig,
        filter: Mapping[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> AsyncGenerator[StateSnapshot, None]:
        reader, thread_id = self._reader(config), thread_id_of(config)
        return _chosen(
            reader.history(thread_id, position_of(before) if before else None, ns_of(config)),
            dict(filter or {}),
            limit,
        )

    def _drive(self, operation: Awaitable[T]) -> T:
        """The result of an operation, for a sync call."""
        try:
            require_blocking(self._log)
        except InvalidConfigError:
            discard(operation)
            raise
        return run_sync(operation)

    async def _edit(
        self,
        runner: Runner,
        config: RunnableConfig,
        supersteps: Sequence[Sequence[StateUpdate]],
    ) -> RunnableConfig:
        reader = self._reader(config)
        if not supersteps or not all(supersteps):
            raise InvalidConfigError("there is nothing to update; pass at least one StateUpdate")
        concurrency = (
            require_blocking(self._log) if isinstance(runner, SyncRunner) else looping(self._log)
        )
        means = Means(concurrency)
        graph = subgraphs.graph_of(self, ns_of(config))
        place: Mapping[str, Any] = config
        if ns_of(config):
            place = await concurrency.run(time_travel.to_edit(self, config))
        options = graph._options(place, None, "sync")
        journal = await concurrency.run(reader.log.open(place, means))
        run = Run(graph.topology, journal, options, runner, ns=ns_of(place))
        withdrawn = [each.id for each in run.interrupts]
        for updates in supersteps:
            await run.edit(updates, reader.log.metadata.recorded(config))
        if withdrawn and run.ns:
            await concurrency.run(time_travel.edited(self, thread_id_of(config), run.ns, withdrawn))
        snapshot = await concurrency.run(reader.snapshot(thread_id_of(config), run.state))
        return snapshot.config

    def _reader(self, config: Mapping[str, Any]) -> Reader:
        """Reads the log that a config names."""
        core = self.core
        return subgraphs.graph_of(self, ns_of(config)).reader_on(core)

    async def nested(
        self, input: Any, keys: Mapping[str, Channel], runner: Runner
    ) -> dict[str, Any]:
        """Run as the node of the task that is running; what it leaves in the parent's keys."""
        given = _shared(input, self.topology.input.keys)
        options = self._options({}, None, "sync", is_node=True)
        result = await self._run(
            self._call(runner, given, options, "reject", CONFLICT_TIMEOUT_S, is_node=True)
        )
        return {key: value for key, value in result.items() if key in keys}


def require_blocking(log: ThreadLog | None) -> Concurrency:
    """How operations run inside a blocking call: by driving, which has to be possible.

    Raises:
        InvalidConfigError: the checkpointer works in an event loop only.
    """
    if log is not None and log.core.transactions.blocking is None:
        raise InvalidConfigError(
            "this graph's checkpointer is asynchronous; call ainvoke(), astream(), "
            "aget_state(), …, or compile the graph with a synchronous one (PostgresSaver)"
        )
    return Blocking()


def looping(log: ThreadLog | None) -> Concurrency:
    return Asyncio() if log is None else log.core.transactions.asyncio


def _tell_logs(call: Call, run: Run) -> None:
    if call.scope is not None:
        invocation.leave(run, call.scope)


def _around(scope: Scope | None) -> Mapping[str, Any]:
    """What a call inherits of the config of the run around it: inside it, or beside it."""
    outside = current()
    if scope is not None or outside is None:
        return scope.config if scope is not None else {}
    of_run = ("checkpoint_id", "checkpoint_ns")
    inherited = {name: each for name, each in outside.config.items() if name != "run_id"}
    place = dict(inherited.get("configurable") or {})
    return {**inherited, "configurable": {n: v for n, v in place.items() if n not in of_run}}


def _tell_end(span: telemetry.Span, run: Run) -> None:
    if telemetry.on:
        status = "waiting" if run.state.frontier else "idle"
        span.set({"graph.run.status": status, "graph.step": run.state.step})


def _names(nodes: Sequence[str] | str) -> frozenset[str]:
    return frozenset([nodes] if isinstance(nodes, str) else nodes)


def merged_config(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """One config over another: what both have is merged where it can be."""
    merged = {**below, **above}
    for name in ("configurable", "metadata"):
        if name in below and name in above:
            merged[name] = {**(below[name] or {}), **(above[name] or {})}
    if "tags" in below and "tags" in above:
        merged["tags"] = [*dict.fromkeys([*(below["tags"] or []), *(above["tags"] or [])])]
    return merged


async def _chosen(
    found: AsyncGenerator[StateSnapshot, None], wanted: Mapping[str, Any], limit: int | None
) -> AsyncGenerator[StateSnapshot, None]:
    """Those snapshots whose metadata has what is wanted, so many at most."""
    count = 0
    if limit is not None and limit <= 0:
        return
    async with aclosing(found):
        async for snapshot in found:
            if wanted.items() <= (snapshot.metadata or {}).items():
                yield snapshot
                count += 1
                if count == limit:
                    return


def _shared(state: Any, keys: Sequence[str]) -> dict[str, Any]:
    """What of a parent's state, whatever its form, a graph has keys for."""
    if isinstance(state, Mapping):
        return {key: state[key] for key in keys if key in state}
    return {key: getattr(state, key) for key in keys if hasattr(state, key)}
