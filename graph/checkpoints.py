"""Checkpoints for programs that ask the checkpointer for them, and not the graph.

Owns ``get_tuple``, ``get``, ``list`` and their async forms, which LangGraph's savers have. A saver
here stores events, of which only a graph can make states; so the graph that was compiled with the
saver last does.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from typing import Any, Final, NamedTuple

from eventstore.concurrency import AHEAD, iterate, iterate_sync
from graph.errors import InvalidConfigError
from graph.types import RunnableConfig, StateSnapshot

_PAGE: Final = 100


class CheckpointTuple(NamedTuple):
    """A checkpoint as LangGraph's savers return it.

    Attributes:
        config: the config that reads exactly this checkpoint.
        checkpoint: its ``id``, its time (``ts``), and the state as ``channel_values``.
        metadata: as ``StateSnapshot.metadata``.
        parent_config: the config of the checkpoint before it.
        pending_writes: what finished tasks of the coming superstep wrote: (task id, key, value).
    """

    config: RunnableConfig
    checkpoint: dict[str, Any]
    metadata: dict[str, Any]
    parent_config: RunnableConfig | None
    pending_writes: list[tuple[str, str, Any]]


class Checkpoints:
    """The methods of a saver that read checkpoints."""

    _graph: Any = None

    def serve(self, graph: Any) -> None:
        """Read threads as this compiled graph understands them."""
        self._graph = graph

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that a config names, or the last one; ``None`` if there is no thread.

        Raises:
            InvalidConfigError: no graph was compiled with this saver.
        """
        return _tuple_of(self._reading().get_state(config))

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """:meth:`get_tuple` for async code."""
        return _tuple_of(await self._reading().aget_state(config))

    def get(self, config: RunnableConfig) -> dict[str, Any] | None:
        """The ``checkpoint`` of :meth:`get_tuple`."""
        found = self.get_tuple(config)
        return None if found is None else found.checkpoint

    async def aget(self, config: RunnableConfig) -> dict[str, Any] | None:
        """:meth:`get` for async code."""
        found = await self.aget_tuple(config)
        return None if found is None else found.checkpoint

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: Mapping[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """The checkpoints of a thread, newest first; without a config, of all threads in turn.

        Raises:
            InvalidConfigError: no graph was compiled with this saver.
        """
        graph = self._reading()
        graph.check_sync()
        return iterate_sync(_listed(graph, config, filter, before, limit))

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: Mapping[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """:meth:`list` for async code."""
        graph = self._reading()
        found = _listed(graph, config, filter, before, limit)
        async with aclosing(iterate(graph.core.transactions.asyncio, found, AHEAD)) as tuples:
            async for each in tuples:
                yield each

    def _reading(self) -> Any:
        if self._graph is None:
            raise InvalidConfigError(
                "this checkpointer stores events, and only a graph can make checkpoints of them; "
                "compile a graph with it before reading from it, or call app.get_state(config)"
            )
        return self._graph


BaseCheckpointSaver = Checkpoints
"""LangGraph's name for what all savers are, for annotations and ``isinstance``."""


async def _listed(
    graph: Any,
    config: RunnableConfig | None,
    filter: Mapping[str, Any] | None,
    before: RunnableConfig | None,
    limit: int | None,
) -> AsyncGenerator[CheckpointTuple, None]:
    left = limit
    async with aclosing(_configs(graph, config)) as configs:
        async for each in configs:
            async with aclosing(graph.history(each, filter, before, left)) as snapshots:
                async for snapshot in snapshots:
                    found = _tuple_of(snapshot)
                    if found is not None:
                        left = None if left is None else left - 1
                        yield found
            if left == 0:
                return


async def _configs(
    graph: Any, config: RunnableConfig | None
) -> AsyncGenerator[RunnableConfig, None]:
    """This config, or one for each thread."""
    if config is not None:
        yield config
        return
    last = None
    while page := await graph.core.threads(after=last, limit=_PAGE):
        for thread in page:
            yield {"configurable": {"thread_id": thread.thread_id}}
        last = page[-1]


def _tuple_of(snapshot: StateSnapshot) -> CheckpointTuple | None:
    if snapshot.metadata is None:
        return None
    values = snapshot.values
    checkpoint = {
        "v": 4,
        "id": snapshot.config["configurable"]["checkpoint_id"],
        "ts": snapshot.created_at,
        "channel_values": values if isinstance(values, dict) else {"__root__": values},
        "channel_versions": {},
        "versions_seen": {},
    }
    writes = [
        (task.id, key, value)
        for task in snapshot.tasks
        for key, value in (task.result.items() if isinstance(task.result, dict) else ())
    ]
    return CheckpointTuple(
        snapshot.config, checkpoint, snapshot.metadata, snapshot.parent_config, writes
    )
