"""The saver for sync graphs. It serves ``ainvoke``, too, on threads of the process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Self

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from eventstore import EventStore, store
from eventstore.concurrency import Asyncio, iterate_sync, run_sync
from graph.langgraph.base import StoreSaver

_BESIDE: Final = Asyncio()
_END: Any = object()


class EventStoreSaver(StoreSaver[EventStore]):
    """Keeps LangGraph's threads in an event store, as changes instead of whole states.

    Args:
        target: an ``EventStore``, or whatever one can be opened on: a path, a URL, an engine, a
            ``sqlite3.Connection`` or a ``psycopg_pool.ConnectionPool``. What the caller opened is
            not closed.
        serde: LangGraph's serializer; with an ``EncryptedSerializer`` only ciphertext is stored.
        on_conflict: two runs continue the same checkpoint: ``"last"``: both are kept, the one
            with the later checkpoint goes on as the latest, as with LangGraph's own savers;
            ``"error"``: the second one gets ``RunConflictError``; ``"branch"``: the second one goes
            on in a branch that is never the latest.
        ttl: how long retention keeps a new thread after its last event;
            ``config["configurable"]["ttl"]`` (seconds) says it for one thread.
        options: as for :class:`~eventstore.EventStore`.
    """

    def __init__(
        self,
        target: EventStore | store.Target = ":memory:",
        *,
        serde: SerializerProtocol | None = None,
        on_conflict: str = "last",
        ttl: timedelta | None = None,
        **options: Any,
    ) -> None:
        owned = not isinstance(target, EventStore)
        opened = target if isinstance(target, EventStore) else EventStore(target, **options)
        super().__init__(opened, owned, serde, on_conflict, ttl)

    @classmethod
    @contextmanager
    def from_conn_string(cls, conn_string: str, **options: Any) -> Iterator[Self]:
        """Open a path or URL for the length of a ``with`` block."""
        with cls(conn_string, **options) as saver:
            yield saver

    def setup(self) -> None:
        """Create or migrate the tables. Optional: the first use does it."""
        self.store.setup()

    def close(self) -> None:
        """Close the store, unless the caller opened it."""
        if self._owned:
            self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- sync ---------------------------------------------------------------------------

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

    # --- async, on threads of the process -----------------------------------------------

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The same as :meth:`get_tuple`."""
        return await _BESIDE.call(self.get_tuple, config)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """The same as :meth:`list`."""
        found = self.list(config, filter=filter, before=before, limit=limit)
        while (item := await _BESIDE.call(next, found, _END)) is not _END:
            yield item

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """The same as :meth:`put`."""
        return await _BESIDE.call(self.put, config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """The same as :meth:`put_writes`."""
        await _BESIDE.call(self.put_writes, config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        """The same as :meth:`delete_thread`."""
        await _BESIDE.call(self.delete_thread, thread_id)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """The same as :meth:`delete_for_runs`."""
        await _BESIDE.call(self.delete_for_runs, run_ids)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """The same as :meth:`copy_thread`."""
        await _BESIDE.call(self.copy_thread, source_thread_id, target_thread_id)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """The same as :meth:`prune`."""
        await _BESIDE.call(self.prune, thread_ids, strategy=strategy)

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """The same as :meth:`get_delta_channel_history`."""
        return await _BESIDE.call(self.get_delta_channel_history, config=config, channels=channels)
