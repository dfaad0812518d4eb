"""Turns of the threads that use a SQLite database, and the calm in which a process can be forked.

A forked child inherits the memory of its parent, but none of its threads: a connection in use would
stay so for ever, and one to a SQLite file would even spoil the locks of those that the child opens
(https://www.sqlite.org/howtocorrupt.html, 2.6). So a fork waits, for a moment, until no connection
is in use, and those to files are closed before it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from sqlalchemy import Connection, Engine
from sqlalchemy.pool import QueuePool, StaticPool

_POLL_S: Final = 0.001

GROUP_MAX: Final = 64
"""Writes that share one transaction."""


class Turns:
    """A lock that admits threads in the order in which they arrive.

    For a database in memory, which has one connection: its pool would give that to a busy thread
    again and again, while others wait until they give up.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._line: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        turn = threading.Lock()
        turn.acquire()
        with self._lock:
            self._line.append(turn)
            if len(self._line) == 1:
                return
        turn.acquire()

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            self._line.popleft()
            if self._line:
                self._line[0].release()


class Job:
    """A write that waits for its turn, and what became of it.

    Attributes:
        joins: it is short, and may share a transaction with others.
        leads: its thread has the turn; otherwise it has ended.
    """

    def __init__(self, operation: Callable[[Connection], Any], joins: bool) -> None:
        self.operation = operation
        self.joins = joins
        self.leads = False
        self.error: BaseException | None = None
        self.result: Any = None
        self.woken = threading.Lock()
        self.woken.acquire()

    def end(self, error: BaseException | None = None) -> None:
        """Let its thread go on, with the result or with this error."""
        self.error = self.error or error
        self.woken.release()

    def outcome(self) -> Any:
        """Its result; raises its error."""
        if self.error is not None:
            raise self.error
        return self.result


class Writers:
    """The turns of the threads of this process that write to a SQLite database.

    SQLite lets one in at a time, and the others would look again and again whether it is free.
    The first of those that wait gets the next turn, and takes along what waits behind it: so many
    short writes share one commit.

    Attributes:
        turn: held by the one that writes. It may be taken without :meth:`wait` if it is free.
    """

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self._lock = threading.Lock()
        self._waiting: deque[Job] = deque()

    def wait(self, job: Job, timeout_s: float) -> bool:
        """Wait until the turn is this job's (true), or until it has ended (false).

        Raises:
            TimeoutError: others wrote all the time, and it was not begun.
        """
        with self._lock:
            if self.turn.acquire(blocking=False):
                job.leads = True
                return True
            self._waiting.append(job)
        try:
            if not job.woken.acquire(timeout=timeout_s):
                if self._withdraw(job):
                    raise TimeoutError
                job.woken.acquire()  # another thread is at it
        except BaseException:
            self._withdraw(job)
            raise
        return job.leads

    def _withdraw(self, job: Job) -> bool:
        """Wait no more; false if the job has ended, or another thread is at it."""
        with self._lock:
            waits = job in self._waiting
            if waits:
                self._waiting.remove(job)
        if waits and job.leads:
            self.leave()
        return waits

    def join(self, job: Job) -> list[Job]:
        """The job that has the turn, and those that are to share its transaction."""
        group = [job]
        with self._lock:
            if self._waiting and self._waiting[0] is job:
                self._waiting.popleft()
            while job.joins and self._waiting and len(group) < GROUP_MAX:
                if not self._waiting[0].joins:
                    break
                group.append(self._waiting.popleft())
        return group

    def leave(self) -> None:
        """Give the turn to the one that has waited longest."""
        with self._lock:
            if self._waiting:
                self._waiting[0].leads = True
                self._waiting[0].woken.release()
            else:
                self.turn.release()


def turns(engine: Engine) -> AbstractContextManager[None]:
    """The lock that each transaction needs in addition to the database's own."""
    return Turns() if is_memory(engine) else nullcontext()


def is_memory(engine: Engine) -> bool:
    """Whether an engine has a single connection, which holds a database in memory."""
    if engine.dialect.name != "sqlite":
        return False
    pool = engine.pool
    alone = isinstance(pool, QueuePool) and pool.size() == 1 and pool._max_overflow == 0
    return alone or isinstance(pool, StaticPool)


class Calm:
    """A pool of which no connection is in use, and none can be taken, until this is released.

    It holds up those who take a connection only while it lasts, so that it costs nothing otherwise.
    """

    def __init__(self, engine: Engine) -> None:
        self._pool: Any = engine.pool
        self._is_memory = is_memory(engine)
        self._released = threading.Event()

    def hold(self, deadline: float) -> bool:
        """Let nobody take a connection, and wait for those in use; whether that was in time."""
        pool, released = self._pool, self._released
        if not isinstance(pool, QueuePool):
            return True
        take = pool._do_get

        def wait_and_take() -> Any:
            released.wait()
            return take()

        pool._do_get = wait_and_take  # type: ignore[method-assign]
        while True:
            self._mutex.acquire()  # keeps those out who are about to take one
            if pool.checkedout() == 0:
                return True
            if time.monotonic() >= deadline:
                return False
            self._mutex.release()
            time.sleep(_POLL_S)

    def close_idle(self) -> None:
        """Close the connections of a pool that is calm; it opens others when it needs them."""
        if isinstance(self._pool, QueuePool) and not self._is_memory:
            self._pool.dispose()

    def release(self) -> None:
        """Let connections be taken again."""
        if isinstance(self._pool, QueuePool):
            self._pool.__dict__.pop("_do_get", None)
            self._mutex.release()
            self._released.set()

    @property
    def _mutex(self) -> Any:
        """The lock of the pool's queue; a thread may take it again."""
        return self._pool._pool.mutex
