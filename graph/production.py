"""For services: a checkpointer made from a configuration, and a workflow around a graph.

Owns opening and closing the checkpointer, turning failures of a run into ``WorkflowError``, and
the log lines about both, which contain names of threads and errors but never a state or a secret.
Each operation is written once, as a coroutine; the sync and the async method of a pair differ
only in how that coroutine waits (see :mod:`eventstore.concurrency`).
"""

from __future__ import annotations

import ast
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Self, TypedDict, TypeVar

from eventstore import AsyncEventStore, Codec, EventStore, ThreadInfo, ThreadNotFoundError
from eventstore.closing import Closing
from eventstore.concurrency import Blocking, Concurrency, run_sync
from graph.app import CompiledGraph
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
    Saver,
    SqliteSaver,
    store_of,
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

S = TypeVar("S", bound=Saver)


# --- checkpointers ----------------------------------------------------------------------

_SYNC: Final[Mapping[str, Callable[..., MemorySaver | SqliteSaver | PostgresSaver]]] = {
    "memory": MemorySaver,
    "sqlite": SqliteSaver,
    "postgres": PostgresSaver,
}
_ASYNC: Final[Mapping[str, Callable[..., MemorySaver | AsyncSqliteSaver | AsyncPostgresSaver]]] = {
    "memory": MemorySaver,
    "sqlite": AsyncSqliteSaver,
    "postgres": AsyncPostgresSaver,
}


def create_production_checkpointer(
    config: PersistenceConfig,
) -> MemorySaver | SqliteSaver | PostgresSaver:
    """Open the configured checkpointer and set up its tables. The caller closes it.

    Raises:
        ConfigurationError: the database cannot be opened with this configuration.
        StoreUnavailableError: the database does not answer.
    """
    return run_sync(_open(_SYNC[config.backend], config))


async def create_async_production_checkpointer(
    config: PersistenceConfig,
) -> MemorySaver | AsyncSqliteSaver | AsyncPostgresSaver:
    """:func:`create_production_checkpointer` for async code. In memory one saver serves both."""
    return await _open(_ASYNC[config.backend], config)


async def _open(kind: Callable[..., S], config: PersistenceConfig) -> S:
    saver = kind(**_options(config))
    store = saver.store
    try:
        await store.concurrency.run(store.database.setup())
    except BaseException:
        await _close(saver)
        raise
    log.info(
        "checkpointer open on %s, tenant %r",
        config.backend,
        config.tenant,
        extra={"backend": config.backend, "tenant": config.tenant},
    )
    return saver


def _options(config: PersistenceConfig) -> dict[str, Any]:
    options: dict[str, Any] = {
        "tenant": config.tenant,
        "durability": config.durability,
        "run_lease_s": config.run_lease_s,
        "codec": Codec(compress=config.enable_compression),
    }
    if config.backend != "memory":
        options["target"] = target_of(config)
    if config.backend == "postgres":
        options |= {
            "schema": config.db_schema,
            "pool_min_size": config.pool_min_size,
            "pool_max_size": config.pool_max_size,
            "pool_timeout": config.pool_timeout_s,
        }
    return options


async def _close(saver: Saver) -> None:
    store = saver.store
    if isinstance(store, AsyncEventStore):
        await store.close()
    else:
        store.close()


# --- a workflow -------------------------------------------------------------------------


class WorkflowStatus(TypedDict):
    """The result of ``get_status``.

    Attributes:
        next_nodes: nodes that run next; empty when the run is complete.
        created_at: when this state was recorded; ISO 8601, UTC. ``None`` without a thread.
        status: ``running``, ``waiting``, ``failed`` or ``idle``; ``None`` without a thread.
        updated_at: when the thread was last active, to the minute.
        interrupts: the pending interrupts.
        error: ``"Type: message"`` of the task that failed.
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
class _Api:
    """The sync or the async API of a workflow's graph, and how its store is called beside it."""

    concurrency: Concurrency
    invoke: Callable[[Any, RunnableConfig], Awaitable[dict[str, Any]]]
    update_state: Callable[[RunnableConfig, Any, str | None], Awaitable[RunnableConfig]]
    get_state: Callable[[RunnableConfig], Awaitable[StateSnapshot]]


