"""What both savers have in common: a store, its operations, and LangGraph's smaller methods."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Any, Generic, Self, TypeVar

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.serde.base import SerializerProtocol

from eventstore.shell import Shell
from graph.langgraph.operations import Operations
from graph.langgraph.wire import Wire, next_version

S = TypeVar("S", bound=Shell)


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
        self._operations = Operations(store.core, store.concurrency, on_conflict, ttl)
        self._last: tuple[SerializerProtocol, Wire] | None = None

    @property
    def _wire(self) -> Wire:
        """The border to objects for the serializer that this copy has now."""
        last = self._last
        if last is None or last[0] is not self.serde:
            self._last = last = self.serde, self._operations.wire(self.serde)
        return last[1]

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
