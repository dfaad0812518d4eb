"""The compiled graph: what applications call, by blocking and from event loops.

Owns the public calls (``invoke``, ``stream``, ``get_state``, … and their twins) and nothing
of what they mean: a run is the driver's, threads and checkpoints are the log's, reading is the
history's. Each is written once, as a coroutine; the blocking call drives it to its end, the
asynchronous one awaits it. Safe to share between threads; runs on different threads do not
disturb each other, and of two on the same thread one wins each superstep.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, TypeVar

from eventstore import AsyncEventStore, ConcurrencyError, EventStore, VerifyReport, telemetry
from eventstore.driving import Perform, abandon, awaited, drive, drive_each, perform_each
from eventstore.events import from_micros
from graph import planner
from graph.builder import Topology
from graph.drawing import DrawableGraph
from graph.driver import Options, Run
from graph.errors import EmptyInputError, InvalidConfigError
from graph.events import Data, unpack
from graph.fold import State
from graph.history import Reader
from graph.log import Journal, NoJournal, ThreadLog, position_of, thread_id_of
from graph.registration import register_types
from graph.runners import Blocking, Looping, Runner
from graph.schema import Channel
from graph.types import AuditEntry, RunnableConfig, StateSnapshot

T = TypeVar("T")

log_ = logging.getLogger(__name__)

RUN: Final = telemetry.Operation("graph.run", "Time from a call of a graph to its end or stop.")
WAIT: Final = telemetry.Operation("graph.wait", "Time that a run waited for another one to end.")

BATCH_CONCURRENCY: Final = 16

RECURSION_LIMIT: Final = 25
"""Supersteps of one call, unless the config says otherwise."""


Nodes = Sequence[str] | str | None
OnConflict = Literal["reject", "wait"]

CONFLICT_TIMEOUT_S: Final = 60.0
"""How long a run that waits for another one believes that it lives, without a sign of it."""

_POLL_S: Final = 0.01
_POLL_MAX_S: Final = 0.25


class Saver(Protocol):
    """What ``compile(checkpointer=…)`` takes besides a store: something that has one."""

    @property
    def store(self) -> EventStore | AsyncEventStore:
        """Where events go."""


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of a graph: what was asked for, and how it is carried out.

    Attributes:
        runner: calls user code.
        perform: runs operations of the store.
    """

    input: Any
    config: Mapping[str, Any]
    options: Options
    runner: Runner
    perform: Perform
    on_conflict: OnConflict = "reject"
    conflict_timeout_s: float = CONFLICT_TIMEOUT_S


