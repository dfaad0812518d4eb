"""The compiled graph: what applications call, by blocking and from event loops.

Owns the public calls (``invoke``, ``stream``, ``get_state``, … and their twins) and nothing
of what they mean: how a run begins is a call's, the run is the driver's, threads and checkpoints
are the log's, reading is the history's. Each is written once, as a coroutine; the blocking call
drives it to its end, the asynchronous one awaits it. Safe to share between threads; runs on
different threads do not disturb each other, and of two on the same thread one wins each superstep.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, Awaitable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial
from typing import Any, Final, Protocol, Self, TypeVar, cast, get_args

from eventstore import AsyncEventStore, EventStore, VerifyReport, telemetry
from eventstore.concurrency import (
    Asyncio,
    Blocking,
    Concurrency,
    discard,
    iterate,
    iterate_sync,
    run_sync,
)
from eventstore.core.core import Core
from graph.build.drawing import DrawableGraph
from graph.build.schema import Channel, StateSchema, is_schema
from graph.build.topology import Graph, Topology
from graph.build.types_registry import register_types
from graph.errors import InvalidConfigError
from graph.read import replay_check, streaming, subgraphs, time_travel
from graph.read.history import ReadableGraph, Reader
from graph.read.replay_check import ReplayReport, Same
from graph.run import invocation
from graph.run.driver import Options, Run
from graph.run.invocation import CONFLICT_TIMEOUT_S, Call, OnConflict
from graph.run.journal import LogJournal, Means
from graph.run.runners import AsyncRunner, Runner, SyncRunner
from graph.run.scope import Scope, current, keeping
from graph.run.thread_log import ThreadLog, ns_of, position_of, thread_id_of
from graph.state import planner
from graph.state.fold import State
from graph.state.namespaces import called
from graph.types import (
    INTERRUPT,
    AuditEntry,
    Durability,
    RunnableConfig,
    StateSnapshot,
    StateUpdate,
)

T = TypeVar("T")

RUN: Final = telemetry.Operation("graph.run", "Time from a call of a graph to its end or stop.")

BATCH_CONCURRENCY: Final = 16

RECURSION_LIMIT: Final = 25
"""Supersteps of one call, unless the config says otherwise."""


Nodes = Sequence[str] | str | None


class Saver(Protocol):
    """What ``compile(checkpointer=…)`` takes besides a store: something that has one."""

    @property
    def store(self) -> EventStore | AsyncEventStore:
        """Where events go."""


class CompiledGraph(ReadableGraph):
    """A graph that can run. Made by :meth:`StateGraph.compile`."""

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
            store = checkpointer
            if not isinstance(store, EventStore | AsyncEventStore):
                store = store.store
            self._log = self.reader_on(store.core).log

    @property
    def core(self) -> Core:
        """The store that keeps its threads.

        Raises:
            InvalidConfigError: it keeps none.
        """
        if self._log is None:
            raise InvalidConfigError(
                "this graph keeps no state: compile it with a checkpointer, "
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

    def with_config(self, config: RunnableConfig | None = None, **more: Any) -> Self:
        """The same graph with a config that goes below that of each call."""
        bound = copy.copy(self)
        bound._config = cast(RunnableConfig, _merged(self._config, {**(config or {}), **more}))
        return bound

    # --- running ------------------------------------------------------------------------

    def invoke(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        context: Any = None,
        durability: Durability = "sync",
        interrupt_before: Nodes = None,
        interrupt_after: Nodes = None,
        on_conflict: OnConflict = "reject",
        conflict_timeout_s: float = CONFLICT_TIMEOUT_S,
        **others: Any,
    ) -> dict[str, Any]:
        """Run to the end, or to where the run has to stop, and return the output values.

        Args:
            input: values for the state; ``None`` goes on from where the thread stands, or
                from the checkpoint that the config names; ``Command(resume=…)`` answers what was
                asked there by ``interrupt()``, and goes on.
            config: ``{"configurable": {"thread_id": …}}`` for a graph with a checkpointer;
                also ``recursion_limit``, ``max_concurrency``, ``metadata``, ``tags``. Beside the
                ``thread_id``, a ``ttl`` in seconds (or a ``timedelta``) says how long retention
                keeps the thread after its last event; heeded when the thread is made.
            context: what nodes find as ``runtime.context``.
            durability: when what nodes did is written: ``"sync"``: before the next superstep
                begins; ``"async"``: while it runs, at most a few supersteps behind; ``"exit"``:
                when the run ends, stops or fails, all at once.
            interrupt_before, interrupt_after: nodes (or ``"*"``) at which to stop, instead of
                those that ``compile`` was given.
            on_conflict: what to do while another run is under way on the thread: ``"reject"``
                goes ahead, and whichever of the two appends second gets
                ``ConcurrencyError``; ``"wait"`` queues behind it.
            conflict_timeout_s: when waiting, how long the other run may stay without a new
                event before it counts as dead and this one goes ahead.

        Returns:
            The values of the output schema's keys; and, if the run waits for people, under
            ``"__interrupt__"`` what it asks, as a list of :class:`Interrupt`.

        Raises:
            InvalidConfigError: no thread, or a checkpoint that does not fit it.
            InvalidGraphError: a node is asynchronous: call :meth:`ainvoke`.
            InvalidUpdateError: an input or an update does not fit the state.
            EmptyInputError: ``None`` on a thread that has never run.
            GraphRecursionError: too many supersteps.
            ConcurrencyError: another run was first on this thread.
            Exception: what a node raised. Finished nodes are kept; ``invoke(None, config)``
                goes on from there.
        """
        _refuse(others)
        options = self._options(
            config, context, durability, before=interrupt_before, after=interrupt_after
        )
        call = self._call(SyncRunner(), input, options, on_conflict, conflict_timeout_s)
        return run_sync(self._run(call))

    async def ainvoke(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        context: Any = None,
        durability: Durability = "sync",
        interrupt_before: Nodes = None,
        interrupt_after: Nodes = None,
        on_conflict: OnConflict = "reject",
        conflict_timeout_s: float = CONFLICT_TIMEOUT_S,
        **others: Any,
    ) -> dict[str, Any]:
        """:meth:`invoke` for event loops: nodes may be ``async def``, and plain ones run on
        threads.

        When the task is cancelled, so are the nodes that run; what was recorded stays, and
        ``invoke(None, config)`` runs the others again.
        """
        _refuse(others)
        options = self._options(
            config, context, durability, before=interrupt_before, after=interrupt_after
        )
        call = self._call(AsyncRunner(), input, options, on_conflict, conflict_timeout_s)
        return await self._run(call)

    def stream(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        stream_mode: str | Sequence[str] = "updates",
        subgraphs: bool = False,
        context: Any = None,
        durability: Durability = "sync",
        interrupt_before: Nodes = None,
        interrupt_after: Nodes = None,
        on_conflict: OnConflict = "reject",
        conflict_timeout_s: float = CONFLICT_TIMEOUT_S,
        **others: Any,
    ) -> Iterator[Any]:
        """Run like :meth:`invoke`, yielding what happens as it happens.

        Args:
            stream_mode: ``updates`` (what each node wrote; the default), ``values`` (the
                state after each superstep), ``tasks`` (each as it begins and ends),
                ``checkpoints``, ``debug`` (checkpoints and tasks), ``custom`` (what nodes pass
                to their ``writer``); or a list of them, for ``(mode, chunk)`` pairs. What waits
                for people is a chunk ``{"__interrupt__": (Interrupt, …)}`` of ``updates``.
            subgraphs: also what happens inside subgraphs; before each chunk then stands the way
                to its graph, ``()`` for this one: ``(path, chunk)``, or ``(path, mode, chunk)``.
        """
        _refuse(others)
        options = self._options(
            config,
            context,
            durability,
            modes=streaming.modes_of(stream_mode),
            subgraphs=subgraphs,
            before=interrupt_before,
            after=interrupt_after,
        )
        call = self._call(SyncRunner(), input, options, on_conflict, conflict_timeout_s)
        yield from iterate_sync(self._stream(call, isinstance(stream_mode, str)))

    async def astream(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        stream_mode: str | Sequence[str] = "updates",
        subgraphs: bool = False,
        context: Any = None,
        durability: Durability = "sync",
        interrupt_before: Nodes = None,
        interrupt_after: Nodes = None,
        on_conflict: OnConflict = "reject",
        conflict_timeout_s: float = CONFLICT_TIMEOUT_S,
        **others: Any,
    ) -> AsyncGenerator[Any, None]:
        """:meth:`stream` for event loops. Close it (``aclosing``) to stop before its end."""
        _refuse(others)
        options = self._options(
            config,
            context,
            durability,
            modes=streaming.modes_of(stream_mode),
            subgraphs=subgraphs,
            before=interrupt_before,
            after=interrupt_after,
        )
        call = self._call(AsyncRunner(), input, options, on_conflict, conflict_timeout_s)
        chunks = self._stream(call, isinstance(stream_mode, str))
        try:
            async for chunk in chunks:
                yield chunk
        finally:
            await chunks.aclose()

    def batch(
        self,
        inputs: Sequence[Any],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        max_concurrency: int | None = None,
        return_exceptions: bool = False,
    ) -> list[Any]:
        """Invoke for several inputs side by side; the results are in the inputs' order.

        Args:
            config: one for all, or one per input (with a checkpointer each needs a thread).
            return_exceptions: put an error in its place instead of raising the first.
        """
        configs = _configs(inputs, config)
        if not inputs:
            return []
        scope, places = self._scope(configs[0]), iter(range(0))
        if scope is not None:  # so that each finds its log again, whichever begins first
            places = iter(scope.places(called(scope.node, self.name), len(inputs)))
        with ThreadPoolExecutor(min(max_concurrency or BATCH_CONCURRENCY, len(inputs))) as pool:
            futures = [
                pool.submit(keeping(next(places, None)).run, self.invoke, given, each)
                for given, each in zip(inputs, configs, strict=True)
            ]
        if return_exceptions:
            return [future.exception() or future.result() for future in futures]
        return [future.result() for future in futures]

    async def abatch(
        self,
        inputs: Sequence[Any],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        max_concurrency: int | None = None,
        return_exceptions: bool = False,
    ) -> list[Any]:
        """:meth:`batch` for event loops."""
        room = asyncio.Semaphore(max_concurrency or BATCH_CONCURRENCY)

        async def one(given: Any, each: RunnableConfig | None) -> Any:
            async with room:
                return await self.ainvoke(given, each)

        pairs = zip(inputs, _configs(inputs, config), strict=True)
        results = await asyncio.gather(
            *(one(given, each) for given, each in pairs), return_exceptions=True
        )
        error = next((each for each in results if isinstance(each, BaseException)), None)
        if error is not None and not return_exceptions:
            raise error
        return results

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
        concurrency = _blocking(log) if isinstance(runner, SyncRunner) else _looping(log)
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
                    "checkpointer=True is for a graph inside another one, whose checkpointer it "
                    "uses; compile this one with a checkpointer of its own"
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
        merged = _merged(_merged(_around(scope), self._config), config or {})
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

    # --- looking ------------------------------------------------------------------------

    def get_state(self, config: RunnableConfig, *, subgraphs: bool = False) -> StateSnapshot:
        """The state of a thread, or at the checkpoint that the config names.

        Of a thread that is not there the snapshot is empty. What a run waits for is in its
        ``interrupts``, and per task in ``tasks``.

        Args:
            config: with the ``checkpoint_ns`` of a subgraph (as in the config of a task's
                ``state``) it is that one's state.
            subgraphs: put the states of subgraphs that are under way into ``tasks[i].state``.

        Raises:
            InvalidConfigError: no thread, or a checkpoint that does not fit it.
            PositionNotFoundError: a checkpoint that is not there (any more).
        """
        return self._drive(self._reader(config).state(config, subgraphs))

    async def aget_state(self, config: RunnableConfig, *, subgraphs: bool = False) -> StateSnapshot:
        """:meth:`get_state` for event loops."""
        return await _looping(self._log).run(self._reader(config).state(config, subgraphs))

    def get_state_history(
        self,
        config: RunnableConfig,
        *,
        filter: Mapping[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[StateSnapshot]:
        """The checkpoints of a thread, newest first, one at a time.

        Args:
            filter: only those whose metadata has these values.
            before: only those older than the checkpoint of this config.
            limit: so many at most.
        """
        _blocking(self._log)
        return iterate_sync(self._history(config, filter, before, limit))

    async def aget_state_history(
        self,
        config: RunnableConfig,
        *,
        filter: Mapping[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncGenerator[StateSnapshot, None]:
        """:meth:`get_state_history` for event loops."""
        found = self._history(config, filter, before, limit)
        async with aclosing(iterate(_looping(self._log), found)) as snapshots:
            async for snapshot in snapshots:
                yield snapshot

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

    def events(self, config: RunnableConfig) -> Iterator[AuditEntry]:
        """The audit trail of a thread, oldest first: who wrote what, when, and what it led to.

        With the ``checkpoint_ns`` of a subgraph it is that one's.

        Raises:
            ThreadNotFoundError: no such thread.
            CorruptEventError: the log was damaged or tampered with.
        """
        _blocking(self._log)
        return iterate_sync(self._reader(config).audit(thread_id_of(config), ns_of(config)))

    async def aevents(self, config: RunnableConfig) -> AsyncGenerator[AuditEntry, None]:
        """:meth:`events` for event loops."""
        found = self._reader(config).audit(thread_id_of(config), ns_of(config))
        async with aclosing(iterate(_looping(self._log), found)) as entries:
            async for entry in entries:
                yield entry

    def verify(self, config: RunnableConfig) -> VerifyReport:
        """Check a thread: digest chain, payloads, and that its snapshots equal their replay.

        Raises:
            ThreadNotFoundError: no such thread.
        """
        return self._drive(self._reader({}).verify(thread_id_of(config)))

    async def averify(self, config: RunnableConfig) -> VerifyReport:
        """:meth:`verify` for event loops."""
        return await _looping(self._log).run(self._reader({}).verify(thread_id_of(config)))

    def replay(
        self, config: RunnableConfig, *, upto: RunnableConfig | int | None = None
    ) -> StateSnapshot:
        """The state as it is folded now from the first event on, by today's reducers.

        Snapshots are not looked at; nothing is written.

        Args:
            upto: the checkpoint to end at, by its config, or the seq of an event of the thread's
                own log, also in the middle of a superstep; by default what ``config`` names.

        Raises:
            PositionNotFoundError: there is no such event (any more).
        """
        return self._drive(self._reader(config).replayed(config, upto))

    async def areplay(
        self, config: RunnableConfig, *, upto: RunnableConfig | int | None = None
    ) -> StateSnapshot:
        """:meth:`replay` for event loops."""
        return await _looping(self._log).run(self._reader(config).replayed(config, upto))

    def rebuild(self, config: RunnableConfig) -> int:
        """Drop the snapshots of a thread and fold it afresh, as after a change of its reducers.

        Returns:
            How many snapshots were dropped.

        Raises:
            ThreadNotFoundError: no such thread.
        """
        return self._drive(self._reader({}).rebuild(thread_id_of(config)))

    async def arebuild(self, config: RunnableConfig) -> int:
        """:meth:`rebuild` for event loops."""
        return await _looping(self._log).run(self._reader({}).rebuild(thread_id_of(config)))

    def check_replay(
        self,
        config: RunnableConfig,
        *,
        nodes: Sequence[str] | None = None,
        same: Same | None = None,
        context: Any = None,
    ) -> ReplayReport:
        """Run the nodes of today on what a thread has recorded, and compare what they would write.

        Each recorded task is run on the state that it had, with the answers that it got; nothing
        is written, but the nodes *are* called: put stand-ins where they reach the outside. Logs of
        subgraphs are checked by their own graphs. What failed back then is not run.

        Args:
            nodes: check only these, of any graph in the thread; by default all.
            same: says whether a recorded and a new value of a key are to count as equal, where
                ``==`` is too strict: ``same(key, recorded, new)``.
            context: what nodes find as ``runtime.context``.

        Returns:
            A report; ``report.ok``, or ``report.mismatch``: the first event that would differ.

        Raises:
            ThreadNotFoundError: no such thread.
        """
        options = self._options(config, context, "sync")
        check = replay_check.Check(SyncRunner(), options, nodes, same)
        return self._drive(check.thread(self, self._reader({}).log, thread_id_of(config)))

    async def acheck_replay(
        self,
        config: RunnableConfig,
        *,
        nodes: Sequence[str] | None = None,
        same: Same | None = None,
        context: Any = None,
    ) -> ReplayReport:
        """:meth:`check_replay` for event loops."""
        options = self._options(config, context, "sync")
        check = replay_check.Check(AsyncRunner(), options, nodes, same)
        return await check.thread(self, self._reader({}).log, thread_id_of(config))

    def _drive(self, operation: Awaitable[T]) -> T:
        """The result of an operation, by blocking."""
        try:
            _blocking(self._log)
        except InvalidConfigError:
            discard(operation)
            raise
        return run_sync(operation)

    def get_graph(self, *_config: Any, xray: int | bool = False) -> DrawableGraph:
        """The graph as declared, to be drawn: ``get_graph().draw_mermaid()``."""
        return DrawableGraph.of(
            self.topology,
            xray=xray,
            interrupt_before=tuple(self._interrupt_before),
            interrupt_after=tuple(self._interrupt_after),
        )

    # --- editing ------------------------------------------------------------------------

    def update_state(
        self,
        config: RunnableConfig,
        values: Any,
        as_node: str | None = None,
    ) -> RunnableConfig:
        """Edit a thread's state as if a node had written it; its edges decide what is next.

        On an older checkpoint, or one of another thread for a new thread, the edit begins a
        branch from there; what was is kept.

        Args:
            values: an update, as a node would return it; ``None`` writes nothing.
            as_node: whose edges to follow; by default the node that wrote last.

        Returns:
            The config of the checkpoint that the edit made.

        Raises:
            InvalidUpdateError: the update does not fit, or it is unclear whose it is.
            ConcurrencyError: a run or another edit was first.
        """
        update = StateUpdate(values, as_node)
        return run_sync(self._edit(SyncRunner(), config, [[update]]))

    async def aupdate_state(
        self,
        config: RunnableConfig,
        values: Any,
        as_node: str | None = None,
    ) -> RunnableConfig:
        """:meth:`update_state` for event loops."""
        update = StateUpdate(values, as_node)
        return await self._edit(AsyncRunner(), config, [[update]])

    def bulk_update_state(
        self, config: RunnableConfig, supersteps: Sequence[Sequence[StateUpdate]]
    ) -> RunnableConfig:
        """Edit a thread's state several times: each inner list is a superstep whose updates are
        made side by side.

        Returns:
            The config of the checkpoint that the last edit made.

        Raises:
            InvalidUpdateError: an update does not fit; those of the supersteps before it are kept.
            ConcurrencyError: a run or another edit was first.
        """
        return run_sync(self._edit(SyncRunner(), config, supersteps))

    async def abulk_update_state(
        self, config: RunnableConfig, supersteps: Sequence[Sequence[StateUpdate]]
    ) -> RunnableConfig:
        """:meth:`bulk_update_state` for event loops."""
        return await self._edit(AsyncRunner(), config, supersteps)

    async def _edit(
        self,
        runner: Runner,
        config: RunnableConfig,
        supersteps: Sequence[Sequence[StateUpdate]],
    ) -> RunnableConfig:
        reader = self._reader(config)
        if not supersteps or not all(supersteps):
            raise InvalidConfigError("there is nothing to update: give at least one StateUpdate")
        concurrency = (
            _blocking(self._log) if isinstance(runner, SyncRunner) else _looping(self._log)
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
            await run.edit(updates, invocation.metadata_of(config))
        if withdrawn and run.ns:
            await concurrency.run(time_travel.edited(self, thread_id_of(config), run.ns, withdrawn))
        snapshot = await concurrency.run(reader.snapshot(thread_id_of(config), run.state))
        return snapshot.config

    def _reader(self, config: Mapping[str, Any]) -> Reader:
        """Reads the log that a config names."""
        core = self.core
        return subgraphs.graph_of(self, ns_of(config)).reader_on(core)


def _blocking(log: ThreadLog | None) -> Concurrency:
    """How operations run inside a blocking call: by driving, which has to be possible.

    Raises:
        InvalidConfigError: the checkpointer works in an event loop only.
    """
    if log is not None and not log.core.transactions.blocks:
        raise InvalidConfigError(
            "this graph's checkpointer is asynchronous: call ainvoke(), astream(), "
            "aget_state(), …, or compile the graph with a synchronous one (PostgresSaver)"
        )
    return Blocking()


def _looping(log: ThreadLog | None) -> Concurrency:
    return Asyncio() if log is None else log.core.transactions.asyncio


def _refuse(options: Mapping[str, Any]) -> None:
    """Refuse options that nothing here follows, unless they say what is done anyway.

    Raises:
        InvalidConfigError: names them.
    """
    idle = {"debug": (True, False), "stream_mode": ("values",), "version": ("v1",)}
    unknown = [
        name
        for name, value in options.items()
        if not (value is None or value == () or value in idle.get(name, ()))
    ]
    if unknown:
        raise InvalidConfigError(
            f"there is no option {', '.join(map(repr, unknown))} of a call here"
        )


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


def _configs(
    inputs: Sequence[Any], config: RunnableConfig | Sequence[RunnableConfig] | None
) -> list[RunnableConfig | None]:
    configs: list[RunnableConfig | None] = (
        list(config) if isinstance(config, Sequence) else [config] * len(inputs)
    )
    if len(configs) != len(inputs):
        raise InvalidConfigError(
            f"batch got {len(inputs)} inputs and {len(configs)} configs; give one config, "
            "or one per input"
        )
    return configs


def _shared(state: Any, keys: Sequence[str]) -> dict[str, Any]:
    """What of a parent's state, whatever its form, a graph has keys for."""
    if isinstance(state, Mapping):
        return {key: state[key] for key in keys if key in state}
    return {key: getattr(state, key) for key in keys if hasattr(state, key)}


def _names(nodes: Sequence[str] | str) -> frozenset[str]:
    return frozenset([nodes] if isinstance(nodes, str) else nodes)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """One config over another: what both have is merged where it can be."""
    merged = {**below, **above}
    for name in ("configurable", "metadata"):
        if name in below and name in above:
            merged[name] = {**(below[name] or {}), **(above[name] or {})}
    if "tags" in below and "tags" in above:
        merged["tags"] = [*dict.fromkeys([*(below["tags"] or []), *(above["tags"] or [])])]
    return merged
