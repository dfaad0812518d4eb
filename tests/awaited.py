"""Event loops for tests: watched ones, and one that stands in for blocking calls.

`run` is `asyncio.run` in a loop that must be left as it was found: no task that still runs, no
asynchronous generator dropped half-way, no error that nobody heard of. `opened` is a store in
such a loop, which must have all its connections back. `Heartbeat` measures how long a loop was
kept from going on.

`Awaited` is what runs the behaviour suite over the asynchronous twins: it has the methods of
`EventStore`, and each runs its namesake of `AsyncEventStore` on an event loop in a thread of
its own. While `in_place_of_blocking` lasts, the blocking methods of compiled graphs do the like.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import cached_property
from inspect import isasyncgenfunction, iscoroutinefunction
from itertools import chain
from typing import Any, Final, Self, TypeVar

from sqlalchemy import Engine, create_engine

from eventstore import AsyncEventStore, EventStore, Replay
from eventstore.codec.codec import Codec
from eventstore.concurrency import run_sync
from eventstore.core.core import Core
from graph import CompiledGraph

T = TypeVar("T")

_END: Final[Any] = object()

CALLS: Final = (
    "invoke",
    "batch",
    "get_state",
    "verify",
    "update_state",
    "bulk_update_state",
    "replay",
    "rebuild",
    "check_replay",
)
STREAMS: Final = ("stream", "get_state_history", "events")
"""The blocking methods of a compiled graph; the twin of each is named with an ``a`` before."""


# --- loops that are watched -------------------------------------------------------------


def run(main: Awaitable[T]) -> T:
    """What ``main`` returns, from an event loop in which it must have left nothing."""
    complaints: list[str] = []
    with asyncio.Runner() as runner:
        runner.get_loop().set_exception_handler(
            lambda _loop, context: complaints.append(f"{context}")
        )
        result = runner.run(_watched(main, complaints))
    assert not complaints, complaints
    return result


async def _watched(main: Awaitable[T], complaints: list[str]) -> T:
    hooks = sys.get_asyncgen_hooks()

    def dropped(generator: AsyncGenerator[Any, Any]) -> None:
        complaints.append(f"dropped before its end: {generator}")
        assert hooks.finalizer is not None
        hooks.finalizer(generator)

    sys.set_asyncgen_hooks(finalizer=dropped)
    try:
        result = await main
    finally:
        sys.set_asyncgen_hooks(finalizer=hooks.finalizer)
    complaints += [f"still running: {task}" for task in others()]
    return result


def others() -> set[asyncio.Task[Any]]:
    """The tasks of this loop besides the one that asks."""
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[AsyncEventStore]:
    """An open store of tenant ``test``, which must have every connection back in the end."""
    async with AsyncEventStore(url, **{"tenant": "test", **options}) as store:
        yield store
        assert lent(store) == 0, "connections were not given back to the pool"


def lent(store: EventStore | AsyncEventStore) -> int:
    """How many connections the store's pool has lent, if it counts them.

    Without the one that the store keeps for its next transaction. The thread that renews leases may
    borrow one for a moment.
    """
    count: Callable[[], int] | None = getattr(store.database.engine.pool, "checkedout", None)
    until = time.monotonic() + 2
    while count is not None:
        store.database.lender.pause()
        if count() == 0 or time.monotonic() > until:
            return count()
        time.sleep(0.01)
    return 0


class Heartbeat:
    """``async with Heartbeat() as heart:``; then ``heart.longest`` is the longest pause, in s."""

    EVERY_S: Final = 0.005

    def __init__(self) -> None:
        self.longest = 0.0
        self.beats = 0

    async def _beat(self) -> None:
        last = time.monotonic()
        while True:
            try:
                await asyncio.sleep(self.EVERY_S)
            finally:  # also when it is the end that was kept waiting
                now = time.monotonic()
                self.longest, last = max(self.longest, now - last), now
            self.beats += 1

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._beat())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


# --- the behaviour suite over the twins -------------------------------------------------


class Loop:
    """An event loop on a thread of its own, for callers that block."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._complaints: list[str] = []
        self._loop.set_exception_handler(
            lambda _loop, context: self._complaints.append(f"{context}")
        )
        self._thread = threading.Thread(target=self._loop.run_forever, name="test-loop")
        self._thread.start()

    def call(self, awaitable: Awaitable[T]) -> T:
        """What the awaitable comes to, awaited on the loop; the caller's context goes along."""
        assert threading.current_thread() is not self._thread, "this would wait for itself"

        async def outcome() -> tuple[Any, BaseException | None]:
            try:
                return await awaitable, None
            except BaseException as error:  # even KeyboardInterrupt is for the caller, not for us
                return None, error

        result, error = asyncio.run_coroutine_threadsafe(outcome(), self._loop).result()
        if error is not None:
            raise error
        found: T = result
        return found

    def each(self, items: AsyncIterator[T]) -> Iterator[T]:
        """The items of an asynchronous iterator, each fetched when it is asked for."""

        async def following() -> T:
            return await anext(items, _END)

        try:
            while (item := self.call(following())) is not _END:
                yield item
        finally:
            if isinstance(items, AsyncGenerator):
                self.call(items.aclose())

    def close(self) -> None:
        """End the loop; nothing may be left in it."""

        async def left() -> list[str]:
            await asyncio.sleep(0)  # whoever called last may be told before its task has ended
            return [f"still running: {task}" for task in others()]

        self._complaints += self.call(left())
        self.call(self._loop.shutdown_asyncgens())
        self.call(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        assert not self._complaints, self._complaints


class Awaited:
    """An asynchronous store with the methods of the synchronous one."""

    def __init__(self, url: str, **options: Any) -> None:
        self.loop = Loop()
        self.store = AsyncEventStore(url, **options)

    @property
    def core(self) -> Core:
        return self.store.core

    @property
    def tenant(self) -> str:
        return self.store.tenant

    @property
    def codec(self) -> Codec:
        return self.store.codec

    @cached_property
    def engine(self) -> Engine:
        """For tests that look at the tables: a second one, where the store's is asynchronous."""
        engine = self.store.database.engine
        if isinstance(engine, Engine):
            return engine
        return create_engine(engine.url, isolation_level="AUTOCOMMIT", use_native_hstore=False)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.store, name)
        if isasyncgenfunction(found):
            return lambda *args, **kwargs: _begun(self.loop.each(found(*args, **kwargs)))
        if iscoroutinefunction(found):
            return lambda *args, **kwargs: self.loop.call(found(*args, **kwargs))
        return found

    def with_tenant(self, tenant: str) -> Self:
        twin = object.__new__(type(self))
        twin.loop, twin.engine = self.loop, self.engine
        twin.store = self.store.with_tenant(tenant)
        return twin

    def replay(self, *args: Any, **kwargs: Any) -> Replay[Any]:
        found: Replay[Any] = self.loop.call(self.store.replay(*args, **kwargs))
        return replace(found, events=self.loop.each(found.events))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.loop.call(self.store.close())
        if self.engine is not self.store.database.engine:
            self.engine.dispose()
        self.loop.close()

    def __repr__(self) -> str:
        return repr(self.store)


