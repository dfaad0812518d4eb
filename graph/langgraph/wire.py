"""Values as LangGraph's serializers write them: the border between objects and bytes.

An ``EncryptedSerializer`` is taken apart: its inner serializer makes the bytes, of which only the
differences are encrypted (:mod:`~graph.langgraph.state.sealing`). Any other one is used as it is.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, CheckpointTuple
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.types import TASKS

from eventstore import ConfigurationError
from graph.langgraph.state.records import Saved, Typed, ordered
from graph.langgraph.state.sealing import Seal
from graph.langgraph.state.values import Value, cut

_FORMAT: Final = 4
"""Checkpoints before this format keep the tasks to send in writes of their parent."""


class Wire:
    """One serializer, and the seal for what it writes."""

    def __init__(self, serde: SerializerProtocol, seal: Seal) -> None:
        self.seal = seal
        self._serde = serde.serde if isinstance(serde, EncryptedSerializer) else serde

    def dumps(self, value: Any) -> Typed:
        """A value's type and bytes."""
        kind, data = self._serde.dumps_typed(value)
        return kind, bytes(data)

    def value(self, value: Any, base: Value | None) -> Value:
        """A channel's value in parts, those of ``base`` shared."""
        return cut(*self.dumps(value), base)

    def loads(self, kind: str, data: bytes) -> Any:
        """The value that bytes stand for."""
        return self._serde.loads_typed((kind, data))

    def load(self, value: Value) -> Any:
        """The value that parts stand for."""
        return self._serde.loads_typed((value.type, value.data))

    # --- checkpoints --------------------------------------------------------------------

    def metadata(self, saved: Saved) -> Any:
        """The metadata of a checkpoint."""
        return self.loads(*saved.meta)

    def checkpoint(self, saved: Saved) -> Checkpoint:
        """A checkpoint with the values of its channels."""
        found: Any = self.loads(*saved.head)
        values = found["channel_values"] = {}
        for name, version in found["channel_versions"].items():
            channel = saved.channels.get(name)
            if channel is not None and channel.version == version and channel.value is not None:
                values[name] = self.load(channel.value)
        checkpoint: Checkpoint = found
        return checkpoint

    def pending(self, saved: Saved) -> list[tuple[str, str, Any]]:
        """The pending writes of a checkpoint, in the order in which a superstep applies them."""
        return [
            (task, write.channel, self.loads(write.type, write.data))
            for (task, _), write in ordered(saved.writes)
        ]

    async def tuple(
        self,
        place: Mapping[str, Any],
        saved: Saved,
        find: Callable[[str, str | None], Awaitable[Saved | None]],
        metadata: Any = None,
    ) -> CheckpointTuple:
        """A checkpoint as LangGraph takes it.

        Args:
            place: its thread and namespace.
            find: finds another checkpoint, by its namespace and id.
        """
        checkpoint = self.checkpoint(saved)
        if saved.parent is not None and checkpoint.get("v", _FORMAT) < _FORMAT:
            parent = await find(place["checkpoint_ns"], saved.parent)
            if parent is not None:
                self._adopt_sends(checkpoint, parent)
        return CheckpointTuple(
            config=_config(place, saved.id),
            checkpoint=checkpoint,
            metadata=self.metadata(saved) if metadata is None else metadata,
            parent_config=_config(place, saved.parent) if saved.parent else None,
            pending_writes=self.pending(saved),
        )

    def _adopt_sends(self, checkpoint: Any, parent: Saved) -> None:
        sends = [self.loads(each.type, each.data) for each in parent.writes_to(TASKS)]
        if sends:
            versions = checkpoint["channel_versions"]
            checkpoint["channel_values"][TASKS] = sends
            versions[TASKS] = max(versions.values()) if versions else next_version(None)


def _config(place: Mapping[str, Any], checkpoint_id: str) -> RunnableConfig:
    return {"configurable": {**place, "checkpoint_id": checkpoint_id}}


class Place:
    """What a config of LangGraph's says: thread, namespace, checkpoint, and what is said of it."""

    def __init__(self, config: RunnableConfig) -> None:
        found = config.get("configurable") or {}
        if "thread_id" not in found:
            raise ConfigurationError(
                "the config names no thread; pass {'configurable': {'thread_id': …}}"
            )
        self.thread: Any = found["thread_id"]
        self.ns: str | None = found.get("checkpoint_ns")
        self.id: str | None = found.get("checkpoint_id") or None
        self.ttl: Any = found.get("ttl")
        self.metadata: Mapping[str, Any] = config.get("metadata") or {}

    @property
    def thread_id(self) -> str:
        """The thread's id as it is stored."""
        return str(self.thread)

    def at(self, ns: str) -> dict[str, Any]:
        """Thread and namespace, as configs hold them."""
        return {"thread_id": self.thread, "checkpoint_ns": ns}


def next_version(current: Any) -> str:
    """The version after one, which no other branch has.

    Its number is padded so that versions sort as text, as those of LangGraph's own savers do.
    """
    if current is None:
        number = 0
    elif isinstance(current, str):
        number = int(current.partition(".")[0])
    else:
        number = int(current)
    return f"{number + 1:032}.{secrets.token_hex(5)}"


def matches(metadata: Mapping[str, Any], wanted: Mapping[str, Any] | None) -> bool:
    """Whether metadata has all values that a filter wants."""
    return all(metadata.get(name) == value for name, value in (wanted or {}).items())
