"""LangGraph's methods on a store, sync and async: all of both savers but opening and closing.

The sync methods of a store that has to wait for an event loop run on the loop that the saver was
used in, while another thread waits; in the loop's own thread they raise ``RuntimeError``. The
async methods of a store with a blocking driver run on threads of that store.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Collection,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from datetime import timedelta
from typing import Any, Generic, Self, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from eventstore.concurrency import AHEAD, iterate, iterate_sync, run_sync
from eventstore.shell import Shell
from graph.langgraph.operations import Operations
from graph.langgraph.wire import Wire, next_version

S = TypeVar("S", bound=Shell)
T = TypeVar("T")


class StoreSaver(BaseCheckpointSaver[str], Generic[S]):
    """A saver on an event store.

    Attributes:
        store: where the threads are; retention, archives and the command line work on it.
    """

    def __init__(
        self,
        store: S,
        owned: bool,
        serde: SerializerProtocol | None,
        on_conflict: str,
        ttl: timedelta | None,
    ) -> None:
        super().__init__(serde=serde)
        self.store = store
        self._owned = owned
        self._asyncio = store.database.asyncio
        self._operations = Operations(store.core, store.concurrency, on_conflict, ttl)
        self._last: tuple[SerializerProtocol, Wire] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def _wire(self) -> Wire:
        """The border to objects for the serializer that this copy has now."""
        last = self._last
        if last is None or last[0] is not self.serde:
            self._last = last = self.serde, self._operations.wire(self.serde)
        return last[1]

    # --- waiting ----------------------------------------------------------------------------

    def _on_loop(self, operation: Awaitable[T]) -> Awaitable[T]:
        """The result of an operation, for a caller in an event loop."""
        self._note_loop()
        return self._asyncio.run(operation)

    def _note_loop(self) -> None:
        if self._asyncio.threads is None:
            self._loop = asyncio.get_running_loop()

    def _sync(self, operation: Coroutine[Any, Any, T]) -> T:
        """The result of an operation, for a caller that blocks.

        A sync node that LangGraph runs beside its event loop may call a subgraph, which then calls
        the sync methods of a saver for that loop.

        Raises:
            RuntimeError: the store waits in an event loop, and none runs in another thread.
        """
        if self._asyncio.threads is not None:
            return run_sync(operation)
        loop = self._loop
        if loop is None or not loop.is_running() or _is_in_loop():
            operation.close()
            raise RuntimeError(
                "the store of this saver waits in an event loop: its sync methods need one that "
                "runs in another thread and in which the saver was used; call the async methods"
            )

        async def wait() -> T:
            return await self._asyncio.run(operation)

        return asyncio.run_coroutine_threadsafe(wait(), loop).result()

    def _iterate_sync(self, items: AsyncIterator[T]) -> Iterator[T]:
        if self._asyncio.threads is not None:
            return iterate_sync(items)

        async def collected() -> list[T]:
            return [item async for item in items]

        return iter(self._sync(collected()))

    @property
    def ttl(self) -> timedelta | None:
        """How long retention keeps a new thread after its last event; ``None``: its policy says."""
        return self._operations.writing.ttl

    @ttl.setter
    def ttl(self, ttl: timedelta | None) -> None:
        self._operations.writing.ttl = ttl

    @property
    def conflicts(self) -> int:
        """How many checkpoints continued one that another run had continued before."""
        return self._operations.writing.conflicts

    @property
    def config_specs(self) -> list[Any]:
        """Options that a config may have besides LangGraph's own; there are none to declare."""
        return []

    def get_next_version(self, current: str | int | float | None, channel: None) -> str:
        """The version after ``current``; no other branch of a thread has it."""
        return next_version(current)

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> Self:
        """A copy that may also read these types; store, locks and caches stay shared."""
        found: Any = super().with_allowlist(extra_allowlist)
        return found  # type: ignore[no-any-return]

    # --- sync: in the saver for async code, too, where the store does not need its loop ------

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that a config names, or the latest one of its thread."""
        return self._sync(self._operations.reading.get_tuple(self._wire, config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """The checkpoints of a thread, or of all, with the greatest ids first."""
        found = self._operations.reading.list(self._wire, config, filter, before, limit)
        return self._iterate_sync(found)

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint, as the difference to its parent."""
        put = self._operations.writing.put
        return self._sync(put(self._wire, config, checkpoint, metadata, new_versions))

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Store the writes of a task for a checkpoint."""
        put_writes = self._operations.writing.put_writes
        self._sync(put_writes(self._wire, config, writes, task_id, task_path))

    def delete_thread(self, thread_id: str) -> None:
        """Delete a thread as a whole; threads copied from it stay intact."""
        self._sync(self._operations.upkeep.delete_thread(str(thread_id)))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints of these runs, in all threads, with their writes."""
        self._sync(self._operations.upkeep.delete_for_runs(self._wire, run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Let a new thread go on from the end of another, without copying anything.

        Raises:
            ThreadExistsError: the target exists.
        """
        copy = self._operations.upkeep.copy_thread
        self._sync(copy(str(source_thread_id), str(target_thread_id)))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Keep only the latest checkpoint of each namespace of these threads, or nothing."""
        self._sync(self._operations.upkeep.prune(self._wire, thread_ids, strategy))

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """What each channel is made of at a checkpoint: a stored value, and the writes since."""
        history = self._operations.reading.delta_history
        return self._sync(history(self._wire, config, channels))

    # --- async: in the saver for sync code, too, on the threads of its store ----------------

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that a config names, or the latest one of its thread."""
        return await self._on_loop(self._operations.reading.get_tuple(self._wire, config))

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """The checkpoints of a thread, or of all, with the greatest ids first."""
        found = self._operations.reading.list(self._wire, config, filter, before, limit)
        self._note_loop()
        async with aclosing(iterate(self._asyncio, found, AHEAD)) as items:
            async for item in items:
                yield item

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint, as the difference to its parent."""
        put = self._operations.writing.put
        return await self._on_loop(put(self._wire, config, checkpoint, metadata, new_versions))

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Store the writes of a task for a checkpoint."""
        put_writes = self._operations.writing.put_writes
        await self._on_loop(put_writes(self._wire, config, writes, task_id, task_path))

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete a thread as a whole; threads copied from it stay intact."""
        delete = self._operations.upkeep.delete_thread
        await self._on_loop(delete(str(thread_id)))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints of these runs, in all threads, with their writes."""
        delete = self._operations.upkeep.delete_for_runs
        await self._on_loop(delete(self._wire, run_ids))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Let a new thread go on from the end of another, without copying anything.

        Raises:
            ThreadExistsError: the target exists.
        """
        copy = self._operations.upkeep.copy_thread
        await self._on_loop(copy(str(source_thread_id), str(target_thread_id)))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Keep only the latest checkpoint of each namespace of these threads, or nothing."""
        prune = self._operations.upkeep.prune
        await self._on_loop(prune(self._wire, thread_ids, strategy))

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """What each channel is made of at a checkpoint: a stored value, and the writes since."""
        history = self._operations.reading.delta_history
        return await self._on_loop(history(self._wire, config, channels))


def _is_in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
