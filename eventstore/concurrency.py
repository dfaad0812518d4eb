"""The one way to wait: each operation is one coroutine, for sync and async callers alike.

Code that waits takes a :class:`Concurrency` and calls nothing else that waits. With
:class:`Blocking` the calling thread waits; such a coroutine never suspends, and
:func:`run_sync` runs it like a plain call. With :class:`Asyncio` an event loop runs the same
coroutine. (psycopg does the like with generators:
https://www.psycopg.org/articles/2024/09/23/async-to-sync/.)

Owns the threads of one store (:class:`StoreThreads`); those for parallel and blocking work, which
the process shares, are in :mod:`eventstore.workers`.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterator,
    Sequence,
)
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, Final, ParamSpec, Protocol, TypeVar

from eventstore.errors import StoreClosedError
from eventstore.workers import SUSPENDED, Workers, discard, renew_in_children, worker_pool

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)
P = ParamSpec("P")

STORE_THREADS: Final = 64
"""Threads on which one store runs operations for async callers: so many writes can wait for one
commit on SQLite. PostgreSQL is better reached through an asynchronous engine."""

AHEAD: Final = 32
"""Items that one operation reads at most for an asynchronous iterator of small ones."""


class Concurrency(Protocol):
    """How a coroutine waits."""

    @property
    def can_wait(self) -> bool:
        """Whether it can wait here: not so in a coroutine closed outside of its event loop."""

    async def sleep(self, seconds: float) -> None:
        """Wait that long."""

    def run(self, operation: Awaitable[T]) -> Awaitable[T]:
        """The result of a whole operation of a store, such as ``core.head("t")``.

        No coroutine itself, so that a sync call has no frame more on its way to the statement.
        """

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of a function that blocks or works for long."""

    def spawn(self, work: Coroutine[Any, Any, T]) -> Awaitable[T]:
        """Start work in parallel; it can be awaited any number of times."""


class Blocking:
    """The calling thread waits."""

    can_wait = True

    async def sleep(self, seconds: float) -> None:
        """Block the thread that long."""
        time.sleep(seconds)

    def run(self, operation: Awaitable[T]) -> Awaitable[T]:
        """The result of a whole operation of a store."""
        return operation

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of a function, called on this thread."""
        return function(*args, **kwargs)

    def spawn(self, work: Coroutine[Any, Any, T]) -> Awaitable[T]:
        """Start work on a thread of the :func:`worker_pool`."""
        return _OnThread(worker_pool().start(work))


class Asyncio:
    """An event loop waits, and runs other tasks meanwhile.

    Args:
        threads: run the operations of a store whose driver would block the loop.
    """

    def __init__(self, threads: StoreThreads | None = None) -> None:
        self.threads = threads

    @property
    def can_wait(self) -> bool:
        """Whether an event loop runs on this thread."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return False
        return True

    async def sleep(self, seconds: float) -> None:
        """Let other tasks run that long."""
        await asyncio.sleep(seconds)

    def run(self, operation: Awaitable[T]) -> Awaitable[T]:
        """The result of a whole operation of a store, on one of its threads if it has any."""
        return _ended(operation) if self.threads is None else self.threads.run(operation)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of a function, called on a thread of the :func:`worker_pool`."""
        result: T = await call_on_worker(partial(function, *args, **kwargs))
        return result

    def spawn(self, work: Coroutine[Any, Any, T]) -> Awaitable[T]:
        """Start work as a task; cancelling one that awaits it does not cancel it."""
        return _Shielded(asyncio.get_running_loop().create_task(work))


class Cancellation:
    """A cancellation that came while an operation committed: it comes out where that ends.

    So the operation learns what was committed, and no cancellation is lost.
    """

    __slots__ = ("is_due",)

    def __init__(self) -> None:
        self.is_due = False

    @staticmethod
    def defer() -> bool:
        """Let the operation that runs go on; false if it is not one of :meth:`Asyncio.run`."""
        found = _cancellation.get()
        if found is not None:
            found.is_due = True
        return found is not None

    @staticmethod
    def check() -> None:
        """Go no further in an operation whose cancellation was deferred.

        Raises:
            CancelledError: it was.
        """
        found = _cancellation.get()
        if found is not None and found.is_due:
            raise asyncio.CancelledError


_cancellation: contextvars.ContextVar[Cancellation | None] = contextvars.ContextVar(
    "eventstore_cancellation", default=None
)


async def _ended(operation: Awaitable[T]) -> T:
    """The result of an operation, or the cancellation that it deferred."""
    cancellation = Cancellation()
    before = _cancellation.get()
    _cancellation.set(cancellation)
    try:
        result = await operation
    except Exception as error:
        if cancellation.is_due:
            raise asyncio.CancelledError from error
        raise
    finally:
        _cancellation.set(before)
    if cancellation.is_due:
        raise asyncio.CancelledError
    return result


class ThreadCall(Awaitable[T]):
    """Work on a thread that an event loop awaits. Cancelling the task that awaits it does not
    cancel the work.

    Takes less time than :func:`asyncio.wrap_future` and a shield: one future of the loop is told
    the result. To the thread it is an :class:`Outcome`.
    """

    def __init__(self, threads: Workers, work: Awaitable[T]) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[T] = self._loop.create_future()
        self._begun = threading.Lock()  # held once the work has begun, or was cancelled
        self._has_ended = False
        self._over: asyncio.Future[None] | None = None
        threads.begin(work, self)

    def __await__(self) -> Generator[Any, None, T]:
        return self._waiter.__await__()

    def cancel(self) -> bool:
        """Whether the work was not begun yet, and now will not be."""
        return self._begun.acquire(blocking=False)

    async def ended(self) -> None:
        """Return when the work has ended, whatever is cancelled meanwhile."""
        if not self._waiter.cancel() and not self._waiter.cancelled():
            self._waiter.exception()  # nobody awaits it any more
        while not self._has_ended:
            self._over = self._loop.create_future()
            with suppress(asyncio.CancelledError):  # again: there is nothing else to cancel
                await self._over

    # --- called on the thread -----------------------------------------------------------

    def set_running_or_notify_cancel(self) -> bool:
        """Whether to begin."""
        return self._begun.acquire(blocking=False)

    def set_result(self, result: T) -> None:
        """End with a result."""
        self._tell(self._waiter.set_result, result)

    def set_exception(self, error: BaseException) -> None:
        """End with an error."""
        self._tell(self._waiter.set_exception, error)

    def _tell(self, end: Callable[[Any], None], outcome: Any) -> None:
        self._has_ended = True
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._end, end, outcome)

    def _end(self, end: Callable[[Any], None], outcome: Any) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_result(None)
        if not self._waiter.done():
            end(outcome)


class StoreThreads:
    """Threads on which a store with a blocking driver runs whole operations for async callers.

    A whole operation, since going to another thread for every statement costs several times
    as much.
    """

    def __init__(self) -> None:
        self._closed = False
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Begin without threads, at first and in a forked process."""
        self._pool: Workers | None = None
        self._lock = threading.Lock()

    async def run(self, operation: Awaitable[T]) -> T:
        """The result of an operation that never suspends.

        Once started it runs to its end, even if the task that awaits it is cancelled: what
        that leaves behind is the whole operation or nothing of it.
        """
        with self._lock:
            if self._closed:
                discard(operation)
                raise StoreClosedError
            if self._pool is None:
                self._pool = Workers(STORE_THREADS, "eventstore")
            call = ThreadCall(self._pool, operation)
        try:
            return await call
        except asyncio.CancelledError:
            if not call.cancel():
                await call.ended()
            raise

    @property
    def are_idle(self) -> bool:
        """Whether no thread was ever needed, so that closing waits for nothing."""
        return self._pool is None

    def close(self) -> None:
        """Start no more operations, and wait for those that are running."""
        with self._lock:
            self._closed = True
        if self._pool is not None:
            self._pool.shutdown()


