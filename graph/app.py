"""The compiled graph: what applications call, with sync and async APIs.

Owns the public methods (``invoke``, ``stream``, ``get_state``, …, with async variants) and their
documentation. Each operation is written once, as a coroutine, in ``calls`` and below: the sync
method runs it to its end, the async one awaits it. Several OS threads can use a graph at once.
Runs with different ids (``thread_id``) are independent; of two with the same id, one wins each
superstep.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from types import GenericAlias
from typing import Any, Final, Self, cast

from eventstore import VerifyReport
from eventstore.concurrency import AHEAD, iterate, iterate_sync, run_sync
from graph.calls import async_concurrency, sync_concurrency
from graph.configured import Nodes
from graph.described import DescribedGraph
from graph.errors import InvalidConfigError
from graph.langchain.composing import Composing
from graph.read import streaming
from graph.read.replay_check import ReplayReport, Same
from graph.run.address import merged
from graph.run.invocation import CONFLICT_TIMEOUT_S, OnConflict
from graph.run.runners import AsyncRunner, SyncRunner
from graph.run.scope import with_reserved_call
from graph.state.namespaces import called
from graph.types import AuditEntry, Durability, RunnableConfig, StateSnapshot, StateUpdate

BATCH_CONCURRENCY: Final = 16


class CompiledGraph(DescribedGraph, Composing):
    """A graph that can run. Made by :meth:`StateGraph.compile`."""

    def __class_getitem__(cls, types: Any) -> GenericAlias:
        """``CompiledGraph[State]``, for annotations: the same class."""
        return GenericAlias(cls, types)

    def with_config(self, config: RunnableConfig | None = None, **more: Any) -> Self:
        """The same graph with a default config, which the config of each call overrides."""
        bound = copy.copy(self)
        bound._config = cast(RunnableConfig, merged(self._config, {**(config or {}), **more}))
        return bound

    # --- running ------------------------------------------------------------------------

    def invoke(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        context: Any = None,
        durability: Durability | None = "sync",
        interrupt_before: Nodes = None,
        interrupt_after: Nodes = None,
        on_conflict: OnConflict = "reject",
        conflict_timeout_s: float = CONFLICT_TIMEOUT_S,
        **others: Any,
    ) -> Any:
        """Run until the run ends or is interrupted, and return the output values.

        Args:
            input: values for the state; ``None`` continues the thread from its end, or from the
                checkpoint that the config names; ``Command(resume=…)`` gives a resume value to the
                ``interrupt()`` that is pending there, and continues.
            config: ``{"configurable": {"thread_id": …}}`` for a graph with a checkpointer;
                also ``recursion_limit``, ``max_concurrency``, ``metadata``, ``tags``. Beside the
                ``thread_id``, a ``ttl`` in seconds (or a ``timedelta``) says how long retention
                keeps the thread after its last event; it is read when the thread is created.
            context: passed to nodes as ``runtime.context``.
            durability: when outputs are written: ``"sync"``: before the next superstep begins;
                ``"async"``: while it runs, at most a few supersteps behind; ``"exit"``: all at
                once when the run ends, is interrupted or fails.
            interrupt_before: nodes (or ``"*"``) before which to pause, instead of those passed to
                ``compile``.
            interrupt_after: the same, after them.
            on_conflict: what to do if another run is active on the thread: ``"reject"`` runs
                anyway, and the run that appends second gets ``ConcurrencyError``; ``"wait"``
                waits for the other run to end.
            conflict_timeout_s: with ``"wait"``, the seconds that this run waits for others before
                it gives up. It never overtakes a run that is alive; one whose process died is
                overtaken after the store's ``run_lease_s`` (10 s).
            others: as in LangGraph: ``output_keys`` (which keys to return; for a string its value
                alone), ``stream_mode`` (other than ``values``: return the list of chunks),
                ``version="v2"`` (return a :class:`GraphOutput`).

        Returns:
            The values of the output schema's keys; for an interrupted run also
            ``"__interrupt__"``, a list of :class:`Interrupt`.

        Raises:
            InvalidConfigError: no thread, or a checkpoint that does not fit it.
            InvalidGraphError: a node is asynchronous: call :meth:`ainvoke`.
            InvalidUpdateError: an input or an update does not fit the state.
            EmptyInputError: ``None`` on a thread that has never run.
            GraphRecursionError: too many supersteps.
            ConcurrencyError: another run was first on this thread.
            ThreadBusyError: another run held the thread for all of ``conflict_timeout_s``.
            Exception: raised by a node. Finished nodes are kept; ``invoke(None, config)``
                continues from there.
        """
        options = self._options(
            config, context, durability, others, before=interrupt_before, after=interrupt_after
        )
        call = self._call(SyncRunner(), input, options, on_conflict, conflict_timeout_s)
        return run_sync(self._answered(call, others.get("stream_mode")))

    async def ainvoke(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        context: Any = None,
        durability: Durability | None = "sync",
        interrupt_before: Nodes = None,
        interrupt_after: Nodes = None,
        on_conflict: OnConflict = "reject",
        conflict_timeout_s: float = CONFLICT_TIMEOUT_S,
        **others: Any,
    ) -> Any:
        """:meth:`invoke` for async code: nodes may be ``async def``, and plain ones run on
        threads.

        Cancelling the task cancels the running nodes; what was recorded is kept, and
        ``invoke(None, config)`` runs the others again.
        """
        options = self._options(
            config, context, durability, others, before=interrupt_before, after=interrupt_after
        )
        call = self._call(AsyncRunner(), input, options, on_conflict, conflict_timeout_s)
        return await self._answered(call, others.get("stream_mode"))

    def stream(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        stream_mode: str | Sequence[str] = "updates",
        subgraphs: bool = False,
        context: Any = None,
        durability: Durability | None = "sync",
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
                to their ``writer``); or a list of them, for ``(mode, chunk)`` pairs. Interrupts
                are a chunk ``{"__interrupt__": (Interrupt, …)}`` of ``updates``.
            subgraphs: also stream subgraphs; each chunk then follows the path of its graph,
                which is ``()`` for this one: ``(path, chunk)``, or ``(path, mode, chunk)``.
        """
        options = self._options(
            config,
            context,
            durability,
            others,
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
        durability: Durability | None = "sync",
        interrupt_before: Nodes = None,
        interrupt_after: Nodes = None,
        on_conflict: OnConflict = "reject",
        conflict_timeout_s: float = CONFLICT_TIMEOUT_S,
        **others: Any,
    ) -> AsyncGenerator[Any, None]:
        """:meth:`stream` for async code. Close it (``aclosing``) to stop before its end."""
        options = self._options(
            config,
            context,
            durability,
            others,
            modes=streaming.modes_of(stream_mode),
            subgraphs=subgraphs,
            before=interrupt_before,
            after=interrupt_after,
        )
        call = self._call(AsyncRunner(), input, options, on_conflict, conflict_timeout_s)
        async with aclosing(self._stream(call, isinstance(stream_mode, str))) as chunks:
            async for chunk in chunks:
                yield chunk

    def batch(
        self,
        inputs: Sequence[Any],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        max_concurrency: int | None = None,
        return_exceptions: bool = False,
    ) -> list[Any]:
        """Invoke for several inputs in parallel; the results are in the inputs' order.

        Args:
            config: one for all, or one per input (with a checkpointer each needs a thread).
            return_exceptions: return errors in the place of results instead of raising the first.
        """
        configs = _configs(inputs, config)
        if not inputs:
            return []
        scope, numbers = self._scope(configs[0]), iter(range(0))
        if scope is not None:  # so that each finds its log again, in any starting order
            numbers = iter(scope.reserve_calls(called(scope.node, self.name), len(inputs)))
        with ThreadPoolExecutor(min(max_concurrency or BATCH_CONCURRENCY, len(inputs))) as pool:
            futures = [
                pool.submit(with_reserved_call(next(numbers, None)).run, self.invoke, given, each)
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
        """:meth:`batch` for async code."""
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

    # --- reading ------------------------------------------------------------------------

    def get_state(self, config: RunnableConfig, *, subgraphs: bool = False) -> StateSnapshot:
        """The state of a thread, or at the checkpoint that the config names.

        The snapshot of a thread that does not exist is empty. Pending interrupts are in its
        ``interrupts``, and per task in ``tasks``.

        Args:
            config: with the ``checkpoint_ns`` of a subgraph (as in the config of a task's
                ``state``) the state of that subgraph.
            subgraphs: put the states of running subgraphs into ``tasks[i].state``.

        Raises:
            InvalidConfigError: no thread, or a checkpoint that does not fit it.
            PositionNotFoundError: the checkpoint does not exist, or was trimmed.
        """
        reader, at = self._find(config)
        return self._drive(reader.state(at, subgraphs))

    async def aget_state(self, config: RunnableConfig, *, subgraphs: bool = False) -> StateSnapshot:
        """:meth:`get_state` for async code."""
        reader, at = self._find(config)
        return await async_concurrency(self._log).run(reader.state(at, subgraphs))

    def get_state_history(
        self,
        config: RunnableConfig,
        *,
        filter: Mapping[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
        every: bool = False,
    ) -> Iterator[StateSnapshot]:
        """The checkpoints of a thread, newest first, one at a time; as in LangGraph only the one
        that the config names, if it names one.

        Args:
            filter: only those whose metadata has these values; ``{"source": "interrupt"}`` finds
                each interrupt.
            before: only those older than the checkpoint of this config.
            limit: at most this many.
            every: every checkpoint that the log has, as it was recorded: also each interrupt of a
                superstep (``source="interrupt"``) and where each fork begins; an input is one
                checkpoint (``source="input"``), not one before and one after it.
        """
        sync_concurrency(self._log)
        return iterate_sync(self.history(config, filter, before, limit, every))

    async def aget_state_history(
        self,
        config: RunnableConfig,
        *,
        filter: Mapping[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
        every: bool = False,
    ) -> AsyncGenerator[StateSnapshot, None]:
        """:meth:`get_state_history` for async code."""
        found = self.history(config, filter, before, limit, every)
        async with aclosing(iterate(async_concurrency(self._log), found, AHEAD)) as snapshots:
            async for snapshot in snapshots:
                yield snapshot

    def events(self, config: RunnableConfig) -> Iterator[AuditEntry]:
        """The audit trail of a thread, oldest first: who wrote what, when, and what it led to.

        With the ``checkpoint_ns`` of a subgraph, that of the subgraph.

        Raises:
            ThreadNotFoundError: no such thread.
            CorruptEventError: the log was damaged or tampered with.
        """
        sync_concurrency(self._log)
        reader, at = self._find(config)
        return iterate_sync(reader.audit(at.thread_id, at.ns))

    async def aevents(self, config: RunnableConfig) -> AsyncGenerator[AuditEntry, None]:
        """:meth:`events` for async code."""
        reader, at = self._find(config)
        found = reader.audit(at.thread_id, at.ns)
        async with aclosing(iterate(async_concurrency(self._log), found, AHEAD)) as entries:
            async for entry in entries:
                yield entry

    def verify(self, config: RunnableConfig) -> VerifyReport:
        """Check a thread: digest chain, payloads, and that its snapshots equal their replay.

        Raises:
            ThreadNotFoundError: no such thread.
        """
        return self._drive(self._verified(config))

    async def averify(self, config: RunnableConfig) -> VerifyReport:
        """:meth:`verify` for async code."""
        return await async_concurrency(self._log).run(self._verified(config))

    def replay(
        self, config: RunnableConfig, *, upto: RunnableConfig | int | None = None
    ) -> StateSnapshot:
        """The state folded from the first event with the current reducers.

        Snapshots are not used, and nothing is written.

        Args:
            upto: the checkpoint to end at, by its config, or the seq of an event of the thread's
                own log, also in the middle of a superstep; by default what ``config`` names.

        Raises:
            PositionNotFoundError: the event does not exist, or was trimmed.
        """
        return self._drive(self._replayed(config, upto))

    async def areplay(
        self, config: RunnableConfig, *, upto: RunnableConfig | int | None = None
    ) -> StateSnapshot:
        """:meth:`replay` for async code."""
        return await async_concurrency(self._log).run(self._replayed(config, upto))

    def rebuild(self, config: RunnableConfig) -> int:
        """Delete the snapshots of a thread and fold it again, after a change of reducers, say.

        Returns:
            The number of snapshots deleted.

        Raises:
            ThreadNotFoundError: no such thread.
        """
        return self._drive(self._rebuilt(config))

    async def arebuild(self, config: RunnableConfig) -> int:
        """:meth:`rebuild` for async code."""
        return await async_concurrency(self._log).run(self._rebuilt(config))

    def check_replay(
        self,
        config: RunnableConfig,
        *,
        nodes: Sequence[str] | None = None,
        same: Same | None = None,
        context: Any = None,
    ) -> ReplayReport:
        """Run the current nodes on what a thread has recorded, and compare their writes.

        Each recorded task runs on its recorded state, with its recorded resume values. Nothing is
        written, but the nodes *are* called: replace what has effects outside. The logs of
        subgraphs are checked with their own graphs. Failed tasks are not run.

        Args:
            nodes: check only these nodes, of any graph in the thread; by default all.
            same: decides whether a recorded and a new value of a key count as equal, where ``==``
                is too strict: ``same(key, recorded, new)``.
            context: passed to nodes as ``runtime.context``.

        Returns:
            A report: ``report.ok``, and ``report.mismatch``, the first event that differs.

        Raises:
            ThreadNotFoundError: no such thread.
        """
        return self._drive(self._check_replay(SyncRunner(), config, nodes, same, context))

    async def acheck_replay(
        self,
        config: RunnableConfig,
        *,
        nodes: Sequence[str] | None = None,
        same: Same | None = None,
        context: Any = None,
    ) -> ReplayReport:
        """:meth:`check_replay` for async code."""
        return await self._check_replay(AsyncRunner(), config, nodes, same, context)

    # --- editing ------------------------------------------------------------------------

    def update_state(
        self,
        config: RunnableConfig,
        values: Any,
        as_node: str | None = None,
    ) -> RunnableConfig:
        """Edit a thread's state as if a node had written it; its edges choose the next nodes.

        At an older checkpoint, or at one of another thread for a new thread, the edit starts a
        branch; existing history is kept.

        Args:
            values: an update, as a node would return it; ``None`` writes nothing.
            as_node: the node whose edges to follow; by default the last node that wrote.
                ``"__input__"``: the values are a new input; ``"__copy__"``, with ``values=None``:
                continue from a copy of the checkpoint.

        Returns:
            The config of the checkpoint that the edit created.

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
        """:meth:`update_state` for async code."""
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
        """:meth:`bulk_update_state` for async code."""
        return await self._edit(AsyncRunner(), config, supersteps)


CompiledStateGraph = CompiledGraph
"""LangGraph's name for :class:`CompiledGraph`."""


def _configs(
    inputs: Sequence[Any], config: RunnableConfig | Sequence[RunnableConfig] | None
) -> list[RunnableConfig | None]:
    configs: list[RunnableConfig | None] = (
        list(config) if isinstance(config, Sequence) else [config] * len(inputs)
    )
    if len(configs) != len(inputs):
        raise InvalidConfigError(
            f"batch() got {len(inputs)} inputs and {len(configs)} configs; pass one config, or "
            "one per input"
        )
    return configs