def _begun(items: Iterator[T]) -> Iterator[T]:
    """Fails at once, as a blocking call does, where the twin fails when it is first iterated."""
    for first in items:
        return chain([first], items)
    return iter(())


def finish(checkpointer: Any, awaitable: Awaitable[T], run_sync: Callable[[Awaitable[T]], T]) -> T:
    """What a coroutine of a store's inside comes to, whichever kind of store it is."""
    return (
        checkpointer.loop.call(awaitable)
        if isinstance(checkpointer, Awaited)
        else run_sync(awaitable)
    )


def core_of(store: Any) -> Any:
    """The operations of a store's core, as blocking calls: also those that no shell has."""
    return _Operations(store)


class _Operations:
    def __init__(self, store: EventStore | Awaited) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._store.core, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if isinstance(self._store, Awaited):
                waiting = self._store.store.concurrency.run(operation(*args, **kwargs))
                return self._store.loop.call(waiting)
            return run_sync(operation(*args, **kwargs))

        return call


@contextmanager
def in_place_of_blocking(loop: Loop) -> Iterator[None]:
    """While this lasts, the blocking methods of compiled graphs run their twins on the loop."""
    import pytest  # not above: processes that tests start import this module, too

    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(CompiledGraph, name, _blocking(loop.call, f"a{name}"))
        for name in STREAMS:
            patch.setattr(CompiledGraph, name, _blocking(loop.each, f"a{name}"))
        yield


def _blocking(wait: Callable[[Any], Any], twin: str) -> Callable[..., Any]:
    return lambda graph, *args, **kwargs: wait(getattr(graph, twin)(*args, **kwargs))