class _OnThread(Awaitable[T]):
    """Work on a thread; awaiting it blocks until it is done."""

    def __init__(self, future: Future[T]) -> None:
        self._future = future

    def __await__(self) -> Generator[Any, None, T]:
        return self._future.result()
        yield  # pragma: no cover - makes this a generator, which never suspends


class _Shielded(Awaitable[T]):
    """A task that goes on when a task that awaits it is cancelled."""

    def __init__(self, task: asyncio.Task[T]) -> None:
        self._task = task

    def __await__(self) -> Generator[Any, None, T]:
        return asyncio.shield(self._task).__await__()


# --- running and closing coroutines -----------------------------------------------------


async def completed(work: Coroutine[Any, Any, T]) -> T:
    """The result of work that ends whatever is cancelled meanwhile; the cancellation follows it."""
    task = eager_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):  # again
                await asyncio.wait([task])
        raise


def eager_task(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task that has begun already, where Python can do that: it saves a turn of the loop."""
    loop = asyncio.get_running_loop()
    if sys.version_info >= (3, 12):
        return asyncio.Task(work, loop=loop, eager_start=True)
    return loop.create_task(work)


def run_sync(awaitable: Awaitable[T]) -> T:
    """The result of a coroutine that never suspends.

    Raises:
        RuntimeError: it suspended: it waits for something that needs an event loop.
    """
    running = awaitable.__await__()
    try:
        next(running)
    except StopIteration as end:
        result: T = end.value
        return result
    running.close()
    raise RuntimeError(SUSPENDED)


def iterate_sync(items: AsyncIterator[T]) -> Iterator[T]:
    """The items of an asynchronous iterator that never suspends."""
    try:
        while True:
            try:
                yield run_sync(items.__anext__())
            except StopAsyncIteration:
                return
    finally:
        close = getattr(items, "aclose", None)
        if close is not None:
            run_sync(close())


async def iterate(
    concurrency: Concurrency, items: AsyncIterator[T], ahead: int = 1
) -> AsyncGenerator[T, None]:
    """The items of an asynchronous iterator that reads a store.

    Closing it is not an operation: it waits for nothing, and works after the store is closed.

    Args:
        ahead: how many items one operation reads at most. The first reads one, and each further one
            twice as many as the one before, so that who stops early has not read much for nothing.
    """
    most = 1
    try:
        while True:
            found, end = await concurrency.run(_some(items, most))
            for item in found:
                yield item
            if isinstance(end, StopAsyncIteration):
                return
            if end is not None:
                raise end
            most = min(2 * most, ahead)
    finally:
        close = getattr(items, "aclose", None)
        if close is not None:
            await close()


async def _some(items: AsyncIterator[T], most: int) -> tuple[list[T], Exception | None]:
    """The next items, and what ended the iterator if it has ended."""
    found: list[T] = []
    try:
        while len(found) < most:
            found.append(await anext(items))
    except Exception as error:  # after the items that came before it
        return found, error
    return found, None


async def call_on_worker(function: Callable[..., T], *args: Any) -> T:
    """The result of a function that blocks or works for long, called on a thread.

    If the task that awaits it is cancelled, a call that has begun goes on without it.
    """
    asyncio.get_running_loop()  # if there is none, it raises before a coroutine is made
    call = ThreadCall(worker_pool(), _called(function, args))
    try:
        return await call
    except asyncio.CancelledError:
        call.cancel()
        raise


async def _called(function: Callable[..., T], args: Sequence[Any]) -> T:
    return function(*args)
