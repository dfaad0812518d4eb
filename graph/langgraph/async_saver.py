"""The saver for graphs that run with ``ainvoke``. On SQLite it serves ``invoke``, too."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from eventstore import AsyncEventStore, async_store
from eventstore.concurrency import iterate, iterate_sync, run_sync
from graph.langgraph.base import StoreSaver


class AsyncEventStoreSaver(StoreSaver[AsyncEventStore]):
    """Keeps LangGraph's threads in an event store, for async code.

    Args:
        target: an ``AsyncEventStore``, or whatever one can be opened on: a path, a URL, an
            ``AsyncEngine``, an ``aiosqlite.Connection`` or a ``psycopg_pool.AsyncConnectionPool``.
        serde, on_conflict, ttl: as for :class:`~graph.langgraph.EventStoreSaver`.
        options: as for :class:`~eventstore.AsyncEventStore`.

    Its sync methods work on SQLite. On PostgreSQL they would have to wait for the event loop that
    owns the connections, and raise ``RuntimeError``.
    """

    def __init__(
        self,
        target: AsyncEventStore | async_store.Target = ":memory:",
        *,
        serde: SerializerProtocol | None = None,
        on_conflict: str = "last",
        ttl: timedelta | None = None,
        **options: Any,
    ) -> None:
        owned = not isinstance(target, AsyncEventStore)
        opened = (
            target if isinstance(target, AsyncEventStore) else AsyncEventStore(target, **options)
        )
        super().__init__(opened, owned, serde, on_conflict, ttl)

    @classmethod
    @asynccontextmanager
    async def from_conn_string(cls, conn_string: str, **options: Any) -> AsyncIterator[Self]:
        """Open a path or URL for the length of an ``async with`` block."""
        async with cls(conn_string, **options) as saver:
            yield saver

    async def setup(self) -> None:
        """Create or migrate the tables. Optional: the first use does it."""
        await self.store.setup()

    async def close(self) -> None:
        """Close the store, unless the caller opened it."""
        if self._owned:
            await self.store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    # --- async --------------------------------------------------------------------------

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that a config names, or the latest one of its thread."""
        return await self.store.concurrency.run(
            self._operations.reading.get_tuple(self._wire, config)
        )

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
        async with aclosing(iterate(self.store.concurrency, found)) as items:
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
        return await self.store.concurrency.run(
            put(self._wire, config, checkpoint, metadata, new_versions)
        )

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Store the writes of a task for a checkpoint."""
        put_writes = self._operations.writing.put_writes
        await self.store.concurrency.run(put_writes(self._wire, config, writes, task_id, task_path))

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete a thread as a whole; threads copied from it stay intact."""
        delete = self._operations.upkeep.delete_thread
        await self.store.concurrency.run(delete(str(thread_id)))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints of these runs, in all threads, with their writes."""
        delete = self._operations.upkeep.delete_for_runs
        await self.store.concurrency.run(delete(self._wire, run_ids))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Let a new thread go on from the end of another, without copying anything.

        Raises:
            ThreadExistsError: the target exists.
        """
        copy = self._operations.upkeep.copy_thread
        await self.store.concurrency.run(copy(str(source_thread_id), str(target_thread_id)))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Keep only the latest checkpoint of each namespace of these threads, or nothing."""
        prune = self._operations.upkeep.prune
        await self.store.concurrency.run(prune(self._wire, thread_ids, strategy))

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """What each channel is made of at a checkpoint: a stored value, and the writes since."""
        history = self._operations.reading.delta_history
        return await self.store.concurrency.run(history(self._wire, config, channels))

    # --- sync, on SQLite ----------------------------------------------------------------

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that a config names, or the latest one of its thread."""
        return run_sync(self._operations.reading.get_tuple(self._wire, config))

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
        return iterate_sync(found)

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint, as the difference to its parent."""
        put = self._operations.writing.put
        return run_sync(put(self._wire, config, checkpoint, metadata, new_versions))

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Store the writes of a task for a checkpoint."""
        put_writes = self._operations.writing.put_writes
        run_sync(put_writes(self._wire, config, writes, task_id, task_path))

    def delete_thread(self, thread_id: str) -> None:
        """Delete a thread as a whole; threads copied from it stay intact."""
        run_sync(self._operations.upkeep.delete_thread(str(thread_id)))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints of these runs, in all threads, with their writes."""
        run_sync(self._operations.upkeep.delete_for_runs(self._wire, run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Let a new thread go on from the end of another, without copying anything.

        Raises:
            ThreadExistsError: the target exists.
        """
        copy = self._operations.upkeep.copy_thread
        run_sync(copy(str(source_thread_id), str(target_thread_id)))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Keep only the latest checkpoint of each namespace of these threads, or nothing."""
        run_sync(self._operations.upkeep.prune(self._wire, thread_ids, strategy))

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """What each channel is made of at a checkpoint: a stored value, and the writes since."""
        history = self._operations.reading.delta_history
        return run_sync(history(self._wire, config, channels))
