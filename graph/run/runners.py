"""Calls application code and runs tasks in parallel: on threads, or in an event loop.

The driver is written once, as coroutines, on top of a :class:`Runner`. :class:`SyncRunner` never
suspends, so ``invoke`` can run those coroutines without an event loop. :class:`AsyncRunner` awaits
asynchronous functions and runs plain ones on threads, so no node blocks the event loop.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from concurrent import futures
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Final, Literal, Self, TypeVar

from eventstore.concurrency import Asyncio, Blocking, Concurrency, call_on_worker
from eventstore.workers import discard, worker_pool
from graph.errors import InvalidTypeError

T = TypeVar("T")

Idle = tuple[float, Callable[[], float]]
"""A limit in seconds, and what tells how many have passed."""

_RACE_S: Final = 0.001
"""How long a thread waits at most for another one to give way."""


class TimeLimitExceeded(Exception):
    """Work took longer than its limit.

    Attributes:
        kind: ``run``, or ``idle`` if it made no progress for too long.
        limit_s: the limit.
    """

    def __init__(self, kind: Literal["run", "idle"], limit_s: float) -> None:
        super().__init__(kind, limit_s)
        self.kind = kind
        self.limit_s = limit_s


class _Limits:
    """How long work may still take."""

    def __init__(self, run_s: float | None, idle: Idle | None) -> None:
        self._run_s, self._idle = run_s, idle
        self._began = time.monotonic()

    def wait_s(self) -> float:
        """The seconds until the next look.

        Raises:
            TimeLimitExceeded: there are none left.
        """
        waits = []
        if self._run_s is not None:
            waits.append(self._left("run", self._run_s, time.monotonic() - self._began))
        if self._idle is not None:
            limit_s, idle_s = self._idle
            waits.append(self._left("idle", limit_s, idle_s()))
        return min(waits)

    def _left(self, kind: Literal["run", "idle"], limit_s: float, taken_s: float) -> float:
        if taken_s >= limit_s:
            raise TimeLimitExceeded(kind, limit_s)
        return limit_s - taken_s


class Runner(ABC):
    """Calls application code for one run, and collects the results of its tasks.

    Attributes:
        concurrency: how the run waits for anything else.
        concurrency_limit: the default for ``max_concurrency``: tasks of a superstep that run at the
            same time.
        is_async: whether it has an event loop.
    """

    concurrency: Concurrency
    concurrency_limit: int
    is_async = False

    @property
    def is_cancelled(self) -> bool:
        """Whether the caller has cancelled the run."""
        return False

    @abstractmethod
    def another(self) -> Self:
        """A runner of the same class, for a subgraph's run."""

    @abstractmethod
    async def call(self, name: str, is_async: bool, function: Callable[[], Any]) -> Any:
        """The result of a function of the application, awaited if it is asynchronous.

        Args:
            name: names the function in errors.

        Raises:
            InvalidTypeError: it is asynchronous, and this runner has no event loop.
        """

    @abstractmethod
    async def limited(
        self, work: Coroutine[Any, Any, T], run_s: float | None, idle: Idle | None = None
    ) -> T:
        """The result of work with a time limit.

        Args:
            run_s: seconds for all of it.
            idle: seconds without progress, and what tells how long there was none.

        Raises:
            TimeLimitExceeded: it took longer. A coroutine is cancelled; a thread runs on, and its
                result is discarded.
        """

    @abstractmethod
    def start(self, task: Coroutine[Any, Any, Any]) -> None:
        """Run a task in parallel; :meth:`next` returns its result."""

    @abstractmethod
    def put(self, item: Any) -> None:
        """Add an item for :meth:`next`; callable from any thread."""

    @abstractmethod
    async def next(self) -> list[Any]:
        """The items since the last call: results of tasks and what was :meth:`put`.

        Waits for the first one.
        """

    async def more(self) -> list[Any]:
        """Further items that are about to come, where threads race to report theirs first."""
        return []

    @abstractmethod
    async def stop(self) -> None:
        """Stop the running tasks, as far as possible."""


