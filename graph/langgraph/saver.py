"""The saver for sync graphs. It serves ``ainvoke``, too, on threads of the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Self

from langgraph.checkpoint.serde.base import SerializerProtocol

from eventstore import EventStore, store
from eventstore.closing import Closing
from graph.langgraph.base import StoreSaver


class EventStoreSaver(StoreSaver[EventStore], Closing):
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