class ProductionWorkflow(Closing):
    """A graph with its checkpointer, for a service. A context manager, sync or async.

    Pass a graph, or override ``_build_graph`` in a subclass to return one that is compiled with
    ``self.checkpointer``.

    Args:
        checkpointer: an open checkpointer, which the caller closes. By default the workflow opens
            a synchronous one from the configuration; :meth:`acreate` opens an asynchronous one.

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
        """Open a workflow with an asynchronous checkpointer, for ``aexecute`` and the like."""
        checkpointer = await create_async_production_checkpointer(config)
        try:
            workflow = cls(config, graph, checkpointer=checkpointer)
        except BaseException:
            await _close(checkpointer)
            raise
        workflow._owned = checkpointer
        return workflow

    def _build_graph(self) -> CompiledGraph:
        """Compile the graph with ``self.checkpointer``; override it to do anything more."""
        if self._graph is None:
            raise InvalidGraphError(
                f"{type(self).__name__} has no graph; pass one, or override _build_graph()"
            )
        return self._graph.compile(checkpointer=self.checkpointer)

    # --- running and reading ------------------------------------------------------------

    def execute(self, thread_id: str, initial_state: Any) -> dict[str, Any]:
        """Run with an input until the run ends or is interrupted; returns the output.

        Raises:
            WorkflowError: the run failed. What was recorded is kept, and :meth:`resume` continues
                from there.
        """
        return run_sync(self._run(self._sync_api(), thread_id, initial_state, None))

    async def aexecute(self, thread_id: str, initial_state: Any) -> dict[str, Any]:
        """:meth:`execute` for async code."""
        return await self._run(self._async_api(), thread_id, initial_state, None)

    def resume(self, thread_id: str, updates: Any = None, *, answer: Any = None) -> dict[str, Any]:
        """Continue the thread after a failure, an interrupt or a crash.

        Args:
            updates: written to the state first, as if the last node had written them; the next
                nodes stay the same if that node's edges still lead there.
            answer: the resume value of the pending interrupt (``get_status(…)["interrupts"]``);
                for several, a mapping of interrupt ids to resume values.

        Raises:
            WorkflowError: the run failed; the updates may have been recorded.
        """
        return run_sync(self._run(self._sync_api(), thread_id, *_resumption(updates, answer)))

    async def aresume(
        self, thread_id: str, updates: Any = None, *, answer: Any = None
    ) -> dict[str, Any]:
        """:meth:`resume` for async code."""
        return await self._run(self._async_api(), thread_id, *_resumption(updates, answer))

    def get_status(self, thread_id: str) -> WorkflowStatus:
        """The state and status of a thread; empty if there is no such thread."""
        return run_sync(self._status(self._sync_api(), thread_id))

    async def aget_status(self, thread_id: str) -> WorkflowStatus:
        """:meth:`get_status` for async code."""
        return await self._status(self._async_api(), thread_id)

    async def _run(
        self, api: _Api, thread_id: str, initial_state: Any, updates: Any
    ) -> dict[str, Any]:
        config = _config(thread_id)
        extra = {"thread_id": thread_id}
        try:
            if updates:
                await self._update(api, config, updates)
            result = await api.invoke(initial_state, config)
        except Exception as error:
            extra["error"] = type(error).__name__  # its message may quote the state
            self.logger.error("thread %r: run failed: %s", thread_id, extra["error"], extra=extra)
            state = await self._state_if_readable(api, thread_id)
            raise WorkflowError(thread_id, state, error) from error
        self.logger.info("thread %r: run ended", thread_id, extra=extra)
        return result

    async def _update(self, api: _Api, config: RunnableConfig, updates: Any) -> None:
        as_node = None
        if len(self.app.topology.nodes) == 1 and (await api.get_state(config)).next:
            # In a graph with a single node update_state attributes every update to that node, as
            # LangGraph does, even before it has run; resuming would then skip it silently.
            as_node = START
        await api.update_state(config, updates, as_node)

    async def _state_if_readable(self, api: _Api, thread_id: str) -> StateSnapshot | None:
        try:
            return await api.get_state(_config(thread_id))
        except Exception as error:  # an unreachable database, say, which may be the failure
            self.logger.warning(
                "thread %r: its state could not be read: %s",
                thread_id,
                type(error).__name__,
                extra={"thread_id": thread_id, "error": type(error).__name__},
            )
            return None

    async def _status(self, api: _Api, thread_id: str) -> WorkflowStatus:
        state = await api.get_state(_config(thread_id))
        try:
            thread: ThreadInfo | None = await api.concurrency.run(
                self._store.core.thread(thread_id)
            )
        except ThreadNotFoundError:
            thread = None
        # The thread's active_at is written at most once a minute, so either may be the newer.
        times = [state.created_at, thread.active_at.isoformat() if thread else None]
        return {
            "thread_id": thread_id,
            "values": state.values,
            "next_nodes": state.next,
            "created_at": state.created_at,
            "status": thread.status if thread else None,
            "updated_at": max(filter(None, times), default=None),
            "interrupts": state.interrupts,
            "error": next((_plainly(task.error) for task in state.tasks if task.error), None),
        }

    def _sync_api(self) -> _Api:
        app, blocking = self.app, Blocking()
        call: Callable[..., Any] = blocking.call
        return _Api(
            blocking,
            partial(call, app.invoke),
            partial(call, app.update_state),
            partial(call, app.get_state),
        )

    def _async_api(self) -> _Api:
        app = self.app
        return _Api(self._store.database.asyncio, app.ainvoke, app.aupdate_state, app.aget_state)

    @property
    def _store(self) -> EventStore | AsyncEventStore:
        return store_of(self.checkpointer)

    # --- closing ------------------------------------------------------------------------

    def close(self) -> None:
        """Close the checkpointer if this workflow opened it. A second call does nothing.

        Raises:
            InvalidConfigError: :meth:`acreate` opened it; await :meth:`aclose` instead.
        """
        if isinstance(self._owned, AsyncSqliteSaver | AsyncPostgresSaver):
            raise InvalidConfigError(
                "this workflow has an asynchronous checkpointer; call await aclose()"
            )
        if self._owned is not None:
            self._owned.store.close()

    async def aclose(self) -> None:
        """:meth:`close` for async code."""
        if self._owned is not None:
            await _close(self._owned)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _resumption(updates: Any, answer: Any) -> tuple[Any, Any]:
    """The input to resume with, and the updates to write before it."""
    # An edit would withdraw the interrupt, so updates are written together with a resume value.
    return (None, updates) if answer is None else (Command(update=updates, resume=answer), None)


def _config(thread_id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id}}


def _plainly(error: str) -> str:
    """``"Type: message"`` of an error like ``"Type('message')"``."""
    kind, _, message = error.partition("(")
    return f"{kind}: {ast.literal_eval(message[:-1])}" if len(message) > 1 else kind
