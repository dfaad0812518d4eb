"""What a service builds on: a checkpointer made from its configuration, and a workflow around it.

Owns making and closing the checkpointer, telling failures apart from results, and the log
lines about both. Those carry names of threads and of errors, and never a state or a secret.
The blocking calls of a workflow and their asynchronous twins are written once.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypedDict, TypeVar

from eventstore import AsyncEventStore, Codec, EventStore, ThreadInfo, ThreadNotFoundError
from eventstore.concurrency import run_sync
from graph.app import CompiledGraph, Saver
from graph.config import ConnectionString, PersistenceConfig, target_of
from graph.errors import (
    InvalidConfigError,
    InvalidGraphError,
    PersistenceConfigError,
    WorkflowError,
)
from graph.savers import (
    AsyncPostgresSaver,
    AsyncSqliteSaver,
    MemorySaver,
    PostgresSaver,
    SqliteSaver,
)
from graph.state_graph import StateGraph
from graph.types import START, Command, Interrupt, RunnableConfig, StateSnapshot

__all__ = [
    "ConnectionString",
    "PersistenceConfig",
    "PersistenceConfigError",
    "ProductionWorkflow",
    "WorkflowError",
    "WorkflowStatus",
    "create_async_production_checkpointer",
    "create_production_checkpointer",
]

log = logging.getLogger(__name__)

T = TypeVar("T")


# --- checkpointers ----------------------------------------------------------------------


def create_production_checkpointer(
    config: PersistenceConfig,
) -> MemorySaver | SqliteSaver | PostgresSaver:
    """The checkpointer that a configuration asks for, with its tables set up; close it at the end.

    Raises:
        ConfigurationError: it cannot be opened like this.
        StoreUnavailableError: the database does not answer.
    """
    saver: MemorySaver | SqliteSaver | PostgresSaver
    if config.backend == "postgres":
        saver = PostgresSaver(target_of(config), **_options(config))
    elif config.backend == "sqlite":
        saver = SqliteSaver(target_of(config), **_options(config))
    else:
        saver = MemorySaver(**_options(config))
    try:
        saver.setup()
    except BaseException:
        saver.close()
        raise
    _log_opened(config)
    return saver


async def create_async_production_checkpointer(
    config: PersistenceConfig,
) -> MemorySaver | AsyncSqliteSaver | AsyncPostgresSaver:
    """As :func:`create_production_checkpointer`, for event loops. In memory one serves both."""
    if config.backend == "memory":
        memory = MemorySaver(**_options(config))
        memory.setup()
        _log_opened(config)
        return memory
    saver: AsyncSqliteSaver | AsyncPostgresSaver
    if config.backend == "postgres":
        saver = AsyncPostgresSaver(target_of(config), **_options(config))
    else:
        saver = AsyncSqliteSaver(target_of(config), **_options(config))
    try:
        await saver.setup()
    except BaseException:
        await saver.close()
        raise
    _log_opened(config)
    return saver


def _options(config: PersistenceConfig) -> dict[str, Any]:
    options: dict[str, Any] = {
        "tenant": config.tenant,
        "durability": config.durability,
        "codec": Codec(compress=config.enable_compression),
    }
    if config.backend == "postgres":
        options |= {
            "schema": config.db_schema,
            "pool_min_size": config.pool_min_size,
            "pool_max_size": config.pool_max_size,
            "pool_timeout": config.pool_timeout_s,
        }
    return options


def _log_opened(config: PersistenceConfig) -> None:
    log.info(
        "checkpointer open on %s, tenant %r",
        config.backend,
        config.tenant,
        extra={"backend": config.backend, "tenant": config.tenant},
    )


# --- a workflow -------------------------------------------------------------------------


class WorkflowStatus(TypedDict):
    """What ``get_status`` tells.

    Attributes:
        next_nodes: what runs next; empty when the run is complete.
        created_at: when this state came about; ISO 8601, UTC. ``None`` without a thread.
        status: ``running``, ``waiting``, ``failed`` or ``idle``; ``None`` without a thread.
        updated_at: when something was last recorded, to the minute.
        interrupts: the questions that wait for answers.
        error: of the task that failed, ``"Type: message"``.
    """

    thread_id: str
    values: dict[str, Any]
    next_nodes: tuple[str, ...]
    created_at: str | None
    status: str | None
    updated_at: str | None
    interrupts: tuple[Interrupt, ...]
    error: str | None


@dataclass(frozen=True)
class _Calls:
    """How a workflow reaches its graph and its store: at once, or by awaiting them."""

    invoke: Callable[[Any, RunnableConfig], Awaitable[dict[str, Any]]]
    update_state: Callable[[RunnableConfig, Any, str | None], Awaitable[RunnableConfig]]
    get_state: Callable[[RunnableConfig], Awaitable[StateSnapshot]]
    thread: Callable[[str], Awaitable[ThreadInfo]]


class ProductionWorkflow:
    """A graph with its checkpointer, for a service. A context manager, blocking or ``async``.

    Either give it a graph, or override ``_build_graph`` in a subclass, which returns one that
    is compiled with ``self.checkpointer``.

    Args:
        checkpointer: stays the caller's and open; by default one is made of the configuration,
            for blocking calls first of all. :meth:`acreate` makes one for event loops.

    Attributes:
        app: the compiled graph, for everything else.
    """

    def __init__(
        self,
        config: PersistenceConfig,
        graph: StateGraph | None = None,
        *,
        checkpointer: EventStore | AsyncEventStore | Saver | None = None,
    ) -> None:
        self.config = config
        self.logger = log
        self._graph = graph
        self._owned: Saver | None = None
        if checkpointer is None:
            checkpointer = self._owned = create_production_checkpointer(config)
        self.checkpointer = checkpointer
        try:
            self.app = self._build_graph()
        except BaseException:
            self.close()
            raise

    @classmethod
    async def acreate(cls, config: PersistenceConfig, graph: StateGraph | None = None) -> Self:
        """A workflow on a checkpointer for event loops, for ``aexecute`` and the other twins."""
        checkpointer = await create_async_production_checkpointer(config)
        try:
            workflow = cls(config, graph, checkpointer=checkpointer)
        except BaseException:
            await _aclose(checkpointer)
            raise
        workflow._owned = checkpointer
        return workflow

    def _build_graph(self) -> CompiledGraph:
        """Compile the graph with ``self.checkpointer``; to be overridden for anything more."""
        if self._graph is None:
            raise InvalidGraphError(
                f"{type(self).__name__} has no graph: pass one, or override _build_graph()"
            )
        return self._graph.compile(checkpointer=self.checkpointer)

    # --- running and looking ------------------------------------------------------------

    def execute(self, thread_id: str, initial_state: Any) -> dict[str, Any]:
        """Run with an input, to the end or to where the run has to stop; returns the output.

        Raises:
            WorkflowError: whatever went wrong. What was recorded is kept, and :meth:`resume`
                goes on from there.
        """
        return run_sync(self._run(self._at_once(), thread_id, initial_state, None))

    async def aexecute(self, thread_id: str, initial_state: Any) -> dict[str, Any]:
        """:meth:`execute` for event loops."""
        return await self._run(self._awaited(), thread_id, initial_state, None)

    def resume(self, thread_id: str, updates: Any = None, *, answer: Any = None) -> dict[str, Any]:
        """Go on from where the thread stands, after a failure, a stop, a question or a crash.

        Args:
            updates: written to the state first, as if the node that wrote last had written them;
                what is to run next stays so, if its edges still lead there.
            answer: to the question that waits (see ``get_status(…)["interrupts"]``); or, where
                there are several, a mapping of their ids to answers.

        Raises:
            WorkflowError: whatever went wrong; the updates may have been recorded.
        """
        return run_sync(self._run(self._at_once(), thread_id, *_going_on(updates, answer)))

    async def aresume(
        self, thread_id: str, updates: Any = None, *, answer: Any = None
    ) -> dict[str, Any]:
        """:meth:`resume` for event loops."""
        return await self._run(self._awaited(), thread_id, *_going_on(updates, answer))

    def get_status(self, thread_id: str) -> WorkflowStatus:
        """Where a thread stands. Of one that is not there the values are empty."""
        return run_sync(self._status(self._at_once(), thread_id))

    async def aget_status(self, thread_id: str) -> WorkflowStatus:
        """:meth:`get_status` for event loops."""
        return await self._status(self._awaited(), thread_id)

    async def _run(
        self, calls: _Calls, thread_id: str, initial_state: Any, updates: Any
    ) -> dict[str, Any]:
        config = _config(thread_id)
        said = {"thread_id": thread_id}
        try:
            if updates:
                await self._update(calls, config, updates)
            result = await calls.invoke(initial_state, config)
        except Exception as error:
            said["error"] = type(error).__name__  # its message may quote the state
            self.logger.error("thread %r: run failed: %s", thread_id, said["error"], extra=said)
            raise WorkflowError(thread_id, await self._standing(calls, thread_id), error) from error
        self.logger.info("thread %r: run ended", thread_id, extra=said)
        return result

    async def _update(self, calls: _Calls, config: RunnableConfig, updates: Any) -> None:
        as_node = None
        if len(self.app.topology.nodes) == 1 and (await calls.get_state(config)).next:
            # Of a single node update_state takes every update to be its own, as LangGraph does,
            # even while it has yet to run; resuming would then skip it without a word.
            as_node = START
        await calls.update_state(config, updates, as_node)

    async def _standing(self, calls: _Calls, thread_id: str) -> StateSnapshot | None:
        try:
            return await calls.get_state(_config(thread_id))
        except Exception as error:  # such as the database's being gone, which may be the failure
            self.logger.warning(
                "thread %r: its state could not be read: %s",
                thread_id,
                type(error).__name__,
                extra={"thread_id": thread_id, "error": type(error).__name__},
            )
            return None

    async def _status(self, calls: _Calls, thread_id: str) -> WorkflowStatus:
        state = await calls.get_state(_config(thread_id))
        try:
            thread: ThreadInfo | None = await calls.thread(thread_id)
        except ThreadNotFoundError:
            thread = None
        # The thread's own time is rewritten once a minute at most, and may be the older one.
        times = [state.created_at, thread.active_at.isoformat() if thread else None]
        return {
            "thread_id": thread_id,
            "values": state.values,
            "next_nodes": state.next,
            "created_at": state.created_at,
            "status": thread.status if thread else None,
            "updated_at": max(filter(None, times), default=None),
            "interrupts": state.interrupts,
            "error": next((task.error for task in state.tasks if task.error), None),
        }

    def _at_once(self) -> _Calls:
        return _Calls(
            _now(self.app.invoke),
            _now(self.app.update_state),
            _now(self.app.get_state),
            lambda thread_id: self._store.core.thread(thread_id),
        )

    def _awaited(self) -> _Calls:
        store = self._store
        return _Calls(
            self.app.ainvoke,
            self.app.aupdate_state,
            self.app.aget_state,
            lambda thread_id: store.database.perform(store.core.thread(thread_id)),
        )

    @property
    def _store(self) -> EventStore | AsyncEventStore:
        given = self.checkpointer
        return given if isinstance(given, EventStore | AsyncEventStore) else given.store

    # --- closing ------------------------------------------------------------------------

    def close(self) -> None:
        """Close the checkpointer that was made here. A second call does nothing.

        Raises:
            InvalidConfigError: it was made by :meth:`acreate`: await :meth:`aclose`.
        """
        if isinstance(self._owned, AsyncSqliteSaver | AsyncPostgresSaver):
            raise InvalidConfigError("this workflow's checkpointer is asynchronous: await aclose()")
        if self._owned is not None:
            self._owned.store.close()

    async def aclose(self) -> None:
        """:meth:`close` for event loops."""
        if self._owned is not None:
            await _aclose(self._owned)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


def _going_on(updates: Any, answer: Any) -> tuple[Any, Any]:
    """What to go on with, and what to write before."""
    # An edit would take the question back, so what comes with an answer is written with it.
    return (None, updates) if answer is None else (Command(update=updates, resume=answer), None)


def _config(thread_id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id}}


def _now(function: Callable[..., T]) -> Callable[..., Awaitable[T]]:
    async def call(*args: Any) -> T:
        return function(*args)

    return call


async def _aclose(saver: Saver) -> None:
    store = saver.store
    if isinstance(store, AsyncEventStore):
        await store.close()
    else:
        store.close()
