"""The store as the views read it: from worker threads, whichever of the two APIs it has.

A view is a plain function that runs in a worker thread. Operations of a sync store run there; those
of an async store run in its event loop, and the view waits.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import anyio.from_thread

from eventstore import AsyncEventStore, EventStore, RecordedEvent
from eventstore.concurrency import iterate, iterate_sync, run_sync
from eventstore.core.core import Core
from eventstore.ui.redaction import Redaction
from graph.app import CompiledGraph

T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """What the explorer shows: a store, perhaps the application's graph, and what stays hidden.

    Attributes:
        graph: computes states with the application's reducers; ``None``: the log alone is read.
        policies: the retention policies of the operator, to say when threads will go.
        archive: URL of the archive to list.
        db: names the database in the commands that views show.
        options: further options of these commands, such as ``schema``; ``app`` and ``policies`` are
            only for those that take them.
        all_tenants: the threads of every tenant may be shown, one tenant at a time.
    """

    store: EventStore | AsyncEventStore
    graph: CompiledGraph | None = None
    redaction: Redaction = field(default_factory=Redaction)
    policies: tuple[Any, ...] = ()
    archive: str | None = None
    db: str = "$EVENTSTORE_DB"
    options: Mapping[str, str] = field(default_factory=dict)
    all_tenants: bool = False

    def of_tenant(self, tenant: str) -> Source:
        """The same for another tenant's threads.

        Raises:
            ConfigurationError: no tenant can have this name.
        """
        return replace(self, store=self.store.with_tenant(tenant))

    @property
    def core(self) -> Core:
        """The operations of the store."""
        return self.store.core

    def run(self, operation: Awaitable[T]) -> T:
        """The result of an operation of the store."""
        if isinstance(self.store, EventStore):
            return run_sync(operation)
        concurrency = self.store.concurrency

        async def wait() -> T:
            return await concurrency.run(operation)

        return anyio.from_thread.run(wait)

    def wait(self, call: Awaitable[T]) -> T:
        """The result of an asynchronous call of the application, in the event loop."""

        async def wait() -> T:
            return await call

        return anyio.from_thread.run(wait)

    def each(self, items: AsyncIterator[T]) -> Iterator[T]:
        """The items of an asynchronous iterator that reads the store."""
        if isinstance(self.store, EventStore):
            yield from iterate_sync(items)
            return
        found = iterate(self.store.concurrency, items)
        end = object()

        async def following() -> Any:
            return await anext(found, end)

        try:
            while (item := anyio.from_thread.run(following)) is not end:
                yield item
        finally:
            anyio.from_thread.run(found.aclose)

    def events(self, thread_id: str, ns: str, after: int, upto: int) -> list[RecordedEvent]:
        """The events of a thread's log after a seq, up to another, as far as they are left."""
        pages = self.run(self.core.read(thread_id, ns, after, upto))
        return [event for page in self.each(pages) for event in page]


Thunk = Callable[[], T]