class CompiledGraph:
    """A graph that can run. Made by :meth:`StateGraph.compile`."""

    def __init__(
        self,
        topology: Topology,
        *,
        checkpointer: EventStore | AsyncEventStore | Saver | None = None,
        interrupt_before: Sequence[str] = (),
        interrupt_after: Sequence[str] = (),
        name: str | None = None,
        version: str | None = None,
    ) -> None:
        self.topology = topology
        self.name = name or "graph"
        self.checkpointer = checkpointer
        self._interrupt_before = frozenset(interrupt_before)
        self._interrupt_after = frozenset(interrupt_after)
        self._log: ThreadLog | None = None
        if checkpointer is not None:
            store = checkpointer
            if not isinstance(store, EventStore | AsyncEventStore):
                store = store.store
            core = store.core
            register_types(core.codec, topology)
            self._log = ThreadLog(core, topology.channels, version)
            self._reader = Reader(self._log, topology.state.keys)

    # --- running ------------------------------------------------------------------------

    def invoke(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        interrupt_before: Nodes = None,
        interrupt_after: Nodes = None,
        on_conflict: OnConflict = "reject",
        conflict_timeout_s: float = CONFLICT_TIMEOUT_S,
        **_options: Any,
    ) -> dict[str, Any]:
        """Run to the end, or to where the run has to stop, and return the output values.

        Args:
            input: values for the state; ``None`` goes on from where the thread stands, or
                from the checkpoint that the config names.
            config: ``{"configurable": {"thread_id": …}}`` for a graph with a checkpointer;
                also ``recursion_limit``, ``max_concurrency``, ``metadata``.
            on_conflict: what to do while another run is under way on the thread: ``"reject"``
                goes ahead, and whichever of the two appends second gets
                ``ConcurrencyError``; ``"wait"`` queues behind it.
            conflict_timeout_s: when waiting, how long the other run may stay without a new
                event before it counts as dead and this one goes ahead.

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
        options = self._options(config, frozenset(), interrupt_before, interrupt_after)
        call = self._call(Blocking(), input, options, on_conflict, conflict_timeout_s)
        return drive(self._run(call))

    async def ainvoke(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        interrupt_before: Nodes = None,
        interrupt_after: Nodes = None,
        on_conflict: OnConflict = "reject",
        conflict_timeout_s: float = CONFLICT_TIMEOUT_S,
        **_options: Any,
    ) -> dict[str, Any]:
        """:meth:`invoke` for event loops: nodes may be ``async def``, and plain ones run on
        threads.

        When the task is cancelled, so are the nodes that run; what was recorded stays, and
        ``invoke(None, config)`` runs the others again.
        """
        options = self._options(config, frozenset(), interrupt_before, interrupt_after)
        call = self._call(Looping(), input, options, on_conflict, conflict_timeout_s)
        return await self._run(call)

    def stream(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        stream_mode: str | Sequence[str] = "updates",
        interrupt_before: Nodes = None,
        interrupt_after: Nodes = None,
        on_conflict: OnConflict = "reject",
        conflict_timeout_s: float = CONFLICT_TIMEOUT_S,
        **_options: Any,
    ) -> Iterator[Any]:
        """Run like :meth:`invoke`, yielding what happens as it happens.

        Args:
            stream_mode: ``updates`` (what each node wrote; the default), ``values`` (the
                state after each superstep), ``checkpoints``, ``debug`` (checkpoints and
                tasks), ``custom`` (what nodes pass to their ``writer``); or a list of them,
                for ``(mode, chunk)`` pairs.
        """
        modes = _modes(stream_mode)
        options = self._options(config, modes, interrupt_before, interrupt_after)
        call = self._call(Blocking(), input, options, on_conflict, conflict_timeout_s)
        yield from drive_each(self._stream(call, isinstance(stream_mode, str)))

    async def astream(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        stream_mode: str | Sequence[str] = "updates",
        interrupt_before: Nodes = None,
        interrupt_after: Nodes = None,
        on_conflict: OnConflict = "reject",
        conflict_timeout_s: float = CONFLICT_TIMEOUT_S,
        **_options: Any,
    ) -> AsyncGenerator[Any, None]:
        """:meth:`stream` for event loops. Close it (``aclosing``) to stop before its end."""
        modes = _modes(stream_mode)
        options = self._options(config, modes, interrupt_before, interrupt_after)
        call = self._call(Looping(), input, options, on_conflict, conflict_timeout_s)
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
        with ThreadPoolExecutor(min(max_concurrency or BATCH_CONCURRENCY, len(inputs))) as pool:
            futures = [
                pool.submit(contextvars.copy_context().run, self.invoke, given, each)
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
        self, input: Any, config: Mapping[str, Any], keys: Mapping[str, Channel], runner: Runner
    ) -> dict[str, Any]:
        """Run as a node of another graph: its log is the parent's, which records the result."""
        journal = NoJournal(self.topology.channels, _now_us)
        options = self._options(config, frozenset(), None, None)
        run = Run(self.topology, journal, options, runner, awaited)
        with self._span(None) as span:
            await run.begin(_shared(input, self.topology.input.keys), None, {})
            async for _ in run.steps(False):
                pass
            _tell_end(span, run)
        return {key: value for key, value in self._output(run.state).items() if key in keys}

    def _call(
        self,
        runner: Runner,
        input: Any,
        options: Options,
        on_conflict: OnConflict,
        conflict_timeout_s: float,
    ) -> _Call:
        if on_conflict not in ("reject", "wait"):
            raise InvalidConfigError(f"on_conflict must be 'reject' or 'wait', not {on_conflict!r}")
        perform = self._blocking() if isinstance(runner, Blocking) else self._looping()
        return _Call(
            input, options.config, options, runner, perform, on_conflict, conflict_timeout_s
        )

    def _blocking(self) -> Perform:
        """How operations run inside a blocking call: by driving, which has to be possible.

        Raises:
            InvalidConfigError: the checkpointer works in an event loop only.
        """
        if self._log is not None and not self._log.core.transactor.blocks:
            raise InvalidConfigError(
                "this graph's checkpointer is asynchronous: call ainvoke(), astream(), "
                "aget_state(), …, or compile the graph with a synchronous one (PostgresSaver)"
            )
        return awaited

    def _looping(self) -> Perform:
        return awaited if self._log is None else self._log.core.transactor.perform

    async def _run(self, call: _Call) -> dict[str, Any]:
        with self._span(call) as span:
            run, resumed = await self._start(call)
            async for _ in run.steps(resumed):
                pass
            _tell_end(span, run)
        return self._output(run.state)

    def _stream(self, call: _Call, single: bool) -> AsyncGenerator[Any, None]:
        span = self._span(call)
        return span.over(self._streamed(call, single, span))

    async def _streamed(
        self, call: _Call, single: bool, span: telemetry.Span
    ) -> AsyncGenerator[Any, None]:
        run, resumed = await self._start(call)
        steps = run.steps(resumed)
        try:
            async for kind, content in steps:
                for mode, chunk in await self._chunks(kind, content, call):
                    yield chunk if single else (mode, chunk)
            _tell_end(span, run)
        finally:
            await steps.aclose()

    def _span(self, call: _Call | None) -> telemetry.Span:
        """A run in a trace; without a call it is one inside another graph's."""
        if not telemetry.on:
            return telemetry.NOTHING
        facts: dict[str, str] = {}
        if call is not None and self._log is not None:
            thread_id = (call.config.get("configurable") or {}).get("thread_id")
            facts = {telemetry.THREAD: telemetry.named(thread_id)}
        return RUN.begin(facts, {"graph.name": self.name})

    async def _start(self, call: _Call) -> tuple[Run, bool]:
        """A run that has begun: its input, if it has one, is recorded."""
        while True:
            dead = None
            if call.on_conflict == "wait" and self._log is not None:
                with WAIT.begin(labels={"graph.name": self.name}):
                    dead = await self._wait(call, self._log)
            journal = await self._journal(call)
            if call.on_conflict == "wait" and journal.busy_at not in (None, dead):
                continue  # another run began since we looked
            run = Run(self.topology, journal, call.options, call.runner, call.perform)
            try:
                if call.input is not None:
                    await run.begin(
                        call.input, _run_id(call.config), call.config.get("metadata") or {}
                    )
                    return run, False
                if not run.state.started:
                    raise EmptyInputError(
                        "there is nothing to go on with: this thread has not run yet; pass an input"
                    )
                await run.branch()
                return run, True
            except ConcurrencyError:
                if call.on_conflict == "reject":
                    raise

    async def _wait(self, call: _Call, log: ThreadLog) -> int | None:
        """Return when no other run is under way on the thread, or it shows no life any more.

        There is no line to stand in that would outlive a process: whoever waits looks again
        and again, and of several that find the thread free one begins.

        Returns:
            The seq at which a run that counts as dead has stopped, if there is one.
        """
        thread_id = thread_id_of(call.config)
        seq, since, pause = -1, time.monotonic(), _POLL_S
        while True:
            head = await call.perform(log.core.head(thread_id))
            if head.status != "running":
                return None
            if head.seq != seq:
                seq, since = head.seq, time.monotonic()
            elif time.monotonic() - since >= call.conflict_timeout_s:
                log_.warning(
                    "thread %r: nothing recorded for %.0f s by the run under way; going ahead",
                    thread_id,
                    call.conflict_timeout_s,
                    extra={
                        "thread_id": thread_id,
                        "seq": seq,
                        "conflict_timeout_s": call.conflict_timeout_s,
                    },
                )
                return seq
            await call.runner.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(_POLL_MAX_S, pause * 1.5)

    async def _journal(self, call: _Call) -> Journal:
        if self._log is None:
            return NoJournal(self.topology.channels, _now_us)
        return await call.perform(self._log.open(call.config))

    def _options(
        self,
        config: Mapping[str, Any] | None,
        modes: frozenset[str],
        before: Nodes,
        after: Nodes,
    ) -> Options:
        config = config or {}
        return Options(
            config=config,
            modes=modes,
            recursion_limit=config.get("recursion_limit", RECURSION_LIMIT),
            max_concurrency=config.get("max_concurrency"),
            interrupt_before=self._interrupt_before if before is None else _names(before),
            interrupt_after=self._interrupt_after if after is None else _names(after),
            graph=self.name,
        )

    def _output(self, state: State) -> dict[str, Any]:
        keys = self.topology.output.keys
        return {key: planner.own(state.values[key]) for key in keys if key in state.values}

    async def _chunks(self, kind: str, content: Any, call: _Call) -> list[tuple[str, Any]]:
        """What the listeners get to see of something that happened."""
        modes = call.options.modes
        found: list[tuple[str, Any]] = []
        if kind == "custom":
            found.append(("custom", content))
        elif kind == "checkpoint":
            if "values" in modes:
                found.append(("values", self._output(content)))
            if modes & {"checkpoints", "debug"} and self._log is not None:
                thread_id = thread_id_of(call.config)
                snapshot = await call.perform(self._reader.snapshot(thread_id, content))
                shown = snapshot._asdict()
                if "checkpoints" in modes:
                    found.append(("checkpoints", shown))
                if "debug" in modes:
                    found.append(("debug", _debug("checkpoint", content.step, shown)))
        elif kind == "output":
            data: Data = content
            writes = dict(unpack(data["writes"]))
            if "updates" in modes:
                found.append(("updates", {data["node"]: writes or None}))
            if "debug" in modes:
                shown = {"name": data["node"], "task": data["task"], "result": writes}
                found.append(("debug", _debug("task_result", data["step"], shown)))
        elif kind == "task" and "debug" in modes:
            found.append(("debug", _debug("task", content["step"], content)))
        return found

    # --- looking ------------------------------------------------------------------------

    def get_state(self, config: RunnableConfig) -> StateSnapshot:
        """The state of a thread, or at the checkpoint that the config names.

        Of a thread that is not there the snapshot is empty.

        Raises:
            InvalidConfigError: no thread, or a checkpoint that does not fit it.
            PositionNotFoundError: a checkpoint that is not there (any more).
        """
        return self._drive(self._need_reader().state(config))

    async def aget_state(self, config: RunnableConfig) -> StateSnapshot:
        """:meth:`get_state` for event loops."""
        return await self._looping()(self._need_reader().state(config))

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
        self._blocking()
        return drive_each(self._history(config, filter, before, limit))

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
        async with aclosing(perform_each(self._looping(), found)) as snapshots:
            async for snapshot in snapshots:
                yield snapshot

    def _history(
        self,
        config: RunnableConfig,
        filter: Mapping[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> AsyncGenerator[StateSnapshot, None]:
        reader, thread_id = self._need_reader(), thread_id_of(config)
        return _chosen(
            reader.history(thread_id, position_of(before) if before else None),
            dict(filter or {}),
            limit,
        )

    def events(self, config: RunnableConfig) -> Iterator[AuditEntry]:
        """The audit trail of a thread, oldest first: who wrote what, when, and what it led to.

        Raises:
            ThreadNotFoundError: no such thread.
            CorruptEventError: the log was damaged or tampered with.
        """
        self._blocking()
        return drive_each(self._need_reader().audit(thread_id_of(config)))

    async def aevents(self, config: RunnableConfig) -> AsyncGenerator[AuditEntry, None]:
        """:meth:`events` for event loops."""
        found = self._need_reader().audit(thread_id_of(config))
        async with aclosing(perform_each(self._looping(), found)) as entries:
            async for entry in entries:
                yield entry

    def verify(self, config: RunnableConfig) -> VerifyReport:
        """Check a thread: digest chain, payloads, and that its snapshots equal their replay.

        Raises:
            ThreadNotFoundError: no such thread.
        """
        return self._drive(self._need_reader().verify(thread_id_of(config)))

    async def averify(self, config: RunnableConfig) -> VerifyReport:
        """:meth:`verify` for event loops."""
        return await self._looping()(self._need_reader().verify(thread_id_of(config)))

    def _drive(self, operation: Awaitable[T]) -> T:
        """The result of an operation, by blocking."""
        try:
            self._blocking()
        except InvalidConfigError:
            abandon(operation)
            raise
        return drive(operation)

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
        return drive(self._edit(self._edit_call(Blocking(), config), values, as_node))

    async def aupdate_state(
        self,
        config: RunnableConfig,
        values: Any,
        as_node: str | None = None,
    ) -> RunnableConfig:
        """:meth:`update_state` for event loops."""
        return await self._edit(self._edit_call(Looping(), config), values, as_node)

    def _edit_call(self, runner: Runner, config: RunnableConfig) -> _Call:
        options = self._options(config, frozenset(), None, None)
        return self._call(runner, None, options, "reject", CONFLICT_TIMEOUT_S)

    async def _edit(self, call: _Call, values: Any, as_node: str | None) -> RunnableConfig:
        reader = self._need_reader()
        journal = await self._journal(call)
        run = Run(self.topology, journal, call.options, call.runner, call.perform)
        node = as_node or planner.infer_as_node(self.topology, run.state)
        await run.edit(values, node, call.config.get("metadata") or {})
        snapshot = await call.perform(reader.snapshot(thread_id_of(call.config), run.state))
        return snapshot.config

    def _need_reader(self) -> Reader:
        if self._log is None:
            raise InvalidConfigError(
                "this graph keeps no state: compile it with a checkpointer, "
                "compile(checkpointer=SqliteSaver('runs.db'))"
            )
        return self._reader


def _tell_end(span: telemetry.Span, run: Run) -> None:
    if telemetry.on:
        status = "waiting" if run.state.frontier else "idle"
        span.tell({"graph.run.status": status, "graph.step": run.state.step})


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


def _modes(stream_mode: str | Sequence[str]) -> frozenset[str]:
    modes = frozenset([stream_mode] if isinstance(stream_mode, str) else stream_mode)
    unknown = modes - _MODES
    if unknown:
        raise InvalidConfigError(
            f"unknown stream mode {', '.join(sorted(unknown))}; known are "
            f"{', '.join(sorted(_MODES))}"
        )
    return modes


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


_MODES: Final = frozenset({"values", "updates", "checkpoints", "debug", "custom"})


def _shared(state: Any, keys: Sequence[str]) -> dict[str, Any]:
    """What of a parent's state, whatever its form, a graph has keys for."""
    if isinstance(state, Mapping):
        return {key: state[key] for key in keys if key in state}
    return {key: getattr(state, key) for key in keys if hasattr(state, key)}


def _names(nodes: Sequence[str] | str) -> frozenset[str]:
    return frozenset([nodes] if isinstance(nodes, str) else nodes)


def _run_id(config: Mapping[str, Any]) -> str | None:
    given = config.get("run_id")
    return None if given is None else str(given)


def _now_us() -> int:
    return time.time_ns() // 1000


def _debug(kind: str, step: int, payload: Mapping[str, Any]) -> dict[str, Any]:
    now = from_micros(_now_us()).isoformat()
    return {"type": kind, "step": step, "timestamp": now, "payload": payload}
