"""How a run calls user code and runs tasks side by side: on threads, or in an event loop.

The driver is written once, as coroutines, over this: :class:`SyncRunner` never suspends, so that
``invoke`` can drive a run to its end at once; :class:`AsyncRunner` awaits what is asynchronous,
and runs plain functions on threads, so that no node ever blocks the event loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from concurrent import futures
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Self, TypeVar

from eventstore.concurrency import Asyncio, Blocking, Concurrency, discard, run_sync, worker_pool
from graph.errors import InvalidGraphError

T = TypeVar("T")


class TooLong(Exception):
    """Work took longer than it may."""


class Runner(ABC):
    """Calls user code for one run, and gathers what its tasks come to.

    Attributes:
        concurrency: how else the run waits.
    """

    concurrency: Concurrency

    @property
    def is_cancelled(self) -> bool:
        """Whether the caller has cancelled the run."""
        return False

    @abstractmethod
    def another(self) -> Self:
        """A runner of the same kind for a run inside this one."""

    @abstractmethod
    async def call(self, name: str, is_async: bool, function: Callable[[], Any]) -> Any:
        """What a function of the user's returns, awaited if it is asynchronous.

        Raises:
            InvalidGraphError: it is, and there is no event loop to await it in.
        """

    @abstractmethod
    async def limited(self, work: Coroutine[Any, Any, T], seconds: float) -> T:
        """The result of work that may take so long.

        Raises:
            TooLong: it took longer. What cannot be cancelled, as a thread, goes on unheeded.
        """

    @abstractmethod
    def start(self, task: Coroutine[Any, Any, Any]) -> None:
        """Run a task beside the others; what it returns is put where :meth:`next` finds it."""

    @abstractmethod
    def put(self, item: Any) -> None:
        """Hand something to :meth:`next`; from any thread."""

    @abstractmethod
    async def next(self) -> list[Any]:
        """What tasks have come to meanwhile: at least one item, waiting for it if need be."""

    @abstractmethod
    async def stop(self) -> None:
        """Make an end of the tasks that still run, as far as that is possible."""


class SyncRunner(Runner):
    """The caller's thread waits; parallel tasks run on threads."""

    concurrency = Blocking()

    def __init__(self) -> None:
        self._items: SimpleQueue[Any] = SimpleQueue()

    def another(self) -> Self:
        return type(self)()

    async def call(self, name: str, is_async: bool, function: Callable[[], Any]) -> Any:
        result = None if is_async else _contained(function)
        if is_async or inspect.isawaitable(result):
            discard(result)
            raise InvalidGraphError(
                f"{name} is asynchronous, which invoke() and stream() cannot run; call ainvoke() "
                "or astream(), or make it a plain function"
            )
        return result

    async def limited(self, work: Coroutine[Any, Any, T], seconds: float) -> T:
        context = contextvars.copy_context()
        future = worker_pool().submit(context.run, run_sync, work)
        try:
            return future.result(seconds)
        except futures.TimeoutError:
            if future.done():  # the work raised one itself
                raise
            raise TooLong from None

    def start(self, task: Coroutine[Any, Any, Any]) -> None:
        context = contextvars.copy_context()
        worker_pool().submit(context.run, self._work, task)

    def _work(self, task: Coroutine[Any, Any, Any]) -> None:
        try:
            item = run_sync(task)
        except BaseException as error:  # what is not put here would be waited for without end
            item = error
        self._items.put(item)

    def put(self, item: Any) -> None:
        self._items.put(item)

    async def next(self) -> list[Any]:
        items = [self._items.get()]
        while not self._items.empty():
            items.append(self._items.get())
        return items

    async def stop(self) -> None:
        """A thread cannot be stopped: what it comes to is not looked at any more."""


class AsyncRunner(Runner):
    """The event loop waits; coroutines run in it, plain functions on threads."""

    concurrency = Asyncio()

    def __init__(self) -> None:
        self._items: asyncio.Queue[Any] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._tasks: set[asyncio.Task[None]] = set()

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
        context = contextvars.copy_context()
        result = await asyncio.wrap_future(worker_pool().submit(context.run, _contained, function))
        return await result if inspect.isawaitable(result) else result

    async def limited(self, work: Coroutine[Any, Any, T], seconds: float) -> T:
        task = self._loop.create_task(work)
        try:
            await asyncio.wait([task], timeout=seconds)
            if task.done():
                return task.result()
            raise TooLong
        finally:
            task.cancel()
            await asyncio.wait([task])  # what it still writes must not meet the next attempt

    def start(self, task: Coroutine[Any, Any, Any]) -> None:
        running = self._loop.create_task(self._work(task))
        self._tasks.add(running)
        running.add_done_callback(self._tasks.discard)
        running.add_done_callback(lambda _: discard(task))  # if it was stopped before it began

    async def _work(self, task: Coroutine[Any, Any, Any]) -> None:
        try:
            item = await task
        except BaseException as error:  # what is not put here would be waited for without end
            item = error
        self._items.put_nowait(item)

    def put(self, item: Any) -> None:
        if threading.get_ident() == self._thread:
            self._items.put_nowait(item)
        elif not self._loop.is_closed():
            with suppress(RuntimeError):  # closed meanwhile: nobody listens any more
                self._loop.call_soon_threadsafe(self._items.put_nowait, item)

    async def next(self) -> list[Any]:
        items = [await self._items.get()]
        while not self._items.empty():
            items.append(self._items.get_nowait())
        return items

    async def stop(self) -> None:
        """Cancel them, and return when they have ended; a thread's work goes on unheeded."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _contained(function: Callable[[], Any]) -> Any:
    """What would end, unseen, a coroutine of ours, if the user's function raised it, may not."""
    try:
        return function()
    except (StopIteration, GeneratorExit) as error:
        raise RuntimeError(f"the node raised {type(error).__name__}") from error
