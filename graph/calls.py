"""From a call of a graph to its run: trace, result, streamed chunks; and its edits and reads.

Owns what the public methods of :class:`~graph.app.CompiledGraph` do between their arguments and the
driver. Each is written once, as a coroutine, for sync and async callers.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any, Final, Self, TypeVar

from eventstore import VerifyReport, telemetry
from eventstore.concurrency import Asyncio, Blocking, Concurrency, run_sync
from eventstore.workers import discard
from graph.build.channels import Channel
from graph.build.foreign import TYPES, taken
from graph.build.schema import ROOT, own, shown
from graph.configured import ConfiguredGraph, of_caller
from graph.errors import InvalidConfigError, InvalidUpdateError
from graph.langchain import MESSAGES, observer_of
from graph.read import refolding, streaming, subgraphs, time_travel
from graph.read.entries import selected
from graph.read.history import Reader
from graph.read.replay_check import Check, ReplayReport, Same
from graph.run import invocation
from graph.run.address import (
    Address,
    is_before_input,
    metadata_of,
    position_of,
    run_id_of,
    ttl_of,
)
from graph.run.driver import Run
from graph.run.invocation import CONFLICT_TIMEOUT_S, Call, OnConflict
from graph.run.journal import Means
from graph.run.runners import Runner, SyncRunner
from graph.run.tasks import Options
from graph.run.thread_log import ThreadLog
from graph.state import planner
from graph.state.state import State
from graph.types import (
    GraphOutput,
    RunnableConfig,
    StateSnapshot,
    StateUpdate,
)

T = TypeVar("T")

RUN: Final = telemetry.Operation(
    "graph.run", "Time from a call of a graph to the end or interrupt of its run."
)


class RunnableGraph(ConfiguredGraph):
    """A graph that can run; the public methods are in ``CompiledGraph``."""

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
        concurrency = (
            sync_concurrency(log) if isinstance(runner, SyncRunner) else async_concurrency(log)
        )
        config = options.config
        observer = observer_of(
            config,
            self.name,
            is_async=runner.is_async,
            run_id=config.get("run_id") if scope is None else None,
            tokens=partial(_put_token, runner) if MESSAGES in options.own_modes else None,
            subgraphs=options.subgraphs,
        )
        if observer is not None:
            options = replace(options, observer=observer)
        address = Address.of(config) if scope is None and log is not None else None
        inside = address is not None and address.ns
        return Call(
            self.topology,
            self.name,
            log,
            taken(input) if type(input).__module__ == TYPES else input,
            options,
            runner,
            concurrency,
            address,
            run_id_of(config),
            metadata_of(config),
            None if address is None else ttl_of(config),
            on_conflict,
            conflict_timeout_s,
            scope,
            is_node,
            self.checkpointer is True,
            partial(time_travel.open_inside, self) if inside else None,
        )

    def _answered(self, call: Call, stream_mode: str | Sequence[str] | None) -> Awaitable[Any]:
        """What ``invoke`` returns: the output, or the chunks of another stream mode."""
        if not call.options.own_modes:
            return self._run(call)
        return self._listed(call, isinstance(stream_mode, str))

    async def _listed(self, call: Call, single: bool) -> list[Any]:
        async with aclosing(self._stream(call, single)) as chunks:
            return [chunk async for chunk in chunks]

    async def _run(self, call: Call) -> Any:
        with self._span(call) as span:
            async with _Observed(call) as observed:
                async with invocation.Running(call) as started:
                    async for kind, content in started.steps:
                        if call.options.modes:
                            await self._shown(call, started.run, kind, content)
                if call.scope is not None:
                    await invocation.finish_inside(started.run, call.scope)
                observed.output = result = self._result(started.run)
                if call.is_node:
                    recorded = planner.recorded(self.topology, started.run.state)
                    result = shown(recorded, self.topology.output.keys)
            _report_end(span, started.run)
        return result

    def _result(self, run: Run) -> Any:
        output = self.output(run.state, run.options.output_keys)
        if run.options.version == "v2":
            return GraphOutput(output, run.interrupts)
        return streaming.with_interrupts(output, list(run.interrupts)) if run.interrupts else output

    def _stream(self, call: Call, single: bool) -> AsyncGenerator[Any, None]:
        span = self._span(call)
        return span.over(self._streamed(call, single, span))

    async def _streamed(
        self, call: Call, single: bool, span: telemetry.Span
    ) -> AsyncGenerator[Any, None]:
        form = streaming.Form(
            single, call.options.subgraphs, self.topology.nodes, call.options.version
        )
        async with _Observed(call) as observed:
            async with invocation.Running(call) as started:
                async for kind, content in started.steps:
                    for ns, mode, chunk in await self._shown(call, started.run, kind, content):
                        yield form.of(ns, mode, chunk)
            if call.scope is not None:
                await invocation.finish_inside(started.run, call.scope)
            observed.output = self._result(started.run)
        _report_end(span, started.run)

    async def _shown(
        self, call: Call, run: Run, kind: str, content: Any
    ) -> list[tuple[str, str, Any]]:
        """The chunks that this call's own caller requested: (namespace, mode, chunk).

        Those that the callers of graphs around it requested go to the listener.
        """
        if kind == "inside":
            return [content] if content[1] in call.options.own_modes else []
        found = []
        core = None if call.log is None else call.log.core
        for mode, chunk in await streaming.chunks(self, run, core, call.concurrency, kind, content):
            if mode in call.options.own_modes:
                found.append((run.ns, mode, chunk))
            if call.options.listener is not None:
                call.options.listener(run.ns, mode, chunk)
        return found

    def _span(self, call: Call) -> telemetry.Span:
        """The span of a run."""
        if not telemetry.is_reporting():
            return telemetry.NOTHING
        facts: dict[str, str] = {}
        if call.address is not None:
            facts = {telemetry.THREAD: telemetry.named(call.address.thread_id)}
        return RUN.begin(facts, {"graph.name": self.name})

    def output(self, state: State, keys: Sequence[str] | str | None = None) -> Any:
        """The part of a state that callers get: these keys, by default the output schema's."""
        values = planner.shown(self.topology, state)
        if isinstance(keys, str):
            return own(values.get(keys))
        return shown(values, self.topology.output.keys if keys is None else keys)

    def check_sync(self) -> None:
        """Refuse to block if the checkpointer is asynchronous.

        Raises:
            InvalidConfigError: it is.
        """
        sync_concurrency(self._log)

    def history(
        self,
        config: RunnableConfig,
        filter: Mapping[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
        every: bool = False,
    ) -> AsyncGenerator[StateSnapshot, None]:
        """What ``get_state_history`` yields; with a checkpoint in its config, that one alone."""
        reader, at = self._find(config)
        wanted = dict(filter or {})
        if at.position is not None:
            return selected(_alone(reader.state(at)), wanted, limit)
        found = reader.history(
            at.thread_id,
            position_of(before) if before else None,
            at.ns,
            skips_input=before is not None and is_before_input(before),
            every=every or wanted.get("source") == "interrupt",
        )
        return selected(found, wanted, limit)

    def _drive(self, operation: Awaitable[T]) -> T:
        """The result of an operation of a sync method."""
        try:
            sync_concurrency(self._log)
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
        reader, named = self._find(config)
        if not supersteps or not all(supersteps):
            raise InvalidConfigError("there is nothing to update; pass at least one StateUpdate")
        supersteps = [[_update_of(each) for each in updates] for updates in supersteps]
        concurrency = (
            sync_concurrency(self._log)
            if isinstance(runner, SyncRunner)
            else async_concurrency(self._log)
        )
        means = Means(concurrency)
        metadata, ttl = metadata_of(config), ttl_of(config)
        graph, at = subgraphs.graph_of(self, named.ns), named
        if named.ns:
            at = await concurrency.run(time_travel.to_edit(self, named))
        options = graph._options(config, None, "sync")
        journal = await concurrency.run(reader.log.open(at, means, metadata, ttl))
        run = Run(graph.topology, journal, options, runner, ns=at.ns)
        withdrawn = [each.id for each in run.interrupts]
        for updates in supersteps:
            await run.edit(updates, reader.log.metadata.recorded(metadata))
        if withdrawn and run.ns:
            await concurrency.run(time_travel.edited(self, at.thread_id, run.ns, withdrawn))
        snapshot = await concurrency.run(reader.snapshot(at.thread_id, run.state))
        return snapshot.config

    def _find(self, config: Mapping[str, Any]) -> tuple[Reader, Address]:
        """The address that a config holds, and the reader of its log."""
        core = self.core
        at = Address.of(of_caller(config))
        return subgraphs.graph_of(self, at.ns).reader_on(core), at

    def _find_thread(self, config: Mapping[str, Any]) -> tuple[Reader, str]:
        """The thread that a config names, and the reader of its root's log."""
        core = self.core
        return self.reader_on(core), Address.of(config).thread_id

    def _replayed(
        self, config: Mapping[str, Any], upto: Mapping[str, Any] | int | None
    ) -> Awaitable[StateSnapshot]:
        reader, at = self._find(config)
        if isinstance(upto, int):
            return refolding.replayed(reader, at, upto)
        return refolding.replayed(reader, replace(at, position=position_of(upto)) if upto else at)

    def _rebuilt(self, config: Mapping[str, Any]) -> Awaitable[int]:
        reader, thread_id = self._find_thread(config)
        return refolding.rebuild(self, reader.log.core, thread_id)

    def _verified(self, config: Mapping[str, Any]) -> Awaitable[VerifyReport]:
        reader, thread_id = self._find_thread(config)
        return refolding.verify(self, reader.log.core, thread_id)

    def _check_replay(
        self,
        runner: Runner,
        config: RunnableConfig,
        nodes: Sequence[str] | None,
        same: Same | None,
        context: Any,
    ) -> Awaitable[ReplayReport]:
        check = Check(runner, self._options(config, context, "sync"), nodes, same)
        reader, thread_id = self._find_thread(config)
        return check.thread(self, reader.log, thread_id)

    async def nested(self, input: Any, keys: Mapping[str, Channel], runner: Runner) -> Any:
        """Run as the node of the current task; returns its values of the parent's keys."""
        keys_in = self.topology.input.keys
        given = input if ROOT in keys_in else _shared(input, keys_in)
        options = self._options({}, None, "sync", is_node=True)
        result = await self._run(
            self._call(runner, given, options, "reject", CONFLICT_TIMEOUT_S, is_node=True)
        )
        if not isinstance(result, Mapping) or ROOT in keys:
            return result
        return {key: value for key, value in result.items() if key in keys}


async def _alone(snapshot: Awaitable[StateSnapshot]) -> AsyncGenerator[StateSnapshot, None]:
    yield await snapshot


class _Observed:
    """Tells the observer of a call, if it has one, how its run begins and ends.

    Attributes:
        output: what the run returns, set before its end.
    """

    __slots__ = ("_given", "_observer", "output")

    def __init__(self, call: Call) -> None:
        self._observer = call.options.observer
        self._given = call.input
        self.output: Any = None

    async def __aenter__(self) -> Self:
        if self._observer is not None:
            await self._observer.begin(self._given)
        return self

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if self._observer is None:
            return
        if error is None:
            await self._observer.end(self.output)
        else:
            await self._observer.fail(error)


def _put_token(runner: Runner, ns: str, chunk: Any) -> None:
    """Stream a token of a model that a node calls."""
    runner.put(("inside", (ns, MESSAGES, chunk)))


def sync_concurrency(log: ThreadLog | None) -> Concurrency:
    """How a sync method waits for the store.

    Raises:
        InvalidConfigError: the checkpointer is asynchronous.
    """
    if log is not None and log.core.transactions.blocking is None:
        raise InvalidConfigError(
            "this graph's checkpointer is asynchronous; call ainvoke(), astream(), "
            "aget_state(), …, or compile the graph with a synchronous one (PostgresSaver)"
        )
    return Blocking()


def async_concurrency(log: ThreadLog | None) -> Concurrency:
    """How an async method waits for the store."""
    return Asyncio() if log is None else log.core.transactions.asyncio


def _update_of(given: Any) -> StateUpdate:
    """An update of ``bulk_update_state``; LangGraph's class and pairs mean the same.

    Raises:
        InvalidUpdateError: it is something else.
    """
    if isinstance(given, StateUpdate):
        return given
    if hasattr(given, "values") and hasattr(given, "as_node"):
        return StateUpdate(given.values, given.as_node)
    if isinstance(given, tuple) and len(given) == 2:
        return StateUpdate(*given)
    raise InvalidUpdateError(
        f"an update must be a StateUpdate(values, as_node), not {type(given).__name__}"
    )


def _report_end(span: telemetry.Span, run: Run) -> None:
    if span is not telemetry.NOTHING:
        status = "waiting" if run.state.frontier else "idle"
        span.set({"graph.run.status": status, "graph.step": run.state.step})


def _shared(state: Any, keys: Sequence[str]) -> dict[str, Any]:
    """The part of a parent's state, a mapping or an object, that a subgraph has keys for."""
    if isinstance(state, Mapping):
        return {key: state[key] for key in keys if key in state}
    return {key: getattr(state, key) for key in keys if hasattr(state, key)}