class SyncRunner(Runner):
    """Blocks the caller's thread; parallel tasks run on threads."""

    concurrency = Blocking()
    concurrency_limit = 32

    def __init__(self) -> None:
        self._items: SimpleQueue[Any] = SimpleQueue()

    def another(self) -> Self:
        return type(self)()

    async def call(self, name: str, is_async: bool, function: Callable[[], Any]) -> Any:
        result = None if is_async else _contained(function)
        if is_async or inspect.isawaitable(result):
            discard(result)
            raise InvalidTypeError(
                f"{name} is asynchronous, which invoke() and stream() cannot run; call ainvoke() "
                "or astream(), or make it a plain function"
            )
        return result

    async def limited(
        self, work: Coroutine[Any, Any, T], run_s: float | None, idle: Idle | None = None
    ) -> T:
        limits, future = _Limits(run_s, idle), worker_pool().start(work)
        while True:
            try:
                return future.result(limits.wait_s())
            except futures.TimeoutError:
                if future.done():  # the work raised one itself
                    raise

    def start(self, task: Coroutine[Any, Any, Any]) -> None:
        future = worker_pool().start(task)
        future.add_done_callback(self._items.put)  # no code of ours runs before: no item is lost

    def put(self, item: Any) -> None:
        self._items.put(item)

    async def next(self) -> list[Any]:
        return self._taken(self._items.get())

    async def more(self) -> list[Any]:
        try:
            return self._taken(self._items.get(timeout=_RACE_S))
        except Empty:
            return []

    def _taken(self, first: Any) -> list[Any]:
        items = [first]
        while not self._items.empty():
            items.append(self._items.get())
        return [_result(item) if isinstance(item, futures.Future) else item for item in items]

    async def stop(self) -> None:
        """Do nothing: a thread cannot be stopped. The results of its work are discarded."""


class AsyncRunner(Runner):
    """Awaits: coroutines run in the event loop, plain functions on threads."""

    concurrency = Asyncio()
    concurrency_limit = sys.maxsize
    is_async = True

    def __init__(self) -> None:
        self._items: asyncio.Queue[Any] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def is_cancelled(self) -> bool:
        """Whether the task that awaits the run was cancelled."""
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0

    def another(self) -> Self:
        return type(self)()

    async def call(self, name: str, is_async: bool, function: Callable[[], Any]) -> Any:
        if is_async:
            return await function()
        result = await call_on_worker(_contained, function)
        return await result if inspect.isawaitable(result) else result

    async def limited(
        self, work: Coroutine[Any, Any, T], run_s: float | None, idle: Idle | None = None
    ) -> T:
        task, limits = self._loop.create_task(work), _Limits(run_s, idle)
        try:
            while not task.done():
                await asyncio.wait([task], timeout=limits.wait_s())
            return task.result()
        finally:
            task.cancel()
            await asyncio.wait([task])  # it must not run beside the next attempt

    def start(self, task: Coroutine[Any, Any, Any]) -> None:
        running = self._loop.create_task(_returned(task))
        running.add_done_callback(self._items.put_nowait)
        running.add_done_callback(lambda _: discard(task))  # if it was cancelled before it began
        self._tasks.add(running)
        running.add_done_callback(self._tasks.discard)

    def put(self, item: Any) -> None:
        if threading.get_ident() == self._thread:
            self._items.put_nowait(item)
        elif not self._loop.is_closed():
            with suppress(RuntimeError):  # closed meanwhile, so nobody reads the items
                self._loop.call_soon_threadsafe(self._items.put_nowait, item)

    async def next(self) -> list[Any]:
        return self._taken(await self._items.get())

    def _taken(self, first: Any) -> list[Any]:
        items = [first]
        while not self._items.empty():
            items.append(self._items.get_nowait())
        return [_result(item) if isinstance(item, asyncio.Task) else item for item in items]

    async def stop(self) -> None:
        """Cancel the tasks and wait until they have ended. Threads run on; their results are
        discarded."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _result(ended: futures.Future[Any] | asyncio.Task[Any]) -> Any:
    """The result of a task that has ended, or its error."""
    try:
        return ended.result()
    except BaseException as error:
        return error


async def _returned(task: Coroutine[Any, Any, Any]) -> Any:
    """The result of a task, or its error: an event loop would end with a KeyboardInterrupt."""
    try:
        return await task
    except BaseException as error:
        return error


def _contained(function: Callable[[], Any]) -> Any:
    """Call a function; replace exceptions that would end our coroutines silently."""
    try:
        return function()
    except (StopIteration, GeneratorExit) as error:
        raise RuntimeError(f"the node raised {type(error).__name__}") from error
