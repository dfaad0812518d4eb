"""The threads of this process that run coroutines which never suspend, and what forks need of them.

Owns :func:`worker_pool`, which all stores and graphs share for parallel and blocking work.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol, TypeVar
from weakref import WeakSet

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

WORKERS_MAX: Final = 1_000
"""So many because a task may itself run a graph and wait for it; each run bounds its own use."""

WORKER_NAME: Final = "eventstore-worker"

SUSPENDED: Final = (
    "a sync call reached an operation that needs an event loop; call the async method instead"
)


class Outcome(Protocol[T_contra]):
    """What a thread tells of the work that it was given, as a ``concurrent.futures.Future``."""

    def set_running_or_notify_cancel(self) -> bool:
        """Whether to begin: it was not cancelled."""

    def set_result(self, result: T_contra, /) -> None:
        """It ended with this result."""

    def set_exception(self, error: BaseException, /) -> None:
        """It ended with this error."""


class Workers(ThreadPoolExecutor):
    """Threads that share the work that waits; each starts when first needed.

    All work is coroutines that never suspend. A thread that takes one first sends for another
    thread, if more wait: so work that blocks keeps none waiting. A thread that was quick takes the
    next itself: twenty quick ones, which could not run side by side anyway, then need a thread or
    two. With a thread woken for each, all of them would compete for the interpreter with the
    one that waits for their results.
    """

    def __init__(self, count_max: int, name: str) -> None:
        super().__init__(count_max, thread_name_prefix=name)
        self._waiting: deque[tuple[object, Callable[[], object], Outcome[Any]]] = deque()
        self._is_coming = False
        self._asking = threading.Lock()

    def start(self, work: Awaitable[T]) -> Future[T]:
        """Have a thread do some work, in the caller's context."""
        future: Future[T] = Future()
        self.begin(work, future)
        return future

    def begin(self, work: Awaitable[T], outcome: Outcome[T]) -> None:
        """The same, for any kind of future."""
        context = contextvars.copy_context()
        item = work, partial(context.run, next, work.__await__()), outcome
        self._waiting.append(item)
        try:
            self._send_for_thread()
        except BaseException:
            with suppress(ValueError):  # a thread does it already
                self._waiting.remove(item)
                discard(work)
            raise

    def _send_for_thread(self) -> None:
        """Have a thread come and take what waits, unless one is on its way."""
        try:
            with self._asking:
                if self._is_coming:
                    return
                self._is_coming = True
            self.submit(self._take)
        except BaseException:
            self._is_coming = False
            raise

    def _take(self) -> None:
        self._is_coming = False
        while self._waiting:
            try:
                work, step, outcome = self._waiting.popleft()
            except IndexError:  # another thread was faster
                return
            if self._waiting:
                with suppress(RuntimeError):  # there is none: then this one takes what waits
                    self._send_for_thread()
            if not outcome.set_running_or_notify_cancel():
                discard(work)
                continue
            try:  # as in run_sync()
                step()
            except StopIteration as end:
                outcome.set_result(end.value)
            except BaseException as error:
                outcome.set_exception(error)
            else:
                outcome.set_exception(RuntimeError(SUSPENDED))
            del work, step, outcome  # the traceback of an error would keep them, and they the error


_lock = threading.Lock()
_pool: Workers | None = None


def worker_pool() -> Workers:
    """The process's threads for parallel and blocking work."""
    global _pool
    with _lock:
        if _pool is None:
            _pool = Workers(WORKERS_MAX, WORKER_NAME)
        return _pool


def discard(awaitable: object) -> None:
    """Close a coroutine that will not be run, so that Python does not warn of it."""
    close = getattr(awaitable, "close", None)
    if close is not None:
        close()


class _Renewable(Protocol):
    def renew(self) -> None:
        """Forget threads, and locks that they held."""


_renewables: WeakSet[_Renewable] = WeakSet()


def renew_in_children(renewable: _Renewable) -> None:
    """Call ``renew()`` in each process that is forked from this one, while the object exists."""
    _renewables.add(renewable)


def _renew() -> None:
    """A forked child has none of its parent's threads: it starts its own."""
    global _lock, _pool
    _lock, _pool = threading.Lock(), None
    for each in list(_renewables):
        each.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
