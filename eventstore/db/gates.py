"""What each transaction on SQLite passes, besides the database's own locks.

Owns the turns of threads on a database in memory, and the moment of calm in which a process can be
forked: no transaction is under way, so that the child inherits no half of one and no lock.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import nullcontext
from types import TracebackType
from typing import Final

from sqlalchemy import Engine
from sqlalchemy.pool import QueuePool, StaticPool

_POLL_S: Final = 0.001


class Gate:
    """Lets any number of threads in, except while it is held."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside: set[int] = set()

    def __enter__(self) -> None:
        with self._lock:
            self._inside.add(threading.get_ident())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._inside.discard(threading.get_ident())

    def hold(self, deadline: float) -> bool:
        """Let nobody in, and wait for those inside to leave; whether they have left in time."""
        self._lock.acquire()
        while self._inside and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return not self._inside

    def release(self) -> None:
        """Let threads in again."""
        self._lock.release()

    def reset(self) -> None:
        """Forget everybody: the process was forked, and has none of the threads."""
        self.__init__()  # type: ignore[misc]


class Turns(Gate):
    """Admits one thread at a time, in the order in which they arrive.

    For a database in memory, which has one connection: its pool would give that to a busy thread
    again and again, while others wait until they give up.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._line: deque[threading.Lock] = deque()
        self._is_held = False

    def __enter__(self) -> None:
        turn = threading.Lock()
        turn.acquire()
        with self._lock:
            self._line.append(turn)
            if len(self._line) == 1:
                return
        turn.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._line.popleft()
            if self._line:
                self._line[0].release()

    def hold(self, deadline: float) -> bool:
        """Take a turn when nobody has one; whether that was so in time."""
        while not self._is_held:
            with self._lock:
                if not self._line:
                    self._line.append(threading.Lock())
                    self._is_held = True
            if not self._is_held:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(_POLL_S)
        return True

    def release(self) -> None:
        """End that turn."""
        if self._is_held:
            self._is_held = False
            self.__exit__(None, None, None)


def gate_of(engine: Engine) -> Gate | nullcontext[None]:
    """The gate in front of a database."""
    if engine.dialect.name != "sqlite":
        return nullcontext()
    return Turns() if is_alone(engine) else Gate()


def is_alone(engine: Engine) -> bool:
    """Whether an engine has a single connection, which holds a database in memory."""
    pool = engine.pool
    one = isinstance(pool, QueuePool) and pool.size() == 1 and pool._max_overflow == 0
    return one or isinstance(pool, StaticPool)
