"""Checkpointers by the names that LangGraph's users know: each is an event store to be used.

A saver opens (or is given) an :class:`~eventstore.EventStore` and closes what it opened.
Everything else a compiled graph asks of it, it asks of ``saver.store``.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from eventstore import EventStore

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine


class _Saver:
    """An event store under the name of a checkpointer."""

    def __init__(self, store: EventStore) -> None:
        self.store = store

    def setup(self) -> None:
        """Create or migrate the tables; done by itself at first use."""
        self.store.setup()

    def delete_thread(self, thread_id: str) -> None:
        """Remove a thread whole; threads forked from it stay whole.

        Raises:
            ThreadNotFoundError: no such thread.
        """
        self.store.delete_thread(thread_id)

    def close(self) -> None:
        """Close what was opened here; a connection that the caller made stays open."""
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


class MemorySaver(_Saver):
    """Keeps threads in memory: for tests and development. The same code as on disk."""

    def __init__(self, **options: Any) -> None:
        super().__init__(EventStore(":memory:", **options))


class SqliteSaver(_Saver):
    """Keeps threads in a SQLite file.

    Args:
        target: a path, a SQLAlchemy URL or engine, or a ``sqlite3.Connection``, which stays
            the caller's: it is never closed, and its transactions are not shared.
        options: as for :class:`~eventstore.EventStore` (``tenant``, ``durability``, …).
    """

    def __init__(
        self, target: str | os.PathLike[str] | URL | Engine | sqlite3.Connection, **options: Any
    ) -> None:
        super().__init__(EventStore(target, **options))

    @classmethod
    @contextmanager
    def from_conn_string(cls, conn_string: str, **options: Any) -> Iterator[Self]:
        """Open a path or URL for the length of a ``with`` block."""
        with cls(conn_string, **options) as saver:
            yield saver
